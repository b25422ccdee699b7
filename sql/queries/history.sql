-- name: select_history(community_id, before, before_id, since, platform, entity_id, state, trigger_type, rows)
-- What became of a community's interactions, those that ended last first: of the journal, and older ones.
(
    select interaction_id, community_id, entity_id, platform, user_id, message_type, state, trigger_type, trigger_match,
        reason, provider, model, prompt_tokens, completion_tokens, attempts, fallback, timings, event, reply,
        received_at, ended_at, sealed, null::text as sealed_message, null::text as sealed_reply
    from interactions
    where (community_id, ended_at) <= (:community_id::uuid, coalesce(:before::timestamptz, 'infinity'))
        and (community_id, ended_at) >= (:community_id, coalesce(:since::timestamptz, '-infinity'))
        and community_id >= :community_id and ended_at is not null and state <> ''
        and (ended_at, interaction_id) < (coalesce(:before, 'infinity'), :before_id::uuid)
        -- What is no bound of the scan is looked at in the index, before any row is.
        and state collate "C" between coalesce(:state::text, '') and coalesce(:state, chr(1114111))
        and trigger_type collate "C" between coalesce(:trigger_type::text, '') and coalesce(:trigger_type, chr(1114111))
        and platform collate "C" between coalesce(:platform::text, '') and coalesce(:platform, chr(1114111))
        and (:entity_id::text is null or entity_id = :entity_id)
    order by community_id desc, ended_at desc, interaction_id desc -- as one index alone has it
    limit :rows
)
union all
(
    select m.interaction_id, m.community_id, c.entity_id, c.platform, c.user_id, m.message_type,
        m.state, m.trigger_type, m.trigger_match, m.reason, m.provider, m.model, m.prompt_tokens,
        m.completion_tokens, coalesce(m.attempts, 0), coalesce(m.fallback, false), coalesce(m.timings, '{}'), null, null,
        u.at, m.at, null, u.sealed, case m.role when 'assistant' then m.sealed end
    from messages m
    join conversations c on c.conversation_id = m.conversation_id
    cross join lateral (
        select said.at, said.sealed
        from messages said
        where said.interaction_id = m.interaction_id and said.role = 'user'
        limit 1
    ) u
    where m.archived and m.state is not null and m.community_id = :community_id
        and (m.at, m.interaction_id) < (coalesce(:before, 'infinity'), :before_id)
        and m.at >= coalesce(:since, '-infinity')
        and m.state collate "C" between coalesce(:state, '') and coalesce(:state, chr(1114111))
        and m.trigger_type collate "C" between coalesce(:trigger_type, '') and coalesce(:trigger_type, chr(1114111))
        and m.platform collate "C" between coalesce(:platform, '') and coalesce(:platform, chr(1114111))
        and (:entity_id is null or c.entity_id = :entity_id)
    order by m.at desc, m.interaction_id desc
    limit :rows
)
order by ended_at desc, interaction_id desc
limit :rows;

-- name: select_history_of_user(community_id, before, before_id, since, platform, user_id, entity_id, state, trigger_type, rows)
-- As above of one person, whose interactions are few beside their community's.
(
    select interaction_id, community_id, entity_id, platform, user_id, message_type, state, trigger_type, trigger_match,
        reason, provider, model, prompt_tokens, completion_tokens, attempts, fallback, timings, event, reply,
        received_at, ended_at, sealed, null::text as sealed_message, null::text as sealed_reply
    from interactions
    where ended_at is not null and user_id <> '' and user_id = :user_id
        and community_id is not distinct from :community_id -- which no index has, but that of users the rest
        and (ended_at, interaction_id) < (coalesce(:before::timestamptz, 'infinity'), :before_id::uuid)
        and ended_at >= coalesce(:since::timestamptz, '-infinity')
        and (:platform::text is null or platform = :platform)
        and (:entity_id::text is null or entity_id = :entity_id)
        and (:state::text is null or state = :state)
        and (:trigger_type::text is null or trigger_type = :trigger_type)
    order by ended_at desc, interaction_id desc
    limit :rows
)
union all
(
    select m.interaction_id, m.community_id, m.entity_id, m.platform, m.user_id, m.message_type,
        m.state, m.trigger_type, m.trigger_match, m.reason, m.provider, m.model, m.prompt_tokens,
        m.completion_tokens, coalesce(m.attempts, 0), coalesce(m.fallback, false), coalesce(m.timings, '{}'), null, null,
        coalesce(u.at, m.at), m.at, null, u.sealed, case m.role when 'assistant' then m.sealed end
    from (
        select answered.*, c.entity_id, c.user_id
        from conversations c
        join messages answered on answered.conversation_id = c.conversation_id
        where c.user_id = :user_id and c.community_id = :community_id and answered.archived and answered.state is not null
            and (answered.at, answered.interaction_id) < (coalesce(:before, 'infinity'), :before_id)
            and answered.at >= coalesce(:since, '-infinity')
            and (:platform is null or c.platform = :platform)
            and (:entity_id is null or c.entity_id = :entity_id)
            and (:state is null or answered.state = :state)
            and (:trigger_type is null or answered.trigger_type = :trigger_type)
        order by answered.at desc, answered.interaction_id desc
        limit :rows
    ) m
    left join lateral (
        select said.at, said.sealed
        from messages said
        where said.interaction_id = m.interaction_id and said.role = 'user'
        limit 1
    ) u on true
)
order by ended_at desc, interaction_id desc
limit :rows;

-- name: import_history(community_id, rows)$
-- Take what was said elsewhere into the history; what is there already stays as it is. How many interactions are new.
with r as (
    select distinct on (interaction_id) * from json_to_recordset(:rows) as e (
        interaction_id uuid, entity_id text, platform text, user_id text, message_type text, trigger_type text,
        trigger_match text, state text, reason text, fallback boolean, provider text, model text, prompt_tokens int,
        completion_tokens int, attempts int, timings jsonb, received_at timestamptz, ended_at timestamptz,
        sealed_message text, sealed_reply text
    )
    where not exists (select from interactions i where i.interaction_id = e.interaction_id)
        and not exists (select from messages m where m.interaction_id = e.interaction_id)
),
talks as (
    insert into conversations (conversation_id, community_id, entity_id, platform, user_id, started_at, last_at, messages)
    select gen_random_uuid(), :community_id, entity_id, platform, user_id, min(received_at), max(ended_at), 2 * count(*)
    from r
    group by user_id, platform, entity_id
    order by user_id, platform, entity_id
    on conflict (community_id, user_id, platform, entity_id) do update
    set started_at = least(conversations.started_at, excluded.started_at),
        last_at = greatest(conversations.last_at, excluded.last_at),
        messages = conversations.messages + excluded.messages
    returning conversation_id, user_id, platform, entity_id
),
said as (
    insert into messages (
        interaction_id, role, conversation_id, community_id, at, message_type, trigger_type, trigger_match, state,
        reason, fallback, provider, model, prompt_tokens, completion_tokens, attempts, timings, archived, sealed,
        platform
    )
    select r.interaction_id, x.role, t.conversation_id, :community_id,
        case x.role when 'user' then r.received_at else r.ended_at end, r.message_type, r.trigger_type, r.trigger_match,
        case x.role when 'assistant' then r.state end, r.reason, r.fallback, r.provider, r.model, r.prompt_tokens,
        r.completion_tokens, r.attempts, r.timings,
        true, case x.role when 'user' then r.sealed_message else r.sealed_reply end, r.platform
    from r
    join talks t using (user_id, platform, entity_id)
    cross join (values ('user'), ('assistant')) as x (role)
    on conflict do nothing
    returning 1
)
select count(*) / 2 from said;

-- name: select_archived_of_user(platform, user_id, community_id)
-- What is known of a person that the journal has no longer, the last first.
select m.interaction_id, m.community_id, c.entity_id, c.platform, c.user_id, m.message_type,
    m.state, m.trigger_type, m.trigger_match, m.reason, m.provider, m.model,
    m.prompt_tokens, m.completion_tokens, coalesce(m.attempts, 0) as attempts, coalesce(m.fallback, false) as fallback,
    coalesce(m.timings, '{}') as timings, null as event, null as reply, u.at as received_at, m.at as ended_at,
    null::text as sealed, u.sealed as sealed_message, case m.role when 'assistant' then m.sealed end as sealed_reply
from conversations c
cross join lateral (
    select *
    from messages answered
    where answered.conversation_id = c.conversation_id and answered.archived and answered.state is not null
    order by answered.at desc
    limit 10000
) m
cross join lateral (
    select said.at, said.sealed
    from messages said
    where said.interaction_id = m.interaction_id and said.role = 'user'
    limit 1
) u
where c.user_id = :user_id and c.platform = :platform
    and (:community_id::uuid is null or c.community_id = :community_id)
order by m.at desc
limit 10000;

-- name: delete_history(days, rows)
-- Trim what was said long ago, a batch at a time; whose it was.
with old as (
    select interaction_id
    from messages
    where at < now() - make_interval(secs => 86400 * :days::float8) and archived and state is not null
    limit :rows
    for update skip locked
)
delete from messages m using old where m.interaction_id = old.interaction_id
returning m.conversation_id, m.state is not null as whole;

-- name: lock_conversations(ids)!
-- Nothing is said in them until the transaction ends.
select from conversations where conversation_id = any(:ids) order by conversation_id for update;

-- name: delete_empty_conversations(ids)!
-- Of some conversations those that have no message any more.
delete from conversations c
where c.conversation_id = any(:ids)
    and not exists (select from messages m where m.conversation_id = c.conversation_id);

-- name: erase_kept_messages(community_id, days, rows)$
-- Erase imported texts that a community has kept for long enough, a batch at a time.
with old as (
    select interaction_id, role
    from messages
    where community_id = :community_id and sealed is not null and at < now() - make_interval(days => :days)
    limit :rows
    for update skip locked
),
erased as (
    update messages m set sealed = null from old where m.interaction_id = old.interaction_id and m.role = old.role
    returning 1
)
select count(*) from erased;

-- name: select_keeping_messages()
-- Communities that have imported texts. The recursion steps from one to the next by the index.
with recursive keeping as (
    (select community_id from messages where sealed is not null order by community_id limit 1)
    union all
    select (
        select m.community_id from messages m
        where m.sealed is not null and m.community_id > k.community_id
        order by m.community_id
        limit 1
    )
    from keeping k
    where k.community_id is not null
)
select community_id from keeping where community_id is not null;

-- name: select_kept_messages(after, after_role, rows)
-- Sealed texts by their row, a batch at a time; asked for by hand.
select interaction_id, role, sealed from messages
where (interaction_id, role) > (:after, :after_role) and sealed is not null
order by interaction_id, role
limit :rows;

-- name: update_kept_messages(rows)!
-- The same texts, sealed anew, unless they were erased meanwhile.
update messages m
set sealed = r.sealed
from json_to_recordset(:rows) as r (interaction_id uuid, role text, before text, sealed text)
where m.interaction_id = r.interaction_id and m.role = r.role and m.sealed = r.before;

-- name: forget_conversations(platform, user_id, community_id)
-- What a person said, and that they did; how many messages that were comes back for each conversation.
delete from conversations
where user_id = :user_id and platform = :platform and (:community_id::uuid is null or community_id = :community_id)
returning community_id;
