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


def httpx2_client(verify: ssl.SSLContext | bool = True) -> httpx2.AsyncClient:
    """A client for the openai and anthropic SDKs, which set the timeouts for each call."""
    return httpx2.AsyncClient(
        transport=_Transport2(client=lambda: _session(verify)), trust_env=False, follow_redirects=False
    )


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
