"""Keeps a channel from being told the same text twice within a while: Twitch drops such a message (`msg_duplicate`).

What this instance has said is known here; what others have, Valkey says, while the reply is committed.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from uuid import UUID

from redis.asyncio import Redis

from services.texts import fold
from services.valkey import Valkey, ValkeyAway

MAX_KNOWN = 50_000


class Repeats:
    """What was said where of late."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        self._said: OrderedDict[str, tuple[float, UUID]] = OrderedDict()

    def take(self, community_id: UUID, entity_id: str, text: str, interaction_id: UUID, seconds: float) -> str | None:
        """What to claim a text by; None where this instance has said it here for another in so many seconds."""
        key = _key(community_id, entity_id, text)
        until, whose = self._said.get(key, (0.0, interaction_id))
        now = time.monotonic()
        if until > now and whose != interaction_id:
            return None
        self._said[key] = now + seconds, interaction_id
        self._said.move_to_end(key)
        while len(self._said) > MAX_KNOWN:
            self._said.popitem(last=False)
        return key

    async def claim(self, key: str, interaction_id: UUID, seconds: float) -> bool:
        """Whether no other instance has said it; also where Valkey does not answer."""

        async def ask(client: Redis) -> str | None:
            async with client.pipeline(transaction=True) as pipe:
                pipe.set(key, str(interaction_id), nx=True, px=int(seconds * 1000))
                pipe.get(key)
                _, whose = await pipe.execute()
                return str(whose) if whose else None

        try:
            whose = await self._valkey.run(ask)
        except ValkeyAway:
            return True
        return whose in {None, str(interaction_id)}


def _key(community_id: UUID, entity_id: str, text: str) -> str:
    said = hashlib.blake2b(f"{entity_id}\0{' '.join(fold(text).split())}".encode(), digest_size=16).hexdigest()
    return f"sidecast:{{{community_id}}}:said:{said}"
