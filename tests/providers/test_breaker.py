"""The circuit breaker: opens on failures in a row, one probe when half-open, cancellation neutral."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from providers.breaker import Breaker, Rule, State


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(failures: int = 3) -> tuple[Breaker, Clock, list[State]]:
    clock = Clock()
    seen: list[State] = []
    return Breaker(Rule(failures, 10), seen.append, clock), clock, seen


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


def test_it_opens_when_half_of_many_calls_failed() -> None:
    """None of them three in a row."""
    breaker, clock, seen = make()
    for number in range(19):
        clock.now += 1
        assert call(breaker, number % 2 == 0)
    assert seen == []
    clock.now += 1
    assert call(breaker, False)
    assert seen == [State.OPEN]


def test_what_failed_long_ago_does_not_open_it() -> None:
    breaker, clock, seen = make()
    for number in range(200):
        clock.now += 2  # 15 calls in 30 s
        assert call(breaker, number % 2 == 0)
    assert seen == []


def test_a_probe_that_never_comes_back_frees_its_slot_and_is_stale() -> None:
    breaker, clock, _ = make(1)
    call(breaker, False)
    clock.now = 10
    lost = breaker.enter()
    assert lost is not None
    clock.now = 19.9
    assert breaker.enter() is None
    clock.now = 20
    probe = breaker.enter()
    assert probe is not None
    breaker.leave(lost, True)
    assert breaker.enter() is None
    breaker.leave(probe, False)
    assert breaker.state is State.OPEN


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls that succeed, fail, are cancelled or end late, next to a model that keeps every result."""

    rule_ = Rule(3, 10.0, window_seconds=5.0, calls=6, share=0.5)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(self.rule_, lambda _: None, lambda: self.now)
        self.under_way: list[tuple[int, int]] = []  # tickets, and the generation they are of
        self.generation = 0
        self.state = State.CLOSED
        self.results: list[tuple[float, bool]] = []
        self.opened_at = 0.0
        self.probe_at: float | None = None

    def change(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self.results = []
        self.probe_at = None
        if state is State.OPEN:
            self.opened_at = self.now

    @rule()
    def enter(self) -> None:
        ticket = self.breaker.enter()
        if self.state is State.OPEN and self.now - self.opened_at >= 10:
            self.change(State.HALF_OPEN)
        waiting = self.probe_at is not None and self.now - self.probe_at < 10
        allowed = self.state is State.CLOSED or (self.state is State.HALF_OPEN and not waiting)
        assert (ticket is not None) == allowed
        if ticket is not None:
            if self.state is State.HALF_OPEN:
                self.generation += 1
                self.probe_at = self.now
            self.under_way.append((ticket, self.generation))

    @precondition(lambda self: self.under_way)
    @rule(number=st.integers(0, 1000), ok=st.sampled_from([True, False, None]))
    def leave(self, number: int, ok: bool | None) -> None:
        ticket, generation = self.under_way.pop(number % len(self.under_way))
        self.breaker.leave(ticket, ok)
        if generation != self.generation:
            return
        if self.state is State.HALF_OPEN:
            self.probe_at = None
            if ok is not None:
                self.change(State.CLOSED if ok else State.OPEN)
        elif ok is not None:
            self.results.append((self.now, ok))
            recent = [result for at, result in self.results if self.now - at <= 5]
            last = [result for _, result in self.results[-3:]]
            in_a_row = len(last) == 3 and not any(last)
            if in_a_row or (len(recent) >= 6 and recent.count(False) * 2 >= len(recent)):
                self.change(State.OPEN)

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state is self.state
        left = max(self.opened_at + 10 - self.now, 0) if self.state is not State.CLOSED else 0
        assert self.breaker.seconds_left == left


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
