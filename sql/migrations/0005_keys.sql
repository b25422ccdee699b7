-- Keys that were issued: of each its SHA-256 and its first characters, never itself.
create table keys (
    key_id       uuid primary key,
    digest       bytea not null unique,
    prefix       text not null,
    role         text not null check (role in ('admin', 'service', 'community')),
    community_id uuid references communities,
    label        text not null,
    created_by   text not null,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    check ((role = 'community') = (community_id is not null))
);
create index keys_by_community on keys (community_id);

-- What became of a community's interactions, the newest first; by its condition of no use to anyone else.
create index interactions_history on interactions (community_id, ended_at)
    where ended_at is not null and community_id is not null;
