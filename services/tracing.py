"""Traces each interaction from the router's POST to the callback, for a collector of OpenTelemetry where one is set.

Where none is set every call here does nothing, and OpenTelemetry's SDK is not imported. A span is told of ids, of kinds
and of states; never of a text, a name or a key. A place in a trace is written as W3C's traceparent and, after a space,
tracestate; so it is in the journal, and whoever takes an interaction up goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from config import Settings
from providers.resilient import Attempt
from services.logs import Log

if TYPE_CHECKING:
    from services.interactions import Interaction
    from services.spans import Recorder


class Span:
    """A step, from when it is made until `with` ends, which marks it should an exception pass. This one is no step."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, _error: BaseException | None, _trace: object) -> None:
        pass

    @property
    def headers(self) -> dict[str, str]:
        """What a request made in this step says of the trace."""
        return {}

    def fail(self, reason: str) -> None:
        """Mark it as failed."""

    def answer(self, method: str, rule: str | None, status: int) -> None:
        """What became of a request: the rule of the route that took it, and the status of the answer."""


NOTHING = Span()


class Tracing:
    """Makes the spans; those made while another is under way are its children."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._recorder: Recorder | None = None

    def open(self) -> None:
        if self._settings.otel_exporter_otlp_endpoint:
            from services.spans import Recorder

            self._recorder = Recorder(self._settings, self._log)

    async def close(self) -> None:
        """Send what waits, as far as the collector takes it."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            await recorder.close()

    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        """A request, which goes on with the trace that its headers name."""
        return NOTHING if self._recorder is None else self._recorder.request(headers)

    def interaction(self, item: Interaction) -> Span:
        """The work on an interaction, by whoever has taken it up."""
        return NOTHING if self._recorder is None else self._recorder.interaction(item)

    def span(self, name: str) -> Span:
        """A step within this process."""
        return NOTHING if self._recorder is None else self._recorder.span(name)

    def call(self, name: str) -> Span:
        """A request to somebody else."""
        return NOTHING if self._recorder is None else self._recorder.call(name)

    @property
    def here(self) -> str | None:
        """Where a span made now would belong, as a line for the journal."""
        return None if self._recorder is None else self._recorder.here()

    def note(self, state: str, reason: str | None) -> None:
        """The state in which the work that is under way leaves its interaction."""
        if self._recorder is not None:
            self._recorder.note(state, reason)

    def suppressed(self, item: Interaction, reason: str) -> None:
        """An interaction that nobody is to work on."""
        if self._recorder is not None:
            self._recorder.suppressed(item, reason)

    def attempted(self, attempt: Attempt) -> None:
        """A call of a provider that has just ended."""
        if self._recorder is not None:
            self._recorder.attempted(attempt)


def trace_fields(trace: str | None) -> dict[str, str]:
    """What log lines say of a trace."""
    return {"trace_id": trace[3:35]} if trace else {}
