-- name: upsert_instance(instance_id, name, version, started_at, heard_at, state)!
-- A sign of life of an instance, and up to when it has heard of every change.
insert into instances (instance_id, name, version, started_at, seen_at, heard_at, state)
values (:instance_id, :name, :version, :started_at, clock_timestamp(), :heard_at, :state)
on conflict (instance_id) do update
set seen_at = clock_timestamp(), heard_at = excluded.heard_at, state = excluded.state;

-- name: select_instances(seconds)
-- The instances that gave a sign of life of late.
select instance_id, name, version, started_at, seen_at, heard_at, state
from instances
where seen_at > clock_timestamp() - make_interval(secs => :seconds)
order by started_at, instance_id;

-- name: delete_instance(instance_id, seconds)!
-- One that stops, and those that gave no sign of life for long.
delete from instances
where instance_id = :instance_id or seen_at < clock_timestamp() - make_interval(secs => :seconds);

-- name: select_moment()$
-- What time it is for the database.
select clock_timestamp();

-- name: insert_settings_version(community_id, version, own, actor, most)!
-- Settings as they are from now on; of a community only so many versions are kept.
with old as (
    delete from settings_versions where community_id = :community_id and version <= :version::bigint - :most
)
insert into settings_versions (community_id, version, own, actor)
values (:community_id, :version, :own, :actor);

-- name: select_settings_versions(community_id, before, rows)
-- How settings were, the newest first.
select version, own, actor, changed_at
from settings_versions
where community_id = :community_id and version < :before
order by version desc
limit :rows;

-- name: select_settings_version(community_id, version)$
-- How settings were at a version.
select own from settings_versions where community_id = :community_id and version = :version;

-- name: add_numbers(rows)!
-- Count what happened, by the hour and by the day (UTC). Callers sort by key, so that two instances cannot wait for
-- each other.
with new as (
    select *
    from json_to_recordset(:rows) as n (
        community_id uuid, hour timestamptz, what text, name text, bucket smallint, count bigint, prompt_tokens bigint,
        completion_tokens bigint, cost float8
    )
),
of_days as (
    insert into numbers_by_day (
        community_id, day, what, name, bucket, count, prompt_tokens, completion_tokens, cost
    )
    select community_id, date_trunc('day', hour, 'UTC') as day, what, name, bucket, sum(count), sum(prompt_tokens),
        sum(completion_tokens), sum(cost)
    from new
    group by community_id, day, what, name, bucket
    order by community_id, day, what, name, bucket
    on conflict (community_id, day, what, name, bucket) do update
    set count = numbers_by_day.count + excluded.count,
        prompt_tokens = numbers_by_day.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = numbers_by_day.completion_tokens + excluded.completion_tokens,
        cost = numbers_by_day.cost + excluded.cost
)
insert into numbers (community_id, hour, what, name, bucket, count, prompt_tokens, completion_tokens, cost)
select community_id, hour, what, name, bucket, count, prompt_tokens, completion_tokens, cost
from new
on conflict (community_id, hour, what, name, bucket) do update
set count = numbers.count + excluded.count, prompt_tokens = numbers.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = numbers.completion_tokens + excluded.completion_tokens, cost = numbers.cost + excluded.cost;

-- name: select_numbers(community_id, since, seconds)
-- What happened since a moment, in steps of so many seconds.
select extract(epoch from step)::bigint as step, what, name, bucket, count, prompt_tokens, completion_tokens, cost
from (
    select date_bin(make_interval(secs => :seconds), hour, 'epoch') as step, what, name, bucket,
        sum(count)::bigint as count, sum(prompt_tokens)::bigint as prompt_tokens,
        sum(completion_tokens)::bigint as completion_tokens, sum(cost) as cost
    from numbers
    where community_id = :community_id and hour >= :since
    group by 1, what, name, bucket
) as steps
order by step;

-- name: select_numbers_by_day(community_id, since)
-- What happened by the day (UTC), from that of a moment on.
select extract(epoch from day)::bigint as step, what, name, bucket, count, prompt_tokens, completion_tokens, cost
from numbers_by_day
where community_id = :community_id and day >= date_trunc('day', :since::timestamptz, 'UTC')
order by day;

-- name: delete_numbers(days, rows)$
-- Trim what happened long ago, a batch at a time.
with old as (
    select community_id, hour, what, name, bucket
    from numbers
    where hour < now() - make_interval(days => :days)
    limit :rows
    for update skip locked
),
gone as (
    delete from numbers n
    using old o
    where (n.community_id, n.hour, n.what, n.name, n.bucket) = (o.community_id, o.hour, o.what, o.name, o.bucket)
    returning 1
),
days_gone as (
    delete from numbers_by_day where day < now() - make_interval(days => :days)
)
select count(*) from gone;

-- name: select_open(community_id, rows)
-- What a community has under way, the newest first.
with under_way as (
    (
        select *
        from interactions
        where state = 'received' and community_id = :community_id
        order by received_at desc
        limit :rows
    )
    union all
    (
        select *
        from interactions
        where ended_at is null and lease_until is not null and community_id = :community_id and state <> 'received'
        order by received_at desc
        limit :rows
    )
)
select interaction_id, community_id, entity_id, platform, user_id, message_type, state, trigger_type, trigger_match,
    reason, provider, model, prompt_tokens, completion_tokens, attempts, fallback, timings, event, reply, received_at,
    ended_at, sealed
from under_way
order by received_at desc
limit :rows;

-- name: select_calls(community_id, interaction_id, since, until)
-- The calls of models that an interaction made, in order.
select called_at, kind, provider, model, result, prompt_tokens, completion_tokens, estimated, latency_ms,
    first_token_ms, cost::float8 as cost
from ledger
where (community_id, called_at) >= (:community_id::uuid, :since::timestamptz) -- which one index alone has
    and (community_id, called_at) < (:community_id, :until::timestamptz) and interaction_id = :interaction_id
order by community_id, called_at, call_id;

-- name: search_communities(begins, rows)
-- Communities by the beginning of their name or of a channel, with the channels of each.
with found as (
    (
        select c.community_id, c.name, c.created_at
        from communities c
        where lower(c.name) ~>=~ lower(:begins) and lower(c.name) ~<~ (lower(:begins) || chr(1114111))
        order by lower(c.name) using ~<~
        limit :rows
    )
    union
    (
        select c.community_id, c.name, c.created_at
        from entities e
        join communities c using (community_id)
        where e.entity_id >= :begins and e.entity_id < :begins || chr(1114111)
        order by e.entity_id
        limit :rows
    )
    order by name
    limit :rows
)
select f.community_id, f.name, f.created_at,
    array(select e.entity_id from entities e where e.community_id = f.community_id order by e.entity_id) as entities
from found f
order by f.name;
