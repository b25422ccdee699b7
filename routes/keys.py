"""Keys: issue, list, revoke. The text of a key is told once, when it is issued."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import click
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from quart import Blueprint, request
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.body import Moment, read_body, read_query
from routes.connection import BASE
from routes.context import known_community, require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes import answers as shapes
from routes.shapes.requests import Whose
from services.keys import COMMUNITY, ROLES
from services.sidecast import Sidecast

blueprint = Blueprint("keys", __name__, url_prefix=BASE)
MAX_OVERLAP = 30 * 86_400


class NewKey(BaseModel):
    """`role` is `admin`, `service` or `community:<id>`."""

    model_config = ConfigDict(extra="forbid")

    role: Annotated[str, StringConstraints(max_length=100)]
    label: Annotated[str, StringConstraints(max_length=100)] = ""
    expires_at: Moment | None = None


class Revoking(BaseModel):
    """`overlap` seconds in which the key still works, so that a new one can take its place."""

    model_config = ConfigDict(extra="forbid")

    overlap: float = Field(0, ge=0, le=MAX_OVERLAP)


@blueprint.get("/keys")
@describe(shapes.Keys, roles=[COMMUNITY], query=Whose)
async def get_keys() -> dict[str, Any]:
    """The keys of a community, or all of them: role, first characters, last use."""
    principal = await require(COMMUNITY)
    community_id = await known_community(principal, request.args.get("community_id"))
    return success({"keys": [key.as_dict() for key in await sidecast().keys.of(community_id)]})


@blueprint.post("/keys")
@describe(shapes.IssuedKey, roles=[COMMUNITY], body=NewKey, errors=[404])
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
@describe(shapes.Key, roles=[COMMUNITY], query=Revoking)
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


@blueprint.cli.command("create")
@click.option("--role", required=True, help="admin, service or community:<id>")
@click.option("--label", default="", help="what it is for")
@click.option("--days", type=click.IntRange(1, 3650), help="how long it is valid; for ever where not given")
@pass_script_info
def create(info: ScriptInfo, role: str, label: str, days: int | None) -> None:
    """Issue a key and print it, this once."""
    kind, _, community = role.partition(":")
    if kind not in ROLES or (kind == COMMUNITY) != bool(community):
        raise click.BadParameter("must be admin, service or community:<id>", param_hint="--role")
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None

    async def issue(services: Sidecast) -> str:
        community_id = UUID(community) if community else None
        if community_id and await services.communities.get(community_id) is None:
            raise click.BadParameter("there is no such community", param_hint="--role")
        _, text = await services.keys.issue(kind, community_id, label, expires_at, command.ACTOR)
        return text

    try:
        click.echo(command.run(info, issue))
    except ValueError:
        raise click.BadParameter("the community's id is none", param_hint="--role") from None


@blueprint.cli.command("list")
@pass_script_info
def list_keys(info: ScriptInfo) -> None:
    """All keys: id, first characters, role, label, last use, end."""
    for key in command.run(info, lambda services: services.keys.of(None)):
        about = key.as_dict()
        end = about["revoked_at"] or about["expires_at"] or "-"
        click.echo(
            "\t".join(
                str(part)
                for part in (key.key_id, key.prefix, about["role"], key.label, about["last_used_at"] or "-", end)
            )
        )


@blueprint.cli.command("revoke")
@click.argument("key_id", type=click.UUID)
@click.option("--overlap", type=click.FloatRange(0, MAX_OVERLAP), default=0, help="seconds in which it still works")
@pass_script_info
def revoke(info: ScriptInfo, key_id: UUID, overlap: float) -> None:
    """End a key."""
    key = command.run(info, lambda services: services.keys.revoke(key_id, None, overlap, command.ACTOR))
    if key is None:
        raise click.ClickException("there is no such key")
    click.echo(f"{key.prefix}… ends {'in ' + format(overlap, 'g') + ' s' if overlap else 'now'}")


def _bad(field: str, problem: str) -> APIError:
    return APIError(400, "INVALID_REQUEST", "The request has invalid fields.", [{"field": field, "problem": problem}])
