"""Breaks everything in turn under load, and checks the whole history: what was accepted, what came of it.

    python -m bench.faults [--events N] [--rate R] [--only NAME …]

A router that retries (the same event_id until it gets an ACK) posts events; a stub model answers after 50 ms, each
time with another text; a recording router takes the replies. After each story the journal is drained, and the checker
compares the ACKs, the journal and what the router received.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import uvloop
from tqdm import tqdm

from bench.load import post
from bench.proxy import FAULTS, Proxy
from bench.rig import CONFIG, KEY, WIDE_LIMITS, Rig, get, put, rig, wait_ready
from embedded.parts import free_port

INTERACTION = "/api/v1/ai/interaction"
SENDERS = 32
CHANNELS = 20
ANSWER_SECONDS = 5.0
GIVE_UP_SECONDS = 90.0
DRAIN_SECONDS = 120.0
LEASE_SECONDS = "3"
TERRIBLE = ("lost", "delivered twice", "answered twice")
# 20 kills of the service and 5 of PostgreSQL in the 25 s of 5,000 events at 200 a second.
KILL_SECONDS = 1.25
PART_KILL_SECONDS = 5.0


@dataclass
class History:
    """What the router saw: the interaction of each event that was ACKed, and how often it had to ask."""

    acked: dict[str, str] = field(default_factory=dict)
    changed: int = 0  # an event whose ACKs named different interactions
    unanswered: int = 0  # an event that never got an ACK
    retries: int = 0


@dataclass
class Stage:
    """One service and what it stands on, with a proxy before each."""

    made: Rig
    port: int
    stub: int
    environment: dict[str, str]
    proxies: dict[str, Proxy]
    service: subprocess.Popen[str]

    def restart(self) -> None:
        """Kill the service as the kernel would, and start it again on the same port."""
        self.service.send_signal(signal.SIGKILL)
        self.service.wait()
        self.made.processes.remove(self.service)
        self.service = self.made.run("app.py", environment=self.environment)

    def kill_part(self, name: str) -> None:
        """Kill PostgreSQL's or Valkey's first process; the parent of the parts starts it again."""
        for child in psutil.Process(self.made.parts.pid).children():
            if Path((child.cmdline() or [""])[0].split(" ")[0]).name == name:
                child.kill()


Story = Callable[[Stage, float], Coroutine[Any, Any, None]]


async def service_killed(stage: Stage, seconds: float) -> None:
    for _ in range(max(round(seconds / KILL_SECONDS), 2)):
        await asyncio.sleep(random.uniform(0.5, 1.5) * KILL_SECONDS)
        stage.restart()


def part_killed(name: str) -> Story:
    async def story(stage: Stage, seconds: float) -> None:
        for _ in range(max(round(seconds / PART_KILL_SECONDS), 1)):
            await asyncio.sleep(PART_KILL_SECONDS * 0.8)
            stage.kill_part(name)

    return story


async def provider_hangs(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds / 4)
    stage.proxies["provider"].fault = "hang"
    await asyncio.sleep(seconds / 2)
    stage.proxies["provider"].fault = None


async def router_down(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds / 4)
    stage.proxies["router"].refuse = True
    await asyncio.sleep(min(30, seconds))
    stage.proxies["router"].refuse = False


def faulty(name: str, fault: str) -> Story:
    async def story(stage: Stage, seconds: float) -> None:
        stage.proxies[name].fault = fault
        await asyncio.sleep(seconds)
        stage.proxies[name].fault = None

    return story


STORIES: dict[str, Story] = {
    "service killed": service_killed,
    "PostgreSQL killed": part_killed("postgres"),
    "Valkey killed": part_killed("valkey-server"),
    "provider hangs": provider_hangs,
    "router down": router_down,
    **{f"{name}: {fault}": faulty(name, fault) for name in ("provider", "router", "postgresql") for fault in FAULTS},
}


async def send(port: int, events: int, rate: float, run: str) -> History:
    """Post events at a steady rate, each until it has an ACK."""
    history = History()
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def sender() -> None:
        while True:
            number = await queue.get()
            await post_until_acked(port, f"{run}-{number}", number, history)
            queue.task_done()

    senders = [asyncio.create_task(sender()) for _ in range(SENDERS)]
    began = time.monotonic()
    for number in range(events):
        await asyncio.sleep(began + number / rate - time.monotonic())
        queue.put_nowait(number)
    await queue.join()
    for task in senders:
        task.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    return history


async def post_until_acked(port: int, event_id: str, number: int, history: History) -> None:
    event = {"session_id": "faults", "event_id": event_id, "message_content": "hello", "platform": "twitch"}
    event |= {"user_id": f"u{number % 100}", "username": f"u{number % 100}", "entity_id": f"twitch:{number % CHANNELS}"}
    raw = post(INTERACTION, event, KEY)
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        status, body = await once(port, raw)
        if status == 200:
            interaction_id = body["data"]["interaction_id"]
            history.changed += history.acked.setdefault(event_id, interaction_id) != interaction_id
            return
        history.retries += 1
        await asyncio.sleep(random.uniform(0.05, 0.3))
    history.unanswered += 1


async def once(port: int, raw: bytes) -> tuple[int, Any]:
    """One POST on a connection of its own; status 0 where no answer came."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                return int(head[9:12]), json.loads(body)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return 0, None


async def drained(url: str) -> None:
    """Return when no interaction is open. Raises TimeoutError."""
    async with asyncio.timeout(DRAIN_SECONDS):
        while True:
            try:
                connection = await asyncpg.connect(url)
                try:
                    if not await connection.fetchval("select count(*) from interactions where ended_at is null"):
                        return
                finally:
                    await connection.close()
            except (OSError, asyncpg.PostgresError):
                pass
            await asyncio.sleep(0.2)


async def check(made: Rig, stub: int, history: History, run: str) -> dict[str, int]:
    """The verdict on one story. Nothing may be lost, delivered twice or answered twice."""
    connection = await asyncpg.connect(made.addresses["DATABASE_URL"])
    rows = await connection.fetch(
        "select interaction_id::text, state from interactions where dedupe_key like $1", f"id:{run}-%"
    )
    await connection.close()
    states = {row["interaction_id"]: row["state"] for row in rows}
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_event: dict[str, set[str]] = defaultdict(set)
    for reply in get(stub, "/seen"):
        if reply["event"].startswith(f"{run}-"):
            seen[reply["id"]].append(reply)
            by_event[reply["event"]].add(reply["id"])
    ended = Counter(states.values())
    sends = [Counter(reply["attempt"] for reply in replies) for replies in seen.values()]
    return {
        "accepted": len(history.acked),
        "delivered": len(seen),
        "expired": ended["expired"],
        "failed": ended["failed"] + ended["undeliverable"],
        "repeated": sum(len(attempts) - 1 for attempts in sends),
        "lost": sum(
            interaction not in seen and states.get(interaction) not in {"expired", "failed", "undeliverable"}
            for interaction in history.acked.values()
        ),
        "delivered twice": sum(max(attempts.values()) > 1 for attempts in sends),
        "answered twice": sum(len({reply["text"] for reply in replies}) > 1 for replies in seen.values())
        + sum(len(ids) > 1 for ids in by_event.values())
        + history.changed,
        "never ACKed": history.unanswered,
    }


@asynccontextmanager
async def stage_of(made: Rig) -> AsyncIterator[Stage]:
    """A fresh service behind proxies."""
    stub, port = made.stub(0.05), free_port()
    socket = made.addresses["DATABASE_URL"].split("host=")[1] + "/.s.PGSQL.5432"
    proxies = {
        "provider": Proxy(lambda: asyncio.open_connection("127.0.0.1", stub)),
        "router": Proxy(lambda: asyncio.open_connection("127.0.0.1", stub)),
        "postgresql": Proxy(lambda: asyncio.open_unix_connection(socket)),
    }
    ports = {name: await proxy.open() for name, proxy in proxies.items()}
    environment = made.addresses | {
        "AI_PROVIDER": "waddleai",
        "WADDLEAI_BASE_URL": f"http://127.0.0.1:{ports['provider']}",
        "WADDLEAI_TIMEOUT": "2",
        "ROUTER_API_URL": f"http://127.0.0.1:{ports['router']}",
        "DATABASE_URL": f"postgresql://sidecast@127.0.0.1:{ports['postgresql']}/postgres",
        "VALID_API_KEYS": KEY,
        "SECRET_KEY": "bench",
        "MODULE_PORT": str(port),
        "LEASE_SECONDS": LEASE_SECONDS,
        "MAX_ATTEMPTS": "20",
        "MAX_CONCURRENT_REQUESTS": "40",
        "LOG_LEVEL": "ERROR",
    }
    stage = Stage(made, port, stub, environment, proxies, made.run("app.py", environment=environment))
    try:
        yield stage
    finally:
        made.end(stage.service)
        for proxy in proxies.values():
            await proxy.close()


async def tell(made: Rig, story: Story, events: int, rate: float) -> dict[str, int]:
    """One story from a fresh service to the verdict."""
    run = f"r{time.time_ns()}"
    async with stage_of(made) as stage:
        await asyncio.to_thread(wait_ready, stage.port)
        await asyncio.to_thread(put, stage.port, CONFIG, WIDE_LIMITS)
        telling = asyncio.create_task(story(stage, events / rate))
        history = await send(stage.port, events, rate, run)
        await telling
        await drained(made.addresses["DATABASE_URL"])
        return await check(made, stage.stub, history, run)


async def run(rigs: list[Rig], names: list[str], events: int, rate: float) -> tuple[str, bool]:
    """Tell the stories, one at a time on each rig. The table, and whether nothing was lost, sent or answered twice."""
    left = deque(names)
    verdicts: dict[str, dict[str, int]] = {}
    with tqdm(total=len(names), desc="stories") as bar:

        async def lane(made: Rig) -> None:
            while left:
                name = left.popleft()
                verdicts[name] = await tell(made, STORIES[name], events, rate)
                tqdm.write(f"{name}: {verdicts[name]}")
                bar.update()

        await asyncio.gather(*(lane(made) for made in rigs))
    columns = list(verdicts[names[0]])
    lines = ["| story | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(verdicts[name][column]) for column in columns) + " |" for name in names]
    bad = any(verdict[column] for verdict in verdicts.values() for column in TERRIBLE)
    return "\n".join(lines), not bad


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=5_000, help="events of each story (%(default)s)")
    parser.add_argument("--rate", type=float, default=200, help="events a second (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(STORIES), metavar="STORY", help="these stories alone")
    parser.add_argument(
        "--lanes", type=int, default=2, help="stories told at once, each on its own parts (%(default)s)"
    )
    arguments = parser.parse_args()
    with ExitStack() as stack:
        rigs = [stack.enter_context(rig()) for _ in range(arguments.lanes)]
        text, good = uvloop.run(run(rigs, arguments.only or list(STORIES), arguments.events, arguments.rate))
    print(text)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
