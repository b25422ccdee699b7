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
@click.option("--new-hashing-key", is_flag=True, help="where the key of hashes is lost: repeats are then not known")
@pass_script_info
def rotate(info: ScriptInfo, *, new_hashing_key: bool) -> None:
    """Seal with SECRET_KEY what was sealed with SECRET_KEY_PREVIOUS, while instances run with both."""
    with tqdm(unit=" texts", disable=None) as bar:

        def note(so_far: Rotated) -> None:
            bar.update(so_far.texts - bar.n)

        done = command.run(
            info, lambda services: services.rotation.rotate(command.ACTOR, note, new_hashing_key=new_hashing_key)
        )
    click.echo(f"sealed with SECRET_KEY now: {done.keys} keys of communities, {done.texts} texts")
    if done.unreadable:
        raise click.ClickException(
            f"{done.unreadable} cannot be read with SECRET_KEY or SECRET_KEY_PREVIOUS; keys must be set again"
        )
