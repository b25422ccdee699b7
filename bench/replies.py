"""Posts events at a steady rate and waits for their replies at the router's stub."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from bench.intake import INTERACTION
from bench.load import pace, post
from bench.rig import KEY, get

WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Way:
    """One event: when it was posted and when its reply came (seconds since the epoch), and the model's share."""

    posted: float
    arrived: float
    model_seconds: float

    @property
    def ms(self) -> float:
        return (self.arrived - self.posted) * 1000

    @property
    def ms_without_model(self) -> float:
        return self.ms - self.model_seconds * 1000


async def ways(port: int, stub: int, events: list[dict[str, Any]], rate: float, connections: int) -> list[Way]:
    """How long each event's reply took. Raises SystemExit where one did not come within a minute."""
    load = await pace(port, [post(INTERACTION, item, KEY) for item in events], rate, connections)
    ids = {item["event_id"] for item in events}
    replies: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + WAIT_SECONDS
    while len(replies) < len(ids):
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(ids) - len(replies)} replies did not arrive")
        await asyncio.sleep(0.5)
        replies = {reply["event"]: reply for reply in get(stub, "/seen") if reply["event"] in ids}
    came = (replies[item["event_id"]] for item in events)
    return [Way(sent, reply["at"], reply["model_seconds"]) for sent, reply in zip(load.sent_at, came, strict=True)]
