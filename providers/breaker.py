"""A circuit breaker: stops asking what keeps failing, and lets one call at a time find out whether it is back.

Own code, because the libraries let every waiting call through when half-open, or count a cancelled call as a failure.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class Rule:
    """When to open: after `failures` in a row, or when `share` of at least `calls` in `window_seconds` failed."""

    failures: int
    open_seconds: float
    window_seconds: float = 30.0
    calls: int = 20
    share: float = 0.5


@dataclass
class _Second:
    """The calls that ended within one second."""

    began: float
    calls: int = 0
    failed: int = 0


class Breaker:
    """Use: `ticket = breaker.enter()`; None means open, do not call. Afterwards `breaker.leave(ticket, ok)` with True,
    False, or None for a call that says nothing (cancelled, the caller's own fault). Times are monotonic.
    """

    def __init__(
        self, rule: Rule, on_change: Callable[[State], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rule = rule
        self._on_change = on_change
        self._clock = clock
        self._in_a_row = 0
        self._window: deque[_Second] = deque()
        self._opened_at = 0.0
        self._probe_until: float | None = None
        self._epoch = 0
        self.state = State.CLOSED

    @property
    def seconds_left(self) -> float:
        """Seconds until a probe may be made; 0 when calls are let through."""
        if self.state is State.CLOSED:
            return 0.0
        return max(self._opened_at + self._rule.open_seconds - self._clock(), 0.0)

    def enter(self) -> int | None:
        """A ticket for one call, or None while there is to be none."""
        if self.state is State.CLOSED:
            return self._epoch
        if self.state is State.OPEN and self.seconds_left == 0:
            self._become(State.HALF_OPEN)
        if self.state is State.OPEN or (self._probe_until is not None and self._clock() < self._probe_until):
            return None
        # A probe that never came back has had its time; should it come after all, its ticket is void.
        self._probe_until = self._clock() + self._rule.open_seconds
        self._epoch += 1
        return self._epoch

    def leave(self, ticket: int, ok: bool | None) -> None:
        """How the call ended; what began before the last change of state is not counted."""
        if ticket != self._epoch:
            return
        if self.state is State.HALF_OPEN:
            self._probe_until = None
            if ok is not None:
                self._become(State.CLOSED if ok else State.OPEN)
        elif ok is not None:
            self._count(ok)
            if self._in_a_row >= self._rule.failures or self._window_is_bad():
                self._become(State.OPEN)

    def _count(self, ok: bool) -> None:
        now = self._clock()
        if not self._window or now - self._window[-1].began >= 1:
            self._window.append(_Second(now))
        while now - self._window[0].began > self._rule.window_seconds:
            self._window.popleft()
        self._window[-1].calls += 1
        self._window[-1].failed += not ok
        self._in_a_row = 0 if ok else self._in_a_row + 1

    def _window_is_bad(self) -> bool:
        calls = sum(second.calls for second in self._window)
        failed = sum(second.failed for second in self._window)
        return calls >= self._rule.calls and failed >= calls * self._rule.share

    def _become(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._in_a_row = 0
        self._window.clear()
        self._probe_until = None
        if state is State.OPEN:
            self._opened_at = self._clock()
        self._on_change(state)
