"""How many events a second one instance takes on one core, next to an endpoint that does nothing.

    python -m bench.intake [CHAT_LOG]

Each measure is taken right after one of the endpoint that does nothing, under the same server, with 32 connections,
and again in several rounds; the median ratio of the two is what to compare. The server has the first core, everything
else the others. Without a log of real chat, made-up messages are sent.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from tqdm import tqdm

from bench.load import for_seconds, hammer, post
from bench.replay import read_log
from bench.rig import KEY, Rig, get, rig
from config import load_settings
from services.events import ChatEvent
from services.settings import CommunitySettings, of_environment
from services.triggers import Triggers

CONNECTIONS = 32
CHANNELS = 20
BATCH = 100
INTERACTION = "/api/v1/ai/interaction"
MADE_UP = ["hello", "what is this?", "nice", "that was close", "lol", "go go go", "is it live?", "bye"]
WHOLE_WAY_EVENTS = 2_000


def texts(path: Path | None) -> tuple[list[str], list[str], list[str]]:
    """All messages, those that trigger, and those that do not."""
    every = [row["message"] for row in read_log(path)] if path else MADE_UP
    triggers = Triggers(CommunitySettings(**of_environment(load_settings())))
    speaking = [text for text in every if triggers.match(ChatEvent(**event(text, 0)))]
    return every, speaking, [text for text in every if text not in set(speaking)]


def event(text: str, number: int) -> dict[str, Any]:
    return {
        "session_id": "bench",
        "event_id": f"{time.time_ns()}-{number}",
        "message_content": text,
        "user_id": f"user-{number % 1000}",
        "username": f"user_{number % 1000}",
        "entity_id": f"twitch:channel:{number % CHANNELS}",
        "platform": "twitch",
    }


def single(messages: list[str]) -> Callable[[int], bytes]:
    return lambda number: post(INTERACTION, event(messages[number % len(messages)], number), KEY)


def batch(messages: list[str]) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        numbers = range(number * BATCH, (number + 1) * BATCH)
        return post(f"{INTERACTION}/batch", {"events": [event(messages[n % len(messages)], n) for n in numbers]}, KEY)

    return make


async def measure(port: int, make: Callable[[int], bytes], seconds: float) -> float:
    """Requests a second."""
    await hammer(port, for_seconds(1, make), CONNECTIONS)  # warms up
    load = await hammer(port, for_seconds(seconds, make), CONNECTIONS)
    if set(load.statuses) != {200}:
        raise SystemExit(f"not all were taken: {dict(load.statuses)}")
    return load.rate


async def whole_way(port: int, stub: int, messages: list[str]) -> float:
    """Events a second from the first POST until the last reply has reached the router."""
    before = len(get(stub, "/seen"))
    make = single(messages)
    began = time.perf_counter()
    await hammer(port, map(make, range(WHOLE_WAY_EVENTS)), CONNECTIONS)
    while len(get(stub, "/seen")) - before < WHOLE_WAY_EVENTS:
        await asyncio.sleep(0.05)
        if time.perf_counter() - began > 120:
            raise SystemExit("not all replies arrived within two minutes")
    return WHOLE_WAY_EVENTS / (time.perf_counter() - began)


async def run(made: Rig, path: Path | None, seconds: float, rounds: int) -> str:
    every, speaking, silent = texts(path)
    made.keep_off(0)
    noop = made.noop(core=0)
    hanging, instant = made.stub(600), made.stub(0)
    settings = {"REPLY_TTL": "3600", "WADDLEAI_TIMEOUT": "3600", "MAX_CONCURRENT_REQUESTS": "32"}
    busy = made.service(hanging, core=0, settings=settings)
    own = {"DATABASE_URL": await another_database(made)}
    quick = made.service(instant, core=0, settings=settings | own)
    await hammer(busy, map(single(speaking), range(200)), CONNECTIONS)  # every slot waits for the model

    async def posted(make: Callable[[int], bytes], size: int) -> float:
        return size * await measure(busy, make, seconds)

    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "triggers nothing": lambda: posted(single(silent), 1),
        "triggers, every slot busy": lambda: posted(single(speaking), 1),
        f"batches of {BATCH}": lambda: posted(batch(every), BATCH),
        "whole way, answered and delivered": lambda: whole_way(quick, instant, speaking),
    }
    rows = ["| what | events/s | no-op/s | ratio | ratios of all rounds |", "|---|---|---|---|---|"]
    with tqdm(total=len(kinds) * rounds, desc="measures") as bar:
        for name, take in kinds.items():
            taken = []
            for _ in range(rounds):
                idle = await measure(noop, lambda _: post("/noop", {"a": 1}, KEY), seconds)
                taken.append((await take(), idle))
                bar.update()
            ratios = sorted(rate / idle for rate, idle in taken)
            rate, idle = (statistics.median(column) for column in zip(*taken, strict=True))
            listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            rows.append(f"| {name} | {rate:.0f} | {idle:.0f} | {statistics.median(ratios):.2f} | {listed} |")
    return "\n".join(rows)


async def another_database(made: Rig) -> str:
    """A database of its own, so that the two services do not take up each other's work."""
    import asyncpg  # noqa: PLC0415 - after the affinity is set

    url = made.addresses["DATABASE_URL"]
    connection = await asyncpg.connect(url)
    await connection.execute("create database bench")
    await connection.close()
    return url.replace("/postgres?", "/bench?")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.intake", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("log", type=Path, nargs="?", help="a log of real chat, .jsonl or .jsonl.gz")
    parser.add_argument("--seconds", type=float, default=5, help="seconds a measure takes (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of each, of which the median counts (%(default)s)"
    )
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.log, arguments.seconds, arguments.rounds)))


if __name__ == "__main__":
    main()
