"""Who changed what."""

from __future__ import annotations

from typing import Any

import click
from pydantic import Field
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from routes.body import read_query
from routes.communities import Page
from routes.connection import BASE
from routes.context import known_community, require, sidecast, success
from routes.openapi import describe
from routes.shapes.answers import AuditPage
from services.audit import BrokenChain
from services.keys import COMMUNITY

blueprint = Blueprint("audit", __name__, url_prefix=BASE)
LAST = 2**63 - 1


class _Audit(Page):
    before: int = Field(LAST, ge=1, le=LAST)


@blueprint.get("/audit")
@describe(AuditPage, roles=[COMMUNITY], query=_Audit)
async def get_audit() -> dict[str, Any]:
    """Who changed what, the newest first."""
    principal = await require(COMMUNITY)
    page = read_query(_Audit)
    community_id = await known_community(principal, page.community_id)
    entries = await sidecast().audit.entries(community_id, page.before, page.limit)
    rows = [vars(entry) | {"community_id": entry.community_id and str(entry.community_id)} for entry in entries]
    return success({"entries": rows})


@blueprint.cli.command("verify")
@pass_script_info
def verify(info: ScriptInfo) -> None:
    """Follow the audit log's chain from its beginning."""
    try:
        count = command.run(info, lambda services: services.audit.verify())
    except BrokenChain as error:
        raise click.ClickException(f"the audit log is not what was written: {error}") from None
    click.echo(f"{count} changes, each chained to the one before")
