-- What a person's interactions became, for them to be told and forgotten; what is under way is few, and found otherwise.
create index interactions_by_user on interactions (user_id, platform) where ended_at is not null and user_id <> '';
