"""Spans as OpenTelemetry's SDK makes them, and their way to the collector. Imported where one is set, and only there.

All there is to set comes from our settings; of the SDK's own variables those alone count that settings are named after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextvars import Token
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote
from uuid import uuid4

import requests
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import Span as OTelSpan
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bind_contextvars

from config import Settings
from providers.resilient import Attempt
from services.logs import Log
from services.router_service import DeliveryError
from services.tracing import Span, trace_fields

if TYPE_CHECKING:
    from services.interactions import Interaction

MAX_WAITING = 4096
MOST_AT_ONCE = 512
EVERY_MS = 1000
EXPORT_SECONDS = 4.0  # for one try of a batch and the next ones; less than a part may take to close
MAX_ATTRIBUTE = 200
MAX_TRACESTATE = 512  # what W3C asks to be passed on at least
LIBRARY_SECONDS = 60.0
# How long the event loop waits for its turn while spans are made ready by another thread; 5 ms, which Python would have
# it wait at every step, is as long as a whole reply takes.
SWITCH_SECONDS = 0.0005
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_W3C = TraceContextTextMapPropagator()


class Recorder:
    """Makes spans and has them sent by a thread of the SDK's."""

    def __init__(self, settings: Settings, log: Log) -> None:
        about = {
            "service.name": settings.otel_service_name or settings.module_name,
            "service.version": settings.module_version,
            "service.instance.id": str(uuid4()),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk_version,
        }
        self._lines = _LibraryLines(log)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._exporter = _Exporter(settings, log)
        self._provider = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.otel_traces_sampler_arg)),
            Resource(about),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attribute_length=MAX_ATTRIBUTE),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, MAX_WAITING, EVERY_MS, MOST_AT_ONCE, EXPORT_SECONDS * 1000)
        )
        self._tracer = self._provider.get_tracer("sidecast", settings.module_version)

    async def close(self) -> None:
        """Send what waits. Who cancels this goes on at once; the thread that waits for the collector holds nobody."""
        self._exporter.closing = True
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=end, name="last spans", daemon=True).start()
        try:
            await ended.wait()
        finally:
            self._exporter.shutdown()
            self._lines.close()

    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        return _Entered(self._tracer.start_span("HTTP", _parent(_given(headers)), SpanKind.SERVER))

    def interaction(self, item: Interaction) -> Span:
        return _Entered(self._of(item))

    def suppressed(self, item: Interaction, reason: str) -> None:
        span = self._of(item)
        _note(span, "suppressed", reason)
        span.end()

    def _of(self, item: Interaction) -> OTelSpan:
        traceparent, _, tracestate = (item.trace or "").partition(" ")
        attributes: dict[str, str | int] = {
            "sidecast.interaction_id": str(item.interaction_id),
            "sidecast.community_id": str(item.community_id),
            "sidecast.platform": item.event.platform,
            "sidecast.trigger": item.trigger.type,
            "sidecast.attempt": item.attempts,
        }
        parent = _parent({"traceparent": traceparent, "tracestate": tracestate})
        return self._tracer.start_span("interaction", parent, attributes=attributes)

    def span(self, name: str) -> Span:
        return _Traced(self._tracer.start_span(name))

    def call(self, name: str) -> Span:
        return _Traced(self._tracer.start_span(name, kind=SpanKind.CLIENT))

    def here(self) -> str | None:
        return " ".join(_headers_of(get_current_span()).values()) or None

    def note(self, state: str, reason: str | None) -> None:
        _note(get_current_span(), state, reason)

    def attempted(self, attempt: Attempt) -> None:
        now = time.time_ns()
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": attempt.operation,
            "gen_ai.system": attempt.provider.name,
            "gen_ai.request.model": attempt.model,
            "sidecast.result": attempt.result,
        }
        usage = attempt.usage
        if usage and usage.prompt_tokens is not None:
            attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        if usage and usage.completion_tokens is not None:
            attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
        began = now - int(attempt.seconds * 1e9)
        span = self._tracer.start_span("provider", kind=SpanKind.CLIENT, attributes=attributes, start_time=began)
        if attempt.result not in {"ok", "cancelled"}:
            _fail(span, attempt.result)
        span.end(now)


class _Traced(Span):
    """A span that is recorded, or known to be left out, with its trace."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: OTelSpan) -> None:
        self._span = span
        self._token: Token[Context]

    def __enter__(self) -> Self:
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            # An exception's own words may repeat a text or a key.
            self.fail(error.reason if isinstance(error, DeliveryError) else type(error).__name__)
        detach(self._token)
        self._span.end()

    @property
    def headers(self) -> dict[str, str]:
        return _headers_of(self._span)

    def fail(self, reason: str) -> None:
        _fail(self._span, reason)

    def answer(self, method: str, rule: str | None, status: int) -> None:
        known = method if method in METHODS else "_OTHER"
        name = method if known == method else "HTTP"
        self._span.update_name(f"{name} {rule}" if rule else name)
        self._span.set_attribute("http.request.method", known)
        if rule:
            self._span.set_attribute("http.route", rule)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _fail(self._span, str(status))


class _Entered(_Traced):
    """One that comes from outside the task: log lines name its trace from here on."""

    __slots__ = ()

    def __enter__(self) -> Self:
        if traceparent := self.headers.get("traceparent"):
            bind_contextvars(**trace_fields(traceparent))
        return super().__enter__()


def _note(span: OTelSpan, state: str, reason: str | None) -> None:
    span.set_attribute("sidecast.state", state)
    if reason:
        span.set_attribute("sidecast.reason", reason)
    if state in {"failed", "undeliverable"}:
        _fail(span, reason or state)


def _fail(span: OTelSpan, reason: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", reason)


def _headers_of(span: OTelSpan) -> dict[str, str]:
    headers: dict[str, str] = {}
    _W3C.inject(headers, set_span_in_context(span))
    return headers


def _given(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """What a request's headers say of its trace; of two traceparents neither counts, as W3C has it."""
    parents = [value.decode("latin-1") for name, value in headers if name == b"traceparent"]
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    return {"traceparent": parents[0], "tracestate": ",".join(states)} if len(parents) == 1 else {}


def _parent(given: dict[str, str]) -> Context:
    """Whose child a span is, by what is given, and by nothing else."""
    if len(given.get("tracestate", "")) > MAX_TRACESTATE:
        del given["tracestate"]
    return _W3C.extract(given, Context())


class _Exporter(OTLPSpanExporter):
    """Sends spans, and says in the log when the collector takes them no more, and when it does again."""

    def __init__(self, settings: Settings, log: Log) -> None:
        super().__init__(
            f"{settings.otel_exporter_otlp_endpoint}/v1/traces",
            timeout=EXPORT_SECONDS,
            compression=Compression.NoCompression,
            session=_Session(_read_headers(settings.otel_exporter_otlp_headers.get_secret_value())),
        )
        self._log = log
        self._away = False
        self._ended = False
        self.closing = False  # nobody waits any more for a collector that is away

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._ended or (self.closing and self._away):
            return SpanExportResult.FAILURE
        result = super().export(spans)
        self._note(away=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            super().shutdown()  # type: ignore[no-untyped-call]

    def _note(self, *, away: bool) -> None:
        if away and not self._away:
            message = "the collector takes no spans; they are dropped until it does"
            self._log.error("tracing.away", message, result="ERROR")
        elif self._away and not away:
            self._log.system("tracing.back", "the collector takes spans again", result="SUCCESS")
        self._away = away


class _Session(requests.Session):
    """Sends our headers and no others that the SDK finds; no cookies, no proxy and no password of the environment.

    A redirect is not followed, and is a failure.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._own = {"Content-Type": "application/x-protobuf"} | headers

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        response = super().request(method, url, **options | {"headers": self._own})
        if 300 <= response.status_code < 400:
            raise requests.RequestException("a redirect")
        return response


def _read_headers(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


class _LibraryLines(logging.Handler):
    """What the SDK logs, one line a minute, as it is written there: what it fills in may be an address or a key.

    That it cannot send is said by us.
    """

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._said_at = -LIBRARY_SECONDS
        self._library = logging.getLogger("opentelemetry")
        self._library.addHandler(self)
        self._library.propagate = False
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._said_at >= LIBRARY_SECONDS:
            self._said_at = time.monotonic()
            self._log.info("tracing.library", str(record.msg), result="WARNING")

    def close(self) -> None:
        self._library.removeHandler(self)
        self._library.propagate = True
        super().close()
