"""Migrations: forward only, checked, one instance at a time. Queries: each finds its rows by an index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from config import load_settings
from embedded.parts import free_port
from services.database import SQL, Database, DatabaseUnavailable, MigrationError, migrate
from services.logs import open_log


@pytest.fixture
async def empty(parts: dict[str, str]) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(parts["DATABASE_URL"])
    await admin.execute(f"create database {name}")
    yield parts["DATABASE_URL"].replace("/postgres?", f"/{name}?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


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


@pytest.mark.parametrize(
    ("query", "arguments", "index"),
    [
        ("select_repeats", {"entity_ids": ["e"], "dedupe_keys": ["k"]}, "interactions_repeats"),
        ("select_interaction", {"interaction_id": uuid4()}, "interactions_pkey"),
        ("select_entities", {"entity_ids": ["e"]}, "entities_pkey"),
        (
            "claim_waiting",
            {"busy_ids": [], "busy_rooms": [], "share": 5, "slots": 10, "owner": uuid4(), "lease_seconds": 30.0},
            "interactions_waiting",
        ),
        ("claim_due", {"held": [], "slots": 5, "owner": uuid4(), "lease_seconds": 30.0}, "interactions_due"),
        ("renew_leases", {"lease_seconds": 30.0, "ids": [uuid4()], "owner": uuid4()}, "interactions_"),
        ("cancel_interactions", {"entity_id": "e", "dedupe_key": None, "user_id": "u"}, "interactions_under_way"),
        ("delete_ended", {"seconds": 9e9, "rows": 1000}, "interactions_ended"),
    ],
)
async def test_each_query_uses_its_index(empty: str, query: str, arguments: dict[str, object], index: str) -> None:
    """On a journal of 18,000 ended rows, 1,900 that wait and 100 leased ones; arguments in the order of their `$n`."""
    database = Database(empty, open_log(load_settings()))
    connection = await asyncpg.connect(empty)
    await migrate(connection, SQL / "migrations")
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
    sql = getattr(database.queries, query).sql
    plan = await connection.fetch("explain " + sql, *arguments.values())
    assert index in "\n".join(row[0] for row in plan)
    assert "Seq Scan on interactions" not in "\n".join(row[0] for row in plan)
    await connection.close()
