-- The audit log is only added to: whoever changes it must first take this away, which the chain tells as well.
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are never changed', tg_table_name;
end
$$;
create trigger audit_is_only_added_to before update or delete or truncate on audit
    for each statement execute function refuse_change();
