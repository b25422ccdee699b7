"""Takes a reply to the chat router, or keeps it where no router is set (the development router)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp
import httpx
import orjson
from yarl import URL

from config import CONNECT_TIMEOUT, PROBE_TIMEOUT, ROUTER_TIMEOUT, Settings
from providers.http import Headers, Session, UnfitAnswer, make_headers, timed_out
from services.webhooks import sign, signing_key

KEPT_MESSAGES = 5_000
LONGEST_RETRY_AFTER = 30.0
SHORT_BYTES = 1024
_WAITS = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
# The answers after which another try may succeed: 408, 429 and 5xx; other 4xx and 3xx are final.
_PASSING = frozenset({408, 429, *range(500, 600)})


class DeliveryError(Exception):
    """The router did not take the reply; `reason` is a word for logs and the interaction."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class RouterUnavailable(DeliveryError):
    """Another try may succeed, `retry_after` seconds from now at the earliest."""


class RouterRefused(DeliveryError):
    """The router will not take this reply."""


class Router(Protocol):
    """Takes replies: one HTTP router, or the development router."""

    async def post(self, interaction_id: str, body: dict[str, Any], headers: Mapping[str, str], /) -> None:
        """Take a reply, with headers that say what it belongs to. Raises RouterUnavailable or RouterRefused."""
        ...

    async def check(self) -> None:
        """Raises RouterUnavailable."""
        ...

    async def close(self) -> None: ...


class HttpRouter:
    """The router at `ROUTER_API_URL`: one client, no redirects, no proxy of the environment."""

    def __init__(self, settings: Settings) -> None:
        self._url = URL(settings.router_api_url + settings.router_response_path)
        self._base = URL(settings.router_api_url)
        secret = settings.router_callback_secret.get_secret_value()
        self._signing_key = signing_key(secret) if secret else b""
        key = settings.router_api_key.get_secret_value()
        self._headers = make_headers({"Authorization": f"Bearer {key}"}.items() if key else ())
        self._session = Session()

    async def post(self, interaction_id: str, body: dict[str, Any], headers: Mapping[str, str]) -> None:
        """Raises RouterUnavailable or RouterRefused."""
        content = orjson.dumps(body)
        sent = self._headers.copy()
        sent.update({**headers, "Content-Type": "application/json"} | self._signature(interaction_id, content))
        status, retry_after = await self._send(self._url, sent, content, ROUTER_TIMEOUT)
        if status in _PASSING:
            raise RouterUnavailable(f"router_status_{status}", _seconds(retry_after))
        if not 200 <= status < 300:
            raise RouterRefused(f"router_status_{status}")

    async def check(self) -> None:
        """Whether the router's host answers at all, whatever it says. Raises RouterUnavailable."""
        await self._send(self._base, self._headers, None, PROBE_TIMEOUT)

    async def _send(self, url: URL, headers: Headers, content: bytes | None, limit: float) -> tuple[int, str]:
        """The answer's status and `Retry-After`, within `limit` seconds. Raises RouterUnavailable."""
        try:
            async with asyncio.timeout(limit):
                method = "GET" if content is None else "POST"
                answer = await self._session.request(method, url, headers, content, _WAITS)
                try:
                    # Read so that the connection can be used again; its status is all that counts.
                    if int(answer.headers.get("Content-Length") or 0) <= SHORT_BYTES:
                        with contextlib.suppress(UnfitAnswer):
                            await answer.read()
                finally:
                    answer.release()
        except (httpx.HTTPError, TimeoutError) as error:
            raise RouterUnavailable("router_timeout" if timed_out(error) else "router_unreachable") from error
        return answer.status, answer.headers.get("Retry-After", "")

    async def close(self) -> None:
        await self._session.close()

    def _signature(self, interaction_id: str, content: bytes) -> dict[str, str]:
        """The three headers of Standard Webhooks, or none without a secret."""
        if not self._signing_key:
            return {}
        now = str(int(time.time()))
        signature = sign(self._signing_key, interaction_id, now, content)
        return {"webhook-id": interaction_id, "webhook-timestamp": now, "webhook-signature": signature}


class DevRouter:
    """Keeps the newest 5,000 replies in memory, to be read at `/dev/router/messages`."""

    def __init__(self) -> None:
        self.messages: deque[dict[str, Any]] = deque(maxlen=KEPT_MESSAGES)

    async def post(self, _interaction_id: str, body: dict[str, Any], _headers: Mapping[str, str]) -> None:
        self.messages.append(body | {"received_at": datetime.now(UTC).isoformat()})

    async def check(self) -> None:
        return None

    async def close(self) -> None:
        return None


def _seconds(retry_after: str) -> float:
    """The wait that a `Retry-After` in seconds asks for, between 0 and 30 s; 0 for what cannot be read."""
    return min(float(retry_after), LONGEST_RETRY_AFTER) if retry_after.isascii() and retry_after.isdigit() else 0.0
