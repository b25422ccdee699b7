"""Requests, where the reader's own models do not tell all: queries, headers, bodies that are read part by part."""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from services.events import ChatEvent
from services.settings import CommunitySettings


class BatchBody(BaseModel):
    """Events, each checked apart, so that a bad one fails alone."""

    events: Annotated[list[ChatEvent], Field(min_length=1, max_length=500)]


def change_of_settings(base: type[BaseModel]) -> type[BaseModel]:
    """`base`, and every setting as a change may name it: its value, or null for what is inherited."""
    fields: dict[str, Any] = {}
    for name, known in CommunitySettings.model_fields.items():
        kind: Any = known.annotation
        field = copy(known)
        field.default = None
        fields[name] = (kind | None, field)
    key = Field(None, max_length=500, pattern="^[ -~]*$", description="A key of your own for the provider.")
    return create_model("ChangeOfSettings", __base__=base, __doc__=base.__doc__, **fields, api_key=(str | None, key))


class Whose(BaseModel):
    """The community that a request is about: a community's key may leave it out."""

    community_id: str | None = Field(None, description="A community's id; without it those of all, or the key's own.")


class ModelFilter(BaseModel):
    """Which models are listed."""

    free: bool = Field(False, description="Those that cost nothing, alone.")


class SignedHeaders(BaseModel):
    """Standard Webhooks, asked for where `INTAKE_SECRET` is set."""

    message_id: str | None = Field(None, alias="webhook-id", description="An id of the message.")
    timestamp: str | None = Field(None, alias="webhook-timestamp", description="When it was signed, in seconds.")
    signature: str | None = Field(None, alias="webhook-signature", description="By `INTAKE_SECRET`, where it is set.")


class EventHeaders(SignedHeaders):
    """What stands in for an event's own id."""

    idempotency_key: str | None = Field(
        None, alias="Idempotency-Key", max_length=255, description="Recognises a repeat where there is no `event_id`."
    )


class ChangeHeaders(BaseModel):
    """What keeps a change of another's."""

    if_match: str | None = Field(
        None,
        alias="If-Match",
        pattern=r'^(\*|(W/)?"[0-9]{1,18}")$',
        description="The ETag of an answer: 409 where someone has changed them since.",
    )


class CallerHeaders(BaseModel):
    """On whose account a call is made."""

    community_id: str | None = Field(
        None, alias="X-Community-Id", description="A community, whose providers answer; else the service's."
    )


class CompletionHeaders(CallerHeaders):
    """How a completion may be shared."""

    cache_control: str | None = Field(
        None, alias="Cache-Control", description="With `max-age=…` equal calls in flight together are one call."
    )
