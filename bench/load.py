"""A load generator on raw connections, so that it costs far less than what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
    """Sends one request after the other and waits for each answer."""

    def __init__(self, requests: Iterator[bytes], load: Load, keep_bodies: bool) -> None:
        self._requests = requests
        self._load = load
        self._keep = keep_bodies
        self._received = b""
        self._began = 0.0
        self._transport: asyncio.WriteTransport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._next()

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
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self._load.statuses[0] += 1
            self.done.set_result(None)

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)


async def hammer(port: int, requests: Iterator[bytes], connections: int, *, keep_bodies: bool = False) -> Load:
    """Send all requests over so many connections, each as soon as the one before is answered."""
    load = Load()
    loop = asyncio.get_running_loop()

    def connect() -> _Connection:
        return _Connection(requests, load, keep_bodies)

    began = time.perf_counter()
    made = [await loop.create_connection(connect, "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    load.seconds = time.perf_counter() - began
    return load


def for_seconds(seconds: float, make: Callable[[int], bytes]) -> Iterator[bytes]:
    """Requests number 0, 1, 2 … until the time is over."""
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end:
        yield make(number)
        number += 1
