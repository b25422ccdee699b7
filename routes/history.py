"""What became of a community's interactions; and as lines of JSON, to be carried."""

from __future__ import annotations

import sys
from typing import IO, Any
from uuid import UUID

import click
from pydantic import Field, ValidationError
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.body import Moment, details, read_query
from routes.communities import Page
from routes.connection import BASE
from routes.context import known_community, require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes.answers import History, State
from services.events import Name, Platform
from services.history import BadCursor, Line, Wanted
from services.keys import COMMUNITY
from services.sidecast import Sidecast

blueprint = Blueprint("history", __name__, url_prefix=BASE)
MAX_CURSOR = 200


class _History(Page):
    before: Moment | None = None
    since: Moment | None = None
    cursor: str | None = Field(None, min_length=1, max_length=MAX_CURSOR)
    platform: Platform | None = None
    user_id: Name | None = None
    entity_id: Name | None = None
    state: State | None = None
    trigger: Name | None = None


@blueprint.get("/history")
@describe(History, roles=[COMMUNITY], query=_History)
async def get_history() -> dict[str, Any]:
    """What became of a community's interactions, those that ended last first; texts where they are kept.

    The `next` of an answer, given as `cursor`, is where the next page begins.
    """
    principal = await require(COMMUNITY)
    asked = read_query(_History)
    community_id = await known_community(principal, asked.community_id)
    community = await sidecast().communities.get(community_id) if community_id else None
    if community is None:
        raise _invalid("community_id", "must be given")
    wanted = Wanted(trigger_type=asked.trigger, **asked.model_dump(exclude={"community_id", "limit", "trigger"}))
    try:
        found, following = await sidecast().history.page(community, wanted, asked.limit)
    except BadCursor:
        raise _invalid("cursor", "must be the `next` of a page") from None
    return success({"interactions": found, "next": following})


def _invalid(field: str, problem: str) -> APIError:
    return APIError(400, "INVALID_REQUEST", "The query has invalid fields.", [{"field": field, "problem": problem}])


@blueprint.cli.command("export")
@click.argument("community_id", type=click.UUID)
@click.option(
    "--file", type=click.File("wb", lazy=True, atomic=True), default="-", help="where to; default: the screen"
)
@pass_script_info
def export(info: ScriptInfo, community_id: UUID, file: IO[bytes]) -> None:
    """A community's history, an interaction a line, the last first; texts where they are kept."""

    async def write(services: Sidecast) -> int | None:
        community = await services.communities.get(community_id)
        if community is None:
            return None
        written = 0
        async for line in services.history.export(community):
            file.write(line)
            written += 1
        return written

    written = command.run(info, write)
    if written is None:
        raise click.ClickException("there is no such community")
    click.echo(f"{written} interactions", err=True)


@blueprint.cli.command("import")
@click.argument("community_id", type=click.UUID)
@click.argument("file", type=click.File("rb"))
@pass_script_info
def take(info: ScriptInfo, community_id: UUID, file: IO[bytes]) -> None:
    """Take interactions into a community's history from lines of JSON; those that it has stay as they are."""
    lines = [_read(number, text) for number, text in enumerate(file, 1) if text.strip()]

    async def put(services: Sidecast) -> tuple[int, bool] | None:
        community = await services.communities.get(community_id)
        if community is None:
            return None
        with click.progressbar(length=len(lines), label="interactions", file=sys.stderr) as bar:
            new = await services.history.take(community, lines, bar.update)
        return new, community.settings.store_content

    done = command.run(info, put)
    if done is None:
        raise click.ClickException("there is no such community. Nothing was changed.")
    new, keeps = done
    click.echo(
        f"{new} new interactions" + ("" if keeps else "; their texts were left out, as the community keeps none")
    )


def _read(number: int, text: bytes) -> Line:
    try:
        return Line.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in details(error)[:5])
        raise click.ClickException(f"line {number}: {problems}. Nothing was changed.") from None
