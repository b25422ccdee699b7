"""An Ollama server, by the ollama SDK, in OpenAI's terms (github.com/ollama/ollama/blob/main/docs/api.md).

Left alone, the SDK has no timeout, follows redirects and sends OLLAMA_API_KEY to whatever host it is given.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama

from config import DEFAULT_TEMPERATURE, PROBE_TIMEOUT, Settings
from providers.base import (
    ChatReply,
    ChatRequest,
    Chunk,
    Embeddings,
    Message,
    ModelInfo,
    ProviderBadAnswer,
    ProviderUnreachable,
    Usage,
    checked,
    status_error,
)
from providers.http import UnfitAnswer, connection_error, httpx_options
from providers.outbound import Outbound

# Ollama's names of OpenAI's parameters, within `options`.
_OPTIONS = {
    "temperature": "temperature",
    "max_tokens": "num_predict",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


async def _drop_key(request: httpx.Request) -> None:
    """Keep the SDK from sending a key of the environment to this host."""
    request.headers.pop("Authorization", None)


class Ollama:
    """One Ollama server."""

    name = "ollama"
    needs_examples = False
    parameters = frozenset({*_OPTIONS, "response_format", "tools"})

    def __init__(self, settings: Settings, outbound: Outbound | None = None) -> None:
        self.model = settings.ollama_model
        self._outbound = outbound
        choices = (settings.ollama_temperature, settings.ai_temperature, DEFAULT_TEMPERATURE)
        self.temperature = next(choice for choice in choices if choice is not None)
        self.max_tokens = settings.ollama_max_tokens or settings.ai_max_tokens
        self.timeout = settings.ollama_timeout
        # What Ollama loads a model with unless it is told otherwise (its FAQ).
        self.window = settings.ai_context_tokens or 4_096
        scheme = "https" if settings.ollama_use_tls else "http"
        self._url = f"{scheme}://{settings.ollama_host}:{settings.ollama_port}"
        self._keep_alive = settings.ollama_keep_alive or None
        self._verify = _verify(settings)
        self._client: ollama.AsyncClient | None = None

    @property
    def address(self) -> tuple[str, str]:
        return self._url, ""

    async def open(self) -> None:
        self._client = ollama.AsyncClient(
            host=self._url,
            event_hooks={"request": [_drop_key]},
            **httpx_options(self.timeout, self._verify, self._outbound),
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()  # type: ignore[no-untyped-call]

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        with self._errors():
            async with asyncio.timeout(self.timeout):
                answer = await self._open_client.chat(**self._arguments(request))
        calls = _tool_calls(answer.message.tool_calls or [])
        message = {"role": "assistant", "content": answer.message.content} | ({"tool_calls": calls} if calls else {})
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer.done_reason, bool(calls))}
        usage = Usage(answer.prompt_eval_count, answer.eval_count)
        return checked(ChatReply([choice], answer.model or request.model, usage))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Raises ProviderError."""
        called = 0
        with self._errors():
            async with asyncio.timeout(self.timeout):
                pieces = await self._open_client.chat(**self._arguments(request), stream=True)
            async for piece in pieces:
                calls = _tool_calls(piece.message.tool_calls or [], called)
                called += len(calls)
                delta = {"content": piece.message.content or ""} | ({"tool_calls": calls} if calls else {})
                finish = _finish(piece.done_reason, called > 0) if piece.done else None
                usage = Usage(piece.prompt_eval_count, piece.eval_count) if piece.done else None
                yield Chunk(
                    [{"index": 0, "delta": delta, "finish_reason": finish}], piece.model or request.model, usage
                )
                if piece.done:
                    return
        raise ProviderBadAnswer(f"{self.name}: the stream broke off before its end")

    async def embed(self, texts: Sequence[str], model: str) -> Embeddings:
        """Raises ProviderError."""
        with self._errors():
            async with asyncio.timeout(self.timeout):
                made = await self._open_client.embed(model=model, input=list(texts))
        if len(made.embeddings) != len(texts):
            raise ProviderBadAnswer(f"{self.name}: {len(made.embeddings)} embeddings of {len(texts)} texts")
        return Embeddings(made.embeddings, made.model or model, Usage(made.prompt_eval_count, 0))

    async def models(self) -> list[ModelInfo]:
        """Raises ProviderError."""
        with self._errors():
            async with asyncio.timeout(PROBE_TIMEOUT):
                listed = (await self._open_client.list()).models
        return [
            ModelInfo(item.model, int(item.modified_at.timestamp()) if item.modified_at else 0, "ollama")
            for item in listed
            if item.model
        ]

    async def check(self) -> None:
        """Raises ProviderError; ProviderNotFound where the model was not pulled."""
        with self._errors():
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._open_client.show(self.model)

    async def count_tokens(self, _text: str) -> int | None:
        """None: Ollama does not say."""
        return None

    @property
    def _open_client(self) -> ollama.AsyncClient:
        if self._client is None:
            raise ProviderUnreachable("ollama is not open")
        return self._client

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        given = request.parameters
        options = {name: given[key] for key, name in _OPTIONS.items() if key in given}
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        arguments = {
            "model": request.model,
            "messages": [_message(message) for message in request.messages],
            "options": options,
            "format": _format(given.get("response_format")),
            "tools": given.get("tools"),
            "keep_alive": self._keep_alive,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The SDK's errors become ours here and nowhere else."""
        try:
            yield
        except (TimeoutError, UnfitAnswer, ConnectionError, httpx.HTTPError) as error:
            raise connection_error(self.name, error) from error
        except ollama.ResponseError as error:
            raise status_error(self.name, error.status_code, error.error) from error
        except (TypeError, ValueError) as error:
            raise ProviderBadAnswer(f"{self.name}: an answer that is none") from error


def _verify(settings: Settings) -> ssl.SSLContext | bool:
    """How the server's certificate is checked. `OLLAMA_CERT_PATH` is its authority, or a client's with its key.

    After the client's the authority may stand in the same file.
    """
    if not settings.ollama_use_tls or not (settings.ollama_cert_path or settings.ollama_verify_ssl):
        return settings.ollama_verify_ssl
    path = settings.ollama_cert_path
    own = bool(path) and "PRIVATE KEY" in Path(path).read_text()
    context = ssl.create_default_context(cafile=path if path and not own else None)
    if own:
        context.load_cert_chain(path)
        context.load_verify_locations(path)
    if not settings.ollama_verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _message(message: Message) -> dict[str, Any]:
    """A message as Ollama has it: text alone, a tool call's arguments as an object."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part.get("text", "") for part in content)
    calls = [
        {
            "function": {
                "name": call["function"]["name"],
                "arguments": json.loads(call["function"]["arguments"] or "{}"),
            }
        }
        for call in message.get("tool_calls") or []
    ]
    return {"role": message["role"], "content": content} | ({"tool_calls": calls} if calls else {})


def _tool_calls(calls: Sequence[ollama.Message.ToolCall], first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "index": number,
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": call.function.name, "arguments": json.dumps(dict(call.function.arguments))},
        }
        for number, call in enumerate(calls, first)
    ]


def _format(response_format: Mapping[str, Any] | None) -> Any:
    """Ollama's `format` for OpenAI's `response_format`."""
    kind = (response_format or {}).get("type")
    if kind == "json_schema" and response_format:
        return response_format["json_schema"]["schema"]
    return "json" if kind == "json_object" else None


def _finish(reason: str | None, calls: bool) -> str:
    return "tool_calls" if calls else "length" if reason == "length" else "stop"
