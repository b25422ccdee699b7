"""A collector of OpenTelemetry: takes spans at `/v1/traces` as OTLP has them (opentelemetry.io/docs/specs/otlp)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from quart import Quart, Response, request


@dataclass(frozen=True)
class Seen:
    """A span that came; ids in hexadecimal, as traceparent has them."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    failed: bool
    attributes: dict[str, Any]
    began: int
    ended: int


class StubCollector:
    """`answers` are the statuses of the first posts; later ones are 200."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[Seen] = []
        self.resource: dict[str, Any] = {}
        self.elsewhere = 0
        self.app = Quart("collector")
        self.app.post("/v1/traces")(self.take)
        self.app.add_url_rule("/elsewhere", "elsewhere", self.other, methods=["GET", "POST"])

    async def take(self) -> Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        raw = bytes(await request.body)
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.raw.append(raw)
            self._read(ExportTraceServiceRequest.FromString(raw))
        return Response(b"", status, {"Location": "/elsewhere"}, content_type="application/x-protobuf")

    async def other(self) -> str:
        self.elsewhere += 1
        return ""

    def _read(self, message: ExportTraceServiceRequest) -> None:
        for of_resource in message.resource_spans:
            self.resource = _plain(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [_seen(span) for span in of_scope.spans]

    async def of(self, trace_id: str, count: int) -> list[Seen]:
        """The spans of a trace, in the order in which they began, once there are so many."""
        async with asyncio.timeout(20):
            while len(found := [span for span in self.spans if span.trace_id == trace_id]) < count:
                await asyncio.sleep(0.02)
        return sorted(found, key=lambda span: span.began)


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _seen(span: Any) -> Seen:
    return Seen(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.status.code == 2,
        _plain(span.attributes),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )
