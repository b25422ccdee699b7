"""Tries a message out: what the co-host would say to it, and why.

Nothing is journaled or posted, though what a model answers costs what it costs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from services.commands import read_command
from services.communities import Community
from services.composer import Composer, Making, NoReply
from services.events import ChatEvent
from services.ids import new_id
from services.interactions import Interaction, Reply
from services.ledger import Account
from services.settings import DEFAULTS
from services.triggers import COMMAND, Trigger


@dataclass(frozen=True)
class Trace:
    """The reply, if there is one; the trigger; how the reply was made; or `reason`, why there is none.

    `why` says of a message that triggers nothing what it lacks.
    """

    trigger: Trigger | None
    reply: Reply | None
    making: Making
    reason: str | None
    why: str = ""


class Trial:
    """Tries an event on a community as it is now, as though its channel were live."""

    def __init__(self, composer: Composer) -> None:
        self._composer = composer

    async def run(self, event: ChatEvent, community: Community) -> Trace:
        """Raises DatabaseUnavailable."""
        began, making = time.monotonic(), Making()
        if read_command(event) is not None:
            return Trace(Trigger(COMMAND, event.message_content), None, making, "commands_are_not_tried")
        decision = community.triggers.decide(event)
        trigger = decision.trigger
        if trigger is None:
            return Trace(None, None, making, "no_trigger", decision.why)
        if community.triggers.is_bot(event):
            return Trace(trigger, None, making, "bot_author")
        if not community.speaks(live=True):
            return Trace(trigger, None, making, "off_or_quiet")
        known = community.community_id != DEFAULTS
        account = Account(community.community_id if known else None)
        item = Interaction(new_id(), community.community_id, event, trigger, began)
        try:
            reply = await self._composer.compose(item, community, account, making)
        except NoReply as nothing:
            return Trace(trigger, None, making, nothing.reason)
        finally:
            making.timings["total"] = round((time.monotonic() - began) * 1000, 1)
        return Trace(trigger, reply, making, reply.reason)
