"""What is known of a person, and forgetting it."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import click
from quart import Blueprint, request
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.connection import BASE
from routes.context import known_community, require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes.answers import Person
from routes.shapes.requests import Whose
from services.keys import COMMUNITY, Principal
from services.privacy import Receipt

MAX_ID = 255
_PLATFORM = re.compile(r"[a-z0-9_-]{1,50}")
blueprint = Blueprint("users", __name__, url_prefix=BASE)


@blueprint.get("/users/<platform>/<path:user_id>")
@describe(Person, roles=[COMMUNITY], query=Whose)
async def get_user(platform: str, user_id: str) -> dict[str, Any]:
    """All that is known of a person, in the caller's community, the one that is named, or all."""
    _, community_id = await _asked(platform, user_id)
    return success(await sidecast().privacy.known(platform, user_id, community_id))


@blueprint.delete("/users/<platform>/<path:user_id>")
@describe(Receipt, roles=[COMMUNITY], query=Whose)
async def delete_user(platform: str, user_id: str) -> dict[str, Any]:
    """Forget a person; a receipt of what was removed."""
    principal, community_id = await _asked(platform, user_id)
    receipt = await sidecast().privacy.forget(platform, user_id, community_id, principal.name)
    return success(receipt.as_dict())


async def _asked(platform: str, user_id: str) -> tuple[Principal, UUID | None]:
    """Who asks, and about which community. Raises APIError, 400 for a name that no event here could bring."""
    principal = await require(COMMUNITY)
    problems = [{"field": "platform", "problem": "must be as in events"}] if not _PLATFORM.fullmatch(platform) else []
    if "\0" in user_id or len(user_id) > MAX_ID:
        problems.append({"field": "user_id", "problem": f"must be of at most {MAX_ID} characters without U+0000"})
    if problems:
        raise APIError(400, "INVALID_REQUEST", "The path cannot be read.", problems)
    return principal, await known_community(principal, request.args.get("community_id"))


@blueprint.cli.command("forget")
@click.argument("platform")
@click.argument("user_id")
@click.option("--community", type=click.UUID, help="in this community alone")
@pass_script_info
def forget(info: ScriptInfo, platform: str, user_id: str, community: UUID | None) -> None:
    """Forget the person USER_ID of PLATFORM, and print the receipt."""
    receipt = command.run(info, lambda services: services.privacy.forget(platform, user_id, community, command.ACTOR))
    for name, value in receipt.as_dict().items():
        click.echo(f"{name}\t{value}")
