"""Errors as JSON, all of them: `{"success": false, "error": {"code", "message", "details"}}`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from quart import Quart, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from services.database import DatabaseUnavailable
from services.logs import Log

RETRY_SECONDS = "1"

CODES = {
    400: "INVALID_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    413: "TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    503: "SERVICE_UNAVAILABLE",
}
_MESSAGES = {
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
    408: "The request's body did not arrive in time.",
    413: "The request's body is too large.",
}


# How blueprints whose errors have a shape of their own tell of a bug.
RENDERERS: dict[str, Callable[[APIError], Awaitable[Response]]] = {}


@dataclass
class APIError(Exception):
    """An answer that is an error; `details` name fields and what is wrong with them."""

    status: int
    code: str
    message: str
    details: list[dict[str, str]] = field(default_factory=list)
    retry_after: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "details": self.details}


def register_error_handlers(app: Quart, log: Log) -> None:
    """Every error of every route ends in one of these."""

    @app.errorhandler(APIError)
    async def api_error(error: APIError) -> Response:
        return render(error)

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        answer = render(as_api_error(error))
        answer.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
        return answer

    @app.errorhandler(DatabaseUnavailable)
    async def database_away(error: DatabaseUnavailable) -> Response:
        return render(as_api_error(error))

    @app.errorhandler(Exception)
    async def bug(error: Exception) -> Response:
        # The edge that must not die: whatever a route did not foresee is logged with its traceback, and the caller
        # is told nothing of it.
        log.error("request.failed", f"{request.method} {request.path} failed", result="ERROR", exc_info=error)
        refusal = APIError(500, CODES[500], "Something went wrong on our side.")
        return await RENDERERS.get(request.blueprint or "", _render)(refusal)


async def _render(error: APIError) -> Response:
    return render(error)


def as_api_error(error: HTTPException | DatabaseUnavailable) -> APIError:
    """What is refused below the routes, as they would refuse it."""
    if isinstance(error, DatabaseUnavailable):
        return APIError(503, CODES[503], "The database is not available; try again.")
    status = error.code or 500
    return APIError(status, CODES.get(status, CODES[400]), _MESSAGES.get(status, error.name + "."))


def render(error: APIError) -> Response:
    """The error as a response."""
    response: Response = jsonify({"success": False, "error": error.as_dict()})
    response.status_code = error.status
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status in {429, 503}:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return response
