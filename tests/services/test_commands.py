"""`!ai …` in chat: who may say it, what it does, on every instance, and that no model is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from services.commands import Command, read_command
from services.events import ChatEvent
from services.settings_store import BadSettings
from tests.conftest import API, KEY, MakeService, Service, event
from tests.routes.test_config import community, get, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

MOD = ["moderator"]


@pytest.mark.parametrize(
    ("text", "roles", "command"),
    [
        ("!ai off", MOD, Command("off")),
        ("!AI  On ", ["vip", "broadcaster"], Command("on")),
        ("!ai quiet", MOD, Command("quiet", 600)),
        ("!ai quiet 5", MOD, Command("quiet", 300)),
        ("!ai quiet 90s", MOD, Command("quiet", 90)),
        ("!ai quiet 2h", MOD, Command("quiet", 7200)),
        ("!ai quiet 99999h", MOD, Command("quiet", 86_400)),
        ("!ai status", MOD, Command("status")),
        ("!ai forget  me", [], Command("forget me")),
        ("!ai off", ["vip", "subscriber"], None),
        ("!ai status", [], None),
        ("!ai off please", MOD, None),
        ("say !ai off", MOD, None),
        ("!aioff", MOD, None),
        ("!ai quiet -5m", MOD, None),
    ],
)
def test_commands_and_who_may_give_them(text: str, roles: list[str], command: Command | None) -> None:
    assert read_command(ChatEvent(**event(message_content=text, roles=roles))) == command


def test_an_event_is_no_command() -> None:
    assert read_command(ChatEvent(**event(message_type="follow", message_content="!ai off", roles=MOD))) is None


async def says(service: Service, channel: str, text: str, roles: list[str] = MOD, **fields: Any) -> str:
    body = await service.answered(entity_id=channel, message_content=text, roles=roles, **fields)
    return str(body["response_data"]["message"])


async def heard(service: Service, channel: str) -> bool:
    return bool((await service.accept(entity_id=channel, message_content="nothing, hello"))["triggered"])


async def test_off_on_quiet_and_status(make_service: MakeService) -> None:
    stub = StubOpenAI("From the model")
    async with running(stub.app) as url:
        one, two = [await make_service(ai_provider="waddleai", waddleai_base_url=url) for _ in range(2)]
        channel = event()["entity_id"]
        mine = await community(one, channel)
        assert await says(one, channel, "!ai status") == "🤖 I am on, with waddleai."
        assert await says(one, channel, "!ai off") == "🤖 I am off now. !ai on brings me back."
        async with asyncio.timeout(1):
            while await heard(two, channel):
                await asyncio.sleep(0.02)
        assert "I am off" in await says(two, channel, "!ai status")
        assert await says(two, channel, "!ai on") == "🤖 I am back!"
        assert await heard(two, channel)
        assert await says(two, channel, "!ai quiet 2m") == "🤖 I am quiet for 2 min. !ai on brings me back."
        assert not await heard(two, channel)
        assert "quiet for another" in await says(two, channel, "!ai status")
        assert await says(two, channel, "!ai on") == "🤖 I am back!"
        told = (await (await one.get(f"{API}/audit?community_id={mine}")).get_json())["data"]["entries"]
        assert [entry["actor"].partition(":")[0] for entry in told] == ["chat"] * 4
        assert (await get(one, mine))["enabled"]
    assert all("!ai" not in str(body) for body in stub.requests)


async def test_forget_me_leaves_nothing_of_a_person(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record], redis: Redis
) -> None:
    stub = StubOpenAI("I like bassoons")
    async with running(stub.app) as url:
        one, two = [await make_service(ai_provider="waddleai", waddleai_base_url=url) for _ in range(2)]
        channel = event()["entity_id"]
        mine = await community(one, channel)
        anna = {"user_id": "canary-anna", "session_id": "canary-session"}
        for service in (one, two):
            await says(service, channel, "Hello, I play the bassoon", [], **anna)
        path = f"{API}/users/twitch/canary-anna"
        known = (await (await one.get(path)).get_json())["data"]
        assert len(known["interactions"]) == 2
        assert "bassoon" in str(known["conversations"][mine])
        answer = await says(two, channel, "!ai forget me", [], **anna)
        assert "Forgotten" in answer
        async with asyncio.timeout(1):
            while (known := (await (await one.get(path)).get_json())["data"]) != {
                "interactions": [],
                "conversations": {},
            }:
                await asyncio.sleep(0.02)
        rows = await database.fetch("select * from interactions where community_id::text = $1", mine)
        assert "canary" not in str(rows)
        assert "canary" not in str(await database.fetch("select * from audit"))
        assert [key for key in await redis.keys("*") if "canary" in key] == []
        await says(one, channel, "Hello, who am I?", [], **anna)
        assert "bassoon" not in str(stub.requests[-1])


async def test_an_answer_in_flight_cannot_write_itself_back(make_service: MakeService, redis: Redis) -> None:
    stub = StubOpenAI(delay=0.5)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        ack = await service.accept(user_id="hasty", message_content="Hello, I am Anna")
        async with asyncio.timeout(5):
            while not stub.requests:
                await asyncio.sleep(0.01)
        answer = await service.client.delete(f"{API}/users/twitch/hasty", headers={"X-API-Key": KEY})
        receipt = (await answer.get_json())["data"]
        assert (receipt["interactions"], receipt["cancelled"]) == (1, 1)
        outcome = await service.outcome(ack["interaction_id"])
        assert (outcome["state"], outcome["reason"]) == ("suppressed", "forgotten")
        await asyncio.sleep(0.8)
    assert service.messages == []
    assert [key for key in await redis.keys("*") if "hasty" in key] == []


async def test_a_command_that_cannot_be_done_says_why_and_ends(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings were made under another environment."""
    channel = event()["entity_id"]
    one = await make_service()
    mine = await community(one, channel)
    assert (await put(one, community_id=mine, budget_cost=1))[0] == 200
    await one.sidecast.drain()
    two = await make_service(ai_provider="waddleai", waddleai_base_url="http://127.0.0.1:1", waddleai_model="unpriced")
    assert "I am off now" in await says(two, channel, "!ai off", ["moderator"])

    async def fail(*_: Any) -> Any:
        raise BadSettings([("enabled", "cannot be now")])

    monkeypatch.setattr(two.sidecast.settings_store, "change", fail)
    assert "I could not do that: enabled: cannot be now" in await says(two, channel, "!ai on", ["moderator"])


async def test_a_command_is_not_tried_for_ever(make_service: MakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await make_service(lease_seconds=0.5, max_attempts=2)

    async def fail(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(service.sidecast.settings_store, "change", fail)
    answer = await says(service, event()["entity_id"], "!ai off", ["moderator"])
    assert "I could not do that" in answer
