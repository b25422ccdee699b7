"""Keeps the children running: start, wait until ready, start again when one dies, stop in order.

Each child has a process group of its own, so Ctrl-C in the terminal reaches the parent alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from embedded.parts import PROJECT, Part, run_as

MAX_LOG_BYTES = 5_000_000
READY_SECONDS = 60.0
FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 5.0
STEADY_SECONDS = 30.0

Say = Callable[[str], None]


class StartError(Exception):
    """A part did not start; the text says which and where to read why."""


class Watchdog:
    """The process that ends the children should this one be killed."""

    def __init__(self, run: Path, lock: int) -> None:
        argv = [sys.executable, "-m", "embedded.watchdog", str(run)]
        self._process = subprocess.Popen(
            argv, cwd=PROJECT, stdin=subprocess.PIPE, start_new_session=True, pass_fds=[lock], text=True
        )

    def add(self, part: Part, pid: int) -> None:
        self._write(f"+{part.name} {pid} {int(part.stop_signal)}\n")

    def remove(self, pid: int) -> None:
        self._write(f"-{pid}\n")

    def close(self) -> None:
        """Let it go; it finds no children left and removes the run folder."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait(15)

    def _write(self, line: str) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()


class Child:
    """One part that runs, and runs again when it dies, until it is stopped."""

    def __init__(self, part: Part, watchdog: Watchdog, say: Say) -> None:
        self.part = part
        self._watchdog = watchdog
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Return when the part is ready. Raises StartError when it dies first or takes over 60 s."""
        process = await self._spawn()
        if not await self._until_ready(process):
            await self.stop()
            raise StartError(f"{self.part.name} did not start{self._where()}")
        self._keeper = asyncio.create_task(self._keep(process), name=f"keep-{self.part.name}")

    async def stop(self) -> None:
        """Ask the part to end, wait for `stop_seconds`, then kill it."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(self.part.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self.part.stop_seconds)
            except TimeoutError:
                self._say(f"{self.part.name} did not stop within {self.part.stop_seconds:g} s and is killed")
                _kill_group(process.pid)
                await process.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _spawn(self) -> asyncio.subprocess.Process:
        output = None if self.part.log is None else _open_log(self.part.log)
        try:
            process = await asyncio.create_subprocess_exec(
                *self.part.argv,
                cwd=PROJECT,
                env=os.environ | self.part.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **run_as(self.part.user),
            )
        finally:
            if output is not None:
                os.close(output)
        self._watchdog.add(self.part, process.pid)
        self._process = process
        return process

    async def _until_ready(self, process: asyncio.subprocess.Process) -> bool:
        deadline = time.monotonic() + READY_SECONDS
        while process.returncode is None and time.monotonic() < deadline:
            if await self.part.ready():
                return True
            await asyncio.sleep(0.05)
        return False

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Start the part again whenever it ends, ever later (5 s at most) while it will not stay up."""
        backoff = FIRST_BACKOFF
        while True:
            started = time.monotonic()
            code = await process.wait()
            self._watchdog.remove(process.pid)
            _kill_group(process.pid)
            if self._stopping:
                return
            if time.monotonic() - started > STEADY_SECONDS:
                backoff = FIRST_BACKOFF
            self._say(f"{self.part.name} ended ({_how(code)}); it starts again in {backoff:g} s{self._where()}")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF)
            process = await self._spawn()

    def _where(self) -> str:
        return f"; see {self.part.log}" if self.part.log else "; its own message is above"


def _open_log(path: Path) -> int:
    """Append to the log, begun anew when it has grown large."""
    mode = os.O_TRUNC if path.exists() and path.stat().st_size > MAX_LOG_BYTES else os.O_APPEND
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | mode, 0o600)


def _kill_group(pid: int) -> None:
    """End whatever a child left behind in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
