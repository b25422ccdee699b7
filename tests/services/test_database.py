"""Migrations: forward only, checked, one instance at a time. Queries: each finds its rows by an index."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from config import load_settings
from embedded.parts import free_port
from services.database import SQL, Database, DatabaseUnavailable, MigrationError, migrate
from services.logs import open_log
from tests.conftest import MakeService

if TYPE_CHECKING:
    from services.database import Connection


async def test_instances_that_start_together_migrate_once(empty: str) -> None:
    connections = [await asyncpg.connect(empty) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(connection, SQL / "migrations") for connection in connections))
    names = sorted(path.name for path in (SQL / "migrations").glob("*.sql"))
    assert sorted(applied) == [[], [], [], names]
    for connection in connections:
        await connection.close()


async def test_a_changed_or_unknown_migration_stops_the_start(empty: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(empty)
    first = tmp_path / "0001_first.sql"
    first.write_text("create table first ();")
    second = tmp_path / "0002_second.sql"
    second.write_text("create table second ();")
    assert await migrate(connection, tmp_path) == ["0001_first.sql", "0002_second.sql"]
    first.write_text("create table other ();")
    with pytest.raises(MigrationError, match=r"0001_first\.sql has changed"):
        await migrate(connection, tmp_path)
    first.write_text("create table first ();")
    second.unlink()
    with pytest.raises(MigrationError, match=r"ahead of this version: it has 0002_second\.sql"):
        await migrate(connection, tmp_path)
    await connection.close()


async def test_a_migration_that_fails_leaves_nothing(empty: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(empty)
    (tmp_path / "0001_half.sql").write_text("create table half (); select 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, tmp_path)
    assert await connection.fetchval("select to_regclass('half')") is None
    await connection.close()


async def test_a_server_that_is_away_is_unavailable() -> None:
    database = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none", open_log(load_settings()))
    with pytest.raises(DatabaseUnavailable):
        await database.ping()


INDEXES = {
    "insert_interactions": "interactions_repeats",
    "select_repeats": "interactions_repeats",
    "select_interaction": "interactions_pkey",
    "select_entities": "entities_pkey",
    "claim_waiting": "interactions_waiting",
    "claim_due": "interactions_due",
    "renew_leases": "interactions_pkey",
    "release_leases": "interactions_pkey",
    "answer_interactions": "interactions_pkey",
    "end_interactions": "interactions_pkey",
    "postpone_delivery": "interactions_pkey",
    "cancel_interactions": "interactions_under_way",
    "delete_ended": "interactions_ended",
    "hold_back_interaction": "interactions_pkey",
    "select_history": "interactions_history",
    "select_of_user": "interactions_by_user",
    "forget_user": "interactions_by_user",
    "erase_kept": "interactions_kept",
    "select_keeping": "interactions_kept",
    "erase_message": "interactions_repeats",
    "select_people": "interactions_by_user",
    "select_archived_of_user": "conversations_user_id",
    "lock_conversations": "conversations_pkey",
    "select_kept": "interactions_pkey",
    "update_kept": "interactions_pkey",
    "select_gathering": "interactions_under_way",
    "gather_into": "interactions_pkey",
    "end_gathered": "interactions_pkey",
    "gather_later": "interactions_pkey",
    "select_kept_answer": "inference_cache_pkey",
    "keep_answer": "inference_cache",
    "delete_expired_answers": "inference_cache_pkey",
    "import_history": "messages_pkey",
    "delete_history": "messages_",
    "delete_empty_conversations": "conversations_pkey",
    "erase_kept_messages": "messages_kept",
    "select_keeping_messages": "messages_kept",
    "select_kept_messages": "messages_pkey",
    "update_kept_messages": "messages_pkey",
    "forget_conversations": "conversations_user_id",
    "select_spent": "ledger_by_community",
    "select_calls": "ledger_by_community",
    "select_open": "interactions_waiting",
    "search_communities": "communities_by_name",
    "select_communities": "communities_pkey",
    "select_numbers": "numbers_pkey",
    "select_numbers_by_day": "numbers_by_day_pkey",
    "select_history_of_user": "interactions_by_user",
    "select_audit": "audit_pkey",
    "select_audit_of": "audit_by_community",
    "add_numbers": "numbers_pkey",
    "select_settings_versions": "settings_versions_pkey",
    "select_settings_version": "settings_versions_pkey",
    "insert_settings_version": "settings_versions_pkey",
    "select_spent_by_community": "ledger_by_time",
    "select_waiting": "interactions_waiting",
}


async def _fill(connection: Connection) -> None:
    """A journal of 18,000 ended rows, 1,900 that wait and 100 leased ones."""
    await connection.execute(
        """
        with c as (insert into communities select gen_random_uuid(), 'c' returning community_id)
        insert into interactions (interaction_id, community_id, entity_id, platform, session_id, user_id, message_type,
            trigger_type, trigger_match, dedupe_key, event_hash, state, ended_at, lease_until)
        select gen_random_uuid(), community_id, 'e' || n % 100, 'p', 's', 'u' || n, 'm', 't', 't', n::text, '',
            case when n > 2000 then 'delivered' when n > 100 then 'received' else 'answered' end,
            case when n > 2000 then now() end, case when n <= 100 then now() end
        from c, generate_series(1, 20000) n
        """
    )
    await connection.execute(
        "insert into entities select 'e' || n, community_id, 'p' from communities, generate_series(1, 20000) n"
    )
    await connection.execute("analyze")


@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
async def test_each_query_uses_its_index_whenever_it_was_planned(empty: str, full: bool) -> None:
    """Planned once for all arguments, as PostgreSQL does after five times, on a journal in use or one just made."""
    database = Database(empty, open_log(load_settings()))
    await database.open()
    async with database.connection() as connection:
        if full:
            await _fill(connection)
        await connection.execute("set plan_cache_mode = force_generic_plan")
        for query, index in INDEXES.items():
            sql = getattr(database.queries, query).sql
            await connection.execute(f"prepare planned as {sql}")
            arguments = ", ".join(["null"] * len({*re.findall(r"\$\d+", sql)}))
            rows = await connection.fetch("explain execute planned" + (f"({arguments})" if arguments else ""))
            plan = "\n".join(row[0] for row in rows)
            assert index in plan, query
            assert "Seq Scan on interactions" not in plan, query
            assert not re.search("Hash .*Join|Merge Join", plan), query
            await connection.execute("deallocate planned")
    await database.close()


async def test_connections_that_broke_are_replaced_unnoticed(make_service: MakeService, database: Connection) -> None:
    """As after a restart of PostgreSQL: nobody gets a 503 for it."""
    service = await make_service()
    await service.answered()
    await database.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname is not null "
        "and backend_type = 'client backend'"
    )
    await asyncio.sleep(0.2)
    reply = await service.answered()
    assert reply["success"] is True
