"""A circuit breaker: stops asking what keeps failing, and lets one call at a time find out whether it is back.

Own code, because the libraries let every waiting call through when half-open, or count a cancelled call as a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after `failures` in a row, for `open_seconds`; then one probe decides.

    Use: `ticket = breaker.enter()`; None means open, do not call. Afterwards `breaker.leave(ticket, ok)` with True,
    False, or None for a call that says nothing (cancelled, the caller's own fault). Times are monotonic.
    """

    def __init__(
        self,
        failures: int,
        open_seconds: float,
        on_change: Callable[[State], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._clock = clock
        self._failed = 0
        self._opened_at = 0.0
        self._epoch = 0
        self._probing = False
        self.state = State.CLOSED

    @property
    def seconds_left(self) -> float:
        """Seconds until a probe may be made; 0 when calls are let through."""
        if self.state is State.CLOSED:
            return 0.0
        return max(self._opened_at + self._open_seconds - self._clock(), 0.0)

    def enter(self) -> int | None:
        """A ticket for one call, or None while there is to be none."""
        if self.state is State.OPEN and self.seconds_left == 0:
            self._become(State.HALF_OPEN)
        if self.state is State.HALF_OPEN and not self._probing:
            self._probing = True
            return self._epoch
        return self._epoch if self.state is State.CLOSED else None

    def leave(self, ticket: int, ok: bool | None) -> None:
        """How the call ended; what began before the last change of state is not counted."""
        if ticket != self._epoch:
            return
        if self.state is State.HALF_OPEN:
            self._probing = False
        if ok is True:
            self._failed = 0
            if self.state is State.HALF_OPEN:
                self._become(State.CLOSED)
        elif ok is False:
            self._failed += 1
            if self.state is State.HALF_OPEN or self._failed >= self._limit:
                self._opened_at = self._clock()
                self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._failed = 0
        self._probing = False
        self._on_change(state)
