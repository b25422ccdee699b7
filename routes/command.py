"""The command line's way to the services: a connection to the database for one command, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import click
from quart.cli import ScriptInfo

from services.database import DatabaseUnavailable
from services.sidecast import Sidecast

ACTOR = "command line"
Result = TypeVar("Result")


def run(info: ScriptInfo, work: Callable[[Sidecast], Awaitable[Result]]) -> Result:
    """What `work` gives, with the database open. Raises ClickException where PostgreSQL is away."""
    services = cast(Sidecast, info.load_app().extensions["sidecast"])

    async def opened() -> Result:
        await services.open_database()
        try:
            return await work(services)
        finally:
            await services.bus.flush()
            await services.valkey.close()
            await services.database.close()

    try:
        return asyncio.run(opened())
    except DatabaseUnavailable as error:
        raise click.ClickException(f"{error}; does the service run, or is DATABASE_URL set?") from None
