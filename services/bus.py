"""Tells other services what happens, on a Redis stream of bounded length: `XREAD STREAMS sidecast:events $`.

An entry has `event` (its kind), `at` (ISO 8601), `community_id` (or empty) and `data` (JSON). Texts are in it only of
communities that keep them (`store_content`), and people by a keyed hash (`user`). What cannot be told while Valkey is
away is told with what happens once it is back, 5,000 entries at most: the journal loses nothing, this may.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis

from services.tasks import Tasks
from services.valkey import Valkey, ValkeyAway

STREAM = "sidecast:events"
MAX_WAITING = 5_000
GATHER_SECONDS = 0.1
MOST_AT_ONCE = 500
LONGEST_SECONDS = 24 * 3600.0  # that an entry stays

# KEYS: the stream. ARGV: its length, the oldest time in it, then four texts for each entry.
_ADD = """
redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[2])
for i = 3, #ARGV, 4 do
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
        'event', ARGV[i], 'at', ARGV[i + 1], 'community_id', ARGV[i + 2], 'data', ARGV[i + 3])
end
return 0
"""

MESSAGE_ADDED = "message.added"
REPLY_DELIVERED = "reply.delivered"
INTERACTION_ENDED = "interaction.ended"
SETTINGS_CHANGED = "settings.changed"
COMMUNITY_MADE = "community.made"
USER_FORGOTTEN = "user.forgotten"
MODEL_REGISTERED = "model.registered"
PROVIDER_AWAY = "provider.away"
PROVIDER_BACK = "provider.back"
PROVIDER_DEGRADED = "provider.degraded"
PROVIDER_RECOVERED = "provider.recovered"
KINDS = {
    MESSAGE_ADDED: "A message joined a conversation, of a user or of the co-host (`role`).",
    REPLY_DELIVERED: "The router took a reply.",
    INTERACTION_ENDED: "An interaction ended without one: its `state`, and the `reason`.",
    SETTINGS_CHANGED: "Settings of a community, or of all, are others now: their `names`, and the `version`.",
    COMMUNITY_MADE: "There is a new community, made by an admin.",
    USER_FORGOTTEN: "A person was forgotten; `user` is a keyed hash.",
    MODEL_REGISTERED: "An instance may ask this `model` of this `provider` from now on.",
    PROVIDER_AWAY: "A provider keeps failing and is not asked for a while.",
    PROVIDER_BACK: "It answers again.",
    PROVIDER_DEGRADED: "A model fails too often or is too slow (`what` is errors or slow); `since` when, the `figure`.",
    PROVIDER_RECOVERED: "It no longer does, or nobody asks it any more.",
}


class Bus:
    """Told at once, written soon and together; nobody waits for it."""

    def __init__(self, valkey: Valkey, tasks: Tasks, length: int) -> None:
        self._valkey = valkey
        self._tasks = tasks
        self._length = length if valkey.is_set else 0
        self._waiting: deque[tuple[str, str, str, str]] = deque(maxlen=MAX_WAITING)
        self._writing = False
        self._script = valkey.script(_ADD)

    def tell(self, event: str, community_id: UUID | None, data: dict[str, Any]) -> None:
        if not self._length:
            return
        at = datetime.now(UTC).isoformat()
        self._waiting.append((event, at, str(community_id or ""), orjson.dumps(data, str).decode()))
        if not self._writing:
            self._writing = True
            self._tasks.spawn(self._write_soon(), "tell what happened")

    async def _write_soon(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_SECONDS)
                entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
                try:
                    await self._valkey.run(lambda client, entries=entries: self._write(client, entries))  # type: ignore[misc]
                except ValkeyAway:
                    kept = entries[max(len(entries) + len(self._waiting) - MAX_WAITING, 0) :]
                    self._waiting.extendleft(reversed(kept))
                    return
        finally:
            self._writing = False

    async def flush(self) -> None:
        """Tell what waits now, as far as Valkey answers."""
        while self._waiting:
            entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            try:
                await self._valkey.run(lambda client, entries=entries: self._write(client, entries))  # type: ignore[misc]
            except ValkeyAway:
                return

    async def forget(self, user: str) -> None:
        """Let go of what was told of a person, named by the keyed hash."""

        async def delete(client: Redis) -> None:
            found: Any = await client.xrange(STREAM)
            theirs = [number for number, fields in found if orjson.loads(fields["data"]).get("user") == user]
            if theirs:
                await client.xdel(STREAM, *theirs)

        others = (entry for entry in self._waiting if orjson.loads(entry[3]).get("user") != user)
        self._waiting = deque(others, maxlen=MAX_WAITING)
        with contextlib.suppress(ValkeyAway):
            await self._valkey.run(delete)

    async def _write(self, client: Redis, entries: list[tuple[str, str, str, str]]) -> None:
        fields = [text for entry in entries for text in entry]
        await self._script.ask(client, [STREAM], [self._length, int((time.time() - LONGEST_SECONDS) * 1000), *fields])
