"""Communities, their channels, and what became of their interactions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import click
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.body import Moment, read_body, read_query
from routes.connection import BASE
from routes.context import known_community, not_found, own_community, require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes.answers import CommunityPage, History
from services.communities import Listed
from services.events import Name
from services.keys import ADMIN, COMMUNITY
from services.sidecast import Sidecast

blueprint = Blueprint("communities", __name__, url_prefix=BASE)
MAX_ENTITIES = 100


class NewCommunity(BaseModel):
    """A community and its channels; a channel that belongs to another is moved to this one."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    entities: Annotated[list[Name], Field(max_length=MAX_ENTITIES)] = []


class CommunityChange(BaseModel):
    """Another name, or channels that are moved to this community."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    entities: Annotated[list[Name], Field(max_length=MAX_ENTITIES)] = []


class Page(BaseModel):
    """A part of a list, of one community where one is named."""

    model_config = ConfigDict(extra="forbid")

    community_id: str | None = None
    limit: int = Field(100, ge=1, le=1000)


class _Communities(Page):
    after: UUID = UUID(int=0)


class _History(Page):
    before: Moment | None = None


@blueprint.get("/communities")
@describe(CommunityPage, roles=[COMMUNITY], query=_Communities)
async def get_communities() -> dict[str, Any]:
    """Communities and their channels by id, a page at a time; of a community's key its own alone."""
    principal = await require(COMMUNITY)
    page = read_query(_Communities)
    community_id = await known_community(principal, page.community_id)
    found = await sidecast().communities.page(community_id, page.after, page.limit)
    return success({"communities": [_listed(community) for community in found]})


@blueprint.post("/communities")
@describe(Listed, roles=[], body=NewCommunity)
async def post_community() -> dict[str, Any]:
    """Make a community."""
    principal = await require(ADMIN)
    asked = await read_body(NewCommunity)
    made = await sidecast().communities.make(asked.name, asked.entities, principal.name)
    return success(_listed(made))


@blueprint.put("/communities/<community_id>")
@describe(Listed, roles=[], body=CommunityChange)
async def put_community(community_id: str) -> dict[str, Any]:
    """Name a community, or move channels to it."""
    principal = await require(ADMIN)
    asked = await read_body(CommunityChange)
    named = own_community(principal, community_id)
    changed = named and await sidecast().communities.change(named, asked.name, asked.entities, principal.name)
    if not changed:
        raise not_found()
    return success(_listed(changed))


@blueprint.get("/history")
@describe(History, roles=[COMMUNITY], query=_History)
async def get_history() -> dict[str, Any]:
    """What became of a community's interactions, those that ended last first; texts where they are kept."""
    principal = await require(COMMUNITY)
    page = read_query(_History)
    community_id = await known_community(principal, page.community_id)
    if community_id is None:
        problem = [{"field": "community_id", "problem": "must be given"}]
        raise APIError(400, "INVALID_REQUEST", "The query has invalid fields.", problem)
    found = await sidecast().interactions.history(community_id, page.before, page.limit)
    return success({"interactions": found})


@blueprint.cli.command("list")
@pass_script_info
def list_communities(info: ScriptInfo) -> None:
    """All communities: id, name, channels."""

    async def listed(services: Sidecast) -> list[Listed]:
        found: list[Listed] = []
        while page := await services.communities.page(None, found[-1].community_id if found else UUID(int=0), 1000):
            found += page
        return found

    for community in command.run(info, listed):
        click.echo(f"{community.community_id}\t{community.name}\t{' '.join(community.entities)}")


def _listed(community: Listed) -> dict[str, Any]:
    return {
        "community_id": str(community.community_id),
        "name": community.name,
        "entities": community.entities,
        "created_at": datetime.isoformat(community.created_at),
    }
