"""One contract over every adapter: a reply with its tokens, and every failure as the error it is.

`embedded` and `waddleai` run their real SDK against the real llama.cpp child; Ollama's runs against a server in
tests/stubs that follows its documented HTTP API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from config import load_settings
from embedded.parts import free_port
from providers.base import (
    ChatRequest,
    Message,
    Provider,
    ProviderBadAnswer,
    ProviderBadRequest,
    ProviderError,
    ProviderRateLimited,
    ProviderRefusedKey,
    ProviderTimeout,
    ProviderUnreachable,
)
from providers.catalog import NAMES, make_provider
from tests.stubs.ollama import StubOllama
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

ERRORS: dict[int, type[ProviderError]] = {
    400: ProviderBadRequest,
    401: ProviderRefusedKey,
    403: ProviderRefusedKey,
    404: ProviderBadRequest,
    429: ProviderRateLimited,
    500: ProviderBadAnswer,
    503: ProviderBadAnswer,
}


def question(provider: Provider) -> ChatRequest:
    return ChatRequest((Message("user", "Say hello."),), provider.model, provider.temperature, 20)


def at(name: str, url: str, **more: Any) -> Provider:
    """The adapter of that name, pointed at a server."""
    host, port = url.removeprefix("http://").split(":")
    where = {
        "embedded": {"embedded_model_url": url},
        "waddleai": {"waddleai_base_url": url},
        "ollama": {"ollama_host": host, "ollama_port": port},
    }[name]
    return make_provider(name, "", load_settings(**(where | more)))


@pytest.fixture(params=NAMES)
async def real(request: pytest.FixtureRequest, parts: dict[str, str]) -> AsyncIterator[Provider]:
    """Each adapter, open, on a server that works."""
    key = parts["EMBEDDED_MODEL_KEY"]
    if request.param == "ollama":
        async with running(StubOllama().app) as url:
            provider = at("ollama", url)
            await provider.open()
            yield provider
            await provider.close()
        return
    provider = at(request.param, parts["EMBEDDED_MODEL_URL"], embedded_model_key=key, waddleai_api_key=key)
    await provider.open()
    yield provider
    await provider.close()


async def test_a_reply_has_text_model_and_tokens(real: Provider) -> None:
    reply = await real.chat(question(real))
    assert reply.text.strip()
    assert reply.model
    assert (reply.prompt_tokens or 0) > 0
    assert 0 < (reply.completion_tokens or 0) <= 20


async def test_it_says_that_it_is_there(real: Provider) -> None:
    await real.check()


async def test_calls_run_at_once_over_one_client(real: Provider) -> None:
    replies = await asyncio.gather(*(real.chat(question(real)) for _ in range(4)))
    assert all(reply.text for reply in replies)


@pytest.mark.parametrize("name", NAMES)
async def test_nobody_there_is_unreachable(name: str) -> None:
    provider = at(name, f"http://127.0.0.1:{free_port()}")
    await provider.open()
    for call in (provider.chat(question(provider)), provider.check()):
        with pytest.raises(ProviderUnreachable):
            await call
    await provider.close()


@pytest.mark.parametrize("name", NAMES)
async def test_no_answer_in_time_is_a_timeout(name: str) -> None:
    stub = StubOllama(delay=30) if name == "ollama" else StubOpenAI(delay=30)
    async with running(stub.app) as url:
        short = {"request_timeout": 0.2, "ollama_timeout": 0.2, "waddleai_timeout": 0.2}
        provider = at(name, url, **short)
        await provider.open()
        began = time.monotonic()
        with pytest.raises(ProviderTimeout):
            await provider.chat(question(provider))
        assert time.monotonic() - began < 2
        await provider.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", ERRORS)
async def test_each_status_is_its_error_and_is_asked_once(name: str, status: int) -> None:
    stub = (
        StubOllama((status, "no")) if name == "ollama" else StubOpenAI((status, "application/json", '{"error": "no"}'))
    )
    async with running(stub.app) as url:
        provider = at(name, url)
        await provider.open()
        with pytest.raises(ProviderError) as error:
            await provider.chat(question(provider))
        await provider.close()
    assert type(error.value) is ERRORS[status]
    assert len(stub.requests) == 1, "the SDK's own retries are off"


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", "<html>hello</html>"),
        (200, "application/json", "{}"),
        (200, "application/json", '{"choices": []}'),
        (200, "application/json", '{"choices": [{"message": {"content": null}}]}'),
        (200, "application/json", '{"choices": [{"message": null}]}'),
        (200, "application/json", "not json"),
        (200, "application/json", "[]"),
        "   ",
        "x" * 200_000,
    ],
)
async def test_an_answer_that_is_none_is_a_bad_answer(answer: Any) -> None:
    async with running(StubOpenAI(answer).app) as url:
        provider = at("waddleai", url)
        await provider.open()
        with pytest.raises(ProviderBadAnswer):
            await provider.chat(question(provider))
        await provider.close()


async def test_a_wrong_key_is_refused_by_the_real_server(parts: dict[str, str]) -> None:
    provider = at("embedded", parts["EMBEDDED_MODEL_URL"], embedded_model_key="wrong")
    await provider.open()
    with pytest.raises(ProviderRefusedKey):
        await provider.chat(question(provider))
    await provider.close()


async def test_no_key_of_the_environment_reaches_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs would send these to any host."""
    for name in ("OLLAMA_API_KEY", "OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret-of-the-environment")
    for name, stub in (("ollama", StubOllama()), ("waddleai", StubOpenAI())):
        async with running(stub.app) as url:
            provider = at(name, url)
            await provider.open()
            await provider.chat(question(provider))
            await provider.close()
        assert "secret-of-the-environment" not in str(stub.headers)


async def test_waddleai_takes_its_address_with_or_without_v1() -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        for base in (url, f"{url}/", f"{url}/v1", f"{url}/v1/"):
            provider = make_provider("waddleai", "", load_settings(waddleai_base_url=base, waddleai_api_key="wa-1"))
            await provider.open()
            await provider.chat(question(provider))
            await provider.close()
    assert [headers["authorization"] for headers in stub.headers] == ["Bearer wa-1"] * 4
    assert {body["model"] for body in stub.requests} == {"auto"}


async def test_options_go_where_each_server_wants_them() -> None:
    stub = StubOllama()
    async with running(stub.app) as url:
        provider = at("ollama", url, ollama_model="llama3.2", ollama_temperature=0, ollama_max_tokens=33)
        await provider.open()
        await provider.chat(
            ChatRequest((Message("user", "hi"),), provider.model, provider.temperature, provider.max_tokens)
        )
        await provider.close()
    [body] = stub.requests
    assert body["options"] == {"temperature": 0, "num_predict": 33}
    assert (body["model"], body["stream"]) == ("llama3.2", False)


def test_models_and_parameters_come_from_the_settings() -> None:
    settings = load_settings(ai_temperature=0.3, ai_max_tokens=99, waddleai_preferred_model="gpt-4")
    chosen = {name: make_provider(name, "", settings) for name in NAMES}
    assert {name: provider.model for name, provider in chosen.items()} == {
        "embedded": "SmolLM2-135M-Instruct.Q4_1",
        "ollama": "llama3.2",
        "waddleai": "gpt-4",
    }
    assert {(provider.temperature, provider.max_tokens) for provider in chosen.values()} == {(0.3, 99)}
    defaults = {name: make_provider(name, "m", load_settings()) for name in NAMES}
    assert [defaults[name].temperature for name in NAMES] == [0.2, 0.7, 0.7]
    assert {provider.model for provider in defaults.values()} == {"m"}
