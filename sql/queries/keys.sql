-- name: select_valid_keys()
-- Keys that may be used: whose each is, and until when.
select key_id, digest, prefix, role, community_id, extract(epoch from expires_at)::float8 as expires_at
from keys
where revoked_at is null and (expires_at is null or expires_at > now());

-- name: select_keys(community_id, before, rows)
-- Keys of a community, or of all with none, the newest first (ids sort by time): all, or a page that follows an id.
select key_id, prefix, role, community_id, label, created_by, created_at, expires_at, revoked_at, last_used_at
from keys
where (:community_id::uuid is null or community_id = :community_id)
    and key_id < coalesce(:before::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
order by key_id desc
limit :rows::int;

-- name: insert_key(key_id, digest, prefix, role, community_id, label, created_by, expires_at)^
-- A new key.
insert into keys (key_id, digest, prefix, role, community_id, label, created_by, expires_at)
values (:key_id, :digest, :prefix, :role, :community_id, :label, :created_by, :expires_at)
returning key_id, prefix, role, community_id, label, created_by, created_at, expires_at, revoked_at, last_used_at;

-- name: revoke_key(key_id, community_id, seconds)^
-- It ends now, or after some seconds in which a new one takes over. Of one community, where one is given.
update keys
set revoked_at = case when :seconds::float8 = 0 then now() else revoked_at end,
    expires_at = case when :seconds::float8 = 0 then expires_at
        else least(coalesce(expires_at, 'infinity'), now() + make_interval(secs => :seconds)) end
where key_id = :key_id and revoked_at is null and (:community_id::uuid is null or community_id = :community_id)
returning key_id, prefix, role, community_id, label, created_by, created_at, expires_at, revoked_at, last_used_at;

-- name: note_keys_used(key_ids)!
-- They were used a moment ago.
update keys set last_used_at = now() where key_id = any(:key_ids::uuid[]);
