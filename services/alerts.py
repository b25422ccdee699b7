"""Says when a model of the service's own chain is degraded: too many of its calls fail, or they take too long.

Calls are counted over the last `ALERT_SECONDS`, in sixty spans of a second or more. What is found there must be found
for as long before an alert is raised, and not only because of what was long ago, so that one burst raises none. It
ends by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from statistics import median
from typing import Any

from config import Settings
from providers.base import ProviderBadRequest, ProviderContentRefused, ProviderContextTooLong
from services.bus import PROVIDER_DEGRADED, PROVIDER_RECOVERED, Bus
from services.ledger import CHAT, Call
from services.logs import Log
from services.metrics import MOST_LABELS, Metrics
from services.tasks import Tasks

LEAST_CALLS = 5  # of which some failed
EVALUATE_SECONDS = 1.0
SPANS = 60
MOST_TIMES = 1_000
ERRORS = "errors"
SLOW = "slow"
# These are the asker's doing and say nothing about the model.
_SAYS_NOTHING = {"cancelled"} | {
    error.reason for error in (ProviderBadRequest, ProviderContextTooLong, ProviderContentRefused)
}
_ADVICE = (
    "fallbacks or canned texts answer where it does not. The lines provider.failed say why; see its server or its "
    "status page, and set another model (AI_PROVIDER, AI_MODEL, AI_FALLBACKS) if this lasts."
)


@dataclass(frozen=True)
class Alert:
    """A degraded model: `what` is errors or slow, `since` when (seconds since 1970); `figure`, now or when last found,
    the share of calls that fail, or the median of their seconds.
    """

    provider: str
    model: str
    what: str
    since: float
    figure: float

    @property
    def text(self) -> str:
        """For a person."""
        said = f"{self.figure:.0%} of its calls fail" if self.what == ERRORS else f"its calls take {self.figure:.1f} s"
        return f"model {self.model}: {said}, since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass
class _Span:
    """The calls that ended within a second, or a sixtieth of the window."""

    at: float
    answered: int = 0
    slow: int = 0
    failed: int = 0


@dataclass
class _Model:
    """What is known of a model: its calls, when its newest answers came and how long they took, and what was found."""

    provider: str
    model: str
    window: deque[_Span] = field(default_factory=deque)
    times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MOST_TIMES))
    found_since: float | None = None
    alert: Alert | None = None

    def span(self, at: float) -> _Span:
        if not self.window or self.window[-1].at < at:
            self.window.append(_Span(at))
        return self.window[-1]


class Alerts:
    """Hears of every call, looks at each model once a second, and tells when one becomes degraded or recovers."""

    def __init__(
        self,
        settings: Settings,
        models: Iterable[tuple[str, str]],
        bus: Bus,
        metrics: Metrics,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = settings.alert_seconds
        self._width = max(self._seconds / SPANS, 1.0)
        self._error_rate = settings.alert_error_rate
        self._latency = settings.alert_latency_seconds
        self._bus = bus
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._models = {model: _Model(*model) for model in list(models)[:MOST_LABELS]}
        for model in self._models:
            metrics.degraded[model].set(0)

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self._step, _pause, "look for degraded models")

    def active(self) -> list[Alert]:
        """Those that are raised now."""
        return [model.alert for model in self._models.values() if model.alert is not None]

    def note(self, call: Call, _cost: float | None = None) -> None:
        """A call that ended, or was not made because the model's provider keeps failing."""
        model = self._models.get((call.provider, call.asked or call.model))
        if model is None or call.own or call.kind != CHAT or call.result in _SAYS_NOTHING:
            return
        now = self._clock()
        self._let_go(model, now)
        span = model.span(now - now % self._width)
        if call.result != "ok":
            span.failed += 1
            return
        took = call.seconds if call.first_token is None else call.first_token
        span.answered += 1
        span.slow += took > self._latency
        model.times.append((now, took))

    def evaluate(self) -> None:
        """Raise, keep or end the alert of each model, by what is known now."""
        now = self._clock()
        for model in self._models.values():
            self._let_go(model, now)
            # Fewer calls say that it goes on than it takes to begin.
            found = self._find(model, now, self._seconds, least=1 if model.alert else LEAST_CALLS)
            if found is None:
                self._recover(model)
                continue
            if model.found_since is None:
                model.found_since = now
            if model.alert is not None:
                if model.alert.what == found[0]:
                    model.alert = replace(model.alert, figure=found[1])
            elif now - model.found_since >= self._seconds and self._find(model, now, self._seconds / 2, least=1):
                self._raise(model, now - model.found_since, *found)

    def _let_go(self, model: _Model, now: float) -> None:
        """Of what is older than the window."""
        while model.window and model.window[0].at <= now - self._seconds:
            model.window.popleft()

    def _find(self, model: _Model, now: float, seconds: float, *, least: int) -> tuple[str, float] | None:
        """What is wrong with its calls of the last seconds, and the figure that says so."""
        recent = [span for span in model.window if span.at > now - seconds]
        failed, answered, slow = (
            sum(getattr(span, name) for span in recent) for name in ("failed", "answered", "slow")
        )
        calls = failed + answered
        if calls >= least and failed >= self._error_rate * calls:
            return ERRORS, failed / calls
        if slow * 2 > answered:
            return SLOW, median(took for at, took in model.times if at >= recent[0].at)
        return None

    def _raise(self, model: _Model, held: float, what: str, figure: float) -> None:
        alert = model.alert = Alert(model.provider, model.model, what, time.time() - held, figure)
        self._metrics.degraded[alert.provider, alert.model].set(1)
        message = f"{alert.provider}, {alert.text}; {_ADVICE}"
        self._log.error("provider.degraded", message, **_told(alert), result="ERROR")
        self._bus.tell(PROVIDER_DEGRADED, None, _told(alert))

    def _recover(self, model: _Model) -> None:
        model.found_since, alert, model.alert = None, model.alert, None
        if alert is None:
            return
        self._metrics.degraded[alert.provider, alert.model].set(0)
        why = "it answers as it should" if model.window else f"nobody has asked it for {self._seconds:g} s"
        message = f"{alert.provider}, model {alert.model}: no longer degraded, {why}"
        about = {"provider": alert.provider, "model": alert.model}
        self._log.system("provider.recovered", message, **about, result="SUCCESS")
        self._bus.tell(PROVIDER_RECOVERED, None, about)

    async def _step(self) -> None:
        self.evaluate()


def _told(alert: Alert) -> dict[str, Any]:
    return asdict(alert) | {"figure": round(alert.figure, 3), "since": round(alert.since, 1)}


async def _pause() -> None:
    await asyncio.sleep(EVALUATE_SECONDS)
