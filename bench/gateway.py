"""What `/chat/completions` costs before a model that answers at once, next to an endpoint that does nothing.

    python -m bench.gateway

Requests a second on one core with 32 connections, and the time that the service adds with one: the time through it
less that of asking the stub itself. The same for a stream's first event. Medians of several rounds; the service has
the first core, everything else the others.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import time
from collections.abc import Callable

import uvloop
from tqdm import tqdm

from bench.load import for_seconds, hammer, post
from bench.rig import KEY, Rig, rig

PATH = "/api/v1/ai/chat/completions"
CONNECTIONS = 32
SINGLES = 200
SINGLES_PER_ROUND = 5
LAST_CHUNK = b"0\r\n\r\n"


def request(path: str, *, stream: bool = False) -> bytes:
    messages = [{"role": "user", "content": "Hello, what is this?"}]
    return post(path, {"model": "auto", "messages": messages, "stream": stream}, KEY)


async def rate(port: int, raw: bytes, seconds: float) -> float:
    """Requests a second."""
    await hammer(port, for_seconds(1, lambda _: raw), CONNECTIONS)
    load = await hammer(port, for_seconds(seconds, lambda _: raw), CONNECTIONS)
    if set(load.statuses) != {200}:
        raise SystemExit(f"not all were answered: {dict(load.statuses)}")
    return load.rate


def whole(port: int, raw: bytes) -> float:
    """The median of milliseconds from a request to the end of its answer, one after the other."""

    def ended(received: bytes) -> bool:
        head, separator, body = received.partition(b"\r\n\r\n")
        return bool(separator) and len(body) >= int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])

    return singles(port, raw, ended, ended)


def first_event(port: int, raw: bytes) -> float:
    """The median of milliseconds to a stream's first event; its rest is read too."""
    return singles(port, raw, lambda received: b"data: " in received, lambda received: received.endswith(LAST_CHUNK))


def singles(port: int, raw: bytes, counts: Callable[[bytes], bool], ended: Callable[[bytes], bool]) -> float:
    """The median of milliseconds until what was received `counts`, over many requests, one after the other."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(SINGLES):
            received, took = b"", 0.0
            began = time.perf_counter()
            connection.sendall(raw)
            while not ended(received):
                received += connection.recv(65_536)
                if not took and counts(received):
                    took = time.perf_counter() - began
            times.append(took * 1000)
    return statistics.median(times)


async def run(made: Rig, seconds: float, rounds: int) -> str:
    made.keep_off(0)
    noop, stub = made.noop(core=0), made.stub(0)
    port = made.service(stub, core=0)
    own, through = request("/v1/chat/completions"), request(PATH)
    own_stream, through_stream = request("/v1/chat/completions", stream=True), request(PATH, stream=True)
    nothing = post("/noop", {"a": 1}, KEY)
    taken: dict[str, list[float]] = {name: [] for name in ("rate", "no-op", "whole", "first")}
    for _ in tqdm(range(rounds), desc="rounds"):
        taken["no-op"].append(await rate(noop, nothing, seconds))
        taken["rate"].append(await rate(port, through, seconds))
    for _ in tqdm(range(rounds * SINGLES_PER_ROUND), desc="one connection"):
        taken["whole"].append(whole(port, through) - whole(stub, own))
        taken["first"].append(first_event(port, through_stream) - first_event(stub, own_stream))
    ratio = statistics.median(one / idle for one, idle in zip(taken["rate"], taken["no-op"], strict=True))
    median = {name: statistics.median(values) for name, values in taken.items()}
    return "\n".join(
        [
            "| what | value |",
            "|---|---|",
            f"| completions/s | {median['rate']:.0f} |",
            f"| no-op/s | {median['no-op']:.0f} |",
            f"| ratio | {ratio:.2f} |",
            f"| added to a completion, one connection, ms | {median['whole']:.2f} |",
            f"| added to a stream's first event, one connection, ms | {median['first']:.2f} |",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=5, help="seconds of each rate (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.seconds, arguments.rounds)))


if __name__ == "__main__":
    main()
