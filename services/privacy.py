"""What is known of a person, and forgetting it: journal, conversations and counts, with a receipt."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from services.audit import Audit
from services.bus import USER_FORGOTTEN, Bus
from services.cache_manager import CacheManager, UserKey
from services.changes import Changes
from services.communities import Communities
from services.database import Database
from services.hashing import Hashing
from services.history import History
from services.ids import new_id
from services.interactions import Interactions
from services.limits import Limits

PAGE_ROWS = 1_000


@dataclass(frozen=True)
class Receipt:
    """What was removed; the audit log has it too, with a keyed hash for the person."""

    receipt_id: str
    interactions: int
    cancelled: int
    conversations: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Privacy:
    """All raise DatabaseUnavailable."""

    def __init__(
        self,
        database: Database,
        interactions: Interactions,
        cache: CacheManager,
        limits: Limits,
        audit: Audit,
        changes: Changes,
        hashing: Hashing,
        history: History,
        communities: Communities,
        bus: Bus,
    ) -> None:
        self._history = history
        self._communities = communities
        self._bus = bus
        self._database = database
        self._interactions = interactions
        self._queries = database.queries
        self._cache = cache
        self._limits = limits
        self._audit = audit
        self._changes = changes
        self._hashing = hashing

    async def forget(self, platform: str, user_id: str, community_id: UUID | None, actor: str) -> Receipt:
        """Remove a person from one community, or from all; what is being answered for them is not sent."""
        person = {"platform": platform, "user_id": user_id, "community_id": community_id}
        async with self._changes.transaction() as change:
            connection = change.connection
            cancelled = [row async for row in self._queries.cancel_of_user(connection, **person)]
            forgotten = [row async for row in self._queries.forget_user(connection, **person)]
            said = [row async for row in self._queries.forget_conversations(connection, **person)]
            await self._queries.forget_commander(connection, **person)
            communities = {row["community_id"] for row in [*cancelled, *forgotten, *said]} | {community_id} - {None}
            users = [UserKey(each, platform, user_id) for each in communities if each is not None]
            receipt = Receipt(str(new_id()), len(forgotten), len(cancelled), len(users))
            details = receipt.as_dict() | {"user": self._hashing.user(platform, user_id)}
            await self._audit.note(connection, actor, "user.forgotten", community_id, details)
            for user in users:
                await change.tell(self._cache.change_of(user))
                await change.tell(self._limits.change_of(user.community_id, platform, user_id))
        await self._bus.forget(details["user"])
        self._bus.tell(USER_FORGOTTEN, community_id, {"user": details["user"]})
        for user in users:
            await self._cache.forget(user)
            await self._limits.forget(user.community_id, platform, user_id)
        return receipt

    async def forget_again(self, actor: str) -> int:
        """Forget whom a restored backup has brought back; how many."""
        forgotten: defaultdict[str, list[UUID | None]] = defaultdict(list)
        async with self._database.connection() as connection:
            async for row in self._queries.select_forgotten(connection):
                forgotten[row["user_hash"]].append(row["community_id"])
        again, after = 0, {"user_id": "", "platform": ""}
        while forgotten and (people := await self._people(after)):
            for person in people:
                for community_id in forgotten.get(self._hashing.user(person["platform"], person["user_id"]), ()):
                    await self.forget(person["platform"], person["user_id"], community_id, actor)
                    again += 1
            after = people[-1]
        if forgotten:
            async with self._database.connection() as connection:
                await self._queries.delete_forgotten(connection)
        return again

    async def _people(self, after: dict[str, str]) -> list[dict[str, str]]:
        async with self._database.connection() as connection:
            rows = self._queries.select_people(connection, **after, rows=PAGE_ROWS)
            return [dict(row) async for row in rows]

    async def known(self, platform: str, user_id: str, community_id: UUID | None) -> dict[str, Any]:
        """All that is known of a person, in one community or in all."""
        person = {"platform": platform, "user_id": user_id, "community_id": community_id}
        async with self._database.connection() as connection:
            rows = [dict(row) async for row in self._queries.select_of_user(connection, **person)]
        archived = await self._history.of_person(platform, user_id, self._communities.get)
        older = [(whose, told) for whose, told in archived if community_id in {None, whose}]
        communities = {row["community_id"] for row in rows} | {whose for whose, _ in older} | {community_id} - {None}
        conversations = {}
        for each in communities:
            if each is not None and (history := await self._cache.history(UserKey(each, platform, user_id), 100)):
                conversations[str(each)] = [asdict(exchange) for exchange in history]
        interactions = [await self._interactions.told(row) for row in rows]
        interactions += [told | {"community_id": str(whose)} for whose, told in older]
        return {"interactions": interactions, "conversations": conversations}
