"""What an outage of the first provider costs those who wait for a reply, once its breaker is open.

    python -m bench.outage

The first provider hangs, refuses connections, answers 500, or dies in the middle of its answer; a stub that takes 50 ms
is the fallback. Events that trigger are posted at a steady rate; the time from POST to the reply at the router counts,
from the moment the breaker is open. Beside it, in the same round, an instance that has the fallback alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import uvloop
from tqdm import tqdm

from bench.client import percentile
from bench.intake import INTERACTION, event
from bench.load import pace, post
from bench.rig import KEY, Rig, get, rig

KINDS = ("hangs", "refuses", "answers 500", "dies in its answer")
RATE = 50
MODEL_SECONDS = 0.05
TIMEOUT_SECONDS = 1.0
PARTIAL = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choices": [{"mess'
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def broken(kind: str) -> AsyncIterator[str]:
    """The address of a provider that fails in this way."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if kind == "hangs":
                await asyncio.sleep(TIMEOUT_SECONDS * 3)
            writer.write(PARTIAL if kind == "dies in its answer" else FAILED)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if kind == "refuses":
        server.close()
    try:
        yield address
    finally:
        server.close()


async def posted(port: int, stub: int, count: int) -> list[tuple[float, float]]:
    """When each event was posted and how many milliseconds it was until its reply reached the router."""
    events: list[dict[str, Any]] = [event("hello there!", number) for number in range(count)]
    load = await pace(port, [post(INTERACTION, item, KEY) for item in events], RATE, 32)
    deadline = time.time() + 60
    arrived: dict[str, float] = {}
    ids = {item["event_id"] for item in events}
    while len(arrived) < count and time.time() < deadline:
        await asyncio.sleep(0.5)
        arrived = {reply["event"]: reply["at"] for reply in get(stub, "/seen") if reply["event"] in ids}
    if len(arrived) < count:
        raise SystemExit(f"{count - len(arrived)} replies did not arrive")
    times = zip(events, load.sent_at, strict=True)
    return [(sent, (arrived[item["event_id"]] - sent) * 1000) for item, sent in times]


async def outcomes(made: Rig) -> tuple[int, float]:
    """How many events the fallback's model answered, and when the first was answered that found the breaker open.

    The journal is empty afterwards.
    """
    connection = await asyncpg.connect(made.addresses["DATABASE_URL"])
    answered: int = await connection.fetchval(
        "select count(*) from interactions where state = 'delivered' and provider = 'custom' and not fallback"
    )
    opened: float | None = await connection.fetchval(
        "select extract(epoch from min(answered_at))::float8 from interactions where reason like '%breaker_open'"
    )
    await connection.execute("delete from interactions")
    await connection.close()
    return answered, opened or 0.0


async def one(made: Rig, kind: str, count: int) -> str:
    """A row of the table."""
    stub = made.stub(MODEL_SECONDS)
    alone = made.service(stub, core=0)
    quiet = [took for _, took in await posted(alone, stub, count)]
    made.end(made.processes[-1])
    await outcomes(made)
    async with broken(kind) as address:
        settings = {"AI_FALLBACKS": "custom/m", "CUSTOM_BASE_URL": f"http://127.0.0.1:{stub}/v1"}
        settings |= {"WADDLEAI_BASE_URL": address, "WADDLEAI_TIMEOUT": str(TIMEOUT_SECONDS)}
        during = await posted(made.service(stub, core=0, settings=settings), stub, count)
        made.end(made.processes[-1])
    answered, opened = await outcomes(made)
    after = [took for sent, took in during if sent >= opened]
    ratio = percentile(after, 0.95) / percentile(quiet, 0.95)
    times = f"{percentile(after, 0.5):.0f} | {percentile(after, 0.95):.0f} | {percentile(quiet, 0.95):.0f}"
    return f"| {kind} | {count} | {answered} | {len(after)} | {times} | {ratio:.2f} |"


async def run(made: Rig, count: int) -> str:
    made.keep_off(0)
    rows = [
        "| the first provider | events | answered by the fallback | posted once open | p50 ms | p95 ms "
        "| p95 of the fallback alone | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(rows + [await one(made, kind, count) for kind in tqdm(KINDS, desc="outages")])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=1000, help="events of each outage (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.events)))


if __name__ == "__main__":
    main()
