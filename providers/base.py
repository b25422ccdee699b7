"""What every provider of models is: a protocol, requests and replies in OpenAI's terms, and the errors it may raise.

ProviderError
├── ProviderTimeout            no answer in time
├── ProviderUnreachable        no connection, or it broke
├── ProviderRateLimited        the provider asks to wait
├── ProviderRefusedKey         the key is wrong or may not do this
├── ProviderForbidden          the rules for outbound addresses forbid its address
├── ProviderBadRequest         the provider does not take the request as it is
│   ├── ProviderNotFound           there is no such model, or nothing at this address
│   ├── ProviderContextTooLong     more tokens than the model reads
│   └── ProviderContentRefused     the provider's rules refuse what was said
└── ProviderBadAnswer          an answer that is none: a server error, wrong content, no text, no end
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# More than any chat reply; what is longer is no answer.
MAX_NAME = 255
MOST_TOKENS = 2**31 - 1
MAX_ANSWER_CHARACTERS = 100_000
# English text; only where a provider does not count (help.openai.com, "What are tokens").
CHARACTERS_A_TOKEN = 4

Message = Mapping[str, Any]
"""A message as OpenAI has it: `role`, `content`, and for tools `tool_calls` or `tool_call_id`."""


class ProviderError(Exception):
    """A call that gave no answer. `reason` is a word for logs and the interaction; texts never hold keys."""

    reason = "provider_error"
    heals = False  # the same call may succeed a little later
    counts: bool | None = None  # for the breaker: False is the provider's failure, None says nothing about it


class ProviderTimeout(ProviderError):
    reason = "provider_timeout"
    counts = False  # and not tried again: the time is better spent on a fallback


class ProviderUnreachable(ProviderError):
    reason = "provider_unreachable"
    heals = True
    counts = False


class ProviderRateLimited(ProviderError):
    """`retry_after` seconds is what the provider asks for; 0 where it does not say."""

    reason = "provider_rate_limited"
    heals = True
    counts = False

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProviderRefusedKey(ProviderError):
    reason = "provider_refused_key"


class ProviderForbidden(ProviderError):
    reason = "provider_forbidden_address"


class ProviderBadRequest(ProviderError):
    """`param` names what the provider does not take, where it is known."""

    reason = "provider_bad_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ProviderNotFound(ProviderBadRequest):
    reason = "provider_not_found"


class ProviderContextTooLong(ProviderBadRequest):
    reason = "provider_context_too_long"


class ProviderContentRefused(ProviderBadRequest):
    reason = "provider_content_refused"


class ProviderBadAnswer(ProviderError):
    reason = "provider_bad_answer"
    heals = True
    counts = False


@dataclass(frozen=True)
class ChatRequest:
    """Messages and parameters by OpenAI's names (`temperature`, `max_tokens`, `tools` …)."""

    messages: Sequence[Message]
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> bytes:
        """Equal for equal requests alone."""
        text = json.dumps([list(self.messages), self.model, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def storable(name: str) -> str:
    """A model's name as a database holds it, whatever a server calls its own."""
    return name.replace("\0", "")[:MAX_NAME]


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider counted them; None where it did not say, until they are `estimated`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    estimated: bool = False

    def __post_init__(self) -> None:
        # What a server says is not to be believed where it cannot be.
        for name in ("prompt_tokens", "completion_tokens"):
            if not _is_count(getattr(self, name)):
                object.__setattr__(self, name, None)

    def counted(self, said: int, answered: int) -> Usage:
        """With an estimate, from lengths in characters, of what the provider did not say."""
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            return self
        prompt = -(-said // CHARACTERS_A_TOKEN) if self.prompt_tokens is None else self.prompt_tokens
        completion = -(-answered // CHARACTERS_A_TOKEN) if self.completion_tokens is None else self.completion_tokens
        return Usage(prompt, completion, estimated=True)


@dataclass(frozen=True)
class ChatReply:
    """OpenAI's choices, which model made them, and what they cost."""

    choices: Sequence[Mapping[str, Any]]
    model: str
    usage: Usage

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", storable(self.model))

    @property
    def text(self) -> str:
        """What the first choice says; empty where it calls tools."""
        return str(self.choices[0]["message"].get("content") or "")


@dataclass(frozen=True)
class Chunk:
    """A piece of a reply: OpenAI's choices with `delta`; the usage, if any, comes with the last."""

    choices: Sequence[Mapping[str, Any]]
    model: str
    usage: Usage | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", storable(self.model))


@dataclass(frozen=True)
class Embeddings:
    vectors: Sequence[Sequence[float]]
    model: str
    usage: Usage

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", storable(self.model))


@dataclass(frozen=True)
class ModelInfo:
    """A model that a provider has. Prices are US dollars a million tokens, None where it does not say."""

    id: str
    created: int = 0
    owner: str = ""
    prompt_price: float | None = None
    completion_price: float | None = None

    @property
    def free(self) -> bool:
        return self.prompt_price == 0 and self.completion_price == 0


class Provider(Protocol):
    """One way to reach models. A client is made by `open` and shared by all calls until `close`.

    `window`: how many tokens a prompt and its reply may have together. `needs_examples`: the model is so small that it
    answers well only after a few examples. `parameters`: OpenAI's names of what it takes. Each call ends within
    `timeout` seconds; a stream waits so long for each piece.
    """

    name: str
    model: str
    temperature: float
    max_tokens: int
    timeout: float
    window: int
    needs_examples: bool
    parameters: frozenset[str]

    @property
    def address(self) -> tuple[str, str]:
        """Where and as whom it asks: the base URL, and a hash of the credential."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The reply in pieces. Raises ProviderError, also after the first of them."""
        ...

    async def embed(self, texts: Sequence[str], model: str) -> Embeddings:
        """Raises ProviderError; ProviderBadRequest where the provider makes no embeddings."""
        ...

    async def models(self) -> list[ModelInfo]:
        """Raises ProviderError."""
        ...

    async def check(self) -> None:
        """Ask whether it is there, without a model call. Raises ProviderError."""
        ...

    async def count_tokens(self, text: str, /) -> int | None:
        """As the model counts them; None where the provider does not say. Raises ProviderError."""
        ...


def checked(reply: ChatReply) -> ChatReply:
    """The reply, which says something or calls a tool. Raises ProviderBadAnswer."""
    for choice in reply.choices:
        message = choice["message"]
        content = message.get("content")
        if not message.get("tool_calls") and not (isinstance(content, str) and content.strip()):
            raise ProviderBadAnswer("the model gave no text")
        if content and len(content) > MAX_ANSWER_CHARACTERS:
            raise ProviderBadAnswer(f"the model gave {len(content)} characters")
    return reply


def seconds(retry_after: str | None) -> float:
    """The wait that a `Retry-After` in seconds asks for; 0 for none, or one that makes no sense."""
    try:
        wait = float(retry_after or 0)
    except ValueError:
        return 0.0
    return wait if math.isfinite(wait) and wait > 0 else 0.0


# How servers say it: OpenAI, Anthropic, llama.cpp, vLLM, OpenRouter, Ollama.
_TOO_LONG = re.compile(r"context[ _](length|size|window)|prompt is too long|input length exceeds")
_REFUSED = re.compile(r"content[ _](filter|policy)|moderation|safety")
_BY_STATUS: dict[int, type[ProviderError]] = {
    401: ProviderRefusedKey,
    402: ProviderRefusedKey,
    403: ProviderRefusedKey,
    404: ProviderNotFound,
    408: ProviderTimeout,
    501: ProviderBadRequest,
}


def status_error(
    name: str, status: int, said: str = "", *, retry_after: str | None = None, param: str | None = None
) -> ProviderError:
    """What an HTTP status of the provider `name` means; `said` are the codes and words of the answer."""
    text = f"{name}: status {status}"
    if status == 429:
        return ProviderRateLimited(text, seconds(retry_after))
    if status in _BY_STATUS:
        return _BY_STATUS[status](text)
    if not 400 <= status < 500:
        return ProviderBadAnswer(text)
    if status == 413 or _TOO_LONG.search(said.lower()):
        return ProviderContextTooLong(text, "messages")
    if _REFUSED.search(said.lower()):
        return ProviderContentRefused(text, "messages")
    return ProviderBadRequest(text, param)
