"""One contract over every adapter: a reply with its tokens, and every failure as the error it is.

All but Ollama run their real SDK against the real llama.cpp child, which speaks OpenAI's and Anthropic's APIs. Ollama's
runs against the server at OLLAMA_HOST:OLLAMA_PORT if that is set, and else against one in tests/stubs that follows its
documented HTTP API.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from quart import Quart, Response

from config import load_settings
from embedded.parts import free_port
from providers.base import (
    ChatRequest,
    Chunk,
    Provider,
    ProviderBadAnswer,
    ProviderBadRequest,
    ProviderContentRefused,
    ProviderContextTooLong,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRefusedKey,
    ProviderTimeout,
    ProviderUnreachable,
    Usage,
)
from providers.catalog import NAMES, make_provider
from tests.stubs.ollama import StubOllama
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

ERRORS: dict[int, type[ProviderError]] = {
    400: ProviderBadRequest,
    401: ProviderRefusedKey,
    403: ProviderRefusedKey,
    404: ProviderNotFound,
    429: ProviderRateLimited,
    500: ProviderBadAnswer,
    503: ProviderBadAnswer,
}


HELLO = [{"role": "user", "content": "Say hello."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# What each adapter needs to reach a server at a URL.
WHERE: dict[str, Callable[[str], dict[str, Any]]] = {
    "embedded": lambda url: {"embedded_model_url": url},
    "waddleai": lambda url: {"waddleai_base_url": url},
    "openai": lambda url: {"openai_base_url": f"{url}/v1"},
    "custom": lambda url: {"custom_base_url": f"{url}/v1"},
    "anthropic": lambda url: {"anthropic_base_url": url},
    "ollama": lambda url: dict(
        zip(("ollama_host", "ollama_port"), url.removeprefix("http://").split(":"), strict=True)
    ),
}
HERE = tuple(WHERE)
# Read before the tests' settings are cleared of what the machine has.
OWN_OLLAMA = {
    name.lower(): os.environ[name] for name in ("OLLAMA_HOST", "OLLAMA_PORT", "OLLAMA_MODEL") if name in os.environ
}
OPENAI = ("embedded", "waddleai", "openai", "custom")


def question(provider: Provider, **parameters: Any) -> ChatRequest:
    return ChatRequest(HELLO, provider.model, {"temperature": provider.temperature, "max_tokens": 20} | parameters)


def at(name: str, url: str, **more: Any) -> Provider:
    """The adapter of that name, pointed at a server."""
    provider = make_provider(name, load_settings(**(WHERE[name](url) | more)))
    provider.model = "llama3.2" if name == "ollama" else "SmolLM2-135M-Instruct.Q4_1"
    return provider


@asynccontextmanager
async def opened(provider: Provider) -> AsyncIterator[Provider]:
    await provider.open()
    try:
        yield provider
    finally:
        await provider.close()


async def said(provider: Provider, request: ChatRequest) -> tuple[str, list[Chunk]]:
    chunks = [chunk async for chunk in provider.stream(request)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.choices), chunks


@pytest.fixture(params=HERE)
async def real(request: pytest.FixtureRequest, parts: dict[str, str]) -> AsyncIterator[Provider]:
    """Each adapter, open, on a server that works: llama.cpp, and for Ollama one at OLLAMA_HOST or else the stub."""
    name, key = request.param, parts["EMBEDDED_MODEL_KEY"]
    if name == "ollama" and OWN_OLLAMA:
        async with opened(make_provider(name, load_settings(**OWN_OLLAMA))) as provider:
            yield provider
    elif name == "ollama":
        async with running(StubOllama().app) as url, opened(at(name, url)) as provider:
            yield provider
    else:
        patient = {"request_timeout": 120, "waddleai_timeout": 120}
        async with opened(at(name, parts["EMBEDDED_MODEL_URL"], **{KEYS[name]: key}, **patient)) as provider:
            yield provider


KEYS = {
    "embedded": "embedded_model_key",
    "waddleai": "waddleai_api_key",
    "openai": "openai_api_key",
    "custom": "custom_api_key",
    "anthropic": "anthropic_api_key",
}


async def test_a_reply_has_text_model_and_tokens(real: Provider) -> None:
    reply = await real.chat(question(real))
    assert reply.text.strip()
    assert reply.model
    assert reply.choices[0]["finish_reason"] in {"stop", "length"}
    assert (reply.usage.prompt_tokens or 0) > 0
    assert 0 < (reply.usage.completion_tokens or 0) <= 20


async def test_a_stream_says_the_same_in_pieces(real: Provider) -> None:
    request = question(real, temperature=0, seed=1) if "seed" in real.parameters else question(real, temperature=0)
    text, chunks = await said(real, request)
    assert text.strip()
    assert len(chunks) > 2
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk.choices if choice["finish_reason"]]
    [usage] = [chunk.usage for chunk in chunks if chunk.usage]
    assert (usage.prompt_tokens or 0) > 0
    assert (usage.completion_tokens or 0) > 0


async def test_texts_become_vectors_where_the_provider_makes_them(real: Provider) -> None:
    if real.name == "anthropic":
        with pytest.raises(ProviderBadRequest):
            await real.embed(["a"], real.model)
        return
    made = await real.embed(["a cat", "a dog"], real.model)
    assert len(made.vectors) == 2
    assert len(made.vectors[0]) == len(made.vectors[1]) >= 3


async def test_models_are_listed_and_it_says_that_it_is_there(real: Provider) -> None:
    assert any(model.id for model in await real.models())
    await real.check()


async def test_tokens_are_counted_where_the_provider_counts(real: Provider) -> None:
    count = await real.count_tokens("hello there")
    assert (count is None) == (real.name not in {"embedded", "anthropic"})
    assert count is None or count >= 2


async def test_calls_run_at_once_over_one_client(real: Provider) -> None:
    replies = await asyncio.gather(*(real.chat(question(real)) for _ in range(4)))
    assert all(reply.text for reply in replies)


async def test_what_is_too_long_for_the_model_is_said_so(real: Provider) -> None:
    if real.name == "ollama":
        return  # it cuts the prompt instead
    request = ChatRequest([{"role": "user", "content": "hi " * 9000}], real.model, {"max_tokens": 5})
    with pytest.raises(ProviderContextTooLong):
        await real.chat(request)
    with pytest.raises(ProviderContextTooLong):
        await said(real, request)


CALLS = {
    # platform.openai.com/docs/guides/function-calling
    "openai": {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_0",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Ghent"}'},
                        }
                    ],
                },
            }
        ]
    },
    # docs.anthropic.com/en/docs/agents-and-tools/tool-use
    "anthropic": {
        "content": [{"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Ghent"}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 7, "output_tokens": 4},
    },
}


@pytest.mark.parametrize("name", ["openai", "anthropic", "ollama"])
async def test_a_tool_is_called_in_each_ones_own_form(name: str) -> None:
    """Here, in stubs: the small model calls none. What comes out of each adapter is OpenAI's form."""
    asked = [{"role": "user", "content": "What is the weather in Ghent?"}]
    stub = StubOllama() if name == "ollama" else StubOpenAI((200, "application/json", json.dumps(CALLS.get(name))))
    async with running(stub.app) as url, opened(at(name, url)) as provider:
        choice = {} if name == "ollama" else {"tool_choice": "required"}
        reply = await provider.chat(ChatRequest(asked, provider.model, {"tools": [TOOL], "max_tokens": 100} | choice))
        [call] = reply.choices[0]["message"]["tool_calls"]
        assert (call["id"], call["type"], call["function"]["name"]) == ("call_0", "function", "weather")
        assert json.loads(call["function"]["arguments"]) == {"city": "Ghent"}
        assert reply.choices[0]["finish_reason"] == "tool_calls"
        result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
        await provider.chat(
            ChatRequest([*asked, reply.choices[0]["message"], result], provider.model, {"max_tokens": 9})
        )
    first, second = stub.requests
    assert "weather" in str(first["tools"])
    if name == "anthropic":
        assert first["tool_choice"] == {"type": "any"}
        assert first["tools"][0]["input_schema"]["required"] == ["city"]
        assert second["messages"][1]["content"][0]["input"] == {"city": "Ghent"}
        assert second["messages"][2]["content"][0]["tool_use_id"] == "call_0"
    if name == "ollama":
        assert second["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Ghent"}


ANTHROPIC_STREAM: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me see."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t1", "name": "weather"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Ghent"}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]


def as_events(events: list[dict[str, Any]]) -> str:
    return "".join(f"event: {item['type']}\ndata: {json.dumps(item)}\n\n" for item in events)


async def test_a_stream_of_anthropic_with_a_tool_call_is_openais() -> None:
    """As docs.anthropic.com/en/docs/build-with-claude/streaming has it."""
    stub = StubOpenAI((200, "text/event-stream", as_events(ANTHROPIC_STREAM)))
    async with running(stub.app) as url, opened(at("anthropic", url)) as provider:
        text, chunks = await said(provider, question(provider, tools=[TOOL]))
    assert text == "Let me see."
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice["delta"].get("tool_calls", [])]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("t1", "weather")
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city":"Ghent"}'
    assert chunks[-1].choices[0]["finish_reason"] == "tool_calls"
    assert chunks[-1].usage == Usage(7, 4)


@pytest.mark.parametrize("broken", [ANTHROPIC_STREAM[:-1], [*ANTHROPIC_STREAM[:4], {"type": "error", "error": {}}]])
async def test_a_broken_stream_of_anthropic_is_a_bad_answer(broken: list[dict[str, Any]]) -> None:
    stub = StubOpenAI((200, "text/event-stream", as_events(broken)))
    async with running(stub.app) as url, opened(at("anthropic", url)) as provider:
        with pytest.raises(ProviderBadAnswer):
            await said(provider, question(provider))


@pytest.mark.parametrize("name", HERE)
async def test_nobody_there_is_unreachable(name: str) -> None:
    async with opened(at(name, f"http://127.0.0.1:{free_port()}")) as provider:
        for call in (provider.chat(question(provider)), provider.check(), said(provider, question(provider))):
            with pytest.raises(ProviderUnreachable):
                await call


@pytest.mark.parametrize("name", HERE)
async def test_no_answer_in_time_is_a_timeout(name: str) -> None:
    stub = StubOllama(delay=30) if name == "ollama" else StubOpenAI(delay=30)
    async with running(stub.app) as url:
        short = {"request_timeout": 0.2, "ollama_timeout": 0.2, "waddleai_timeout": 0.2}
        async with opened(at(name, url, **short)) as provider:
            for call in (provider.chat(question(provider)), said(provider, question(provider))):
                began = time.monotonic()
                with pytest.raises(ProviderTimeout):
                    await call
                assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("status", ERRORS)
async def test_each_status_is_its_error_and_is_asked_once(name: str, status: int) -> None:
    stub = (
        StubOllama((status, "no")) if name == "ollama" else StubOpenAI((status, "application/json", '{"error": "no"}'))
    )
    async with running(stub.app) as url, opened(at(name, url)) as provider:
        for call in (provider.chat(question(provider)), said(provider, question(provider))):
            with pytest.raises(ProviderError) as error:
                await call
            assert type(error.value) is ERRORS[status]
    assert len(stub.requests) == 2, "the SDK's own retries are off"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"code": "context_length_exceeded", "message": "…"}, ProviderContextTooLong),
        ({"message": "This model's maximum context length is 8192 tokens"}, ProviderContextTooLong),
        ({"code": "content_filter", "message": "…"}, ProviderContentRefused),
        ({"code": "invalid_value", "param": "temperature", "message": "…"}, ProviderBadRequest),
    ],
)
async def test_why_a_request_is_bad_is_told_apart(body: dict[str, str], error: type[ProviderError]) -> None:
    stub = StubOpenAI((400, "application/json", json.dumps({"error": body})))
    async with running(stub.app) as url, opened(at("openai", url)) as provider:
        with pytest.raises(ProviderBadRequest) as raised:
            await provider.chat(question(provider))
    assert type(raised.value) is error
    assert raised.value.param == ("temperature" if error is ProviderBadRequest else "messages")


@pytest.mark.parametrize(
    ("asked", "waits"), [("7", 7), ("1e99", 1e99), ("1e999", 0), ("nan", 0), ("-3", 0), ("soon", 0)]
)
async def test_a_rate_limit_says_how_long_to_wait(asked: str, waits: float) -> None:
    stub = StubOpenAI((429, "application/json", "{}"))
    stub.answer_headers = {"Retry-After": asked}
    async with running(stub.app) as url:
        for name in ("openai", "anthropic"):
            async with opened(at(name, url)) as provider:
                with pytest.raises(ProviderRateLimited) as error:
                    await provider.chat(question(provider))
            assert error.value.retry_after == waits


BAD_ANSWERS = [
    (200, "text/html", "<html>hello</html>"),
    (200, "application/json", "{}"),
    (200, "application/json", '{"choices": []}'),
    (200, "application/json", '{"choices": [{"message": {"content": null}}]}'),
    (200, "application/json", '{"choices": [{"message": null}]}'),
    (200, "application/json", '{"content": [], "usage": {}}'),
    (200, "application/json", "not json"),
    (200, "application/json", "[]"),
    (200, "application/json", " " * 9_000_000),
]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("answer", [*BAD_ANSWERS, "   ", "x" * 200_000], ids=lambda answer: str(answer)[:50])
async def test_an_answer_that_is_none_is_a_bad_answer(name: str, answer: Any) -> None:
    async with running(StubOpenAI(answer).app) as url, opened(at(name, url)) as provider:
        with pytest.raises(ProviderBadAnswer):
            await provider.chat(question(provider))


PIECE = 'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]}\n\n'


@pytest.mark.parametrize(
    "body",
    [
        PIECE,  # no [DONE]
        PIECE + "data: {not json\n\n",
        PIECE + 'data: {"error": {"message": "overloaded"}}\n\n',
        PIECE + "data: []\n\n",
        PIECE + "data: " + "x" * 9_000_000,
        "",
    ],
    ids=["no end", "not JSON", "an error", "no chunk", "endless", "nothing"],
)
async def test_a_broken_stream_is_a_bad_answer(body: str) -> None:
    stub = StubOpenAI((200, "text/event-stream", body))
    async with running(stub.app) as url, opened(at("openai", url)) as provider:
        with pytest.raises(ProviderBadAnswer):
            await said(provider, question(provider))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_html_in_place_of_a_stream_is_a_bad_answer(name: str) -> None:
    async with (
        running(StubOpenAI((200, "text/html", "<html>hello</html>")).app) as url,
        opened(at(name, url)) as provider,
    ):
        with pytest.raises(ProviderBadAnswer):
            await said(provider, question(provider))


async def test_a_stream_of_ollama_that_breaks_off_is_a_bad_answer() -> None:
    stub = StubOllama()
    stub.breaks_off = True
    async with running(stub.app) as url, opened(at("ollama", url)) as provider:
        with pytest.raises(ProviderBadAnswer):
            await said(provider, question(provider))


@pytest.mark.parametrize("name", ["openai", "anthropic", "ollama"])
async def test_a_compressed_answer_is_not_unpacked(name: str) -> None:
    """It may be a bomb: 8 MB of zeros in 8 KB."""
    app = Quart("bomb")

    @app.route("/<path:_path>", methods=["GET", "POST"])
    async def bomb(_path: str) -> Response:
        packed = gzip.compress(b" " * 8_000_000)
        return Response(packed, content_type="application/json", headers={"Content-Encoding": "gzip"})

    async with running(app) as url, opened(at(name, url)) as provider:
        with pytest.raises(ProviderBadAnswer):
            await provider.chat(question(provider))


async def test_a_wrong_key_is_refused_by_the_real_server(parts: dict[str, str]) -> None:
    provider = at("embedded", parts["EMBEDDED_MODEL_URL"], embedded_model_key="wrong")
    await provider.open()
    with pytest.raises(ProviderRefusedKey):
        await provider.chat(question(provider))
    await provider.close()


async def test_no_key_of_the_environment_reaches_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs would send these to any host."""
    for name in ("OLLAMA_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "secret-of-the-environment")
    said_hi = json.dumps({"content": [{"type": "text", "text": "hi"}]})
    for name, stub in (
        ("ollama", StubOllama()),
        ("waddleai", StubOpenAI()),
        ("anthropic", StubOpenAI((200, "application/json", said_hi))),
    ):
        async with running(stub.app) as url:
            provider = at(name, url)
            await provider.open()
            await provider.chat(question(provider))
            await provider.close()
        assert "secret-of-the-environment" not in str(stub.headers)
        assert "x-stainless-os" not in str(stub.headers), "nor what machine this is"


async def test_waddleai_takes_its_address_with_or_without_v1() -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        for base in (url, f"{url}/", f"{url}/v1", f"{url}/v1/"):
            provider = make_provider("waddleai", load_settings(waddleai_base_url=base, waddleai_api_key="wa-1"))
            await provider.open()
            await provider.chat(question(provider))
            await provider.close()
    assert [headers["authorization"] for headers in stub.headers] == ["Bearer wa-1"] * 4
    assert {body["model"] for body in stub.requests} == {"auto"}


async def test_options_go_where_each_server_wants_them() -> None:
    stub = StubOllama()
    async with running(stub.app) as url, opened(at("ollama", url, ollama_keep_alive="10m")) as provider:
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
        await provider.chat(
            ChatRequest(HELLO, "llama3.2", {"temperature": 0, "max_tokens": 33, "stop": "x", "response_format": schema})
        )
    [body] = stub.requests
    assert body["options"] == {"temperature": 0, "num_predict": 33, "stop": ["x"]}
    assert (body["model"], body["stream"], body["keep_alive"]) == ("llama3.2", False, "10m")
    assert body["format"] == {"type": "object"}


async def test_a_length_has_the_name_that_the_server_takes() -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        for name in ("openai", "custom"):
            async with opened(at(name, url)) as provider:
                await provider.chat(question(provider))
    lengths = [{key: body[key] for key in body if key.startswith("max")} for body in stub.requests]
    assert lengths == [{"max_completion_tokens": 20}, {"max_tokens": 20}]


def test_models_and_parameters_come_from_the_settings() -> None:
    settings = load_settings(
        ai_temperature=0.3, ai_max_tokens=99, waddleai_preferred_model="gpt-4", custom_base_url="http://x"
    )
    named = {"embedded": "SmolLM2-135M-Instruct.Q4_1", "ollama": "llama3.2", "waddleai": "gpt-4"}
    named["openrouter"] = "openrouter/auto"
    for name in NAMES:
        provider = make_provider(name, settings)
        assert provider.model == named.get(name, "")
        assert (provider.temperature, provider.max_tokens) == (0.3, 99)
    with pytest.raises(ValueError, match="CUSTOM_BASE_URL: must be set"):
        make_provider("custom", load_settings())


async def test_prices_of_openrouter_tell_what_is_free() -> None:
    """As openrouter.ai/docs/api-reference/list-available-models has them, in dollars a token."""
    app = Quart("openrouter")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        free = {"id": "meta/llama:free", "created": 1, "pricing": {"prompt": "0", "completion": "0"}}
        return {"data": [free, {"id": "openai/gpt", "pricing": {"prompt": "0.0000025", "completion": "0.00001"}}]}

    async with running(app) as url, opened(at("custom", url)) as provider:
        first, second = await provider.models()
    assert first.free
    assert not second.free
    assert (second.prompt_price, second.completion_price) == (2.5, 10)
