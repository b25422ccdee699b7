"""What `/metrics` tells that is measured and not counted: the queue, the pool, Valkey, the event loop.

PostgreSQL is asked when somebody asks here, once in five seconds at most; what communities spend is for admins alone,
and asked once in a minute.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from config import PROBE_TIMEOUT
from services.database import Database, DatabaseUnavailable
from services.interactions import Interactions, Waiting
from services.ledger import Ledger, SpentBy
from services.metrics import Metrics
from services.tasks import Tasks
from services.valkey import Valkey

FRESH_SECONDS = 5.0
LAG_SECONDS = 1.0
COMMUNITIES = 100
COMMUNITIES_SECONDS = 60.0
_UNKNOWN = Waiting(math.nan, math.nan)


class Readings:
    """Measures, and renders all metrics."""

    def __init__(
        self, database: Database, valkey: Valkey, interactions: Interactions, ledger: Ledger, metrics: Metrics
    ) -> None:
        self._database = database
        self._valkey = valkey
        self._interactions = interactions
        self._ledger = ledger
        self._metrics = metrics
        self._asking = asyncio.Lock()
        self._fresh_until = 0.0
        self._spent: list[SpentBy] = []
        self._spent_until = 0.0
        self._asleep_since: float | None = None

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self._note_lag, self._sleep, "measure the event loop's lag")

    async def render(self, *, communities: bool) -> bytes:
        """Prometheus' text; with what `communities` have spent today, the 100 that have spent most."""
        metrics = self._metrics
        async with self._asking:
            await self._read_queue()
            if communities:
                await self._read_spent()
        use = self._database.pool_use
        metrics.pool_size.set(use.size)
        metrics.pool_idle.set(use.idle)
        metrics.pool_limit.set(use.limit)
        metrics.valkey_away.set(self._valkey.is_away)
        return metrics.render() + (generate_latest(_OfCommunities(self._spent)) if communities else b"")

    async def _read_queue(self) -> None:
        """What waits in PostgreSQL; not a number while that is away."""
        if time.monotonic() < self._fresh_until:
            return
        metrics, waiting = self._metrics, _UNKNOWN
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                waiting = await self._interactions.waiting()
        except (DatabaseUnavailable, TimeoutError):
            pass  # which is what `database_up` says
        metrics.database_up.set(waiting is not _UNKNOWN)
        metrics.queue_depth.set(waiting.depth)
        metrics.queue_oldest.set(waiting.oldest)
        self._fresh_until = time.monotonic() + FRESH_SECONDS

    async def _read_spent(self) -> None:
        """Nothing while PostgreSQL is away."""
        if time.monotonic() < self._spent_until:
            return
        self._spent = []
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                self._spent = await self._ledger.spent_today(COMMUNITIES)
        except (DatabaseUnavailable, TimeoutError):
            pass
        self._spent_until = time.monotonic() + COMMUNITIES_SECONDS

    async def _note_lag(self) -> None:
        if self._asleep_since is not None:
            self._metrics.loop_lag.observe(max(time.monotonic() - self._asleep_since - LAG_SECONDS, 0.0))

    async def _sleep(self) -> None:
        self._asleep_since = time.monotonic()
        await asyncio.sleep(LAG_SECONDS)


class _OfCommunities(Collector):
    """What communities have spent today (UTC), each by its id."""

    def __init__(self, spent: list[SpentBy]) -> None:
        self._spent = spent

    def collect(self) -> Iterable[GaugeMetricFamily]:
        tokens = GaugeMetricFamily("sidecast_community_tokens", "Tokens of a community today.", labels=["community"])
        cost = GaugeMetricFamily("sidecast_community_cost_dollars", "US dollars of it today.", labels=["community"])
        for spent in self._spent:
            tokens.add_metric([str(spent.community_id)], spent.tokens)
            cost.add_metric([str(spent.community_id)], spent.cost)
        return tokens, cost
