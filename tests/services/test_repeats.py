"""A channel is not told the same text twice within 30 s: it hears it in other words, or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from services.replies import FRAMES
from tests.conftest import MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


async def channel_of(service: Service, **settings: Any) -> str:
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    await put(service, community_id=mine, repeat_seconds=30, cache_seconds=0, **settings)
    return channel


async def greeted(service: Service, channel: str, times: int, **fields: Any) -> list[tuple[str, str | None]]:
    """How as many greetings of one user ended."""
    ends = []
    for number in range(times):
        about = {"entity_id": channel, "user_id": "ann", "username": "Ann", "event_id": f"{channel} {number}"} | fields
        ack = await service.accept(**event(**about))
        outcome = await service.ended(ack["interaction_id"])
        ends.append((outcome["state"], outcome["reason"]))
    return ends


def said(*services: Service) -> list[str]:
    return [body["response_data"]["message"] for service in services for body in service.messages]


async def test_the_same_words_come_in_other_words_and_then_not_at_all(make_service: MakeService) -> None:
    stub = StubOpenAI("Welcome in!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = await channel_of(service)
        times = len(FRAMES) + 1
        assert await greeted(service, channel, times + 1) == [("delivered", None)] * times + [("suppressed", "repeat")]
        assert said(service)[0] == "🤖 Welcome in!"
        assert len({*said(service)}) == times > 20
        other = await channel_of(service)
        assert await greeted(service, other, 1) == [("delivered", None)]
    assert said(service)[-1] == "🤖 Welcome in!"


async def test_canned_texts_take_turns(make_service: MakeService) -> None:
    stub = StubOpenAI((500, "text/plain", "no"))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = await channel_of(service)
        ends = await greeted(service, channel, 5)
    assert [state for state, _ in ends] == ["delivered"] * 4 + ["suppressed"]
    assert said(service) == [
        "🤖 Hello Ann!",
        "🤖 Hi Ann, welcome!",
        "🤖 Hey Ann, good to see you!",
        "🤖 Welcome in, Ann!",
    ]


async def test_two_instances_do_not_say_the_same_at_once(make_service: MakeService, redis: Redis) -> None:
    stub = StubOpenAI("Welcome in!", delay=0.2)
    async with running(stub.app) as url:
        chosen = {"ai_provider": "waddleai", "waddleai_base_url": url}
        services = [await make_service(**chosen) for _ in range(2)]
        channel = await channel_of(services[0])
        posts = [greeted(service, channel, 1, event_id=str(n)) for n, service in enumerate(services)]
        ends = await asyncio.gather(*posts)
        assert ends == [[("delivered", None)]] * 2
        assert sorted(map(len, said(*services))) == sorted([len("🤖 Welcome in!"), len("🤖 Ann: Welcome in!")])
        assert len(await redis.keys("*:said:*")) == 2
        assert 0 < await redis.pttl((await redis.keys("*:said:*"))[0]) <= 30_000


async def test_a_short_while_later_it_may_be_said_again(make_service: MakeService) -> None:
    stub = StubOpenAI("Welcome in!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = str(event()["entity_id"])
        mine = await community(service, channel)
        await put(service, community_id=mine, repeat_seconds=0.3)
        await greeted(service, channel, 1)
        await asyncio.sleep(0.35)
        await greeted(service, channel, 1, event_id="later")
    assert said(service) == ["🤖 Welcome in!"] * 2
