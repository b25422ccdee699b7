"""Events in, ACKs out; what became of an interaction."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from quart import Blueprint, g, request

from routes.body import read_body
from routes.context import BASE, require, sidecast, success
from routes.errors import APIError
from services.communities import UnknownEntity
from services.events import ChatEvent
from services.intake import Closed, Conflict, Receipt
from services.interactions import Outcome
from services.keys import SERVICE

blueprint = Blueprint("interactions", __name__, url_prefix=BASE)


@blueprint.post("/interaction")
async def post_interaction() -> dict[str, Any]:
    """Take one event; answered when it is journaled, or found to trigger nothing."""
    began = time.perf_counter()
    require(SERVICE)
    event = await read_body(ChatEvent)
    headers = request.headers
    dedupe_id = headers.get("Idempotency-Key") or headers.get("webhook-id")
    if dedupe_id is not None and len(dedupe_id) > 255:
        problem = [{"field": "Idempotency-Key", "problem": "at most 255 characters"}]
        raise APIError(400, "INVALID_REQUEST", "The request has invalid fields.", problem)
    services = sidecast()
    try:
        receipt = await services.intake.accept(event, dedupe_id, g.request_id)
    except Conflict:
        raise APIError(409, "CONFLICT", "This id came before with another body; the first one stands.") from None
    except Closed:
        raise APIError(503, "SERVICE_UNAVAILABLE", "This instance is stopping; try again.") from None
    except UnknownEntity:
        problem = [{"field": "entity_id", "problem": "belongs to no community here"}]
        raise APIError(404, "NOT_FOUND", "This channel is not registered.", problem) from None
    services.metrics.ack.observe(time.perf_counter() - began)
    return success(_ack(event, receipt))


@blueprint.get("/interaction/<interaction_id>")
async def get_interaction(interaction_id: str) -> dict[str, Any]:
    """What became of an interaction and why; texts while they are kept."""
    require(SERVICE)
    outcome = None
    try:
        outcome = await sidecast().interactions.select(UUID(interaction_id))
    except ValueError:
        pass
    if outcome is None:
        raise APIError(404, "NOT_FOUND", "There is no such interaction.")
    return success(_outcome(outcome))


def _ack(event: ChatEvent, receipt: Receipt) -> dict[str, Any]:
    trigger = receipt.trigger
    return {
        "message": "Processing request",
        "session_id": event.session_id,
        "interaction_id": str(receipt.interaction_id) if receipt.interaction_id else None,
        "triggered": trigger is not None,
        "trigger": {"type": trigger.type, "match": trigger.match} if trigger else None,
        "duplicate": receipt.duplicate,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "interaction_id": str(outcome.interaction_id),
        "community_id": str(outcome.community_id),
        "state": outcome.state,
        "trigger": {"type": outcome.trigger.type, "match": outcome.trigger.match},
        "reason": outcome.reason,
        "provider": outcome.provider,
        "model": outcome.model,
        "tokens": {"prompt": outcome.prompt_tokens, "completion": outcome.completion_tokens},
        "attempts": outcome.attempts,
        "timings": outcome.timings,
        "received_at": outcome.received_at,
        "message": outcome.message,
        "reply": outcome.reply,
    }
