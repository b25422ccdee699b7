"""The HTTP clients' ways out: httpx, and httpx2 of the SDKs, over aiohttp's connections.

Their own connections, by httpcore, take more of the processor for each request. An answer is read up to a size, and
only as it is: what comes compressed was not asked for, and may be a bomb.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import httpx2
import orjson
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.httpx2 import AiohttpTransport as AiohttpTransport2

from config import CONNECT_TIMEOUT
from providers.base import ProviderBadAnswer, ProviderError, ProviderTimeout, ProviderUnreachable

CONNECTIONS = 200
KEEP_ALIVE_SECONDS = 30.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# What the openai and anthropic SDKs would tell any server of this machine.
MACHINE_HEADERS = tuple(
    f"X-Stainless-{name}" for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
)


class UnfitAnswer(Exception):
    """An answer that is compressed or too large."""


class _Limited(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """A body that ends with UnfitAnswer where it is too large."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ANSWER_BYTES
        async for piece in self._body:
            left -= len(piece)
            if left < 0:
                raise UnfitAnswer(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


class _Limits:
    """Goes before a transport of either kind."""

    async def handle_async_request(self, request: Any) -> Any:
        """Raises UnfitAnswer."""
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)  # type: ignore[misc]
        if response.headers.get("Content-Encoding", "identity") != "identity":
            await response.aclose()
            raise UnfitAnswer("a compressed answer, which was not asked for")
        response.stream = _Limited(response.stream)
        return response


class _Transport(_Limits, AiohttpTransport):
    pass


class _Transport2(_Limits, AiohttpTransport2):
    pass


def _session(verify: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    """Connections that keep no cookies and go by no proxy of the environment."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=verify)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def httpx_options(timeout: float, verify: ssl.SSLContext | bool = True, *, limited: bool = True) -> dict[str, Any]:
    """What to make an `httpx.AsyncClient` with: `timeout` seconds for each wait of a call, no redirects."""
    transport = _Transport if limited else AiohttpTransport
    return {
        "transport": transport(client=lambda: _session(verify)),
        "timeout": httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
        "trust_env": False,
        "follow_redirects": False,
    }


class _Client2(httpx2.AsyncClient):
    """Sends what it is given and no more: no cookies of earlier answers, no redirects, no credentials of its own."""

    def __init__(self, verify: ssl.SSLContext | bool) -> None:
        self._way = _Transport2(client=lambda: _session(verify))
        super().__init__(transport=self._way, trust_env=False)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **_options: Any) -> httpx2.Response:
        response: httpx2.Response = await self._way.handle_async_request(request)
        if not stream:
            try:
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
        return response


def httpx2_client(verify: ssl.SSLContext | bool = True) -> httpx2.AsyncClient:
    """A client for the openai and anthropic SDKs, which set the timeouts for each call."""
    return _Client2(verify)


class PreparedOnce:
    """Goes before an SDK's client, whose requests to one URL differ in their bodies alone.

    Putting URL and headers together for each would take the SDK longer than the network takes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._prepared: dict[tuple[str, str], tuple[httpx2.URL, httpx2.Headers, dict[str, Any]]] = {}

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        """What both SDKs call for each request; openai's own client for Azure overrides it as well."""
        prepared = self._prepared.get((options.method, options.url))
        if prepared is None:
            request: httpx2.Request = super()._build_request(options, retries_taken=retries_taken)  # type: ignore[misc]
            self._prepared[options.method, options.url] = request.url, request.headers.copy(), request.extensions
            return request
        url, headers, extensions = prepared
        content = b"" if options.json_data is None else orjson.dumps(options.json_data)
        own = headers.copy()
        if content:
            own["Content-Length"] = str(len(content))
        return httpx2.Request(options.method, url, headers=own, content=content, extensions=extensions)


def timed_out(error: BaseException) -> bool:
    """Whether a call's time was over, and not its connection refused or broken."""
    late = False
    cause: BaseException | None = error
    while cause is not None:
        # httpx-aiohttp calls a refused connection a timeout; what aiohttp said stands behind it.
        if isinstance(cause, aiohttp.ClientError | TimeoutError):
            return isinstance(cause, TimeoutError)
        late = late or isinstance(cause, httpx.TimeoutException | httpx2.TimeoutException)
        cause = cause.__cause__
    return late


def connection_error(name: str, error: BaseException) -> ProviderError:
    """What an error of a client, or of an SDK around it, says of the provider `name`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnfitAnswer):
            return ProviderBadAnswer(f"{name}: {cause}")
        cause = cause.__cause__
    if timed_out(error):
        return ProviderTimeout(f"{name} gave no answer in time")
    return ProviderUnreachable(f"{name}: the connection was refused or broke")


async def server_sent_events(response: httpx2.Response) -> AsyncIterator[str]:
    """The data of each event of a stream. Raises ProviderBadAnswer for an answer that is no stream."""
    kind = response.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        raise ProviderBadAnswer(f"an answer of the type {kind[:100]!r} in place of a stream")
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            yield line[5:].strip()
