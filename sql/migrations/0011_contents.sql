-- How long texts are kept, a community says when it is asked, so that a change of it changes no row.
drop index interactions_kept, interactions_ended;
alter table interactions drop column keep_until;
create index interactions_kept on interactions (community_id, ended_at) where ended_at is not null and sealed is not null;
create index interactions_ended on interactions (ended_at) where ended_at is not null and sealed is null;

-- People who were forgotten after a backup that is restored: to be forgotten again. No part of backups, so that it may
-- be there already when an older one is brought up to date.
create table if not exists forgotten (
    number       bigint primary key,
    hash         bytea not null,
    community_id uuid,
    user_hash    text not null
);
