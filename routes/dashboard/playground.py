"""The playground: say something as anyone on any platform, and see what becomes of it and why."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from quart import Response

from routes.body import details
from routes.context import request_id, sidecast
from routes.dashboard.room import blueprint, community_of, fields, page, visitor
from routes.dashboard.words import PLATFORMS
from routes.errors import APIError
from services.activity import Call
from services.communities import Community
from services.events import CHAT, ChatEvent
from services.ids import new_id
from services.intake import Closed
from services.interactions import Outcome
from services.keys import COMMUNITY
from services.playground import Made, made_of
from services.trial import Trace

# Buttons, each with what its event tells besides: names and values as `metadata` has them.
EVENTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("follow", "Follow", ()),
    ("subscription", "Subscribe", ()),
    ("subscription", "Resub", (("months", "6"),)),
    ("gift_subscription", "Gift subs", (("count", "5"),)),
    ("cheer", "Cheer", (("amount", "100 bits"),)),
    ("donation", "Donate", (("amount", "5.00 EUR"),)),
    ("raid", "Raid", (("viewers", "120"),)),
    ("member_join", "Join", ()),
    ("boost", "Boost", ()),
)
ENDED = frozenset({"delivered", "suppressed", "expired", "failed", "undeliverable"})


@blueprint.get("/communities/<community_id>/playground")
async def get_playground(community_id: str) -> str:
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    return await page("playground.html", who, community, platforms=PLATFORMS, events=EVENTS)


@blueprint.post("/communities/<community_id>/playground")
async def post_playground(community_id: str) -> Response:
    """Take an event as a router's; its line, which goes on to show what becomes of it."""
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    services = sidecast()
    event = _event(await fields(), await services.playground.enter(community.community_id, who.principal.name))
    community = await community_of(who, community_id)
    try:
        [receipt] = await services.intake.accept_all([event], None, request_id())
    except Closed:
        raise APIError(503, "SERVICE_UNAVAILABLE", "This instance is stopping. Try again.") from None
    if isinstance(receipt, Exception):
        raise APIError(404, "NOT_FOUND", "The playground's channel belongs to no community. Load the page again.")
    about = {"event": event, "receipt": receipt, "why": _why(event, community)}
    return Response(await page("said.html", who, community, **about))


@blueprint.get("/communities/<community_id>/playground/<interaction_id>")
async def get_said(community_id: str, interaction_id: str) -> str:
    """What became of an event: while it is under way, a line that asks again."""
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    outcome = await known_outcome(community, interaction_id)
    about: dict[str, Any] = {"outcome": outcome, "ended": outcome.state in ENDED}
    if about["ended"]:
        about |= await trace_about(outcome)
    return await page("outcome.html", who, community, **about)


@blueprint.post("/communities/<community_id>/playground/try")
async def post_try(community_id: str) -> str:
    """What would be said to a message; nothing is posted or remembered."""
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    event = _event(await fields(), "test:channel")
    trace = await sidecast().trial.run(event, community)
    return await page("tried.html", who, community, event=event, **tried_about(event, trace, community))


async def known_outcome(community: Community, interaction_id: str) -> Outcome:
    """Raises APIError 404."""
    outcome = None
    try:
        outcome = await sidecast().activity.one(community, UUID(interaction_id))
    except ValueError:
        pass
    if outcome is None:
        raise APIError(404, "NOT_FOUND", "There is no such interaction, or it was trimmed since.")
    return outcome


async def trace_about(outcome: Outcome) -> dict[str, Any]:
    """All that is known of how an interaction went."""
    services = sidecast()
    await services.ledger.flush()
    calls: list[Call] = await services.activity.calls(outcome)
    made: Made | None = await services.playground.find(outcome.interaction_id)
    return {"calls": calls, "made": made, "said": outcome.reply or (made.said if made else None)}


def tried_about(event: ChatEvent, trace: Trace, community: Community) -> dict[str, Any]:
    """As `trace_about`, of something that was only tried."""
    made = made_of(event, trace.reply, trace.making, community.settings)
    return {"trace": trace, "made": made, "said": made.said, "calls": []}


def _why(event: ChatEvent, community: Community) -> str:
    """Why nothing is said to an event."""
    if not community.speaks(live=None):
        return "the co-host is off, it is a quiet hour, or it answers only while the channel is live"
    return community.triggers.decide(event).why


def _event(given: dict[str, str], channel: str) -> ChatEvent:
    """Raises APIError 400."""
    kind = given.get("event", "") or CHAT
    name = given.get("username", "").strip() or "viewer"
    try:
        metadata = json.loads(given.get("metadata") or "{}")
        return ChatEvent.model_validate(
            {
                "session_id": f"playground-{new_id()}",
                "message_type": kind,
                "message_content": given.get("message", ""),
                "user_id": f"playground-{name.casefold()}",
                "username": name,
                "display_name": name,
                "entity_id": channel,
                "platform": given.get("platform", ""),
                "event_id": str(new_id()),
                "roles": [role for role in ("broadcaster", "moderator", "subscriber") if given.get(role)],
                "metadata": metadata,
            }
        )
    except ValidationError as error:
        problems = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in details(error)[:3])
        raise APIError(400, "INVALID_REQUEST", f"This cannot be said: {problems}.") from None
    except ValueError:
        raise APIError(400, "INVALID_REQUEST", "The details of the event are no JSON.") from None
