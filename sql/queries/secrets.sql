-- name: insert_secret(name, sealed)!
-- The first instance's; the others take it.
insert into secrets (name, sealed) values (:name, :sealed) on conflict (name) do nothing;

-- name: select_secret(name)$
-- As it is sealed now.
select sealed from secrets where name = :name;

-- name: update_secret(name, before, sealed)!
-- Sealed anew, unless it was meanwhile.
update secrets set sealed = :sealed where name = :name and sealed = :before;
