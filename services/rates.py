"""How many requests a minute a key may make, events aside, which have limits of their own.

Each instance counts at once and adds what it counted to Valkey's count every second, so that no request waits for
it; within that second a key may make as many more as there are instances. Without Valkey each counts for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from redis.asyncio import Redis

from services.tasks import Tasks
from services.valkey import Valkey, ValkeyAway

WINDOW_SECONDS = 60
SHARE_SECONDS = 1.0
MAX_COUNTED = 50_000


@dataclass(frozen=True)
class Rate:
    """What is left of a minute's requests, and for how many seconds; -1 where this one was too many."""

    limit: int
    left: int
    seconds: int


@dataclass
class _Count:
    everywhere: int = 0  # as Valkey had it last
    unshared: int = 0  # what was counted here since


class Rates:
    """Counts requests in minutes of the clock, the same ones on every instance."""

    def __init__(self, valkey: Valkey, limit: int) -> None:
        self._valkey = valkey
        self._limit = limit
        self._window = 0
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def open(self, tasks: Tasks) -> None:
        if self._limit:
            tasks.repeat(self.share, self._pause, "share request counts")

    def take(self, who: str) -> Rate | None:
        """Count a request; None where there is no limit."""
        if not self._limit:
            return None
        now = time.time()
        self._turn(int(now // WINDOW_SECONDS))
        count = self._counts.setdefault(who, _Count())
        if len(self._counts) > MAX_COUNTED:
            self._counts.popitem(last=False)
        used = count.everywhere + count.unshared
        seconds = math.ceil(WINDOW_SECONDS - now % WINDOW_SECONDS)
        if used >= self._limit:
            return Rate(self._limit, -1, seconds)
        count.unshared += 1
        return Rate(self._limit, self._limit - used - 1, seconds)

    async def share(self) -> None:
        """Add what was counted here to the count of all, and read that."""
        window, counts = self._window, dict(self._counts)
        sent = {who: count.unshared for who, count in counts.items()}
        if not sent:
            return

        async def add(client: Redis) -> list[int]:
            async with client.pipeline(transaction=False) as pipe:
                for who, number in sent.items():
                    key = f"sidecast:requests:{window}:{hashlib.sha256(who.encode()).hexdigest()[:32]}"
                    pipe.incrby(key, number)
                    pipe.expire(key, 2 * WINDOW_SECONDS)
                answers: list[int] = await pipe.execute()
                return answers[::2]

        try:
            totals = await self._valkey.run(add)
        except ValkeyAway:
            return
        for (who, number), total in zip(sent.items(), totals, strict=True):
            counts[who].everywhere = total
            counts[who].unshared -= number

    def _turn(self, window: int) -> None:
        if window != self._window:
            self._window = window
            self._counts.clear()

    async def _pause(self) -> None:
        await asyncio.sleep(SHARE_SECONDS)
