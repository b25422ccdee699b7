"""Events in, ACKs out; what became of an interaction; cancelling."""

from __future__ import annotations

import time
from typing import Annotated, Any
from uuid import UUID

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.config import JsonDict
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.body import details, read_signed
from routes.connection import BASE, BATCH_PATH
from routes.context import headers, request_id, require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes.answers import Ack, BatchResults, Cancelled, Interaction
from routes.shapes.requests import BatchBody, EventHeaders, SignedHeaders
from services.communities import UnknownEntity
from services.events import PLAYGROUND, ChatEvent, Name, is_playground
from services.intake import Closed, Conflict, Receipt, Result
from services.interactions import Outcome
from services.keys import COMMUNITY, SERVICE

blueprint = Blueprint("interactions", __name__, url_prefix=BASE)
MAX_ID = 255


class Batch(BaseModel):
    """Events, each checked apart, so that a bad one fails alone."""

    events: Annotated[list[Any], Field(min_length=1, max_length=500)]


def _given(name: str) -> JsonDict:
    return {"required": [name], "properties": {name: {"type": "string"}}}


class Cancellation(BaseModel):
    """A message that was deleted, or a user who was banned, in one channel."""

    model_config = ConfigDict(strict=True, json_schema_extra={"oneOf": [_given("event_id"), _given("user_id")]})

    entity_id: Name
    event_id: Name | None = None
    user_id: Name | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Cancellation:
        if (self.event_id is None) == (self.user_id is None):
            raise ValueError("event_id or user_id must be given, and not both")
        return self


@blueprint.post("/interaction")
@describe(Ack, roles=[SERVICE], body=ChatEvent, headers=EventHeaders, errors=[404, 409])
async def post_interaction() -> dict[str, Any]:
    """Take one event; answered when it is journaled, or found to trigger nothing."""
    began = time.perf_counter()
    await require(SERVICE, counted=False)
    event = _a_router_may_post(await read_signed(ChatEvent))
    services = sidecast()
    [result] = await _accept([event], _dedupe_id())
    if isinstance(result, Exception):
        raise _refusal(result)
    services.metrics.ack.observe(time.perf_counter() - began)
    return success(_ack(event, result))


@blueprint.post(BATCH_PATH.removeprefix(BASE))
@describe(BatchResults, roles=[SERVICE], body=BatchBody, headers=SignedHeaders)
async def post_batch() -> dict[str, Any]:
    """Take up to 500 events; a result for each, in order."""
    await require(SERVICE, counted=False)
    batch = await read_signed(Batch)
    events: dict[int, ChatEvent] = {}
    results: dict[int, dict[str, Any]] = {}
    for index, posted in enumerate(batch.events):
        try:
            events[index] = _a_router_may_post(ChatEvent.model_validate(posted))
        except APIError as refused:
            results[index] = {"index": index, "success": False, "error": refused.as_dict()}
        except ValidationError as error:
            refusal = APIError(400, "INVALID_REQUEST", "The event has invalid fields.", details(error))
            results[index] = {"index": index, "success": False, "error": refusal.as_dict()}
    taken = await _accept(list(events.values()), None) if events else []
    for (index, event), result in zip(events.items(), taken, strict=True):
        if isinstance(result, Exception):
            results[index] = {"index": index, "success": False, "error": _refusal(result).as_dict()}
        else:
            results[index] = {"index": index, "success": True, "data": _ack(event, result)}
    return success({"results": [results[index] for index in range(len(batch.events))]})


@blueprint.post("/interaction/cancel")
@describe(Cancelled, roles=[SERVICE], body=Cancellation, headers=SignedHeaders)
async def post_cancellation() -> dict[str, Any]:
    """Suppress the replies that were not sent yet."""
    await require(SERVICE, counted=False)
    body = await read_signed(Cancellation)
    cancelled = await sidecast().intake.cancel(body.entity_id, body.event_id, body.user_id)
    return success({"cancelled": cancelled})


@blueprint.get("/interaction/<interaction_id>")
@describe(Interaction, roles=[SERVICE, COMMUNITY])
async def get_interaction(interaction_id: str) -> dict[str, Any]:
    """What became of an interaction and why; texts while they are kept."""
    principal = await require(SERVICE, COMMUNITY, counted=False)
    outcome = None
    try:
        outcome = await sidecast().interactions.select(UUID(interaction_id))
    except ValueError:
        pass
    if outcome is None or principal.community_id not in {None, outcome.community_id}:
        raise APIError(404, "NOT_FOUND", "There is no such interaction.")
    return success(_outcome(outcome))


@blueprint.cli.command("redrive")
@click.option("--community", type=click.UUID, help="of this community alone")
@pass_script_info
def redrive(info: ScriptInfo, community: UUID | None) -> None:
    """Offer replies that the router did not take once more."""
    count = command.run(info, lambda services: services.interactions.redrive(community))
    click.echo(f"{count} replies are offered to the router again")


async def _accept(events: list[ChatEvent], dedupe_id: str | None) -> list[Result]:
    try:
        return await sidecast().intake.accept_all(events, dedupe_id, request_id())
    except Closed:
        raise APIError(503, "SERVICE_UNAVAILABLE", "This instance is stopping; try again.") from None


def _dedupe_id() -> str | None:
    """The id of a request, which stands in for an event's own. Raises APIError 400."""
    given = headers()
    for header in ("Idempotency-Key", "webhook-id"):
        if value := given.get(header.lower()):
            if len(value) > MAX_ID:
                problem = [{"field": header, "problem": f"at most {MAX_ID} characters"}]
                raise APIError(400, "INVALID_REQUEST", "The request has invalid headers.", problem)
            return value
    return None


def _a_router_may_post(event: ChatEvent) -> ChatEvent:
    """The event, unless its channel is a playground. Raises APIError 400."""
    if is_playground(event):
        problem = f"must not begin with {PLAYGROUND}, as channels of the dashboard do"
        details = [{"field": "entity_id", "problem": problem}]
        raise APIError(400, "INVALID_REQUEST", "The event has invalid fields.", details)
    return event


def _refusal(error: Exception) -> APIError:
    """Why an event that reads well was not taken."""
    if isinstance(error, Conflict):
        return APIError(409, "CONFLICT", "This id came before with another body; the first one stands.")
    if isinstance(error, UnknownEntity):
        problem = [{"field": "entity_id", "problem": "belongs to no community here"}]
        return APIError(404, "NOT_FOUND", "This channel is not registered.", problem)
    raise error


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
