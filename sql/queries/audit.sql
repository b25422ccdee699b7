-- name: lock_audit()!
-- One row is added at a time, since each is chained to the one before.
select pg_advisory_xact_lock(7161120398);

-- name: select_last_audit()^
-- The end of the chain.
select number, hash from audit order by number desc limit 1;

-- name: insert_audit(number, at, actor, action, community_id, details, hash)!
-- The next link.
insert into audit (number, at, actor, action, community_id, details, hash)
values (:number, :at, :actor, :action, :community_id, :details, :hash);

-- name: select_audit(before, rows)
-- What was changed, the newest first, a page at a time.
select number, at, actor, action, community_id, details
from audit
where number < :before
order by number desc
limit :rows;

-- name: select_audit_of(community_id, before, rows)
-- As above, of one community.
select number, at, actor, action, community_id, details
from audit
where (community_id, number) < (:community_id::uuid, :before::bigint) and community_id >= :community_id
order by community_id desc, number desc -- as one index alone has it
limit :rows;

-- name: select_chain(after, rows)
-- The chain from a number on.
select number, at, actor, action, community_id, details, hash from audit where number > :after order by number limit :rows;

-- name: select_forgotten()
-- Who is to be forgotten again, by keyed hashes, and where.
select distinct community_id, user_hash from forgotten;

-- name: delete_forgotten()!
-- They were.
delete from forgotten;
