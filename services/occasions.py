"""What a reply is for: the kind of a trigger or event, what is known of it, and its template's lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.events import ChatEvent
from services.templates import TEMPLATES, Template, filled
from services.triggers import EVENT, Trigger

MAX_FACT = 100
NAMES = "names"  # in the metadata of what stands for several events
MOST_NAMES = 5  # of several events together; a flood of names is no thank-you, and may be what a flood is for
# How routers name what they know of an event.
_NAMES = {
    "months": ("months", "cumulative_months", "cumulative"),
    "viewers": ("viewers", "viewer_count", "raiders"),
    "amount": ("amount", "bits"),
    "count": ("count", "total", "gifts", "gift_count", "quantity"),
    "tier": ("tier", "plan"),
}
_ALIASES = {"resubscription": "resub", "bits": "cheer", "subgift": "gift_subscription"}


@dataclass(frozen=True)
class Occasion:
    """A reply's kind and what is known; `many` where several events are answered as one."""

    kind: str
    facts: dict[str, str]
    many: bool
    template: Template

    @property
    def happened(self) -> str:
        """In a sentence, for an event."""
        template = self.template
        lines = filled(template.happened_many, self.facts) if self.many else []
        lines = lines or filled(template.happened, self.facts)
        return lines[0] if lines else self.facts["name"]

    @property
    def canned(self) -> list[str]:
        """What may be said without a model, the best first."""
        template = self.template
        lines = filled(template.canned_many, self.facts) if self.many else []
        return lines or filled(template.canned, self.facts)


def occasion_of(event: ChatEvent, trigger: Trigger, gathered: int = 0) -> Occasion:
    """`gathered` is how many events this one stands for."""
    facts = known_of(event.metadata)
    if trigger.type == EVENT:
        facts["kind"] = event.message_type.replace("_", " ")
    facts["name"] = event.name
    many = False
    if gathered > 1:
        facts.setdefault("count", str(gathered))
        names = [name for name in event.metadata.get(NAMES, []) if isinstance(name, str)]
        many = len(names) != 1
        if 1 < len(names) <= MOST_NAMES:
            facts[NAMES] = _listed(names)
    if facts.get("count") == "1":
        del facts["count"]  # lines with a number speak of several
    kind = _kind(event, trigger, facts)
    return Occasion(kind, facts, many, TEMPLATES[kind])


def known_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """What lines can be filled with, of what a router knows, each a line at most."""
    return {name: text for name, keys in _NAMES.items() if (text := _fact(metadata, keys))}


def _kind(event: ChatEvent, trigger: Trigger, facts: dict[str, str]) -> str:
    if trigger.type != EVENT:
        return trigger.type if trigger.type in TEMPLATES else "mention"
    kind = _ALIASES.get(event.message_type, event.message_type)
    if kind == "subscription" and _number(facts.get("months", "")) > 1:
        return "resub"
    return kind if kind in TEMPLATES and TEMPLATES[kind].happened else EVENT


def _fact(metadata: dict[str, Any], keys: Sequence[str]) -> str:
    """The first of some values that says something, in a line."""
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value in {"", 0}:
            continue
        if isinstance(value, float) and (not math.isfinite(value) or value == int(value)):
            value = int(value) if math.isfinite(value) else ""
        currency = metadata.get("currency")
        text = f"{value} {currency}" if key == "amount" and isinstance(currency, str) and currency else str(value)
        return " ".join(text[:MAX_FACT].split())
    return ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
