"""One HTTP request as this service takes it, in place of Quart's own class for that.

Quart starts two tasks for each request, one of which hands the body on as it comes, and a third to answer it. Here
the route pulls the body itself and nothing is started. A caller that hangs up does not end its request, since what is
being committed stays so, but where a route asks for that by `while_heard`. Each request has an id: the caller's
`X-Request-ID`, or one of our own; it is in the answer's headers and in every log line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Generator
from types import EllipsisType
from typing import Any, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Quart, Request, Response
from quart.asgi import ASGIHTTPConnection
from quart.routing import QuartMap
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.request import Body
from quart.wrappers.response import DataBody
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.routing import MapAdapter

from config import MAX_BATCH_BYTES, MAX_COMPLETION_BYTES, MAX_EVENT_BYTES, MAX_FORM_BYTES
from services.metrics import Metrics
from services.tracing import NOTHING, Span

BASE = "/api/v1/ai"
BATCH_PATH = f"{BASE}/interaction/batch"
SIZES = {
    BATCH_PATH: MAX_BATCH_BYTES,
    f"{BASE}/chat/completions": MAX_COMPLETION_BYTES,
    f"{BASE}/embeddings": MAX_COMPLETION_BYTES,
}
PAGES = "/dashboard/"
UNREAD_SECONDS = 1.0
LISTEN_SECONDS = 0.05
AT_ONCE_BYTES = 16_384  # what a socket takes without waiting for a slow reader
_GIVEN_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class PulledBody(Body):
    """A request's body, received when it is awaited, and no sooner."""

    receive: ASGIReceiveCallable
    complete = False

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self._most = max_content_length or MAX_EVENT_BYTES
        self._too_large = (expected_content_length or 0) > self._most
        self._data = bytearray()

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._all().__await__()

    async def _all(self) -> bytes:
        """All of it. Raises RequestEntityTooLarge, ClientDisconnected."""
        while not self.complete:
            if self._too_large:
                raise RequestEntityTooLarge
            await self.pull()
        return bytes(self._data)

    async def pull(self) -> None:
        """Receive the next piece; one that is too much is let go."""
        message = await self.receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        self._data += message["body"]
        self.complete = not message["more_body"]
        if len(self._data) > self._most:
            self._too_large = True
            self._data.clear()


class SizedRequest(Request):
    """A request whose body may be 64 KiB, a page's form 512 KiB, or what `SIZES` says of its path."""

    body_class = PulledBody
    body: PulledBody

    def __init__(self, method: str, scheme: str, path: str, *arguments: Any, **options: Any) -> None:
        most = MAX_FORM_BYTES if path.startswith(PAGES) else MAX_EVENT_BYTES
        options["max_content_length"] = SIZES.get(path, most)
        super().__init__(method, scheme, path, *arguments, **options)
        # Headers by their names in lower case, of several with one name the last: one pass over what the server gave
        # is cheaper than a look-up in Quart's headers, which searches them all.
        self.by_name = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}
        self._blueprints: list[str] | None = None

    @property
    def blueprints(self) -> list[str]:
        """As Quart has it, which works it out three times for each request."""
        if self._blueprints is None:
            self._blueprints = super().blueprints
        return self._blueprints


class Paths(QuartMap):
    """The routes, found by path and method alone; Quart would first compare the host with itself, part by part."""

    def bind_to_request(self, request: BaseRequestWebsocket, _subdomain: str | None, name: str | None) -> MapAdapter:
        query = request.query_string.decode("latin-1")
        return self.bind(name or "", request.root_path, "", request.scheme, request.method, request.path, query)


class Connection(ASGIHTTPConnection):
    """Handles one request in the task that the server has made for it."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self._id = given if _GIVEN_ID.fullmatch(given) else os.urandom(16).hex().encode()

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        request_id = self._id.decode()
        self.scope.setdefault("state", {})["request_id"] = request_id  # type: ignore[typeddict-item]
        bind_contextvars(request_id=request_id)
        with self._span() as span:
            await self._handle(receive, send, span)

    def _span(self) -> Span:
        """This request in a trace; what only asks after the service is in none."""
        if not self.scope["path"].startswith(BASE):
            return NOTHING
        span: Span = self.app.extensions["sidecast"].tracing.request(self.scope["headers"])
        return span

    async def _handle(self, receive: ASGIReceiveCallable, send: ASGISendCallable, span: Span) -> None:
        began = time.perf_counter()
        request = self._create_request_from_scope(send)
        body: PulledBody = request.body  # type: ignore[assignment]
        body.receive = receive
        response = await self.app.handle_request(request)
        route = request.url_rule.rule if request.url_rule else None  # never the path, of which there are any number
        span.answer(request.method, route, response.status_code)
        given = self.scope["state"]
        response.headers.extend({"X-Request-ID": given["request_id"]} | given.get("headers", {}))
        if isinstance(response.response, DataBody) and len(response.response.data) <= AT_ONCE_BYTES:
            headers = encode_headers(response.headers)
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": response.response.data, "more_body": False})
        else:
            await self._send_while_heard(receive, send, response)
        metrics = cast(App, self.app).metrics
        metrics.note_request(route, request.method, response.status_code, time.perf_counter() - began)
        if not body.complete:
            await _let_go(body)

    async def _send_while_heard(
        self, receive: ASGIReceiveCallable, send: ASGISendCallable, response: ResponseTypes
    ) -> None:
        """Send a long answer, until it is sent, the caller goes away, or its time is over."""
        own = response.timeout if isinstance(response, Response) else Ellipsis
        limit: float | None = self.app.config["RESPONSE_TIMEOUT"] if isinstance(own, EllipsisType) else own
        with contextlib.suppress(ClientDisconnected):
            async with while_heard(receive, limit):
                await self._send_response(send, response)


@contextlib.asynccontextmanager
async def while_heard(receive: ASGIReceiveCallable, limit: float | None = None) -> AsyncIterator[None]:
    """End what is inside when the caller goes away or after `limit` seconds. Raises ClientDisconnected.

    Whether the caller is still there is asked from 50 ms on: most of what ends sooner costs less than to ask.
    """
    try:
        async with asyncio.timeout(limit) as time_left:
            listening: list[asyncio.Task[None]] = []
            asking = asyncio.get_running_loop().call_later(
                LISTEN_SECONDS, lambda: listening.append(asyncio.ensure_future(_end_when_gone(receive, time_left)))
            )
            try:
                yield
            finally:
                asking.cancel()
                for task in listening:
                    task.cancel()
    except TimeoutError:
        if not time_left.expired():
            raise
        raise ClientDisconnected from None


async def _end_when_gone(receive: ASGIReceiveCallable, time_left: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    time_left.reschedule(0)


async def _let_go(body: PulledBody) -> None:
    """Receive what no route has read, for a moment, so that the caller reads our answer and not a reset."""
    with contextlib.suppress(ClientDisconnected, TimeoutError):
        async with asyncio.timeout(UNREAD_SECONDS):
            while not body.complete:
                await body.pull()


class App(Quart):
    """Quart with the classes of this module."""

    metrics: Metrics
    asgi_http_class = Connection
    request_class = SizedRequest
    url_map_class = Paths
