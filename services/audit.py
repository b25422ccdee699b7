"""Who changed what, and when: rows that are only added, each chained by hash to the one before.

A row that was changed or taken out breaks the chain, which `audit verify` on the command line finds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from services.database import Database

if TYPE_CHECKING:
    from services.database import Connection

FIRST = b""
PAGE_ROWS = 1_000


@dataclass(frozen=True)
class Entry:
    """A change: by whom, to what; `details` never hold a secret or a text of chat."""

    number: int
    at: str
    actor: str
    action: str
    community_id: UUID | None
    details: dict[str, Any]


class BrokenChain(Exception):
    """A row is not what it was when it was written, or one is missing; the text names it."""


class Audit:
    """The chain. All raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def note(
        self, connection: Connection, actor: str, action: str, community_id: UUID | None, details: dict[str, Any]
    ) -> None:
        """Add a change, which is committed with the transaction of this connection."""
        await self._queries.lock_audit(connection)
        last = await self._queries.select_last_audit(connection)
        number, before = (last["number"] + 1, last["hash"]) if last else (1, FIRST)
        row = {
            "number": number,
            "at": datetime.now(UTC).isoformat(),
            "actor": actor,
            "action": action,
            "community_id": community_id,
            "details": orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode(),
        }
        await self._queries.insert_audit(connection, **row, hash=_link(before, row))

    async def entries(self, community_id: UUID | None, before: int, rows: int) -> list[Entry]:
        """Up to `rows` changes older than number `before`, the newest first, of one community or of all."""
        page = {"before": before, "rows": rows}
        async with self._database.connection() as connection:
            if community_id is None:
                entries = self._queries.select_audit(connection, **page)
            else:
                entries = self._queries.select_audit_of(connection, community_id=community_id, **page)
            found = [dict(row) async for row in entries]
        return [Entry(**row | {"details": orjson.loads(row["details"])}) for row in found]

    async def verify(self) -> int:
        """Follow the chain from its beginning; how many changes it has. Raises BrokenChain."""
        number, before = 0, FIRST
        while True:
            async with self._database.connection() as connection:
                rows = [dict(row) async for row in self._queries.select_chain(connection, after=number, rows=PAGE_ROWS)]
            for row in rows:
                kept = row.pop("hash")
                if row["number"] != number + 1:
                    raise BrokenChain(f"after number {number} comes {row['number']}: a change is missing")
                if _link(before, row) != kept:
                    raise BrokenChain(f"number {row['number']} ({row['at']}) is not what was written")
                number, before = row["number"], kept
            if len(rows) < PAGE_ROWS:
                return number


def _link(before: bytes, row: dict[str, Any]) -> bytes:
    text = orjson.dumps(
        [str(row[name] or "") for name in ("number", "at", "actor", "action", "community_id", "details")]
    )
    return hashlib.sha256(before + text).digest()
