"""Whether each dependency answers, and how fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from redis.exceptions import RedisError

from config import PROBE_TIMEOUT
from providers.base import ProviderError
from services.alerts import Alerts
from services.chains import Chains
from services.database import Database, DatabaseUnavailable
from services.router_service import DeliveryError, Router
from services.valkey import Valkey

FRESH_SECONDS = 1.0
DATABASE = "postgresql"

_FAILURES = (DatabaseUnavailable, RedisError, ProviderError, DeliveryError, OSError, TimeoutError)


@dataclass(frozen=True)
class Dependency:
    """`state` is up or down; `latency_ms` is how long the answer, or giving up, took.

    `breaker`, of a provider: `open` while it is not asked because it kept failing. `degraded`: which of its models
    fails too often or is too slow, and since when.
    """

    state: str
    latency_ms: float
    detail: str | None = None
    breaker: str | None = None
    degraded: str | None = None


@dataclass(frozen=True)
class Health:
    """`healthy`; `degraded`: it works, with less; `unhealthy`: nothing can be accepted."""

    status: str
    dependencies: dict[str, Dependency]

    @property
    def ready(self) -> bool:
        return self.status != "unhealthy"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class HealthService:
    """Asks all dependencies at once; the answer is used again for a second."""

    def __init__(self, database: Database, valkey: Valkey, chains: Chains, router: Router, alerts: Alerts) -> None:
        self._database = database
        self._alerts = alerts
        self._probes: dict[str, Callable[[], Awaitable[None]]] = {DATABASE: database.ping, "router": router.check}
        if valkey.is_set:
            self._probes["valkey"] = valkey.ping
        for provider in chains.providers:
            self._probes.setdefault(provider.name, provider.check)
        self._chains = chains
        self._last: tuple[float, Health] | None = None
        self._asking = asyncio.Lock()

    async def check(self) -> Health:
        """The state of everything, at most a second old."""
        async with self._asking:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_SECONDS:
                found = await asyncio.gather(*(_probe(probe) for probe in self._probes.values()))
                dependencies = dict(zip(self._probes, found, strict=True))
                for choice in self._chains.default:
                    name, state = choice.link.provider.name, choice.link.breaker.state
                    dependencies[name] = replace(dependencies[name], breaker=state.value)
                for name in {alert.provider for alert in self._alerts.active()}:
                    dependencies[name] = replace(dependencies[name], degraded=self._degraded(name))
                self._last = (time.monotonic(), _judge(dependencies))
            return self._last[1]

    def _degraded(self, provider: str) -> str:
        return "; ".join(alert.text for alert in self._alerts.active() if alert.provider == provider)

    async def ready(self) -> bool:
        """Whether an event could be journaled now."""
        return (await _probe(self._database.ping)).state == "up"


async def _probe(probe: Callable[[], Awaitable[None]]) -> Dependency:
    began = time.monotonic()
    detail = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await probe()
    except _FAILURES as error:
        detail = getattr(error, "reason", None) or type(error).__name__
    return Dependency("down" if detail else "up", round((time.monotonic() - began) * 1000, 1), detail)


def _judge(dependencies: dict[str, Dependency]) -> Health:
    down = {
        name for name, dependency in dependencies.items() if dependency.state == "down" or dependency.breaker == "open"
    }
    less = down or any(dependency.degraded for dependency in dependencies.values())
    status = "unhealthy" if DATABASE in down else "degraded" if less else "healthy"
    return Health(status, dependencies)
