"""Answers several events of a kind in a channel as one: a hundred follows, or a gift of a hundred subscriptions.

Such an event waits in the journal for a while; whoever takes it up then takes the others of its kind with it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from config import Settings
from services.database import Database
from services.events import CHAT, ChatEvent
from services.interactions import Interaction
from services.occasions import MAX_FACT, NAMES, known_of, occasion_of
from services.tracing import Tracing
from services.triggers import EVENT, Trigger

if TYPE_CHECKING:
    from services.database import Connection

GIFT = "gift_subscription"
_FAMILIES = (("subscription", GIFT), ("follow",), ("member_join",))
_OF = {kind: family for family in _FAMILIES for kind in family}
LONGEST_WAIT = 5  # times `GATHER_SECONDS`
KEPT_NAMES = 20


def gathers(event: ChatEvent, trigger: Trigger) -> bool:
    """Whether an event may be answered together with others; what is told of one person alone may not."""
    if event.message_type == CHAT or event.message_type not in _OF or event.message_content:
        return False
    return occasion_of(event, trigger).kind in _OF


class Gathering:
    """Finds out what an event stands for. Raises DatabaseUnavailable."""

    def __init__(self, database: Database, settings: Settings, tracing: Tracing) -> None:
        self._database = database
        self._tracing = tracing
        self._queries = database.queries
        self._seconds = settings.gather_seconds
        self._reply_ttl = settings.reply_ttl
        self._longest = min(settings.gather_seconds * LONGEST_WAIT, settings.reply_ttl / 2)

    async def lead(self, item: Interaction) -> Interaction | None:
        """The interaction, standing for the others of its kind; None where another stands for it, or more still come.

        The latter is taken up again by itself.
        """
        about = {"entity_id": item.event.entity_id, "message_types": list(_OF[item.event.message_type])}
        async with self._database.connection() as connection, connection.transaction():
            found = [row async for row in self._queries.select_gathering(connection, **about)]
            rows = [row for row in found if row["age"] < self._reply_ttl]  # each of the others expires by itself
            ages = [row["age"] for row in rows]
            if item.interaction_id not in {row["interaction_id"] for row in rows}:
                return None
            if min(ages) < self._seconds / 2 and max(ages) < self._longest:
                held = {"interaction_id": item.interaction_id, "fence": item.fence}
                held["ids"] = [row["interaction_id"] for row in rows]
                await self._queries.gather_later(connection, seconds=self._seconds / 2, **held)
                return None
            led = await self._take(connection, item, rows)
        if led is not None:
            self._trace(led, rows)
        return led

    async def _take(self, connection: Connection, item: Interaction, rows: list[Any]) -> Interaction | None:
        events = [ChatEvent.model_validate_json(row["event"]) for row in rows]
        event = merged(item.event, events)
        row = {"interaction_id": item.interaction_id, "fence": item.fence, "event": event.model_dump_json()}
        row["user_id"] = event.user_id
        if not await self._queries.gather_into(connection, gathered=len(rows), **row):
            return None
        others = [row["interaction_id"] for row in rows if row["interaction_id"] != item.interaction_id]
        if others:
            await self._queries.end_gathered(connection, ids=others)
        return dataclasses.replace(item, event=event, gathered=len(rows))

    def _trace(self, led: Interaction, rows: list[Any]) -> None:
        """That those it stands for have ended, each in its own trace."""
        for row in rows:
            if row["interaction_id"] != led.interaction_id:
                about = {"interaction_id": row["interaction_id"], "trace": row["trace"]}
                self._tracing.suppressed(dataclasses.replace(led, **about), "gathered")


def merged(event: ChatEvent, events: list[ChatEvent]) -> ChatEvent:
    """One of some events, as of all of them: a gift as the gift, and else the first, with their number and names."""
    if len(events) <= 1:
        return event
    gifts = [each for each in events if each.message_type == GIFT]
    givers = gifts or events
    names = list(dict.fromkeys(each.name[:MAX_FACT] for each in givers))
    given = sum(_count(each) for each in gifts)
    count = max(given, len(events) - len(gifts)) if gifts else len(events)
    first = givers[0]
    facts = known_of(first.metadata) | {"count": count, NAMES: names[:KEPT_NAMES]}
    about = {"message_type": first.message_type, "username": first.username, "display_name": first.display_name}
    return event.model_copy(update=about | {"user_id": first.user_id, "metadata": facts})


def _count(event: ChatEvent) -> int:
    counted = occasion_of(event, Trigger(EVENT, event.message_type)).facts.get("count", "1")
    return int(counted) if counted.isascii() and counted.isdigit() else 1
