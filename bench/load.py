"""A load generator on raw connections, so that it costs far less than what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

END = b"\r\n\r\n"


@dataclass
class Load:
    """What came back: answers by status, the time of each in ms, and how long it all took in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    bodies: list[bytes] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)  # by `pace`: seconds since the epoch when each was to go

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return self.statuses[200] / self.seconds


def post(path: str, body: Any, key: str) -> bytes:
    """A POST of JSON as it goes over the wire."""
    content = json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class _Connection(asyncio.Protocol):
    """Sends a request and waits for its answer; `idle` is called with it when it can take another."""

    def __init__(self, load: Load, keep_bodies: bool, idle: Callable[[_Connection], None]) -> None:
        self._load = load
        self._keep = keep_bodies
        self._idle = idle
        self._received = b""
        self._began = 0.0
        self._transport: asyncio.WriteTransport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, began: float) -> None:
        self._began = began
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(END)
        if not separator:
            return
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._load.statuses[int(head[9:12])] += 1
        self._load.times.append((time.perf_counter() - self._began) * 1000)
        if self._keep:
            self._load.bodies.append(body)
        self._received = b""
        self._idle(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def _connect(
    port: int, count: int, load: Load, keep: bool, idle: Callable[[_Connection], None]
) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Connection(load, keep, idle), "127.0.0.1", port) for _ in range(count)
    ]
    return [connection for _, connection in made]


async def hammer(port: int, requests: Iterator[bytes], connections: int, *, keep_bodies: bool = False) -> Load:
    """Send all requests over so many connections, each as soon as the one before is answered."""
    load = Load()

    def send_next(connection: _Connection) -> None:
        request = next(requests, None)
        if request is None:
            connection.close()
        else:
            connection.send(request, time.perf_counter())

    began = time.perf_counter()
    made = await _connect(port, connections, load, keep_bodies, send_next)
    for connection in made:
        send_next(connection)
    await asyncio.gather(*(connection.closed for connection in made))
    load.seconds = time.perf_counter() - began
    return load


async def pace(port: int, requests: Iterable[bytes], rate: float, connections: int) -> Load:
    """Send so many requests a second, whether or not those before are answered; times count from when each was due."""
    load = Load()
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    made = await _connect(port, connections, load, False, free.put_nowait)
    for connection in made:
        free.put_nowait(connection)
    began = time.perf_counter()
    for number, request in enumerate(requests):
        due = began + number / rate
        early = due - time.perf_counter()
        if early > 0:
            await asyncio.sleep(early)
            due = time.perf_counter()  # a timer's own lateness is not the service's
        load.sent_at.append(time.time() - max(-early, 0))
        (await free.get()).send(request, due)
    for _ in made:
        (await free.get()).close()
    load.seconds = time.perf_counter() - began
    return load


def for_seconds(seconds: float, make: Callable[[int], bytes]) -> Iterator[bytes]:
    """Requests number 0, 1, 2 … until the time is over."""
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end:
        yield make(number)
        number += 1
