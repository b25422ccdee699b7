"""Keeps a prompt within a model's window, less the reply.

Tokens are counted by the provider's own tokenizer where it has one, by tiktoken where the files of an encoding are
there, and else by a bound: a byte-level tokenizer never makes more tokens than there are bytes of UTF-8. The bound is
looked at first, since nearly every prompt fits by it and costs no call then.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from providers.base import Message, ProviderError
from services.chains import Choice
from services.logs import Log
from services.prompts import Prompt
from services.texts import head

# What a chat template adds to each message and to all of them, in tokens, generously.
MESSAGE_TOKENS = 8
PROMPT_TOKENS = 16
CUT_MARK = " …"
LEAST_SAID = 16
MOST_COUNTS = 3
# tiktoken keeps a file under the SHA-1 of where it came from; without it, it would go and fetch it.
_SOURCE = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_ENCODINGS = ("o200k_base", "cl100k_base")

Measure = Callable[[str], int]


def bound(text: str) -> int:
    """No fewer tokens than any byte-level tokenizer makes of a text."""
    return len(text.encode("utf-8", "surrogatepass"))


class Tokens:
    """Fits prompts."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def fit(self, prompt: Prompt, choice: Choice) -> Prompt:
        """As much of a prompt as its model can read: what was said longest ago goes first, then the message is cut."""
        provider = choice.link.provider
        room = provider.window - min(choice.max_tokens, provider.window // 2) - PROMPT_TOKENS
        examples = provider.needs_examples
        if _cost(prompt.messages(examples=examples), bound) <= room:
            return prompt
        measure = by_tiktoken() if provider.name == "openai" else None
        if measure is not None:
            return _shrunk(prompt, room, measure, examples=examples)
        whole, share = prompt, 1.0
        for _ in range(MOST_COUNTS):
            messages = prompt.messages(examples=examples)
            counted = await self._count(choice, messages)
            if counted is None:
                return _shrunk(whole, room, bound, examples=examples)
            if counted <= room:
                return prompt
            # The text's own tokens a byte, and a little more for what is left of it.
            share = max(share if prompt is not whole else 0.0, counted / _cost(messages, bound)) * 1.05
            prompt = _shrunk(whole, room, functools.partial(_share, share), examples=examples)
        return _shrunk(whole, room, bound, examples=examples)

    async def _count(self, choice: Choice, messages: Sequence[Message]) -> int | None:
        """By the provider's tokenizer, with what a template adds; None where it has none or does not answer."""
        text = "\n".join(str(message["content"]) for message in messages)
        try:
            counted = await choice.link.provider.count_tokens(text)
        except ProviderError as error:
            self._log.info("tokens.bound", f"not counted ({error.reason}); the bound is taken", result=error.reason)
            return None
        return None if counted is None else counted + MESSAGE_TOKENS * len(messages)


def _share(share: float, text: str) -> int:
    return int(bound(text) * share) + 1


def _cost(messages: Sequence[Message], measure: Measure) -> int:
    return sum(MESSAGE_TOKENS + measure(str(message["content"])) for message in messages)


def _shrunk(prompt: Prompt, room: int, measure: Measure, *, examples: bool) -> Prompt:
    """Without as little of the past as fits; then with a shorter message, and then a shorter system prompt."""

    def fits(tried: Prompt) -> bool:
        return _cost(tried.messages(examples=examples), measure) <= room

    low, high = 0, prompt.past + 1  # what fits without some, fits without more
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(prompt.without(middle)) else (middle + 1, high)
    if low <= prompt.past:
        return prompt.without(low)
    bare = dataclasses.replace(prompt.without(prompt.past), channel=(), details="")
    return _cut(bare, "said", fits) or _cut(dataclasses.replace(bare, said=_short(bare.said)), "told", fits) or bare


def _short(text: str) -> str:
    return text if len(text) <= LEAST_SAID else head(text, LEAST_SAID) + CUT_MARK


def _cut(prompt: Prompt, part: str, fits: Callable[[Prompt], bool]) -> Prompt | None:
    """With the longest beginning of a part that fits, whole characters and a mark; None where not even a few do."""
    text: str = getattr(prompt, part)

    def tried(length: int) -> Prompt:
        changed: dict[str, Any] = {part: text if length >= len(text) else head(text, length) + CUT_MARK}
        return dataclasses.replace(prompt, **changed)

    low, high = min(LEAST_SAID, len(text)), len(text)
    if not fits(tried(low)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(tried(middle)) else (low, middle - 1)
    return tried(low)


@functools.cache
def by_tiktoken() -> Measure | None:
    """Counts as OpenAI's models do, where tiktoken and the file of an encoding are there; nothing is fetched."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    if not folder or importlib.util.find_spec("tiktoken") is None:
        return None
    for name in _ENCODINGS:
        file = hashlib.sha1(_SOURCE.format(name).encode(), usedforsecurity=False).hexdigest()
        if (Path(folder) / file).is_file():
            encoding = importlib.import_module("tiktoken").get_encoding(name)
            return lambda text: len(encoding.encode_ordinary(text))
    return None
