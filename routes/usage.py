"""What models cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from quart import Blueprint

from routes.body import read_query
from routes.connection import BASE
from routes.context import known_community, require, sidecast, success
from routes.openapi import describe
from routes.shapes.answers import UsageOfDays
from services.keys import COMMUNITY

blueprint = Blueprint("usage", __name__, url_prefix=BASE)
DAYS = 30
# Far from the ends of what a date can be, which is counted from.
_Day = Annotated[date, Field(ge=date(1970, 1, 1), lt=date(9999, 1, 1))]


class _Query(BaseModel):
    """Days are of UTC; `until` is the last one that counts."""

    model_config = ConfigDict(extra="forbid")

    community_id: str | None = None
    since: _Day | None = None
    until: _Day | None = None


@blueprint.get("/usage")
@describe(UsageOfDays, roles=[COMMUNITY], query=_Query)
async def get_usage() -> dict[str, Any]:
    """Calls, tokens and cost by day, provider and model; the last 30 days where no `since` is given."""
    principal = await require(COMMUNITY)
    asked = read_query(_Query)
    until = asked.until or datetime.now(UTC).date()
    since = asked.since or until - timedelta(days=DAYS - 1)
    community_id = await known_community(principal, asked.community_id)
    rows = await sidecast().ledger.usage(community_id, _midnight(since), _midnight(until + timedelta(days=1)))
    return success(
        {"since": since.isoformat(), "until": until.isoformat(), "usage": rows, "budget": await _budget(community_id)}
    )


async def _budget(community_id: UUID | None) -> dict[str, Any] | None:
    """What a community has spent today, of what it may, and at which step that is."""
    services = sidecast()
    community = await services.communities.get(community_id) if community_id else None
    if community is None:
        return None
    settings = community.settings
    spent = await services.budgets.spent(community.community_id)
    return {
        "tokens": {"used": spent.tokens, "most": settings.budget_tokens or None},
        "cost": {"used": spent.cost, "most": settings.budget_cost or None},
        "canned": spent.canned,
        "step": await services.budgets.step(community),
    }


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
