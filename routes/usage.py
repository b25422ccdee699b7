"""What models cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from quart import Blueprint, request

from routes.body import details
from routes.connection import BASE
from routes.context import require, sidecast, success
from routes.errors import APIError
from services.keys import ADMIN

blueprint = Blueprint("usage", __name__, url_prefix=BASE)
DAYS = 30


class _Query(BaseModel):
    """Days are of UTC; `until` is the last one that counts."""

    model_config = ConfigDict(extra="forbid")

    community_id: UUID | None = None
    since: date | None = None
    until: date | None = None


@blueprint.get("/usage")
async def get_usage() -> dict[str, Any]:
    """Calls, tokens and cost by day, provider and model; the last 30 days where no `since` is given."""
    require(ADMIN)
    try:
        asked = _Query.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise APIError(400, "INVALID_REQUEST", "The query has invalid fields.", details(error)) from None
    until = asked.until or datetime.now(UTC).date()
    since = asked.since or until - timedelta(days=DAYS - 1)
    rows = await sidecast().ledger.usage(asked.community_id, _midnight(since), _midnight(until + timedelta(days=1)))
    return success({"since": since.isoformat(), "until": until.isoformat(), "usage": rows})


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
