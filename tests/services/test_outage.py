"""An outage of the first provider is invisible in chat: every event gets a reply of the fallback's model."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from bench.outage import KINDS, broken
from tests.conftest import MakeService, Service, event
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

EVENTS = 250


@pytest.mark.parametrize("kind", KINDS)
async def test_every_event_gets_a_reply_of_the_fallback(make_service: MakeService, kind: str) -> None:
    fallback = StubOpenAI("Hello from the fallback")
    async with broken(kind) as url, running(fallback.app) as fallback_url:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url=url,
            waddleai_timeout=0.3,
            ai_fallbacks="custom/m",
            custom_base_url=f"{fallback_url}/v1",
            breaker_open_seconds=0.5,
            max_concurrent_requests=50,
        )
        answer = await service.post("/interaction/batch", events=[event() for _ in range(EVENTS)])
        results = (await answer.get_json())["data"]["results"]
        outcomes: list[dict[str, Any]] = [await service.ended(item["data"]["interaction_id"]) for item in results]
    assert Counter((outcome["state"], outcome["provider"]) for outcome in outcomes) == {("delivered", "custom"): EVENTS}
    assert all(outcome["reason"].startswith("waddleai: provider_") for outcome in outcomes)
    assert {body["response_data"]["message"] for body in service.messages} == {"🤖 Hello from the fallback"}
    assert not any(body["response_data"]["fallback"] for body in service.messages)
    opened = [outcome for outcome in outcomes if outcome["reason"] == "waddleai: provider_breaker_open"]
    assert len(opened) > EVENTS / 2, "most did not wait for the broken one"


async def test_health_and_metrics_say_that_a_provider_is_not_asked(make_service: MakeService) -> None:
    """The breaker is open although the server is back: nobody has asked it yet."""
    stub = StubOpenAI((500, "application/json", "{}"))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, breaker_failures=2)
        assert await breaker_of(service) == ("healthy", "closed")
        await service.answered()
        assert await breaker_of(service) == ("degraded", "open")
        metrics = await (await service.get("/metrics")).get_data(as_text=True)
    assert 'sidecast_provider_breaker{provider="waddleai",sidecast_provider_breaker="open"} 1.0' in metrics


async def breaker_of(service: Service) -> tuple[str, str]:
    """What `/health` says, which it keeps for a second."""
    await asyncio.sleep(1.1)
    body = await (await service.get("/health")).get_json()
    health = body["data"]
    return health["status"], health["dependencies"]["waddleai"]["breaker"]
