"""Health, status, metrics: for people, probes and Prometheus."""

from __future__ import annotations

import asyncio

from embedded.parts import free_port
from tests.conftest import API, MakeService


async def test_health_names_each_dependency(make_service: MakeService) -> None:
    service = await make_service()
    answer = await service.client.get("/health")
    health = (await answer.get_json())["data"]
    assert answer.status_code == 200
    assert health["status"] == "healthy"
    assert health["dependencies"].keys() == {"postgresql", "valkey", "embedded", "router"}
    for dependency in health["dependencies"].values():
        assert dependency["state"] == "up"
        assert dependency["latency_ms"] >= 0


async def test_a_dead_provider_valkey_or_router_degrades(make_service: MakeService) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    for name, overrides in {
        "waddleai": {"ai_provider": "waddleai", "waddleai_base_url": dead},
        "valkey": {"redis_url": f"redis://127.0.0.1:{free_port()}"},
        "router": {"router_api_url": dead},
    }.items():
        service = await make_service(**overrides)
        answer = await service.client.get("/health")
        health = (await answer.get_json())["data"]
        assert (answer.status_code, health["status"]) == (200, "degraded")
        assert health["dependencies"][name]["state"] == "down"
        assert health["dependencies"][name]["detail"]
        assert (await service.client.get("/health/ready")).status_code == 200


async def test_status_shows_the_providers(make_service: MakeService) -> None:
    service = await make_service()
    status = (await (await service.client.get(f"{API}/status")).get_json())["data"]
    assert (status["module"], status["status"]) == ("ai_interaction_module", "healthy")
    assert status["version"]
    assert status["providers"]["embedded"]["state"] == "up"


async def test_index_lists_every_endpoint(make_service: MakeService) -> None:
    service = await make_service()
    index = (await (await service.client.get("/")).get_json())["data"]
    rules = {rule.rule for rule in service.app.url_map.iter_rules()}
    assert {endpoint.split()[1] for endpoint in index["endpoints"]} == rules


async def test_a_stopping_instance_is_alive_but_not_ready(make_service: MakeService) -> None:
    service = await make_service()
    assert (await service.client.get("/health/ready")).status_code == 200
    service.sidecast.intake.closed = True
    for answer in (await service.client.get("/health/ready"), await service.post(session_id="s", user_id="u")):
        assert answer.status_code in {503, 400}
    assert (await service.client.get("/health/ready")).headers["Retry-After"] == "1"
    assert (await service.client.get("/health/live")).status_code == 200


async def test_metrics_count_events_by_outcome(make_service: MakeService) -> None:
    service = await make_service()
    await service.answered()
    await service.accept(message_content="nothing to see")
    await asyncio.sleep(0)
    text = await (await service.client.get("/metrics")).get_data(as_text=True)
    assert 'sidecast_events_total{outcome="delivered"} 1.0' in text
    assert 'sidecast_events_total{outcome="untriggered"} 1.0' in text
    assert 'sidecast_triggers_total{type="greeting"} 1.0' in text
    assert "sidecast_ack_seconds_count 2.0" in text
    assert 'sidecast_provider_seconds_count{provider="embedded",result="ok"} 1.0' in text
    assert 'sidecast_interaction_seconds_count{state="delivered"} 1.0' in text
    assert "sidecast_interactions_in_flight 0.0" in text
