"""What one instance changes, every other hears of within a second, by PostgreSQL's LISTEN and NOTIFY.

While the connection for that is broken, everything counts as changed once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.bus import Bus
from services.database import Database, DatabaseUnavailable
from services.tasks import Tasks

if TYPE_CHECKING:
    import asyncpg

    from services.database import Connection

CHANNEL = "sidecast_changes"
PING_SECONDS = 1.0
EVERYTHING = ""


class Change:
    """What is changed in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.told: list[str] = []
        self.happened: list[tuple[str, UUID | None, dict[str, Any]]] = []

    def happen(self, event: str, community_id: UUID | None, data: dict[str, Any]) -> None:
        """Tell other services when this is committed."""
        self.happened.append((event, community_id, data))

    async def tell(self, what: str) -> None:
        """Tell every instance when this is committed."""
        self.told.append(what)
        await self.connection.execute("select pg_notify($1, $2)", CHANNEL, what)


class Changes:
    """Tells its listeners what changed: a text of theirs, or `EVERYTHING`."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self.listeners: list[Callable[[str], None]] = []
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.heard_at: datetime | None = None  # by the database's clock: everything until then was heard
        self.moment = 0  # goes up with each change, so that what was read before it is known to be old

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Change]:
        """A transaction; what is told in it is heard when it is committed, here at once. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection, connection.transaction():
            change = Change(connection)
            yield change
        for what in change.told:
            self._hear(what)
        for event, community_id, data in change.happened:
            self._bus.tell(event, community_id, data)

    async def open(self, tasks: Tasks) -> None:
        await self._look()
        tasks.repeat(self._look, self._pause, "listen for changes")

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _look(self) -> None:
        """Listen, or see whether the connection for that still lives."""
        try:
            if self._connection is None:
                self._connection = await self._database.listen(CHANNEL, self._hear)
                self._hear(EVERYTHING)
            else:
                with self._database.errors():
                    # What was told before comes before the answer.
                    self.heard_at = await self._connection.fetchval("select clock_timestamp()", timeout=PING_SECONDS)
        except DatabaseUnavailable:
            await self.close()
            self._hear(EVERYTHING)

    async def _pause(self) -> None:
        await asyncio.sleep(PING_SECONDS)

    def _hear(self, what: str) -> None:
        self.moment += 1
        for listener in self.listeners:
            listener(what)
