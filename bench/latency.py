"""How long a reply takes on its way through one instance, and an ACK while the model hangs.

    python -m bench.latency

First, 100 events that trigger a second: from when each was posted until its reply reached the router, less the time
that the model, which is a stub, took for it. Then a model that hangs, and events until 10,000 wait: how long each took
to its ACK. The service has the first core, everything else the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import asyncpg
import uvloop
from tqdm import tqdm

from bench.client import percentile
from bench.intake import INTERACTION, event
from bench.load import pace, post
from bench.replies import ways
from bench.rig import KEY, Rig, rig

RATE = 100
MODEL_SECONDS = 0.05
HANG_SECONDS = 60
QUEUE = 10_000
CONNECTIONS = 64


async def whole_way(made: Rig, seconds: float) -> list[float]:
    """Milliseconds from each event's POST to its reply at the router, less the model's time."""
    stub = made.stub(MODEL_SECONDS)
    port = made.service(stub, core=0)
    await pace(port, requests(range(RATE * 2)), RATE, CONNECTIONS)  # warms up
    events = [event("hello there!", number) for number in range(int(RATE * seconds))]
    return [way.ms_without_model for way in await ways(port, stub, events, RATE, CONNECTIONS)]


def requests(numbers: Iterable[int]) -> Iterator[bytes]:
    return (post(INTERACTION, event("hello there!", number), KEY) for number in numbers)


async def acks(made: Rig, count: int) -> tuple[list[float], int]:
    """Milliseconds to each ACK while the model hangs, and how many events wait in the end."""
    stub = made.stub(HANG_SECONDS * 2)
    port = made.service(stub, core=0, settings={"WADDLEAI_TIMEOUT": "600", "REPLY_TTL": "600"})
    rate = count / HANG_SECONDS
    load = await pace(port, requests(tqdm(range(count), desc="the model hangs")), rate, CONNECTIONS)
    if set(load.statuses) != {200}:
        raise SystemExit(f"not all were taken: {dict(load.statuses)}")
    connection = await asyncpg.connect(made.addresses["DATABASE_URL"])
    waiting = await connection.fetchval("select count(*) from interactions where state = 'received'")
    await connection.close()
    return load.times, waiting


def row(name: str, times: list[float]) -> str:
    shares = " | ".join(f"{percentile(times, share):.1f}" for share in (0.5, 0.95, 0.99, 1))
    return f"| {name} | {len(times)} | {shares} |"


async def run(made: Rig, seconds: float, queue: int) -> str:
    made.keep_off(0)
    ways = await whole_way(made, seconds)
    for process in list(made.processes):
        made.end(process)
    times, waiting = await acks(made, queue)
    return "\n".join(
        [
            "| what | events | p50 ms | p95 ms | p99 ms | max ms |",
            "|---|---|---|---|---|---|",
            row(
                f"event posted → reply at the router, {RATE}/s, less the model's about {MODEL_SECONDS * 1000:.0f} ms",
                ways,
            ),
            row(f"ACK while the model hangs {HANG_SECONDS} s; {waiting} wait in the end", times),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=30, help="seconds of the first measure (%(default)s)")
    parser.add_argument("--queue", type=int, default=QUEUE, help="events of the second (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.seconds, arguments.queue)))


if __name__ == "__main__":
    main()
