"""The task runner: holds every background task, reports those that fail, and waits for them at the end.

Own code, because a bare `create_task` may vanish and Quart's own background tasks are cancelled after 5 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.logs import Log


class Tasks:
    """Tasks that outlive the request they came from."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._running: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._pauses: set[asyncio.Future[None]] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work`; what it raises is logged, once, under its name."""
        task = asyncio.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before it began
        return task

    def repeat(self, step: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]], name: str) -> None:
        """Run `step`, then `pause`, until the end; a step that fails is logged and the next one runs."""

        async def loop() -> None:
            while not self._stopping:
                await self._guard(step(), name)
                if self._stopping:  # since the step began; a pause begun now would be slept through
                    break
                pausing = asyncio.ensure_future(pause())
                self._pauses.add(pausing)
                await asyncio.wait([pausing])
                self._pauses.discard(pausing)

        self._loops.append(asyncio.create_task(loop(), name=name))

    async def drain(self, seconds: float) -> int:
        """End the loops after the step they are in, wait for what runs, and for what that starts, up to `seconds`.

        Then cancel what is left, and say how many that were.
        """
        deadline = time.monotonic() + seconds
        self._stopping = True
        for pausing in self._pauses:
            pausing.cancel()
        if self._loops:
            _, stuck = await asyncio.wait(self._loops, timeout=seconds)
            await _cancel(stuck)
        while self._running and time.monotonic() < deadline:
            await asyncio.wait(self._running, timeout=deadline - time.monotonic())
        late = set(self._running)
        await _cancel(late)
        return len(late)

    async def _guard(self, work: Awaitable[None], name: str) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - an edge that must not die: nobody awaits this task to hear of it
            self._log.error("task.failed", f"the task {name} failed", result="ERROR", exc_info=True)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
