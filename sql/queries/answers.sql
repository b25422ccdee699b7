-- name: select_kept_answer(community_id, key)^
-- An answer that may still be given, and for how many seconds.
select sealed, extract(epoch from expires_at - now())::float8 as seconds
from inference_cache
where community_id = :community_id and key = :key and expires_at > now();

-- name: keep_answer(community_id, key, sealed, seconds)!
-- The newest answer to a question.
insert into inference_cache (community_id, key, sealed, expires_at)
values (:community_id, :key, :sealed, now() + make_interval(secs => :seconds))
on conflict (community_id, key) do update
set sealed = excluded.sealed, made_at = now(), expires_at = excluded.expires_at;

-- name: delete_expired_answers(rows)$
-- Trim what may not be given any more, a batch at a time.
with old as (
    select community_id, key from inference_cache where expires_at < now() limit :rows for update skip locked
),
gone as (
    delete from inference_cache c using old where c.community_id = old.community_id and c.key = old.key returning 1
)
select count(*) from gone;
