"""The event that a router posts."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_METADATA_BYTES = 16 * 1024
CHAT = "chatMessage"
# How the channels begin that communities are tried out in: what is said there goes to no router.
PLAYGROUND = "playground:"

Text = Annotated[str, StringConstraints(max_length=255)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
    return value


Kind = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Said = Annotated[str, StringConstraints(max_length=10_000)]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,50}$")]
Metadata = Annotated[dict[str, Any], AfterValidator(_bounded)]


class ChatEvent(BaseModel):
    """A chat message or an event; types are taken as they are, unknown fields are ignored, null is absent."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    session_id: Name
    message_type: Kind = CHAT
    message_content: Said = ""
    user_id: Name
    username: Name
    entity_id: Name
    platform: Platform
    display_name: Text | None = None
    event_id: Text | None = None
    is_bot: bool = False
    roles: Annotated[list[Text], Field(max_length=50)] = []
    reply_to: Text | None = None
    metadata: Metadata = {}

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("must be a JSON object")
        return {name: value for name, value in data.items() if value is not None}

    @property
    def name(self) -> str:
        """What to call the user."""
        return self.display_name or self.username

    def fingerprint(self, key: bytes, as_json: str) -> bytes:
        """A keyed hash of all fields in one canonical form: equal for equal events alone. `as_json` is the event's."""
        canonical = as_json
        if self.metadata:
            # Fields come in the order of this class; only what is in `metadata` may come in any.
            canonical = self.model_dump_json(exclude={"metadata"}) + json.dumps(self.metadata, sort_keys=True)
        return hmac.digest(key, canonical.encode(), hashlib.sha256)


def is_playground(event: ChatEvent) -> bool:
    """Whether an event was said in a playground."""
    return event.entity_id.startswith(PLAYGROUND)
