"""How things are called on the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

# Why there was no reply, or none by the first model: as an interaction's `reason` has it.
REASONS = {
    "user_cooldown": "this user was answered a moment ago",
    "greeting_cooldown": "this user was greeted not long ago",
    "channel_limit": "the channel has had its replies for now",
    "community_limit": "the community has had its replies for now",
    "bot_chain": "two bots would go on talking to each other",
    "bot_author": "a bot wrote it",
    "repeat": "the channel was told the same a moment ago",
    "reply_ttl": "it became too old to be answered",
    "cancelled": "the message was deleted, or the user banned",
    "gathered": "it is thanked for together with others",
    "no_trigger": "nothing in it asks for an answer",
    "off_or_quiet": "the co-host is off, or it is a quiet hour",
    "commands_are_not_tried": "commands of moderators are not tried out",
    "attempts_exhausted": "it failed too often; a canned text took its place",
    "empty_reply": "nothing of the model's text was fit to be said; a canned text took its place",
    "budget_small_model": "most of the day's budget is used: the small model answered",
    "budget_canned": "the day's budget is used: a canned text",
    "budget_silent": "the day's budget is used, and that of canned texts too",
    "router_breaker_open": "the router keeps failing",
    "restored": "it was under way when a backup was made",
    "community_gone": "its community is gone",
}
STATES = {
    "received": "waits",
    "answering": "is being answered",
    "answered": "is being delivered",
    "delivered": "said",
    "suppressed": "not said",
    "expired": "too late",
    "failed": "failed",
    "undeliverable": "not taken by the router",
}
PLATFORMS = ("twitch", "discord", "slack", "kick", "youtube")
MINUTE, HOUR, DAY = 60, 3600, 86_400


def reason(text: str | None) -> str:
    """A reason in words; several are told apart by commas."""
    return ", ".join(REASONS.get(part, part) for part in (text or "").split(", ") if part)


def ago(moment: datetime | float | str | None) -> str:
    """How long ago something was."""
    if moment is None:
        return "never"
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    since = moment.timestamp() if isinstance(moment, datetime) else moment
    seconds = datetime.now(UTC).timestamp() - since
    for size, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {name} ago"
    return f"{max(int(seconds), 0)} s ago"


def moment(given: datetime | float | str | None) -> str:
    """A moment, in UTC."""
    if given is None:
        return "–"
    if isinstance(given, str):
        given = datetime.fromisoformat(given)
    at = given if isinstance(given, datetime) else datetime.fromtimestamp(given, UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ms(value: float | None) -> str:
    """Milliseconds as a person reads them."""
    if value is None:
        return "–"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def seconds(value: float | None) -> str:
    return ms(None if value is None else value * 1000)


def money(value: float | None) -> str:
    """US dollars."""
    return "–" if value is None else f"${value:.4f}" if 0 < value < 1 else f"${value:.2f}"


def many(value: int | None) -> str:
    """A number with its thousands apart."""
    return "–" if value is None else f"{value:,}".replace(",", " ")


def prose(text: str) -> Markup:
    """A sentence whose `names` are shown as such."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def state(name: str) -> str:
    return STATES.get(name, name)


FILTERS: dict[str, Callable[[Any], str]] = {
    "reason": reason,
    "ago": ago,
    "moment": moment,
    "ms": ms,
    "seconds": seconds,
    "money": money,
    "many": many,
    "state": state,
    "prose": prose,
}
