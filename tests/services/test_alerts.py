"""A degraded model is told once that has held for `ALERT_SECONDS`, and told again when it is over; a burst is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from config import load_settings
from services.alerts import ERRORS, MOST_TIMES, SLOW, Alerts
from services.bus import Bus
from services.ledger import EMBEDDING, Call
from services.logs import open_log
from services.metrics import MOST_LABELS, Metrics
from tests.conftest import MakeService, Service
from tests.services.test_bus import told
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

MODEL = "custom", "m"
BROKEN = (500, "application/json", "{}")
SECONDS = 10
Calls = Callable[[int], Iterable[Call]]


def call(result: str = "ok", seconds: float = 0.5, model: str = "m", **about: Any) -> Call:
    return Call("custom", model, result, seconds, **about)


def failing(_second: int) -> list[Call]:
    return [call("provider_timeout")]


class Watched:
    """Alerts on a clock of the test's own, and what they told."""

    def __init__(self, models: Iterable[tuple[str, str]] = (MODEL,), **settings: Any) -> None:
        self.now = 1000.0
        self.told: list[tuple[int, str, dict[str, Any]]] = []
        self.metrics = Metrics()
        values = {"alert_seconds": SECONDS, "alert_latency_seconds": 2} | settings
        loaded = load_settings(**values)
        self.alerts = Alerts(loaded, models, cast(Bus, self), self.metrics, open_log(loaded), lambda: self.now)

    def tell(self, event: str, community_id: None, data: dict[str, Any]) -> None:
        self.told.append((round(self.now - 1000), event, data))

    def live(self, seconds: int, calls: Calls = lambda _: ()) -> list[tuple[int, str]]:
        """So many seconds with these calls in each, a look at their end; what was told in them."""
        before = len(self.told)
        for number in range(seconds):
            for each in calls(number):
                self.alerts.note(each, None)
            self.alerts.evaluate()
            self.now += 1
        return [(at, event) for at, event, _ in self.told[before:]]

    @property
    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value(
            "sidecast_provider_degraded", {"provider": "custom", "model": "m"}
        )


def test_it_is_told_after_the_time_and_not_before() -> None:
    """Five calls must have failed, and as much must have been found for ten seconds."""
    watched = Watched()
    assert watched.live(14, failing) == []
    assert (watched.alerts.active(), watched.gauge) == ([], 0)
    assert watched.live(20, failing) == [(14, "provider.degraded")]
    [alert] = watched.alerts.active()
    assert (alert.provider, alert.model, alert.what, alert.figure, watched.gauge) == ("custom", "m", ERRORS, 1.0, 1)
    assert "100% of its calls fail" in alert.text


@pytest.mark.parametrize("seconds", range(1, 6))
def test_a_burst_is_not_told(seconds: int) -> None:
    watched = Watched()
    assert watched.live(seconds, lambda _: [call("provider_timeout")] * 50) == []
    assert watched.live(3 * SECONDS) == []


def test_what_fails_less_often_than_it_may_is_not_told() -> None:
    """At a fifth it is."""
    for good, expected in ((5, 0), (4, 1)):
        watched = Watched()
        assert len(watched.live(60, lambda _, good=good: [call()] * good + [call("provider_timeout")])) == expected  # type: ignore[misc]


def test_it_ends_when_the_model_answers() -> None:
    watched = Watched()
    watched.live(20, failing)
    [(at, event)] = watched.live(40, lambda _: [call()] * 10)
    assert event == "provider.recovered"
    assert 20 < at < 30
    assert (watched.alerts.active(), watched.gauge) == ([], 0)
    assert watched.live(20, failing), "and may be told again"


def test_it_ends_when_nobody_asks(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(log_format="json")
    watched.live(20, failing)
    assert watched.live(20) == [(29, "provider.recovered")]
    raised, ended = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (raised["action"], raised["level"], raised["model"], raised["what"]) == (
        "provider.degraded",
        "error",
        "m",
        ERRORS,
    )
    for said in ("custom", "model m", "since 20", "AI_FALLBACKS"):
        assert said in raised["message"]
    assert (ended["action"], ended["message"]) == (
        "provider.recovered",
        "custom, model m: no longer degraded, nobody has asked it for 10 s",
    )


def test_what_is_slow_is_told_by_the_median_of_what_was_answered() -> None:
    watched = Watched()
    assert watched.live(30, lambda _: [call(seconds=3), call(seconds=0.1)]) == []
    [(_, event)] = watched.live(30, lambda _: [call(seconds=3), call(seconds=5), call(seconds=0.1)])
    [alert] = watched.alerts.active()
    assert (event, alert.what, alert.figure) == ("provider.degraded", SLOW, 3)
    assert "its calls take 3.0 s" in alert.text


def test_of_a_stream_its_first_word_counts() -> None:
    assert Watched().live(30, lambda _: [call(seconds=60, first_token=0.3)]) == []


def test_a_call_that_was_not_made_because_the_breaker_is_open_failed() -> None:
    assert Watched().live(30, lambda _: [call("provider_breaker_open", 0)]) == [(14, "provider.degraded")]


@pytest.mark.parametrize(
    "not_counted",
    [
        *(call(result) for result in ("cancelled", "provider_bad_request", "provider_context_too_long")),
        call("provider_timeout", own=True),
        call("provider_timeout", model="another"),
        call("provider_refused_key", kind=EMBEDDING),
    ],
    ids=["cancelled", "bad request", "too long", "own key", "another model", "embedding"],
)
def test_what_says_nothing_about_a_model_of_the_chain_is_not_counted(not_counted: Call) -> None:
    watched = Watched()
    assert watched.live(40, lambda _: [not_counted] * 10) == []
    assert watched.alerts.active() == []


def test_a_model_that_calls_itself_otherwise_is_known_by_what_was_asked() -> None:
    named = Call("custom", "m-2026-11-01", "ok", 9, asked="m")
    assert Watched().live(30, lambda _: [named])[0][1] == "provider.degraded"


def test_however_much_is_asked_what_is_kept_is_bounded() -> None:
    watched = Watched([("custom", f"m{number}") for number in range(500)])
    assert len(watched.alerts._models) == MOST_LABELS
    watched.live(200, lambda _: [call(model="m0")] * 100 + [call("provider_timeout", model="m0")] * 100)
    for _ in range(5_000):  # and nobody looks
        watched.now += 1
        watched.alerts.note(call(model="m1"))
        watched.alerts.note(call("provider_timeout", model="m2"))
    for model in watched.alerts._models.values():
        assert len(model.window) <= SECONDS + 1
        assert len(model.times) <= MOST_TIMES


def test_a_long_window_is_counted_in_longer_spans() -> None:
    watched = Watched(alert_seconds=600)
    assert watched.live(1200, failing) == [(604, "provider.degraded")]
    assert len(watched.alerts._models[MODEL].window) <= 61


def test_its_settings_are_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SECONDS", "7"), ("ERROR_RATE", "0.5"), ("LATENCY_SECONDS", "3")):
        monkeypatch.setenv(f"ALERT_{name}", value)
    settings = load_settings()
    assert (settings.alert_seconds, settings.alert_error_rate, settings.alert_latency_seconds) == (7, 0.5, 3)


async def degraded(service: Service) -> tuple[str, str | None]:
    """What `/health` says, and of the provider."""
    health = (await (await service.get("/health")).get_json())["data"]
    return health["status"], health["dependencies"]["custom"]["degraded"]


async def test_it_is_told_on_the_bus_in_health_and_in_metrics(make_service: MakeService, redis: Redis) -> None:
    stub = StubOpenAI(BROKEN)
    async with running(stub.app) as url:
        service = await make_service(
            ai_provider="custom",
            ai_model="m",
            custom_base_url=f"{url}/v1",
            alert_seconds=5,
            breaker_failures=1000,
            breaker_window_calls=100_000,
        )
        assert await degraded(service) == ("healthy", None)
        async with asyncio.timeout(30):
            while not service.sidecast.alerts.active():
                await service.post("/chat/completions", messages=[{"role": "user", "content": "Hello"}])
        [event] = await told(redis, "provider.degraded")
        assert {name: event["data"][name] for name in ("provider", "model", "what")} == {
            "provider": "custom",
            "model": "m",
            "what": "errors",
        }
        await asyncio.sleep(1.1)
        status, text = await degraded(service)
        assert status == "degraded"
        assert text
        assert text.startswith("model m: 100% of its calls fail, since 20")
        metrics = await (await service.get("/metrics")).get_data(as_text=True)
        assert 'sidecast_provider_degraded{model="m",provider="custom"} 1.0' in metrics
        async with asyncio.timeout(15):
            while service.sidecast.alerts.active():
                await asyncio.sleep(0.1)
        assert len(await told(redis, "provider.recovered")) == 1
        await asyncio.sleep(1.1)
        assert await degraded(service) == ("healthy", None)
