"""One channel under a raid does not make another's replies late."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeService, event
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


async def test_a_raid_on_one_channel_leaves_room_for_the_others(make_service: MakeService) -> None:
    """A quarter of the slots is out of its reach; what waits takes turns, in each community the oldest first."""
    stub = StubOpenAI(delay=0.1)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, max_concurrent_requests=4)
        raided = event()["entity_id"]
        raid = [event(entity_id=raided, user_id=str(number)) for number in range(60)]
        acks = [
            (await answer.get_json())["data"]
            for answer in await asyncio.gather(*(service.post(**body) for body in raid))
        ]
        others = [await service.accept() for _ in range(6)]
        quiet = [await service.ended(ack["interaction_id"]) for ack in others]
        still = [await service.outcome(ack["interaction_id"]) for ack in acks]
        assert sum(outcome["state"] in {"received", "answering"} for outcome in still) > 30
        assert max(outcome["timings"]["total"] for outcome in quiet) < 1_000
        ended = [await service.ended(ack["interaction_id"]) for ack in acks]
    assert {outcome["state"] for outcome in ended} == {"delivered"}
    waits = [outcome["timings"]["waited"] for outcome in sorted(ended, key=lambda outcome: outcome["received_at"])]
    assert waits[0] < waits[-1]
    assert stub.most_at_once <= 4


async def test_what_waits_yields_only_where_there_is_somebody_to_yield_to(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor that is full leaves no slot empty while nobody else has anything to say."""
    monkeypatch.setattr("services.worker._Processor.share", lambda _: 1.0)
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, max_concurrent_requests=2)
        channel = event()["entity_id"]
        acks = [await service.accept(entity_id=channel, user_id=str(number)) for number in range(40)]
        async with asyncio.timeout(8):  # 40 looks of half a second would take longer
            for ack in acks:
                assert (await service.ended(ack["interaction_id"]))["state"] == "delivered"


async def test_two_instances_share_what_waits(make_service: MakeService) -> None:
    stub = StubOpenAI(delay=0.05)
    async with running(stub.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "max_concurrent_requests": 2}
        one, two = await make_service(**settings), await make_service(**settings)
        acks = [await one.accept() for _ in range(80)]
        outcomes = [await one.ended(ack["interaction_id"]) for ack in acks]
    assert {outcome["state"] for outcome in outcomes} == {"delivered"}
    assert len(stub.requests) == 80
    assert len(two.messages) > 5
    assert len(one.messages) + len(two.messages) == 80
