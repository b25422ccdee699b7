-- Interactions that ended without a reply are in the history too, by what the user said alone: `state` is told by the one
-- row that stands for an interaction, and by no other.
drop index messages_archived;
create index messages_archived on messages (community_id, at, interaction_id) where archived and state is not null;
