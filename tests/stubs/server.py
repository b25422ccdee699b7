"""Runs a Quart app as a real server on a loopback port, in the test's own loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from embedded.parts import free_port, http_ready


@asynccontextmanager
async def running(app: Quart, path: str = "/alive") -> AsyncIterator[str]:
    """The app's base URL while it runs; it needs a route `/alive`."""
    port = free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("stub")
    config.graceful_timeout = 0.1
    stopping = asyncio.Event()

    async def until_stopped() -> None:
        await stopping.wait()

    @app.get("/alive")
    async def alive() -> str:
        return "yes"

    server = asyncio.create_task(serve(app, config, shutdown_trigger=until_stopped))
    ready = http_ready(port, path)
    while not await ready():
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stopping.set()
        await server
