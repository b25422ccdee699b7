"""The task runner: holds every background task, reports those that fail, and waits for them at the end.

Own code, because a bare `create_task` may vanish and Quart's own background tasks are cancelled after 5 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.logs import Log


class Tasks:
    """Tasks that outlive the request they came from."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._running: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work`; what it raises is logged, once, under its name."""
        task = asyncio.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def repeat(self, step: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]], name: str) -> None:
        """Run `step`, then `pause`, for ever; a step that fails is logged and the next one runs."""

        async def loop() -> None:
            while True:
                await self._guard(step(), name)
                await pause()

        self._loops.append(asyncio.create_task(loop(), name=name))

    async def drain(self, seconds: float) -> int:
        """End the loops, wait for what runs, cancel what is left after `seconds`, and say how many that were."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if not self._running:
            return 0
        _, late = await asyncio.wait(self._running, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)

    async def _guard(self, work: Awaitable[None], name: str) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - an edge that must not die: nobody awaits this task to hear of it
            self._log.error("task.failed", f"the task {name} failed", result="ERROR", exc_info=True)
