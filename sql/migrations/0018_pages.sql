-- Pages of the dashboard, found without reading what they do not show.

-- A filter of the history is looked at in its index: a rare one costs no look at each row of a community. By its
-- condition it is of no use to anyone else.
drop index interactions_history;
create index interactions_history
    on interactions (community_id, ended_at, state collate "C", trigger_type collate "C", platform collate "C")
    where ended_at is not null and state <> '';

-- The same of the archive, whose rows tell their platform themselves from now on.
drop index messages_archived;
alter table messages add column platform text;
update messages m
set platform = c.platform
from conversations c
where c.conversation_id = m.conversation_id and m.archived and m.state is not null;
create index messages_archived
    on messages (community_id, at, interaction_id, state collate "C", trigger_type collate "C", platform collate "C")
    where archived and state is not null;

-- What happened by the day (UTC), so that a month is 30 rows where it was 720. The zero id is all communities.
create table numbers_by_day (
    community_id      uuid not null,
    day               timestamptz not null,
    what              text not null,
    name              text not null,
    bucket            smallint not null,
    count             bigint not null,
    prompt_tokens     bigint not null,
    completion_tokens bigint not null,
    cost              float8 not null,
    primary key (community_id, day, what, name, bucket)
);
insert into numbers_by_day
select community_id, date_trunc('day', hour, 'UTC'), what, name, bucket, sum(count), sum(prompt_tokens),
    sum(completion_tokens), sum(cost)
from numbers
group by 1, 2, 3, 4, 5;
