"""Trying it out: what the co-host would say, and why."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from quart import Blueprint

from routes.body import read_body
from routes.connection import BASE
from routes.context import not_found, own_community, require, sidecast, success, while_heard
from routes.openapi import describe
from routes.shapes.answers import TrialTrace
from services.events import CHAT, ChatEvent, Kind, Metadata, Name, Platform, Said
from services.ids import new_id
from services.keys import COMMUNITY
from services.trial import Trace

blueprint = Blueprint("trial", __name__, url_prefix=BASE)


class Tried(BaseModel):
    """A message as someone in the chat might write it; or an event, by its `message_type` and `metadata`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    message: Said
    community_id: str | None = None
    platform: Platform = "twitch"
    username: Name = "tester"
    message_type: Kind = CHAT
    metadata: Metadata = {}


@blueprint.post("/test")
@describe(TrialTrace, roles=[COMMUNITY], body=Tried, errors=[404])
async def post_test() -> dict[str, Any]:
    """The reply that a message would get now, and the whole trace of it; nothing is posted or remembered."""
    principal = await require(COMMUNITY)
    tried = await read_body(Tried)
    services = sidecast()
    community_id = own_community(principal, tried.community_id)
    communities = services.communities
    community = await (communities.get(community_id) if community_id else communities.of_all())
    if community is None:
        raise not_found()
    event = ChatEvent(
        session_id="test",
        message_type=tried.message_type,
        message_content=tried.message,
        user_id=f"test-{new_id()}",
        username=tried.username,
        entity_id="test:channel",
        platform=tried.platform,
        metadata=tried.metadata,
    )
    async with while_heard():
        return success(_told(await services.trial.run(event, community)))


def _told(trace: Trace) -> dict[str, Any]:
    reply, trigger = trace.reply, trace.trigger
    return {
        "reply": reply and reply.prefix + reply.text,
        "reason": trace.reason,
        "why": trace.why,
        "fallback": bool(reply and reply.fallback),
        "trigger": {"type": trigger.type, "match": trigger.match} if trigger else None,
        "provider": reply and reply.provider,
        "model": reply and reply.model,
        "tokens": {"prompt": reply and reply.prompt_tokens, "completion": reply and reply.completion_tokens},
        "prompt": list(trace.making.messages),
        "budget": trace.making.step,
        "timings": trace.making.timings,
    }
