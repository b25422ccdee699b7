-- name: insert_calls(calls)!
-- Write down calls; one that was written already stays as it is.
insert into ledger
select c.*
from json_to_recordset(:calls) as c (
    call_id uuid, called_at timestamptz, community_id uuid, interaction_id uuid, kind text, provider text, model text,
    result text, prompt_tokens int, completion_tokens int, estimated boolean, latency_ms real, first_token_ms real,
    cost numeric
)
on conflict (call_id) do nothing;

-- name: select_usage(community_id, since, until)
-- What calls cost by day (UTC), provider and model, of one community or of all, the newest day first.
-- What was `cached` was no call; `saved` is what it would have cost.
select (called_at at time zone 'utc')::date as day, provider, model, count(*) filter (where kind <> 'cached') as calls,
    count(*) filter (where result <> 'ok') as failed,
    coalesce(sum(prompt_tokens) filter (where kind <> 'cached'), 0)::bigint as prompt_tokens,
    coalesce(sum(completion_tokens) filter (where kind <> 'cached'), 0)::bigint as completion_tokens,
    bool_or(estimated) as estimated, (sum(cost) filter (where kind <> 'cached'))::float8 as cost,
    count(*) filter (where kind = 'cached') as cached, (sum(cost) filter (where kind = 'cached'))::float8 as saved
from ledger
where called_at >= :since and called_at < :until and (:community_id::uuid is null or community_id = :community_id)
group by day, provider, model
order by day desc, provider, model;

-- name: select_spent(community_id, since, but)^
-- What a community has spent since a moment, some calls aside.
select coalesce(sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)), 0)::bigint as tokens,
    coalesce(sum(cost), 0)::float8 as cost, count(*) filter (where kind = 'canned') as canned
from ledger
where (community_id, called_at) >= (:community_id::uuid, :since::timestamptz) -- which one index alone has
    and community_id <= :community_id and kind <> 'cached' and call_id <> all(:but::uuid[]);

-- name: select_spent_by_community(since, rows)
-- What communities have spent since a moment, those first that have spent most.
with calls as materialized (
    select community_id, kind, prompt_tokens, completion_tokens, cost
    from ledger
    where called_at >= :since
    order by called_at -- as one index alone has it
)
select community_id, sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))::bigint as tokens,
    coalesce(sum(cost), 0)::float8 as cost
from calls
where community_id is not null and kind <> 'cached'
group by community_id
order by tokens desc, community_id
limit :rows;
