"""Trims the journal and the history: texts that were kept for long enough go, and rows of what ended long ago."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

from config import Settings
from services.answer_cache import AnswerCache
from services.communities import Communities
from services.contents import kept_for
from services.database import DatabaseUnavailable
from services.history import History
from services.interactions import Interactions
from services.logs import Log
from services.numbers import Numbers
from services.tasks import Tasks

PAUSE_SECONDS = 60.0
BATCH_ROWS = 1_000
DAY_SECONDS = 86_400
NUMBERS_DAYS = 400


class Retention:
    """Deletes what ended long ago; any number of instances may."""

    def __init__(
        self,
        interactions: Interactions,
        communities: Communities,
        answers: AnswerCache,
        history: History,
        numbers: Numbers,
        settings: Settings,
        log: Log,
    ) -> None:
        self._interactions = interactions
        self._communities = communities
        self._answers = answers
        self._history = history
        self._numbers = numbers
        self._seconds = settings.journal_retention * DAY_SECONDS
        self._days = settings.history_retention
        self._log = log

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self.trim, self._pause, "trim the journal")

    async def trim(self) -> None:
        """Erase and delete until a batch is not full."""
        stores: tuple[Interactions | History, ...] = (self._interactions, self._history)
        try:
            for store in stores:
                for community_id in await store.keeping():
                    community = await self._communities.get(community_id)
                    days = kept_for(community.settings).days if community else 0
                    erase = functools.partial(store.erase_kept, community_id, days)
                    await self._repeat(erase, "{} texts that were kept were erased")
        except DatabaseUnavailable:
            return
        await self._repeat(lambda rows: self._interactions.trim(self._seconds, rows), "{} interactions were deleted")
        await self._repeat(lambda rows: self._history.trim(self._days, rows), "{} messages were deleted")
        await self._repeat(lambda rows: self._numbers.trim(NUMBERS_DAYS, rows), "{} old numbers were deleted")
        await self._repeat(self._answers.trim, "{} kept answers were deleted")

    async def _repeat(self, work: Callable[[int], Awaitable[int]], message: str) -> None:
        gone = BATCH_ROWS
        while gone == BATCH_ROWS:
            try:
                gone = await work(BATCH_ROWS)
            except DatabaseUnavailable:
                return
            if gone:
                self._log.info("journal.trimmed", message.format(gone), result="SUCCESS")

    async def _pause(self) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
