"""The prompt fits the model's window: counted by the model's tokenizer, or bounded by what no tokenizer exceeds."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import load_settings
from providers.base import ProviderUnreachable
from providers.catalog import make_provider
from providers.openai_compatible import OpenAICompatible
from services.cache_manager import Exchange, Heard
from services.chains import Choice
from services.logs import open_log
from services.prompts import Prompt
from services.tokens import CUT_MARK, MESSAGE_TOKENS, PROMPT_TOKENS, Tokens, bound, by_tiktoken
from tests.conftest import SHARED_DATA
from tests.services.test_prompts import SETTINGS, prompt


class Link:
    """A provider as far as fitting asks it: `letters` of its tokens make one, or it does not count."""

    name = "stub"

    def __init__(self, window: int, letters: int | None = None, *, away: bool = False, examples: bool = False) -> None:
        self.provider = self
        self.window = window
        self.needs_examples = examples
        self.letters = letters
        self.away = away
        self.counted = 0

    async def count_tokens(self, text: str) -> int | None:
        self.counted += 1
        if self.away:
            raise ProviderUnreachable("away")
        return len(text) // self.letters if self.letters else None


def choice(link: Any, max_tokens: int = 100) -> Choice:
    return Choice(link, "m", 0.0, max_tokens)


def cost(made: Prompt, *, examples: bool = False) -> int:
    return sum(MESSAGE_TOKENS + bound(str(message["content"])) for message in made.messages(examples=examples))


def long_prompt(said: str = "what now?", exchanges: int = 20, lines: int = 20) -> Prompt:
    history = [Exchange(f"said {n} " + "x" * 90, f"answered {n} " + "y" * 90, "ann", 2.0 * n) for n in range(exchanges)]
    heard = [Heard("b", "bob", f"line {n} " + "z" * 90, 2.0 * n + 1) for n in range(lines)]
    return prompt(message_content=said, history=history, heard=heard)


TOKENS = Tokens(open_log(load_settings()))


async def test_what_fits_is_not_even_counted() -> None:
    link, made = Link(20_000, 4), long_prompt()
    assert await TOKENS.fit(made, choice(link)) is made
    assert link.counted == 0


@pytest.mark.parametrize("away", [True, False])
async def test_the_oldest_goes_first(away: bool) -> None:
    """Of conversation and chat alike; the system prompt and the message stay."""
    made = long_prompt()
    fitting = await TOKENS.fit(made, choice(Link(3_000, away=away)))
    assert cost(fitting) + 100 + PROMPT_TOKENS <= 3_000
    assert 0 < fitting.past < made.past
    left = sorted([*(each.at for each in fitting.history), *(each.at for each in fitting.heard)])
    assert left == [float(n) for n in range(40 - len(left), 40)]
    assert fitting.messages(examples=False)[0] == made.messages(examples=False)[0]
    assert "what now?" in fitting.messages(examples=False)[-1]["content"]


async def test_more_fits_by_the_models_own_count_than_by_the_bound() -> None:
    made = long_prompt()
    bounded = await TOKENS.fit(made, choice(Link(3_000)))
    link = Link(3_000, 4)
    counted = await TOKENS.fit(made, choice(link))
    assert counted.past > bounded.past
    assert link.counted <= 3
    tight = Link(1_200, 4)
    fitting = await TOKENS.fit(made, choice(tight))
    text = "\n".join(str(message["content"]) for message in fitting.messages(examples=False))
    assert len(text) // 4 + MESSAGE_TOKENS * len(fitting.messages(examples=False)) + 100 + PROMPT_TOKENS <= 1_200
    assert fitting.past > 0


@pytest.mark.parametrize("sign", ["x", "é", "語", "👩‍👩‍👧‍👦", "e\u0301"])
async def test_a_message_that_is_too_long_is_cut_at_a_whole_character(sign: str) -> None:
    fitting = await TOKENS.fit(long_prompt(sign * (8_000 // len(sign))), choice(Link(2_000)))
    assert cost(fitting) <= 2_000
    assert fitting.past == 0
    assert fitting.said.endswith(CUT_MARK)
    kept = fitting.said.removesuffix(CUT_MARK)
    assert kept
    assert kept == sign * (len(kept) // len(sign))


async def test_a_reply_may_take_half_the_window_at_most() -> None:
    fitting = await TOKENS.fit(long_prompt(), choice(Link(4_000), max_tokens=10_000))
    assert 0 < cost(fitting) <= 2_000


@given(st.text(max_size=600), st.integers(600, 3_000), st.booleans())
@settings(max_examples=60, deadline=None)
async def test_anything_fits(said: str, window: int, examples: bool) -> None:
    made = long_prompt(said, 3, 3)
    fitting = await TOKENS.fit(made, choice(Link(window, examples=examples), 50))
    least = cost(prompt(message_content="x"), examples=examples)
    assert cost(fitting, examples=examples) <= max(window - 50, least + 200)


def test_tiktoken_counts_only_where_the_file_of_an_encoding_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the file it would be fetched; so it is not even asked."""
    asked: list[str] = []

    def get_encoding(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(encode_ordinary=str.split)

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=get_encoding, __spec__=object()))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    by_tiktoken.cache_clear()
    assert by_tiktoken() is None
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    by_tiktoken.cache_clear()
    assert by_tiktoken() is None
    (tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").touch()  # cl100k_base, as tiktoken names it
    by_tiktoken.cache_clear()
    measure = by_tiktoken()
    by_tiktoken.cache_clear()
    assert measure is not None
    assert measure("three words here") == 3
    assert asked == ["cl100k_base"]


@pytest.fixture
async def embedded(parts: dict[str, str]) -> AsyncIterator[OpenAICompatible]:
    settings = load_settings(**{name.lower(): value for name, value in parts.items()})
    provider = make_provider("embedded", settings)
    assert isinstance(provider, OpenAICompatible)
    await provider.open()
    yield provider
    await provider.close()


async def test_the_bound_never_undercounts_real_chat(embedded: OpenAICompatible) -> None:
    """By the tokenizer of the model that comes with the service: rows of the sample, joined by the hundred."""
    path = SHARED_DATA / "chat_sample.jsonl.gz"
    if not path.exists():
        pytest.skip("the sample of chat is not here")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["message"] for line in file]
    for begin in range(0, len(texts), 100):
        text = "\n".join(texts[begin : begin + 100])
        counted = await embedded.count_tokens(text)
        assert counted is not None
        assert counted <= bound(text), begin
    for text in filter(None, sorted(texts, key=lambda text: bound(text) / (len(text) or 1))[:300]):
        assert (await embedded.count_tokens(text) or 0) <= bound(text), text


async def test_the_embedded_model_is_never_told_too_much(embedded: OpenAICompatible) -> None:
    """A conversation of many long turns, and a message of 10,000 characters: the real model answers both."""
    from providers.base import ChatRequest  # noqa: PLC0415

    for made in (long_prompt("and now?", 60, 60), prompt(message_content="語 and? " * 1_250)):
        fitting = await TOKENS.fit(made, choice(RealLink(embedded), 150))
        reply = await embedded.chat(ChatRequest(fitting.messages(examples=True), embedded.model, {"max_tokens": 16}))
        assert reply.usage.prompt_tokens is not None
        assert reply.usage.prompt_tokens <= embedded.window - 150
    assert SETTINGS.system_prompt in fitting.messages(examples=True)[0]["content"]


class RealLink:
    """A real provider, where a chain has a link."""

    def __init__(self, provider: OpenAICompatible) -> None:
        self.provider = provider
