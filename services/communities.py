"""Communities and the channels (`entity_id`) that belong to them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from services.database import Database
from services.events import ChatEvent
from services.ids import new_id

if TYPE_CHECKING:
    from services.database import Connection

MAX_REMEMBERED = 10_000


class UnknownEntity(Exception):
    """The channel belongs to no community, and none is made for it (`AUTO_REGISTER` is off)."""


@dataclass(frozen=True)
class Community:
    community_id: UUID
    name: str


class Communities:
    """Finds the community of a channel; the 10,000 used last are kept in memory."""

    def __init__(self, database: Database, auto_register: bool) -> None:
        self._database = database
        self._auto_register = auto_register
        self._known: OrderedDict[str, Community] = OrderedDict()

    async def of(self, event: ChatEvent) -> Community:
        """The community of the event's channel, made on first sight. Raises UnknownEntity, DatabaseUnavailable."""
        community = self._known.get(event.entity_id)
        if community is None:
            async with self._database.connection() as connection:
                community = await self._find(connection, event)
            self._known[event.entity_id] = community
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(event.entity_id)
        return community

    async def _find(self, connection: Connection, event: ChatEvent) -> Community:
        queries = self._database.queries
        row = await queries.select_entity(connection, entity_id=event.entity_id)
        if row is None:
            if not self._auto_register:
                raise UnknownEntity(event.entity_id)
            fresh = new_id()
            row = await queries.insert_entity(
                connection, community_id=fresh, entity_id=event.entity_id, platform=event.platform
            )
            if row is None:
                await queries.delete_community(connection, community_id=fresh)
                row = await queries.select_entity(connection, entity_id=event.entity_id)
        return Community(row["community_id"], row["name"])
