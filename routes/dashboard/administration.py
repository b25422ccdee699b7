"""Keys, who changed what, and how the service is."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from quart import Response, request

from routes.context import sidecast
from routes.dashboard.room import blueprint, community_or_all, fields, page, visitor, whole_number
from routes.errors import APIError
from services.communities import Community
from services.database import DatabaseUnavailable
from services.keys import ADMIN, COMMUNITY, SERVICE
from services.settings import DEFAULTS

PAGE_ROWS = 50
LAST = 2**63 - 1
MAX_LABEL = 100
OVERLAPS = (0, 3600, 86_400)


@blueprint.get("/communities/<community_id>/keys")
async def get_keys(community_id: str) -> str:
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    return await page("keys.html", who, community, **await _keys(community))


@blueprint.post("/communities/<community_id>/keys")
async def post_key(community_id: str) -> Response:
    """Issue a key, whose text is shown this once."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    given = await fields()
    label, days = given.get("label", "").strip(), given.get("days", "")
    if len(label) > MAX_LABEL:
        raise APIError(400, "INVALID_REQUEST", f"A label has at most {MAX_LABEL} characters.")
    if days and not 1 <= (whole_number(days) or 0) <= 3650:
        raise APIError(400, "INVALID_REQUEST", "A key is valid for 1 to 3650 days; leave it empty for ever.")
    role = given.get("role", "") if _whose(community) is None else COMMUNITY
    if role not in ({ADMIN, SERVICE} if _whose(community) is None else {COMMUNITY}):
        raise APIError(400, "INVALID_REQUEST", "The role is admin or service.")
    until = _now() + timedelta(days=int(days)) if days else None
    _, text = await sidecast().keys.issue(role, _whose(community), label, until, who.principal.name)
    return Response(await page("key_rows.html", who, community, text=text, **await _keys(community)))


@blueprint.post("/communities/<community_id>/keys/<key_id>/revoke")
async def post_revoke(community_id: str, key_id: str) -> str:
    """End a key, at once or after an overlap."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    given = (await fields()).get("overlap", "0")
    overlap = int(given) if given in {str(each) for each in OVERLAPS} else 0
    try:
        key = await sidecast().keys.revoke(UUID(key_id), _whose(community), overlap, who.principal.name)
    except ValueError:
        key = None
    if key is None:
        raise APIError(404, "NOT_FOUND", "There is no such key.")
    return await page("key_rows.html", who, community, **await _keys(community))


@blueprint.get("/communities/<community_id>/audit")
async def get_audit(community_id: str) -> str:
    """Who changed what, the newest first."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    before = whole_number(request.args.get("before", "")) or LAST
    entries = await sidecast().audit.entries(_whose(community), before, PAGE_ROWS)
    following = entries[-1].number if len(entries) == PAGE_ROWS else None
    return await page("audit.html", who, community, entries=entries, following=following)


@blueprint.get("/health")
async def get_health() -> str:
    """Each dependency, each breaker, each instance, and what waits."""
    who = await visitor(ADMIN)
    services = sidecast()
    about: dict[str, Any] = {"health": await services.health.check(), "alerts": services.alerts.active()}
    about |= {"alive": [], "waiting": None, "pool": services.database.pool_use}
    with contextlib.suppress(DatabaseUnavailable):  # which the page says
        about |= {"alive": await services.instances.alive(), "waiting": await services.interactions.waiting()}
    name = "health.html" if "piece" not in request.args else "health_piece.html"
    return await page(name, who, **about)


@blueprint.get("/<path:_rest>")
async def get_nothing(_rest: str) -> str:
    await visitor(COMMUNITY)
    raise APIError(404, "NOT_FOUND", "There is no such page.")


async def _keys(community: Community) -> dict[str, Any]:
    """A page of keys, from the one that is asked for on."""
    before = None
    with contextlib.suppress(ValueError):
        before = UUID(request.args.get("before", ""))
    keys = await sidecast().keys.of(_whose(community), before, PAGE_ROWS)
    following = keys[-1].key_id if len(keys) == PAGE_ROWS else None
    return {"keys": keys, "before": before, "following": following, "now": _now()}


def _whose(community: Community) -> UUID | None:
    """The community, or None for all."""
    return None if community.community_id == DEFAULTS else community.community_id


def _now() -> datetime:
    return datetime.now(UTC)
