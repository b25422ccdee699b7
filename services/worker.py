"""Answers what the journal holds: context → prompt → model → reply → delivery, one task an interaction.

A slot (of `MAX_CONCURRENT_REQUESTS`) is held while a reply is made, not while it is delivered. What finds no slot
waits in PostgreSQL. Leases are renewed at half their length; what a dead instance held is claimed when its lease ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any
from uuid import UUID

from structlog.contextvars import bound_contextvars

from config import Settings
from services.ai_service import AIService, NoAnswer
from services.cache_manager import CacheManager, UserKey
from services.database import DatabaseUnavailable
from services.interactions import Interaction, Interactions, Reply
from services.logs import Log, UserHash
from services.metrics import Metrics
from services.prompts import build_prompt, what_was_said
from services.replies import canned_text, fit
from services.router_service import DeliveryError, RouterService
from services.tasks import Tasks

CLAIM_SECONDS = 1.0


class Worker:
    """The slots, and the loop that fills them."""

    def __init__(
        self,
        settings: Settings,
        interactions: Interactions,
        cache: CacheManager,
        ai: AIService,
        router: RouterService,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._settings = settings
        self._interactions = interactions
        self._cache = cache
        self._ai = ai
        self._router = router
        self._metrics = metrics
        self._log = log
        self._tasks = Tasks(log)
        self._hash_user = UserHash(settings.secret_key.get_secret_value())
        self._slots = settings.max_concurrent_requests
        self._held: set[UUID] = set()
        self._wake = asyncio.Event()
        self._waiting = True  # whether PostgreSQL may hold work that no instance has
        self._cut_short: list[UUID] = []

    def open(self) -> None:
        self._tasks.repeat(self._claim_if_up, self._until_claim, "claim")
        self._tasks.repeat(self._renew, self._until_renewal, "renew")

    async def close(self, seconds: float) -> None:
        """Take nothing more, give what runs `seconds` to end, then hand the rest back to the journal."""
        await self._tasks.drain(seconds)
        if self._cut_short:
            try:
                await self._interactions.release(self._cut_short)
            except DatabaseUnavailable:
                self._log.error("worker.release", "leases could not be handed back; they end by themselves")
        message = f"drained; {len(self._cut_short)} interactions were handed back"
        self._log.system("worker.stopped", message, result="SUCCESS")

    def reserve(self) -> bool:
        """Take a slot if one is free and nothing waits for it in PostgreSQL."""
        if self._slots == 0 or self._waiting:
            return False
        self._slots -= 1
        return True

    def release(self, reserved: bool = True) -> None:
        """Give a slot back."""
        if reserved:
            self._slots += 1
            if self._waiting:
                self._wake.set()

    def wake(self) -> None:
        """Something waits in PostgreSQL; it is claimed as soon as a slot is free."""
        self._waiting = True
        if self._slots:
            self._wake.set()

    def start(self, item: Interaction) -> None:
        """Work on an interaction that this instance holds; its slot is taken already."""
        self._held.add(item.interaction_id)
        self._tasks.spawn(self._run(item), f"interaction {item.interaction_id}")

    async def _run(self, item: Interaction) -> None:
        user = self._hash_user(item.event.platform, item.event.user_id)
        with bound_contextvars(request_id=item.request_id, interaction=str(item.interaction_id), user=user):
            try:
                self._metrics.in_flight.inc()
                try:
                    answered = await self._answer(item)
                finally:
                    self._metrics.in_flight.dec()
                    self.release()
                if answered is not None:
                    await self._deliver(answered)
            except DatabaseUnavailable:
                self._log.error(
                    "interaction.interrupted", "PostgreSQL went away; it is taken up again when the lease ends"
                )
            except asyncio.CancelledError:
                self._cut_short.append(item.interaction_id)
                raise
            finally:
                self._held.discard(item.interaction_id)

    async def _answer(self, item: Interaction) -> Interaction | None:
        """Make and commit the reply; None when there is none to send or another instance has taken over."""
        if item.reply is not None:
            return item
        if item.age > self._settings.reply_ttl:
            await self._end(item, "expired", "reply_ttl")
            return None
        timings = {"waited": _ms(item.received)}
        user = UserKey(item.community_id, item.event.platform, item.event.user_id)
        reply = await self._compose(item, user, timings)
        if reply is None:
            await self._end(item, "expired", "reply_ttl")
            return None
        timings["answered"] = _ms(item.received)
        if not await self._interactions.answer(item, reply, timings):
            self._log.error("interaction.lost_lease", "another instance has taken over", result="DROPPED")
            return None
        if not reply.fallback:
            await self._cache.remember(user, what_was_said(item.event), reply.text)
        return dataclasses.replace(item, reply=reply, answered=time.monotonic())

    async def _compose(self, item: Interaction, user: UserKey, timings: dict[str, float]) -> Reply | None:
        """A model's reply, or the canned one when none answers; None when the time for a reply ran out."""
        prefix = self._settings.response_prefix
        canned = fit(canned_text(item.event, item.trigger), item.event.platform, prefix)
        if item.attempts > self._settings.max_attempts:
            return Reply(canned, fallback=True, reason="attempts_exhausted")
        history = await self._cache.history(user)
        prompt = build_prompt(self._settings.system_prompt, item.event, item.trigger, history)
        began = time.monotonic()
        try:
            answer = await self._ai.answer(prompt, self._settings.reply_ttl - item.age)
        except NoAnswer as error:
            if item.age > self._settings.reply_ttl:
                return None
            self._log.error("interaction.fallback", f"no provider answered ({error.reason})", result="FALLBACK")
            return Reply(canned, fallback=True, reason=error.reason)
        finally:
            timings["provider"] = _ms(began)
        text = fit(answer.text, item.event.platform, prefix)
        tokens = answer.prompt_tokens, answer.completion_tokens
        if not text:
            return Reply(canned, True, "empty_reply", answer.provider, answer.model, *tokens)
        return Reply(text, False, answer.passed_over, answer.provider, answer.model, *tokens)

    async def _deliver(self, item: Interaction) -> None:
        """Offer the reply to the router and commit how that ended."""
        if item.deliveries == 0 and item.age > self._settings.reply_ttl:
            await self._end(item, "expired", "reply_ttl")
            return
        began = time.monotonic()
        body = self._callback(item)
        try:
            posts = await self._router.deliver(
                str(item.interaction_id), body, item.deliveries, time.monotonic() - item.answered
            )
        except DeliveryError as error:
            await self._end(item, "undeliverable", error.reason)
        else:
            await self._end(item, "delivered", None, posts, {"delivery": _ms(began)})

    async def _end(
        self,
        item: Interaction,
        state: str,
        reason: str | None,
        deliveries: int = 0,
        timings: dict[str, float] | None = None,
    ) -> None:
        total = _ms(item.received)
        if not await self._interactions.end(item, state, reason, deliveries, (timings or {}) | {"total": total}):
            self._log.error("interaction.lost_lease", "another instance has taken over", result="DROPPED")
            return
        self._metrics.events.labels(state).inc()
        self._metrics.whole_way.labels(state).observe(total / 1000)
        self._log.audit(
            f"interaction.{state}",
            f"{item.trigger.type} on {item.event.platform}",
            community=str(item.community_id),
            result="SUCCESS" if state == "delivered" else state.upper(),
            reason=reason,
            execution_time=total,
        )

    def _callback(self, item: Interaction) -> dict[str, Any]:
        """The body that the router receives."""
        event, reply = item.event, item.reply
        text = self._settings.response_prefix + (reply.text if reply else "")
        if self._settings.router_response_format == "compact":
            channel = event.entity_id.rsplit(":", 1)[-1]
            return {"event_id": event.event_id, "response": text, "platform": event.platform, "channel_id": channel}
        data: dict[str, Any] = {"message": text, "fallback": bool(reply and reply.fallback)}
        if event.platform == "discord":
            data["allowed_mentions"] = {"parse": []}
        return {
            "session_id": event.session_id,
            "module_name": self._settings.module_name,
            "success": True,
            "response_action": "chat",
            "response_data": data,
            "processing_time_ms": round(_ms(item.received)),
            "interaction_id": str(item.interaction_id),
            **event.model_dump(include={"event_id", "entity_id", "platform", "user_id", "reply_to"}),
            "attempt": 1,
        }

    async def _claim_if_up(self) -> None:
        try:
            await self._claim()
        except DatabaseUnavailable:
            await asyncio.sleep(CLAIM_SECONDS)
            self._waiting = True

    async def _claim(self) -> None:
        """Fill the free slots from the journal."""
        slots = self._slots
        if slots == 0:
            return
        # While the claim runs, what comes in waits behind it in PostgreSQL (and calls `wake`).
        self._slots = 0
        self._waiting = False
        claimed: list[Interaction] = []
        try:
            claimed = await self._interactions.claim(slots)
        finally:
            self._slots += slots - len(claimed)
        self._waiting = self._waiting or len(claimed) == slots
        for item in claimed:
            self.start(item)

    async def _until_claim(self) -> None:
        """Return at once when work waits and a slot is free, and at the latest after a second."""
        if self._waiting and self._slots:
            return
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _renew(self) -> None:
        """Keep what this instance works on."""
        if self._held:
            try:
                await self._interactions.renew(list(self._held))
            except DatabaseUnavailable:
                self._log.error("worker.renew", "PostgreSQL is away: leases could not be renewed")

    async def _until_renewal(self) -> None:
        await asyncio.sleep(self._settings.lease_seconds / 2)


def _ms(since: float) -> float:
    """Milliseconds since a moment of the monotonic clock."""
    return round((time.monotonic() - since) * 1000, 1)
