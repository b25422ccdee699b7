"""The ledger: a row for each call of a model, and sums that match it, on real PostgreSQL."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from providers.base import Usage
from services import ledger as ledgers
from services.database import Database
from services.ledger import Call, Ledger
from services.logs import open_log
from tests.conftest import API, MakeService, Service
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

if TYPE_CHECKING:
    from services.database import Connection

HELLO = [{"role": "user", "content": "Say hello."}]


async def used(service: Service, **query: str) -> list[dict[str, Any]]:
    answer = await service.get(f"{API}/usage?" + "&".join(f"{name}={value}" for name, value in query.items()))
    body = await answer.get_json()
    assert answer.status_code == 200, body
    usage: list[dict[str, Any]] = body["data"]["usage"]
    return usage


async def test_an_interaction_costs_its_community_what_the_provider_counted(
    make_service: MakeService, database: Connection
) -> None:
    """Also after a restart."""
    service = await make_service()
    replies = [await service.answered(entity_id="twitch:channel:ledger") for _ in range(2)]
    outcomes = [await service.outcome(reply["interaction_id"]) for reply in replies]
    community = outcomes[0]["community_id"]
    await service.sidecast.ledger.flush()
    rows = await database.fetch("select * from ledger where community_id = $1::uuid order by called_at", community)
    assert [str(row["interaction_id"]) for row in rows] == [outcome["interaction_id"] for outcome in outcomes]
    for row, outcome in zip(rows, outcomes, strict=True):
        assert (row["kind"], row["result"], row["estimated"], row["cost"]) == ("chat", "ok", False, 0)
        assert outcome["tokens"] == {"prompt": row["prompt_tokens"], "completion": row["completion_tokens"]}
        assert row["latency_ms"] > 0
    [total] = await used(await make_service(), community_id=community)
    assert (total["day"], total["calls"], total["failed"]) == (datetime.now(UTC).date().isoformat(), 2, 0)
    assert (total["provider"], total["model"]) == ("embedded", "SmolLM2-135M-Instruct.Q4_1")
    for name in ("prompt_tokens", "completion_tokens"):
        assert total[name] == sum(row[name] for row in rows)


async def test_each_way_to_a_model_has_a_row(make_service: MakeService, database: Connection) -> None:
    service = await make_service()
    since = datetime.now(UTC)
    asked: dict[str, Any] = {"model": "auto", "messages": HELLO, "max_tokens": 9}
    await service.post("/chat/completions", **asked)
    await (await service.post("/chat/completions", **asked, stream=True)).get_data(as_text=True)
    await service.post("/embeddings", model="auto", input=["a cat"])
    await service.sidecast.ledger.flush()
    rows = await database.fetch("select * from ledger where called_at >= $1 order by called_at", since)
    assert [(row["kind"], row["first_token_ms"] is not None) for row in rows] == [
        ("chat", False),
        ("chat", True),
        ("embedding", False),
    ]
    assert all(row["prompt_tokens"] > 0 and not row["estimated"] and row["result"] == "ok" for row in rows)
    assert rows[1]["first_token_ms"] <= rows[1]["latency_ms"]


async def test_what_failed_has_a_row_too_and_what_was_not_counted_is_an_estimate(
    make_service: MakeService, database: Connection
) -> None:
    message = '{"choices": [{"message": {"content": "Hello there"}}], "model": "x"}'
    stub = StubOpenAI((200, "application/json", message))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        since = datetime.now(UTC)
        answer = await service.post("/chat/completions", model="auto", messages=HELLO)
        counted = (await answer.get_json())["usage"]
        stub.answer = (401, "application/json", "{}")
        await service.post("/chat/completions", model="auto", messages=HELLO)
        await service.sidecast.ledger.flush()
    first, second = await database.fetch("select * from ledger where called_at >= $1 order by called_at", since)
    assert (first["estimated"], first["prompt_tokens"], first["completion_tokens"], first["cost"]) == (True, 3, 3, None)
    assert (second["result"], second["prompt_tokens"]) == ("provider_refused_key", None)
    assert counted == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6, "estimated": True}


async def test_an_admin_may_edit_the_prices_while_it_runs(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("provider,model,prompt,completion\np,*,1,2\n")
    monkeypatch.setattr(ledgers, "PRICES", prices)
    service = await make_service()
    ledger = Ledger(service.sidecast.database, service.sidecast.log)
    for number, (text, cost) in enumerate((("p,m,3,4", 7.0), ("p,m,free,4", 7.0), ("p,m,0,0", 0.0))):
        prices.write_text(f"provider,model,prompt,completion\n{text}\n")
        os.utime(prices, (number, number))  # a clock may be too coarse for a quick test
        ledger.refresh_prices()
        assert ledger._row(Call("p", "m", "ok", 0.1, Usage(1_000_000, 1_000_000)))["cost"] == cost


@pytest.mark.parametrize("query", ["since=soon", "days=3"])
async def test_a_bad_query_names_its_field(make_service: MakeService, query: str) -> None:
    answer = await (await make_service()).get(f"{API}/usage?{query}")
    assert answer.status_code == 400
    assert (await answer.get_json())["error"]["details"][0]["field"] == query.partition("=")[0]


async def test_what_cannot_be_written_now_is_written_later(make_service: MakeService) -> None:
    service = await make_service()
    away = Database("postgresql://nobody@127.0.0.1:1/none", service.sidecast.log)
    ledger = Ledger(away, open_log(service.sidecast.settings))
    for number in range(3):
        ledger.note(Call("p", "m", "ok", 0.1, Usage(1, number)))
    await ledger.flush()
    ledger._database = service.sidecast.database
    await ledger.flush()
    await ledger.flush()
    usage = await used(service)
    assert [row["completion_tokens"] for row in usage if row["provider"] == "p"] == [3]
