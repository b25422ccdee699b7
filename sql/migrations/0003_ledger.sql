-- One row for each call of a model: who it was for, what it cost. Nothing of what was said.
create table ledger (
    call_id uuid primary key,
    called_at timestamptz not null,
    community_id uuid,
    interaction_id uuid,
    kind text not null check (kind in ('chat', 'embedding')),
    provider text not null,
    model text not null,
    result text not null,
    prompt_tokens int,
    completion_tokens int,
    estimated boolean not null,
    latency_ms real not null,
    first_token_ms real,
    cost numeric(16, 8)
);
create index ledger_by_community on ledger (community_id, called_at);
create index ledger_by_time on ledger (called_at);
