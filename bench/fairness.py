"""Whether one channel under a raid makes another's replies late.

    python -m bench.fairness

A quiet channel sends 20 events a second; first alone, then while another sends 10,000 events that trigger in 10 s. The
time from POST to the reply at the router counts. The service has the first core, everything else the others; the
model is a stub that answers after 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import uvloop

from bench.client import percentile
from bench.intake import INTERACTION, event
from bench.load import pace, post
from bench.replies import ways
from bench.rig import KEY, Rig, rig

RATE = 20
SECONDS = 10
MODEL_SECONDS = 0.05


async def replies(port: int, stub: int, seconds: float) -> list[float]:
    """Milliseconds from POST to reply of the quiet channel's events."""
    events: list[dict[str, Any]] = [
        event("hello there!", 0) | {"entity_id": "quiet"} for _ in range(int(RATE * seconds))
    ]
    for number, item in enumerate(events):
        item["event_id"] += f"-quiet-{number}"
    return [way.ms for way in await ways(port, stub, events, RATE, 8)]


async def raid(port: int, count: int) -> None:
    bodies = (post(INTERACTION, event("hello!", number) | {"entity_id": "raided"}, KEY) for number in range(count))
    await pace(port, bodies, count / SECONDS, 32)


def row(name: str, times: list[float]) -> str:
    return (
        f"| {name} | {len(times)} | {percentile(times, 0.5):.0f} | {percentile(times, 0.95):.0f} | {max(times):.0f} |"
    )


async def run(made: Rig, count: int) -> str:
    made.keep_off(0)
    stub = made.stub(MODEL_SECONDS)
    port = made.service(stub, core=0)
    await replies(port, stub, 2)  # warms up
    quiet = await replies(port, stub, SECONDS)
    raiding = asyncio.create_task(raid(port, count))
    raided = await replies(port, stub, SECONDS)
    await raiding
    ratio = percentile(raided, 0.95) / percentile(quiet, 0.95)
    return "\n".join(
        [
            "| the quiet channel's replies | events | p50 ms | p95 ms | max ms |",
            "|---|---|---|---|---|",
            row("alone", quiet),
            row(f"while another sends {count} events in {SECONDS} s", raided),
            "",
            f"p95 during the raid is {ratio:.2f} x that of the quiet case.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=10_000, help="events of the raid (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.events)))


if __name__ == "__main__":
    main()
