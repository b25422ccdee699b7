"""What routes share: the services, the caller, the shape of a success."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from quart import current_app, request

from routes import connection
from routes.connection import SizedRequest
from routes.errors import APIError
from services.keys import Principal
from services.sidecast import Sidecast


def sidecast() -> Sidecast:
    """The services of this app."""
    return cast(Sidecast, current_app.extensions["sidecast"])


def request_id() -> str:
    """The id of this request."""
    return str(request.scope["state"]["request_id"])


def while_heard() -> AbstractAsyncContextManager[None]:
    """Ends what is inside, with ClientDisconnected, when the caller goes away. For after the body was read."""
    return connection.while_heard(cast(SizedRequest, request).body.receive)


def success(data: dict[str, Any]) -> dict[str, Any]:
    """The body of every answer that is no error."""
    return {"success": True, "data": data}


def require(role: str, given: dict[str, str] | None = None) -> Principal:
    """The caller, who is an admin or has `role`. Raises APIError 401 or 403.

    `given` are the headers where there is no request, by their names in lower case.
    """
    principal = sidecast().keys.find(_presented_key(headers() if given is None else given))
    if principal is None:
        raise APIError(401, "UNAUTHORIZED", "A valid key is needed: Authorization: Bearer <key>.")
    if not principal.may(role):
        raise APIError(403, "FORBIDDEN", "This key may not do this.")
    return principal


def headers() -> dict[str, str]:
    """The request's headers by their names in lower case; of several with one name the last."""
    return cast(SizedRequest, request).by_name


def _presented_key(given: dict[str, str]) -> str:
    scheme, _, token = given.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or given.get("x-api-key", "") or given.get("x-service-key", "")
