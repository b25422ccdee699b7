"""What is sealed in the database; no HTTP."""

from __future__ import annotations

import click
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command

blueprint = Blueprint("secrets", __name__)


@blueprint.cli.command("rotate")
@pass_script_info
def rotate(info: ScriptInfo) -> None:
    """Seal with SECRET_KEY what was sealed with SECRET_KEY_PREVIOUS, while instances run with both."""
    rotated, lost = command.run(info, lambda services: services.settings_store.rotate_keys(command.ACTOR))
    click.echo(f"keys of communities that are sealed with SECRET_KEY now: {rotated}")
    if lost:
        raise click.ClickException(
            f"{lost} cannot be read with SECRET_KEY or SECRET_KEY_PREVIOUS; their communities must set them again"
        )
