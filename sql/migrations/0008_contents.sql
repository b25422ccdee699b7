-- Texts of communities that keep them: sealed, and until when.
alter table interactions add column sealed text, add column keep_until timestamptz;
create index interactions_kept on interactions (keep_until) where keep_until is not null;
-- What has ended is trimmed by when, unless its texts are kept for longer.
drop index interactions_ended;
create index interactions_ended on interactions (ended_at) where ended_at is not null and keep_until is null;
