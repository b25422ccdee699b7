"""What was said and became of it: of the journal, and of what outlives it; as pages, and as lines of JSON to carry."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from services.communities import Community
from services.contents import Contents
from services.database import Database
from services.events import CHAT, Kind, Name, Platform
from services.ids import new_id
from services.interactions import Interactions

PAGE_ROWS = 500
FIRST = UUID(int=0)
MAX_REPLY = 10_000

Short = Annotated[str, StringConstraints(max_length=255)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class BadCursor(Exception):
    """It is none that a page gave."""


@dataclass(frozen=True)
class Wanted:
    """Which interactions: those that ended before a moment, or after a page's `cursor`, and all of these."""

    before: datetime | None = None
    since: datetime | None = None
    platform: str | None = None
    user_id: str | None = None
    entity_id: str | None = None
    state: str | None = None
    trigger_type: str | None = None
    cursor: str | None = None


class Line(BaseModel):
    """An interaction as the history tells it; what is not needed to take it in again may be missing."""

    model_config = ConfigDict(extra="ignore")

    class _Trigger(BaseModel):
        type: Short = "mention"
        match: Annotated[str, StringConstraints(max_length=500)] = ""

    interaction_id: UUID = Field(default_factory=new_id)
    entity_id: Name
    platform: Platform
    user_id: Name
    message_type: Kind = CHAT
    trigger: _Trigger = _Trigger()
    state: Short = "delivered"
    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None
    fallback: bool = False
    provider: Short | None = None
    model: Short | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    attempts: Count = 1
    received_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    message: Annotated[str, StringConstraints(max_length=MAX_REPLY)] | None = None
    reply: Annotated[str, StringConstraints(max_length=MAX_REPLY)] | None = None


class History:
    """All raise DatabaseUnavailable."""

    def __init__(self, database: Database, interactions: Interactions, contents: Contents) -> None:
        self._database = database
        self._interactions = interactions
        self._contents = contents

    async def page(self, community: Community, wanted: Wanted, rows: int) -> tuple[list[dict[str, Any]], str | None]:
        """Up to `rows` interactions, those that ended last first, and the cursor of the next page, if there may be one.

        Raises BadCursor.
        """
        before, before_id = _read_cursor(wanted.cursor) if wanted.cursor else (wanted.before, FIRST)
        about = {
            "community_id": community.community_id,
            "before": before,
            "before_id": before_id,
            "since": wanted.since,
            "platform": wanted.platform,
            "entity_id": wanted.entity_id,
            "state": wanted.state,
            "trigger_type": wanted.trigger_type,
            "rows": rows,
        }
        queries = self._database.queries
        async with self._database.connection() as connection:
            if wanted.user_id is None:
                selected = queries.select_history(connection, **about)
            else:
                selected = queries.select_history_of_user(connection, user_id=wanted.user_id, **about)
            found = [dict(row) async for row in selected]
        following = _cursor(found[-1]) if len(found) == rows else None
        return [await self._told(row, community) for row in found], following

    async def export(self, community: Community) -> AsyncIterator[bytes]:
        """The whole history, an interaction a line."""
        cursor: str | None = None
        while True:
            found, cursor = await self.page(community, Wanted(cursor=cursor), PAGE_ROWS)
            for row in found:
                if row["user_id"]:  # and not of one who was forgotten
                    yield orjson.dumps(row) + b"\n"
            if cursor is None:
                return

    async def of_person(
        self, platform: str, user_id: str, communities: Callable[[UUID], Awaitable[Community | None]]
    ) -> list[tuple[UUID, dict[str, Any]]]:
        """What the journal has no longer of a person, in all communities, the last first: whose it is, and what."""
        about = {"platform": platform, "user_id": user_id, "community_id": None}
        async with self._database.connection() as connection:
            rows = [dict(row) async for row in self._database.queries.select_archived_of_user(connection, **about)]
        told = []
        for row in rows:
            community = await communities(row["community_id"])
            if community is not None:
                told.append((row["community_id"], await self._told(row, community)))
        return told

    async def take(self, community: Community, lines: list[Line], note: Callable[[int], None]) -> int:
        """Take interactions in; how many were new. Texts are kept where the community keeps them."""
        new = 0
        for begin in range(0, len(lines), PAGE_ROWS):
            rows = [self._row(line, community) for line in lines[begin : begin + PAGE_ROWS]]
            about = {"community_id": community.community_id, "rows": orjson.dumps(rows, str).decode()}
            async with self._database.connection() as connection:
                new += int(await self._database.queries.import_history(connection, **about))
            note(len(rows))
        return new

    def _row(self, line: Line, community: Community) -> dict[str, Any]:
        row = line.model_dump(mode="json", exclude={"trigger", "message", "reply"})
        row |= {"trigger_type": line.trigger.type, "trigger_match": line.trigger.match}
        row["ended_at"] = row["ended_at"] or row["received_at"]
        row |= {"timings": {}, "sealed_message": None, "sealed_reply": None}
        if community.settings.store_content:
            row["sealed_message"] = self._contents.seal_alone(line.interaction_id, "message", line.message)
            row["sealed_reply"] = self._contents.seal_alone(line.interaction_id, "reply", line.reply)
        # What PostgreSQL's texts cannot hold.
        return {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in row.items()}

    async def _told(self, row: dict[str, Any], community: Community) -> dict[str, Any]:
        sealed = {"message": row.pop("sealed_message"), "reply": row.pop("sealed_reply")}
        row_id, ended_at = row["interaction_id"], row["ended_at"]
        told = await self._interactions.told(row)
        del told["community_id"]
        for part, text in sealed.items():
            if text:
                told[part] = self._contents.read_alone(row_id, part, community.settings, ended_at, text)
        return told

    async def trim(self, days: float, rows: int) -> int:
        """Delete up to `rows` exchanges over `days` old, and conversations that are empty then; how many."""
        queries = self._database.queries
        async with self._database.connection() as connection, connection.transaction():
            gone = [row async for row in queries.delete_history(connection, days=days, rows=rows)]
            ids = list({row["conversation_id"] for row in gone})
            await queries.lock_conversations(connection, ids=ids)
            await queries.delete_empty_conversations(connection, ids=ids)
        return sum(row["whole"] for row in gone)

    async def keeping(self) -> list[UUID]:
        """Communities that have imported texts."""
        async with self._database.connection() as connection:
            return [row["community_id"] async for row in self._database.queries.select_keeping_messages(connection)]

    async def erase_kept(self, community_id: UUID, days: int, rows: int) -> int:
        """Erase up to `rows` imported texts of a community that are over `days` old; how many."""
        about = {"community_id": community_id, "days": days, "rows": rows}
        async with self._database.connection() as connection:
            return int(await self._database.queries.erase_kept_messages(connection, **about))


def _cursor(row: dict[str, Any]) -> str:
    text = f"{row['ended_at'].isoformat()} {row['interaction_id']}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, interaction_id = text.rpartition(" ")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC), UUID(interaction_id)
    except (ValueError, OverflowError, binascii.Error):
        raise BadCursor from None
