"""Texts: gone when they are answered, or kept sealed where a community says so, for as long as it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import API, MakeService, Service, event
from tests.routes.test_config import community, put

if TYPE_CHECKING:
    from services.database import Connection

SAID = "hello my secret pineapple"


@pytest.fixture(autouse=True)
async def nothing_kept(database: Connection) -> AsyncIterator[None]:
    """No text of these tests is there for others to seal anew."""
    yield
    await database.execute("update interactions set sealed = null where sealed is not null")


async def keeping(service: Service, **settings: Any) -> tuple[str, str]:
    """A channel, and its community that keeps texts."""
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    status, body = await put(service, community_id=mine, **({"store_content": True} | settings))
    assert status == 200, body
    return channel, mine


async def history(service: Service, community_id: str) -> list[tuple[str | None, str | None]]:
    """Messages and replies, as everyone who may sees them."""
    answer = await service.get(f"{API}/history?community_id={community_id}")
    rows = (await answer.get_json())["data"]["interactions"]
    outcomes = [await service.outcome(row["interaction_id"]) for row in rows]
    assert [(row["message"], row["reply"]) for row in rows] == [(one["message"], one["reply"]) for one in outcomes]
    return [(row["message"], row["reply"]) for row in rows]


async def in_the_database(database: Connection, community_id: str) -> str:
    rows = await database.fetch("select i::text from interactions i where community_id = $1::uuid", community_id)
    return "\n".join(row[0] for row in rows)


async def test_texts_are_kept_sealed_where_a_community_says_so(make_service: MakeService, database: Connection) -> None:
    service = await make_service()
    channel, mine = await keeping(service)
    reply = await service.answered(entity_id=channel, message_content=SAID)
    assert await history(service, mine) == [(SAID, reply["response_data"]["message"])]
    assert "pineapple" not in await in_the_database(database, mine)
    other = await service.answered(message_content=SAID)
    assert (await service.outcome(other["interaction_id"]))["message"] is None


async def test_what_was_held_back_is_kept_as_well(make_service: MakeService) -> None:
    service = await make_service()
    channel, mine = await keeping(service, channel_replies=1, channel_seconds=60)
    await service.answered(entity_id=channel, message_content=SAID)
    for text in ("hello once more", "hello and again"):
        ack = await service.accept(entity_id=channel, message_content=text)
        assert (await service.ended(ack["interaction_id"]))["state"] == "suppressed"
    bot = await service.accept(entity_id=channel, message_content="hello from a bot", is_bot=True)
    assert (await service.ended(bot["interaction_id"]))["reason"] == "bot_author"
    said = [message for message, _ in await history(service, mine)]
    assert said == ["hello from a bot", "hello and again", "hello once more", SAID]


async def test_texts_go_when_their_time_is_over_in_batches(make_service: MakeService, database: Connection) -> None:
    service = await make_service()
    channel, mine = await keeping(service, retention_days=10)
    await service.answered(entity_id=channel, message_content=SAID)
    old = "update interactions set {} where community_id = $1::uuid"
    await database.execute(old.format("ended_at = now() - interval '8 days'"), mine)
    await service.sidecast._retention.trim()
    assert len(await history(service, mine)) == 1, "texts are kept for longer than the journal is"
    await database.execute(old.format("ended_at = now() - interval '11 days'"), mine)
    [(message, _)] = await history(service, mine)
    assert message is None, "not told any more, though it is not erased yet"
    await service.sidecast._retention.trim()
    assert await database.fetchval("select count(*) from interactions where community_id = $1::uuid", mine) == 0


async def test_who_keeps_them_no_longer_or_for_fewer_days_has_them_erased(
    make_service: MakeService, database: Connection
) -> None:
    service = await make_service()
    channel, mine = await keeping(service)
    await service.answered(entity_id=channel, message_content=SAID)
    await put(service, community_id=mine, retention_days=1)
    assert len(await history(service, mine)) == 1
    await put(service, community_id=mine, store_content=None)
    assert (await history(service, mine))[0][0] is None
    inherits, theirs = await keeping(service, store_content=None)
    await put(service, store_content=True)
    await service.answered(entity_id=inherits, message_content=SAID)
    assert (await history(service, theirs))[0][0] == SAID
    await put(service, store_content=None)
    assert (await history(service, theirs))[0][0] is None
    count = "select count(*) from interactions where community_id = any($1::uuid[]) and sealed is not null"
    assert await database.fetchval(count, [mine, theirs]) == 2
    await service.sidecast._retention.trim()
    assert await database.fetchval(count, [mine, theirs]) == 0


async def test_a_deleted_message_and_a_forgotten_person_leave_no_text(
    make_service: MakeService, database: Connection
) -> None:
    service = await make_service()
    channel, mine = await keeping(service)
    said = {"entity_id": channel, "user_id": "kept-anna", "message_content": SAID}
    await service.answered(**said)
    known = (await (await service.get(f"{API}/users/twitch/kept-anna?community_id={mine}")).get_json())["data"]
    assert [row["message"] for row in known["interactions"]] == [SAID]
    await service.answered(**said, event_id="deleted")
    cancelled = await service.post("/interaction/cancel", entity_id=channel, event_id="deleted")
    assert cancelled.status_code == 200
    assert [message for message, _ in await history(service, mine)] == [None, SAID]
    await service.answered(**(said | {"message_content": "!ai forget me"}))
    assert [message for message, _ in await history(service, mine)] == [None, None, None]
    count = "select count(*) from interactions where community_id = $1::uuid and sealed is not null"
    assert await database.fetchval(count, mine) == 0


async def test_a_text_is_sealed_for_its_own_row(make_service: MakeService, database: Connection) -> None:
    """Moved to another row it cannot be read, which is told in the log and not in an error."""
    service = await make_service()
    channel, mine = await keeping(service)
    for text in (SAID, "hello again"):
        await service.answered(entity_id=channel, message_content=text)
    await database.execute(
        "update interactions set sealed = (select max(sealed) from interactions where community_id = $1::uuid) "
        "where community_id = $1::uuid",
        mine,
    )
    assert sorted(message is None for message, _ in await history(service, mine)) == [False, True]
