-- Canned replies in a model's place, where a budget is used up, are in the ledger too.
alter table ledger drop constraint ledger_kind_check;
alter table ledger add constraint ledger_kind_check check (kind in ('chat', 'embedding', 'canned'));
