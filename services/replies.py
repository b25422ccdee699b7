"""Makes a text fit for the platform it goes to, and has one ready where no model answered.

Lengths, in characters: Twitch 500 (dev.twitch.tv/docs/api/reference#send-chat-message), Discord 2,000
(discord.com/developers/docs/resources/message), Slack 4,000 (advised in its RTM docs), YouTube 200 (what its chat
box takes; not in its API docs), Kick 500 (not in its docs; as its chat box).
"""

from __future__ import annotations

import re

from services.events import ChatEvent
from services.triggers import Trigger

LIMITS = {"twitch": 500, "youtube": 200, "discord": 2000, "slack": 4000, "kick": 500}
DEFAULT_LIMIT = 500
ONE_LINE = frozenset({"twitch", "youtube", "kick"})
_SPACES = re.compile(r"\s+")
# Twitch and most bots take a text that begins so for a command.
_COMMAND_SIGNS = "/.! \t\n"

_CANNED = {
    "greeting": "Hello {name}!",
    "farewell": "See you soon, {name}!",
    "mention": "Hi {name}! I can't think clearly right now, please ask me again in a bit.",
    "custom": "Hi {name}! I can't think clearly right now, please ask me again in a bit.",
    "question": "Good question, {name}! I can't think clearly right now, please ask me again in a bit.",
    "subscription": "Thank you for the subscription, {name}!",
    "gift_subscription": "Thank you for the gift, {name}!",
    "follow": "Thank you for the follow, {name}!",
    "donation": "Thank you for the donation, {name}!",
    "cheer": "Thank you for the cheer, {name}!",
    "raid": "Welcome, raiders! Thank you, {name}!",
    "boost": "Thank you for the boost, {name}!",
    "member_join": "Welcome, {name}!",
    "event": "Thank you, {name}!",
}


def canned_text(event: ChatEvent, trigger: Trigger) -> str:
    """What to say to this trigger without a model."""
    kind = event.message_type if trigger.type == "event" else trigger.type
    return _CANNED.get(kind, _CANNED["event"]).replace("{name}", event.name)


def fit(text: str, platform: str, prefix: str) -> str:
    """The text without the prefix, short enough that both fit the platform, cut at a word; may be empty."""
    text = text.replace("\0", "")  # which no database holds
    text = _SPACES.sub(" ", text) if platform in ONE_LINE else text
    text = text.strip().lstrip(_COMMAND_SIGNS)
    room = LIMITS.get(platform, DEFAULT_LIMIT) - len(prefix)
    if len(text) <= room:
        return text
    cut = text[: room - 1]
    return (cut.rsplit(maxsplit=1)[0] if " " in cut else cut).rstrip(" ,;:") + "…"
