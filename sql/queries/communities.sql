-- name: select_entity(entity_id)^
-- The community that a channel belongs to.
select e.community_id, c.name
from entities e join communities c using (community_id)
where e.entity_id = :entity_id;

-- name: insert_entity(community_id, entity_id, platform)^
-- A community for a channel seen for the first time; the row that won, when two see it at once.
with
new as (
    insert into communities (community_id, name) values (:community_id, :entity_id) returning community_id
),
entity as (
    insert into entities (entity_id, community_id, platform)
    select :entity_id, community_id, :platform from new
    on conflict (entity_id) do nothing
    returning community_id
)
select community_id, :entity_id::text as name from entity;

-- name: delete_community(community_id)!
-- Takes back a community whose channel went to another.
delete from communities where community_id = :community_id;
