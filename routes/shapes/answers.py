"""What is inside of answers. A field without a default is always there."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from routes.shapes.envelope import Problem
from services.audit import Entry
from services.budgets import Step
from services.cache_manager import Exchange
from services.communities import Listed
from services.health import Dependency
from services.settings import CommunitySettings
from services.triggers import Trigger


class Ack(BaseModel):
    """What the router is told about its event; `interaction_id` and `trigger` are null where nothing triggered."""

    message: str
    session_id: str
    interaction_id: UUID | None
    triggered: bool
    trigger: Trigger | None
    duplicate: bool


class Taken(BaseModel):
    """An event of a batch that was taken."""

    index: int
    success: Literal[True]
    data: Ack


class Refused(BaseModel):
    """An event of a batch that was not taken."""

    index: int
    success: Literal[False]
    error: Problem


class BatchResults(BaseModel):
    """A result for each event, in order."""

    results: list[Taken | Refused]


class Cancelled(BaseModel):
    """How many replies were suppressed."""

    cancelled: int


class Tokens(BaseModel):
    """Tokens as the provider counted them."""

    prompt: int | None
    completion: int | None


State = Literal["received", "answering", "answered", "delivered", "suppressed", "expired", "failed", "undeliverable"]


class Interaction(BaseModel):
    """What became of an interaction and why; times in ms, `received_at` in seconds since 1970."""

    interaction_id: UUID
    community_id: UUID
    state: State
    trigger: Trigger
    reason: str | None
    provider: str | None
    model: str | None
    tokens: Tokens
    attempts: int
    timings: dict[str, float]
    received_at: float
    message: str | None
    reply: str | None


class EndedInteraction(BaseModel):
    """An interaction that ended; texts while they are kept."""

    interaction_id: UUID
    entity_id: str
    platform: str
    user_id: str
    message_type: str
    state: State
    trigger: Trigger
    reason: str | None
    provider: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    attempts: int
    fallback: bool
    timings: dict[str, float]
    message: str | None
    reply: str | None
    received_at: datetime
    ended_at: datetime


class History(BaseModel):
    """A community's interactions, those that ended last first; `next` is the `cursor` of the next page."""

    interactions: list[EndedInteraction]
    next: str | None


class InteractionOfPerson(EndedInteraction):
    """An interaction that ended, and whose community's it was."""

    community_id: UUID


class Person(BaseModel):
    """All that is known of a person: interactions, and what was said lately in each community by its id."""

    interactions: list[InteractionOfPerson]
    conversations: dict[str, list[Exchange]]


class Settings(CommunitySettings):
    """The settings that hold; `inherited` names those that are not the community's own. Null id: those of all."""

    community_id: UUID | None
    version: int
    api_key_set: bool
    inherited: list[str]


class CommunityPage(BaseModel):
    """Communities by id."""

    communities: list[Listed]


class Key(BaseModel):
    """A key as it may be listed; `prefix` is how its text begins."""

    key_id: UUID
    role: str
    prefix: str
    label: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class IssuedKey(Key):
    """A key with its text, which is told this once."""

    key: str


class Keys(BaseModel):
    """Keys, the newest first."""

    keys: list[Key]


class AuditPage(BaseModel):
    """Changes, the newest first."""

    entries: list[Entry]


class DayOfUsage(BaseModel):
    """Calls of a model on a day; `cost` in US dollars, null where no price is known."""

    day: str
    provider: str
    model: str
    calls: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    cost: float | None
    cached: int
    saved: float | None


class Used(BaseModel):
    """Of what a community may use in a day; `most` is null where it is any amount."""

    used: float
    most: float | None


class BudgetToday(BaseModel):
    """How today's budget of a community stands; cost in US dollars."""

    tokens: Used
    cost: Used
    canned: int
    step: Step


class UsageOfDays(BaseModel):
    """Both days included; `budget` where a community is named."""

    since: str
    until: str
    usage: list[DayOfUsage]
    budget: BudgetToday | None


class PromptMessage(BaseModel):
    """One message of what a model was told."""

    role: str
    content: str


class TrialTrace(BaseModel):
    """The reply that a message would get, or null and the `reason`; times in ms.

    `why` says of a message that triggers nothing what it lacks.
    """

    reply: str | None
    reason: str | None
    why: str
    fallback: bool
    trigger: Trigger | None
    provider: str | None
    model: str | None
    tokens: Tokens
    prompt: list[PromptMessage]
    budget: Step
    timings: dict[str, float]


class Index(BaseModel):
    """Name, version and every endpoint."""

    module: str
    version: str
    endpoints: list[str]


class Status(BaseModel):
    """`status` is healthy, degraded or unhealthy; providers by name."""

    module: str
    version: str
    status: str
    providers: dict[str, Dependency]


class Alive(BaseModel):
    """That it runs."""

    status: Literal["alive"]


class Ready(BaseModel):
    """That it takes events."""

    status: Literal["ready"]
