-- name: select_entities(entity_ids)
-- The communities that channels belong to.
select e.entity_id, e.community_id, c.name
from entities e join communities c using (community_id)
where e.entity_id = any(:entity_ids);

-- name: insert_entities(community_ids, entity_ids, platforms)!
-- A community for each channel seen for the first time. A channel that another instance has just taken makes none.
with fresh as (
    insert into entities (community_id, entity_id, platform)
    select * from unnest(:community_ids::uuid[], :entity_ids::text[], :platforms::text[])
    on conflict (entity_id) do nothing
    returning entity_id, community_id
)
insert into communities (community_id, name)
select community_id, entity_id from fresh;
