"""A database of the first version, with work and settings in it, is brought up to date, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from services.database import SQL, migrate
from tests.conftest import MakeService, event
from tests.routes.test_config import get, put

MINE = UUID(int=7)
STATES = ("received", "answering", "answered", "delivered", "suppressed", "expired", "failed", "undeliverable")


async def first_version(url: str, folder: Path) -> dict[str, str]:
    """A database as the first version left it; the ids of its interactions by their states."""
    first = SQL / "migrations" / "0001_interactions.sql"
    (folder / first.name).write_text(first.read_text())
    connection = await asyncpg.connect(url)
    await migrate(connection, folder)
    await connection.execute("insert into communities (community_id, name) values ($1, 'mine')", MINE)
    await connection.execute("insert into entities values ('twitch:channel:old', $1, 'twitch')", MINE)
    ids = {state: uuid4() for state in STATES}
    for state, interaction_id in ids.items():
        posted: dict[str, Any] = event(entity_id="twitch:channel:old", event_id=f"old-{state}")
        ended = state in STATES[3:]
        await connection.execute(
            "insert into interactions (interaction_id, community_id, entity_id, platform, session_id, user_id, "
            "message_type, trigger_type, trigger_match, dedupe_key, event_hash, event, reply, state, answered_at, "
            "ended_at, lease_owner, lease_until, fence) values ($1, $2, $3, 'twitch', 's1', 'u', 'chatMessage', "
            "'greeting', 'hello', $4, '', $5, $6, $7, $8, $9, $10, $11, 1)",
            interaction_id,
            MINE,
            posted["entity_id"],
            posted["event_id"],
            None if ended else json.dumps(posted),
            "an old reply" if state in {"answered", "undeliverable"} else None,
            state,
            await connection.fetchval("select now()") if state == "answered" else None,
            await connection.fetchval("select now()") if ended else None,
            None if ended or state == "received" else uuid4(),
            None if ended or state == "received" else await connection.fetchval("select now()"),
        )
    await connection.close()
    return {state: str(interaction_id) for state, interaction_id in ids.items()}


async def test_from_the_first_version_on_nothing_is_lost(empty: str, make_service: MakeService, tmp_path: Path) -> None:
    ids = await first_version(empty, tmp_path)
    service = await make_service(database_url=empty)
    for state in STATES[:3]:
        assert (await service.ended(ids[state]))["state"] == "delivered", state
    assert "an old reply" in [body["response_data"]["message"] for body in service.messages]
    for state in STATES[3:]:
        assert (await service.outcome(ids[state]))["state"] == state
    assert (await put(service, community_id=str(MINE), persona_name="Otto"))[0] == 200
    reply = await service.answered(entity_id="twitch:channel:old")
    assert (await service.outcome(reply["interaction_id"]))["community_id"] == str(MINE)
    repeat = await service.post(**event(entity_id="twitch:channel:old", event_id="old-delivered"))
    assert repeat.status_code == 409, "an id that came before, with another body"
    again = await make_service(database_url=empty)
    assert (await get(again, str(MINE)))["persona_name"] == "Otto"
