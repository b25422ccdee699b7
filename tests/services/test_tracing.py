"""Traces: one from the router's POST to the callback, whoever works on it; nothing anyone said; no cost when off."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from config import ConfigError, load_settings
from embedded.parts import free_port
from services.logs import open_log
from services.tracing import NOTHING, Tracing
from tests.conftest import API, KEY, PROJECT, MakeService, Service, event
from tests.process import run_process
from tests.stubs.collector import Seen, StubCollector
from tests.stubs.openai import StubOpenAI
from tests.stubs.router import StubRouter
from tests.stubs.server import running

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Output = pytest.CaptureFixture[str]
CANARY = "canary-7731"
POST = f"POST {API}/interaction"
SERVER, CLIENT, INTERNAL = 2, 3, 1
OFF = """
import asyncio, sys
from app import create_app
from config import load_settings
async def main():
    app = create_app(load_settings(log_level="ERROR"))
    services = app.extensions["sidecast"]
    await services.open()
    body = {"session_id": "s", "user_id": "u", "username": "u", "entity_id": "twitch:channel:off",
            "platform": "twitch", "message_content": "Hello there!"}
    headers = {"X-API-Key": "off", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    answer = await app.test_client().post("/api/v1/ai/interaction", json=body, headers=headers)
    assert answer.status_code == 200, await answer.get_data()
    await services.drain()
    await services.close()
    print("loaded:", [name for name, module in sys.modules.items() if module and name.startswith("opentelemetry.sdk")])
asyncio.run(main())
"""


class Caller:
    """A router that traces, too: the trace that it began, and the step in which it posts."""

    def __init__(self, sampled: bool = True) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.traceparent = f"00-{self.trace_id}-{self.span_id}-0{int(sampled)}"

    async def post(self, service: Service, body: dict[str, Any], path: str = "/interaction", **more: str) -> Any:
        headers = {"X-API-Key": KEY, "traceparent": self.traceparent, **more}
        answer = await service.client.post(API + path, json=body, headers=headers)
        assert answer.status_code == 200
        return (await answer.get_json())["data"]


def tree(spans: list[Seen]) -> set[tuple[str, str]]:
    """Each span's name, and that of its parent; a parent that is not among them by its id."""
    names = {span.span_id: span.name for span in spans}
    return {(span.name, names.get(span.parent_id, span.parent_id)) for span in spans}


def named(spans: list[Seen], name: str) -> Seen:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_a_trace_goes_from_the_routers_post_to_its_callback(make_service: MakeService) -> None:
    collector, router, model, caller = StubCollector(), StubRouter(), StubOpenAI(), Caller()
    async with running(collector.app) as traces, running(router.app) as to, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "router_api_url": to}
        service = await make_service(otel_exporter_otlp_endpoint=traces, **settings)
        ack = await caller.post(service, event(), tracestate="vendor=x")
        await service.ended(ack["interaction_id"])
        spans = await collector.of(caller.trace_id, 6)
    assert tree(spans) == {
        (POST, caller.span_id),
        ("journal", POST),
        ("interaction", POST),
        ("context", "interaction"),
        ("provider", "interaction"),
        ("delivery", "interaction"),
    }
    kinds = {span.name: span.kind for span in spans}
    assert (kinds[POST], kinds["interaction"], kinds["provider"], kinds["delivery"]) == (
        SERVER,
        INTERNAL,
        CLIENT,
        CLIENT,
    )
    assert {span.state for span in spans} == {"vendor=x"}
    assert not any(span.failed for span in spans)
    [headers] = router.headers
    assert headers["traceparent"] == f"00-{caller.trace_id}-{named(spans, 'delivery').span_id}-01"
    assert headers["tracestate"] == "vendor=x"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


async def test_spans_say_what_they_were_for_and_how_they_ended(make_service: MakeService) -> None:
    collector, model, caller = StubCollector(), StubOpenAI(), Caller()
    async with running(collector.app) as traces, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "ai_model": "big"}
        service = await make_service(otel_exporter_otlp_endpoint=traces, otel_service_name="co-host", **settings)
        ack = await caller.post(service, event())
        outcome = await service.ended(ack["interaction_id"])
        spans = await collector.of(caller.trace_id, 6)
    assert collector.resource["service.name"] == "co-host"
    assert named(spans, POST).attributes == {
        "http.request.method": "POST",
        "http.route": f"{API}/interaction",
        "http.response.status_code": 200,
    }
    assert named(spans, "interaction").attributes == {
        "sidecast.interaction_id": ack["interaction_id"],
        "sidecast.community_id": outcome["community_id"],
        "sidecast.platform": "twitch",
        "sidecast.trigger": "greeting",
        "sidecast.attempt": 1,
        "sidecast.state": "delivered",
    }
    assert named(spans, "provider").attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "waddleai",
        "gen_ai.request.model": "big",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 4,
        "sidecast.result": "ok",
    }


async def test_every_attempt_is_a_span_and_those_that_failed_are_marked(make_service: MakeService) -> None:
    collector, caller, router = StubCollector(), Caller(), StubRouter((500, {}))
    bad, good = StubOpenAI((503, "text/plain", "down")), StubOpenAI()
    async with (
        running(collector.app) as traces,
        running(bad.app) as url,
        running(good.app) as other,
        running(router.app) as to,
    ):
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "ai_fallbacks": "embedded/small"}
        settings |= {"embedded_model_url": other, "router_api_url": to}
        service = await make_service(otel_exporter_otlp_endpoint=traces, **settings)
        ack = await caller.post(service, event())
        await service.ended(ack["interaction_id"])
        spans = await collector.of(caller.trace_id, 11)
    attempts = [span for span in spans if span.name == "provider"]
    assert [(span.attributes["gen_ai.system"], span.failed) for span in attempts] == [
        *[("waddleai", True)] * 3,
        ("embedded", False),
    ]
    assert attempts[0].attributes["error.type"] == "provider_bad_answer"
    # What was offered again was taken up again: from the journal, in the same trace.
    first, second = [span for span in spans if span.name == "interaction"]
    assert (first.attributes["sidecast.state"], second.attributes["sidecast.state"]) == ("answered", "delivered")
    assert first.parent_id == second.parent_id == named(spans, POST).span_id
    offers = [span for span in spans if span.name == "delivery"]
    assert [(span.parent_id, span.failed) for span in offers] == [(first.span_id, True), (second.span_id, False)]
    assert offers[0].attributes == {"error.type": "router_status_500"}
    assert [headers["traceparent"][36:52] for headers in router.headers] == [span.span_id for span in offers]


async def test_each_event_of_a_batch_has_an_interaction_of_its_own(make_service: MakeService) -> None:
    collector, model, caller = StubCollector(), StubOpenAI(), Caller()
    async with running(collector.app) as traces, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url}
        service = await make_service(otel_exporter_otlp_endpoint=traces, **settings)
        events = [event(), event(message_content="that was close"), event(), event(username="nightbot")]
        await caller.post(service, {"events": events}, "/interaction/batch")
        spans = await collector.of(caller.trace_id, 2 + 2 * 4 + 1)
    batch = named(spans, f"{POST}/batch")
    named(spans, "journal")
    worked_on = [span for span in spans if span.name == "interaction"]
    assert {span.parent_id for span in worked_on} == {batch.span_id}
    states = sorted(span.attributes["sidecast.state"] for span in worked_on)
    assert states == ["delivered", "delivered", "suppressed"]


async def test_requests_that_share_a_commit_keep_their_own_traces(make_service: MakeService) -> None:
    """And their own ids in log lines and callbacks."""
    collector, model, router = StubCollector(), StubOpenAI(), StubRouter()
    callers = [Caller() for _ in range(8)]
    async with running(collector.app) as traces, running(model.app) as url, running(router.app) as to:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "router_api_url": to}
        service = await make_service(otel_exporter_otlp_endpoint=traces, max_concurrent_requests=16, **settings)
        posts = [caller.post(service, event(), **{"X-Request-ID": caller.span_id}) for caller in callers]
        acks = await asyncio.gather(*posts)
        for ack in acks:
            await service.ended(ack["interaction_id"])
        for caller, ack in zip(callers, acks, strict=True):
            spans = await collector.of(caller.trace_id, 6)
            assert named(spans, "interaction").attributes["sidecast.interaction_id"] == ack["interaction_id"]
            assert named(spans, "interaction").parent_id == named(spans, POST).span_id
    told = {body["interaction_id"]: headers for body, headers in zip(router.bodies, router.headers, strict=True)}
    for caller, ack in zip(callers, acks, strict=True):
        headers = told[ack["interaction_id"]]
        assert (headers["x-request-id"], headers["traceparent"][3:35]) == (caller.span_id, caller.trace_id)


async def test_log_lines_name_the_request_and_the_trace(make_service: MakeService, capsys: Output) -> None:
    collector, model = StubCollector(), StubOpenAI()
    callers = [Caller() for _ in range(8)]
    async with running(collector.app) as traces, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url}
        service = await make_service(otel_exporter_otlp_endpoint=traces, **settings)
        capsys.readouterr()
        posts = [caller.post(service, event(), **{"X-Request-ID": caller.span_id}) for caller in callers]
        acks = await asyncio.gather(*posts)
        for ack in acks:
            await service.ended(ack["interaction_id"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for caller, ack in zip(callers, acks, strict=True):
        about = [line for line in lines if line.get("interaction") == ack["interaction_id"]]
        assert [line["action"] for line in about] == ["interaction.received", "interaction.delivered"]
        assert {(line["request_id"], line["trace_id"]) for line in about} == {(caller.span_id, caller.trace_id)}


async def test_what_waits_in_the_journal_keeps_its_trace(make_service: MakeService, database: Connection) -> None:
    collector, model, callers = StubCollector(), StubOpenAI(delay=0.3), [Caller(), Caller()]
    async with running(collector.app) as traces, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "max_concurrent_requests": 1}
        service = await make_service(otel_exporter_otlp_endpoint=traces, **settings)
        first, second = [await caller.post(service, event()) for caller in callers]
        state = "select state from interactions where interaction_id = $1"
        assert await database.fetchval(state, UUID(second["interaction_id"])) == "received"
        for ack in (first, second):
            await service.ended(ack["interaction_id"])
        spans = await collector.of(callers[1].trace_id, 6)
    assert named(spans, "interaction").parent_id == named(spans, POST).span_id
    assert named(spans, "interaction").attributes["sidecast.interaction_id"] == second["interaction_id"]


async def test_what_another_instance_takes_up_keeps_its_trace(make_service: MakeService, database: Connection) -> None:
    """As after a crash: the first gives no sign of life any more and its lease ends."""
    collector, router, caller = StubCollector(), StubRouter(), Caller()
    hanging, model = StubOpenAI(delay=60), StubOpenAI()
    async with (
        running(collector.app) as traces,
        running(hanging.app) as stuck,
        running(model.app) as url,
        running(router.app) as to,
    ):
        settings = {"otel_exporter_otlp_endpoint": traces, "router_api_url": to, "ai_provider": "waddleai"}
        first = await make_service(waddleai_base_url=stuck, **settings)
        ack = await caller.post(first, event(), tracestate="vendor=x")
        await first.sidecast._renewing.drain(0)
        second = await make_service(waddleai_base_url=url, **settings)
        query = "update interactions set lease_until = now() - interval '1 s' where interaction_id = $1"
        await database.execute(query, UUID(ack["interaction_id"]))
        await second.ended(ack["interaction_id"])
        spans = await collector.of(caller.trace_id, 7)
    done = next(span for span in spans if span.attributes.get("sidecast.state") == "delivered")
    assert done.attributes["sidecast.attempt"] == 2
    assert done.parent_id == named(spans, POST).span_id
    assert done.state == "vendor=x"
    assert {span.parent_id for span in spans if span.name in {"provider", "delivery"}} == {done.span_id}
    [headers] = router.headers
    assert headers["traceparent"] == f"00-{caller.trace_id}-{named(spans, 'delivery').span_id}-01"


async def test_what_another_one_stands_for_ends_in_its_own_trace(make_service: MakeService, capsys: Output) -> None:
    """And the log lines of the one that stands for others go on naming its own."""
    collector, model, callers = StubCollector(), StubOpenAI(), [Caller() for _ in range(3)]
    async with running(collector.app) as traces, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "gather_seconds": 0.5}
        service = await make_service(otel_exporter_otlp_endpoint=traces, **settings)
        follow = event(message_type="follow", message_content="")
        bodies = [follow | {"user_id": f"f{number}"} for number in range(len(callers))]
        acks = [await caller.post(service, body) for caller, body in zip(callers, bodies, strict=True)]
        for ack in acks:
            await service.ended(ack["interaction_id"])
        all_spans = [await collector.of(caller.trace_id, 3) for caller in callers]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    of_log = {line["interaction"]: line["trace_id"] for line in lines if line["action"] == "interaction.delivered"}
    for caller, spans, ack in zip(callers, all_spans, acks, strict=True):
        assert of_log.get(ack["interaction_id"], caller.trace_id) == caller.trace_id
        last = next(span for span in reversed(spans) if "sidecast.state" in span.attributes)
        assert last.attributes["sidecast.interaction_id"] == ack["interaction_id"]
        assert last.parent_id == named(spans, POST).span_id
    ends = [
        span.attributes.get("sidecast.reason") for spans in all_spans for span in spans if span.name == "interaction"
    ]
    assert (ends.count("gathered"), len(of_log)) == (2, 1)


async def test_nothing_that_anyone_said_and_no_key_is_exported(make_service: MakeService) -> None:
    collector, router, caller = StubCollector(), StubRouter((401, {})), Caller()
    model = StubOpenAI(f"answer {CANARY}")
    keys = {"waddleai_api_key": f"wa-{CANARY}", "router_api_key": CANARY, "secret_key": CANARY}
    async with running(collector.app) as traces, running(router.app) as to, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "router_api_url": to, **keys}
        settings |= {"system_prompt": CANARY, "otel_exporter_otlp_headers": f"Authorization=Bearer%20{CANARY}"}
        service = await make_service(otel_exporter_otlp_endpoint=traces, valid_api_keys=f"{KEY},{CANARY}", **settings)
        for answer in (model.answer, (400, "application/json", json.dumps({"error": {"message": CANARY}}))):
            model.answer = answer
            fields = {"message_content": f"hello {CANARY}", "username": CANARY, "display_name": CANARY}
            fields |= {"user_id": CANARY, "entity_id": f"twitch:channel:{CANARY}", "event_id": secrets.token_hex(8)}
            ack = await caller.post(service, event(**fields), **{"X-Request-ID": CANARY})
            await service.ended(ack["interaction_id"])
        await service.client.get(f"{API}/users/twitch/{CANARY}", headers={"X-API-Key": CANARY})
        await service.client.get(f"{API}/{CANARY}", headers={"traceparent": caller.traceparent})
        await collector.of(caller.trace_id, 13)
        await collector.of((await one_more(service)).trace_id, 1)
    assert collector.headers[0]["authorization"] == f"Bearer {CANARY}"
    exported = b"".join(collector.raw)
    assert b"sidecast.interaction_id" in exported
    assert CANARY.encode() not in exported
    names = {span.name for span in collector.spans}
    assert names == {
        POST,
        *("journal", "interaction", "context", "provider", "delivery", "GET"),
        f"GET {API}/interaction/<interaction_id>",
        f"GET {API}/users/<platform>/<path:user_id>",
    }


async def one_more(service: Service) -> Caller:
    """A request that triggers nothing, sent after others."""
    caller = Caller()
    await caller.post(service, event(message_content="that was close"))
    return caller


async def test_the_routers_word_on_sampling_counts_and_ours_where_it_has_none(make_service: MakeService) -> None:
    collector, router, model = StubCollector(), StubRouter(), StubOpenAI()
    silent, heard = Caller(sampled=False), Caller()
    async with running(collector.app) as traces, running(router.app) as to, running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "router_api_url": to}
        service = await make_service(
            otel_exporter_otlp_endpoint=traces, otel_traces_sampler_arg=0, **settings, log_level="ERROR"
        )
        for caller in (silent, heard):
            ack = await caller.post(service, event())
            await service.ended(ack["interaction_id"])
        ack = await service.accept()
        await service.ended(ack["interaction_id"])
        await collector.of(heard.trace_id, 6)
    assert {span.trace_id for span in collector.spans} == {heard.trace_id}
    left_out, taken, own = (headers["traceparent"] for headers in router.headers)
    assert (left_out[3:35], left_out[-2:]) == (silent.trace_id, "00"), "the router is told the trace all the same"
    assert (taken[3:35], taken[-2:], int(own[-2:], 16) & 1) == (heard.trace_id, "01", 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-" + "0" * 32 + "-" + "b" * 16 + "-01"},
        {"traceparent": "nonsense"},
        {"traceparent": "ff-" + "a" * 32 + "-" + "b" * 16 + "-01"},
        {"tracestate": "vendor=x"},
    ],
)
async def test_a_trace_that_cannot_be_read_is_begun_anew(make_service: MakeService, headers: dict[str, str]) -> None:
    collector = StubCollector()
    async with running(collector.app) as traces:
        service = await make_service(otel_exporter_otlp_endpoint=traces)
        body = event(message_content="that was close")
        await service.client.post(f"{API}/interaction", json=body, headers={"X-API-Key": KEY, **headers})
        async with asyncio.timeout(20):
            while not collector.spans:
                await asyncio.sleep(0.02)
    [span] = collector.spans
    assert (span.parent_id, span.state) == ("", "")
    assert span.trace_id not in {"0" * 32, "a" * 32}


async def test_a_tracestate_that_is_too_long_is_left_out(make_service: MakeService, database: Connection) -> None:
    """The journal keeps it, and W3C lets it be dropped from 512 characters on."""
    collector, caller = StubCollector(), Caller()
    async with running(collector.app) as traces:
        service = await make_service(otel_exporter_otlp_endpoint=traces, ai_provider="waddleai", reply_ttl=1)
        ack = await caller.post(service, event(), tracestate=",".join(f"v{n}={'x' * 100}" for n in range(5)))
        kept = await database.fetchval(
            "select trace from interactions where interaction_id = $1", UUID(ack["interaction_id"])
        )
        await service.ended(ack["interaction_id"])
    assert len(kept) == 55


async def test_off_the_sdk_is_not_loaded_and_nothing_is_sent(parts: dict[str, str], database: Connection) -> None:
    """Not even where the SDK's own variables name a collector; and the journal has nothing of a trace."""
    collector = StubCollector()
    async with running(collector.app) as traces:
        own = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{traces}/v1/traces",
            "VALID_API_KEYS": "off",
            "SECRET_KEY": "off",
        }
        environment = [f"{name}={value}" for name, value in (dict(os.environ) | parts | own).items()]
        done = await run_process(PROJECT, "env", "-i", *environment, sys.executable, "-c", OFF)
    assert (done.code, done.output.splitlines()[-1]) == (0, "loaded: []"), done.output
    assert collector.headers == []
    query = "select trace from interactions where entity_id = 'twitch:channel:off'"
    assert [row["trace"] for row in await database.fetch(query)] == [None]


async def test_off_every_call_is_the_same_nothing() -> None:
    settings = load_settings()
    tracing = Tracing(settings, open_log(settings))
    tracing.open()
    assert tracing.span("journal") is tracing.call("delivery") is tracing.request([]) is NOTHING
    assert (tracing.here, NOTHING.headers) == (None, {})
    began = time.perf_counter()
    for _ in range(10_000):
        with tracing.span("journal"):
            pass
    assert (time.perf_counter() - began) / 10_000 < 5e-6, "well under a microsecond where nobody else is at work"


async def test_a_collector_that_is_away_hurts_nobody_and_is_told_of_once(
    make_service: MakeService, capsys: Output
) -> None:
    model = StubOpenAI()
    async with running(model.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url}
        away = f"http://127.0.0.1:{free_port()}"
        service = await make_service(otel_exporter_otlp_endpoint=away, **settings)
        said = ""
        async with asyncio.timeout(30):
            while '"tracing.away"' not in said:
                assert (await service.answered())["response_data"]["fallback"] is False
                await asyncio.sleep(0.2)
                said += capsys.readouterr().out
        for _ in range(5):
            await service.answered()
        began = time.monotonic()
        await service.sidecast.tracing.close()
        assert time.monotonic() - began < 5
    said += capsys.readouterr().out
    assert said.count('"tracing.away"') == 1
    assert said.count('"tracing.library"') == 0
    assert away.rsplit(":", maxsplit=1)[-1] not in said


async def test_a_collector_that_hangs_holds_up_no_stop(make_service: MakeService) -> None:
    release = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service = await make_service(otel_exporter_otlp_endpoint=f"http://127.0.0.1:{port}")
    await service.post(**event(message_content="that was close"))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await service.sidecast.tracing.close()
    assert time.monotonic() - began < 2
    release.set()
    server.close()


async def test_spans_go_out_when_the_service_stops(make_service: MakeService) -> None:
    collector = StubCollector()
    async with running(collector.app) as traces:
        service = await make_service(otel_exporter_otlp_endpoint=traces)
        await service.post(**event(message_content="that was close"))
        await service.sidecast.tracing.close()
        assert [span.name for span in collector.spans] == [POST]


async def test_the_way_to_the_collector_is_ours_alone(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """No proxy and no header of the environment, and no redirect, which counts as a refusal."""
    collector, caller = StubCollector(307), Caller()
    dead = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"x-key={CANARY}")
    async with running(collector.app) as traces:
        service = await make_service(
            otel_exporter_otlp_endpoint=f"{traces}/", otel_exporter_otlp_headers="a=b, C=d%2Ce"
        )
        await caller.post(service, event(message_content="that was close"))
        async with asyncio.timeout(20):
            while not collector.headers:
                await asyncio.sleep(0.02)
        later = await one_more(service)
        await collector.of(later.trace_id, 1)
    assert collector.elsewhere == 0
    assert (collector.headers[0]["a"], collector.headers[0]["c"]) == ("b", "d,e")
    assert "x-key" not in collector.headers[0]
    told = [json.loads(line)["action"] for line in capsys.readouterr().out.splitlines()]
    assert [action for action in told if action.startswith("tracing.")] == ["tracing.away", "tracing.back"]


async def test_who_only_asks_after_the_service_is_in_no_trace(make_service: MakeService) -> None:
    collector = StubCollector()
    async with running(collector.app) as traces:
        service = await make_service(otel_exporter_otlp_endpoint=traces)
        for path in ("/health/live", "/metrics", "/"):
            assert (await service.get(path)).status_code == 200
        await service.sidecast.tracing.close()
    assert collector.spans == []


def test_headers_that_cannot_be_read_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"a=b,{CANARY}")
    with pytest.raises(
        ConfigError, match="OTEL_EXPORTER_OTLP_HEADERS: Value error, entry 2: must be name=value"
    ) as told:
        load_settings()
    assert CANARY not in str(told.value)


async def test_the_callback_has_the_id_of_its_request_also_when_nothing_is_traced(make_service: MakeService) -> None:
    router = StubRouter()
    async with running(router.app) as to:
        service = await make_service(router_api_url=to)
        ack = await Caller().post(service, event(), **{"X-Request-ID": "r-17"})
        await service.ended(ack["interaction_id"])
    [headers] = router.headers
    assert headers["x-request-id"] == "r-17"
    assert not {"traceparent", "tracestate"} & headers.keys()
