"""The same question gets the answer that it got before: to anyone, in the same community, for a while."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from services.answer_cache import STAND_IN, Kept
from tests.conftest import MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

QUESTION = "What game is this?"


async def asked(service: Service, channel: str, text: str = QUESTION, **fields: Any) -> str:
    """What somebody is answered who was never there before."""
    posted = event(entity_id=channel, message_content=text) | {"username": "Ann"} | fields
    body = await service.answered(**posted)
    return str(body["response_data"]["message"])


def test_the_stand_in_never_comes_out() -> None:
    for text in ("Hi Quillon!", "Quillonさん、こんにちは", "quillon님", "Quillons game"):
        assert "quillon" not in Kept(text, "p", "m", None, None).to("Ann").lower()


@pytest.mark.parametrize("again", [QUESTION, "what game is this??", "  WHAT GAME  is this ?"])
async def test_the_same_question_is_asked_once(make_service: MakeService, again: str) -> None:
    """On another instance too; each is called by their own name."""
    stub = StubOpenAI(f"It's Hades, {STAND_IN}!")
    async with running(stub.app) as url:
        chosen = {"ai_provider": "waddleai", "waddleai_base_url": url}
        one, two = await make_service(**chosen), await make_service(**chosen)
        channel = event()["entity_id"]
        assert await asked(one, channel) == "🤖 It's Hades, Ann!"
        await asyncio.sleep(0.1)
        assert await asked(two, channel, again, username="Ben", user_id="ben") == "🤖 It's Hades, Ben!"
        usage = (await (await two.get("/api/v1/ai/usage")).get_json())["data"]["usage"]
    assert len(stub.requests) == 1
    assert "Ann" not in json.dumps(stub.requests)
    assert any(row["provider"] == "waddleai" and row["cached"] for row in usage)


async def test_a_hit_is_told(make_service: MakeService) -> None:
    stub = StubOpenAI("Hades!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="openai", openai_base_url=url + "/v1", ai_model="gpt-4o-mini")
        service.sidecast.ledger._prices["openai", "gpt-4o-mini"] = (0.15, 0.6)
        channel = event()["entity_id"]
        mine = await community(service, channel)
        await asked(service, channel)
        await asyncio.sleep(0.1)
        ack = await service.accept(**event(entity_id=channel, message_content=QUESTION))
        outcome = await service.ended(ack["interaction_id"])
        answer = await service.get(f"/api/v1/ai/usage?community_id={mine}")
        [row] = (await answer.get_json())["data"]["usage"]
        metrics = await (await service.get("/metrics")).get_data(as_text=True)
    assert outcome["timings"]["cached"] >= 0
    assert (outcome["provider"], outcome["model"], outcome["tokens"]["prompt"]) == ("openai", "gpt-4o-mini", None)
    assert (row["calls"], row["cached"], row["prompt_tokens"]) == (1, 1, 7)
    assert row["saved"] == pytest.approx(row["cost"])
    assert row["saved"] > 0
    assert 'sidecast_cached_answers_total{result="hit"} 1.0' in metrics


@pytest.mark.parametrize(
    "text",
    [
        "what is my name?",
        "what did I say?",
        "am I late?",
        "wie ist mein name?",
        "who is Quillon?",
        "how do i find my key?",
    ],
)
async def test_what_is_about_the_asker_is_asked_each_time(make_service: MakeService, text: str) -> None:
    stub = StubOpenAI("Ann!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = event()["entity_id"]
        for _ in range(2):
            await asked(service, channel, text)
            await asyncio.sleep(0.05)
    assert len(stub.requests) == 2


async def test_a_conversation_is_carried_on_and_not_cached(make_service: MakeService) -> None:
    stub = StubOpenAI("Hades!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = event()["entity_id"]
        await asked(service, channel, "hello", user_id="ann")
        await asked(service, channel, user_id="ann")
        await asyncio.sleep(0.1)
        await asked(service, channel, user_id="ben")
        await asyncio.sleep(0.1)
        await asked(service, channel, user_id="cid")
    assert len(stub.requests) == 3
    assert "hello" in json.dumps(stub.requests[1]["messages"])
    assert "hello" not in json.dumps(stub.requests[2]["messages"])


async def test_another_community_prompt_or_model_asks_again(make_service: MakeService) -> None:
    stub = StubOpenAI("Hades!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel, other = event()["entity_id"], event()["entity_id"]
        mine = await community(service, channel)
        await asked(service, channel)
        await asyncio.sleep(0.1)
        await asked(service, other)
        changes: list[dict[str, Any]] = [{"system_prompt": "Be curt."}, {"model": "other"}, {"temperature": 0.1}]
        for number, change in enumerate(changes, 3):
            await put(service, community_id=mine, **change)
            await asked(service, channel)
            assert len(stub.requests) == number
            await asyncio.sleep(0.1)
        await asked(service, channel, metadata={"game": "Celeste"})
        assert len(stub.requests) == 6
        await put(service, community_id=mine, cache_seconds=0)
        await asked(service, channel)
        assert len(stub.requests) == 7


async def test_equal_questions_at_once_are_one_call(make_service: MakeService) -> None:
    stub = StubOpenAI("Hades!", delay=0.3)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = event()["entity_id"]
        await asyncio.gather(*(asked(service, channel) for _ in range(5)))
    assert len(stub.requests) == 1


async def test_an_answer_of_a_fallback_or_none_is_not_kept(make_service: MakeService) -> None:
    stub = StubOpenAI((500, "text/plain", "no"))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, ai_fallbacks="custom/m",
                                     custom_base_url=url + "/v1")  # fmt: skip
        channel = event()["entity_id"]
        await asked(service, channel)
        stub.answer = "Hades!"
        await asyncio.sleep(0.1)
        assert await asked(service, channel) == "🤖 Hades!"


@pytest.mark.parametrize("kept", [True, False])
async def test_only_a_community_that_keeps_texts_has_them_in_postgresql(
    make_service: MakeService, redis: Redis, database: Any, kept: bool
) -> None:
    """Sealed; and there they survive Valkey."""
    stub = StubOpenAI("Hades!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = event()["entity_id"]
        mine = await community(service, channel)
        await put(service, community_id=mine, store_content=kept)
        await asked(service, channel)
        await asyncio.sleep(0.2)
        rows = await database.fetch("select * from inference_cache where community_id = $1::uuid", mine)
        assert len(rows) == kept
        assert "Hades" not in str(rows)
        await redis.flushall()
        service.sidecast._answers._memory.clear()
        await asked(service, channel)
        assert len(stub.requests) == (1 if kept else 2)
        assert bool(await redis.keys("*:answer:*")) is True
        await database.execute("update inference_cache set expires_at = now() - interval '1 second'")
        await service.sidecast._retention.trim()
        assert await database.fetchval("select count(*) from inference_cache") == 0
