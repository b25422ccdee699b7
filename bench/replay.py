"""Replays a chat log against a running service and prints what became of each message.

    python -m bench.replay chat.jsonl.gz --rate 50 --limit 2000

The log has a JSON object a line with `platform`, `channel`, `username` and `message`. Messages are sent at a steady
rate whether or not earlier ones were answered. To let a slow model finish, start the service with a high REPLY_TTL.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from bench.client import API, add_service_arguments, find_key, percentile, table

ENDED = {"delivered", "suppressed", "expired", "failed", "undeliverable"}
POLL_SECONDS = 0.5
POLLED_AT_ONCE = 8


@dataclass
class Run:
    """What was seen: ACK times in ms, triggers by type, interaction ids without and with their outcome."""

    sent: int = 0
    acks: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    triggers: Counter[str] = field(default_factory=Counter)
    waiting: set[str] = field(default_factory=set)
    states: Counter[str] = field(default_factory=Counter)
    fallbacks: int = 0
    whole_way: list[float] = field(default_factory=list)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a `.jsonl` or `.jsonl.gz` file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def as_event(row: dict[str, Any], run_id: str, number: int) -> dict[str, Any]:
    """A row of the log as the event that a router would post."""
    platform = row["platform"]
    return {
        "session_id": f"replay-{run_id}",
        "event_id": f"replay-{run_id}-{number}",
        "message_content": row["message"],
        "user_id": row["username"] or "unknown",
        "username": row["username"] or "unknown",
        "entity_id": f"{platform}:channel:{row.get('channel') or 'replay'}",
        "platform": platform,
    }


async def post(client: httpx.AsyncClient, event: dict[str, Any], run: Run) -> None:
    began = time.perf_counter()
    try:
        answer = await client.post(f"{API}/interaction", json=event)
    except httpx.HTTPError as error:
        run.refused[type(error).__name__] += 1
        return
    if answer.status_code != httpx.codes.OK:
        run.refused[f"status {answer.status_code}"] += 1
        return
    run.acks.append((time.perf_counter() - began) * 1000)
    ack = answer.json()["data"]
    if ack["triggered"]:
        run.triggers[ack["trigger"]["type"]] += 1
        run.waiting.add(ack["interaction_id"])


async def send(client: httpx.AsyncClient, rows: list[dict[str, Any]], rate: float, run: Run) -> None:
    """Post all rows, one every 1/rate seconds."""
    run_id = secrets.token_hex(4)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, row in enumerate(tqdm(rows, desc="sent", unit="msg")):
            await asyncio.sleep(began + number / rate - time.perf_counter())
            tasks.create_task(post(client, as_event(row, run_id, number), run))
            run.sent += 1


async def follow(client: httpx.AsyncClient, run: Run, patience: float) -> None:
    """Ask what became of each triggered event until all have ended or none has for `patience` seconds."""
    slots = asyncio.Semaphore(POLLED_AT_ONCE)

    async def look(interaction_id: str) -> None:
        async with slots:
            answer = await client.get(f"{API}/interaction/{interaction_id}")
        outcome = answer.json()["data"]
        if outcome["state"] in ENDED:
            run.waiting.discard(interaction_id)
            run.states[outcome["state"]] += 1
            run.fallbacks += outcome["state"] == "delivered" and outcome["provider"] is None
            run.whole_way.append(outcome["timings"].get("total", 0.0))

    with tqdm(total=len(run.waiting), desc="ended", unit="msg") as bar:
        last = time.monotonic()
        while run.waiting and time.monotonic() - last < patience:
            before = len(run.waiting)
            await asyncio.gather(*(look(interaction_id) for interaction_id in sorted(run.waiting)[:200]))
            if ended := before - len(run.waiting):
                bar.update(ended)
                last = time.monotonic()
            if run.waiting:
                await asyncio.sleep(POLL_SECONDS)


def report(run: Run) -> str:
    """The table; times are in ms."""
    triggered = sum(run.triggers.values())
    by_count = sorted(run.triggers.items(), key=lambda item: (-item[1], item[0]))
    types = ", ".join(f"{name} {count}" for name, count in by_count)
    others = ", ".join(f"{name} {count}" for name, count in run.states.items() if name not in {"delivered", "expired"})
    rows = [
        ("sent", f"{run.sent}"),
        ("ACKed", f"{len(run.acks)}" + "".join(f"; {name}: {count}" for name, count in run.refused.items())),
        ("triggered", f"{triggered} ({types})"),
        ("delivered", f"{run.states['delivered']}, of these {run.fallbacks} canned"),
        ("expired", f"{run.states['expired']}"),
        ("ended otherwise", others or "0"),
        ("lost", f"{len(run.waiting)}"),
        ("ACK p50 / p99 / max, ms", _times(run.acks, 0.5, 0.99, 1)),
        ("whole way p50 / p99, ms", _times(run.whole_way, 0.5, 0.99)),
    ]
    return table(rows)


def _times(values: list[float], *shares: float) -> str:
    return " / ".join(f"{percentile(values, share):.1f}" for share in shares)


async def replay(arguments: argparse.Namespace) -> Run:
    rows = list(islice(read_log(arguments.file), arguments.limit))
    run = Run()
    headers = {"Authorization": f"Bearer {find_key(arguments.key)}"}
    async with httpx.AsyncClient(base_url=arguments.url, headers=headers, timeout=30, trust_env=False) as client:
        await send(client, rows, arguments.rate, run)
        await follow(client, run, arguments.patience)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("file", type=Path, help="the chat log, .jsonl or .jsonl.gz")
    parser.add_argument("--rate", type=float, required=True, help="messages a second")
    parser.add_argument("--limit", type=int, help="replay the first N messages only")
    parser.add_argument("--patience", type=float, default=120, help="seconds without news until the rest is lost")
    add_service_arguments(parser)
    arguments = parser.parse_args()
    if not arguments.file.exists():
        parser.error(f"there is no file {arguments.file}")
    print(report(asyncio.run(replay(arguments))))


if __name__ == "__main__":
    main()
