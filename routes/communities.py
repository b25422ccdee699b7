"""Communities and their channels."""

from __future__ import annotations

import json
from datetime import datetime
from typing import IO, Annotated, Any
from uuid import UUID

import click
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.body import details, read_body, read_query
from routes.connection import BASE
from routes.context import known_community, not_found, own_community, require, sidecast, success
from routes.openapi import describe
from routes.shapes.answers import CommunityPage
from services.carrying import Document, WrongPassphrase
from services.communities import Listed
from services.events import Name
from services.keys import ADMIN, COMMUNITY
from services.settings_store import BadSettings
from services.sidecast import Sidecast
from services.vault import Unreadable

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


@blueprint.cli.command("list")
@pass_script_info
def list_communities(info: ScriptInfo) -> None:
    """All communities: id, name, channels."""
    for community in command.run(info, _all):
        click.echo(f"{community.community_id}\t{community.name}\t{' '.join(community.entities)}")


@blueprint.cli.command("show")
@click.argument("community_id", type=click.UUID)
@pass_script_info
def show(info: ScriptInfo, community_id: UUID) -> None:
    """A community as JSON: its channels, and the settings that hold for it."""

    async def look(services: Sidecast) -> dict[str, Any] | None:
        view = await services.settings_store.view(community_id)
        listed = await services.communities.page(community_id, UUID(int=0), 1)
        if view is None or not listed:
            return None
        about = {"version": view.version, "own": list(view.own), "api_key_set": view.has_key}
        return _listed(listed[0]) | about | {"settings": view.settings.model_dump()}

    found = command.run(info, look)
    if found is None:
        raise click.ClickException("there is no such community")
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@blueprint.cli.command("export")
@click.argument("community_ids", type=click.UUID, nargs=-1)
@click.option("--file", type=click.File("w", lazy=True, atomic=True), default="-", help="where to; default: the screen")
@click.option("--with-keys", is_flag=True, help="the keys for providers too, sealed with a passphrase")
@click.option("--passphrase", envvar="SIDECAST_PASSPHRASE", help="asked for where it is needed and not given")
@pass_script_info
def export(
    info: ScriptInfo, community_ids: tuple[UUID, ...], file: IO[str], *, with_keys: bool, passphrase: str | None
) -> None:
    """Communities as JSON: those that are named, or all. Keys are left out but for --with-keys."""
    if with_keys and not passphrase:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)

    async def carry(services: Sidecast) -> Document:
        ids = list(community_ids) or [each.community_id for each in await _all(services)]
        return await services.carrying.export(ids, passphrase if with_keys else None)

    try:
        document = command.run(info, carry)
    except Unreadable:
        raise click.ClickException("a key cannot be read with SECRET_KEY or SECRET_KEY_PREVIOUS") from None
    if missing := set(community_ids) - {one.community_id for one in document.communities}:
        raise click.ClickException(f"there is no community {', '.join(map(str, sorted(missing)))}")
    file.write(document.model_dump_json(indent=2, exclude_none=True) + "\n")


@blueprint.cli.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--passphrase", envvar="SIDECAST_PASSPHRASE", help="of the keys; they are left out without one")
@pass_script_info
def take(info: ScriptInfo, file: IO[bytes], passphrase: str | None) -> None:
    """Make communities from JSON that was exported; those that there are become as it has them."""
    try:
        document = Document.model_validate_json(file.read())
    except ValidationError as error:
        problems = [f"{problem['field']}: {problem['problem']}" for problem in details(error)]
        raise click.ClickException("; ".join(problems[:5])) from None
    try:
        keyless = command.run(info, lambda services: services.carrying.take(document, passphrase, command.ACTOR))
    except WrongPassphrase:
        raise click.ClickException("the passphrase is not that of the keys. Nothing was changed.") from None
    except BadSettings as bad:
        said = "; ".join(f"{field}: {problem}" for field, problem in bad.problems)
        raise click.ClickException(f"{said}. Nothing was changed.") from None
    click.echo(
        f"{len(document.communities)} communities" + (f", {keyless} of them without their key" if keyless else "")
    )


async def _all(services: Sidecast) -> list[Listed]:
    found: list[Listed] = []
    while page := await services.communities.page(None, found[-1].community_id if found else UUID(int=0), 1000):
        found += page
    return found


def _listed(community: Listed) -> dict[str, Any]:
    return {
        "community_id": str(community.community_id),
        "name": community.name,
        "entities": community.entities,
        "created_at": datetime.isoformat(community.created_at),
    }
