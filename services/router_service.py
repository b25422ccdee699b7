"""Posts replies to the chat router, or keeps them where no router is set (the development router)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from config import CONNECT_TIMEOUT, PROBE_TIMEOUT, ROUTER_TIMEOUT, Settings
from services.logs import Log

KEPT_MESSAGES = 5_000
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
# The answers after which another try may succeed (DESIGN: 408, 429 and 5xx; other 4xx and 3xx are final).
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

    async def post(self, interaction_id: str, body: dict[str, Any], /) -> None:
        """Raises RouterUnavailable or RouterRefused."""
        ...

    async def check(self) -> None:
        """Raises RouterUnavailable."""
        ...

    async def close(self) -> None: ...


class HttpRouter:
    """The router at `ROUTER_API_URL`: one client, no redirects, no proxy of the environment."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.router_api_url + settings.router_response_path
        self._base = settings.router_api_url
        self._secret = _signing_key(settings.router_callback_secret.get_secret_value())
        key = settings.router_api_key.get_secret_value()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(ROUTER_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
            follow_redirects=False,
            trust_env=False,
        )

    async def post(self, interaction_id: str, body: dict[str, Any]) -> None:
        """Raises RouterUnavailable or RouterRefused."""
        content = json.dumps(body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json"} | self._signature(interaction_id, content)
        try:
            # Streamed, so that a router's endless answer is not read: its status is all that counts.
            async with self._client.stream("POST", self._url, content=content, headers=headers) as answer:
                status, retry_after = answer.status_code, answer.headers.get("Retry-After", "")
        except httpx.HTTPError as error:
            raise RouterUnavailable(f"router_{_snake(error)}") from error
        if status in _PASSING:
            raise RouterUnavailable(f"router_status_{status}", _seconds(retry_after))
        if not 200 <= status < 300:
            raise RouterRefused(f"router_status_{status}")

    async def check(self) -> None:
        """Whether the router's host answers at all, whatever it says. Raises RouterUnavailable."""
        try:
            async with self._client.stream("GET", self._base, timeout=PROBE_TIMEOUT):
                pass
        except httpx.HTTPError as error:
            raise RouterUnavailable(f"router_{_snake(error)}") from error

    async def close(self) -> None:
        await self._client.aclose()

    def _signature(self, interaction_id: str, content: bytes) -> dict[str, str]:
        """The three headers of Standard Webhooks 1.0, or none without a secret."""
        if not self._secret:
            return {}
        now = str(int(time.time()))
        signed = b".".join((interaction_id.encode(), now.encode(), content))
        digest = base64.b64encode(hmac.new(self._secret, signed, hashlib.sha256).digest()).decode()
        return {"webhook-id": interaction_id, "webhook-timestamp": now, "webhook-signature": f"v1,{digest}"}


class DevRouter:
    """Keeps the newest 5,000 replies in memory, to be read at `/dev/router/messages`."""

    def __init__(self) -> None:
        self.messages: deque[dict[str, Any]] = deque(maxlen=KEPT_MESSAGES)

    async def post(self, _interaction_id: str, body: dict[str, Any]) -> None:
        self.messages.append(body | {"received_at": datetime.now(UTC).isoformat()})

    async def check(self) -> None:
        return None

    async def close(self) -> None:
        return None


class RouterService:
    """Offers a reply to the router until it is taken, refused or too old."""

    def __init__(self, settings: Settings, router: Router, log: Log) -> None:
        self._ttl = settings.delivery_ttl
        self._log = log
        self.router = router

    async def deliver(self, interaction_id: str, body: dict[str, Any], attempts: int, age: float) -> int:
        """Post `body`, whose reply was ready `age` seconds ago; returns the number of posts, those before included.

        Raises DeliveryError when it is given up.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RouterUnavailable),
            stop=stop_after_delay(max(self._ttl - age, 0)),
            wait=_wait,
            before_sleep=self._note,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                attempts += 1
                await self.router.post(interaction_id, body | {"attempt": attempts} if "attempt" in body else body)
        return attempts

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        message = f"the router did not take a reply ({error}); it is offered again in {wait:.1f} s"
        self._log.error("delivery.retried", message, result="RETRY", attempt=state.attempt_number)


_backoff = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    """Exponential with full jitter, and not before the router's `Retry-After` (up to 30 s of it)."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, RouterUnavailable) else 0.0
    return asked + _backoff(state)


def _seconds(retry_after: str) -> float:
    """The wait that a `Retry-After` in seconds asks for, between 0 and 30 s; 0 for what cannot be read."""
    return min(float(retry_after), LONGEST_WAIT) if retry_after.isascii() and retry_after.isdigit() else 0.0


def _signing_key(secret: str) -> bytes:
    """The key of a `whsec_…` secret (base64), or the text's own bytes."""
    return base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()


def _snake(error: Exception) -> str:
    """`ConnectTimeout` as `connect_timeout`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(error).__name__).lstrip("_")
