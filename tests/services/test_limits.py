"""How often it speaks: a limit holds whatever comes at once, on however many instances, with Valkey or without."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from services.valkey import ValkeyAway
from tests.conftest import NO_LIMITS, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


async def limited(service: Service, **limits: Any) -> str:
    """A channel whose community has these limits and no others."""
    entity_id = str(event()["entity_id"])
    mine = await community(service, entity_id)
    status, body = await put(service, community_id=mine, **(NO_LIMITS | limits))
    assert status == 200, body
    return entity_id


async def become(service: Service, *events: dict[str, Any]) -> list[tuple[str, str | None]]:
    """State and reason of each event, posted one after the other."""
    outcomes = []
    for fields in events:
        ack = await service.accept(**fields)
        outcome = await service.ended(ack["interaction_id"])
        outcomes.append((outcome["state"], outcome["reason"]))
    return outcomes


DELIVERED = ("delivered", None)


async def test_one_user_is_answered_once_in_a_while(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = await limited(service, user_cooldown=2)
        anna = {"entity_id": channel, "user_id": "anna"}
        told = await become(service, anna, anna, {"entity_id": channel, "user_id": "ben"})
        assert told == [DELIVERED, ("suppressed", "user_cooldown"), DELIVERED]
        assert await become(service, anna | {"message_type": "follow"}) == [DELIVERED], "events do not count"
        await asyncio.sleep(2)
        assert await become(service, anna) == [DELIVERED]


async def test_a_user_is_greeted_once_in_a_while(make_service: MakeService) -> None:
    service = await make_service()
    channel = await limited(service, greeting_cooldown=60)
    anna = {"entity_id": channel, "user_id": "anna"}
    told = await become(service, anna, anna | {"message_content": "what is this?"}, anna)
    assert told == [DELIVERED, DELIVERED, ("suppressed", "greeting_cooldown")]


@pytest.mark.parametrize("scope", ["channel", "community"])
async def test_100_at_once_on_two_instances_get_exactly_what_is_allowed(make_service: MakeService, scope: str) -> None:
    one, two = await make_service(), await make_service()
    channel = await limited(one, **{f"{scope}_replies": 7, f"{scope}_seconds": 60})
    async with asyncio.timeout(1):
        while (await two.sidecast.communities.of([_chat(channel)]))[channel].settings.model_dump()[
            f"{scope}_replies"
        ] != 7:
            await asyncio.sleep(0.02)
    posts = [(one, two)[number % 2].accept(entity_id=channel, user_id=str(number)) for number in range(100)]
    acks = await asyncio.gather(*posts)
    assert all(ack["triggered"] for ack in acks)
    ended: Counter[tuple[str, str | None]] = Counter()
    for ack in acks:
        outcome = await one.ended(ack["interaction_id"])
        ended[outcome["state"], outcome["reason"]] += 1
    assert ended == {DELIVERED: 7, ("suppressed", f"{scope}_limit"): 93}
    assert len(one.messages) + len(two.messages) == 7


async def test_without_valkey_each_instance_keeps_to_the_limit(make_service: MakeService) -> None:
    """None at all, and one that does not answer."""

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stopping.wait()
        writer.close()

    stopping = asyncio.Event()
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for url in ("", f"redis://127.0.0.1:{port}"):
        service = await make_service(redis_url=url)
        channel = await limited(service, channel_replies=3, channel_seconds=60)
        posts = (service.accept(entity_id=channel, user_id=str(number)) for number in range(20))
        acks = await asyncio.gather(*posts)
        ended = Counter([(await service.ended(ack["interaction_id"]))["state"] for ack in acks])
        assert ended == {"delivered": 3, "suppressed": 17}
    stopping.set()
    server.close()
    await server.wait_closed()


async def test_while_valkey_is_away_one_command_tries_it_and_nobody_else_waits(
    make_service: MakeService, own_valkey: tuple[str, asyncio.subprocess.Process]
) -> None:
    url, process = own_valkey
    valkey = (await make_service(redis_url=url)).sidecast.valkey
    process.send_signal(signal.SIGSTOP)
    tried = 0

    async def ask(client: Redis) -> None:
        nonlocal tried
        tried += 1
        await client.ping()

    with pytest.raises(ValkeyAway):
        await valkey.run(ask)
    valkey._retry_at = tried = 0
    answers = await asyncio.gather(*(valkey.run(ask) for _ in range(20)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValkeyAway] * 20
    assert tried == 1
    process.send_signal(signal.SIGCONT)
    valkey._retry_at = 0
    await valkey.run(ask)
    await asyncio.gather(*(valkey.run(ask) for _ in range(20)))
    assert tried == 22


async def test_a_limit_goes_on_when_valkey_goes_away(make_service: MakeService, redis: Any) -> None:
    """What an instance has counted while it was there counts on."""
    service = await make_service()
    channel = await limited(service, channel_replies=2, channel_seconds=60)
    user = {"entity_id": channel}
    assert await become(service, user, user) == [DELIVERED, DELIVERED]
    service.sidecast.valkey._retry_at = float("inf")
    assert await become(service, user) == [("suppressed", "channel_limit")]


async def test_limits_are_bounded_when_valkey_is_killed(
    make_service: MakeService, own_valkey: tuple[str, asyncio.subprocess.Process]
) -> None:
    """Exactly so many before; afterwards no instance has more than its own count leaves."""
    url, process = own_valkey
    instances = [await make_service(redis_url=url) for _ in range(2)]
    channel = await limited(instances[0], channel_replies=8, channel_seconds=60)

    async def delivered(events: int) -> int:
        posts = (instances[number % 2].accept(entity_id=channel, user_id=str(number)) for number in range(events))
        acks = await asyncio.gather(*posts)
        return [(await instances[0].ended(ack["interaction_id"]))["state"] for ack in acks].count("delivered")

    assert await delivered(40) == 8
    process.kill()
    await process.wait()
    assert await delivered(40) <= 8
    assert await delivered(40) == 0


async def test_limits_are_counted_for_all_instances_in_valkey(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    channel = await limited(one, user_cooldown=60)
    anna = {"entity_id": channel, "user_id": "anna"}
    assert await become(one, anna) == [DELIVERED]
    assert await become(two, anna) == [("suppressed", "user_cooldown")]


async def test_a_repeat_takes_no_place(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = await limited(service, channel_replies=2, channel_seconds=60)
        copies = event(entity_id=channel, event_id="one")
        acks = await asyncio.gather(*(service.accept(**copies) for _ in range(20)))
        assert len({ack["interaction_id"] for ack in acks}) == 1
        assert (await service.ended(acks[0]["interaction_id"]))["state"] == "delivered"
        assert await become(service, {"entity_id": channel}) == [DELIVERED]
        assert await become(service, {"entity_id": channel}) == [("suppressed", "channel_limit")]
    assert len(stub.requests) == 2


async def test_a_bot_that_no_list_has_is_answered_twice_at_most(make_service: MakeService) -> None:
    service = await make_service()
    channel = await limited(service)
    bot = {"entity_id": channel, "username": "QuizzBot"}
    told = await become(service, bot, bot, bot, {"entity_id": channel, "username": "abbot_anna"})
    assert told == [DELIVERED, DELIVERED, ("suppressed", "bot_chain"), DELIVERED]


def _chat(entity_id: str) -> Any:
    from services.events import ChatEvent  # noqa: PLC0415

    return ChatEvent(**event(entity_id=entity_id))
