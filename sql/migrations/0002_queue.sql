-- The journal as a queue: what waits is found by community, so that each gets its turn; what is leased or due for
-- another delivery by the time that ends; what a user has under way by channel; what has ended by when.

drop index interactions_open;
create index interactions_waiting on interactions (community_id, received_at) where state = 'received';
create index interactions_due on interactions (lease_until) where ended_at is null and lease_until is not null;
create index interactions_under_way on interactions (entity_id, user_id) where ended_at is null;
create index interactions_ended on interactions (ended_at) where ended_at is not null;

-- Keys say what they are: an id that was given, or the event itself.
update interactions set dedupe_key = 'id:' || dedupe_key where dedupe_key is not null;
