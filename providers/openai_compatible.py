"""Any server that speaks OpenAI's API, by the openai SDK.

The SDK is built on httpx2, whose errors it wraps in its own; it reads no environment variable of ours here, and its
own retries are off, because attempts would multiply with ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import openai
from pydantic import BaseModel, Field

from config import CONNECT_TIMEOUT, PROBE_TIMEOUT
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
from providers.http import httpx2_client, timed_out

# Most specific first: a timeout is a connection error too, and every status error an API error.
_ERRORS: tuple[tuple[type[openai.OpenAIError], type[ProviderError]], ...] = (
    (openai.APITimeoutError, ProviderTimeout),
    (openai.APIConnectionError, ProviderUnreachable),
    (openai.RateLimitError, ProviderRateLimited),
    (openai.AuthenticationError, ProviderRefusedKey),
    (openai.PermissionDeniedError, ProviderRefusedKey),
    (openai.InternalServerError, ProviderBadAnswer),
    (openai.APIStatusError, ProviderBadRequest),
    (openai.OpenAIError, ProviderBadAnswer),
)


# The SDK would send what OPENAI_ORG_ID and OPENAI_PROJECT_ID hold to any server.
_NOT_OURS: dict[str, Any] = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What is used of a completion (platform.openai.com/docs/api-reference/chat/object)."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    model: str | None = None
    usage: _Usage = _Usage()


class OpenAICompatible:
    """One server, one key, one client. `base_url` ends in `/v1`."""

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
        needs_examples: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.timeout = timeout
        self.needs_examples = needs_examples
        self._base_url = base_url
        self._key = key
        self._client: openai.AsyncOpenAI | None = None

    async def open(self) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=self._base_url,
            # An empty key would make the SDK look for one in the environment, which is another server's.
            api_key=self._key or "none",
            default_headers=_NOT_OURS,
            max_retries=0,
            timeout=openai.Timeout(self.timeout, connect=CONNECT_TIMEOUT),
            http_client=httpx2_client(),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        body = {
            "messages": request.wire_messages(),
            "model": request.model,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        async with self._call(self.timeout) as client:
            # By the SDK's way for what it has no method for, since its own method takes a millisecond to look
            # through the messages, and its answer is not checked.
            answer = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            completion = _Completion.model_validate_json(answer.content)
        usage = completion.usage
        return checked_reply(
            completion.choices[0].message.content,
            completion.model or request.model,
            usage.prompt_tokens,
            usage.completion_tokens,
        )

    async def check(self) -> None:
        """Raises ProviderError."""
        async with self._call(PROBE_TIMEOUT) as client:
            await client.models.list()

    @asynccontextmanager
    async def _call(self, seconds: float) -> AsyncIterator[openai.AsyncOpenAI]:
        """The client, for one call of at most `seconds`; the SDK's errors become ours here and nowhere else."""
        if self._client is None:
            raise ProviderUnreachable(f"{self.name} is not open")
        try:
            async with asyncio.timeout(seconds):
                yield self._client
        except TimeoutError as error:
            raise ProviderTimeout(f"{self.name} gave no answer within {seconds:g} s") from error
        except openai.OpenAIError as error:
            if isinstance(error, openai.APITimeoutError) and not timed_out(error):
                raise ProviderUnreachable(f"{self.name}: the connection was refused or broke") from error
            ours = next(target for source, target in _ERRORS if isinstance(error, source))
            raise ours(f"{self.name}: {type(error).__name__}") from error
        except (TypeError, ValueError) as error:
            raise ProviderBadAnswer(f"{self.name}: an answer that is no completion") from error
