"""One commit for many: callers that come while a commit runs share the next one.

So a lone caller waits for nobody, and at any load there is one commit at a time with as many rows as have come. Rows
that are not urgent are committed no sooner than `patience` seconds after the last commit began, which makes commits few
where many such rows come.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from services.tasks import Tasks

MOST_IN_A_COMMIT = 500

Row = TypeVar("Row")
Result = TypeVar("Result")


class GroupCommit(Generic[Row, Result]):
    """`commit` takes rows and returns a result for each, in order; what it raises is raised to every caller."""

    def __init__(self, commit: Callable[[list[Row]], Awaitable[list[Result]]], tasks: Tasks, patience: float) -> None:
        self._commit = commit
        self._tasks = tasks
        self._patience = patience
        self._waiting: deque[tuple[list[Row], asyncio.Future[list[Result]]]] = deque()
        self._running = False
        self._began = 0.0
        self._urgent = asyncio.Event()

    async def submit(self, rows: list[Row], *, urgent: bool = True) -> list[Result]:
        """The results of `rows`, once committed. A caller that is cancelled does not undo them."""
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, future))
        if urgent:
            self._urgent.set()
        if not self._running:
            self._running = True
            # In no caller's context: what it logs and begins is about the rows of many.
            Context().run(self._tasks.spawn, self._flush(), "group commit")
        return await future

    async def _flush(self) -> None:
        callers: list[tuple[list[Row], asyncio.Future[list[Result]]]] = []
        try:
            while self._waiting:
                await self._gather()
                callers = self._take()
                commit = self._commit([row for rows, _ in callers for row in rows])
                [outcome] = await asyncio.gather(commit, return_exceptions=True)
                _hand_out(outcome, callers)
        finally:
            self._running = False
            for _, future in [*callers, *self._waiting]:  # nobody waits for ever, should this be cancelled
                future.cancel()
            self._waiting.clear()

    async def _gather(self) -> None:
        """Wait until it is time for the next commit."""
        early = self._began + self._patience - time.monotonic()
        if early > 0 and not self._urgent.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(early):
                    await self._urgent.wait()
        self._began = time.monotonic()

    def _take(self) -> list[tuple[list[Row], asyncio.Future[list[Result]]]]:
        """The callers of the next commit: at most 500 rows, but at least one caller."""
        callers = [self._waiting.popleft()]
        size = len(callers[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= MOST_IN_A_COMMIT:
            callers.append(self._waiting.popleft())
            size += len(callers[-1][0])
        if not self._waiting:
            self._urgent.clear()
        return callers


def _hand_out(
    outcome: list[Result] | BaseException, callers: list[tuple[list[Row], asyncio.Future[list[Result]]]]
) -> None:
    """To each caller its part of the results, or what was raised; a caller that has gone gets nothing."""
    at = 0
    for rows, future in callers:
        if future.done():
            pass
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome[at : at + len(rows)])
        at += len(rows)
