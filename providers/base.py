"""What every provider of models is: a protocol, a request, a reply, and the errors it may raise.

ProviderError
├── ProviderTimeout          no answer in time
├── ProviderUnreachable      no connection, or it broke
├── ProviderRateLimited      the provider asks to wait
├── ProviderRefusedKey       the key is wrong or may not do this
├── ProviderBadRequest       the provider does not take the request as it is
└── ProviderBadAnswer        an answer that is none: a server error, wrong content, no text
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

# More than any chat reply; what is longer is no answer.
MAX_ANSWER_CHARACTERS = 100_000


class ProviderError(Exception):
    """A call that gave no answer. `reason` is a word for logs and the interaction; texts never hold keys."""

    reason = "provider_error"


class ProviderTimeout(ProviderError):
    reason = "provider_timeout"


class ProviderUnreachable(ProviderError):
    reason = "provider_unreachable"


class ProviderRateLimited(ProviderError):
    reason = "provider_rate_limited"


class ProviderRefusedKey(ProviderError):
    reason = "provider_refused_key"


class ProviderBadRequest(ProviderError):
    reason = "provider_bad_request"


class ProviderBadAnswer(ProviderError):
    reason = "provider_bad_answer"


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class ChatRequest:
    """A prompt; `max_tokens` bounds the reply."""

    messages: tuple[Message, ...]
    model: str
    temperature: float
    max_tokens: int

    def wire_messages(self) -> list[dict[str, str]]:
        """The messages as OpenAI's and Ollama's APIs take them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]


@dataclass(frozen=True)
class ChatReply:
    """The model's text, which model gave it, and the tokens it cost as the provider counted them."""

    text: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Provider(Protocol):
    """One way to reach models. A client is made by `open` and shared by all calls until `close`.

    `needs_examples`: the model is so small that it answers well only after a few examples.
    """

    name: str
    model: str
    temperature: float
    max_tokens: int
    timeout: float
    needs_examples: bool

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError, within `timeout` seconds."""
        ...

    async def check(self) -> None:
        """Ask whether it is there, without a model call. Raises ProviderError."""
        ...


def checked_reply(text: str | None, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> ChatReply:
    """A reply with text in it. Raises ProviderBadAnswer."""
    if not text or not text.strip():
        raise ProviderBadAnswer("the model gave no text")
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise ProviderBadAnswer(f"the model gave {len(text)} characters")
    return ChatReply(text, model, prompt_tokens, completion_tokens)
