"""Takes events: trigger, journal, receipt. What was committed here is never lost and never answered twice."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from uuid import UUID

from services.cache_manager import CacheManager, ChannelKey, Heard
from services.commands import read_command
from services.communities import Communities, Community, UnknownEntity
from services.contents import Contents
from services.events import CHAT, ChatEvent
from services.gathering import gathers
from services.group_commit import GroupCommit
from services.hashing import Hashing
from services.ids import new_id
from services.interactions import Entry, Interaction, Interactions, Repeat, given_key, own_key
from services.limits import Limits, Taking, limits_of
from services.logs import Log
from services.metrics import Metrics
from services.numbers import Numbers
from services.tasks import Tasks
from services.tracing import Tracing, trace_fields
from services.triggers import COMMAND, Trigger
from services.worker import Worker

# How long a repeat is recognised: an id that was given, and an event without one by all its fields.
ID_SECONDS = 24 * 3600.0
SAME_EVENT_SECONDS = 10.0
PATIENCE_SECONDS = 0.005  # of events that wait for a slot anyway
LIVE = {"stream_online": True, "stream_offline": False}


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


_NOTHING = Receipt(None, None)
Result = Receipt | Conflict | UnknownEntity


class Intake:
    """Settings of the community → trigger? → journal row (committed) → receipt."""

    def __init__(
        self,
        hashing: Hashing,
        communities: Communities,
        limits: Limits,
        cache: CacheManager,
        contents: Contents,
        interactions: Interactions,
        worker: Worker,
        tasks: Tasks,
        metrics: Metrics,
        numbers: Numbers,
        tracing: Tracing,
        log: Log,
        gather_seconds: float,
    ) -> None:
        self._gather_seconds = gather_seconds
        self._communities = communities
        self._limits = limits
        self._cache = cache
        self._contents = contents
        self._interactions = interactions
        self._worker = worker
        self._tasks = tasks
        self._metrics = metrics
        self._numbers = numbers
        self._tracing = tracing
        self._untriggered = metrics.events["untriggered"]
        self._log = log
        self._hashing = hashing
        self._journal: GroupCommit[Entry, Repeat | None] = GroupCommit(self._commit, tasks, PATIENCE_SECONDS)
        self.closed = False

    async def accept_all(self, events: list[ChatEvent], dedupe_id: str | None, request_id: str) -> list[Result]:
        """Take events, those that trigger in one commit; a result for each.

        `dedupe_id` stands in for an absent `event_id`. Raises Closed, DatabaseUnavailable.
        """
        if self.closed:
            raise Closed
        received = time.monotonic()
        communities = await self._communities.of(events)
        for event in events:
            if event.message_type in LIVE:
                await self._communities.note_live(event.entity_id, live=LIVE[event.message_type])
                communities = await self._communities.of(events)
        results: list[Result] = []
        entries: dict[int, Entry] = {}
        trace = self._tracing.here
        for number, event in enumerate(events):
            community = communities.get(event.entity_id)
            results.append(_NOTHING if community else UnknownEntity(event.entity_id))
            trigger = self._trigger(event, community) if community else None
            if community and community.settings.heard and event.message_type == CHAT:
                self._hear(event, community)
            if community and trigger:
                ids = new_id(), community.community_id
                item = Interaction(*ids, event, trigger, received, request_id=request_id, trace=trace)
                entries[number] = self._entry(item, community, event.event_id or dedupe_id)
        self._untriggered.inc(results.count(_NOTHING) - len(entries))
        if entries:
            for entry in entries.values():
                free = not entry.suppressed and not entry.gather_seconds
                entry.leased = free and self._worker.reserve(entry.item)
            urgent = any(entry.leased for entry in entries.values())  # the rest waits for a slot anyway
            with self._tracing.span("journal"):
                repeats = await self._journal.submit(list(entries.values()), urgent=urgent)
            for (number, entry), repeat in zip(entries.items(), repeats, strict=True):
                results[number] = self._result(entry, repeat)
        return results

    def _hear(self, event: ChatEvent, community: Community) -> None:
        """Take a message into what is known of the recent chat of its channel."""
        heard = Heard(event.user_id, event.name, event.message_content, time.time(), event.event_id or "")
        self._cache.hear(ChannelKey(community.community_id, event.entity_id), heard, community.settings.heard)

    def _trigger(self, event: ChatEvent, community: Community) -> Trigger | None:
        """Why an event is answered; a command is, also by a co-host that is off."""
        command = read_command(event)
        if command is not None:
            return Trigger(COMMAND, command.text)
        if not community.speaks(live=self._communities.is_live(event.entity_id)):
            return None
        return community.triggers.match(event)

    def _entry(self, item: Interaction, community: Community, dedupe_id: str | None) -> Entry:
        gather_seconds = self._gather_seconds if gathers(item.event, item.trigger) else 0.0
        # What waits for others takes its place when they are answered as one.
        limits = limits_of(item.community_id, community.settings, item.event, item.trigger)
        taking = Taking(item.interaction_id, () if gather_seconds else limits)
        # What is full already holds an event back at once; places are taken when it is known to be no repeat.
        suppressed = "bot_author" if community.triggers.is_bot(item.event) else self._limits.full(taking)
        as_json = item.event.model_dump_json()
        event_hash = self._hashing.event(item.event, as_json)
        sealed = self._contents.seal(
            item.interaction_id, community.settings, item.trigger, item.event.message_content, None
        )
        key, seconds = (given_key(dedupe_id), ID_SECONDS) if dedupe_id else (own_key(event_hash), SAME_EVENT_SECONDS)
        return Entry(
            item, as_json, key, event_hash, seconds, taking, suppressed, sealed=sealed, gather_seconds=gather_seconds
        )

    async def _commit(self, entries: list[Entry]) -> list[Repeat | None]:
        """Journal entries and start work on those that are new, whether or not their callers still wait."""
        repeats: list[Repeat | None] | None = None
        try:
            repeats = await self._interactions.insert(entries)
        finally:
            for number, entry in enumerate(entries):
                if entry.leased and (repeats is None or repeats[number] is not None):
                    self._worker.release(entry.item.community_id)
        fresh = [entry for entry, repeat in zip(entries, repeats, strict=True) if repeat is None]
        allowed = [entry for entry in fresh if not entry.suppressed and self._take(entry)]
        limited = [entry for entry in allowed if entry.taking.limits]
        if limited:
            for entry in limited:
                entry.item = dataclasses.replace(entry.item, held_back=asyncio.get_running_loop().create_future())
            self._tasks.spawn(self._take_for_all(limited), "take places")
        for entry in fresh:
            self._begin(entry)
        return repeats

    def _take(self, entry: Entry) -> bool:
        """Whether it finds a place under its limits as this instance counts; one that does not is held back."""
        reason = self._limits.take(entry.taking)
        if reason is None:
            return True
        if entry.leased:
            self._worker.release(entry.item.community_id)
        entry.suppressed = reason
        self._tasks.spawn(self._hold_back(entry, reason), "hold back")
        return False

    async def _hold_back(self, entry: Entry, reason: str) -> None:
        await self._interactions.hold_back(entry.item.interaction_id, reason, entry.sealed)

    async def _take_for_all(self, entries: list[Entry]) -> None:
        """As all instances count; a worker hears of it from `held_back`, what waits for one is held back here."""
        reasons: list[str | None] = [None] * len(entries)
        try:
            reasons = await self._limits.take_for_all([entry.taking for entry in entries])
        finally:
            for entry, reason in zip(entries, reasons, strict=True):
                if entry.item.held_back is not None:
                    entry.item.held_back.set_result(reason)
        for entry, reason in zip(entries, reasons, strict=True):
            if reason and not entry.leased:
                item = entry.item
                if await self._interactions.hold_back(item.interaction_id, reason, entry.sealed):
                    self._metrics.note_end(item.trigger.type, "suppressed", item.age)
                    self._numbers.note_end(item.community_id, item.trigger.type, "suppressed", item.age)
                    self._tracing.suppressed(item, reason)

    def _note_suppressed(self, item: Interaction) -> None:
        self._metrics.outcomes[item.trigger.type, "suppressed"].inc()
        self._numbers.note_end(item.community_id, item.trigger.type, "suppressed", item.age)

    def _begin(self, entry: Entry) -> None:
        item = entry.item
        if entry.suppressed:
            self._note_suppressed(item)
        if entry.leased and not entry.suppressed:
            self._worker.start(item)
        elif entry.gather_seconds and not entry.suppressed:
            self._worker.expect(entry.gather_seconds)
        elif not entry.suppressed:
            self._worker.wake(item.community_id)
        if entry.suppressed:
            self._tracing.suppressed(item, entry.suppressed)
        self._metrics.events["suppressed" if entry.suppressed else "triggered"].inc()
        self._metrics.triggers[item.trigger.type].inc()
        self._log.audit(
            "interaction.suppressed" if entry.suppressed else "interaction.received",
            f"{item.trigger.type} on {item.event.platform}",
            user=self._hashing.user(item.event.platform, item.event.user_id),
            community=str(item.community_id),
            interaction=str(item.interaction_id),
            result="SUPPRESSED" if entry.suppressed else "ACCEPTED",
            reason=entry.suppressed,
            request_id=item.request_id,
            **trace_fields(item.trace),
        )

    def _result(self, entry: Entry, repeat: Repeat | None) -> Result:
        if repeat is None:
            return Receipt(entry.item.interaction_id, entry.item.trigger)
        if not repeat.same:
            return Conflict(entry.dedupe_key)
        self._metrics.events["duplicate"].inc()
        return Receipt(repeat.interaction_id, repeat.trigger, duplicate=True)

    async def cancel(self, entity_id: str, event_id: str | None, user_id: str | None) -> int:
        """Suppress what was not sent yet of a deleted message or a banned user; how many.

        Raises DatabaseUnavailable.
        """
        cancelled = await self._interactions.cancel(entity_id, event_id, user_id)
        community_id = await self._communities.id_of(entity_id)
        if community_id is not None:
            await self._cache.unhear(ChannelKey(community_id, entity_id), event_id, user_id)
        self._metrics.events["suppressed"].inc(len(cancelled))
        for interaction_id, trigger_type in cancelled.items():
            self._metrics.outcomes[trigger_type, "suppressed"].inc()
            if community_id is not None:
                self._numbers.note_end(community_id, trigger_type, "suppressed", 0.0)
            self._log.audit("interaction.suppressed", "cancelled by the router", interaction=str(interaction_id))
        return len(cancelled)
