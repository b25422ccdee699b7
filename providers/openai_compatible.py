"""Any server that speaks OpenAI's API, by the openai SDK.

The SDK is built on httpx2, whose errors it wraps in its own; it reads no environment variable of ours here, and its
own retries are off, because attempts would multiply with ours. Its methods for each endpoint are not used: they look
through all messages again, and do not check the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import httpx2
import openai
from pydantic import BaseModel, Field, ValidationError

from config import CONNECT_TIMEOUT, PROBE_TIMEOUT
from providers.base import (
    ChatReply,
    ChatRequest,
    Chunk,
    Embeddings,
    ModelInfo,
    ProviderBadAnswer,
    ProviderUnreachable,
    Usage,
    checked,
    status_error,
)
from providers.http import (
    MACHINE_HEADERS,
    SDKClient,
    Straight,
    UnfitAnswer,
    connection_error,
    server_sent_events,
)
from providers.outbound import Outbound

# What platform.openai.com/docs/api-reference/chat/create names, and such servers take or ignore.
PARAMETERS = frozenset(
    {
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "n",
        "logprobs",
        "top_logprobs",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "user",
    }
)
_NAMES = PARAMETERS | {"model", "messages", "input", "max_completion_tokens", "stream", "stream_options"}
# The SDK would send what OPENAI_ORG_ID and OPENAI_PROJECT_ID hold to any server.
_NOT_OURS: dict[str, Any] = {
    name: openai.Omit() for name in ("OpenAI-Organization", "OpenAI-Project", *MACHINE_HEADERS)
}


class _Client(Straight, openai.AsyncOpenAI):
    pass


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Message(BaseModel, extra="allow"):
    content: str | None = None


class _Choice(BaseModel, extra="allow"):
    message: _Message


class _Completion(BaseModel):
    """What is used of a completion (platform.openai.com/docs/api-reference/chat/object)."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    model: str | None = None
    usage: _Usage | None = None


class _Piece(BaseModel):
    choices: list[dict[str, Any]] = []
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Vector(BaseModel):
    embedding: list[float]


class _Vectors(BaseModel):
    data: list[_Vector]
    model: str | None = None
    usage: _Usage | None = None


class _Prices(BaseModel):
    """OpenRouter's: US dollars a token."""

    prompt: float | None = None
    completion: float | None = None


class _Model(BaseModel):
    id: str
    created: int | None = 0
    owned_by: str | None = ""
    pricing: _Prices | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Tokens(BaseModel):
    tokens: list[Any]


class OpenAICompatible:
    """One server, one key, one client. `base_url` ends in `/v1`."""

    parameters = PARAMETERS

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        key: str,
        model: str,
        temperature: float,
        max_tokens: int,
        timeout: float,
        window: int = 8_192,
        needs_examples: bool = False,
        headers: Mapping[str, str] | None = None,
        length_parameter: str = "max_tokens",
        tokenizer_path: str = "",
        outbound: Outbound | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.timeout = timeout
        self.window = window
        self.needs_examples = needs_examples
        self._base_url = base_url
        self._key = key
        self._headers = dict(headers or {})
        self._length_parameter = length_parameter
        self._tokenizer_path = tokenizer_path
        self._outbound = outbound
        self._client: _Client | None = None

    @property
    def address(self) -> tuple[str, str]:
        return self._base_url, hashlib.sha256(self._key.encode()).hexdigest()

    async def open(self) -> None:
        self._client = _Client(
            base_url=self._base_url,
            # An empty key would make the SDK look for one in the environment, which is another server's.
            api_key=self._key or "none",
            default_headers=self._headers | _NOT_OURS,
            max_retries=0,
            timeout=openai.Timeout(self.timeout, connect=CONNECT_TIMEOUT),
            http_client=SDKClient(self._outbound),
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        answer = await self._ask("/chat/completions", self._body(request), self.timeout)
        with self._errors():
            completion = _Completion.model_validate_json(answer)
        choices = [choice.model_dump(exclude_unset=True) for choice in completion.choices]
        return checked(ChatReply(choices, completion.model or request.model, _usage(completion.usage) or Usage()))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Raises ProviderError."""
        body = self._body(request) | {"stream": True, "stream_options": {"include_usage": True}}
        with self._errors():
            async with asyncio.timeout(self.timeout):
                answer = await self._open_client.open_stream("/chat/completions", body)
            try:
                async for data in server_sent_events(answer):
                    if data == b"[DONE]":
                        return
                    yield self._piece(data, request.model)
            finally:
                answer.release()
        raise ProviderBadAnswer(f"{self.name}: the stream broke off before its end")

    async def embed(self, texts: Sequence[str], model: str) -> Embeddings:
        """Raises ProviderError."""
        body = {"input": list(texts), "model": model, "encoding_format": "float"}
        answer = await self._ask("/embeddings", body, self.timeout)
        with self._errors():
            made = _Vectors.model_validate_json(answer)
        if len(made.data) != len(texts):
            raise ProviderBadAnswer(f"{self.name}: {len(made.data)} embeddings of {len(texts)} texts")
        return Embeddings([item.embedding for item in made.data], made.model or model, _usage(made.usage) or Usage())

    async def models(self) -> list[ModelInfo]:
        """Raises ProviderError."""
        answer = await self._ask("/models", None, PROBE_TIMEOUT)
        with self._errors():
            listed = _Models.model_validate_json(answer).data
        return [_info(model) for model in listed]

    async def check(self) -> None:
        """Raises ProviderError."""
        await self.models()

    async def count_tokens(self, text: str) -> int | None:
        """Raises ProviderError."""
        if not self._tokenizer_path:
            return None
        # Beside /v1, as llama.cpp has it.
        url = self._base_url.removesuffix("/v1") + self._tokenizer_path
        answer = await self._ask(url, {"content": text}, PROBE_TIMEOUT)
        with self._errors():
            return len(_Tokens.model_validate_json(answer).tokens)

    @property
    def _open_client(self) -> _Client:
        if self._client is None:
            raise ProviderUnreachable(f"{self.name} is not open")
        return self._client

    async def _ask(self, path: str, body: dict[str, Any] | None, limit: float) -> bytes:
        """The body of the answer to a POST, or to a GET without a body, within `limit` seconds."""
        with self._errors():
            async with asyncio.timeout(limit):
                return await self._open_client.ask(path, body)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        parameters = dict(request.parameters)
        if self._length_parameter != "max_tokens" and "max_tokens" in parameters:
            parameters[self._length_parameter] = parameters.pop("max_tokens")
        return {"messages": request.messages, "model": request.model} | parameters

    def _piece(self, data: bytes, model: str) -> Chunk:
        piece = _Piece.model_validate_json(data)
        if piece.error is not None:
            raise ProviderBadAnswer(f"{self.name}: the stream ended in an error")
        return Chunk(piece.choices, piece.model or model, _usage(piece.usage))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The SDK's errors become ours here and nowhere else."""
        try:
            yield
        except (TimeoutError, UnfitAnswer, openai.APIConnectionError, httpx2.HTTPError) as error:
            raise connection_error(self.name, error) from error
        except openai.APIStatusError as error:
            said = f"{error.code} {error.type} {error.message}"
            wait = error.response.headers.get("Retry-After")
            raise status_error(
                self.name, error.status_code, said, retry_after=wait, param=_param(error.param)
            ) from error
        except (openai.OpenAIError, ValidationError, TypeError, ValueError) as error:
            raise ProviderBadAnswer(f"{self.name}: an answer that is none") from error


def _param(said: object) -> str | None:
    """The name of OpenAI's that a server complains of (`messages[0].content`); nothing else that it may say."""
    name = re.split(r"[.\[]", str(said))[0]
    return name if name in _NAMES else None


def _usage(usage: _Usage | None) -> Usage | None:
    return Usage(usage.prompt_tokens, usage.completion_tokens) if usage else None


def _info(model: _Model) -> ModelInfo:
    prices = model.pricing or _Prices()
    return ModelInfo(
        model.id,
        model.created or 0,
        model.owned_by or "",
        None if prices.prompt is None else prices.prompt * 1e6,
        None if prices.completion is None else prices.completion * 1e6,
    )
