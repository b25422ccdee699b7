-- Answers to questions that carry nothing of who asks: sealed, for communities that keep texts, behind Valkey.
create table inference_cache (
    community_id      uuid not null references communities,
    key               bytea not null,
    sealed            text not null,
    made_at           timestamptz not null default now(),
    expires_at        timestamptz not null,
    primary key (community_id, key)
);
create index inference_cache_expired on inference_cache (expires_at);
-- An answer from there is in the ledger too, with what it saved.
alter table ledger drop constraint ledger_kind_check;
alter table ledger add constraint ledger_kind_check check (kind in ('chat', 'embedding', 'canned', 'cached'));
