"""What a router receives: the schema of `services.deliveries.callback`. And what the development router keeps of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from routes.shapes.envelope import Success


class ReplyData(BaseModel):
    """What to say; `fallback` where it is no model's, `allowed_mentions` for Discord."""

    message: str
    fallback: bool
    allowed_mentions: dict[str, list[str]] | None = None


class Reply(BaseModel):
    """What the router receives. Where there is no reply, `success` is false and `error_message` says so."""

    session_id: str
    module_name: str
    success: bool
    response_action: Literal["chat"]
    response_data: ReplyData
    processing_time_ms: int
    interaction_id: UUID
    event_id: str | None
    entity_id: str
    platform: str
    user_id: str
    reply_to: str | None
    attempt: int
    error_message: str | None = None


class CompactReply(BaseModel):
    """What the router receives with `ROUTER_RESPONSE_FORMAT=compact`."""

    event_id: str | None
    response: str
    platform: str
    channel_id: str


class KeptReply(Reply):
    """A reply as the development router keeps it, in either format."""

    received_at: datetime


class KeptCompactReply(CompactReply):
    """A compact reply as the development router keeps it."""

    received_at: datetime


class KeptReplies(BaseModel):
    """Replies, the newest last."""

    messages: list[KeptReply | KeptCompactReply]


class KeptRepliesTwice(Success[KeptReplies]):
    """The replies, bare as well as wrapped."""

    messages: list[KeptReply | KeptCompactReply]
