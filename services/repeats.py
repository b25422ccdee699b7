"""Keeps a channel from being told the same text twice within a while: Twitch drops such a message (`msg_duplicate`).

What this instance has said is known here; what others have, Valkey says, while the reply is committed.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from uuid import UUID

from services.texts import fold
from services.valkey import Valkey, ValkeyAway

MAX_KNOWN = 50_000
# KEYS: the text in its channel. ARGV: the interaction, ms. Answers whose it is.
_CLAIM = """
local whose = redis.call('GET', KEYS[1])
if whose then return whose end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""


class Repeats:
    """What was said where of late."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        self._script = valkey.script(_CLAIM)
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

        arguments = [str(interaction_id), max(int(seconds * 1000), 1)]
        try:
            whose = await self._valkey.run(lambda client: self._script.ask(client, [key], arguments))
        except ValkeyAway:
            return True
        return bool(whose == str(interaction_id))


def _key(community_id: UUID, entity_id: str, text: str) -> str:
    said = hashlib.blake2b(f"{entity_id}\0{' '.join(fold(text).split())}".encode(), digest_size=16).hexdigest()
    return f"sidecast:{{{community_id}}}:said:{said}"
