"""The development router's messages, where no router is set."""

from __future__ import annotations

from typing import Any

from quart import Blueprint

from routes.context import require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes.reply import KeptRepliesTwice
from services.keys import SERVICE
from services.router_service import DevRouter

blueprint = Blueprint("dev", __name__, url_prefix="/dev")


@blueprint.get("/router/messages")
@describe(KeptRepliesTwice, roles=[SERVICE], bare=True, errors=[404])
async def get_messages() -> dict[str, Any]:
    """The replies that a router would have received, newest last, each with `received_at`."""
    await require(SERVICE)
    router = sidecast().router
    if not isinstance(router, DevRouter):
        raise APIError(404, "NOT_FOUND", "Replies go to ROUTER_API_URL; the development router is off.")
    messages = list(router.messages)
    # Bare as well as wrapped, to be read by eye and by `jq .messages`.
    return {**success({"messages": messages}), "messages": messages}
