"""The instances there are: each gives a sign of life, and says up to when it has heard of every change."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from services.changes import Changes
from services.database import Database, DatabaseUnavailable
from services.tasks import Tasks

SIGN_SECONDS = 2.0
ALIVE_SECONDS = 10.0
GONE_SECONDS = 3600.0


@dataclass(frozen=True)
class Instance:
    """One process of the service; `state` is what it says of itself."""

    instance_id: UUID
    name: str
    version: str
    started_at: datetime
    seen_at: datetime
    heard_at: datetime | None
    state: dict[str, Any]


class Instances:
    """Gives this instance's signs of life and reads those of all."""

    def __init__(
        self, database: Database, changes: Changes, instance_id: UUID, version: str, tell: Callable[[], dict[str, Any]]
    ) -> None:
        self._database = database
        self._changes = changes
        self._instance_id = instance_id
        self._version = version
        self._tell = tell
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._started = datetime.now(UTC)

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self.sign, self._pause, "give a sign of life")

    async def alive(self) -> list[Instance]:
        """Those that gave a sign of life in the last 10 s. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            rows = self._database.queries.select_instances(connection, seconds=ALIVE_SECONDS)
            return [Instance(**dict(row) | {"state": orjson.loads(row["state"])}) async for row in rows]

    async def moment(self) -> datetime:
        """What time it is for the database. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            moment: datetime = await self._database.queries.select_moment(connection)
            return moment

    async def sign(self) -> None:
        """Give a sign of life."""
        about = {"instance_id": self._instance_id, "name": self._name, "version": self._version}
        about |= {"started_at": self._started, "heard_at": self._changes.heard_at}
        try:
            async with self._database.connection() as connection:
                state = orjson.dumps(self._tell(), str).decode()
                await self._database.queries.upsert_instance(connection, **about, state=state)
        except DatabaseUnavailable:
            pass  # which others say; the next sign comes when it is back

    async def close(self) -> None:
        """Say that this instance is gone."""
        try:
            async with self._database.connection() as connection:
                about = {"instance_id": self._instance_id, "seconds": GONE_SECONDS}
                await self._database.queries.delete_instance(connection, **about)
        except DatabaseUnavailable:
            pass  # it is taken for gone soon

    async def _pause(self) -> None:
        await asyncio.sleep(SIGN_SECONDS)
