"""Keys: issue, list, revoke. The text of a key is told once, when it is issued."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from quart import Blueprint, request

from routes.body import read_body, read_query
from routes.connection import BASE
from routes.context import known_community, require, sidecast, success
from routes.errors import APIError
from services.keys import COMMUNITY, ROLES

blueprint = Blueprint("keys", __name__, url_prefix=BASE)
MAX_OVERLAP = 30 * 86_400


class NewKey(BaseModel):
    """`role` is `admin`, `service` or `community:<id>`."""

    model_config = ConfigDict(extra="forbid")

    role: Annotated[str, StringConstraints(max_length=100)]
    label: Annotated[str, StringConstraints(max_length=100)] = ""
    expires_at: AwareDatetime | None = None


class Revoking(BaseModel):
    """`overlap` seconds in which the key still works, so that a new one can take its place."""

    model_config = ConfigDict(extra="forbid")

    overlap: float = Field(0, ge=0, le=MAX_OVERLAP)


@blueprint.get("/keys")
async def get_keys() -> dict[str, Any]:
    """The keys of a community, or all of them: role, first characters, last use."""
    principal = await require(COMMUNITY)
    community_id = await known_community(principal, request.args.get("community_id"))
    return success({"keys": [key.as_dict() for key in await sidecast().keys.of(community_id)]})


@blueprint.post("/keys")
async def post_key() -> dict[str, Any]:
    """Issue a key; a community's key issues only others of its community."""
    principal = await require(COMMUNITY)
    asked = await read_body(NewKey)
    role, _, community = asked.role.partition(":")
    if role not in ROLES or (role == COMMUNITY) != bool(community):
        raise _bad("role", "must be admin, service or community:<id>")
    if asked.expires_at is not None and asked.expires_at <= datetime.now(UTC):
        raise _bad("expires_at", "must be in the future")
    if principal.role == COMMUNITY and role != COMMUNITY:
        raise APIError(403, "FORBIDDEN", "This key may not do this.")
    community_id = await known_community(principal, community) if community else None
    issued = role, community_id, asked.label, asked.expires_at
    key, text = await sidecast().keys.issue(*issued, principal.name)
    return success(key.as_dict() | {"key": text})


@blueprint.delete("/keys/<key_id>")
async def delete_key(key_id: str) -> dict[str, Any]:
    """End a key, at once or after an overlap."""
    principal = await require(COMMUNITY)
    overlap = read_query(Revoking).overlap
    try:
        key = await sidecast().keys.revoke(UUID(key_id), principal.community_id, overlap, principal.name)
    except ValueError:
        key = None
    if key is None:
        raise APIError(404, "NOT_FOUND", "There is no such key.")
    return success(key.as_dict())


def _bad(field: str, problem: str) -> APIError:
    return APIError(400, "INVALID_REQUEST", "The request has invalid fields.", [{"field": field, "problem": problem}])
