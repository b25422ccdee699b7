"""The journal: each event that triggered, what became of it and why. One row, one interaction.

States: received → answering → answered → delivered; side exits suppressed, expired, failed, undeliverable.
A row that is worked on is leased; every claim raises its fence, and a write with an old fence changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from services.communities import Communities
from services.contents import NOTHING, Contents
from services.database import Database
from services.events import ChatEvent
from services.group_commit import GroupCommit
from services.limits import Taking
from services.tasks import Tasks
from services.triggers import Trigger

if TYPE_CHECKING:
    from services.database import Connection

# How late a last state may be written: a delivery that was, and is not known to have been, is made again.
END_SECONDS = 0.02


@dataclass(frozen=True)
class Reply:
    """What is to be said, after what prefix, and where it comes from; `reason` says what failed on the way."""

    text: str
    prefix: str = ""
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
    deliveries: int = 0  # offers to the router, the one under way included
    request_id: str | None = None
    reply: Reply | None = None
    answered: float = 0.0
    gathered: int | None = None  # how many events it stands for; 0 where that is not known yet
    held_back: asyncio.Future[str | None] | None = None  # the limit that holds it back after all, once it is known
    trace: str | None = None  # where its spans belong, as `services.tracing` writes it

    @property
    def age(self) -> float:
        """Seconds since the event was received."""
        return time.monotonic() - self.received


@dataclass
class Entry:
    """A row to be: `suppressed` says why there is to be no reply; `leased`, that this instance has a slot for it."""

    item: Interaction
    event_json: str
    dedupe_key: str
    event_hash: bytes
    repeat_seconds: float
    taking: Taking
    suppressed: str | None = None
    leased: bool = False
    sealed: str | None = None  # the message, to be kept should it be suppressed
    gather_seconds: float = 0.0  # how long it waits for others, to be answered with them


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
    platform: str
    message_type: str
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


@dataclass(frozen=True)
class Waiting:
    """How many interactions wait for a slot, of all instances, and for how many seconds the oldest has."""

    depth: float
    oldest: float


@dataclass(frozen=True)
class _Answer:
    item: Interaction
    reply: Reply
    timings: dict[str, float]


@dataclass(frozen=True)
class _End:
    item: Interaction
    state: str
    reason: str | None
    timings: dict[str, float]
    sealed: str | None


class Interactions:
    """The queries on the journal. All raise DatabaseUnavailable."""

    def __init__(
        self,
        database: Database,
        communities: Communities,
        contents: Contents,
        tasks: Tasks,
        owner: UUID,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._communities = communities
        self._contents = contents
        self._queries = database.queries
        self._inserting, self._answering, self._ending = (database.own_connection() for _ in range(3))
        self._answers: GroupCommit[_Answer, bool] = GroupCommit(self._answer_all, tasks, 0)
        self._ends: GroupCommit[_End, bool] = GroupCommit(self._end_all, tasks, END_SECONDS)
        self._lease: dict[str, Any] = {"owner": owner, "lease_seconds": lease_seconds}

    async def insert(self, entries: list[Entry]) -> list[Repeat | None]:
        """Journal events, committed together on return; for each None, or what it repeats (and nothing changed)."""
        # In the order of the keys, so that instances that insert the same ones do not wait for each other.
        ordered = sorted(entries, key=lambda entry: (entry.item.event.entity_id, entry.dedupe_key))
        text = _json([_row(entry) for entry in ordered])
        inserted = f"INSERT 0 {len(entries)}"
        async with self._inserting.use() as connection:
            if await self._queries.insert_interactions(connection, entries=text, **self._lease) == inserted:
                return [None] * len(entries)
            if await self._queries.let_go_of_keys(connection, entries=text) != "UPDATE 0":
                await self._queries.insert_interactions(connection, entries=text, **self._lease)
            return await self._repeats(connection, entries)

    async def _repeats(self, connection: Connection, entries: list[Entry]) -> list[Repeat | None]:
        """What each entry repeats; None for one that is the row itself."""
        keys = [(entry.item.event.entity_id, entry.dedupe_key) for entry in entries]
        columns = {"entity_ids": [entity for entity, _ in keys], "dedupe_keys": [key for _, key in keys]}
        rows = {
            (row["entity_id"], row["dedupe_key"]): row
            async for row in self._queries.select_repeats(connection, **columns)
        }
        return [
            None
            if (row := rows[key])["interaction_id"] == entry.item.interaction_id
            else Repeat(
                row["interaction_id"],
                Trigger(row["trigger_type"], row["trigger_match"]),
                row["event_hash"] == entry.event_hash,
            )
            for entry, key in zip(entries, keys, strict=True)
        ]

    async def select(self, interaction_id: UUID) -> Outcome | None:
        async with self._database.connection() as connection:
            row = await self._queries.select_interaction(connection, interaction_id=interaction_id)
        if row is None:
            return None
        fields = dict(row)
        trigger = Trigger(fields.pop("trigger_type"), fields.pop("trigger_match"))
        fields["timings"] = json.loads(fields["timings"])
        said = await self._said(fields)
        del fields["ended_at"]
        return Outcome(trigger=trigger, **(fields | said))

    async def told(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as the API tells it."""
        said = await self._said(row)
        trigger = {"type": row.pop("trigger_type"), "match": row.pop("trigger_match")}
        plain = {name: _plain(value) for name, value in row.items()}
        return plain | {"trigger": trigger, "timings": json.loads(row["timings"])} | said

    async def _said(self, row: dict[str, Any]) -> dict[str, str | None]:
        """The texts of a row, taken out of it: while it is worked on, and as long as they are kept."""
        event = json.loads(row.pop("event") or "{}")
        sealed, kept = row.pop("sealed"), NOTHING
        community = await self._communities.get(row["community_id"]) if sealed else None
        if community is not None:
            kept = self._contents.read(row["interaction_id"], community.settings, row["ended_at"], sealed)
        return {"message": kept.message or event.get("message_content"), "reply": row.pop("reply") or kept.reply}

    async def claim_waiting(self, slots: int, share: int, rooms: dict[UUID, int]) -> list[Interaction]:
        """Take up to `slots` that wait, at most `share` of one community, or its room where `rooms` has one."""
        columns = {"busy_ids": list(rooms), "busy_rooms": list(rooms.values())}
        async with self._database.connection() as connection:
            rows = self._queries.claim_waiting(connection, slots=slots, share=share, **columns, **self._lease)
            return [_claimed(row) async for row in rows]

    async def waiting(self) -> Waiting:
        """What waits for a slot now."""
        async with self._database.connection() as connection:
            row = await self._queries.select_waiting(connection)
        return Waiting(**dict(row))

    async def claim_due(self, slots: int, held: list[UUID]) -> list[Interaction]:
        """Take up to `slots` whose lease ended or whose next delivery is due; without a reply they wait again.

        What is `held` here is left alone: its lease ended only because PostgreSQL was away.
        """
        async with self._database.connection() as connection:
            rows = self._queries.claim_due(connection, slots=slots, held=held, **self._lease)
            return [_claimed(row) async for row in rows]

    async def renew(self, ids: list[UUID]) -> None:
        async with self._database.connection() as connection:
            await self._queries.renew_leases(connection, ids=ids, **self._lease)

    async def release(self, ids: list[UUID]) -> None:
        async with self._database.connection() as connection:
            await self._queries.release_leases(connection, ids=ids, owner=self._lease["owner"])

    async def answer(self, item: Interaction, reply: Reply, timings: dict[str, float]) -> bool:
        """Commit the reply, which is sent at once; False when the interaction is no longer this instance's."""
        [written] = await self._answers.submit([_Answer(item, reply, timings)])
        return written

    async def _answer_all(self, answers: list[_Answer]) -> list[bool]:
        rows = [
            _held(answer.item, answer.timings)
            | {
                "reply": answer.reply.prefix + answer.reply.text,
                "fallback": answer.reply.fallback,
                "reason": answer.reply.reason,
                "provider": answer.reply.provider,
                "model": answer.reply.model,
                "prompt_tokens": answer.reply.prompt_tokens,
                "completion_tokens": answer.reply.completion_tokens,
            }
            for answer in sorted(answers, key=_by_id)
        ]
        query, lease = self._queries.answer_interactions, self._lease["lease_seconds"]
        async with self._answering.use() as connection:
            written = {
                row["interaction_id"] async for row in query(connection, answers=_json(rows), lease_seconds=lease)
            }
        return [answer.item.interaction_id in written for answer in answers]

    async def postpone(self, item: Interaction, deliveries: int, seconds: float) -> None:
        """Let go of a reply until its next delivery, for any instance to make."""
        row = {"interaction_id": item.interaction_id, "fence": item.fence, "deliveries": deliveries, "seconds": seconds}
        async with self._database.connection() as connection:
            await self._queries.postpone_delivery(connection, **row)

    async def end(
        self, item: Interaction, state: str, reason: str | None, timings: dict[str, float], sealed: str | None = None
    ) -> bool:
        """Commit the last state and erase the texts, but for `sealed` ones to be kept.

        False when the interaction is no longer this instance's.
        """
        [written] = await self._ends.submit([_End(item, state, reason, timings, sealed)], urgent=False)
        return written

    async def _end_all(self, ends: list[_End]) -> list[bool]:
        rows = [
            _held(end.item, end.timings)
            | {"state": end.state, "reason": end.reason, "deliveries": end.item.deliveries}
            | {"sealed": end.sealed}
            for end in sorted(ends, key=_by_id)
        ]
        async with self._ending.use() as connection:
            written = {
                row["interaction_id"] async for row in self._queries.end_interactions(connection, ends=_json(rows))
            }
        return [end.item.interaction_id in written for end in ends]

    async def cancel(self, entity_id: str, event_id: str | None, user_id: str | None) -> dict[UUID, str]:
        """Suppress what was not sent yet of an event or a user in a channel; which that were, and their triggers."""
        row = {"entity_id": entity_id, "dedupe_key": event_id and given_key(event_id), "user_id": user_id}
        async with self._database.connection() as connection:
            rows = self._queries.cancel_interactions(connection, **row)
            cancelled = {row["interaction_id"]: row["trigger_type"] async for row in rows}
            if event_id:
                about = {"entity_id": entity_id, "dedupe_key": given_key(event_id)}
                await self._queries.erase_message(connection, **about)
        return cancelled

    async def hold_back(self, interaction_id: UUID, reason: str, sealed: str | None) -> bool:
        """Suppress what is not to be answered after all, whoever has taken it up; whether it was not sent yet."""
        row = {"interaction_id": interaction_id, "reason": reason, "sealed": sealed}
        async with self._database.connection() as connection:
            return bool(await self._queries.hold_back_interaction(connection, **row))

    async def redrive(self, community_id: UUID | None) -> int:
        """Offer undeliverable replies once more, of one community or of all; how many."""
        async with self._database.connection() as connection:
            return int(await self._queries.redrive_interactions(connection, community_id=community_id))

    async def trim(self, seconds: float, rows: int) -> int:
        """Delete up to `rows` that ended over `seconds` ago; how many."""
        async with self._database.connection() as connection:
            return int(await self._queries.delete_ended(connection, seconds=seconds, rows=rows))

    async def keeping(self) -> list[UUID]:
        """Communities that have texts kept."""
        async with self._database.connection() as connection:
            return [row["community_id"] async for row in self._queries.select_keeping(connection)]

    async def erase_kept(self, community_id: UUID, days: int, rows: int) -> int:
        """Erase up to `rows` texts of a community that ended over `days` ago; how many."""
        about = {"community_id": community_id, "days": days, "rows": rows}
        async with self._database.connection() as connection:
            return int(await self._queries.erase_kept(connection, **about))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _by_id(of: _Answer | _End) -> UUID:
    """The order in which rows are locked everywhere, so that no two statements wait for each other."""
    return of.item.interaction_id


def given_key(event_id: str) -> str:
    """What recognises a repeat of an event with an id."""
    return f"id:{event_id}"


def own_key(event_hash: bytes) -> str:
    """What recognises a repeat of an event without an id: the event itself."""
    return f"same:{event_hash.hex()}"


def _row(entry: Entry) -> dict[str, Any]:
    item, event = entry.item, entry.item.event
    return {
        "interaction_id": item.interaction_id,
        "community_id": item.community_id,
        "entity_id": event.entity_id,
        "platform": event.platform,
        "session_id": event.session_id,
        "user_id": event.user_id,
        "message_type": event.message_type,
        "trigger_type": item.trigger.type,
        "trigger_match": item.trigger.match,
        "dedupe_key": entry.dedupe_key,
        "event_hash": entry.event_hash.hex(),
        "event": None if entry.suppressed else orjson.Fragment(entry.event_json),
        "request_id": item.request_id,
        "trace": item.trace,
        "state": _first_state(entry),
        "gather_seconds": entry.gather_seconds if entry.gather_seconds and not entry.suppressed else None,
        "reason": entry.suppressed,
        "repeat_seconds": entry.repeat_seconds,
        "sealed": entry.sealed if entry.suppressed else None,
    }


def _first_state(entry: Entry) -> str:
    if entry.suppressed:
        return "suppressed"
    return "answering" if entry.leased or entry.gather_seconds else "received"


def _held(item: Interaction, timings: dict[str, float]) -> dict[str, Any]:
    return {"interaction_id": item.interaction_id, "fence": item.fence, "timings": timings}


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows, str).decode()  # asyncpg has UUIDs of its own


def _claimed(row: Any) -> Interaction:
    now = time.monotonic()
    reply = None
    if row["state"] == "answered":
        reply = Reply(row["reply"], fallback=row["fallback"], reason=row["reason"])
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
        trace=row["trace"],
        reply=reply,
        gathered=row["gathered"],
        answered=now - (row["answer_age"] or 0.0),
    )
