"""Valkey (or Redis), shared by all who keep there what may be lost; while it is away each goes on from memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from config import VALKEY_TIMEOUT
from services.logs import Log

MAX_CONNECTIONS = 20
PAUSE_SECONDS = 1.0
LISTEN_SECONDS = 5.0  # without a word; then it is asked for one

Result = TypeVar("Result")


class ValkeyAway(Exception):
    """It does not answer, or there is none."""


class Valkey:
    """One client. Where it failed, one command a second tries it; when that begins and ends is logged."""

    def __init__(self, url: str, log: Log) -> None:
        self._client = _connect(url) if url else None
        self._log = log
        self._scripts: list[Script] = []
        self._away_since: float | None = None
        self._retry_at = 0.0

    @property
    def is_set(self) -> bool:
        return self._client is not None

    @property
    def is_away(self) -> bool:
        """Whether it did not answer when last asked."""
        return self._away_since is not None

    async def run(self, command: Callable[[Redis], Awaitable[Result]]) -> Result:
        """What a command answers, within `VALKEY_TIMEOUT` seconds. Raises ValkeyAway."""
        if self._client is None or time.monotonic() < self._retry_at:
            raise ValkeyAway
        if self._away_since is not None:  # nobody else waits while this tries
            self._retry_at = time.monotonic() + VALKEY_TIMEOUT + PAUSE_SECONDS
        try:
            async with asyncio.timeout(VALKEY_TIMEOUT):
                try:
                    result = await command(self._client)
                except NoScriptError:  # it was started anew, or flushed
                    await self._load_scripts(self._client)
                    result = await command(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            self._note_away(error)
            raise ValkeyAway from error
        self._note_back()
        return result

    def listener(self, channel: str, hear: Callable[[str], None], gap: Callable[..., None]) -> Listener | None:
        """Hears what is published; None where there is no Valkey."""
        return Listener(self._client, channel, hear, gap) if self._client is not None else None

    def script(self, text: str) -> Script:
        """A Lua script, to be asked for in a command of `run`."""
        script = Script(text)
        self._scripts.append(script)
        return script

    async def _load_scripts(self, client: Redis) -> None:
        for script in self._scripts:
            await client.script_load(script.text)

    async def ping(self) -> None:
        """Raises RedisError or OSError."""
        if self._client is not None:
            await self._client.ping()

    async def close(self) -> None:
        # Away from now on, so that nothing that is still under way opens a connection which nobody closes.
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _note_away(self, error: BaseException) -> None:
        self._retry_at = time.monotonic() + PAUSE_SECONDS
        if self._away_since is None:
            self._away_since = time.monotonic()
            message = f"Valkey does not answer ({type(error).__name__}); each instance goes on from its own memory"
            self._log.error("valkey.away", message, result="ERROR")

    def _note_back(self) -> None:
        if self._away_since is not None:
            seconds = round(time.monotonic() - self._away_since, 1)
            self._away_since, self._retry_at = None, 0.0
            self._log.system("valkey.back", f"Valkey answers again after {seconds} s", result="SUCCESS")


class Script:
    """A Lua script that the server knows by its hash: redis-py's own asks for it before each pipeline."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def ask(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Its answer; or, with a pipeline, to be awaited with that."""
        return client.evalsha(self._sha, len(keys), *keys, *arguments)


class Listener:
    """Hears what is published on a channel, on a connection of its own; `gap` is told when that begins and ends."""

    def __init__(self, client: Redis, channel: str, hear: Callable[[str], None], gap: Callable[..., None]) -> None:
        self._pubsub = client.pubsub()
        self._channel = channel
        self._hear = hear
        self._gap = gap
        self._connected = False

    async def connect(self) -> None:
        """Listen, where it does not."""
        if self._connected:
            return
        try:
            async with asyncio.timeout(VALKEY_TIMEOUT):
                await self._pubsub.subscribe(self._channel)
        except (RedisError, OSError, TimeoutError):
            await self._lose()
        else:
            self._connected = True

    async def hear(self) -> None:
        """Hear until the connection breaks; then a second of pause."""
        pinged = False
        try:
            while self._connected:
                message = await self._pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None and message["type"] == "subscribe":
                    self._gap(connected=True)  # also where the client has connected anew by itself
                elif message is not None and message["type"] == "message":
                    self._hear(str(message["data"]))
                elif message is None and pinged:
                    raise TimeoutError
                elif message is None:
                    await self._pubsub.ping()
                pinged = message is None
        except (RedisError, OSError, TimeoutError):
            await self._lose()
        except asyncio.CancelledError:
            await self._lose()
            raise
        await asyncio.sleep(PAUSE_SECONDS)

    async def _lose(self) -> None:
        self._connected = False
        self._gap(connected=False)
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]


def _connect(url: str) -> Redis:
    """A client that waits for a free connection, gives up soon, and tries a dead connection once more.

    Raises ValueError for a URL that is none.
    """
    options: dict[str, Any] = dict.fromkeys(("timeout", "socket_timeout", "socket_connect_timeout"), VALKEY_TIMEOUT)
    options |= {"max_connections": MAX_CONNECTIONS, "retry": Retry(NoBackoff(), 1), "decode_responses": True}
    options["protocol"] = 2  # in which what is published, and the answer to a ping, come as messages
    try:
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(url, **options)
    except ValueError:
        # Its words may be a part of the password.
        message = "REDIS_URL: must be redis://, rediss:// or unix://; in a password, signs such as / are written as %2F"
        raise ValueError(message) from None
    return Redis.from_pool(pool)
