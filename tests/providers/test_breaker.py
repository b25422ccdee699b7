"""The circuit breaker: opens on failures in a row, one probe when half-open, cancellation neutral."""

from __future__ import annotations

from providers.breaker import Breaker, State


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(failures: int = 3) -> tuple[Breaker, Clock, list[State]]:
    clock = Clock()
    seen: list[State] = []
    return Breaker(failures, 10, seen.append, clock), clock, seen


def call(breaker: Breaker, ok: bool | None) -> bool:
    ticket = breaker.enter()
    if ticket is None:
        return False
    breaker.leave(ticket, ok)
    return True


def test_it_opens_on_failures_in_a_row_alone() -> None:
    breaker, _, seen = make()
    for ok in (False, False, True, False, None, False):
        assert call(breaker, ok)
    assert breaker.state is State.CLOSED
    assert call(breaker, False)
    assert (breaker.state, seen) == (State.OPEN, [State.OPEN])
    assert breaker.enter() is None
    assert breaker.seconds_left == 10


def test_exactly_one_probe_decides() -> None:
    for ok, state in ((True, State.CLOSED), (False, State.OPEN)):
        breaker, clock, _ = make(1)
        call(breaker, False)
        clock.now = 10
        probe = breaker.enter()
        assert probe is not None
        assert [breaker.enter() for _ in range(5)] == [None] * 5
        breaker.leave(probe, ok)
        assert breaker.state is state
        assert breaker.seconds_left == (0 if ok else 10)


def test_a_lost_probe_frees_its_slot() -> None:
    breaker, clock, seen = make(1)
    call(breaker, False)
    clock.now = 10
    assert call(breaker, None)
    assert call(breaker, True)
    assert seen == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_stale_results_are_not_counted() -> None:
    breaker, clock, seen = make(1)
    slow = breaker.enter()
    assert slow is not None
    call(breaker, False)
    breaker.leave(slow, True)
    assert seen == [State.OPEN]
    clock.now = 10
    call(breaker, True)
    breaker.leave(slow, False)
    assert seen == [State.OPEN, State.HALF_OPEN, State.CLOSED]
