"""Any server that speaks OpenAI's API, by the openai SDK.

The SDK is built on httpx2, whose errors it wraps in its own; it reads no environment variable of ours here, and its
own retries are off, because attempts would multiply with ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

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
            http_client=openai.DefaultAsyncHttpx2Client(trust_env=False, follow_redirects=False),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ProviderError."""
        messages: list[ChatCompletionMessageParam] = request.wire_messages()  # type: ignore[assignment]
        async with self._call(self.timeout) as client:
            completion = await client.chat.completions.create(
                messages=messages,
                model=request.model,
                temperature=request.temperature,
                max_tokens=request.max_tokens,
            )
            # HTML with status 200 comes out of the SDK as a plain text.
            choices = getattr(completion, "choices", None)
            if not choices:
                raise ProviderBadAnswer("the answer has no choices")
            usage = completion.usage
            return checked_reply(
                choices[0].message.content,
                completion.model or request.model,
                usage.prompt_tokens if usage else None,
                usage.completion_tokens if usage else None,
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
            ours = next(target for source, target in _ERRORS if isinstance(error, source))
            raise ours(f"{self.name}: {type(error).__name__}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise ProviderBadAnswer(f"{self.name}: an answer that is no completion") from error
