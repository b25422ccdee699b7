"""How many calls of a model are spared by answers that were given before, and how soon such an answer is there.

    python -m bench.answers CHAT

The questions of CHAT, a log of chat in JSON lines (gzip or not), asked 10,000 times by as many users, the common ones
far more often than the rare ones (Zipf, exponent 1), of a service whose model is a stub that takes 200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx
import uvloop
from tqdm import tqdm

from bench.client import API, percentile, table
from bench.intake import event
from bench.rig import KEY, Rig, get, rig
from bench.triggers import default_rules
from bench.triggers import event as chat_event
from services.answer_cache import LONGEST

TIMES = 10_000
QUESTIONS = 500
AT_ONCE = 4
MODEL_SECONDS = 0.2
CHANNEL = "twitch:channel:answers"


def questions(chat: Path) -> list[str]:
    """Different ones, by the rules, in the order of the log."""
    rules = default_rules()
    opened: Any = gzip.open if chat.suffix == ".gz" else open
    found: dict[str, None] = {}
    with opened(chat, "rt", encoding="utf-8") as file:
        for row, posted in enumerate(map(json.loads, file)):
            trigger = rules.match(chat_event(row, posted))
            if trigger and trigger.type == "question" and len(posted["message"]) <= LONGEST:
                found[posted["message"]] = None
    return list(found)


async def ask(client: httpx.AsyncClient, number: int, text: str) -> dict[str, Any]:
    """What became of a question of a user who asks this once."""
    who = {"user_id": f"asker-{number}", "username": f"asker_{number}", "entity_id": CHANNEL}
    ack = (await client.post(f"{API}/interaction", json=event(text, number) | who)).raise_for_status().json()["data"]
    path = f"{API}/interaction/{ack['interaction_id']}"
    while True:
        outcome: dict[str, Any] = (await client.get(path)).raise_for_status().json()["data"]
        if outcome["state"] in {"delivered", "suppressed", "expired", "failed", "undeliverable"}:
            return outcome
        await asyncio.sleep(0.02)


async def run(made: Rig, texts: list[str], times: int) -> str:
    stub = made.stub(MODEL_SECONDS)
    port = made.service(stub, settings={"MAX_CONCURRENT_REQUESTS": "50"})
    chance = random.Random(1)
    chance.shuffle(texts)
    weights = list(accumulate(1 / rank for rank in range(1, len(texts) + 1)))
    asked = chance.choices(texts, cum_weights=weights, k=times)
    outcomes: list[dict[str, Any]] = []
    numbered = iter(enumerate(asked))
    base, headers = f"http://127.0.0.1:{port}", {"X-API-Key": KEY}
    began = time.perf_counter()
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
        with tqdm(total=times, desc="asked") as bar:

            async def askers() -> None:
                for number, text in numbered:
                    outcomes.append(await ask(client, number, text))
                    bar.update()

            await asyncio.gather(*(askers() for _ in range(AT_ONCE)))
    seconds = time.perf_counter() - began
    calls = get(stub, "/asked")["count"]
    repeats = times - len(set(asked))
    hits = [outcome["timings"]["cached"] for outcome in outcomes if "cached" in outcome["timings"]]
    states = Counter(outcome["state"] for outcome in outcomes)
    spared = times - calls
    return table(
        [
            ("questions asked / different ones", f"{times} / {len(set(asked))}"),
            ("delivered", str(states["delivered"])),
            ("calls of the model", f"{calls} ({calls / times:.0%})"),
            ("of the repeats spared a call", f"{spared / max(repeats, 1):.0%}"),
            ("answered from what was kept", str(len(hits))),
            ("found after, p50 / p99 ms", f"{percentile(hits, 0.5):.1f} / {percentile(hits, 0.99):.1f}"),
            ("questions/s", f"{times / seconds:.0f}"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.answers", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("chat", type=Path, help="a log of chat")
    parser.add_argument("--times", type=int, default=TIMES, help="questions asked in all (%(default)s)")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="different ones at most (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        print(uvloop.run(run(made, questions(arguments.chat)[: arguments.questions], arguments.times)))


if __name__ == "__main__":
    main()
