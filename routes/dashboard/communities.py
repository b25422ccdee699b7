"""Which communities there are, for an admin; whoever has one alone goes there."""

from __future__ import annotations

from uuid import UUID

from quart import Response, request

from routes.context import sidecast
from routes.dashboard.room import blueprint, fields, go, page, visitor
from routes.errors import APIError
from services.keys import ADMIN, COMMUNITY
from services.settings import DEFAULTS

PAGE_ROWS = 50
MAX_NAME = 255


@blueprint.get("/", strict_slashes=False)
async def get_home() -> Response:
    """The playground, of the caller's own community or of the first there is."""
    who = await visitor(COMMUNITY)
    services = sidecast()
    community_id = who.principal.community_id
    if community_id is None:
        listed = await services.communities.page(None, DEFAULTS, 1)
        if len(listed) == 0:
            made = await services.communities.make("My community", [], who.principal.name)
            listed = [made]
        community_id = listed[0].community_id
    return await go(f"/dashboard/communities/{community_id}/playground")


@blueprint.get("/communities")
async def get_communities() -> Response | str:
    """All communities, a page at a time, or those that begin as asked."""
    who = await visitor(COMMUNITY)
    if who.principal.community_id is not None:
        return await go(f"/dashboard/communities/{who.principal.community_id}")
    begins, services = request.args.get("begins", "").strip()[:MAX_NAME].replace("\0", ""), sidecast()
    if begins:
        rows = await services.communities.search(begins, PAGE_ROWS)
    else:
        rows = await services.communities.page(None, _after(request.args.get("after", "")), PAGE_ROWS)
    following = rows[-1].community_id if len(rows) == PAGE_ROWS and not begins else None
    return await page("communities.html", who, rows=rows, begins=begins, following=following)


@blueprint.post("/communities")
async def post_community() -> Response:
    """Make a community."""
    who = await visitor(ADMIN)
    given = await fields()
    name, channels = given.get("name", "").strip(), given.get("entities", "").split()
    if not 0 < len(name) <= MAX_NAME:
        raise APIError(400, "INVALID_REQUEST", f"A name has 1 to {MAX_NAME} characters.")
    if any(len(channel) > MAX_NAME for channel in channels):
        raise APIError(400, "INVALID_REQUEST", f"A channel's id has at most {MAX_NAME} characters.")
    made = await sidecast().communities.make(name, channels, who.principal.name)
    return await go(f"/dashboard/communities/{made.community_id}")


def _after(given: str) -> UUID:
    try:
        return UUID(given)
    except ValueError:
        return DEFAULTS
