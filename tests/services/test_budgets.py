"""What a community may spend in a day: replies get cheaper, then stop, and the count is the ledger's."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from providers.base import Usage
from services import ledger as ledgers
from services.ledger import Account, Call, Spent
from tests.conftest import API, KEY, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.services.test_limits import DELIVERED, become
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

if TYPE_CHECKING:
    from services.database import Connection

CALL = 11  # tokens of each of the stub's answers
HELLO = [{"role": "user", "content": "hi"}]


async def budgeted(service: Service, **budget: Any) -> tuple[str, str]:
    """A channel, and its community with such a budget."""
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    status, body = await put(service, community_id=mine, **budget)
    assert status == 200, body
    return channel, mine


async def told(service: Service, community_id: str) -> dict[str, Any]:
    """The budget as GET /usage has it."""
    answer = await service.get(f"{API}/usage?community_id={community_id}")
    budget: dict[str, Any] = (await answer.get_json())["data"]["budget"]
    return budget


async def test_replies_get_cheaper_and_then_stop(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, waddleai_model="big")
        channel, mine = await budgeted(
            service, budget_tokens=10 * CALL, budget_small_model="waddleai/small", budget_canned=2
        )
        outcomes = await become(service, *[{"entity_id": channel}] * 14)
        steps = [(await told(service, mine))["step"]]
        await put(service, community_id=mine, budget_tokens=11 * CALL)
        assert await become(service, {"entity_id": channel}) == [("delivered", "budget_small_model")]
    small, canned, silent = (("delivered", f"budget_{step}") for step in ("small_model", "canned", "silent"))
    assert outcomes == [DELIVERED] * 8 + [small] * 2 + [canned] * 2 + [("suppressed", silent[1])] * 2
    assert [request["model"] for request in stub.requests] == ["big"] * 8 + ["small"] * 3
    assert steps == ["budget_silent"]
    canned_texts = [body["response_data"] for body in service.messages if body["response_data"]["fallback"]]
    assert len(canned_texts) == 2


async def test_completions_spend_the_same_budget_and_are_refused_at_its_end(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, waddleai_model="big")
        _, mine = await budgeted(service, budget_tokens=5 * CALL, budget_small_model="waddleai/small")
        headers = {"Authorization": "Bearer test-key-0123456789", "X-Community-Id": mine}
        for _ in range(5):
            answer = await service.client.post(
                f"{API}/chat/completions", json={"model": "auto", "messages": HELLO}, headers=headers
            )
            assert answer.status_code == 200
        for asked in (
            {"messages": HELLO},
            {"messages": HELLO, "stream": True},
            {"model": "waddleai/big", "input": "x"},
        ):
            path = "/embeddings" if "input" in asked else "/chat/completions"
            answer = await service.client.post(API + path, json=asked, headers=headers)
            assert answer.status_code == 429
            assert (await answer.get_json())["error"]["code"] == "insufficient_quota"
            assert 0 < int(answer.headers["Retry-After"]) <= 86_400
        assert (await service.client.get(f"{API}/models", headers=headers)).status_code == 200
    assert [request["model"] for request in stub.requests] == ["big"] * 4 + ["small"]


async def test_what_is_spent_is_what_the_ledger_has_also_after_a_restart_and_elsewhere(
    make_service: MakeService, database: Connection
) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url}
        one, two = await make_service(**settings), await make_service(**settings)
        channel, mine = await budgeted(one, budget_tokens=1000)
        posts = [(one, two)[number % 2].accept(entity_id=channel, user_id=str(number)) for number in range(20)]
        await asyncio.gather(*(one.ended(ack["interaction_id"]) for ack in await asyncio.gather(*posts)))
        for service in (one, two):
            await service.sidecast.ledger.flush()
        again = await make_service(**settings)
        for service in (one, two, again):
            service.sidecast.budgets._known.clear()
            assert await service.sidecast.budgets.spent(UUID(mine)) == Spent(20 * CALL)
    total = "select sum(prompt_tokens + completion_tokens) from ledger where community_id = $1::uuid"
    assert await database.fetchval(total, mine) == 20 * CALL
    assert (await told(again, mine))["tokens"] == {"used": 20 * CALL, "most": 1000}


async def test_a_budget_in_money_counts_what_the_prices_say(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("provider,model,prompt,completion\nwaddleai,dear,1000000,1000000\n")
    monkeypatch.setattr(ledgers, "PRICES", prices)
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, waddleai_model="dear")
        channel, mine = await budgeted(service, budget_cost=2 * CALL, budget_canned=0)
        outcomes = await become(service, *[{"entity_id": channel}] * 3)
        assert outcomes == [DELIVERED, DELIVERED, ("suppressed", "budget_silent")]
        assert (await told(service, mine))["cost"] == {"used": 2 * CALL, "most": 2 * CALL}
        status, body = await put(service, community_id=mine, model="of unknown price")
        assert (status, body["details"][0]["field"]) == (400, "budget_cost")


@pytest.mark.parametrize("entry", ["small", "magic/m", "openai/"])
async def test_a_small_model_that_cannot_be_asked_is_refused(make_service: MakeService, entry: str) -> None:
    service = await make_service()
    mine = await community(service, str(event()["entity_id"]))
    status, body = await put(service, community_id=mine, budget_small_model=entry)
    assert (status, body["details"][0]["field"]) == (400, "budget_small_model")


async def test_a_model_that_its_provider_calls_otherwise_costs_what_it_is_asked_for(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a budget in money is spent on no model whose price is not known."""
    prices = tmp_path / "prices.csv"
    prices.write_text("provider,model,prompt,completion\nwaddleai,dear,1000000,1000000\n")
    monkeypatch.setattr(ledgers, "PRICES", prices)
    usage = {"prompt_tokens": 7, "completion_tokens": 4}
    message = {"choices": [{"message": {"content": "hi"}}], "model": "dear-2026-11-01", "usage": usage}
    stub = StubOpenAI((200, "application/json", json.dumps(message)))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, waddleai_model="dear")
        channel, mine = await budgeted(service, budget_cost=2 * CALL, budget_canned=0)
        outcomes = await become(service, *[{"entity_id": channel}] * 3)
        assert outcomes == [DELIVERED, DELIVERED, ("suppressed", "budget_silent")]
        await put(service, community_id=mine, budget_cost=1000)
        headers = {"X-API-Key": KEY, "X-Community-Id": mine}
        asked = {"model": "waddleai/another", "messages": HELLO}
        answer = await service.client.post(f"{API}/chat/completions", json=asked, headers=headers)
        assert (answer.status_code, (await answer.get_json())["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    "answered",
    [
        {"usage": {"prompt_tokens": 10**12, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": 10**30, "completion_tokens": -1}},
        {"model": "m\0x" * 1000},
        {"choices": [{"message": {"content": "hel\0lo"}}]},
    ],
    ids=["tokens", "more tokens", "model", "text"],
)
async def test_what_a_provider_says_of_itself_breaks_nothing_for_others(
    make_service: MakeService, answered: dict[str, Any]
) -> None:
    message = {"choices": [{"message": {"content": "hello"}}], "model": "m"} | answered
    stub = StubOpenAI((200, "application/json", json.dumps(message)))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel, mine = await budgeted(service, budget_tokens=1000)
        assert await become(service, {"entity_id": channel}) == [DELIVERED]
        assert service.messages[-1]["response_data"]["message"] == "🤖 hello"
        assert 0 < (await told(service, mine))["tokens"]["used"] < 1000
        await service.sidecast.ledger.flush()
        assert not service.sidecast.ledger._waiting


async def test_a_row_that_cannot_be_written_is_given_up_and_the_others_are_not(make_service: MakeService) -> None:
    service = await make_service()
    ledger = service.sidecast.ledger
    await ledger.flush()
    ledger.note(Call("p", "m\0", "ok", 0.1, Usage(1, 1), account=Account(UUID(int=9))))
    ledger.note(Call("elsewhere", "m", "ok", 0.1, Usage(1, 1), account=Account(UUID(int=9))))
    await ledger.flush()
    spent = await ledger.spent(UUID(int=9), datetime(2026, 1, 1, tzinfo=UTC))
    assert (spent.tokens, len(ledger._waiting)) == (2, 0)


async def test_a_small_model_that_cannot_be_asked_here_is_passed_over(make_service: MakeService) -> None:
    """It was set where CUSTOM_BASE_URL was."""
    stub = StubOpenAI()
    async with running(stub.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "waddleai_model": "big"}
        there = await make_service(custom_base_url=f"{url}/v1", **settings)
        channel, _ = await budgeted(there, budget_tokens=10 * CALL, budget_small_model="custom/small")
        await there.sidecast.drain()
        here = await make_service(**settings)
        outcomes = await become(here, *[{"entity_id": channel}] * 9)
    assert [state for state, _ in outcomes] == ["delivered"] * 9
    assert {request["model"] for request in stub.requests} == {"big"}
