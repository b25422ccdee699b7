-- name: select_gathering(entity_id, message_types)
-- Events of a channel that may be answered as one, the first first; nobody else answers them meanwhile.
select interaction_id, event, trace, extract(epoch from now() - received_at)::float8 as age
from interactions
where entity_id = :entity_id and ended_at is null and gathered = 0 and message_type = any(:message_types)
    and state in ('received', 'answering')
order by interaction_id
limit 5000
for update;

-- name: gather_into(gathered, event, user_id, interaction_id, fence)$
-- One event stands for several from now on.
update interactions
set gathered = :gathered, event = :event, user_id = :user_id
where interaction_id = :interaction_id and fence = :fence and state in ('received', 'answering')
returning true;

-- name: end_gathered(ids)!
-- What another one stands for; the fence keeps whoever has it from answering.
update interactions
set state = 'suppressed', reason = 'gathered', fence = fence + 1, ended_at = now(), event = null, reply = null,
    lease_owner = null, lease_until = null
where interaction_id = any(:ids);

-- name: gather_later(seconds, interaction_id, fence, ids)!
-- More of them come: all wait together, and the try of the one that was taken up does not count.
update interactions
set state = 'answering', lease_owner = null, lease_until = now() + make_interval(secs => :seconds),
    attempts = attempts - case when interaction_id = :interaction_id then 1 else 0 end
where interaction_id = any(:ids) and state in ('received', 'answering')
    and (interaction_id <> :interaction_id and lease_owner is null or interaction_id = :interaction_id and fence = :fence);
