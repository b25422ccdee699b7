"""A provider that outages cannot hold up: a deadline for the whole call, retries for what may heal, a breaker.

The breaker is around each attempt, so that it counts what the provider did and not what became of the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from providers.base import (
    ChatReply,
    ChatRequest,
    Chunk,
    Embeddings,
    Provider,
    ProviderBadAnswer,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    Usage,
)
from providers.breaker import Breaker

ATTEMPTS = 3
FIRST_WAIT = 0.2
LONGEST_WAIT = 2.0
# A provider that asks for a longer wait is passed over instead.
LONGEST_RETRY_AFTER = 5.0
RETRIES_PER_CALL = 0.2
RETRIES_PER_SECOND = 10.0

CHAT = "chat"
EMBEDDINGS = "embeddings"

Result = TypeVar("Result")
Reply = TypeVar("Reply", ChatReply, Embeddings)


class BreakerOpen(ProviderError):
    """The provider failed too often of late and is not asked."""

    reason = "provider_breaker_open"


class RetryBudget:
    """How many retries a provider may get: a fifth of the calls, and ten a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = RETRIES_PER_SECOND
        self._at = clock()

    def note_call(self) -> None:
        self._refill(RETRIES_PER_CALL)

    def take(self) -> bool:
        """Whether there is a retry left; it is used up."""
        self._refill(0)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _refill(self, more: float) -> None:
        now = self._clock()
        self._left = min(self._left + more + (now - self._at) * RETRIES_PER_SECOND, RETRIES_PER_SECOND)
        self._at = now


class Resilient:
    """Calls of one provider, by a community's `own` address or key, or the service's.

    `on_attempt` hears of each attempt when it has ended, `on_retry` of each but the first when it begins.
    """

    def __init__(
        self,
        provider: Provider,
        breaker: Breaker,
        on_attempt: Callable[[Attempt], None],
        on_retry: Callable[[Resilient], None],
        *,
        own: bool = False,
    ) -> None:
        self.provider = provider
        self.breaker = breaker
        self.own = own
        self._budget = RetryBudget()
        self._on_attempt = on_attempt
        self._on_retry = on_retry

    async def chat(self, request: ChatRequest, limit: float) -> ChatReply:
        """The reply within `limit` seconds, retries included. Raises ProviderError."""
        return await self._call(lambda: self.provider.chat(request), limit, CHAT, request.model)

    async def embed(self, texts: list[str], model: str, limit: float) -> Embeddings:
        """As `chat`. Raises ProviderError."""
        return await self._call(lambda: self.provider.embed(texts, model), limit, EMBEDDINGS, model)

    async def stream(self, request: ChatRequest, limit: float) -> AsyncGenerator[Chunk, None]:
        """The reply in pieces, all within `limit` seconds; retried until the first has come. Raises ProviderError."""
        deadline = time.monotonic() + limit

        async def begin() -> tuple[Attempt, AsyncGenerator[Chunk, None], Chunk]:
            attempt = self._enter(CHAT, request.model)
            with contextlib.ExitStack() as unless_begun:
                unless_begun.enter_context(attempt)
                pieces = self.provider.stream(request)
                first = await anext(pieces, None)
                if first is None:
                    raise ProviderBadAnswer(f"{self.provider.name}: a stream of nothing")
                unless_begun.pop_all()
            return attempt, pieces, first

        attempt, pieces, piece = await self._retry(begin, limit)
        try:
            with attempt:
                following: Chunk | None = piece
                while following is not None:
                    attempt.usage = following.usage or attempt.usage
                    yield following
                    following = await self._next(pieces, deadline)
        finally:
            await pieces.aclose()

    async def _next(self, pieces: AsyncGenerator[Chunk, None], deadline: float) -> Chunk | None:
        """The next piece, or None after the last. Raises ProviderTimeout."""
        # Not around the whole stream: a timeout must not strike while the caller has the turn.
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await anext(pieces, None)
        except TimeoutError as error:
            raise ProviderTimeout(f"{self.provider.name}: the stream did not end in time") from error

    async def _call(self, call: Callable[[], Awaitable[Reply]], limit: float, operation: str, model: str) -> Reply:
        async def attempt() -> Reply:
            with self._enter(operation, model) as begun:
                reply = await call()
                begun.usage = reply.usage
                return reply

        return await self._retry(attempt, limit)

    async def _retry(self, attempt: Callable[[], Awaitable[Result]], limit: float) -> Result:
        self._budget.note_call()
        try:
            async with asyncio.timeout(max(limit, 0)):
                try:
                    return await attempt()
                except ProviderError as error:
                    if not self._may_retry(error):
                        raise
                    await asyncio.sleep(_wait(error, 1))
                return await self._try_again(attempt)
        except TimeoutError as error:
            raise ProviderTimeout(f"{self.provider.name} gave no answer within {limit:.1f} s") from error

    async def _try_again(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """The tries after the first, which most calls do not need and which cost more than the first itself."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._may_retry),
            wait=lambda state: _wait(state.outcome.exception() if state.outcome else None, state.attempt_number + 1),
            stop=stop_after_attempt(ATTEMPTS - 1),
            reraise=True,
        )

        async def again() -> Result:
            self._on_retry(self)
            return await attempt()

        return await retrying(again)

    def _may_retry(self, error: BaseException) -> bool:
        if not isinstance(error, ProviderError) or not error.heals:
            return False
        if isinstance(error, ProviderRateLimited) and error.retry_after > LONGEST_RETRY_AFTER:
            return False
        return self._budget.take()

    def _enter(self, operation: str, model: str) -> Attempt:
        """Raises BreakerOpen."""
        ticket = self.breaker.enter()
        if ticket is None:
            raise BreakerOpen(
                f"{self.provider.name} failed too often; it is asked again in {self.breaker.seconds_left:.0f} s"
            )
        return Attempt(self, ticket, operation, model)

    def note(self, attempt: Attempt, ticket: int, error: BaseException | None) -> None:
        """How an attempt ended."""
        ok = error is None or (error.counts if isinstance(error, ProviderError) else None)
        self.breaker.leave(ticket, ok)
        self._on_attempt(attempt)


class Attempt:
    """One call of a provider, from the breaker's ticket to its end, which `with` hears of.

    What it was for, `chat` or `embeddings`, and of which model; then its `result`, `ok` or the reason, the seconds it
    took, and the tokens that the provider counted. `own` as `Resilient` has it.
    """

    def __init__(self, owner: Resilient, ticket: int, operation: str, model: str) -> None:
        self.provider = owner.provider
        self.operation = operation
        self.model = model
        self.result = ""
        self.seconds = 0.0
        self.usage: Usage | None = None
        self.own = owner.own
        self._owner = owner
        self._ticket = ticket
        self._began = time.monotonic()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.result = "ok" if error is None else error.reason if isinstance(error, ProviderError) else "cancelled"
        self._owner.note(self, self._ticket, error)


def _wait(error: BaseException | None, attempt: int) -> float:
    """Seconds until the next try: full jitter, growing; at least what the provider asks for."""
    asked = error.retry_after if isinstance(error, ProviderRateLimited) else 0.0
    return asked + random.uniform(0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT))  # noqa: S311 - not a secret
