"""Whether one instance's memory grows with what it has seen, and whether it remembers rightly what it has.

    python -m bench.memory

A million events in batches of 100, of 100,000 users in 1,000 channels; one in fifty triggers and is answered by a stub
and delivered, however late. The resident memory is taken at each tenth, and again when all replies have gone out. Then
some users say one thing more, and the prompt that the model gets for each is compared with what they said before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import Any

import psutil
import uvloop
from tqdm import tqdm

from bench.intake import INTERACTION, event
from bench.load import hammer, post
from bench.rig import KEY, START_SECONDS, Rig, get, rig, send

EVENTS = 1_000_000
BATCH = 100
ONE_IN = 50
CHANNELS = 1_000
CONNECTIONS = 4
USERS = 100_000
SAMPLE = 50
REMEMBERED = 5
DRAIN_SECONDS = 300
NUMBERED = re.compile(r"message number (\d+)")


def greeting(number: int) -> str:
    return f"hello there, message number {number}"


def of_user(user: int, text: str, number: int) -> dict[str, Any]:
    who = {
        "user_id": f"user-{user}",
        "username": f"user_{user}",
        "entity_id": f"twitch:channel:{user // ONE_IN % CHANNELS}",
    }
    return event(text, number) | who


def remembered_rightly(port: int, stub: int, count: int) -> int:
    """Of how many users in a sample the next prompt has their last exchanges, in order, and nobody else's."""
    right = 0
    step = max(min(count, USERS) // SAMPLE // ONE_IN, 1) * ONE_IN
    users = range(0, min(count, USERS), step)[:SAMPLE]
    for user in tqdm(users, desc="asked again"):
        text = f"hello again from {user}"
        send(port, f"{INTERACTION}", of_user(user, text, count + user))
        messages = prompt_with(stub, text)
        said = [NUMBERED.search(str(message["content"])) for message in messages if message["role"] == "user"]
        numbers = [int(found[1]) for found in said if found]
        right += numbers == list(range(user, count, USERS))[-REMEMBERED:]
    print(f"Of {len(users)} users, the next prompt has what they said last, in order and alone: {right}.")
    return right


def prompt_with(stub: int, text: str) -> list[dict[str, Any]]:
    """What the model was told when somebody said this."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for asked in get(stub, "/asked")["last"]:
            if text in json.dumps(asked["messages"][-1]):
                return list(asked["messages"])
        time.sleep(0.02)
    raise SystemExit("the model was not asked")


def batch(number: int) -> bytes:
    events = [
        of_user(n % USERS, greeting(n) if n % ONE_IN == 0 else f"that was close, I counted {n}", n)
        for n in range(number * BATCH, (number + 1) * BATCH)
    ]
    return post(f"{INTERACTION}/batch", {"events": events}, KEY)


async def run(made: Rig, count: int) -> str:
    made.keep_off(0)
    stub = made.stub(0)
    port = made.service(stub, core=0, settings={"REPLY_TTL": "3600"})  # what waits is answered in the end
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
    await asyncio.to_thread(remembered_rightly, port, stub, tenth * 10 * BATCH)
    return "\n".join([*rows, "", f"Growth after the first tenth: {max(sizes) - sizes[0]:.1f} MB."])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=EVENTS, help="events in all (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, arguments.events)))


if __name__ == "__main__":
    main()
