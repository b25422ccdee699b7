"""What other services read on the stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from redis.asyncio import Redis

from services.bus import KINDS, STREAM, Bus
from services.tasks import Tasks
from services.valkey import Valkey
from tests.conftest import API, KEY, PROJECT, MakeService, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


async def told(redis: Redis, event: str | None = None) -> list[dict[str, Any]]:
    await asyncio.sleep(0.2)
    found: Any = await redis.xrange(STREAM)
    entries = [dict(fields) for _, fields in found]
    for entry in entries:
        assert entry.keys() == {"event", "at", "community_id", "data"}
        assert entry["event"] in KINDS
        entry["data"] = json.loads(entry["data"])
    return [entry for entry in entries if event is None or entry["event"] == event]


def test_the_readme_has_every_kind() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert all(f"| `{kind}` | {says} |" in readme for kind, says in KINDS.items())


async def test_what_happens_is_told_without_texts(make_service: MakeService, redis: Redis) -> None:
    service = await make_service()
    await told(redis)
    await redis.delete(STREAM)
    channel = event()["entity_id"]
    body = await service.answered(entity_id=channel, user_id="ann", message_content="hello, my secret")
    mine = await community(service, channel)
    await put(service, community_id=mine, persona_name="Otto", api_key="sk-secret")
    entries = await told(redis)
    path = f"{API}/users/twitch/ann?community_id={mine}"
    assert (await service.client.delete(path, headers={"Authorization": f"Bearer {KEY}"})).status_code == 200
    left = await told(redis)
    assert [entry["event"] for entry in left] == ["settings.changed", "user.forgotten"]
    entries.append(left[-1])
    kinds = [entry["event"] for entry in entries]
    assert kinds == ["message.added", "message.added", "reply.delivered", "settings.changed", "user.forgotten"]
    assert {entry["community_id"] for entry in entries} == {mine}
    user, assistant, delivered, changed, forgotten = (entry["data"] for entry in entries)
    assert (user["role"], user["trigger"], user["user"]) == ("user", "greeting", forgotten["user"])
    assert (assistant["role"], assistant["provider"], assistant["fallback"]) == ("assistant", "embedded", False)
    assert delivered["interaction_id"] == user["interaction_id"] == body["interaction_id"]
    assert changed["names"] == ["api_key", "persona_name"]
    assert "secret" not in str(entries)
    assert "ann" not in str(entries).replace("channel", "")
    assert body["response_data"]["message"].removeprefix("🤖 ") not in str(entries)


async def test_a_community_that_keeps_texts_has_them_told(make_service: MakeService, redis: Redis) -> None:
    service = await make_service()
    channel = event()["entity_id"]
    mine = await community(service, channel)
    await put(service, community_id=mine, store_content=True)
    body = await service.answered(entity_id=channel, message_content="hello, my secret")
    texts = [entry["data"].get("text") for entry in await told(redis, "message.added")]
    assert texts == ["hello, my secret", body["response_data"]["message"].removeprefix("🤖 ")]


async def test_providers_and_models_are_told(make_service: MakeService, redis: Redis) -> None:
    stub = StubOpenAI((500, "text/plain", "no"))
    async with running(stub.app) as url:
        chosen = {"waddleai_base_url": url, "waddleai_model": "m", "breaker_failures": 2, "breaker_open_seconds": 0.1}
        service = await make_service(ai_provider="waddleai", **chosen)
        for _ in range(2):
            await service.answered()
        stub.answer = "Hello!"
        await asyncio.sleep(0.2)
        await service.answered()
        entries = await told(redis)
    kinds = [
        (entry["event"], entry["data"])
        for entry in entries
        if "provider" in entry["event"] or "model" in entry["event"]
    ]
    assert kinds[0] == ("model.registered", {"provider": "waddleai", "model": "m"})
    assert kinds[1] == ("provider.away", {"provider": "waddleai"})
    assert kinds[-1] == ("provider.back", {"provider": "waddleai"})


async def test_its_length_is_bounded_and_it_can_be_off(make_service: MakeService, redis: Redis) -> None:
    service = await make_service(event_stream_length=100)
    for number in range(1_000):
        service.sidecast.bus.tell("settings.changed", None, {"number": number})
    await asyncio.sleep(0.3)
    entries = await told(redis)
    assert 100 <= len(entries) <= 300  # in whole nodes of the stream
    assert entries[-1]["data"] == {"number": 999}
    await redis.delete(STREAM)
    await service.sidecast.drain()
    silent = await make_service(event_stream_length=0)
    await silent.answered()
    assert await told(redis) == []


async def test_what_cannot_be_told_waits_in_bounds(make_service: MakeService) -> None:
    """Valkey away, and no task that tries for ever."""
    service = await make_service()
    tasks = Tasks(service.sidecast.log)
    valkey = Valkey("redis://127.0.0.1:1", service.sidecast.log)
    bus = Bus(valkey, tasks, 10)
    for number in range(20_000):
        bus.tell("settings.changed", None, {"number": number})
    await tasks.drain(2)
    assert len(tasks) == 0
    assert len(bus._waiting) == 5_000
    await valkey.close()
