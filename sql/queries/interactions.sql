-- name: insert_interaction(interaction_id, community_id, entity_id, platform, session_id, user_id, message_type, trigger_type, trigger_match, dedupe_key, event_hash, event, request_id, state, reason, owner, lease_seconds)$
-- Journal an event. With an owner it is leased to that instance at once; nothing comes back when it is a repeat.
insert into interactions (
    interaction_id, community_id, entity_id, platform, session_id, user_id, message_type, trigger_type,
    trigger_match, dedupe_key, event_hash, event, request_id, state, reason, ended_at,
    lease_owner, lease_until, attempts, fence
)
values (
    :interaction_id, :community_id, :entity_id, :platform, :session_id, :user_id, :message_type, :trigger_type,
    :trigger_match, :dedupe_key, :event_hash, :event, :request_id, :state, :reason,
    case when :state = 'suppressed' then now() end,
    :owner, now() + make_interval(secs => :lease_seconds),
    case when :owner::uuid is null then 0 else 1 end, case when :owner::uuid is null then 0 else 1 end
)
on conflict (entity_id, dedupe_key) do nothing
returning interaction_id;

-- name: select_repeat(entity_id, dedupe_key)^
-- The interaction that an event repeats.
select interaction_id, trigger_type, trigger_match, event_hash
from interactions
where entity_id = :entity_id and dedupe_key = :dedupe_key;

-- name: select_interaction(interaction_id)^
-- What became of an interaction.
select interaction_id, community_id, state, trigger_type, trigger_match, reason, provider, model, prompt_tokens,
    completion_tokens, attempts, timings, event, reply, extract(epoch from received_at)::float8 as received_at
from interactions
where interaction_id = :interaction_id;

-- name: claim_interactions(slots, owner, lease_seconds)
-- Take what waits, or what an instance that gave no sign of life held, oldest first. A claim raises the fence, so
-- that the one before cannot write any more; an answered row is only to be delivered and costs no attempt.
with next as (
    select interaction_id
    from interactions
    where ended_at is null and (state = 'received' or lease_until < now())
    order by received_at
    limit :slots
    for update skip locked
)
update interactions i
set state = case when i.state = 'answered' then 'answered' else 'answering' end,
    attempts = i.attempts + case when i.state = 'answered' then 0 else 1 end,
    fence = i.fence + 1,
    lease_owner = :owner,
    lease_until = now() + make_interval(secs => :lease_seconds)
from next
where i.interaction_id = next.interaction_id
returning i.interaction_id, i.community_id, i.event, i.trigger_type, i.trigger_match, i.state, i.attempts, i.fence,
    i.deliveries, i.reply, i.fallback, i.reason, i.request_id,
    extract(epoch from now() - i.received_at)::float8 as age,
    extract(epoch from now() - i.answered_at)::float8 as answer_age;

-- name: renew_leases(lease_seconds, ids, owner)!
-- A sign of life for what this instance works on.
update interactions
set lease_until = now() + make_interval(secs => :lease_seconds)
where interaction_id = any(:ids) and lease_owner = :owner and ended_at is null;

-- name: release_leases(ids, owner)!
-- Give back what a stopping instance could not finish; the next one begins at once, and the try does not count.
update interactions
set state = case when state = 'answering' then 'received' else state end,
    attempts = attempts - case when state = 'answering' then 1 else 0 end,
    lease_until = now()
where interaction_id = any(:ids) and lease_owner = :owner and ended_at is null;

-- name: answer_interaction(reply, fallback, reason, provider, model, prompt_tokens, completion_tokens, timings, lease_seconds, interaction_id, fence)$
-- The reply, which model gave it and at what cost. Nothing comes back when the lease went to another.
update interactions
set state = 'answered', reply = :reply, fallback = :fallback, reason = :reason, provider = :provider,
    model = :model, prompt_tokens = :prompt_tokens, completion_tokens = :completion_tokens,
    timings = :timings, answered_at = now(), lease_until = now() + make_interval(secs => :lease_seconds)
where interaction_id = :interaction_id and fence = :fence and ended_at is null
returning interaction_id;

-- name: end_interaction(state, reason, deliveries, timings, interaction_id, fence)$
-- The last state; the texts go. Nothing comes back when the lease went to another.
update interactions
set state = :state, reason = coalesce(:reason, reason), deliveries = :deliveries, timings = timings || :timings::jsonb,
    ended_at = now(), event = null, reply = null, lease_owner = null, lease_until = null
where interaction_id = :interaction_id and fence = :fence and ended_at is null
returning interaction_id;
