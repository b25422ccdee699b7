"""The HTTP clients' ways out: httpx, and httpx2 of the openai SDK, over aiohttp's connections.

Their own connections, by httpcore, take three times as long for each request (bench/README.md).
"""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import httpx
import httpx2
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.httpx2 import AiohttpTransport as AiohttpTransport2

from config import CONNECT_TIMEOUT

CONNECTIONS = 200
KEEP_ALIVE_SECONDS = 30.0


def _session(verify: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    """Connections that keep no cookies and go by no proxy of the environment."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=verify)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def httpx_options(timeout: float, verify: ssl.SSLContext | bool = True) -> dict[str, Any]:
    """What to make an `httpx.AsyncClient` with: `timeout` seconds for each wait of a call, no redirects."""
    return {
        "transport": AiohttpTransport(client=lambda: _session(verify)),
        "timeout": httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
        "trust_env": False,
        "follow_redirects": False,
    }


def httpx2_client(verify: ssl.SSLContext | bool = True) -> httpx2.AsyncClient:
    """A client for the openai SDK, which sets the timeouts for each call."""
    return httpx2.AsyncClient(
        transport=AiohttpTransport2(client=lambda: _session(verify)), trust_env=False, follow_redirects=False
    )


def timed_out(error: BaseException) -> bool:
    """Whether a call's time was over, and not its connection refused or broken.

    httpx-aiohttp calls both a ConnectTimeout; what aiohttp said stands behind it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientError):
            return isinstance(cause, TimeoutError)
        cause = cause.__cause__
    return isinstance(error, TimeoutError | httpx.TimeoutException | httpx2.TimeoutException)
