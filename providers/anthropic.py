"""Anthropic's Messages API, by the anthropic SDK, in OpenAI's terms (docs.anthropic.com/en/api/messages).

The SDK's methods are not used, as in `openai_compatible`. It would read keys, headers and tracing from the environment
where nothing is given; all are given.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import jiter
from pydantic import BaseModel, ValidationError

from config import CONNECT_TIMEOUT, DEFAULT_TEMPERATURE, PROBE_TIMEOUT, Settings
from providers.base import (
    ChatReply,
    ChatRequest,
    Chunk,
    Embeddings,
    Message,
    ModelInfo,
    ProviderBadAnswer,
    ProviderBadRequest,
    ProviderContentRefused,
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

_FINISH = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}
_CHOICE = {"auto": "auto", "required": "any", "none": "none"}


_NOT_OURS: Any = {name: anthropic.Omit() for name in MACHINE_HEADERS}


class _Client(Straight, anthropic.AsyncAnthropic):
    pass


class _Block(BaseModel):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}


class _Tokens(BaseModel):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Answer(BaseModel):
    content: list[_Block]
    model: str | None = None
    stop_reason: str | None = None
    usage: _Tokens = _Tokens()


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class Anthropic:
    """One server, one key, one client."""

    name = "anthropic"
    needs_examples = False
    parameters = frozenset({"temperature", "top_p", "max_tokens", "stop", "tools", "tool_choice"})

    def __init__(self, settings: Settings, outbound: Outbound | None = None) -> None:
        self.model = ""
        self._outbound = outbound
        self.temperature = DEFAULT_TEMPERATURE if settings.ai_temperature is None else settings.ai_temperature
        self.max_tokens = settings.ai_max_tokens
        self.timeout = settings.request_timeout
        self.window = settings.ai_context_tokens or 200_000  # docs.anthropic.com, "Context windows"
        self._base_url = settings.anthropic_base_url
        self._key = settings.anthropic_api_key.get_secret_value()
        self._client: _Client | None = None

    @property
    def address(self) -> tuple[str, str]:
        return self._base_url, hashlib.sha256(self._key.encode()).hexdigest()

    async def open(self) -> None:
        self._client = _Client(
            base_url=self._base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=anthropic.Timeout(self.timeout, connect=CONNECT_TIMEOUT),
            http_client=SDKClient(self._outbound),
            default_headers=_NOT_OURS,
            open_telemetry=False,
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        raw = await self._ask("/v1/messages", self._body(request), self.timeout)
        with self._errors():
            answer = _Answer.model_validate_json(raw)
        if answer.stop_reason == "refusal":
            raise ProviderContentRefused(f"{self.name}: the model refused", "messages")
        calls = [_tool_call(block) for block in answer.content if block.type == "tool_use"]
        text = "".join(block.text for block in answer.content if block.type == "text")
        message = {"role": "assistant", "content": text or None} | ({"tool_calls": calls} if calls else {})
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer.stop_reason)}
        usage = Usage(answer.usage.input_tokens, answer.usage.output_tokens)
        return checked(ChatReply([choice], answer.model or request.model, usage))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Raises ProviderError."""
        with self._errors():
            async with asyncio.timeout(self.timeout):
                body = self._body(request) | {"stream": True}
                answer = await self._open_client.open_stream("/v1/messages", body)
            try:
                reading = _Reading(request.model)
                async for data in server_sent_events(answer):
                    for chunk in reading.take(jiter.from_json(data)):
                        yield chunk
                    if reading.ended:
                        return
            finally:
                answer.release()
        raise ProviderBadAnswer(f"{self.name}: the stream broke off before its end")

    async def embed(self, texts: Sequence[str], model: str) -> Embeddings:
        """Raises ProviderBadRequest: Anthropic makes no embeddings."""
        raise ProviderBadRequest(f"{self.name} makes no embeddings of {len(texts)} texts with {model}", "model")

    async def models(self) -> list[ModelInfo]:
        """Raises ProviderError."""
        raw = await self._ask("/v1/models?limit=1000", None, PROBE_TIMEOUT)
        with self._errors():
            return [ModelInfo(model.id, owner="anthropic") for model in _Models.model_validate_json(raw).data]

    async def check(self) -> None:
        """Raises ProviderError."""
        await self.models()

    async def count_tokens(self, text: str) -> int | None:
        """Raises ProviderError."""
        body = {"model": self.model, "messages": [{"role": "user", "content": text}]}
        raw = await self._ask("/v1/messages/count_tokens", body, PROBE_TIMEOUT)
        with self._errors():
            return _Tokens.model_validate_json(raw).input_tokens

    @property
    def _open_client(self) -> _Client:
        if self._client is None:
            raise ProviderUnreachable(f"{self.name} is not open")
        return self._client

    async def _ask(self, path: str, body: dict[str, Any] | None, limit: float) -> bytes:
        with self._errors():
            async with asyncio.timeout(limit):
                return await self._open_client.ask(path, body)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        given = request.parameters
        system = "\n\n".join(_text(message) for message in request.messages if message["role"] == "system")
        stop = given.get("stop")
        body = {
            "model": request.model,
            "max_tokens": given.get("max_tokens") or self.max_tokens,
            "messages": [_message(message) for message in request.messages if message["role"] != "system"],
            "system": system or None,
            "temperature": min(given["temperature"], 1.0) if "temperature" in given else None,
            "top_p": given.get("top_p"),
            "stop_sequences": [stop] if isinstance(stop, str) else stop,
            "tools": [_tool(tool["function"]) for tool in given.get("tools") or []] or None,
            "tool_choice": _tool_choice(given["tool_choice"]) if given.get("tool_choice") else None,
        }
        return {name: value for name, value in body.items() if value is not None}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The SDK's errors become ours here and nowhere else."""
        try:
            yield
        except (TimeoutError, UnfitAnswer, anthropic.APIConnectionError, httpx2.HTTPError) as error:
            raise connection_error(self.name, error) from error
        except anthropic.APIStatusError as error:
            wait = error.response.headers.get("Retry-After")
            raise status_error(self.name, error.status_code, error.message, retry_after=wait) from error
        except (anthropic.AnthropicError, ValidationError, KeyError, TypeError, ValueError) as error:
            raise ProviderBadAnswer(f"{self.name}: an answer that is none") from error


class _Reading:
    """Turns the events of a stream into OpenAI's chunks (docs.anthropic.com/en/docs/build-with-claude/streaming)."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._prompt_tokens: int | None = None
        self._tools: dict[int, int] = {}  # the number of a tool call by that of its block
        self.ended = False

    def take(self, event: Any) -> Iterator[Chunk]:
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
            self._model = message.get("model") or self._model
            self._prompt_tokens = message.get("usage", {}).get("input_tokens")
            yield self._chunk({"role": "assistant", "content": ""})
        elif kind == "content_block_start" and event["content_block"]["type"] == "tool_use":
            number = self._tools[event["index"]] = len(self._tools)
            block = event["content_block"]
            function = {"name": block["name"], "arguments": ""}
            yield self._chunk(
                {"tool_calls": [{"index": number, "id": block["id"], "type": "function", "function": function}]}
            )
        elif kind == "content_block_delta":
            yield from self._delta(event["index"], event["delta"])
        elif kind == "message_delta":
            usage = Usage(self._prompt_tokens, event.get("usage", {}).get("output_tokens"))
            yield self._chunk({}, _finish(event["delta"].get("stop_reason")), usage)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            raise ProviderBadAnswer("anthropic: the stream ended in an error")

    def _delta(self, index: int, delta: Any) -> Iterator[Chunk]:
        if delta["type"] == "text_delta":
            yield self._chunk({"content": delta["text"]})
        elif delta["type"] == "input_json_delta":
            function = {"arguments": delta["partial_json"]}
            yield self._chunk({"tool_calls": [{"index": self._tools[index], "function": function}]})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, usage: Usage | None = None) -> Chunk:
        return Chunk([{"index": 0, "delta": delta, "finish_reason": finish}], self._model, usage)


def _finish(stop_reason: str | None) -> str:
    return _FINISH.get(stop_reason or "", "stop")


def _text(message: Message) -> str:
    """What a message says; of several parts those of text."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _message(message: Message) -> dict[str, Any]:
    """A message of the user, the model or a tool as Anthropic has it."""
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": _text(message)}
        return {"role": "user", "content": [result]}
    calls = message.get("tool_calls") or []
    if not calls:
        return {"role": message["role"], "content": _text(message)}
    text = _text(message)
    said = [{"type": "text", "text": text}] if text else []
    return {"role": "assistant", "content": [*said, *(_tool_use(call) for call in calls)]}


def _tool_use(call: Any) -> dict[str, Any]:
    arguments = json.loads(call["function"]["arguments"] or "{}")
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments}


def _tool_call(block: _Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": json.dumps(block.input)}
    return {"id": block.id, "type": "function", "function": function}


def _tool(function: Any) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function["name"], "description": function.get("description", ""), "input_schema": schema}


def _tool_choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"type": _CHOICE[choice]}
    return {"type": "tool", "name": choice["function"]["name"]}
