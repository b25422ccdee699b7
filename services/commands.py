"""What moderators tell the co-host in chat (`!ai off`), and anyone about themselves (`!ai forget me`)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from services.communities import Community
from services.events import CHAT, ChatEvent
from services.hashing import Hashing
from services.privacy import Privacy
from services.settings_store import BadSettings, SettingsStore

SIGN = "!ai"
MAY_COMMAND = frozenset({"broadcaster", "moderator"})
QUIET_SECONDS = 600
LONGEST_QUIET = 86_400
_COMMAND = re.compile(
    r"!ai\s+(?:(?P<name>on|off|status|forget\s+me)|quiet(?:\s+(?P<count>\d{1,5})\s*(?P<unit>[smh]?))?)\s*",
    re.IGNORECASE,
)
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Command:
    """A command by its name; `seconds` is how long `quiet` lasts."""

    name: str
    seconds: int = 0

    @property
    def text(self) -> str:
        return f"{SIGN} {self.name}"


def read_command(event: ChatEvent) -> Command | None:
    """The command of a message whose author may give it."""
    if event.message_type != CHAT or event.message_content[: len(SIGN)].lower() != SIGN:
        return None
    found = _COMMAND.fullmatch(event.message_content)
    if found is None:
        return None
    name = " ".join((found["name"] or "quiet").lower().split())
    if name != "forget me" and MAY_COMMAND.isdisjoint(event.roles):
        return None
    if name != "quiet":
        return Command(name)
    count = int(found["count"]) * _UNITS[found["unit"].lower() or "m"] if found["count"] else QUIET_SECONDS
    return Command(name, min(count, LONGEST_QUIET))


class Commands:
    """Does what is asked, which may be done twice without harm, and says so."""

    def __init__(self, store: SettingsStore, privacy: Privacy, hashing: Hashing) -> None:
        self._store = store
        self._privacy = privacy
        self._hashing = hashing

    async def run(self, event: ChatEvent, community: Community) -> str:
        """What to answer. Raises DatabaseUnavailable."""
        try:
            return await self._run(event, community)
        except BadSettings as bad:
            [(field, problem), *_] = bad.problems
            return f"I could not do that: {field}: {problem}"

    async def _run(self, event: ChatEvent, community: Community) -> str:
        command = read_command(event) or Command("status")
        actor = f"chat:{self._hashing.user(event.platform, event.user_id)}"
        if command.name == "forget me":
            receipt = await self._privacy.forget(event.platform, event.user_id, community.community_id, actor)
            return f"Forgotten, {event.name}. Your receipt is {receipt.receipt_id}."
        if command.name == "off":
            await self._store.change(community.community_id, {"enabled": False}, None, actor)
            return f"I am off now. {SIGN} on brings me back."
        if command.name == "on":
            await self._store.change(community.community_id, {"enabled": True, "quiet_until": None}, None, actor)
            return "I am back!"
        if command.name == "quiet":
            until = int(time.time()) + command.seconds
            await self._store.change(community.community_id, {"quiet_until": until}, None, actor)
            return f"I am quiet for {_spoken(command.seconds)}. {SIGN} on brings me back."
        return _status(community)


def _status(community: Community) -> str:
    settings = community.settings
    left = int(settings.quiet_until - time.time())
    if not settings.enabled:
        return f"I am off. {SIGN} on brings me back."
    if left > 0:
        return f"I am quiet for another {_spoken(left)}."
    return f"I am on, with {settings.provider} {settings.model}".rstrip() + "."


def _spoken(seconds: int) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
