"""A channel of each community's own to try it out in: real events, answered as any, and told to no router.

How each reply was made is kept for half an hour, with its texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from services.communities import Communities
from services.composer import Making
from services.events import PLAYGROUND, ChatEvent
from services.interactions import Interaction, Reply
from services.replies import manner_of, rules_applied
from services.settings import CommunitySettings
from services.short_lived import ShortLived
from services.valkey import Valkey

KEPT_SECONDS = 1800.0
MAX_PROMPT = 20_000


@dataclass(frozen=True)
class Made:
    """How a reply was made: what the model was told and said, what the rules for texts made of it."""

    prompt: list[dict[str, str]]
    raw: str | None
    rules: list[str]
    said: str
    budget: str
    cached: bool


class Playground:
    """Keeps how replies were made, and gives each community its channel."""

    def __init__(self, valkey: Valkey, communities: Communities) -> None:
        self._communities = communities
        self._kept = ShortLived(valkey, "made")

    async def enter(self, community_id: UUID, actor: str) -> str:
        """The channel of a community's playground, which is its own from now on. Raises DatabaseUnavailable."""
        channel = f"{PLAYGROUND}{community_id}"
        if await self._communities.id_of(channel) != community_id:
            await self._communities.change(community_id, None, [channel], actor)
        return channel

    async def keep(self, item: Interaction, reply: Reply, making: Making, settings: CommunitySettings) -> None:
        """Remember how a reply was made."""
        made = made_of(item.event, reply, making, settings)
        await self._kept.put(str(item.interaction_id), orjson.dumps(vars(made)).decode(), KEPT_SECONDS)

    async def find(self, interaction_id: UUID) -> Made | None:
        """How a reply was made, while that is known."""
        text = await self._kept.get(str(interaction_id))
        return None if text is None else Made(**orjson.loads(text))


def made_of(event: ChatEvent, reply: Reply | None, making: Making, settings: CommunitySettings) -> Made:
    """How a reply was made, in words."""
    left = MAX_PROMPT
    prompt: list[dict[str, Any]] = []
    for message in making.messages:
        content = str(message.get("content") or "")[: max(left, 0)]
        left -= len(content)
        prompt.append({"role": str(message["role"]), "content": content})
    said = reply.prefix + reply.text if reply else ""
    rules = rules_applied(making.raw, manner_of(event, settings)) if making.raw else []
    return Made(prompt, making.raw, rules, said, str(making.step), "cached" in making.timings)
