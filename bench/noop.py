"""A Quart endpoint that reads JSON and does nothing, under the service's own server: `python -m bench.noop PORT`."""

from __future__ import annotations

import sys
from typing import Any

import uvloop
from hypercorn.asyncio import serve
from quart import Quart, request

from app import server_config
from config import load_settings

app = Quart(__name__)


@app.get("/health/ready")
async def ready() -> dict[str, Any]:
    return {}


@app.post("/noop")
async def noop() -> dict[str, Any]:
    await request.get_json()
    return {"success": True}


if __name__ == "__main__":
    uvloop.run(serve(app, server_config(load_settings(module_port=sys.argv[1]))))
