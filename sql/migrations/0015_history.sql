-- What was answered before there was a history, as far as the journal has it.
insert into conversations (conversation_id, community_id, entity_id, platform, user_id, started_at, last_at, messages)
select gen_random_uuid(), community_id, entity_id, platform, user_id, min(received_at), max(answered_at), 2 * count(*)
from interactions
where answered_at is not null and user_id <> '' and trigger_type <> 'command'
group by community_id, user_id, platform, entity_id
on conflict (user_id, platform, community_id, entity_id) do nothing;
insert into messages (
    interaction_id, role, conversation_id, community_id, at, message_type, trigger_type, trigger_match,
    reason, fallback, provider, model, prompt_tokens, completion_tokens
)
select i.interaction_id, r.role, c.conversation_id, i.community_id,
    case r.role when 'user' then i.received_at else i.answered_at end, i.message_type, i.trigger_type, i.trigger_match,
    i.reason, i.fallback, i.provider, i.model, i.prompt_tokens, i.completion_tokens
from interactions i
join conversations c using (community_id, user_id, platform, entity_id)
cross join (values ('user'), ('assistant')) as r (role)
where i.answered_at is not null and i.trigger_type <> 'command'
on conflict (interaction_id, role) do nothing;
