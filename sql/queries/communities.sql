-- name: select_entities(entity_ids)
-- The communities that channels belong to, and their settings.
select e.entity_id, e.live, e.community_id, c.name, s.version, s.own, s.sealed_key
from entities e join communities c using (community_id) left join settings s using (community_id)
where e.entity_id = any(:entity_ids);

-- name: select_community(community_id)^
-- One community, and its settings.
select c.community_id, c.name, s.version, s.own, s.sealed_key
from communities c left join settings s using (community_id)
where c.community_id = :community_id;

-- name: select_communities(community_id, after, rows)
-- All communities by id, or one, with the channels of each, a page at a time.
select c.community_id, c.name, c.created_at,
    array(select e.entity_id from entities e where e.community_id = c.community_id order by e.entity_id) as entities
from communities c
where c.community_id > :after
    and c.community_id between coalesce(:community_id::uuid, '00000000-0000-0000-0000-000000000000')
        and coalesce(:community_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') -- as bounds of the index
order by c.community_id
limit :rows;

-- name: insert_community(community_id, name)!
-- A community without channels.
insert into communities (community_id, name) values (:community_id, :name);

-- name: rename_community(community_id, name)!
-- Another name.
update communities set name = :name where community_id = :community_id;

-- name: move_entity(entity_id, community_id, platform)!
-- A channel belongs to this community from now on.
insert into entities (entity_id, community_id, platform)
values (:entity_id, :community_id, :platform)
on conflict (entity_id) do update set community_id = excluded.community_id;

-- name: update_live(entity_id, live)!
-- The channel has begun or ended its stream.
update entities set live = :live where entity_id = :entity_id;

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
