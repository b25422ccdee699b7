-- Conversations, and what was said in them: facts that outlive the journal. Texts are sealed where the journal has them;
-- those that were imported, here.
create table conversations (
    conversation_id uuid primary key,
    community_id    uuid not null references communities,
    entity_id       text collate "C" not null,
    platform        text not null,
    user_id         text collate "C" not null,
    started_at      timestamptz not null default now(),
    last_at         timestamptz not null default now(),
    messages        bigint not null default 0,
    unique (user_id, platform, community_id, entity_id)
);
-- Two rows for an interaction that was answered, written in the transaction of its reply: what the user said, and the
-- co-host. `archived`: the journal has it no longer.
create table messages (
    interaction_id    uuid not null,
    role              text not null check (role in ('user', 'assistant')),
    conversation_id   uuid not null references conversations on delete cascade,
    community_id      uuid not null,
    at                timestamptz not null,
    message_type      text,
    trigger_type      text,
    trigger_match     text,
    state             text,
    reason            text,
    fallback          boolean,
    provider          text,
    model             text,
    prompt_tokens     integer,
    completion_tokens integer,
    attempts          integer,
    timings           jsonb,
    archived          boolean not null default false,
    sealed            text,
    primary key (interaction_id, role)
);
create index messages_of_conversation on messages (conversation_id, at);
create index messages_by_time on messages using brin (at);
create index messages_archived on messages (community_id, at, interaction_id) where archived and role = 'assistant';
create index messages_kept on messages (community_id, at) where sealed is not null;
