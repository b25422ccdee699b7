"""Takes an event: trigger, journal, ACK. What was committed here is never lost and never answered twice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

from config import Settings
from services.communities import Communities
from services.events import ChatEvent
from services.ids import new_id
from services.interactions import Interaction, Interactions
from services.logs import Log, UserHash
from services.metrics import Metrics
from services.triggers import Trigger, Triggers
from services.worker import Worker


@dataclass(frozen=True)
class Receipt:
    """What the router is told about its event."""

    interaction_id: UUID | None
    trigger: Trigger | None
    duplicate: bool = False


class Conflict(Exception):
    """The same id came with another body; what came first stands."""


class Closed(Exception):
    """The service is stopping and takes nothing new."""


class Intake:
    """Settings of the community → trigger? → journal row (committed) → receipt."""

    def __init__(
        self,
        settings: Settings,
        communities: Communities,
        interactions: Interactions,
        worker: Worker,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._communities = communities
        self._interactions = interactions
        self._worker = worker
        self._metrics = metrics
        self._log = log
        self._triggers = Triggers(settings)
        self._bots = frozenset(name.casefold() for name in settings.bot_names)
        secret = settings.secret_key.get_secret_value()
        self._hash_key = b"sidecast event\0" + secret.encode()
        self._hash_user = UserHash(secret)
        self.closed = False

    async def accept(self, event: ChatEvent, dedupe_id: str | None, request_id: str) -> Receipt:
        """Journal an event that triggers; `dedupe_id` stands in for an absent `event_id`.

        Raises Conflict, Closed, UnknownEntity, DatabaseUnavailable.
        """
        if self.closed:
            raise Closed
        received = time.monotonic()
        community = await self._communities.of(event)
        trigger = self._triggers.match(event)
        if trigger is None:
            self._metrics.events.labels("untriggered").inc()
            return Receipt(None, None)
        item = Interaction(new_id(), community.community_id, event, trigger, received, request_id=request_id)
        return await self._journal(item, event.event_id or dedupe_id)

    async def _journal(self, item: Interaction, dedupe_id: str | None) -> Receipt:
        event = item.event
        bot = event.is_bot or event.username.casefold() in self._bots
        leased = not bot and self._worker.reserve()
        mine = False
        try:
            repeat = await self._interactions.insert(
                item, dedupe_id, event.fingerprint(self._hash_key), "bot_author" if bot else None, leased
            )
            mine = repeat is None
        finally:
            self._worker.release(leased and not mine)
        if repeat is not None:
            if not repeat.same:
                raise Conflict(event.event_id)
            self._metrics.events.labels("duplicate").inc()
            return Receipt(repeat.interaction_id, repeat.trigger, duplicate=True)
        self._note(item, bot)
        if leased:
            self._worker.start(item)
        elif not bot:
            self._worker.wake()
        return Receipt(item.interaction_id, item.trigger)

    def _note(self, item: Interaction, bot: bool) -> None:
        self._metrics.events.labels("suppressed" if bot else "triggered").inc()
        self._metrics.triggers.labels(item.trigger.type).inc()
        self._log.audit(
            "interaction.suppressed" if bot else "interaction.received",
            f"{item.trigger.type} on {item.event.platform}",
            user=self._hash_user(item.event.platform, item.event.user_id),
            community=str(item.community_id),
            interaction=str(item.interaction_id),
            result="SUPPRESSED" if bot else "ACCEPTED",
        )
