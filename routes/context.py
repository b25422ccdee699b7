"""What routes share: the services, the caller, the shape of a success."""

from __future__ import annotations

import re
from typing import Any, cast

from quart import current_app, g, request

from routes.errors import APIError
from services.ids import new_id
from services.keys import Principal
from services.sidecast import Sidecast

BASE = "/api/v1/ai"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def sidecast() -> Sidecast:
    """The services of this app."""
    return cast(Sidecast, current_app.extensions["sidecast"])


def success(data: dict[str, Any]) -> dict[str, Any]:
    """The body of every answer that is no error."""
    return {"success": True, "data": data}


def require(*roles: str) -> Principal:
    """The caller, who is an admin or has one of `roles`. Raises APIError 401 or 403."""
    principal = sidecast().keys.find(_presented_key())
    if principal is None:
        raise APIError(401, "UNAUTHORIZED", "A valid key is needed: Authorization: Bearer <key>.")
    if not principal.may(*roles):
        raise APIError(403, "FORBIDDEN", "This key may not do this.")
    return principal


def _presented_key() -> str:
    headers = request.headers
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or headers.get("X-API-Key", "") or headers.get("X-Service-Key", "")


async def adopt_request_id() -> None:
    """Take the caller's `X-Request-ID` or make one; it is in the answer's headers and in every log line."""
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else new_id().hex
