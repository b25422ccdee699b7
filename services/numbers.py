"""What happened by the hour, of each community and of all: replies by trigger and outcome, calls of models, how long.

Counted here and written every two seconds, so that a page reads few rows however much happened. An instance that is
killed loses what it counted since; the journal and the ledger have every row.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from services.database import Database, DatabaseUnavailable
from services.ledger import CACHED, CANNED
from services.settings import DEFAULTS
from services.tasks import Tasks

REPLIES = "replies"
CALLS = "calls"
DELIVERED = "delivered"
FLUSH_SECONDS = 2.0
HOUR = 3600
DAY = 24 * HOUR
MOST_KEPT = 50_000
MOST_MODELS = 50
MOST_LETTERS = 255
# Buckets of time: each ends a quarter above the one before, from a millisecond on.
RATIO = 1.25
FIRST_SECONDS = 0.001
LAST_BUCKET = 60

_Key = tuple[UUID, int, str, str, int]


@dataclass
class _Count:
    count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@dataclass
class Step:
    """What happened in a span that begins at `at` (seconds since 1970)."""

    at: int
    replies: dict[tuple[str, str], int] = field(default_factory=dict)  # by trigger and outcome
    calls: dict[tuple[str, str], int] = field(default_factory=dict)  # by provider/model and result
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    _times: dict[int, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share of the delivered replies was there, to within an eighth."""
        return _percentile(self._times, share)

    def add(self, what: str, name: str, bucket: int, row: Any) -> None:
        first, _, last = name.rpartition(" ")
        count = row["count"]
        if what == REPLIES:
            self.replies[first, last] = self.replies.get((first, last), 0) + count
            if last == DELIVERED:
                self._times[bucket] = self._times.get(bucket, 0) + count
            return
        self.calls[first, last] = self.calls.get((first, last), 0) + count
        if last != CACHED:
            self.prompt_tokens += row["prompt_tokens"]
            self.completion_tokens += row["completion_tokens"]
            self.cost += row["cost"]

    def merged(self, other: Step) -> Step:
        """Both together, from where this one begins."""
        whole = Step(self.at)
        for step in (self, other):
            for own, theirs in ((whole.replies, step.replies), (whole.calls, step.calls)):
                for key, count in theirs.items():
                    own[key] = own.get(key, 0) + count
            for bucket, count in step._times.items():
                whole._times[bucket] = whole._times.get(bucket, 0) + count
            whole.prompt_tokens += step.prompt_tokens
            whole.completion_tokens += step.completion_tokens
            whole.cost += step.cost
        return whole


class Numbers:
    """Counts, writes down and reads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: dict[_Key, _Count] = {}
        self._models: dict[UUID, set[str]] = {}

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self.flush, self._pause, "write down numbers")

    def note_end(self, community_id: UUID, trigger: str, state: str, seconds: float) -> None:
        """An interaction ended."""
        for whose in (community_id, DEFAULTS):
            self._at(whose, REPLIES, f"{trigger} {state}", seconds if state == DELIVERED else 0.0).count += 1

    def note_call(self, row: dict[str, Any]) -> None:
        """A call of a model ended, or was spared: as a row of the ledger."""
        if row["kind"] == CANNED:
            return
        result = CACHED if row["kind"] == CACHED else row["result"]
        for whose in {row["community_id"] or DEFAULTS, DEFAULTS}:
            counted = self._at(whose, CALLS, f"{self._model(whose, row)} {result}", 0.0)
            counted.count += 1
            counted.prompt_tokens += row["prompt_tokens"] or 0
            counted.completion_tokens += row["completion_tokens"] or 0
            counted.cost += row["cost"] or 0.0

    def _model(self, whose: UUID, row: dict[str, Any]) -> str:
        """A model's name; a server may tell any number of them."""
        if len(self._models) > MOST_KEPT:
            self._models.clear()
        known, name = self._models.setdefault(whose, set()), f"{row['provider']}/{_storable(row['model'])}"
        if name not in known and len(known) >= MOST_MODELS:
            return f"{row['provider']}/other"
        known.add(name)
        return name

    def _at(self, whose: UUID, what: str, name: str, seconds: float) -> _Count:
        key = whose, int(time.time()) // HOUR, what, name, _bucket(seconds)
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = _Count()
        return counted

    async def flush(self) -> None:
        """Write down what was counted; while PostgreSQL is away it is kept, up to a bound."""
        counted, self._counted = self._counted, {}
        if not counted:
            return
        written = False
        try:
            async with self._database.connection() as connection:
                await self._database.queries.add_numbers(connection, rows=orjson.dumps(_rows(counted), str).decode())
            written = True
        except DatabaseUnavailable:
            pass  # which others say
        finally:
            if not written:
                self._keep(counted)

    def _keep(self, counted: dict[_Key, _Count]) -> None:
        if len(counted) + len(self._counted) <= MOST_KEPT:
            for key, more in self._counted.items():
                _add(counted.setdefault(key, _Count()), more)
            self._counted = counted

    async def since(self, community_id: UUID, since: float, seconds: int) -> list[Step]:
        """What happened since a moment (seconds since 1970), in steps of so many. Raises DatabaseUnavailable."""
        first = int(since) // seconds * seconds
        about: dict[str, Any] = {"community_id": community_id, "since": datetime.fromtimestamp(first, UTC)}
        queries, steps = self._database.queries, dict[int, Step]()
        async with self._database.connection() as connection:
            if seconds == DAY:
                rows = queries.select_numbers_by_day(connection, **about)
            else:
                rows = queries.select_numbers(connection, seconds=seconds, **about)
            async for row in rows:
                step = steps.setdefault(row["step"], Step(row["step"]))
                step.add(row["what"], row["name"], row["bucket"], row)
        return [steps.get(at, Step(at)) for at in range(first, int(time.time()) + 1, seconds)]

    async def trim(self, days: int, rows: int) -> int:
        """Delete up to `rows` older than this; how many."""
        async with self._database.connection() as connection:
            return int(await self._database.queries.delete_numbers(connection, days=days, rows=rows))

    async def _pause(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)


def total(steps: Iterable[Step]) -> Step:
    """All of them together."""
    whole = Step(0)
    for step in steps:
        whole = whole.merged(step)
    return whole


def _storable(name: str) -> str:
    """A name as far as PostgreSQL can hold it."""
    return name[:MOST_LETTERS].replace("\0", "").encode("utf-8", "replace").decode()


def _bucket(seconds: float) -> int:
    """The bucket of a span of time."""
    if seconds <= FIRST_SECONDS:
        return 0
    return min(math.ceil(math.log(seconds / FIRST_SECONDS, RATIO)), LAST_BUCKET)


def _percentile(times: dict[int, int], share: float) -> float | None:
    wanted = share * sum(times.values())
    passed = 0
    for bucket in sorted(times):
        passed += times[bucket]
        if passed >= wanted:
            # The middle of the bucket, by ratio.
            return float(FIRST_SECONDS * RATIO ** (bucket - 0.5))
    return None


def _rows(counted: dict[_Key, _Count]) -> list[dict[str, Any]]:
    names = ("community_id", "hour", "what", "name", "bucket")
    return [
        dict(zip(names, key, strict=True))
        | {"hour": datetime.fromtimestamp(key[1] * HOUR, UTC).isoformat()}
        | vars(count)
        for key, count in sorted(counted.items())
    ]


def _add(count: _Count, more: _Count) -> None:
    count.count += more.count
    count.prompt_tokens += more.prompt_tokens
    count.completion_tokens += more.completion_tokens
    count.cost += more.cost
