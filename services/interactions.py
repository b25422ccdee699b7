"""The journal: each event that triggered, what became of it and why. One row, one interaction.

States: received → answering → answered → delivered; side exits suppressed, expired, failed, undeliverable.
A row that is worked on is leased; every claim raises its fence, and a write with an old fence changes nothing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.database import Database
from services.events import ChatEvent
from services.triggers import Trigger

if TYPE_CHECKING:
    from services.database import Connection


@dataclass(frozen=True)
class Reply:
    """What is to be said, without prefix, and where it comes from; `reason` says what failed on the way."""

    text: str
    fallback: bool = False
    reason: str | None = None
    provider: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Interaction:
    """An interaction in the hands of this instance. `received` and `answered` are on the monotonic clock."""

    interaction_id: UUID
    community_id: UUID
    event: ChatEvent
    trigger: Trigger
    received: float
    fence: int = 1
    attempts: int = 1
    deliveries: int = 0
    request_id: str | None = None
    reply: Reply | None = None
    answered: float = 0.0

    @property
    def age(self) -> float:
        """Seconds since the event was received."""
        return time.monotonic() - self.received


@dataclass(frozen=True)
class Repeat:
    """The interaction that an event repeats, and whether the event is the same in all its fields."""

    interaction_id: UUID
    trigger: Trigger
    same: bool


@dataclass(frozen=True)
class Outcome:
    """What anyone with the right key may read of an interaction; texts while they are kept."""

    interaction_id: UUID
    community_id: UUID
    state: str
    trigger: Trigger
    reason: str | None
    provider: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    attempts: int
    timings: dict[str, float]
    received_at: float
    message: str | None
    reply: str | None


class Interactions:
    """The queries on the journal. All raise DatabaseUnavailable."""

    def __init__(self, database: Database, owner: UUID, lease_seconds: float) -> None:
        self._database = database
        self._queries = database.queries
        self._lease: dict[str, Any] = {"owner": owner, "lease_seconds": lease_seconds}

    async def insert(
        self, item: Interaction, dedupe_key: str | None, event_hash: bytes, suppressed: str | None, leased: bool
    ) -> Repeat | None:
        """Journal an event, committed on return; an event with a known id changes nothing and is given back."""
        event = item.event
        row: dict[str, Any] = {
            "interaction_id": item.interaction_id,
            "community_id": item.community_id,
            **event.model_dump(include={"entity_id", "platform", "session_id", "user_id", "message_type"}),
            "trigger_type": item.trigger.type,
            "trigger_match": item.trigger.match,
            "dedupe_key": dedupe_key,
            "event_hash": event_hash,
            "event": None if suppressed else event.model_dump_json(),
            "request_id": item.request_id,
            "state": "suppressed" if suppressed else "answering" if leased else "received",
            "reason": suppressed,
            "owner": self._lease["owner"] if leased else None,
            "lease_seconds": self._lease["lease_seconds"] if leased else None,
        }
        async with self._database.connection() as connection:
            if await self._queries.insert_interaction(connection, **row) is not None:
                return None
            return await self._repeat(connection, event.entity_id, dedupe_key, event_hash)

    async def _repeat(
        self, connection: Connection, entity_id: str, dedupe_key: str | None, event_hash: bytes
    ) -> Repeat:
        row = await self._queries.select_repeat(connection, entity_id=entity_id, dedupe_key=dedupe_key)
        trigger = Trigger(row["trigger_type"], row["trigger_match"])
        return Repeat(row["interaction_id"], trigger, row["event_hash"] == event_hash)

    async def select(self, interaction_id: UUID) -> Outcome | None:
        async with self._database.connection() as connection:
            row = await self._queries.select_interaction(connection, interaction_id=interaction_id)
        if row is None:
            return None
        fields = dict(row)
        event = json.loads(fields.pop("event") or "{}")
        trigger = Trigger(fields.pop("trigger_type"), fields.pop("trigger_match"))
        timings = json.loads(fields.pop("timings"))
        return Outcome(trigger=trigger, timings=timings, message=event.get("message_content"), **fields)

    async def claim(self, slots: int) -> list[Interaction]:
        """Take up to `slots` interactions that wait or whose instance is gone, oldest first."""
        async with self._database.connection() as connection:
            rows = [row async for row in self._queries.claim_interactions(connection, slots=slots, **self._lease)]
        return [_claimed(row) for row in rows]

    async def renew(self, ids: list[UUID]) -> None:
        async with self._database.connection() as connection:
            await self._queries.renew_leases(connection, ids=ids, **self._lease)

    async def release(self, ids: list[UUID]) -> None:
        async with self._database.connection() as connection:
            await self._queries.release_leases(connection, ids=ids, owner=self._lease["owner"])

    async def answer(self, item: Interaction, reply: Reply, timings: dict[str, float]) -> bool:
        """Commit the reply; False when the lease went to another instance, which answers instead."""
        row = {
            "interaction_id": item.interaction_id,
            "fence": item.fence,
            "reply": reply.text,
            "fallback": reply.fallback,
            "reason": reply.reason,
            "provider": reply.provider,
            "model": reply.model,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "timings": json.dumps(timings),
            "lease_seconds": self._lease["lease_seconds"],
        }
        async with self._database.connection() as connection:
            return await self._queries.answer_interaction(connection, **row) is not None

    async def end(
        self, item: Interaction, state: str, reason: str | None, deliveries: int, timings: dict[str, float]
    ) -> bool:
        """Commit the last state and erase the texts; False when the lease went to another instance."""
        row = {"interaction_id": item.interaction_id, "fence": item.fence, "state": state, "reason": reason}
        async with self._database.connection() as connection:
            ended = await self._queries.end_interaction(
                connection, **row, deliveries=deliveries, timings=json.dumps(timings)
            )
        return ended is not None


def _claimed(row: Any) -> Interaction:
    now = time.monotonic()
    reply = None
    if row["state"] == "answered":
        reply = Reply(row["reply"], row["fallback"], row["reason"])
    return Interaction(
        interaction_id=row["interaction_id"],
        community_id=row["community_id"],
        event=ChatEvent.model_validate_json(row["event"]),
        trigger=Trigger(row["trigger_type"], row["trigger_match"]),
        received=now - row["age"],
        fence=row["fence"],
        attempts=row["attempts"],
        deliveries=row["deliveries"],
        request_id=row["request_id"],
        reply=reply,
        answered=now - (row["answer_age"] or 0.0),
    )
