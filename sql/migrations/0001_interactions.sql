-- Communities, the channels that belong to them, and the journal of interactions.

create table communities (
    community_id uuid primary key,
    name         text not null,
    created_at   timestamptz not null default now()
);

-- A channel of a platform, named by the router (`twitch:channel:98765`).
create table entities (
    entity_id    text collate "C" primary key,
    community_id uuid not null references communities,
    platform     text not null,
    created_at   timestamptz not null default now()
);
create index entities_by_community on entities (community_id);

-- One row for each event that triggered. `event` and `reply` hold text and are erased when the interaction ends.
create table interactions (
    interaction_id    uuid primary key,
    community_id      uuid not null references communities,
    entity_id         text collate "C" not null,
    platform          text not null,
    session_id        text not null,
    user_id           text collate "C" not null,
    message_type      text not null,
    trigger_type      text not null,
    trigger_match     text not null,
    dedupe_key        text collate "C",
    event_hash        bytea not null,
    event             json,
    reply             text,
    fallback          boolean not null default false,
    state             text not null default 'received' check (state in (
        'received', 'answering', 'answered', 'delivered', 'suppressed', 'expired', 'failed', 'undeliverable')),
    reason            text,
    provider          text,
    model             text,
    prompt_tokens     integer,
    completion_tokens integer,
    timings           jsonb not null default '{}',
    attempts          integer not null default 0,
    deliveries        integer not null default 0,
    lease_owner       uuid,
    lease_until       timestamptz,
    fence             integer not null default 0,
    received_at       timestamptz not null default now(),
    answered_at       timestamptz,
    ended_at          timestamptz,
    request_id        text
);
-- A repeat of an event is recognised by this index; rows without an id have none.
create unique index interactions_repeats on interactions (entity_id, dedupe_key);
-- What is still to be done, oldest first.
create index interactions_open on interactions (received_at) where ended_at is null;
