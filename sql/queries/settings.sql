-- name: select_settings(community_id)^
-- What a community has set for itself.
select version, own, sealed_key from settings where community_id = :community_id;

-- name: lock_settings(community_id)^
-- As above, made where there is no row yet, and nobody else's until this transaction ends.
insert into settings (community_id) values (:community_id)
on conflict (community_id) do update set community_id = excluded.community_id
returning version, own, sealed_key;

-- name: update_settings(community_id, own, sealed_key)$
-- The next version.
update settings
set version = version + 1, own = :own, sealed_key = :sealed_key, changed_at = now()
where community_id = :community_id
returning version;

-- name: select_sealed()
-- All sealed keys; few, and asked for by hand.
select community_id, sealed_key from settings where sealed_key is not null order by community_id;

-- name: update_sealed(community_id, before, sealed_key)!
-- The same key, sealed anew, unless it was changed meanwhile.
update settings set sealed_key = :sealed_key where community_id = :community_id and sealed_key = :before;
