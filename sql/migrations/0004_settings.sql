-- What communities set for themselves, and what an admin set for all of them (the row of the nil id): names and values.
-- Keys of theirs are sealed, in a column of their own, and never among the values.
create table settings (
    community_id uuid primary key,
    version      bigint not null default 0,
    own          jsonb not null default '{}',
    sealed_key   text,
    changed_at   timestamptz not null default now()
);

-- Who changed what, and when: rows are added and never changed. Each is chained to the one before by its hash.
create table audit (
    number       bigint primary key,
    at           text not null,
    actor        text not null,
    action       text not null,
    community_id uuid,
    details      text not null,
    hash         bytea not null
);
create index audit_by_community on audit (community_id, number);

-- Whether the channel is live, as its last stream_online or stream_offline said.
alter table entities add column live boolean;
