-- name: insert_interactions(entries, owner, lease_seconds)!
-- Journal events, all in one commit; what is not counted as inserted repeats another. Callers sort by key, so that two
-- instances cannot wait for each other. Rows come as one JSON text here and below, which costs the client less than
-- arrays of columns.
insert into interactions (
    interaction_id, community_id, entity_id, platform, session_id, user_id, message_type, trigger_type,
    trigger_match, dedupe_key, event_hash, event, request_id, state, reason, sealed, ended_at,
    lease_owner, lease_until, attempts, fence, gathered, trace
)
select interaction_id, community_id, entity_id, platform, session_id, user_id, message_type, trigger_type,
    trigger_match, dedupe_key, decode(event_hash, 'hex'), event, request_id, state, reason,
    sealed,
    case when state = 'suppressed' then now() end,
    case when state = 'answering' and gather_seconds is null then :owner::uuid end,
    case when state = 'answering' then now() + make_interval(secs => coalesce(gather_seconds, :lease_seconds)) end,
    case when state = 'answering' and gather_seconds is null then 1 else 0 end,
    case when state = 'answering' then 1 else 0 end,
    case when gather_seconds is not null then 0 end,
    trace
from json_to_recordset(:entries) as e (
    interaction_id uuid, community_id uuid, entity_id text, platform text, session_id text, user_id text,
    message_type text, trigger_type text, trigger_match text, dedupe_key text, event_hash text, event json,
    request_id text, state text, reason text, sealed text, gather_seconds float8, trace text
)
on conflict (entity_id, dedupe_key) do nothing;

-- name: let_go_of_keys(entries)!
-- What was received too long ago for these events to be repeats of it.
with old as (
    select i.interaction_id
    from json_to_recordset(:entries) as e (entity_id text, dedupe_key text, repeat_seconds float8)
    join interactions i using (entity_id, dedupe_key)
    where i.received_at < now() - make_interval(secs => e.repeat_seconds)
    order by i.interaction_id
    for update of i
)
update interactions i
set dedupe_key = null
from old
where i.interaction_id = old.interaction_id;

-- name: select_repeats(entity_ids, dedupe_keys)
-- The interactions that events repeat.
select i.entity_id, i.dedupe_key, i.interaction_id, i.trigger_type, i.trigger_match, i.event_hash
from unnest(:entity_ids::text[], :dedupe_keys::text[]) as e (entity_id, dedupe_key)
join interactions i using (entity_id, dedupe_key);

-- name: select_interaction(interaction_id)^
-- What became of an interaction.
select interaction_id, community_id, platform, message_type, state, trigger_type, trigger_match, reason, provider,
    model, prompt_tokens, completion_tokens, attempts, timings, event, reply, sealed, ended_at,
    extract(epoch from received_at)::float8 as received_at
from interactions
where interaction_id = :interaction_id;

-- name: claim_waiting(slots, share, busy_ids, busy_rooms, owner, lease_seconds)
-- Take what waits: in turns between communities, in each the oldest first and no more than its share of the slots
-- (`busy` has the room that is left to communities with work under way here). A claim raises the fence, so that
-- whoever held the row before cannot write any more. The recursion steps from community to community by the index.
with recursive communities_waiting as (
    (select community_id from interactions where state = 'received' order by community_id limit 1)
    union all
    select (
        select i.community_id
        from interactions i
        where i.state = 'received' and i.community_id > w.community_id
        order by i.community_id
        limit 1
    )
    from communities_waiting w
    where w.community_id is not null
),
next as (
    select turn.interaction_id
    from communities_waiting w
    left join unnest(:busy_ids::uuid[], :busy_rooms::int[]) as b (community_id, room) using (community_id)
    cross join lateral (
        select oldest.interaction_id, oldest.received_at, row_number() over (order by oldest.received_at) as number
        from (
            select i.interaction_id, i.received_at
            from interactions i
            where i.state = 'received' and i.community_id = w.community_id
            order by i.received_at
            limit coalesce(b.room, :share)
            for update skip locked
        ) oldest
    ) turn
    where w.community_id is not null
    order by turn.number, turn.received_at
    limit :slots
)
update interactions i
set state = 'answering', attempts = i.attempts + 1, fence = i.fence + 1, lease_owner = :owner,
    lease_until = now() + make_interval(secs => :lease_seconds)
from next
where i.interaction_id = next.interaction_id
returning i.interaction_id, i.community_id, i.event, i.trigger_type, i.trigger_match, i.state, i.attempts, i.fence,
    i.deliveries, i.reply, i.fallback, i.reason, i.request_id, i.gathered, i.trace,
    extract(epoch from now() - i.received_at)::float8 as age,
    extract(epoch from now() - i.answered_at)::float8 as answer_age;

-- name: select_waiting()^
-- How many wait for a slot, and for how many seconds the oldest of them has.
select count(*) as depth, coalesce(extract(epoch from now() - min(received_at)), 0)::float8 as oldest
from interactions
where state = 'received';

-- name: claim_due(held, slots, owner, lease_seconds)
-- Take what an instance that gave no sign of life held, and replies whose next delivery is due. What was being
-- answered goes back to wait for its turn; an answered row is only to be delivered and costs no attempt.
with next as (
    select interaction_id
    from interactions
    where ended_at is null and lease_until < now() and interaction_id <> all(:held::uuid[])
    order by lease_until
    limit :slots
    for update skip locked
)
update interactions i
set state = case when i.state = 'answered' then 'answered' else 'received' end,
    fence = i.fence + 1,
    deliveries = i.deliveries + case when i.state = 'answered' then 1 else 0 end,
    lease_owner = case when i.state = 'answered' then :owner::uuid end,
    lease_until = case when i.state = 'answered' then now() + make_interval(secs => :lease_seconds) end
from next
where i.interaction_id = next.interaction_id
returning i.interaction_id, i.community_id, i.event, i.trigger_type, i.trigger_match, i.state, i.attempts, i.fence,
    i.deliveries, i.reply, i.fallback, i.reason, i.request_id, i.gathered, i.trace,
    extract(epoch from now() - i.received_at)::float8 as age,
    extract(epoch from now() - i.answered_at)::float8 as answer_age;

-- name: renew_leases(lease_seconds, ids, owner)!
-- A sign of life for what this instance works on.
with held as (
    select interaction_id
    from interactions
    where interaction_id = any(:ids) and lease_owner = :owner and state in ('received', 'answering', 'answered')
    order by interaction_id
    for update
)
update interactions i
set lease_until = now() + make_interval(secs => :lease_seconds)
from held h
where i.interaction_id = h.interaction_id;

-- name: release_leases(ids, owner)!
-- Give back what a stopping instance could not finish; the next one begins at once, and the try does not count.
update interactions
set state = case when state = 'answering' then 'received' else state end,
    attempts = attempts - case when state = 'answering' then 1 else 0 end,
    lease_owner = null,
    lease_until = case when state = 'answering' then null else now() end
where interaction_id = any(:ids) and lease_owner = :owner and state in ('received', 'answering', 'answered');

-- name: answer_interactions(answers, lease_seconds)
-- The replies, which model gave each and at what cost. `deliveries` is 1, since each is sent at once: should this
-- instance die now, it may have been. What comes back is written; the lease of the rest went to another.
-- What was said goes into the conversation with it.
with answered as (
    update interactions i
    set state = 'answered', reply = a.reply, fallback = a.fallback, reason = a.reason, provider = a.provider,
        model = a.model, prompt_tokens = a.prompt_tokens, completion_tokens = a.completion_tokens,
        timings = a.timings, deliveries = 1, answered_at = now(),
        lease_until = now() + make_interval(secs => :lease_seconds)
    from json_to_recordset(:answers) as a (
        interaction_id uuid, fence bigint, reply text, fallback boolean, reason text, provider text, model text,
        prompt_tokens int, completion_tokens int, timings jsonb
    )
    where i.interaction_id = a.interaction_id and i.fence = a.fence and i.state in ('received', 'answering', 'answered')
    returning i.interaction_id, i.community_id, i.entity_id, i.platform, i.user_id, i.received_at, i.message_type,
        i.trigger_type, i.trigger_match, i.reason, i.fallback, i.provider, i.model, i.prompt_tokens, i.completion_tokens
),
talks as (
    insert into conversations (conversation_id, community_id, entity_id, platform, user_id, messages)
    select gen_random_uuid(), community_id, entity_id, platform, user_id, 2 * count(*)
    from answered
    where trigger_type <> 'command'
    group by community_id, user_id, platform, entity_id
    order by community_id, user_id, platform, entity_id -- as everywhere, so that no two statements wait for each other
    on conflict (community_id, user_id, platform, entity_id) do update
    set last_at = now(), messages = conversations.messages + excluded.messages
    returning conversation_id, community_id, user_id, platform, entity_id
),
said as (
    insert into messages (
        interaction_id, role, conversation_id, community_id, at, message_type, trigger_type, trigger_match,
        reason, fallback, provider, model, prompt_tokens, completion_tokens
    )
    select a.interaction_id, r.role, t.conversation_id, a.community_id,
        case r.role when 'user' then a.received_at else now() end, a.message_type, a.trigger_type, a.trigger_match,
        a.reason, a.fallback, a.provider, a.model, a.prompt_tokens, a.completion_tokens
    from answered a
    join talks t using (community_id, user_id, platform, entity_id)
    cross join (values ('user'), ('assistant')) as r (role)
    on conflict (interaction_id, role) do update
    set at = excluded.at, reason = excluded.reason, fallback = excluded.fallback, provider = excluded.provider,
        model = excluded.model, prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens
)
select interaction_id from answered;

-- name: postpone_delivery(seconds, deliveries, interaction_id, fence)!
-- The router did not take it: any instance offers it again after a while.
update interactions
set deliveries = :deliveries, lease_owner = null, lease_until = now() + make_interval(secs => :seconds)
where interaction_id = :interaction_id and fence = :fence and state in ('received', 'answering', 'answered');

-- name: end_interactions(ends)
-- The last states. The texts go, but for a reply that may be redriven, and sealed ones of a community that keeps them.
-- What comes back is written; the lease of the rest went to another.
update interactions i
set state = e.state, reason = coalesce(e.reason, i.reason), deliveries = e.deliveries,
    timings = i.timings || e.timings, ended_at = now(), lease_owner = null, lease_until = null,
    event = case when e.state = 'undeliverable' then (i.event::jsonb || '{"message_content": "", "metadata": {}}')::json end,
    reply = case when e.state = 'undeliverable' then i.reply end, sealed = coalesce(i.sealed, e.sealed)
from json_to_recordset(:ends) as e (
    interaction_id uuid, fence bigint, state text, reason text, deliveries int, timings jsonb, sealed text
)
where i.interaction_id = e.interaction_id and i.fence = e.fence and i.state in ('received', 'answering', 'answered')
returning i.interaction_id;

-- name: cancel_interactions(entity_id, dedupe_key, user_id)
-- Suppress what has not been sent: what waits, is answered now, or waits for its next delivery. The fence keeps
-- whoever works on it from sending it. A reply whose delivery runs at this moment is sent.
with unsent as (
    select interaction_id
    from interactions
    where entity_id = :entity_id and ended_at is null
        and (dedupe_key = :dedupe_key or user_id = :user_id)
        and (state <> 'answered' or lease_owner is null)
    order by interaction_id
    for update
)
update interactions i
set state = 'suppressed', reason = 'cancelled', fence = fence + 1, ended_at = now(), event = null, reply = null,
    lease_owner = null, lease_until = null, sealed = null
from unsent u
where i.interaction_id = u.interaction_id
returning i.interaction_id, i.trigger_type;

-- name: hold_back_interaction(interaction_id, reason, sealed)$
-- A limit was full. The fence keeps whoever has taken it up from sending it.
update interactions
set state = 'suppressed', reason = :reason, fence = fence + 1, ended_at = now(), event = null, reply = null,
    lease_owner = null, lease_until = null, sealed = :sealed
where interaction_id = :interaction_id and state in ('received', 'answering')
returning true;

-- name: redrive_interactions(community_id)$
-- Offer replies that the router did not take once more.
with again as (
    update interactions
    set state = 'answered', ended_at = null, reason = null, answered_at = now(), lease_until = now(), fence = fence + 1
    where state = 'undeliverable' and reply is not null
        and (:community_id::uuid is null or community_id = :community_id)
    returning 1
)
select count(*) from again;

-- name: delete_ended(seconds, rows)$
-- Trim what ended long ago, a batch at a time; what has texts that are kept for longer stays as long. What the history
-- needs of it goes there; of what was never answered that a user said something.
with old as (
    select interaction_id
    from interactions
    where ended_at < now() - make_interval(secs => :seconds) and sealed is null
    limit :rows
    for update skip locked
),
gone as (
    delete from interactions i using old where i.interaction_id = old.interaction_id
    returning i.interaction_id, i.community_id, i.entity_id, i.platform, i.user_id, i.message_type, i.trigger_type,
        i.trigger_match, i.state, i.reason, i.attempts, i.timings, i.received_at, i.ended_at
),
kept as (
    update messages m
    set archived = true, state = g.state, reason = g.reason, attempts = g.attempts, timings = g.timings,
        at = g.ended_at, platform = g.platform
    from gone g
    where m.interaction_id = g.interaction_id and m.role = 'assistant'
),
unanswered as (
    select *
    from gone g
    where g.user_id <> '' and g.trigger_type <> 'command'
        and not exists (select from messages m where m.interaction_id = g.interaction_id and m.role = 'assistant')
),
talks as (
    insert into conversations (conversation_id, community_id, entity_id, platform, user_id, started_at, last_at, messages)
    select gen_random_uuid(), community_id, entity_id, platform, user_id, min(received_at), max(ended_at), count(*)
    from unanswered
    group by community_id, user_id, platform, entity_id
    order by community_id, user_id, platform, entity_id
    on conflict (user_id, platform, community_id, entity_id) do update
    set last_at = greatest(conversations.last_at, excluded.last_at),
        messages = conversations.messages + excluded.messages
    returning conversation_id, community_id, user_id, platform, entity_id
),
said as (
    insert into messages (
        interaction_id, role, conversation_id, community_id, at, message_type, trigger_type, trigger_match, state,
        reason, attempts, timings, archived, platform
    )
    select u.interaction_id, 'user', t.conversation_id, u.community_id, u.ended_at, u.message_type, u.trigger_type,
        u.trigger_match, u.state, u.reason, u.attempts, u.timings, true, u.platform
    from unanswered u
    join talks t using (community_id, user_id, platform, entity_id)
    on conflict (interaction_id, role) do nothing
)
select count(*) from gone;

-- name: erase_kept(community_id, days, rows)$
-- Erase texts that a community has kept for long enough, a batch at a time.
with old as (
    select interaction_id
    from interactions
    where community_id = :community_id and sealed is not null
        and ended_at < now() - make_interval(days => :days)
    limit :rows
    for update skip locked
),
erased as (
    update interactions i set sealed = null from old where i.interaction_id = old.interaction_id returning 1
)
select count(*) from erased;

-- name: select_keeping()
-- Communities that have texts kept. The recursion steps from one to the next by the index.
with recursive keeping as (
    (
        select community_id from interactions
        where ended_at is not null and sealed is not null
        order by community_id
        limit 1
    )
    union all
    select (
        select i.community_id
        from interactions i
        where i.ended_at is not null and i.sealed is not null and i.community_id > k.community_id
        order by i.community_id
        limit 1
    )
    from keeping k
    where k.community_id is not null
)
select community_id from keeping where community_id is not null;

-- name: select_kept(after, rows)
-- Sealed texts by the id of their row, a batch at a time; asked for by hand.
select interaction_id, sealed from interactions
where interaction_id > :after and sealed is not null
order by interaction_id
limit :rows;

-- name: update_kept(rows)!
-- The same texts, sealed anew, unless they were erased meanwhile.
update interactions i
set sealed = r.sealed
from json_to_recordset(:rows) as r (interaction_id uuid, before text, sealed text)
where i.interaction_id = r.interaction_id and i.sealed = r.before;

-- name: erase_message(entity_id, dedupe_key)!
-- A message that was deleted where it was written is kept no longer.
with found as materialized ( -- so that no other index is thought better
    select interaction_id, sealed, ended_at from interactions where entity_id = :entity_id and dedupe_key = :dedupe_key
)
update interactions i
set sealed = null
from found f
where i.interaction_id = f.interaction_id and f.sealed is not null and f.ended_at is not null;

-- name: select_of_user(platform, user_id, community_id)
-- What is known of a person's interactions, the last first.
select interaction_id, community_id, entity_id, platform, user_id, message_type, state, trigger_type, trigger_match,
    reason, provider, model, prompt_tokens, completion_tokens, attempts, fallback, timings, event, reply, received_at,
    ended_at, sealed
from interactions
where ended_at is not null and user_id <> '' and user_id = :user_id and platform = :platform
    and (:community_id::uuid is null or community_id = :community_id)
order by ended_at desc
limit 10000;

-- name: cancel_of_user(platform, user_id, community_id)
-- What is under way for a person is not sent: the fence keeps whoever works on it from writing.
update interactions
set state = 'suppressed', reason = 'forgotten', fence = fence + 1, ended_at = now(), event = null, reply = null,
    lease_owner = null, lease_until = null, sealed = null
where ended_at is null and user_id = :user_id and platform = :platform and trigger_type <> 'command'
    and (:community_id::uuid is null or community_id = :community_id)
returning community_id;

-- name: forget_commander(platform, user_id, community_id)!
-- A command that is under way, which may be to forget, is answered from its event, which goes when it ends.
update interactions
set user_id = '', session_id = ''
where ended_at is null and user_id = :user_id and platform = :platform and trigger_type = 'command'
    and (:community_id::uuid is null or community_id = :community_id);

-- name: forget_user(platform, user_id, community_id)
-- Whose it was is gone, and every text; that it was, and what recognises a repeat of it, stays.
update interactions
set user_id = '', session_id = '', event = null, reply = null, sealed = null
where ended_at is not null and user_id <> '' and user_id = :user_id and platform = :platform
    and (:community_id::uuid is null or community_id = :community_id)
returning community_id;

-- name: select_people(user_id, platform, rows)
-- Everyone there is something of, after a person, a page at a time.
(
    select user_id, platform
    from interactions
    where ended_at is not null and user_id <> '' and (user_id, platform) > (:user_id, :platform)
    group by user_id, platform
    order by user_id, platform
    limit :rows
)
union
(
    select user_id, platform
    from conversations
    where (user_id, platform) > (:user_id, :platform)
    group by user_id, platform
    order by user_id, platform
    limit :rows
)
order by user_id, platform
limit :rows;
