"""What a community's co-host does and did: what is under way, what ended, and all that is known of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.communities import Community
from services.database import Database
from services.history import History, Wanted
from services.interactions import Interactions, Outcome

# A row of the ledger is written within a second or so of its interaction's end.
LATE = timedelta(minutes=5)
MOST_OPEN = 500


@dataclass(frozen=True)
class Call:
    """A call of a model that an interaction made; times in ms, costs in US dollars."""

    called_at: datetime
    kind: str
    provider: str
    model: str
    result: str
    prompt_tokens: int | None
    completion_tokens: int | None
    estimated: bool
    latency_ms: float
    first_token_ms: float | None
    cost: float | None


class Activity:
    """All raise DatabaseUnavailable."""

    def __init__(self, database: Database, interactions: Interactions, history: History) -> None:
        self._database = database
        self._interactions = interactions
        self._history = history

    async def under_way(self, community: Community, wanted: Wanted, rows: int) -> list[dict[str, Any]]:
        """Up to `rows` interactions that have not ended, the newest first, of the newest `MOST_OPEN`."""
        about = {"community_id": community.community_id, "rows": MOST_OPEN}
        async with self._database.connection() as connection:
            found = [dict(row) async for row in self._database.queries.select_open(connection, **about)]
        return [await self._interactions.told(row) for row in found if _is_wanted(row, wanted)][:rows]

    async def ended(self, community: Community, wanted: Wanted, rows: int) -> tuple[list[dict[str, Any]], str | None]:
        """As `History.page`. Raises BadCursor."""
        return await self._history.page(community, wanted, rows)

    async def one(self, community: Community, interaction_id: UUID) -> Outcome | None:
        """An interaction of a community that the journal still has."""
        outcome = await self._interactions.select(interaction_id)
        return outcome if outcome is not None and outcome.community_id == community.community_id else None

    async def calls(self, outcome: Outcome) -> list[Call]:
        """The calls of models that an interaction made, in order."""
        since = datetime.fromtimestamp(outcome.received_at, UTC)
        until = since + timedelta(milliseconds=outcome.timings.get("total", 0)) + LATE
        about = {"community_id": outcome.community_id, "interaction_id": outcome.interaction_id}
        async with self._database.connection() as connection:
            rows = self._database.queries.select_calls(connection, since=since - LATE, until=until, **about)
            return [Call(**dict(row)) async for row in rows]


def _is_wanted(row: dict[str, Any], wanted: Wanted) -> bool:
    asked = {name: getattr(wanted, name) for name in ("platform", "user_id", "entity_id", "state", "trigger_type")}
    return wanted.cursor is None and all(value is None or row[name] == value for name, value in asked.items())
