"""A TCP proxy that does to connections what networks do: late, cut off, half closed, in slices of one byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
HANG_SECONDS = 600
SHARE = 0.33
FAULTS = ("latency", "reset", "half-close", "slices")


class Proxy:
    """Forwards to `connect`; `fault` acts on what comes back, on about every third piece of it."""

    def __init__(self, connect: Connect, seed: int = 1) -> None:
        self._connect = connect
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.fault: str | None = None
        self.refuse = False

    async def open(self) -> int:
        """The port it listens on."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # the loop lets go of them

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refuse:
                raise ConnectionRefusedError
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers = {known for known in self._writers if not known.transport.is_closing()} | {writer, far_writer}
        for pump in (self._pump(reader, far_writer, faulty=False), self._pump(far_reader, writer, faulty=True)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, faulty: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                harmed = faulty and self.fault and (self.fault == "hang" or self._random.random() < SHARE)
                left = await self._harm(data, writer) if harmed else data
                if left is None:
                    return
                writer.write(left)
                await writer.drain()
        if self.refuse:
            writer.transport.abort()
        writer.close()

    async def _harm(self, data: bytes, writer: asyncio.StreamWriter) -> bytes | None:
        """Do the fault; what is to be sent after it, or None when the connection is gone."""
        if self.fault == "latency":
            await asyncio.sleep(self._random.uniform(0.05, 0.5))
            return data
        if self.fault == "hang":
            await asyncio.sleep(HANG_SECONDS)
            return None
        if self.fault == "slices":
            for at in range(min(len(data), 200)):
                writer.write(data[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0)
            return data[200:]
        if self.fault == "half-close":
            writer.write(data[: len(data) // 2])
            with contextlib.suppress(OSError):
                writer.write_eof()
            return None
        writer.transport.abort()
        return None
