"""How often a user, a channel and a community may be answered: counted in Valkey for all instances in one step.

A place is taken once an event is journaled, so that a repeat takes none. While Valkey is away each instance counts for
itself, from what it has counted all along.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from services.changes import Changes
from services.events import ChatEvent, is_playground
from services.settings import CommunitySettings
from services.triggers import COMMAND, EVENT, Trigger
from services.valkey import Valkey, ValkeyAway

MAX_COUNTED = 50_000
FULL_SECONDS = 1.0  # how long it is taken as known that all instances together have no place left
UNCOUNTED = "uncounted"
BOT_CHAIN = 2
BOT_SECONDS = 600.0
# Names of bots that no list has.
_BOT_NAME = re.compile(r"bot[\d_]*$", re.IGNORECASE)

# KEYS: what is counted. ARGV: the interaction, then for each key how many and in how many ms. Answers the number of
# the first that is full, or 0, when the interaction has its place in each.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - ARGV[2 * i + 1])
    if not redis.call('ZSCORE', key, ARGV[1]) and redis.call('ZCARD', key) >= tonumber(ARGV[2 * i]) then return i end
end
for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, now, ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2 * i + 1])
end
return 0
"""


@dataclass(frozen=True)
class Limit:
    """At most `count` replies to what `key` names in `seconds`; `reason` is what holds an event back."""

    reason: str
    key: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Taking:
    """What an interaction needs a place in."""

    interaction_id: UUID
    limits: tuple[Limit, ...]


def limits_of(community_id: UUID, settings: CommunitySettings, event: ChatEvent, trigger: Trigger) -> tuple[Limit, ...]:
    """Which limits an event of a community falls under."""
    if trigger.type == COMMAND or is_playground(event):
        return ()
    base = _base(community_id)
    user, channel = user_key(community_id, event.platform, event.user_id), f"{base}channel:{event.entity_id}"
    found = [
        Limit("channel_limit", channel, settings.channel_replies, settings.channel_seconds),
        Limit("community_limit", f"{base}all", settings.community_replies, settings.community_seconds),
    ]
    if trigger.type != EVENT:
        found.append(Limit("user_cooldown", user, 1, settings.user_cooldown))
    if trigger.type == "greeting":
        found.append(Limit("greeting_cooldown", f"{user}:greeting", 1, settings.greeting_cooldown))
    if _BOT_NAME.search(event.username):
        found.append(Limit("bot_chain", f"{channel}:bots", BOT_CHAIN, BOT_SECONDS))
    return tuple(limit for limit in found if limit.count and limit.seconds)


def user_key(community_id: UUID, platform: str, user_id: str) -> str:
    """What a user is counted by in a community."""
    return f"{_base(community_id)}user:{platform}:{user_id}"


def _base(community_id: UUID) -> str:
    return f"sidecast:{{{community_id}}}:limit:"


class Limits:
    """Takes places: first as this instance has counted, then as all have."""

    def __init__(self, valkey: Valkey, changes: Changes) -> None:
        self._valkey = valkey
        changes.listeners.append(self._hear)
        self._script = valkey.script(_TAKE)
        self._places: OrderedDict[str, deque[float]] = OrderedDict()
        self._full_until: OrderedDict[str, float] = OrderedDict()

    def full(self, taking: Taking) -> str | None:
        """The reason where something is full as far as is known here; nothing is taken."""
        now = time.monotonic()
        return next((limit.reason for limit in taking.limits if self._is_full(limit, now)), None)

    def take(self, taking: Taking) -> str | None:
        """Take places as this instance counts; the reason where one is full, and none was taken."""
        reason = self.full(taking)
        if reason is None:
            for limit in taking.limits:
                self._places.setdefault(limit.key, deque()).append(time.monotonic())
                _keep(self._places, limit.key)
        return reason

    async def take_for_all(self, takings: list[Taking]) -> list[str | None]:
        """Take places that were free here; for each the reason where all instances together have none left."""
        wanted = [taking for taking in takings if taking.limits]
        try:
            full = await self._valkey.run(lambda client: self._ask(client, wanted)) if wanted else []
        except ValkeyAway:
            return [None] * len(takings)
        reasons: dict[UUID, str] = {}
        for taking, number in zip(wanted, full, strict=True):
            if number:
                limit = taking.limits[number - 1]
                reasons[taking.interaction_id] = limit.reason
                self._full_until[limit.key] = time.monotonic() + min(limit.seconds, FULL_SECONDS)
                _keep(self._full_until, limit.key)
                self._let_go(taking)
        return [reasons.get(taking.interaction_id) for taking in takings]

    async def forget(self, community_id: UUID, platform: str, user_id: str) -> None:
        """Let go of what is counted for a user."""
        user = user_key(community_id, platform, user_id)
        try:
            await self._valkey.run(lambda client: client.delete(user, f"{user}:greeting"))
        except ValkeyAway:
            pass  # they end by themselves

    def change_of(self, community_id: UUID, platform: str, user_id: str) -> str:
        """What to tell every instance when a user is forgotten."""
        return f"{UNCOUNTED}:{user_key(community_id, platform, user_id)}"

    def _hear(self, what: str) -> None:
        kind, _, user = what.partition(":")
        if kind == UNCOUNTED:
            for key in (user, f"{user}:greeting"):
                self._places.pop(key, None)
                self._full_until.pop(key, None)

    def _let_go(self, taking: Taking) -> None:
        """Places that were taken here and not for all count no longer."""
        for limit in taking.limits:
            if places := self._places.get(limit.key):
                places.pop()

    async def _ask(self, client: Redis, takings: list[Taking]) -> list[int]:
        """For each the number of the limit that is full, or 0."""
        async with client.pipeline(transaction=False) as pipe:
            for taking in takings:
                numbers = [number for limit in taking.limits for number in (limit.count, int(limit.seconds * 1000))]
                keys = [limit.key for limit in taking.limits]
                self._script.ask(pipe, keys, [str(taking.interaction_id), *numbers])
            full: list[int] = await pipe.execute()
            return full

    def _is_full(self, limit: Limit, now: float) -> bool:
        if self._full_until.get(limit.key, 0.0) > now:
            return True
        places = self._places.get(limit.key)
        if not places:
            return False
        while places and places[0] <= now - limit.seconds:
            places.popleft()
        return len(places) >= limit.count


def _keep(kept: OrderedDict[str, Any], key: str) -> None:
    """It was used last; what was used longest ago goes."""
    kept.move_to_end(key)
    while len(kept) > MAX_COUNTED:
        kept.popitem(last=False)
