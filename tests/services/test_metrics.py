"""Metrics of real exchanges; a bounded number of series; what communities spend is for admins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID

from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from embedded.parts import free_port
from providers.base import Usage
from services.database import Database
from services.ledger import Account, Call
from services.metrics import MOST_LABELS, Kept, Metrics
from services.readings import Readings
from tests.conftest import API, KEY, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.router import StubRouter
from tests.stubs.server import running

ASKED = [{"role": "user", "content": "Hello"}]


async def scrape(service: Service, key: str = "") -> dict[str, float]:
    """Each sample by its name and labels, as Prometheus reads them."""
    service.sidecast.readings._fresh_until = 0.0
    answer = await service.client.get("/metrics", headers={"X-API-Key": key} if key else {})
    assert answer.status_code == 200
    return dict(_samples(await answer.get_data(as_text=True)))


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            yield f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value


async def test_an_exchange_is_in_every_metric_it_touches(make_service: MakeService) -> None:
    router, stub = StubRouter((503, {})), StubOpenAI()
    async with running(router.app) as router_url, running(stub.app) as url:
        service = await make_service(
            ai_provider="custom", ai_model="m", custom_base_url=f"{url}/v1", router_api_url=router_url
        )
        ack = await service.accept()
        await service.ended(ack["interaction_id"])
        stub.answer = (500, "application/json", "{}")
        await service.ended((await service.accept(message_content="bye"))["interaction_id"])
        found = await scrape(service)
    for name, value in {
        "sidecast_events_total{outcome=triggered}": 2,
        "sidecast_events_total{outcome=delivered}": 2,
        "sidecast_events_total{outcome=undeliverable}": 0,
        "sidecast_outcomes_total{state=delivered,trigger=greeting}": 1,
        "sidecast_outcomes_total{state=delivered,trigger=farewell}": 1,
        "sidecast_request_seconds_count{endpoint=/api/v1/ai/interaction,method=POST,status=2xx}": 2,
        "sidecast_delivery_seconds_count{result=ok}": 2,
        "sidecast_delivery_seconds_count{result=router_status_503}": 1,
        "sidecast_provider_seconds_count{provider=custom,result=ok}": 1,
        "sidecast_model_calls_total{model=m,provider=custom,result=ok}": 1,
        "sidecast_tokens_total{kind=prompt,model=m,provider=custom}": 7,
        "sidecast_tokens_total{kind=completion,model=m,provider=custom}": 4,
        "sidecast_provider_retries_total{provider=custom}": 2,
        "sidecast_provider_degraded{model=m,provider=custom}": 0,
        "sidecast_queue_depth": 0,
        "sidecast_queue_oldest_seconds": 0,
        "sidecast_database_up": 1,
        "sidecast_database_pool_limit": 10,
        "sidecast_valkey_away": 0,
    }.items():
        assert found.get(name) == value, name
    assert found["sidecast_database_pool_size"] > found["sidecast_database_pool_idle"] >= 0


async def test_what_waits_is_counted_once_in_five_seconds(make_service: MakeService) -> None:
    stub = StubOpenAI(delay=1.5)
    async with running(stub.app) as url:
        service = await make_service(
            ai_provider="custom", ai_model="m", custom_base_url=f"{url}/v1", max_concurrent_requests=1
        )
        assert (await scrape(service))["sidecast_queue_depth"] == 0
        acks = [await service.accept() for _ in range(3)]
        text = await (await service.client.get("/metrics")).get_data(as_text=True)
        assert dict(_samples(text))["sidecast_queue_depth"] == 0
        found = await scrape(service)
        assert found["sidecast_queue_depth"] == 2
        assert 0 < found["sidecast_queue_oldest_seconds"] < 60
        for ack in acks:
            await service.ended(ack["interaction_id"])


async def test_the_event_loop_is_measured_each_second(make_service: MakeService) -> None:
    service = await make_service()
    await asyncio.sleep(1.3)
    assert (await scrape(service))["sidecast_loop_lag_seconds_count"] >= 1


async def test_what_is_away_is_told_and_metrics_go_on(make_service: MakeService) -> None:
    service = await make_service(redis_url=f"redis://127.0.0.1:{free_port()}")
    await service.answered()
    assert (await scrape(service))["sidecast_valkey_away"] == 1
    parts = service.sidecast
    away = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none", parts.log)
    readings = Readings(away, parts.valkey, parts.interactions, parts.ledger, parts.metrics)
    parts.interactions._database, kept = away, parts.interactions._database
    found = dict(_samples((await readings.render(communities=False)).decode()))
    parts.interactions._database = kept
    assert (found["sidecast_database_up"], found["sidecast_database_pool_size"]) == (0, 0)
    assert found["sidecast_queue_depth"] != found["sidecast_queue_depth"], "it is not known, which is not 0"


async def test_what_communities_spend_is_told_to_admins_alone(make_service: MakeService) -> None:
    service = await make_service()
    channel = event()["entity_id"]
    await service.answered(entity_id=channel)
    mine = await community(service, channel)
    much = Usage(10**8, 0)  # more than those before it that are still there
    service.sidecast.ledger.note(Call("embedded", "m", "ok", 0.1, much, account=Account(UUID(mine))))
    await service.sidecast.ledger.flush()
    issued = [await service.post("/keys", role=role) for role in ("service", f"community:{mine}")]
    others = [(await answer.get_json())["data"]["key"] for answer in issued]
    for key in ("", "wrong", *others):
        assert not any(name.startswith("sidecast_community") for name in await scrape(service, key)), key
    found = await scrape(service, KEY)
    assert found[f"sidecast_community_tokens{{community={mine}}}"] > 0
    assert found[f"sidecast_community_cost_dollars{{community={mine}}}"] == 0
    assert sum(name.startswith("sidecast_community_tokens") for name in found) <= 100
    assert mine not in str(await scrape(service))


async def test_paths_methods_and_models_that_anyone_makes_up_are_one_series(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(
            ai_provider="custom", ai_model="m", ai_fallbacks="custom/m2", custom_base_url=f"{url}/v1"
        )
        await service.post("/chat/completions", messages=ASKED, model="custom/m2")
        before = await scrape(service)
        for number in range(120):
            await service.client.get(f"/nothing/{number}")
            await cast(Any, service.client).open(f"{API}/interaction", method=f"MADE{number}")
            await service.get(f"{API}/interaction/{number}")
            await service.post("/chat/completions", messages=ASKED, model=f"custom/made-{number}")
        found = await scrape(service)
    new = {name.partition("{")[0]: name for name in found.keys() - before.keys() if "_bucket" not in name}
    assert not any("made" in name.lower() or "/1" in name.replace("/v1", "") for name in found)
    assert len(found.keys() - before.keys()) < 60, new
    assert found["sidecast_request_seconds_count{endpoint=other,method=other,status=4xx}"] == 240
    route = f"endpoint={API}/interaction/<interaction_id>,method=GET,status=4xx"
    assert found[f"sidecast_request_seconds_count{{{route}}}"] == 120
    assert found["sidecast_model_calls_total{model=m2,provider=custom,result=ok}"] == 1
    assert found["sidecast_model_calls_total{model=other,provider=custom,result=ok}"] == 120


async def test_a_provider_of_a_communitys_own_is_in_no_metric_and_not_in_health(make_service: MakeService) -> None:
    ours, theirs = StubOpenAI(), StubOpenAI()
    async with running(ours.app) as url, running(theirs.app) as their_url:
        service = await make_service(
            ai_provider="custom",
            ai_model="m",
            custom_base_url=f"{url}/v1",
            community_url_allow="127.0.0.1",
            community_url_http=True,
        )
        channel = event()["entity_id"]
        await service.answered(entity_id=channel)
        mine = await community(service, channel)
        before = await scrape(service)
        own = {"provider": "custom", "base_url": f"{their_url}/v1", "api_key": "sk-own"}
        for model in ("secret-model", "m"):
            await put(service, community_id=mine, model=model, **own)
            await service.answered(entity_id=channel)
        found = await scrape(service, KEY)
        health = await (await service.get("/health")).get_data(as_text=True)
    assert len(theirs.requests) == 2
    assert "secret-model" not in str(found) + health
    told = ("sidecast_provider_", "sidecast_model_", "sidecast_tokens_", "sidecast_cost_")
    assert {name: found[name] for name in found if name.startswith(told)} == {
        name: before[name] for name in before if name.startswith(told)
    }


def test_beyond_the_most_all_others_are_other() -> None:
    metrics = Metrics()
    kept = Kept(Counter("sidecast_made_up_total", "Anything.", ["name", "kind"], registry=metrics.registry))
    for number in range(1000):
        kept[f"n{number}", "k"].inc()
    assert len(kept) == MOST_LABELS
    assert metrics.registry.get_sample_value("sidecast_made_up_total", {"name": "n49", "kind": "k"}) == 1
    others = metrics.registry.get_sample_value("sidecast_made_up_total", {"name": "other", "kind": "other"})
    assert others == 1000 - MOST_LABELS
