"""Requests a minute by key: told in headers, refused beyond, one count for all instances; events are spared."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from services import rates
from tests.conftest import API, KEY, MakeService, Service


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test runs over the end of a minute."""
    now = time.time() // 60 * 60 + 5
    monkeypatch.setattr(rates, "time", SimpleNamespace(time=lambda: now))


async def statuses(service: Service, requests: int, key: str = KEY) -> list[int]:
    answers = await asyncio.gather(*(service.get(f"{API}/keys", key) for _ in range(requests)))
    return [answer.status_code for answer in answers]


async def test_a_key_hears_what_it_has_left_and_when_it_is_too_much(make_service: MakeService) -> None:
    service = await make_service(api_rate_limit=3)
    told: list[dict[str, str]] = []
    for _ in range(4):
        answer = await service.get(f"{API}/keys")
        told.append(dict(answer.headers))
    assert [headers["ratelimit-remaining"] for headers in told] == ["2", "1", "0", "0"]
    assert told[0]["ratelimit-policy"] == '"requests";q=3;w=60'
    assert told[0]["ratelimit"].startswith('"requests";r=2;t=')
    assert answer.status_code == 429
    assert (await answer.get_json())["error"]["code"] == "RATE_LIMITED"
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"]


async def test_events_and_what_needs_no_key_are_spared(make_service: MakeService) -> None:
    service = await make_service(api_rate_limit=1)
    assert await statuses(service, 2) == [200, 429]
    ack = await service.accept()
    assert (await service.ended(ack["interaction_id"]))["state"] == "delivered"
    assert (await service.client.get("/health")).status_code == 200
    answer = await service.post("/chat/completions", messages=[{"role": "user", "content": "hi"}])
    assert (answer.status_code, (await answer.get_json())["error"]["type"]) == (429, "rate_limit_error")


async def test_each_key_has_its_own_count(make_service: MakeService) -> None:
    service = await make_service(api_rate_limit=5)
    answer = await service.post("/keys", role="admin")
    other = (await answer.get_json())["data"]["key"]
    assert (await statuses(service, 10)).count(200) == 4
    assert (await statuses(service, 10, other)).count(200) == 5


async def test_instances_count_together_and_alone_without_valkey(make_service: MakeService) -> None:
    one, two = await make_service(api_rate_limit=10), await make_service(api_rate_limit=10)
    assert (await statuses(one, 8)).count(200) == 8
    assert (await statuses(two, 1)).count(200) == 1
    for service in (one, two, one):
        await service.sidecast.rates.share()
    assert [await statuses(service, 1) for service in (one, two)] == [[200], [200]]
    alone = await make_service(api_rate_limit=10, redis_url="")
    assert (await statuses(alone, 20)).count(200) == 10
    await alone.sidecast.rates.share()
    assert (await statuses(alone, 5)).count(200) == 0


async def test_a_stream_counts_each_request(make_service: MakeService) -> None:
    service = await make_service(api_rate_limit=2)
    headers = {"Authorization": f"Bearer {KEY}"}
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with service.client.websocket(f"{API}/stream", headers=headers) as socket:
        await socket.send_json({"id": "one"} | asked)
        while not (await socket.receive_json()).get("done"):
            pass
        await socket.send_json({"id": "two"} | asked)
        assert (await socket.receive_json())["error"]["type"] == "rate_limit_error"
