"""What the co-host does: a live list with filters, and all that is known of one interaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from quart import Response, request

from routes.context import sidecast
from routes.dashboard.playground import ENDED, known_outcome, trace_about, tried_about
from routes.dashboard.room import blueprint, community_of, in_query, page, visitor
from routes.dashboard.words import PLATFORMS, STATES
from routes.errors import APIError
from services.communities import Community
from services.events import ChatEvent
from services.history import BadCursor, Wanted
from services.interactions import Outcome
from services.keys import COMMUNITY

PAGE_ROWS = 50
TRIGGERS = ("greeting", "farewell", "question", "mention", "command", "custom", "event")
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class _Filter(BaseModel):
    """What is shown; empty is all."""

    model_config = ConfigDict(extra="ignore")

    platform: str = Field("", max_length=50)
    state: str = Field("", max_length=50)
    trigger: str = Field("", max_length=50)
    user_id: str = Field("", max_length=255)
    entity_id: str = Field("", max_length=255)
    cursor: str = Field("", max_length=200)

    @property
    def wanted(self) -> Wanted:
        given = {name: value or None for name, value in self.model_dump().items()}
        return Wanted(trigger_type=given.pop("trigger"), **given)


@blueprint.get("/communities/<community_id>/activity")
async def get_activity(community_id: str) -> str:
    """The list, or for htmx its rows alone."""
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    asked = _filter()
    about = await _rows(community, asked)
    whole = "rows" not in request.args
    choices = {"platforms": PLATFORMS, "states": STATES, "triggers": TRIGGERS}
    name = "activity.html" if whole else "activity_rows.html"
    return await page(name, who, community, asked=asked, **about, **choices)


@blueprint.get("/communities/<community_id>/activity/live")
async def get_happenings(community_id: str) -> Response:
    """Server-sent events: `changed` whenever something happened in the community."""
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    if sidecast().live.is_full(community.community_id):
        raise APIError(503, "SERVICE_UNAVAILABLE", "So many watch already; load the page again for news.")
    watching = sidecast().live.watch(community.community_id)

    async def tell() -> AsyncIterator[bytes]:
        yield b"retry: 3000\n\n"
        async for news in watching:
            yield b"event: changed\ndata: " + (b"news" if news else b"perhaps") + b"\n\n"

    response = Response(tell(), headers=_STREAM)
    response.timeout = None
    return response


@blueprint.get("/communities/<community_id>/activity/<interaction_id>")
async def get_one(community_id: str, interaction_id: str) -> str:
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    outcome = await known_outcome(community, interaction_id)
    about: dict[str, Any] = {"outcome": outcome, "ended": outcome.state in ENDED}
    return await page("interaction.html", who, community, **about, **await trace_about(outcome))


@blueprint.post("/communities/<community_id>/activity/<interaction_id>/again")
async def post_again(community_id: str, interaction_id: str) -> str:
    """What would be said to it now; nothing is posted."""
    who = await visitor(COMMUNITY)
    community = await community_of(who, community_id)
    event = _event(await known_outcome(community, interaction_id))
    trace = await sidecast().trial.run(event, community)
    return await page("tried.html", who, community, event=event, **tried_about(event, trace, community))


def _event(outcome: Outcome) -> ChatEvent:
    """The event again, as far as it was kept. Raises APIError 404."""
    if outcome.message is None:
        raise APIError(404, "NOT_FOUND", "Its text was not kept.")
    return ChatEvent(
        session_id="again",
        message_type=outcome.message_type,
        message_content=outcome.message,
        user_id=f"again-{outcome.interaction_id}",
        username="viewer",
        entity_id="test:channel",
        platform=outcome.platform,
    )


def _filter() -> _Filter:
    try:
        given = request.args.to_dict()
        return _Filter.model_validate({name: value.replace("\0", "") for name, value in given.items()})
    except ValidationError:
        raise APIError(400, "INVALID_REQUEST", "The filter is too long.") from None


async def _rows(community: Community, asked: _Filter) -> dict[str, Any]:
    activity = sidecast().activity
    under_way = await activity.under_way(community, asked.wanted, PAGE_ROWS)
    try:
        ended, following = await activity.ended(community, asked.wanted, PAGE_ROWS)
    except BadCursor:
        raise APIError(400, "INVALID_REQUEST", "This page is not known. Begin anew.") from None
    shown = in_query(**asked.model_dump(exclude={"cursor"}))
    return {"under_way": under_way, "ended": ended, "following": following, "query": shown}
