"""Answers what the journal holds: context → prompt → model → reply → delivery, one task an interaction.

A slot (of `MAX_CONCURRENT_REQUESTS`) is held while a reply is made, not while it is delivered. What finds no slot
waits in PostgreSQL. A quarter of the slots is out of any one community's reach, so that a raid on one leaves room
for the others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from structlog.contextvars import bound_contextvars

from config import Settings
from services.bus import MESSAGE_ADDED, Bus
from services.cache_manager import CacheManager, Exchange, UserKey
from services.commands import Commands
from services.communities import Communities, Community
from services.composer import EXPIRED, Composer, Making, NoReply, user_of
from services.database import DatabaseUnavailable
from services.deliveries import Deliveries
from services.events import is_playground
from services.gathering import Gathering
from services.hashing import Hashing
from services.interactions import Interaction, Interactions, Reply
from services.leases import Leases
from services.ledger import Account
from services.limits import Limits, Taking, limits_of
from services.logs import Log
from services.metrics import Metrics
from services.playground import Playground
from services.prompts import what_was_said
from services.repeats import Repeats
from services.replies import fit, manner_of, reworded
from services.summaries import Summaries
from services.tasks import Tasks
from services.tracing import Tracing
from services.triggers import COMMAND

CLAIM_SECONDS = 1.0
DUE_SECONDS = 0.01
UNDONE = "I could not do that, please try again later."
RESERVED = 0.25
# Between two looks at the journal: one that fills several slots costs PostgreSQL no more than one that fills one.
PAUSE_SECONDS = 0.02
# Where the processor is nearly full and other communities have nothing waiting, those that do yield to them: the next
# look comes later. With nobody to yield to no slot is left empty, or what waits would grow by itself.
BUSY_SHARE = 0.65
BUSY_WINDOW = 0.1
LONGEST_PAUSE = 0.5
OTHERS_SECONDS = 1.0


class Worker:
    """The slots, and the loops that fill them."""

    def __init__(
        self,
        settings: Settings,
        hashing: Hashing,
        interactions: Interactions,
        leases: Leases,
        communities: Communities,
        cache: CacheManager,
        summaries: Summaries,
        repeats: Repeats,
        commands: Commands,
        composer: Composer,
        gathering: Gathering,
        playground: Playground,
        limits: Limits,
        deliveries: Deliveries,
        bus: Bus,
        tasks: Tasks,
        metrics: Metrics,
        tracing: Tracing,
        log: Log,
    ) -> None:
        self._settings = settings
        self._interactions = interactions
        self._leases = leases
        self._communities = communities
        self._cache = cache
        self._summaries = summaries
        self._repeats = repeats
        self._commands = commands
        self._composer = composer
        self._gathering = gathering
        self._playground = playground
        self._limits = limits
        self._deliveries = deliveries
        self._bus = bus
        self._tasks = tasks
        self._metrics = metrics
        self._tracing = tracing
        self._log = log
        self._hashing = hashing
        self._slots = settings.max_concurrent_requests
        self._share = max(self._slots - math.ceil(self._slots * RESERVED), 1)
        self._busy: Counter[UUID] = Counter()  # slots by community
        self._behind: set[UUID] = set()  # communities that, as far as is known here, have work waiting in PostgreSQL
        self._came_meanwhile: set[UUID] = set()  # of those, what came since the last look at the journal began
        self._others_at = -OTHERS_SECONDS  # when something was last begun at once while other things waited
        self._processor = _Processor()
        self._wake = asyncio.Event()
        self._woken = False

    def open(self) -> None:
        self._tasks.repeat(self._claim_waiting, self._until_work, "claim waiting")
        self._tasks.repeat(self._claim_due, self._until_due, "claim due")

    def reserve(self, item: Interaction) -> bool:
        """Take a slot for an interaction, if one is free and nothing of its community waits for it.

        What the reply will need is fetched from now on, while the interaction is committed.
        """
        community_id = item.community_id
        if self._slots == 0 or self._busy[community_id] >= self._share or community_id in self._behind:
            return False
        self._slots -= 1
        self._busy[community_id] += 1
        if self._behind:
            self._others_at = time.monotonic()
        self._cache.expect(user_of(item), None)
        return True

    def release(self, community_id: UUID) -> None:
        """Give a slot back."""
        self._slots += 1
        self._busy[community_id] -= 1
        if not self._busy[community_id]:
            del self._busy[community_id]
        if self._behind:
            self._wake.set()

    def wake(self, community_id: UUID) -> None:
        """Something of this community waits in PostgreSQL."""
        self._behind.add(community_id)
        self._came_meanwhile.add(community_id)
        if self._slots and self._busy[community_id] < self._share:
            self._wake.set()

    def expect(self, seconds: float) -> None:
        """Something waits for others for so long, and is then to be taken up."""
        asyncio.get_running_loop().call_later(seconds + DUE_SECONDS, self._deliveries.due.set)

    def start(self, item: Interaction) -> None:
        """Work on an interaction that this instance holds; its slot is taken already."""
        self._leases.hold(item.interaction_id)
        self._tasks.spawn(self._run(item, with_slot=True), f"interaction {item.interaction_id}")

    async def _run(self, item: Interaction, *, with_slot: bool) -> None:
        user = self._hashing.user(item.event.platform, item.event.user_id)
        cut_short = False
        about = {"request_id": item.request_id, "interaction": str(item.interaction_id), "user": user}
        with bound_contextvars(**about), self._tracing.interaction(item) as span:
            try:
                answered = await self._answer_in_slot(item) if with_slot else item
                if answered is not None:
                    await self._deliveries.deliver(answered)
            except DatabaseUnavailable:
                message = "PostgreSQL went away; it is taken up again when the lease ends"
                self._log.error("interaction.interrupted", message, result="INTERRUPTED")
                span.fail("interrupted")
            except asyncio.CancelledError:
                cut_short = True
                raise
            finally:
                self._leases.let_go(item.interaction_id, cut_short=cut_short)

    async def _answer_in_slot(self, item: Interaction) -> Interaction | None:
        with self._metrics.in_flight.track_inprogress():
            try:
                return await self._answer(item)
            finally:
                self.release(item.community_id)

    async def _answer(self, item: Interaction) -> Interaction | None:
        """Make and commit the reply; None when there is none to send or another instance has taken over."""
        timings = {"waited": _ms(item.received)}
        community = await self._communities.get(item.community_id)
        if community is None:
            await self._deliveries.end(item, "suppressed", "community_gone", timings)
            return None
        making = Making(timings=timings)
        # What is too old or was tried too often ends below, by itself.
        fresh = item.age <= self._settings.reply_ttl and item.attempts <= self._settings.max_attempts
        if item.gathered == 0 and fresh:
            leading = await self._lead(item, community)
            if leading is None:
                return None
            item = leading
        try:
            if item.trigger.type == COMMAND:
                reply = await self._obey(item, community, making)
            else:
                reply = await self._composer.compose(
                    item, community, Account(item.community_id, item.interaction_id), making
                )
        except NoReply as nothing:
            await self._deliveries.end(item, nothing.state, nothing.reason, timings)
            return None
        held_back = await item.held_back if item.held_back is not None else None
        if held_back:
            await self._deliveries.end(item, "suppressed", held_back, timings)
            return None
        timings["answered"] = _ms(item.received)
        said = await self._commit(item, reply, making, community.settings.repeat_seconds)
        if said is None:
            return None
        if is_playground(item.event):
            await self._playground.keep(item, said, making, community.settings)
        self._tell(item, said, community)
        if not said.fallback and item.trigger.type != COMMAND and (item.gathered or 0) <= 1:
            exchange = Exchange(what_was_said(item.event), said.text, item.event.name, time.time() - item.age)
            remembering = self._remember(user_of(item), exchange, item.received, community)
            self._tasks.spawn(remembering, "remember")
        return dataclasses.replace(item, reply=said, deliveries=1, answered=time.monotonic())

    def _tell(self, item: Interaction, reply: Reply, community: Community) -> None:
        """Other services, of the two messages that a conversation has more now; texts where they are kept."""
        event = item.event
        about: dict[str, Any] = {"interaction_id": item.interaction_id, "trigger": item.trigger.type}
        about |= {"entity_id": event.entity_id, "platform": event.platform}
        about["user"] = self._hashing.user(event.platform, event.user_id)
        user: dict[str, Any] = {"role": "user"}
        assistant = {"role": "assistant", "provider": reply.provider, "model": reply.model, "fallback": reply.fallback}
        if community.settings.store_content and item.trigger.type != COMMAND:
            user["text"], assistant["text"] = event.message_content, reply.text
        for each in (user, assistant):
            self._bus.tell(MESSAGE_ADDED, item.community_id, about | each)

    async def _lead(self, item: Interaction, community: Community) -> Interaction | None:
        """The interaction, with those that are answered with it; None where it is not to be answered now."""
        leading = await self._gathering.lead(item)
        if leading is None:
            self.expect(self._settings.gather_seconds / 2)
            return None
        self._metrics.note_gathered(item.trigger.type, (leading.gathered or 1) - 1)
        limits = limits_of(leading.community_id, community.settings, leading.event, leading.trigger)
        taking = Taking(leading.interaction_id, limits)
        reason = self._limits.take(taking) or (await self._limits.take_for_all([taking]))[0]
        if reason:
            await self._deliveries.end(leading, "suppressed", reason)
            return None
        return leading

    async def _commit(self, item: Interaction, reply: Reply, making: Making, seconds: float) -> Reply | None:
        """Commit the reply, in other words where its channel was told the same of late; None where that cannot be."""
        texts = itertools.chain([reply.text], making.others)
        while (found := self._next_text(item, reply, texts, seconds)) is not None:
            said, key = found
            claim = asyncio.ensure_future(self._repeats.claim(key, item.interaction_id, seconds)) if key else None
            try:
                write = functools.partial(self._interactions.answer, item, said, making.timings)
                if not await self._leases.persist(write):
                    message = "it was cancelled or another instance has it"
                    self._log.info("interaction.lost_lease", message, result="DROPPED")
                    return None
                if claim is None or await claim:
                    return said
            finally:
                if claim is not None:
                    claim.cancel()
        await self._deliveries.end(item, "suppressed", "repeat", making.timings)
        return None

    def _next_text(
        self, item: Interaction, reply: Reply, texts: Iterator[str], seconds: float
    ) -> tuple[Reply, str | None] | None:
        """The first of some texts that its channel was not told, as far as is known here, and what claims it."""
        for text in texts:
            said = dataclasses.replace(reply, text=text)
            if not seconds:
                return said, None
            entity_id, whole = item.event.entity_id, said.prefix + said.text
            key = self._repeats.take(item.community_id, entity_id, whole, item.interaction_id, seconds)
            if key is not None:
                return said, key
        return None

    async def _remember(self, user: UserKey, exchange: Exchange, since: float, community: Community) -> None:
        gone = await self._cache.remember(user, exchange, since, community.settings.remembered)
        await self._summaries.add(user, community, gone)

    async def _obey(self, item: Interaction, community: Community, making: Making) -> Reply:
        """Do what a moderator asks; what to say to it. Raises NoReply."""
        manner = manner_of(item.event, community.settings)
        if item.age > self._settings.reply_ttl:
            raise NoReply(EXPIRED, "reply_ttl")
        if item.attempts > self._settings.max_attempts:
            return Reply(fit(UNDONE, manner), manner.prefix, fallback=True, reason="attempts_exhausted")
        said = fit(await self._commands.run(item.event, community), manner)
        making.others = reworded(said, item.event.name, manner)
        return Reply(said, manner.prefix)

    async def _claim_waiting(self) -> None:
        """Fill the free slots from the journal, in turns between communities."""
        # No more than what is known to wait can take, or half where nothing is: the others stay free for who comes
        # meanwhile.
        slots = -(-self._slots // 2)
        if self._woken:
            known = sum(max(self._share - self._busy[community], 0) for community in self._behind)
            slots = min(self._slots, known)
        if slots <= 0:
            return
        self._slots -= slots
        self._came_meanwhile.clear()
        rooms = {community: max(self._share - busy, 0) for community, busy in self._busy.items()}
        claimed: list[Interaction] = []
        try:
            claimed = await self._interactions.claim_waiting(slots, self._share, rooms)
        except DatabaseUnavailable:
            return
        finally:
            self._slots += slots - len(claimed)
        self._busy.update(item.community_id for item in claimed)
        if len(claimed) < slots:
            # All was taken, but for what came since and for communities that have their share.
            full = {community for community, busy in self._busy.items() if busy >= self._share}
            self._behind = self._came_meanwhile | full
        else:
            self._behind |= {item.community_id for item in claimed}
        if self._slots and any(self._busy[community] < self._share for community in self._behind):
            self._wake.set()
        for item in claimed:
            self.start(item)

    async def _until_work(self) -> None:
        """Return when a slot is free and work waits, and every second to see what other instances left."""
        await asyncio.sleep(PAUSE_SECONDS)
        over = (self._processor.share() - BUSY_SHARE) / (1 - BUSY_SHARE)
        if over > 0 and time.monotonic() - self._others_at < OTHERS_SECONDS:
            await asyncio.sleep(LONGEST_PAUSE * min(over, 1))
        self._woken = await _wait(self._wake)

    async def _claim_due(self) -> None:
        """Take up what a dead instance held, and replies whose next delivery is due."""
        room = self._deliveries.room
        if room == 0:
            return
        try:
            claimed = await self._interactions.claim_due(room, self._leases.held)
        except DatabaseUnavailable:
            return
        for item in claimed:
            if item.reply is None:
                self.wake(item.community_id)
                continue
            self._leases.hold(item.interaction_id)
            self._tasks.spawn(self._run(item, with_slot=False), f"delivery {item.interaction_id}")
        if len(claimed) == room:
            self._deliveries.due.set()

    async def _until_due(self) -> None:
        await _wait(self._deliveries.due)


class _Processor:
    """How much of one processor this process takes."""

    def __init__(self) -> None:
        self._since = time.monotonic(), time.process_time()
        self._share = 0.0

    def share(self) -> float:
        """Between 0 and 1, over the last tenth of a second or more."""
        now, used = time.monotonic(), time.process_time()
        passed = now - self._since[0]
        if passed > BUSY_WINDOW:
            self._share = (used - self._since[1]) / passed
            self._since = now, used
        return self._share


async def _wait(event: asyncio.Event) -> bool:
    """Until the event is set, for a second at most; whether it was. It is cleared."""
    try:
        async with asyncio.timeout(CLAIM_SECONDS):
            return await event.wait()
    except TimeoutError:
        return False
    finally:
        event.clear()


def _ms(since: float) -> float:
    """Milliseconds since a moment of the monotonic clock."""
    return round((time.monotonic() - since) * 1000, 1)
