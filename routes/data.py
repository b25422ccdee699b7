"""The whole database in a file, and back; no HTTP."""

from __future__ import annotations

from pathlib import Path

import click
from quart import Blueprint
from quart.cli import ScriptInfo, pass_script_info

from routes import command
from services.backup import BackupError
from services.sidecast import Sidecast

blueprint = Blueprint("data", __name__)


@blueprint.cli.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_script_info
def backup(info: ScriptInfo, file: Path) -> None:
    """Write the database, as it is at this moment, to FILE; instances may run."""
    try:
        size = command.run(info, lambda services: services.backup.save(file))
    except BackupError as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"{file}: {size / 1e6:.1f} MB. What is sealed in it needs this service's SECRET_KEY, which is not in it."
    )


@blueprint.cli.command("restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="do not ask")
@pass_script_info
def restore(info: ScriptInfo, file: Path, *, yes: bool) -> None:
    """Replace the whole database by what FILE has; instances may run."""
    if not yes:
        click.confirm(
            "Everything in the database is replaced, events that were accepted since are lost. Go on?", abort=True
        )

    async def replace(services: Sidecast) -> tuple[list[str], int]:
        applied = await services.backup.restore(file)
        # Should this not come to its end, instances do it when they start.
        return applied, await services.privacy.forget_again(command.ACTOR)

    try:
        applied, again = command.run(info, replace)
    except BackupError as error:
        raise click.ClickException(f"{error}. Nothing was changed.") from None
    click.echo("restored" + (f", and brought up to date by {', '.join(applied)}" if applied else ""))
    if again:
        click.echo(f"{again} people who were forgotten since the backup were forgotten again")
