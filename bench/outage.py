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
from collections.abc import AsyncIterator

import asyncpg
import uvloop
from tqdm import tqdm

from bench.client import percentile
from bench.intake import event
from bench.replies import ways
from bench.rig import Rig, rig

KINDS = ("hangs", "refuses", "answers 500", "dies in its answer")
RATE = 50
CONNECTIONS = 32
MODEL_SECONDS = 0.05
TIMEOUT_SECONDS = 1.0
PARTIAL = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choices": [{"mess'
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def broken(kind: str) -> AsyncIterator[str]:
    """The address of a provider that fails in this way."""

    stopping = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError):
            await reader.readuntil(b"\r\n\r\n")
            if kind == "hangs":
                await asyncio.wait_for(stopping.wait(), TIMEOUT_SECONDS * 3)
            writer.write(PARTIAL if kind == "dies in its answer" else FAILED)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if kind == "refuses":
        server.close()
    try:
        yield address
    finally:
        stopping.set()
        server.close()
        await server.wait_closed()


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
    events = [event("hello there!", number) for number in range(count)]
    quiet = [way.ms for way in await ways(alone, stub, events, RATE, CONNECTIONS)]
    made.end(made.processes[-1])
    await outcomes(made)
    async with broken(kind) as address:
        settings = {"AI_FALLBACKS": "custom/m", "CUSTOM_BASE_URL": f"http://127.0.0.1:{stub}/v1"}
        settings |= {"WADDLEAI_BASE_URL": address, "WADDLEAI_TIMEOUT": str(TIMEOUT_SECONDS)}
        port = made.service(stub, core=0, settings=settings)
        during = await ways(port, stub, [event("hello there!", number) for number in range(count)], RATE, CONNECTIONS)
        made.end(made.processes[-1])
    answered, opened = await outcomes(made)
    after = [way.ms for way in during if way.posted >= opened]
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
