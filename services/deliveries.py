"""Offers replies to the router until they are taken, refused or too old.

A reply that the router does not take goes back to the journal with the time of its next try, so a router that is down
costs no memory and no worker's slot; a breaker keeps the tries few meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from config import Settings
from providers.breaker import Breaker, Rule, State
from services.bus import INTERACTION_ENDED, REPLY_DELIVERED, Bus
from services.communities import Communities
from services.contents import Contents
from services.events import is_playground
from services.hashing import Hashing
from services.interactions import Interaction, Interactions
from services.leases import Leases
from services.logs import Log
from services.metrics import Metrics
from services.numbers import Numbers
from services.router_service import Router, RouterRefused, RouterUnavailable
from services.tracing import Tracing

AT_ONCE = 50
NO_ROOM_SECONDS = 0.5
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
BREAKER_FAILURES = 10
BREAKER_SECONDS = 5.0


class Deliveries:
    """One offer at a time for each interaction, 50 at once in all."""

    def __init__(
        self,
        settings: Settings,
        interactions: Interactions,
        communities: Communities,
        contents: Contents,
        leases: Leases,
        router: Router,
        hashing: Hashing,
        bus: Bus,
        metrics: Metrics,
        numbers: Numbers,
        tracing: Tracing,
        log: Log,
    ) -> None:
        self._settings = settings
        self._interactions = interactions
        self._communities = communities
        self._contents = contents
        self._leases = leases
        self._router = router
        self._hashing = hashing
        self._bus = bus
        self._metrics = metrics
        self._numbers = numbers
        self._tracing = tracing
        self._log = log
        self._free = AT_ONCE
        self.due = asyncio.Event()  # set when a postponed reply's time has come
        self.breaker = Breaker(Rule(BREAKER_FAILURES, BREAKER_SECONDS), self._note_breaker)

    @property
    def room(self) -> int:
        """How many more offers could be made now."""
        return 0 if self.breaker.seconds_left else self._free

    async def deliver(self, item: Interaction) -> None:
        """Offer the reply of an interaction that is leased here, and commit how that ended."""
        if item.deliveries <= 1 and item.age > self._settings.reply_ttl:
            await self.end(item, "expired", "reply_ttl")
            return
        if not self._free:
            await self._postpone(item, item.deliveries - 1, NO_ROOM_SECONDS, "too_many_deliveries")
            return
        if is_playground(item.event):
            await self.end(item, "delivered", None)
            return
        ticket = self.breaker.enter()
        if ticket is None:
            await self._postpone(item, item.deliveries - 1, self.breaker.seconds_left, "router_breaker_open")
            return
        began = time.monotonic()
        try:
            await self._offer(item, ticket)
        except RouterRefused as error:
            await self.end(item, "undeliverable", error.reason)
        except RouterUnavailable as error:
            wait = error.retry_after + random.uniform(0, min(FIRST_WAIT * 2**item.deliveries, LONGEST_WAIT))  # noqa: S311
            await self._postpone(item, item.deliveries, wait, error.reason)
        else:
            await self.end(item, "delivered", None, {"delivery": _ms(began)})

    async def _offer(self, item: Interaction, ticket: int) -> None:
        """Post the reply, and tell the breaker how that went. Raises RouterUnavailable or RouterRefused."""
        answers: bool | None = None
        result, began = "cancelled", time.monotonic()
        self._free -= 1
        try:
            with self._tracing.call("delivery") as span:
                headers = {"X-Request-ID": item.request_id} if item.request_id else {}
                body = callback(item, self._settings)
                await self._router.post(str(item.interaction_id), body, headers | span.headers)
            answers, result = True, "ok"
        except RouterRefused as error:
            answers, result = True, error.reason
            raise
        except RouterUnavailable as error:
            answers, result = False, error.reason
            raise
        finally:
            self._free += 1
            self.breaker.leave(ticket, answers)
            self._metrics.deliveries[result].observe(time.monotonic() - began)

    async def end(
        self, item: Interaction, state: str, reason: str | None, timings: dict[str, float] | None = None
    ) -> None:
        """Commit the last state of an interaction."""
        total = _ms(item.received)
        known = (timings or {}) | {"total": total}

        async def write() -> bool:
            return await self._interactions.end(item, state, reason, known, await self._kept(item))

        if not await self._leases.persist(write):
            self._log.info("interaction.lost_lease", "it was cancelled or another instance has it", result="DROPPED")
            return
        self._tell(item, state, reason)
        self._tracing.note(state, reason)
        self._metrics.note_end(item.trigger.type, state, total / 1000)
        self._numbers.note_end(item.community_id, item.trigger.type, state, total / 1000)
        self._log.audit(
            f"interaction.{state}",
            f"{item.trigger.type} on {item.event.platform}",
            community=str(item.community_id),
            result="SUCCESS" if state == "delivered" else state.upper(),
            reason=reason,
            execution_time=total,
        )

    def _tell(self, item: Interaction, state: str, reason: str | None) -> None:
        event = item.event
        data: dict[str, Any] = {"interaction_id": item.interaction_id, "state": state, "reason": reason}
        data |= event.model_dump(include={"event_id", "entity_id", "platform"})
        data["user"] = self._hashing.user(event.platform, event.user_id)
        self._bus.tell(REPLY_DELIVERED if state == "delivered" else INTERACTION_ENDED, item.community_id, data)

    async def _kept(self, item: Interaction) -> str | None:
        community = await self._communities.get(item.community_id)
        if community is None:
            return None
        reply = item.reply.prefix + item.reply.text if item.reply else None
        message = item.event.message_content
        return self._contents.seal(item.interaction_id, community.settings, item.trigger, message, reply)

    async def _postpone(self, item: Interaction, deliveries: int, seconds: float, reason: str) -> None:
        """Offer it again after a while, for the last time when `DELIVERY_TTL` ends, or give it up after that."""
        left = self._settings.delivery_ttl - (time.monotonic() - item.answered)
        if left <= 0:
            await self.end(item, "undeliverable", reason)
            return
        seconds = min(seconds, left)
        message = f"the router did not take a reply ({reason}); it is offered again in {seconds:.1f} s"
        self._log.info("delivery.postponed", message, result="RETRY", attempt=deliveries)
        self._tracing.note("answered", reason)
        await self._leases.persist(lambda: self._interactions.postpone(item, deliveries, seconds))
        asyncio.get_running_loop().call_later(seconds + 0.01, self.due.set)

    def _note_breaker(self, state: State) -> None:
        self._metrics.router_breaker.state(state.value)
        if state is State.OPEN:
            message = "the router keeps failing; replies wait in PostgreSQL until it answers"
            self._log.error("router.away", message, result="ERROR")
        elif state is State.CLOSED:
            self._log.system("router.back", "the router takes replies again", result="SUCCESS")


def callback(item: Interaction, settings: Settings) -> dict[str, Any]:
    """The body that the router receives."""
    event, reply = item.event, item.reply
    text = reply.prefix + reply.text if reply else ""
    if settings.router_response_format == "compact":
        channel = event.entity_id.rsplit(":", 1)[-1]
        return {"event_id": event.event_id, "response": text, "platform": event.platform, "channel_id": channel}
    data: dict[str, Any] = {"message": text, "fallback": bool(reply and reply.fallback)}
    if event.platform == "discord":
        data["allowed_mentions"] = {"parse": []}
    return {
        "session_id": event.session_id,
        "module_name": settings.module_name,
        "success": True,
        "response_action": "chat",
        "response_data": data,
        "processing_time_ms": round(_ms(item.received)),
        "interaction_id": str(item.interaction_id),
        **event.model_dump(include={"event_id", "entity_id", "platform", "user_id", "reply_to"}),
        "attempt": item.deliveries,
    }


def _ms(since: float) -> float:
    """Milliseconds since a moment of the monotonic clock."""
    return round((time.monotonic() - since) * 1000, 1)
