"""What this instance works on, and the sign of life that keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services.database import DatabaseUnavailable
from services.interactions import Interactions
from services.logs import Log
from services.tasks import Tasks

RETRY_SECONDS = 0.2
Written = TypeVar("Written")


class Leases:
    """Interactions held, renewed at half their length; what is cut short is handed back at the end."""

    def __init__(self, interactions: Interactions, seconds: float, log: Log) -> None:
        self._interactions = interactions
        self._seconds = seconds
        self._log = log
        self._held: set[UUID] = set()
        self._cut_short: list[UUID] = []

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self._renew, self._pause, "renew leases")

    def hold(self, interaction_id: UUID) -> None:
        self._held.add(interaction_id)

    def let_go(self, interaction_id: UUID, *, cut_short: bool = False) -> None:
        """Work on it has ended, or was `cut_short` by a stop."""
        self._held.discard(interaction_id)
        if cut_short:
            self._cut_short.append(interaction_id)

    async def persist(self, write: Callable[[], Awaitable[Written]]) -> Written:
        """The result of `write`, tried while PostgreSQL is away for as long as a lease would last.

        So what was done is not done again only because it could not be written down at once. Raises
        DatabaseUnavailable in the end.
        """
        try:
            return await write()
        except DatabaseUnavailable:
            return await self._persist_later(write)

    async def _persist_later(self, write: Callable[[], Awaitable[Written]]) -> Written:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_fixed(RETRY_SECONDS),
            stop=stop_after_delay(self._seconds),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await write()
        raise DatabaseUnavailable  # not reached: the last attempt raises

    @property
    def held(self) -> list[UUID]:
        """What is worked on here."""
        return list(self._held)

    async def hand_back(self) -> int:
        """Let others go on at once with what was cut short; how many that were."""
        ids, self._cut_short = self._cut_short, []
        if ids:
            try:
                await self._interactions.release(ids)
            except DatabaseUnavailable:
                message = "PostgreSQL is away: leases were not handed back, they end by themselves"
                self._log.error("leases.kept", message, result="ERROR")
        return len(ids)

    async def _renew(self) -> None:
        if self._held:
            try:
                await self._interactions.renew(self.held)
            except DatabaseUnavailable:
                self._log.error("leases.unrenewed", "PostgreSQL is away: leases were not renewed")

    async def _pause(self) -> None:
        await asyncio.sleep(self._seconds / 2)
