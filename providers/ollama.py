"""An Ollama server, by the ollama SDK.

Left alone, the SDK has no timeout, follows redirects and sends OLLAMA_API_KEY to whatever host it is given.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import ollama

from config import DEFAULT_TEMPERATURE, PROBE_TIMEOUT, Settings
from providers.base import (
    ChatReply,
    ChatRequest,
    ProviderBadAnswer,
    ProviderBadRequest,
    ProviderError,
    ProviderRateLimited,
    ProviderRefusedKey,
    ProviderTimeout,
    ProviderUnreachable,
    checked_reply,
)
from providers.http import httpx_options, timed_out

_STATUS: dict[int, type[ProviderError]] = {
    401: ProviderRefusedKey,
    403: ProviderRefusedKey,
    429: ProviderRateLimited,
}


async def _drop_key(request: httpx.Request) -> None:
    """Keep the SDK from sending a key of the environment to this host."""
    request.headers.pop("Authorization", None)


class Ollama:
    """One Ollama server."""

    name = "ollama"
    needs_examples = False

    def __init__(self, settings: Settings, model: str) -> None:
        self.model = model
        choices = (settings.ollama_temperature, settings.ai_temperature, DEFAULT_TEMPERATURE)
        self.temperature = next(choice for choice in choices if choice is not None)
        self.max_tokens = settings.ollama_max_tokens or settings.ai_max_tokens
        self.timeout = settings.ollama_timeout
        scheme = "https" if settings.ollama_use_tls else "http"
        self._url = f"{scheme}://{settings.ollama_host}:{settings.ollama_port}"
        self._verify: ssl.SSLContext | bool = settings.ollama_verify_ssl
        if settings.ollama_use_tls and settings.ollama_verify_ssl and settings.ollama_cert_path:
            self._verify = ssl.create_default_context(cafile=settings.ollama_cert_path)
        self._client: ollama.AsyncClient | None = None

    async def open(self) -> None:
        self._client = ollama.AsyncClient(
            host=self._url,
            event_hooks={"request": [_drop_key]},
            **httpx_options(self.timeout, self._verify),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        options = {"temperature": request.temperature, "num_predict": request.max_tokens}
        async with self._call(self.timeout) as client:
            answer = await client.chat(model=request.model, messages=request.wire_messages(), options=options)
            return checked_reply(
                answer.message.content, answer.model or request.model, answer.prompt_eval_count, answer.eval_count
            )

    async def check(self) -> None:
        """Raises ProviderError."""
        async with self._call(PROBE_TIMEOUT) as client:
            await client.list()

    @asynccontextmanager
    async def _call(self, seconds: float) -> AsyncIterator[ollama.AsyncClient]:
        """The client, for one call of at most `seconds`; the SDK's errors become ours here and nowhere else."""
        if self._client is None:
            raise ProviderUnreachable("ollama is not open")
        try:
            async with asyncio.timeout(seconds):
                yield self._client
        except (TimeoutError, ConnectionError, httpx.TransportError) as error:
            if timed_out(error):
                raise ProviderTimeout(f"ollama gave no answer within {seconds:g} s") from error
            raise ProviderUnreachable(f"ollama: {type(error).__name__}") from error
        except ollama.ResponseError as error:
            own_fault = 400 <= error.status_code < 500
            ours = _STATUS.get(error.status_code, ProviderBadRequest) if own_fault else ProviderBadAnswer
            raise ours(f"ollama: status {error.status_code}") from error
        except ValueError as error:
            raise ProviderBadAnswer("ollama: an answer that is no chat reply") from error
