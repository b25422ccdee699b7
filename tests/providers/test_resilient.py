"""A provider around which outages are handled: deadline, retries within a budget, breaker around each attempt."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest

from providers.base import (
    ChatReply,
    ChatRequest,
    Chunk,
    Provider,
    ProviderBadAnswer,
    ProviderBadRequest,
    ProviderError,
    ProviderRateLimited,
    ProviderRefusedKey,
    ProviderTimeout,
    ProviderUnreachable,
    Usage,
)
from providers.breaker import Breaker, Rule, State
from providers.resilient import Attempt, BreakerOpen, Resilient, RetryBudget

REQUEST = ChatRequest([{"role": "user", "content": "hi"}], "m")
REPLY = ChatReply([{"message": {"content": "hello"}}], "m", Usage())


class Scripted:
    """Does what the script says, call by call, the last line for ever: an error, "hang", "reply", or pieces."""

    name = "scripted"

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.calls = 0

    def next(self) -> Any:
        self.calls += 1
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def chat(self, _request: ChatRequest) -> ChatReply:
        step = self.next()
        if step == "hang":
            await asyncio.sleep(60)
        if isinstance(step, Exception):
            raise step
        return REPLY

    async def stream(self, _request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        for step in self.next():
            if step == "hang":
                await asyncio.sleep(60)
            if isinstance(step, Exception):
                raise step
            yield Chunk([{"index": 0, "delta": {"content": step}}], "m")


def around(provider: Scripted, failures: int = 5) -> tuple[Resilient, Counter[str]]:
    results: Counter[str] = Counter()

    def note(attempt: Attempt) -> None:
        results[attempt.result] += 1

    def note_retry(_link: Resilient) -> None:
        results["retries"] += 1

    breaker = Breaker(Rule(failures, 60), lambda _state: None)
    return Resilient(cast(Provider, provider), breaker, note, note_retry), results


async def test_what_may_heal_is_tried_again() -> None:
    provider = Scripted(ProviderUnreachable("x"), ProviderBadAnswer("x"), "reply")
    link, results = around(provider)
    assert await link.chat(REQUEST, 10) is REPLY
    assert results == {"provider_unreachable": 1, "provider_bad_answer": 1, "ok": 1, "retries": 2}


@pytest.mark.parametrize(
    "error",
    [ProviderBadRequest("x"), ProviderRefusedKey("x"), ProviderTimeout("x"), ProviderRateLimited("x", 60)],
    ids=lambda error: error.reason,
)
async def test_what_does_not_heal_soon_is_not(error: ProviderError) -> None:
    provider = Scripted(error)
    link, _ = around(provider)
    with pytest.raises(type(error)):
        await link.chat(REQUEST, 10)
    assert provider.calls == 1


async def test_a_short_wait_that_a_provider_asks_for_is_kept() -> None:
    link, _ = around(Scripted(ProviderRateLimited("x", 0.3), "reply"))
    began = time.monotonic()
    await link.chat(REQUEST, 10)
    assert time.monotonic() - began >= 0.3


async def test_the_whole_call_has_a_deadline() -> None:
    for provider in (Scripted("hang"), Scripted(ProviderRateLimited("x", 4))):
        link, results = around(provider)
        began = time.monotonic()
        with pytest.raises(ProviderTimeout):
            await link.chat(REQUEST, 0.2)
        assert time.monotonic() - began < 1
        assert sum(results.values()) == 1


async def test_the_breaker_counts_attempts_and_then_nobody_asks() -> None:
    provider = Scripted(ProviderUnreachable("x"))
    link, _ = around(provider)
    for error in (ProviderUnreachable, BreakerOpen, BreakerOpen):
        with pytest.raises(error):
            await link.chat(REQUEST, 10)
    assert provider.calls == 5
    assert link.breaker.state is State.OPEN


async def test_the_callers_own_fault_and_cancellation_say_nothing() -> None:
    provider = Scripted(ProviderBadRequest("x"))
    link, _ = around(provider, failures=1)
    for _ in range(3):
        with pytest.raises(ProviderBadRequest):
            await link.chat(REQUEST, 10)
    provider.script = ["hang"]
    task = asyncio.create_task(link.chat(REQUEST, 10))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert link.breaker.state is State.CLOSED


def test_a_dead_provider_gets_few_retries() -> None:
    """At most 1.2 times the calls, and ten a second."""
    now = [0.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    budget = RetryBudget(clock)
    tried = 0
    for _ in range(1000):  # 100 a second for 10 seconds
        now[0] += 0.01
        budget.note_call()
        tried += 1
        while budget.take():
            tried += 1
    assert 1200 <= tried <= 1.2 * 1000 + 10 * 10 + 10


async def test_a_stream_is_tried_again_until_its_first_piece_and_no_later() -> None:
    link, results = around(Scripted([ProviderUnreachable("x")], ["a", "b"]))
    pieces = [chunk.choices[0]["delta"]["content"] async for chunk in link.stream(REQUEST, 10)]
    assert pieces == ["a", "b"]
    assert results == {"provider_unreachable": 1, "retries": 1, "ok": 1}

    link, results = around(Scripted(["a", ProviderBadAnswer("x")], ["b"]))
    stream = link.stream(REQUEST, 10)
    await anext(stream)
    with pytest.raises(ProviderBadAnswer):
        await anext(stream)
    assert results == {"provider_bad_answer": 1}


async def test_a_stream_of_nothing_is_a_bad_answer() -> None:
    link, results = around(Scripted([]))
    with pytest.raises(ProviderBadAnswer):
        await anext(link.stream(REQUEST, 10))
    assert results == {"provider_bad_answer": 3, "retries": 2}


async def test_a_stream_that_stalls_ends_at_the_deadline() -> None:
    link, results = around(Scripted(["a", "hang"]))
    stream = link.stream(REQUEST, 0.2)
    await anext(stream)
    with pytest.raises(ProviderTimeout):
        await anext(stream)
    assert results == {"provider_timeout": 1}


async def test_a_stream_that_nobody_reads_to_its_end_says_nothing() -> None:
    link, results = around(Scripted(["a", "b"]), failures=1)
    stream = link.stream(REQUEST, 10)
    await anext(stream)
    await stream.aclose()
    assert results == {"cancelled": 1}
    assert link.breaker.state is State.CLOSED
