"""Sidecast: an AI co-host that a chat router calls. `python app.py` serves it; `scripts/serve` brings its parts too.

The main path: routes/interactions.py → services/intake.py → services/worker.py.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from typing import Any

import orjson
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response
from quart.json.provider import DefaultJSONProvider

from config import MAX_COMPLETION_BYTES, ConfigError, Settings, load_running_settings, load_settings
from routes import (
    audit,
    communities,
    dashboard,
    data,
    dev,
    docs,
    health,
    history,
    interactions,
    keys,
    openai,
    secrets,
    stream,
    trial,
    usage,
    users,
)
from routes import config as settings_routes
from routes.connection import App
from routes.errors import register_error_handlers
from services.database import DatabaseUnavailable, MigrationError
from services.logs import open_log
from services.sidecast import Sidecast

GC_ALLOCATIONS = 50_000


class FastJSON(DefaultJSONProvider):
    """JSON in the order it was made, with emoji as they are."""

    def response(self, *parts: Any, **fields: Any) -> Response:
        return Response(orjson.dumps(self._prepare_response_obj(parts, fields)), mimetype=self.mimetype)


def create_app(settings: Settings | None = None) -> Quart:
    """The app and, as `app.extensions["sidecast"]`, its services, which the caller opens and closes.

    Without settings, as on the command line, it is that of the service that runs on DATA_DIR.

    Raises ValueError where the settings name a provider there is none of.
    """
    app = App(__name__, static_folder=None)
    app.json = FastJSON(app)
    lines = sys.stdout if settings else sys.stderr  # a command's standard output is its result
    settings = settings or load_running_settings()
    log = open_log(settings, lines)
    services = Sidecast(settings, log)
    app.extensions["sidecast"] = services
    app.metrics = services.metrics
    for room in (
        interactions,
        openai,
        stream,
        settings_routes,
        communities,
        history,
        keys,
        users,
        audit,
        usage,
        trial,
        secrets,
        data,
        health,
        docs,
        dev,
        dashboard,
    ):
        app.register_blueprint(room.blueprint)
    register_error_handlers(app, log)
    return app


def server_config(settings: Settings) -> Config:
    """Hypercorn for one process: plain HTTP/1.1, which is what routers and proxies speak to it."""
    config = Config()
    config.bind = [f"{settings.bind_host}:{settings.module_port}"]
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = 2
    config.websocket_max_message_size = MAX_COMPLETION_BYTES
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    app = create_app(settings)
    services: Sidecast = app.extensions["sidecast"]
    stopping = asyncio.Event()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    async def until_drained() -> None:
        # While it drains, HTTP goes on: health says not ready, the intake says 503, outcomes can be read.
        await stopping.wait()
        await services.drain()

    # Opened and closed here, not by Quart's own hooks, which one cancelled task can keep from running.
    try:
        await services.open()
        # What is made by now stays: the collector need not look at it, nor look often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 20, 20)
        await serve(app, server_config(settings), shutdown_trigger=until_drained)
    finally:
        await services.close()


def main() -> int:
    """The exit code: 0 after a stop, 2 when it cannot start and a restart would not help."""
    try:
        settings = load_settings()
        if not settings.database_url:
            raise ConfigError("DATABASE_URL: not set; scripts/serve brings a PostgreSQL, or set it to yours")
        uvloop.run(run(settings))
    except (ConfigError, MigrationError, DatabaseUnavailable, ValueError) as error:
        print(f"Sidecast cannot start.\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
