"""OpenAI's API as its official Python client sees it, with the real model; stubs where a provider must fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import BaseModel

from services import gateway
from tests.conftest import API, KEY, MakeService, Service
from tests.providers.test_providers import CALLS, TOOL
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

if TYPE_CHECKING:
    from services.database import Connection

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
BASE = f"{API}/chat/completions"


@asynccontextmanager
async def client_of(service: Service, key: str = KEY, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        running(service.app) as url,
        openai.AsyncOpenAI(base_url=url + API, api_key=key, max_retries=0, **options) as client,
    ):
        yield client


async def test_a_completion(make_service: MakeService) -> None:
    async with client_of(await make_service()) as client:
        made = await client.chat.completions.create(
            model="auto", messages=HELLO, max_completion_tokens=20, temperature=0, seed=1, stop=["\n\n"], n=1
        )
    assert made.id.startswith("chatcmpl-")
    assert (made.object, made.model) == ("chat.completion", "SmolLM2-135M-Instruct.Q4_1")
    [choice] = made.choices
    assert choice.message.content
    assert choice.message.content.strip()
    assert choice.finish_reason in {"stop", "length"}
    assert made.usage
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["auto", "SmolLM2-135M-Instruct.Q4_1", "embedded/SmolLM2-135M-Instruct.Q4_1"])
async def test_a_stream_ends_with_the_usage_when_asked(make_service: MakeService, model: str) -> None:
    async with client_of(await make_service()) as client:
        stream = await client.chat.completions.create(
            model=model, messages=HELLO, max_tokens=20, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text.strip()
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    *others, last = chunks
    assert all(chunk.usage is None for chunk in others)
    assert last.choices == []
    assert last.usage
    assert last.usage.completion_tokens > 0


async def test_the_events_of_a_stream_to_the_letter(make_service: MakeService) -> None:
    service = await make_service()
    answer = await service.post("/chat/completions", model="auto", messages=HELLO, max_tokens=5, stream=True)
    assert answer.content_type == "text/event-stream; charset=utf-8"
    frames = (await answer.get_data(as_text=True)).split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    first = json.loads(frames[0].removeprefix("data: "))
    assert set(first) == {"id", "object", "created", "model", "choices"}
    assert first["object"] == "chat.completion.chunk"


async def test_json_by_a_schema(make_service: MakeService) -> None:
    class Greeting(BaseModel):
        hello: bool

    async with client_of(await make_service()) as client:
        made = await client.chat.completions.parse(
            model="auto", messages=HELLO, response_format=Greeting, max_completion_tokens=100, temperature=0
        )
    assert isinstance(made.choices[0].message.parsed, Greeting)


async def test_tools_go_through_and_come_back(make_service: MakeService) -> None:
    """Of a stub, since the small model calls none."""
    stub = StubOpenAI((200, "application/json", json.dumps(CALLS["openai"])))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        async with client_of(service) as client:
            made = await client.chat.completions.create(
                model="auto", messages=HELLO, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
            )
    assert made.choices[0].finish_reason == "tool_calls"
    assert made.choices[0].message.content is None
    assert made.choices[0].message.tool_calls
    [call] = made.choices[0].message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ghent"})
    assert stub.requests[0]["tools"] == [TOOL]
    assert stub.requests[0]["tool_choice"] == "required"


async def test_a_client_that_does_not_wait_has_its_own_timeout_and_the_service_its_own(
    make_service: MakeService,
) -> None:
    stub = StubOpenAI(delay=30)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, waddleai_timeout=0.5)
        async with client_of(service) as client:
            with pytest.raises(openai.APITimeoutError):
                await client.with_options(timeout=0.2).chat.completions.create(model="auto", messages=HELLO)
            with pytest.raises(openai.InternalServerError) as late:
                await client.chat.completions.create(model="auto", messages=HELLO)
    assert (late.value.status_code, late.value.code) == (504, "provider_timeout")


async def test_embeddings_and_models(make_service: MakeService) -> None:
    async with client_of(await make_service()) as client:
        made = await client.embeddings.create(model="auto", input=["a cat", "a dog"])
        plain = await client.embeddings.create(model="auto", input="a cat", encoding_format="float")
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve(names[1])
    assert [item.index for item in made.data] == [0, 1]
    assert made.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert made.usage.prompt_tokens > 0
    assert names == ["auto", "embedded/SmolLM2-135M-Instruct.Q4_1"]
    assert one.id == names[1]


async def test_errors_are_of_the_clients_own_classes(make_service: MakeService) -> None:
    async with client_of(await make_service()) as client:
        ask = client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as missing:
            await ask(model="nobody/nothing", messages=HELLO)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        for given, param in (
            ({"temperature": 3}, "temperature"),
            ({"extra_body": {"base_url": "http://evil"}}, "base_url"),
            ({"extra_body": {"api_key": "x"}}, "api_key"),
            ({"messages": HELLO * 51}, "messages"),
            ({"messages": []}, "messages"),
        ):
            with pytest.raises(openai.BadRequestError) as bad:
                await ask(**({"model": "auto", "messages": HELLO} | given))
            assert (bad.value.param, bad.value.type) == (param, "invalid_request_error")
        with pytest.raises(openai.BadRequestError) as long:
            await ask(model="auto", messages=[{"role": "user", "content": "hi " * 9000}])
        assert long.value.code == "context_length_exceeded"


async def test_a_wrong_key_is_an_authentication_error(make_service: MakeService) -> None:
    async with client_of(await make_service(), key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError), (400, openai.BadRequestError)],
)
async def test_a_failing_provider_is_told_as_openai_would(
    make_service: MakeService, status: int, error: type[openai.APIStatusError]
) -> None:
    stub = StubOpenAI((status, "application/json", '{"error": {"message": "secret-of-the-provider"}}'))
    stub.answer_headers = {"Retry-After": "70"}
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        async with client_of(service) as client:
            for stream in (False, True):
                with pytest.raises(error) as raised:
                    await client.chat.completions.create(model="auto", messages=HELLO, stream=stream)
                assert "secret-of-the-provider" not in str(raised.value)


async def test_a_parameter_that_no_provider_takes_is_named(make_service: MakeService) -> None:
    service = await make_service(ai_provider="anthropic", ai_model="claude", anthropic_base_url="http://127.0.0.1:1")
    answer = await service.post("/chat/completions", model="auto", messages=HELLO, logprobs=True)
    assert answer.status_code == 400
    assert (await answer.get_json())["error"]["param"] == "logprobs"


async def test_the_next_provider_answers_while_nothing_was_said(make_service: MakeService) -> None:
    """A stream that breaks before its first word falls over; one that breaks later ends in an error, without [DONE]."""
    role = 'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
    word = 'data: {"choices": [{"index": 0, "delta": {"content": "Hm"}}]}\n\n'
    stub = StubOpenAI((200, "text/event-stream", role))
    async with running(stub.app) as url:
        service = await make_service(
            ai_provider="custom", ai_model="m", custom_base_url=f"{url}/v1", ai_fallbacks="embedded/"
        )
        answer = await service.post("/chat/completions", model="auto", messages=HELLO, max_tokens=9, stream=True)
        text = await answer.get_data(as_text=True)
        assert "SmolLM2" in text
        assert text.endswith("data: [DONE]\n\n")
        stub.answer = (200, "text/event-stream", role + word)
        answer = await service.post("/chat/completions", model="auto", messages=HELLO, stream=True)
        frames = (await answer.get_data(as_text=True)).split("\n\n")
    assert "Hm" in frames[1]
    assert json.loads(frames[-2].removeprefix("data: "))["error"]["code"] == "provider_bad_answer"


@pytest.mark.parametrize(("temperature", "cache", "calls"), [(0, "", 1), (0.5, "", 6), (0.5, "max-age=60", 1)])
async def test_equal_calls_in_flight_are_one_where_the_answer_would_be_the_same_or_may_be_shared(
    make_service: MakeService, temperature: float, cache: str, calls: int
) -> None:
    stub = StubOpenAI(delay=0.5)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        asked: dict[str, Any] = {"model": "auto", "messages": HELLO, "temperature": temperature}
        headers = {"X-API-Key": KEY, "Cache-Control": cache}
        ask = [asyncio.create_task(service.client.post(BASE, json=asked, headers=headers)) for _ in range(6)]
        await asyncio.sleep(0.05)
        while len(stub.requests) < calls:
            await asyncio.sleep(0.01)
        ask.pop(0).cancel()  # the first to ask goes away; the others still get their answer
        answers = [await answer.get_json() for answer in await asyncio.gather(*ask)]
    assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"Hello from the stub"}
    assert len({answer["id"] for answer in answers}) == 5
    assert len(stub.requests) == calls


async def test_the_call_ends_when_the_client_goes_away(make_service: MakeService, database: Connection) -> None:
    """The model is real and would go on for many tokens."""
    service = await make_service()
    link = service.sidecast.chains.default[0].link
    results: list[str] = []
    link._on_attempt = lambda attempt: results.append(attempt.result)
    async with client_of(service) as client:
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Count to 900."}], max_tokens=1500, stream=True
        )
        await anext(aiter(stream))
        await stream.close()
        async with asyncio.timeout(5):
            while not results:
                await asyncio.sleep(0.01)
    assert results == ["cancelled"]
    await service.sidecast.ledger.flush()
    row = await database.fetchrow("select * from ledger order by called_at desc limit 1")
    assert row
    assert (row["result"], row["estimated"], row["model"]) == ("cancelled", True, "SmolLM2-135M-Instruct.Q4_1")
    assert row["completion_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_call_ends_when_the_client_goes_away_before_the_first_word(
    make_service: MakeService, stream: bool
) -> None:
    stub = StubOpenAI(delay=30)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        results: list[str] = []
        service.sidecast.chains.default[0].link._on_attempt = lambda attempt: results.append(attempt.result)
        async with client_of(service, timeout=0.3) as client:
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(model="auto", messages=HELLO, stream=stream)
            async with asyncio.timeout(5):
                while not results:
                    await asyncio.sleep(0.01)
    assert results == ["cancelled"]


async def test_a_provider_that_takes_long_is_hedged_where_that_is_set(make_service: MakeService) -> None:
    slow, quick = StubOpenAI("slow", delay=30), StubOpenAI("quick")
    async with running(slow.app) as slow_url, running(quick.app) as quick_url:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url=slow_url,
            ai_fallbacks="custom/m",
            custom_base_url=f"{quick_url}/v1",
            ai_hedge_seconds=0.1,
        )
        answer = await (await service.post("/chat/completions", model="auto", messages=HELLO)).get_json()
        assert answer["choices"][0]["message"]["content"] == "quick"
        slow.answer, slow.delay = (500, "application/json", "{}"), 0.0
        reply = await service.answered()
        quick.answer = (401, "application/json", "{}")
        failed = await service.post("/chat/completions", model="auto", messages=HELLO)
    assert reply["response_data"]["message"] == "🤖 quick"
    assert failed.status_code == 503


async def test_a_fallback_has_parameters_of_its_own(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url="http://127.0.0.1:1",
            ai_fallbacks="custom/org/m?temperature=0.2&max_tokens=60",
            custom_base_url=f"{url}/v1",
        )
        await service.answered()
    [asked] = stub.requests
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("org/m", 0.2, 60)


async def test_a_provider_that_is_down_shows_its_last_list_and_its_state(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(StubOpenAI().app) as url:
        where = {"ai_provider": "custom", "ai_model": "m", "custom_base_url": f"{url}/v1"}
        service = await make_service(**where, ai_fallbacks="embedded/")
        assert await states(service) == {"custom/stub-1": "up", EMBEDDED: "up"}
    assert await states(service) == {"custom/stub-1": "up", EMBEDDED: "up"}, "kept for an hour"
    monkeypatch.setattr(gateway, "MODELS_SECONDS", 0)
    await states(service)  # told while it is asked again
    async with asyncio.timeout(5):
        while await states(service) != {"custom/stub-1": "down", EMBEDDED: "up"}:
            await asyncio.sleep(0.05)


EMBEDDED = "embedded/SmolLM2-135M-Instruct.Q4_1"


async def states(service: Service) -> dict[str, str]:
    answer = await service.get(f"{API}/models")
    return {model["id"]: model["state"] for model in (await answer.get_json())["data"] if model["provider"]}
