"""Runs a Quart app as a real server on a loopback port, in the test's own loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from embedded.parts import free_port


@asynccontextmanager
async def running(app: Quart, **tls: Any) -> AsyncIterator[str]:
    """The app's base URL while it runs; `tls` are Hypercorn's settings of that name, for https."""
    port = free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("stub")
    config.graceful_timeout = 0.1
    for name, value in tls.items():
        setattr(config, name, value)
    stopping = asyncio.Event()

    async def until_stopped() -> None:
        await stopping.wait()

    server = asyncio.create_task(serve(app, config, shutdown_trigger=until_stopped))
    while not await _listens(port):
        await asyncio.sleep(0.01)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        stopping.set()
        await server


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
