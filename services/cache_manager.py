"""What each user said in each community and was answered: in memory first, Valkey behind it.

Keys hold the community, so that one never reads another's. Valkey away: memory goes on alone, and `/health` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis

from services.changes import Changes
from services.valkey import Valkey, ValkeyAway

MAX_USERS = 10_000
MAX_TEXT = 1_000
MAX_EXCHANGES = 100
FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Exchange:
    """What a user said and what was answered, each at most 1,000 characters."""

    said: str
    answered: str


@dataclass(frozen=True)
class UserKey:
    """A user of a platform in a community."""

    community_id: UUID
    platform: str
    user_id: str

    def __str__(self) -> str:
        return f"sidecast:{{{self.community_id}}}:context:{self.platform}:{self.user_id}"


class CacheManager:
    """Conversations of the last `CONTEXT_TTL` seconds; how many exchanges of a user, the community says."""

    def __init__(self, valkey: Valkey, changes: Changes, ttl: float) -> None:
        self._valkey = valkey
        changes.listeners.append(self._hear)
        self._forgotten: OrderedDict[str, float] = OrderedDict()
        self._ttl = ttl
        self._memory: OrderedDict[UserKey, tuple[float, list[Exchange]]] = OrderedDict()
        self._loading: dict[UserKey, asyncio.Future[list[Exchange]]] = {}

    async def history(self, user: UserKey, limit: int) -> list[Exchange]:
        """The user's last exchanges in this community, oldest first."""
        if not limit:
            return []
        known = self._known(user)
        if known is None:
            self.expect(user)
            known = await asyncio.shield(self._loading[user])
        return known[-limit:]

    def expect(self, user: UserKey) -> None:
        """Begin to read what is known of a user, whose history is asked for soon."""
        if user not in self._loading and self._known(user) is None:
            loading = self._loading[user] = asyncio.ensure_future(self._load(user))
            loading.add_done_callback(lambda _: self._loading.pop(user))

    async def _load(self, user: UserKey) -> list[Exchange]:
        exchanges = await self._read(user)
        if exchanges is None:
            return []  # and not kept: Valkey may have more once it is back
        self._keep(user, exchanges)
        return exchanges

    def _known(self, user: UserKey) -> list[Exchange] | None:
        until, exchanges = self._memory.get(user, (0.0, []))
        return exchanges if until > time.monotonic() else None

    async def remember(self, user: UserKey, exchange: Exchange, since: float, limit: int) -> None:
        """Add an exchange that began at `since`; the oldest one beyond the limit goes."""
        if not limit or self._forgotten.get(str(user), 0.0) > since:
            return
        exchange = Exchange(exchange.said[:MAX_TEXT], exchange.answered[:MAX_TEXT])
        await self.history(user, limit)
        # Read again without waiting in between, so that two answers in flight both stay.
        _, known = self._memory.get(user, (0.0, []))
        self._keep(user, [*known, exchange][-limit:])
        await self._write(user, exchange, limit)

    def change_of(self, user: UserKey) -> str:
        """What to tell every instance when a user is forgotten."""
        return f"{FORGOTTEN}:{user}"

    async def forget(self, user: UserKey) -> None:
        """Let go of what is kept for all instances."""
        with contextlib.suppress(ValkeyAway):
            await self._valkey.run(lambda client: client.delete(str(user)))

    def _hear(self, what: str) -> None:
        """A user is forgotten: what is kept here goes, and what was begun before is not kept any more."""
        kind, _, name = what.partition(":")
        if kind != FORGOTTEN:
            return
        for user in [user for user in self._memory if str(user) == name]:
            del self._memory[user]
        self._forgotten[name] = time.monotonic()
        while len(self._forgotten) > MAX_USERS:
            self._forgotten.popitem(last=False)

    def _keep(self, user: UserKey, exchanges: list[Exchange]) -> None:
        self._memory[user] = (time.monotonic() + self._ttl, exchanges)
        self._memory.move_to_end(user)
        if len(self._memory) > MAX_USERS:
            self._memory.popitem(last=False)

    async def _read(self, user: UserKey) -> list[Exchange] | None:
        """What Valkey has, or None while it is away."""
        if not self._valkey.is_set:
            return []
        try:
            entries = await self._valkey.run(lambda client: client.lrange(str(user), -MAX_EXCHANGES, -1))
        except ValkeyAway:
            return None
        return [Exchange(**json.loads(entry)) for entry in entries]

    async def _write(self, user: UserKey, exchange: Exchange, limit: int) -> None:
        entry = json.dumps({"said": exchange.said, "answered": exchange.answered}, ensure_ascii=False)

        async def write(client: Redis) -> None:
            async with client.pipeline(transaction=True) as pipe:
                pipe.rpush(str(user), entry)
                pipe.ltrim(str(user), -limit, -1)
                pipe.pexpire(str(user), int(self._ttl * 1000))
                await pipe.execute()

        with contextlib.suppress(ValkeyAway):
            await self._valkey.run(write)
