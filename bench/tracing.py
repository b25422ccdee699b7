"""What tracing costs: off, by the call; on, next to a service without it, on the whole way and to the ACK.

    python -m bench.tracing

First each call of `services.tracing` as it is without a collector, next to an empty loop, times how often an
interaction makes it. Then two services, one with a collector, which takes spans and drops them; each in turn hears
and answers events as in `bench.intake`, in several rounds, in which every span is made and sent. The median ratio of
the two is what to compare, and that of the processor's time first: it is the least disturbed by whoever else is at
work. The services have the first core, everything else the others.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import starmap
from typing import Any, TypeVar

import psutil
import uvloop
from tqdm import tqdm

from bench.client import percentile
from bench.intake import CONNECTIONS, INTERACTION, WHOLE_WAY_EVENTS, another_database, event, whole_way
from bench.load import hammer, post
from bench.replies import ways
from bench.rig import KEY, Rig, get, rig
from config import load_settings
from providers.resilient import Attempt
from services.events import ChatEvent
from services.ids import new_id
from services.interactions import Interaction
from services.logs import open_log
from services.tracing import Tracing
from services.triggers import Trigger

CALLS = 200_000
LOOPS = 5
RATE = 100
EVENTS = 5_000
SENT_SECONDS = 1.5
SPEAKING = ["hello", "what is this?", "is it live?", "bye"]


Done = TypeVar("Done")


def off_calls(tracing: Tracing) -> dict[str, tuple[int, Callable[[], Any]]]:
    """By name: how often an interaction makes a call that nothing is set for, and the call."""
    chat = ChatEvent(**event("hello", 1))
    item = Interaction(new_id(), new_id(), chat, Trigger("greeting", "hello"), 0.0)
    attempt: Any = Attempt.__new__(Attempt)

    def span() -> None:
        with tracing.span("context"):
            pass

    def call() -> dict[str, str]:
        with tracing.call("delivery") as step:
            return step.headers

    def request() -> None:
        with tracing.request([]) as step:
            step.answer("POST", INTERACTION, 200)

    def interaction() -> None:
        with tracing.interaction(item):
            pass

    return {
        "request, and its answer": (1, request),
        "here": (1, lambda: tracing.here),
        "span": (2, span),
        "interaction": (1, interaction),
        "attempted": (1, lambda: tracing.attempted(attempt)),
        "call, and its headers": (1, call),
        "note": (1, lambda: tracing.note("delivered", None)),
    }


def nanoseconds(call: Callable[[], Any]) -> float:
    """Of one call, the loop around it included; the least of several times."""
    least = float("inf")
    for _ in range(LOOPS):
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        least = min(least, (time.perf_counter_ns() - began) / CALLS)
    return least


def off() -> str:
    settings = load_settings(otel_exporter_otlp_endpoint="")
    tracing = Tracing(settings, open_log(settings))
    tracing.open()
    gc.disable()
    empty = nanoseconds(lambda: None)
    rows = ["| off | ns a call | calls an interaction | ns an interaction |", "|---|---|---|---|"]
    total = 0.0
    for name, (times, call) in off_calls(tracing).items():
        took = max(nanoseconds(call) - empty, 0)
        total += took * times
        rows.append(f"| {name} | {took:.0f} | {times} | {took * times:.0f} |")
    gc.enable()
    return "\n".join([*rows, f"| all | | | {total:.0f} |"])


@dataclass(frozen=True)
class Service:
    """One of the two: where it listens, its stub, and its process."""

    port: int
    stub: int
    process: psutil.Process

    async def hear(self) -> dict[str, float]:
        """Events that trigger nothing."""
        load, spent = await self._spending(
            hammer(self.port, (post(INTERACTION, event("nice", n), KEY) for n in range(EVENTS)), CONNECTIONS)
        )
        name = "triggers nothing"
        return {f"{name}, events/s": load.rate, f"{name}, µs of processor an event": spent / EVENTS}

    async def answer(self) -> dict[str, float]:
        """Events that are answered and delivered."""
        rate, spent = await self._spending(whole_way(self.port, self.stub, SPEAKING))
        name = "whole way"
        return {f"{name}, events/s": rate, f"{name}, µs of processor an event": spent / WHOLE_WAY_EVENTS}

    async def delay(self) -> dict[str, float]:
        """The whole way while there is little to do; the model answers at once."""
        events = [event("hello there!", number) for number in range(RATE * 5)]
        taken = [way.ms_without_model for way in await ways(self.port, self.stub, events, RATE, CONNECTIONS)]
        name = f"whole way at {RATE}/s"
        return {f"{name}, p50 ms": percentile(taken, 0.5), f"{name}, p95 ms": percentile(taken, 0.95)}

    async def _spending(self, work: Coroutine[Any, Any, Done]) -> tuple[Done, float]:
        """What comes of some work, and the µs of processor that the service had for it, until its spans were sent."""
        before = sum(self.process.cpu_times()[:2])
        done = await work
        await asyncio.sleep(SENT_SECONDS)
        return done, (sum(self.process.cpu_times()[:2]) - before) * 1e6


async def on(made: Rig, rounds: int) -> str:
    made.keep_off(0)
    collector = made.stub(0)
    settings = {"REPLY_TTL": "3600", "WADDLEAI_TIMEOUT": "3600", "MAX_CONCURRENT_REQUESTS": "32"}
    own = {"DATABASE_URL": await another_database(made)}
    traced = start(made, settings | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}"})
    plain = start(made, settings | own)
    for service in (traced, plain):  # warms up
        await service.hear()
        await service.answer()
    taken: dict[str, list[tuple[float, float]]] = {}
    for number in tqdm(range(rounds), desc="rounds"):
        for take in (Service.hear, Service.answer, Service.delay):
            # Who goes first changes, so that neither is always the one that comes after the other.
            order = (traced, plain) if number % 2 else (plain, traced)
            found = {service: await take(service) for service in order}
            for name, value in found[traced].items():
                taken.setdefault(name, []).append((value, found[plain][name]))
    if not get(collector, "/traces")["count"]:
        raise SystemExit("no spans came to the collector")
    return "\n".join(
        ["| what | on | off | on : off | of all rounds |", "|---|---|---|---|---|", *starmap(row, taken.items())]
    )


def start(made: Rig, settings: dict[str, str]) -> Service:
    stub = made.stub(0)
    port = made.service(stub, core=0, settings=settings)
    return Service(port, stub, psutil.Process(made.processes[-1].pid))


def row(name: str, pairs: list[tuple[float, float]]) -> str:
    ratios = sorted(with_it / without for with_it, without in pairs)
    with_it, without = (statistics.median(column) for column in zip(*pairs, strict=True))
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"| {name} | {with_it:.1f} | {without:.1f} | {statistics.median(ratios):.2f} | {listed} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tracing", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each, of which the median counts (%(default)s)"
    )
    arguments = parser.parse_args()
    print(off(), end="\n\n")
    with rig() as made:
        print(uvloop.run(on(made, arguments.rounds)))


if __name__ == "__main__":
    main()
