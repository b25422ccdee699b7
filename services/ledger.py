"""One row for each call of a model, with its tokens and its cost; sums of them by day."""

from __future__ import annotations

import asyncio
import csv
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from providers.base import Usage
from services.database import SQL, Database, DatabaseUnavailable
from services.ids import new_id
from services.logs import Log
from services.tasks import Tasks

PRICES = SQL / "prices.csv"
FLUSH_SECONDS = 1.0
MOST_IN_AN_INSERT = 500
MOST_WAITING = 20_000
CHAT = "chat"
EMBEDDING = "embedding"
CANNED = "canned"
CACHED = "cached"


@dataclass(frozen=True)
class Account:
    """For whom a call is made."""

    community_id: UUID | None = None
    interaction_id: UUID | None = None


NOBODY = Account()
UNCOUNTED = Usage()


@dataclass(frozen=True)
class Call:
    """A call of a model that ended; `result` is `ok`, `cancelled` or the error's reason, times are in seconds."""

    provider: str
    model: str
    result: str
    seconds: float
    usage: Usage = UNCOUNTED
    kind: str = CHAT
    first_token: float | None = None
    account: Account = NOBODY
    call_id: UUID = field(default_factory=new_id)
    called_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    asked: str = ""  # the model that was asked for, where the provider calls it otherwise
    own: bool = False  # by an address or a key of a community's own

    @property
    def asks_a_model(self) -> bool:
        """Whether it is a call at all, and nothing that took the place of one."""
        return self.kind in {CHAT, EMBEDDING}


@dataclass(frozen=True)
class Spent:
    """What was spent in a day: tokens of prompts and replies, US dollars, and canned replies in a model's place."""

    tokens: int = 0
    cost: float = 0.0
    canned: int = 0

    def plus(self, row: dict[str, Any]) -> Spent:
        """With one more row of the ledger; what was saved is not spent."""
        if row["kind"] == CACHED:
            return self
        tokens = (row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0)
        return Spent(self.tokens + tokens, self.cost + (row["cost"] or 0), self.canned + (row["kind"] == CANNED))


@dataclass(frozen=True)
class SpentBy:
    """What a community has spent today: tokens, and US dollars."""

    community_id: UUID
    tokens: int
    cost: float


class Ledger:
    """Calls are written down within a second, and when PostgreSQL is away as soon as it is back."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log
        self._prices = _read_prices()
        self._prices_read = _version()
        self._waiting: deque[dict[str, Any]] = deque()
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.hearers: list[Callable[[Call, float | None], None]] = []  # of calls and what each cost
        self._flushing = asyncio.Lock()

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self._step, _pause, "write the ledger")

    def note(self, call: Call) -> None:
        """Write a call down soon."""
        row = self._row(call)
        self.tell(call, row["cost"])
        if len(self._waiting) >= MOST_WAITING:
            self._log.error("ledger.full", "PostgreSQL is away for too long: a call is not written down")
            return
        self._waiting.append(row)
        for listener in self.listeners:
            listener(row)

    def tell(self, call: Call, cost: float | None = None) -> None:
        """Tell of a call; one that was not made, because its provider keeps failing, is told and not written down."""
        for hear in self.hearers:
            hear(call, cost)

    def note_canned(self, account: Account) -> None:
        """A canned text took the place of a model's, for want of a budget."""
        self.note(Call("sidecast", CANNED, "ok", 0.0, Usage(0, 0), kind=CANNED, account=account))

    def note_cached(self, account: Account, provider: str, model: str, usage: Usage) -> None:
        """An answer that was kept took the place of a call, which would have used so much."""
        self.note(Call(provider, model, "ok", 0.0, usage, kind=CACHED, account=account))

    async def _step(self) -> None:
        self.refresh_prices()
        await self.flush()

    def refresh_prices(self) -> None:
        """Read the prices again where an admin has changed them; those that cannot be read change nothing."""
        try:
            version = _version()
            if version == self._prices_read:
                return
            self._prices_read = version
            self._prices = _read_prices()
        except (OSError, ValueError) as error:
            self._log.error("ledger.prices", f"the prices stay as they were: {error}", result="ERROR")

    async def flush(self) -> None:
        """Write down what waits; what cannot be written waits on."""
        async with self._flushing:
            while self._waiting:
                rows = list(itertools.islice(self._waiting, MOST_IN_AN_INSERT))
                try:
                    await self._write(rows)
                except DatabaseUnavailable:
                    return
                for _ in rows:
                    self._waiting.popleft()

    async def _write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows down; one that PostgreSQL cannot hold is given up, and told. Raises DatabaseUnavailable."""
        try:
            async with self._database.connection() as connection:
                await self._database.queries.insert_calls(connection, calls=orjson.dumps(rows, str).decode())
        except (asyncpg.DataError, TypeError):
            if len(rows) == 1:
                about = {"provider": rows[0]["provider"], "call": str(rows[0]["call_id"])}
                self._log.error("ledger.row", "a call cannot be written down and is not counted", **about)
                return
            for row in rows:
                await self._write([row])

    async def spent(self, community_id: UUID, since: datetime) -> Spent:
        """What a community has spent since a moment, what is not written down yet included.

        Raises DatabaseUnavailable.
        """
        waiting = [row for row in self._waiting if row["community_id"] == community_id and row["called_at"] >= since]
        later: list[dict[str, Any]] = []
        self.listeners.append(later.append)
        try:
            # What waits now may be written down meanwhile: it is counted here, and not there.
            about = {"community_id": community_id, "since": since, "but": [row["call_id"] for row in waiting]}
            async with self._database.connection() as connection:
                row = await self._database.queries.select_spent(connection, **about)
        finally:
            self.listeners.remove(later.append)
        spent = Spent(**dict(row))
        for noted in [*waiting, *(row for row in later if row["community_id"] == community_id)]:
            spent = spent.plus(noted)
        return spent

    async def spent_today(self, most: int) -> list[SpentBy]:
        """What communities have spent since midnight (UTC), those that have spent most. Raises DatabaseUnavailable."""
        since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._database.connection() as connection:
            rows = self._database.queries.select_spent_by_community(connection, since=since, rows=most)
            return [SpentBy(**dict(row)) async for row in rows]

    def has_price(self, provider: str, model: str) -> bool:
        """Whether it is known what a model costs."""
        return self._price(provider, model) is not None

    async def usage(self, community_id: UUID | None, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Sums by day, provider and model, of one community or of all. Raises DatabaseUnavailable."""
        await self.flush()
        async with self._database.connection() as connection:
            rows = self._database.queries.select_usage(connection, community_id=community_id, since=since, until=until)
            return [dict(row) | {"day": row["day"].isoformat()} async for row in rows]

    def _row(self, call: Call) -> dict[str, Any]:
        prompt, completion = call.usage.prompt_tokens, call.usage.completion_tokens
        return {
            "call_id": call.call_id,
            "called_at": call.called_at,
            "community_id": call.account.community_id,
            "interaction_id": call.account.interaction_id,
            "kind": call.kind,
            "provider": call.provider,
            "model": call.model,
            "result": call.result,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "estimated": call.usage.estimated,
            "latency_ms": call.seconds * 1000,
            "first_token_ms": None if call.first_token is None else call.first_token * 1000,
            "cost": self._cost(call, prompt or 0, completion or 0),
        }

    def _cost(self, call: Call, prompt: int, completion: int) -> float | None:
        """US dollars, or None where the price is not known."""
        if call.kind == CANNED:
            return 0.0
        prices = self._price(call.provider, call.model) or self._price(call.provider, call.asked)
        return (prompt * prices[0] + completion * prices[1]) / 1e6 if prices else None

    def _price(self, provider: str, model: str) -> tuple[float, float] | None:
        return self._prices.get((provider, model)) or self._prices.get((provider, "*"))


def _version() -> tuple[int, int]:
    """What changes when the file of prices does. Raises OSError."""
    about = PRICES.stat()
    return about.st_mtime_ns, about.st_size


def _read_prices() -> dict[tuple[str, str], tuple[float, float]]:
    """US dollars a million tokens, of the prompt and of the reply, by provider and model; `*` is any model.

    Raises OSError, or ValueError that names the line.
    """
    prices = {}
    with PRICES.open(newline="") as file:
        rows = csv.DictReader(file)
        for row in rows:
            try:
                prices[row["provider"], row["model"]] = float(row["prompt"]), float(row["completion"])
            except (KeyError, TypeError, ValueError):
                columns = "provider, model, prompt and completion"
                raise ValueError(f"{PRICES.name}, line {rows.line_num}: must have {columns}") from None
    return prices


async def _pause() -> None:
    await asyncio.sleep(FLUSH_SECONDS)
