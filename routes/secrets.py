"""What is sealed in the database; no HTTP."""

from __future__ import annotations

import click
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info
from tqdm import tqdm

from routes import command
from services.rotation import Rotated

blueprint = Blueprint("secrets", __name__)


@blueprint.cli.command("rotate")
@pass_script_info
def rotate(info: ScriptInfo) -> None:
    """Seal with SECRET_KEY what was sealed with SECRET_KEY_PREVIOUS, while instances run with both."""
    with tqdm(unit=" texts", disable=None) as bar:

        def note(so_far: Rotated) -> None:
            bar.update(so_far.texts - bar.n)

        done = command.run(info, lambda services: services.rotation.rotate(command.ACTOR, note))
    click.echo(f"sealed with SECRET_KEY now: {done.keys} keys of communities, {done.texts} texts")
    if done.unreadable:
        raise click.ClickException(
            f"{done.unreadable} cannot be read with SECRET_KEY or SECRET_KEY_PREVIOUS; keys must be set again"
        )
