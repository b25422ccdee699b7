"""What was said of late: each user's exchanges with the co-host, and the recent chat of each channel.

Both are in Valkey for all instances, with copies in memory in front, which an instance lets go of when another writes.
Valkey away: memory goes on alone, and `/health` says so. Keys hold the community, so that one never reads another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
from redis.asyncio import Redis

from services.changes import EVERYTHING, Changes
from services.copies import Copies, Entry
from services.tasks import Tasks
from services.valkey import Valkey, ValkeyAway

MAX_TEXT = 1_000
MAX_LINE = 300
MAX_NAME = 100
SAME_LINES = 5
MAX_EXCHANGES = 100
MAX_USERS = 10_000
MAX_CHANNELS = 2_000
MAX_LINES = 100
MAX_UNWRITTEN = 1_000
MAX_UNHEARD = 5_000
MOST_TRIES = 60
AGAIN_SECONDS = 1.0
GATHER_SECONDS = 0.1  # what is heard meanwhile is written together
TOLD = "sidecast:told"
# KEYS: whose, and of a channel the set of all. ARGV: how many are kept, for how many ms, and what is added: with their
# times, or in order.
_ADD_TALK = """
redis.call('ZADD', KEYS[1], unpack(ARGV, 3))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_ADD_RING = """
redis.call('SADD', KEYS[2], KEYS[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('RPUSH', KEYS[1], unpack(ARGV, 3))
redis.call('LTRIM', KEYS[1], -ARGV[1], -1)
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Exchange:
    """What a user said and what was answered, each at most 1,000 characters; when it was said, in Unix seconds."""

    said: str
    answered: str
    name: str = ""
    at: float = 0.0

    def cut(self) -> Exchange:
        return Exchange(self.said[:MAX_TEXT], self.answered[:MAX_TEXT], self.name[:MAX_NAME], self.at)

    def encoded(self) -> bytes:
        return orjson.dumps([self.at, self.name, self.said, self.answered])

    @classmethod
    def decoded(cls, entry: str | bytes) -> Exchange:
        at, name, said, answered = orjson.loads(entry)
        return cls(said, answered, name, at)


@dataclass(frozen=True)
class Heard:
    """A message in a channel, at most 300 characters of it: by whom (an id, and the name shown), and when."""

    user_id: str
    name: str
    said: str
    at: float
    event_id: str = ""

    def cut(self) -> Heard:
        return Heard(self.user_id, self.name[:MAX_NAME], self.said[:MAX_LINE], self.at, self.event_id)

    def encoded(self) -> bytes:
        return orjson.dumps([self.at, self.user_id, self.name, self.said, self.event_id])

    @classmethod
    def decoded(cls, entry: str | bytes) -> Heard:
        at, user_id, name, said, event_id = orjson.loads(entry)
        return cls(user_id, name, said, at, event_id)


@dataclass(frozen=True)
class UserKey:
    """A user of a platform in a community."""

    community_id: UUID
    platform: str
    user_id: str

    def __str__(self) -> str:
        return f"sidecast:{{{self.community_id}}}:talk:{self.platform}:{self.user_id}"


@dataclass(frozen=True)
class ChannelKey:
    """A channel of a community."""

    community_id: UUID
    entity_id: str

    def __str__(self) -> str:
        return f"sidecast:{{{self.community_id}}}:heard:{self.entity_id}"


class CacheManager:
    """Conversations of the last `CONTEXT_TTL` seconds; how much of them, the community says."""

    def __init__(self, valkey: Valkey, changes: Changes, tasks: Tasks, ttl: float) -> None:
        self._valkey = valkey
        self._tasks = tasks
        self._ttl = ttl
        self._me = uuid4().hex
        changes.listeners.append(self._hear_change)
        self._forgotten: OrderedDict[str, float] = OrderedDict()
        self._talks: Copies[Exchange] = Copies(MAX_USERS, ttl)
        self._rings: Copies[Heard] = Copies(MAX_CHANNELS, ttl)
        self._reading: dict[str, asyncio.Future[list[Any] | None]] = {}
        self._unwritten: dict[str, tuple[list[Heard], int]] = {}
        self._unheard: OrderedDict[tuple[str, str | None, str | None], float] = OrderedDict()
        self._unwritten_talks: dict[str, tuple[list[Exchange], int]] = {}
        self._writing = False
        self._talk_script, self._ring_script = valkey.script(_ADD_TALK), valkey.script(_ADD_RING)
        # Copies made before this instance heard of what others write are not trusted while Valkey can be asked.
        self._trusted_since = 0.0 if not valkey.is_set else float("inf")
        self._moment = 0

    def open(self) -> None:
        listener = self._valkey.listener(TOLD, self._hear_told, self._hear_gap)
        if listener is not None:
            self._tasks.repeat(listener.connect, listener.hear, "listen for what others write")

    # --- what a user said and was answered

    async def history(self, user: UserKey, limit: int) -> list[Exchange]:
        """The user's last exchanges in this community, oldest first."""
        return (await self._read(str(user), self._talks, self._read_talk))[-limit:] if limit else []

    def expect(self, user: UserKey, channel: ChannelKey | None) -> None:
        """Begin to read what is known of a user and a channel, which is asked for soon."""
        self._begin(str(user), self._talks, self._read_talk)
        if channel is not None:
            self._begin(str(channel), self._rings, self._read_ring)

    async def remember(self, user: UserKey, exchange: Exchange, since: float, limit: int) -> list[Exchange]:
        """Add an exchange that began at `since`, in its place by when it was said; what goes for it, beyond the limit.

        Twice the same is once.
        """
        if not limit or self._forgotten.get(str(user), 0.0) > since:
            return []
        exchange, key = exchange.cut(), str(user)
        read = await self.history(user, MAX_EXCHANGES)
        if self._forgotten.get(key, 0.0) > since:  # meanwhile
            return []
        # Looked at again without waiting in between, so that two answers in flight both stay.
        whole = self._talks.get(key, self._trusted_since) is not None
        ordered = sorted(
            {*read, *(self._talks.get(key, self._trusted_since) or ()), exchange}, key=lambda each: each.at
        )
        self._talks.keep(key, ordered[-limit:], time.monotonic() if whole else 0.0)
        # All that is known, so that what Valkey has lost is there again.
        self._unwritten_talks[key] = ordered[-limit:], limit
        await self._write()
        return ordered[:-limit]

    async def earlier(self, user: UserKey) -> str:
        """The summary of what a conversation has no room for any more, if there is one."""
        key = f"{user}:earlier"
        try:
            return str(await self._valkey.run(lambda client: client.get(key)) or "")
        except ValkeyAway:
            return ""

    async def keep_earlier(self, user: UserKey, summary: str, since: float) -> None:
        """Keep a summary that began at `since` as long as conversations are; while Valkey is away there is none."""
        if self._forgotten.get(str(user), 0.0) > since:
            return
        with contextlib.suppress(ValkeyAway):
            await self._valkey.run(lambda client: client.set(f"{user}:earlier", summary, px=int(self._ttl * 1000)))

    # --- what is said in a channel

    def hear(self, channel: ChannelKey, heard: Heard, limit: int) -> None:
        """A message in a channel: the newest `limit` are kept. Written soon, together with what follows."""
        key = str(channel)
        heard = heard.cut()
        known = self._rings.get(key) or []
        if any(line.said == heard.said and line.user_id == heard.user_id for line in known[-SAME_LINES:]):
            return  # sent twice, or spam
        self._rings.add(key, heard, limit)
        if self._valkey.is_set:
            lines, _ = self._unwritten.get(key, ([], limit))
            self._unwritten[key] = [*lines, heard][-limit:], limit
            self._write_soon()

    async def heard(self, channel: ChannelKey, limit: int) -> list[Heard]:
        """The newest messages in a channel, oldest first."""
        return (await self._read(str(channel), self._rings, self._read_ring))[-limit:] if limit else []

    async def unhear(self, channel: ChannelKey, event_id: str | None, user_id: str | None) -> None:
        """Let go of a message that was deleted, or of all that a banned user wrote, and of what comes of it yet."""
        key = str(channel)
        self._note_unheard(key, event_id, user_id)
        try:
            for entry in await self._valkey.run(lambda client: client.lrange(key, 0, -1)):
                if not self._is_heard(key, Heard.decoded(str(entry))):
                    await self._valkey.run(lambda client, entry=entry: client.lrem(key, 0, entry))  # type: ignore[misc]
            telling = self._telling(key, unheard=[key, event_id, user_id])
            await self._valkey.run(lambda client: client.publish(TOLD, telling))
        except ValkeyAway:
            pass  # what is read of it later is left out

    def _note_unheard(self, key: str, event_id: str | None, user_id: str | None) -> None:
        self._unheard[key, event_id if not user_id else None, user_id] = time.time()
        while len(self._unheard) > MAX_UNHEARD:
            self._unheard.popitem(last=False)
        for lines in (self._unwritten.get(key, ([], 0))[0], self._rings.get(key) or []):
            lines[:] = [line for line in lines if self._is_heard(key, line)]

    def _is_heard(self, key: str, line: Heard) -> bool:
        """Whether a line was not deleted, nor its author banned after it."""
        gone = self._unheard.get((key, line.event_id, None), 0.0) if line.event_id else 0.0
        return max(gone, self._unheard.get((key, None, line.user_id), 0.0)) < line.at

    # --- forgetting

    def change_of(self, user: UserKey) -> str:
        """What to tell every instance when a user is forgotten."""
        return f"{FORGOTTEN}:{user}"

    async def forget(self, user: UserKey) -> None:
        """Let go of what is kept for all instances: the user's talk, and recent chat, where their words may stand.

        While Valkey is away it is tried until it is back; and once more after what was being written meanwhile.
        """
        done = await self._forget(user)
        self._tasks.spawn(self._forget_again(user, done=done), "forget again")

    async def _forget(self, user: UserKey) -> bool:
        talk, rings = str(user), rings_of(user.community_id)
        self._drop_all_of(talk)
        try:
            await self._valkey.run(lambda client: client.delete(talk, f"{talk}:earlier"))
            channels = [str(key) for key in await self._valkey.run(lambda client: client.smembers(rings))]
            if channels:
                await self._valkey.run(lambda client: client.delete(rings, *channels))
            await self._valkey.run(lambda client: client.publish(TOLD, self._telling(talk, *channels)))
        except ValkeyAway:
            return not self._valkey.is_set
        finally:
            self._drop_all_of(talk)
        return True

    async def _forget_again(self, user: UserKey, *, done: bool) -> None:
        """What was being written of a user while they were forgotten; only the talk, which is theirs alone."""
        for _ in range(MOST_TRIES):
            await asyncio.sleep(AGAIN_SECONDS)
            if await self._forget(user) and done:
                return
            done = True

    def _drop_all_of(self, talk: str) -> None:
        """A user's talk, and the recent chat of their community."""
        begin = talk.partition(":talk:")[0] + ":heard:"
        self._moment += 1
        self._talks.drop(talk)
        self._rings.drop_all(begin)
        self._unwritten_talks.pop(talk, None)
        self._unwritten = {key: lines for key, lines in self._unwritten.items() if not key.startswith(begin)}

    # --- how

    async def _read(self, key: str, copies: Copies[Entry], load: Callable[[str], Any]) -> list[Entry]:
        known = copies.get(key, self._trusted_since)
        if known is None:
            self._begin(key, copies, load)
            reading = self._reading[key]
            known = await asyncio.shield(reading)
        # Away: what memory has is all there is.
        return known if known is not None else copies.get(key) or []

    def _begin(self, key: str, copies: Copies[Entry], load: Callable[[str], Any]) -> None:
        if key in self._reading or copies.get(key, self._trusted_since) is not None:
            return
        reading = self._reading[key] = asyncio.ensure_future(self._load(key, copies, load))
        reading.add_done_callback(lambda _: self._reading.pop(key, None))

    async def _load(self, key: str, copies: Copies[Entry], load: Callable[[str], Any]) -> list[Entry] | None:
        """What Valkey has, kept unless it may be old already; None while it is away."""
        moment, began = self._moment, time.monotonic()
        found: list[Entry] | None = await load(key)
        if found is None or moment != self._moment:
            return found
        copies.keep(key, found, began)
        return found

    async def _read_talk(self, key: str) -> list[Exchange] | None:
        if not self._valkey.is_set:
            return self._talks.get(key) or []
        try:
            entries = await self._valkey.run(lambda client: client.zrange(key, -MAX_EXCHANGES, -1))
        except ValkeyAway:
            return None
        unwritten, _ = self._unwritten_talks.get(key, ([], 0))
        found = {*(Exchange.decoded(str(entry)) for entry in entries), *unwritten}
        return sorted(found, key=lambda each: each.at)[-MAX_EXCHANGES:]

    async def _read_ring(self, key: str) -> list[Heard] | None:
        unwritten, _ = self._unwritten.get(key, ([], 0))
        if not self._valkey.is_set:
            return self._rings.get(key) or []
        try:
            entries = await self._valkey.run(lambda client: client.lrange(key, 0, -1))
        except ValkeyAway:
            return None
        found = {*map(Heard.decoded, entries), *unwritten}
        return sorted((line for line in found if self._is_heard(key, line)), key=lambda line: line.at)[-MAX_LINES:]

    def _write_soon(self) -> None:
        """What is unwritten is written together, and told to the other instances."""
        if self._valkey.is_set and not self._writing:
            self._writing = True
            self._tasks.spawn(self._write_later(), "write what was heard")

    async def _write_later(self) -> None:
        try:
            await asyncio.sleep(GATHER_SECONDS)
        finally:
            self._writing = False
            await self._write()

    async def _write(self) -> None:
        talks, self._unwritten_talks = self._unwritten_talks, {}
        rings, self._unwritten = self._unwritten, {}
        if not talks and not rings:
            return
        ttl = int(self._ttl * 1000)

        async def write(client: Redis) -> None:
            async with client.pipeline(transaction=False) as pipe:
                for key, (exchanges, limit) in talks.items():
                    scored = [part for each in exchanges for part in (each.at, each.encoded())]
                    self._talk_script.ask(pipe, [key], [limit, ttl, *scored])
                for key, (lines, limit) in rings.items():
                    every = rings_of(UUID(key.partition("{")[2].partition("}")[0]))
                    self._ring_script.ask(pipe, [key, every], [limit, ttl, *(line.encoded() for line in lines)])
                pipe.publish(TOLD, self._telling(*talks, *rings))
                await pipe.execute()

        try:
            await self._valkey.run(write)
        except ValkeyAway:
            # For the next time; what is newer goes before it.
            self._unwritten_talks = {**_some(talks), **self._unwritten_talks}
            self._unwritten = {**_some(rings), **self._unwritten}

    def _telling(self, *keys: str, unheard: list[str | None] | None = None) -> bytes:
        """What other instances hear: who has written what, and what is not to be heard any more."""
        return orjson.dumps([self._me, keys, unheard])

    def _hear_told(self, message: str) -> None:
        """Another instance has written something: what is kept of it here is old."""
        who, keys, unheard = orjson.loads(message)
        if who != self._me:
            self._moment += 1
            if unheard:
                self._note_unheard(*unheard)
            for key in keys:
                self._talks.drop(key)
                self._rings.drop(key)

    def _hear_gap(self, *, connected: bool) -> None:
        self._trusted_since = time.monotonic() if connected else float("inf")

    def _hear_change(self, what: str) -> None:
        """A user is forgotten: what is kept here goes, and what was begun before is not kept any more."""
        kind, _, name = what.partition(":")
        if kind == FORGOTTEN:
            self._drop_all_of(name)
            self._forgotten[name] = time.monotonic()
            while len(self._forgotten) > MAX_USERS:
                self._forgotten.popitem(last=False)
        elif what == EVERYTHING and self._valkey.is_set:  # who was forgotten meanwhile is not known
            self._hear_gap(connected=self._trusted_since != float("inf"))
            self._moment += 1


def rings_of(community_id: UUID) -> str:
    """The key of the set of a community's channels that have recent chat."""
    return f"sidecast:{{{community_id}}}:rings"


def _some(unwritten: dict[str, Any]) -> dict[str, Any]:
    """As much of what could not be written as is kept for the next time."""
    return dict(list(unwritten.items())[-MAX_UNWRITTEN:])


def without(lines: Iterable[Heard], user_id: str, said: Iterable[str]) -> list[Heard]:
    """The lines but for those of a user's that are told otherwise."""
    told = {text[:MAX_LINE] for text in said}
    return [line for line in lines if line.user_id != user_id or line.said not in told]
