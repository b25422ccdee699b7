"""Communities, the channels (`entity_id`) that belong to them, and the settings they go by.

What is known is kept in memory until `Changes` says that it is no longer so.
"""

from __future__ import annotations

import functools
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.audit import Audit
from services.bus import COMMUNITY_MADE
from services.changes import EVERYTHING, Change, Changes
from services.database import Database
from services.events import ChatEvent
from services.ids import new_id
from services.settings import DEFAULTS, CommunitySettings, in_hours, resolve
from services.triggers import Triggers

if TYPE_CHECKING:
    from services.database import Connection

MAX_REMEMBERED = 10_000
# The kinds of changes that are told, each before a colon and a name.
ENTITY = "entity"
COMMUNITY = "community"


class UnknownEntity(Exception):
    """The channel belongs to no community, and none is made for it (`AUTO_REGISTER` is off)."""


@dataclass(frozen=True)
class Community:
    """A community as it is now; `version` counts the changes of its own settings."""

    community_id: UUID
    name: str
    version: int
    settings: CommunitySettings
    triggers: Triggers
    sealed_key: str | None = None

    def speaks(self, *, live: bool | None) -> bool:
        """Whether it answers now, where its channel is `live`, not live, or has not said."""
        settings = self.settings
        if not settings.enabled or (settings.only_live and not live):
            return False
        if not settings.quiet_hours and not settings.quiet_until:
            return True
        now = time.time()
        return now >= settings.quiet_until and not in_hours(settings.quiet_hours, settings.timezone, now)


@dataclass(frozen=True)
class Listed:
    """A community as it may be listed, with the names of its channels."""

    community_id: UUID
    name: str
    created_at: datetime
    entities: list[str]


@dataclass(frozen=True)
class Entity:
    """A channel: whose it is, and whether it is live as far as it has said."""

    community_id: UUID
    live: bool | None = None


class Communities:
    """Finds the communities of channels; the 10,000 of each used last are kept in memory."""

    def __init__(
        self, database: Database, changes: Changes, audit: Audit, inherited: Mapping[str, Any], *, auto_register: bool
    ) -> None:
        self._database = database
        self._audit = audit
        self._changes = changes
        self.inherited = inherited
        self._auto_register = auto_register
        self._entities: OrderedDict[str, Entity] = OrderedDict()
        self._known: OrderedDict[UUID, Community] = OrderedDict()
        self._defaults: dict[str, Any] | None = None
        changes.listeners.append(self._forget)

    async def of(self, events: list[ChatEvent]) -> dict[str, Community]:
        """The communities of the events' channels, made on first sight; a channel that has none is left out.

        Raises DatabaseUnavailable.
        """
        found: dict[str, Community] = {}
        unknown: dict[str, str] = {}
        for event in events:
            entity = self._entities.get(event.entity_id)
            community = self._known.get(entity.community_id) if entity else None
            if community is None:
                unknown[event.entity_id] = event.platform
            else:
                found[event.entity_id] = community
        if unknown:
            found |= await self._load(unknown)
        return found

    def is_live(self, entity_id: str) -> bool | None:
        """Whether a channel that was just asked for is live; None where it has not said."""
        entity = self._entities.get(entity_id)
        return entity.live if entity else None

    async def id_of(self, entity_id: str) -> UUID | None:
        """The community of a channel, if it has one. Raises DatabaseUnavailable."""
        known = self._entities.get(entity_id)
        if known is not None:
            return known.community_id
        async with self._database.connection() as connection:
            row = (await self._select(connection, [entity_id])).get(entity_id)
        return row["community_id"] if row else None

    async def get(self, community_id: UUID) -> Community | None:
        """A community. Raises DatabaseUnavailable."""
        known = self._known.get(community_id)
        if known is not None:
            return known
        moment = self._changes.moment
        async with self._database.connection() as connection:
            defaults = await self._load_defaults(connection)
            row = await self._database.queries.select_community(connection, community_id=community_id)
        return self._take(row, defaults, moment) if row else None

    async def of_all(self) -> Community:
        """A community that has set nothing for itself. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            defaults = await self._load_defaults(connection)
        values = json.dumps(resolve(self.inherited, defaults), sort_keys=True)
        return Community(DEFAULTS, "all", 0, *_compiled(values))

    async def page(self, community_id: UUID | None, after: UUID, rows: int) -> list[Listed]:
        """Up to `rows` communities by id from `after` on, or the one. Raises DatabaseUnavailable."""
        page = {"community_id": community_id, "after": after, "rows": rows}
        async with self._database.connection() as connection:
            return [Listed(**dict(row)) async for row in self._database.queries.select_communities(connection, **page)]

    async def search(self, begins: str, rows: int) -> list[Listed]:
        """Up to `rows` communities by the beginning of the name or of a channel. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            found = self._database.queries.search_communities(connection, begins=begins, rows=rows)
            return [Listed(**dict(row)) async for row in found]

    async def make(self, name: str, entities: list[str], actor: str, community_id: UUID | None = None) -> Listed:
        """A new community with these channels, by an id that is given or a new one. Raises DatabaseUnavailable."""
        community_id = community_id or new_id()
        async with self._changes.transaction() as change:
            connection = change.connection
            await self._database.queries.insert_community(connection, community_id=community_id, name=name)
            await self._audit.note(connection, actor, "community.made", community_id, {"name": name})
            await self._move(change, community_id, entities, actor)
            change.happen(COMMUNITY_MADE, community_id, {"name": name, "entities": entities})
        [made] = await self.page(community_id, DEFAULTS, 1)
        return made

    async def change(self, community_id: UUID, name: str | None, entities: list[str], actor: str) -> Listed | None:
        """Name a community, or move channels to it; None where there is none. Raises DatabaseUnavailable."""
        async with self._changes.transaction() as change:
            connection = change.connection
            before = await self._database.queries.select_community(connection, community_id=community_id)
            if before is None:
                return None
            if name is not None:
                await self._database.queries.rename_community(connection, community_id=community_id, name=name)
                details = {"name": {"from": before["name"], "to": name}}
                await self._audit.note(connection, actor, "community.named", community_id, details)
                await change.tell(f"{COMMUNITY}:{community_id}")
            await self._move(change, community_id, entities, actor)
        [changed] = await self.page(community_id, DEFAULTS, 1)
        return changed

    async def _move(self, change: Change, community_id: UUID, entities: list[str], actor: str) -> None:
        connection = change.connection
        for entity_id in sorted(set(entities)):
            row = {"entity_id": entity_id, "community_id": community_id, "platform": entity_id.partition(":")[0][:50]}
            await self._database.queries.move_entity(connection, **row)
            await self._audit.note(connection, actor, "entity.moved", community_id, {"entity_id": entity_id})
            await change.tell(f"{ENTITY}:{entity_id}")

    async def note_live(self, entity_id: str, *, live: bool) -> None:
        """A channel has begun or ended its stream. Raises DatabaseUnavailable."""
        async with self._changes.transaction() as change:
            connection = change.connection
            await self._database.queries.update_live(connection, entity_id=entity_id, live=live)
            await change.tell(f"{ENTITY}:{entity_id}")

    async def _load(self, platforms: dict[str, str]) -> dict[str, Community]:
        moment = self._changes.moment
        entities = sorted(platforms)
        async with self._database.connection() as connection:
            defaults = await self._load_defaults(connection)
            rows = await self._select(connection, entities)
            missing = [entity for entity in entities if entity not in rows]
            if missing and self._auto_register:
                await self._database.queries.insert_entities(
                    connection,
                    community_ids=[new_id() for _ in missing],
                    entity_ids=missing,
                    platforms=[platforms[entity] for entity in missing],
                )
                rows |= await self._select(connection, missing)
        found = {}
        for entity_id, row in rows.items():
            found[entity_id] = self._take(row, defaults, moment)
            if moment == self._changes.moment:
                _keep(self._entities, entity_id, Entity(row["community_id"], row["live"]))
        return found

    async def _select(self, connection: Connection, entity_ids: list[str]) -> dict[str, Any]:
        rows = self._database.queries.select_entities(connection, entity_ids=entity_ids)
        return {row["entity_id"]: row async for row in rows}

    async def _load_defaults(self, connection: Connection) -> dict[str, Any]:
        """What an admin set for all, kept if nothing changed while it was read."""
        if self._defaults is not None:
            return self._defaults
        moment = self._changes.moment
        row = await self._database.queries.select_settings(connection, community_id=DEFAULTS)
        defaults: dict[str, Any] = json.loads(row["own"]) if row else {}
        if moment == self._changes.moment:
            self._defaults = defaults
        return defaults

    def _take(self, row: Any, defaults: dict[str, Any], moment: int) -> Community:
        """A community as the database has it, kept if nothing changed since that moment."""
        own = json.loads(row["own"] or "{}")
        values = json.dumps(resolve(resolve(self.inherited, defaults), own), sort_keys=True)
        settings, triggers = _compiled(values)
        community = Community(
            row["community_id"], row["name"], row["version"] or 0, settings, triggers, row["sealed_key"]
        )
        if moment == self._changes.moment:
            _keep(self._known, community.community_id, community)
        return community

    def _forget(self, what: str) -> None:
        """A channel or a community is not what it was; the defaults are part of every community."""
        kind, _, name = what.partition(":")
        if kind == ENTITY:
            self._entities.pop(name, None)
        elif kind == COMMUNITY and name != str(DEFAULTS):
            self._known.pop(UUID(name), None)
        elif kind in {COMMUNITY, EVERYTHING}:
            self._known.clear()
            self._entities.clear()
            self._defaults = None


@functools.lru_cache(maxsize=1_000)
def _compiled(values: str) -> tuple[CommunitySettings, Triggers]:
    """Settings that many communities share are checked and compiled once."""
    settings = CommunitySettings.model_validate_json(values)
    return settings, Triggers(settings)


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    while len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)
