"""Whether one instance's memory grows with what it has seen.

    python -m bench.memory

A million events in batches of 100, each of another user, of 1,000 channels; one in fifty triggers and is answered by a
stub and delivered. The resident memory is taken at each tenth, and again when all replies have gone out.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import psutil
import uvloop
from tqdm import tqdm

from bench.intake import INTERACTION, event
from bench.load import hammer, post
from bench.rig import KEY, Rig, get, rig

EVENTS = 1_000_000
BATCH = 100
ONE_IN = 50
CHANNELS = 1_000
CONNECTIONS = 4
DRAIN_SECONDS = 300


def batch(number: int) -> bytes:
    events = [
        event("hello, what is this?" if n % ONE_IN == 0 else f"that was close, number {n}", n)
        | {"user_id": f"user-{n}", "username": f"user_{n}", "entity_id": f"twitch:channel:{n // ONE_IN % CHANNELS}"}
        for n in range(number * BATCH, (number + 1) * BATCH)
    ]
    return post(f"{INTERACTION}/batch", {"events": events}, KEY)


async def run(made: Rig, count: int) -> str:
    made.keep_off(0)
    stub = made.stub(0)
    port = made.service(stub, core=0)
    process = psutil.Process(made.processes[-1].pid)
    rows = ["| events | replies | resident MB |", "|---|---|---|"]
    sizes: list[float] = []

    def note(events: int) -> None:
        sizes.append(process.memory_info().rss / 1e6)
        rows.append(f"| {events} | {len(get(stub, '/seen'))} | {sizes[-1]:.1f} |")

    tenth = count // BATCH // 10
    for part in tqdm(range(10), desc="tenths"):
        load = await hammer(port, (batch(part * tenth + n) for n in range(tenth)), CONNECTIONS)
        if set(load.statuses) != {200}:
            raise SystemExit(f"not all were taken: {dict(load.statuses)}")
        note((part + 1) * tenth * BATCH)
    expected = tenth * 10 * BATCH // ONE_IN
    deadline = time.monotonic() + DRAIN_SECONDS
    while len(get(stub, "/seen")) < expected:
        if time.monotonic() > deadline:
            raise SystemExit("not all replies went out")
        await asyncio.sleep(1)
    note(tenth * 10 * BATCH)
    return "\n".join([*rows, "", f"Growth after the first tenth: {max(sizes) - sizes[0]:.1f} MB."])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=EVENTS, help="events in all (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.events)))


if __name__ == "__main__":
    main()
