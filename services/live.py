"""Tells who watches that something happened in a community, on whatever instance: read off the event stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from services.bus import STREAM
from services.tasks import Tasks
from services.valkey import Valkey, ValkeyAway

LOOK_SECONDS = 0.5
QUIET_SECONDS = 15.0  # after which who watches looks for itself
WATCH_SECONDS = 300.0
MOST_WATCHING = 200
MOST_OF_ONE = 50
MOST_AT_ONCE = 500


class Live:
    """Who watches, and a loop that reads while anyone does."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        self._watching: dict[asyncio.Event, UUID] = {}
        self._last = ""

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self._look, self._pause, "see what happens")

    def is_full(self, community_id: UUID) -> bool:
        """Whether nobody more may watch a community here."""
        own = sum(1 for watched in self._watching.values() if watched == community_id)
        return len(self._watching) >= MOST_WATCHING or own >= MOST_OF_ONE

    async def watch(self, community_id: UUID) -> AsyncIterator[bool]:
        """Yields at once, whenever something happened in a community, and after 15 s without news: what is not told
        on the stream, or while Valkey is away, is seen then. True for news. Ends after five minutes: who goes on
        watching asks again, and is asked again who they are.
        """
        news, until = asyncio.Event(), time.monotonic() + WATCH_SECONDS
        self._watching[news] = community_id
        news.set()
        try:
            while time.monotonic() < until:
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await news.wait()
                except TimeoutError:
                    yield False
                else:
                    news.clear()
                    yield True
        finally:
            del self._watching[news]

    async def _look(self) -> None:
        if not self._watching:
            self._last = ""
            return
        try:
            entries: Any = await self._valkey.run(
                lambda client: (
                    client.xrange(STREAM, f"({self._last}", "+", count=MOST_AT_ONCE)
                    if self._last
                    else client.xrevrange(STREAM, count=1)
                )
            )
        except ValkeyAway:
            return
        self._last = entries[-1][0] if entries else self._last or "0"
        told = {fields.get("community_id") for _, fields in entries}
        for news, community_id in self._watching.items():
            if str(community_id) in told:
                news.set()

    async def _pause(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)
