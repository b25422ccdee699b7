"""A request's id: the caller's `X-Request-ID`, or one of our own; in the answer's headers and in every log line.

At the ASGI level, since Quart's hooks around each request cost more than the id is worth.
"""

from __future__ import annotations

import re
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from structlog.contextvars import bind_contextvars, clear_contextvars

from services.ids import new_id

_GIVEN = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestIds:
    """Wraps an ASGI app; the id is `scope["state"]["request_id"]`."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _GIVEN.fullmatch(given) else new_id().hex
        scope.setdefault("state", {})["request_id"] = request_id
        clear_contextvars()
        bind_contextvars(request_id=request_id)

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)
