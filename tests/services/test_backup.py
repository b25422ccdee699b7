"""The database in a file and back: one moment of it, while it is in use, also into a newer version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from config import load_settings
from services import backup as backups
from services.backup import TABLES, Backup, BackupError, _without_password
from services.database import Database
from services.logs import open_log
from tests.conftest import MakeService, Service, event
from tests.routes.test_config import community, get, put
from tests.services.test_upgrade import MINE, first_version
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


async def rows(url: str) -> dict[str, list[Any]]:
    """All that a database has, table by table."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: sorted(row[0] for row in await connection.fetch(f"select t::text from {table} t"))
            for table in TABLES
        }
    finally:
        await connection.close()


def backup(service: Service, url: str) -> Backup:
    return Backup(url, service.sidecast.database)


async def test_every_table_is_in_it(empty: str, make_service: MakeService) -> None:
    await make_service(database_url=empty)
    connection = await asyncpg.connect(empty)
    found = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    await connection.close()
    assert sorted(row[0] for row in found) == sorted([*TABLES, "forgotten"]), "but those to be forgotten again"


async def test_what_is_restored_is_what_was_there(empty: str, make_service: MakeService, tmp_path: Path) -> None:
    """A running instance goes on with it, and its settings act at once."""
    service = await make_service(database_url=empty)
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    await put(service, community_id=mine, persona_name="Otto")
    await service.answered(entity_id=channel)
    await service.sidecast.ledger.flush()
    path, then = tmp_path / "backup", await rows(empty)
    await backup(service, empty).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    await put(service, community_id=mine, persona_name="Anna")
    await service.answered()
    await service.sidecast.ledger.flush()
    assert await backup(service, empty).restore(path) == []
    assert await rows(empty) == then
    assert (await get(service, mine))["persona_name"] == "Otto"
    async with asyncio.timeout(2):
        while (await service.sidecast.communities.get(UUID(mine))).settings.persona_name != "Otto":  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
    await service.answered(entity_id=channel)


async def test_one_moment_while_events_come_in(empty: str, make_service: MakeService, tmp_path: Path) -> None:
    """Every row of the ledger that the backup has is of an interaction that it has; what was under way is over."""
    stub = StubOpenAI(delay=0.05)
    async with running(stub.app) as url:
        service = await make_service(
            database_url=empty, ai_provider="waddleai", waddleai_base_url=url, max_concurrent_requests=50
        )
        posting = asyncio.gather(*(service.accept() for _ in range(200)))
        path = tmp_path / "backup"
        await asyncio.sleep(0.2)
        await backup(service, empty).save(path)
        acks = await posting
        for ack in acks:
            await service.ended(ack["interaction_id"])
        assert await backup(service, empty).restore(path) == []
        connection = await asyncpg.connect(empty)
        assert await connection.fetchval("select count(*) from interactions where ended_at is null") == 0
        orphans = "select count(*) from interactions where community_id not in (select community_id from communities)"
        assert await connection.fetchval(orphans) == 0
        states = await connection.fetch("select state, reason, count(*) from interactions group by 1, 2")
        await connection.close()
        assert {(row[0], row[1]) for row in states} <= {("delivered", None), ("expired", "restored")}
        sent = len(service.messages)
        await service.answered()
        assert len(service.messages) == sent + 1, "nothing is sent a second time"


async def test_an_older_one_is_brought_up_to_date(
    empty: str, make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first_version(empty, tmp_path)
    path = tmp_path / "old"
    with monkeypatch.context() as older:
        older.setattr(backups, "TABLES", ("migrations", "communities", "entities", "interactions"))
        await Backup(empty, Database(empty, open_log(load_settings()))).save(path)
    newer = await make_service(database_url=empty)
    await newer.answered()
    applied = await backup(newer, empty).restore(path)
    assert applied[0].startswith("0002_")
    assert (await get(newer, str(MINE)))["version"] == 0
    await newer.answered(entity_id="twitch:channel:old")


async def test_what_cannot_be_restored_changes_nothing(empty: str, make_service: MakeService, tmp_path: Path) -> None:
    service = await make_service(database_url=empty)
    tools = backup(service, empty)
    path = tmp_path / "backup"
    then = await rows(empty)
    path.write_text("no backup")
    for bad in (path, tmp_path / "none"):
        with pytest.raises(BackupError):
            await tools.restore(bad)
    connection = await asyncpg.connect(empty)
    await connection.execute("insert into migrations (name, checksum) values ('9999_later.sql', $1)", "0" * 64)
    await tools.save(path)
    await connection.execute("delete from migrations where name = '9999_later.sql'")
    with pytest.raises(BackupError, match=r"newer version.*9999_later"):
        await tools.restore(path)
    whole = path.read_bytes()
    await tools.save(path)
    path.write_bytes(path.read_bytes()[: len(whole) // 2])
    with pytest.raises(BackupError):
        await tools.restore(path)
    await connection.close()
    assert await rows(empty) == then


def test_a_password_is_not_among_the_arguments() -> None:
    assert _without_password("postgresql://me:p%40ss@db:5432/x?ssl=on") == ("postgresql://me@db:5432/x?ssl=on", "p@ss")
    assert _without_password("postgresql://me@/x?host=/run") == ("postgresql://me@/x?host=/run", "")
