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
    """Finds the communities of channels; the 10,000 used last are kept in memory."""

    def __init__(self, database: Database, auto_register: bool) -> None:
        self._database = database
        self._auto_register = auto_register
        self._known: OrderedDict[str, Community] = OrderedDict()

    async def of(self, events: list[ChatEvent]) -> dict[str, Community]:
        """The communities of the events' channels, made on first sight; a channel that has none is left out.

        Raises DatabaseUnavailable.
        """
        platforms = {event.entity_id: event.platform for event in events}
        unknown = platforms.keys() - self._known.keys()
        found = {entity: self._known[entity] for entity in platforms.keys() - unknown}
        for entity in found:
            self._known.move_to_end(entity)
        if unknown:
            async with self._database.connection() as connection:
                fresh = await self._find(connection, {entity: platforms[entity] for entity in sorted(unknown)})
            found |= fresh
            self._keep(fresh)
        return found

    def _keep(self, communities: dict[str, Community]) -> None:
        self._known.update(communities)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _find(self, connection: Connection, platforms: dict[str, str]) -> dict[str, Community]:
        found = await self._select(connection, list(platforms))
        missing = [entity for entity in platforms if entity not in found]
        if missing and self._auto_register:
            await self._database.queries.insert_entities(
                connection,
                community_ids=[new_id() for _ in missing],
                entity_ids=missing,
                platforms=[platforms[entity] for entity in missing],
            )
            found |= await self._select(connection, missing)
        return found

    async def _select(self, connection: Connection, entity_ids: list[str]) -> dict[str, Community]:
        rows = self._database.queries.select_entities(connection, entity_ids=entity_ids)
        return {row["entity_id"]: Community(row["community_id"], row["name"]) async for row in rows}
