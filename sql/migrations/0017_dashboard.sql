-- What the dashboard shows: the instances there are, earlier versions of settings, and what happened by the hour.
create table instances (
    instance_id uuid primary key,
    name        text not null,
    version     text not null,
    started_at  timestamptz not null,
    seen_at     timestamptz not null,
    heard_at    timestamptz,
    state       jsonb not null default '{}'
);

create table settings_versions (
    community_id uuid not null,
    version      bigint not null,
    own          jsonb not null,
    actor        text not null,
    changed_at   timestamptz not null default now(),
    primary key (community_id, version)
);
insert into settings_versions (community_id, version, own, actor, changed_at)
select community_id, version, own, '', changed_at from settings where version > 0;

-- The zero id is all communities together. A bucket is a span of time, as services/numbers.py has them.
create table numbers (
    community_id      uuid not null,
    hour              timestamptz not null,
    what              text not null check (what in ('replies', 'calls')),
    name              text not null,
    bucket            smallint not null,
    count             bigint not null,
    prompt_tokens     bigint not null,
    completion_tokens bigint not null,
    cost              float8 not null,
    primary key (community_id, hour, what, name, bucket)
);

create index communities_by_name on communities (lower(name) text_pattern_ops);
