"""Asks the providers in order until one answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from config import Settings
from providers.base import ChatReply, ChatRequest, Provider, ProviderError, ProviderTimeout
from providers.catalog import make_provider
from services.logs import Log
from services.metrics import Metrics
from services.prompts import Prompt


@dataclass(frozen=True)
class Answer:
    """A model's text, who gave it, and why those before it did not."""

    text: str
    provider: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    passed_over: str | None


class NoAnswer(Exception):
    """No provider answered; `reason` names the last one's failure."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AIService:
    """The providers of the service, opened once: `AI_PROVIDER`, then `AI_FALLBACKS`."""

    def __init__(self, providers: list[Provider], metrics: Metrics, log: Log) -> None:
        self.providers = providers
        self._metrics = metrics
        self._log = log

    async def open(self) -> None:
        for provider in self.providers:
            await provider.open()

    async def close(self) -> None:
        await asyncio.gather(*(provider.close() for provider in self.providers))

    async def answer(self, prompt: Prompt, seconds: float) -> Answer:
        """The first provider's answer within `seconds` over all of them. Raises NoAnswer."""
        deadline = time.monotonic() + seconds
        failures: list[str] = []
        for provider in self.providers:
            try:
                reply = await self._ask(provider, prompt, deadline - time.monotonic())
            except ProviderError as error:
                failures.append(f"{provider.name}: {error.reason}")
                self._log.error("provider.failed", f"{error}", provider=provider.name, result=error.reason)
            else:
                passed_over = ", ".join(failures) or None
                tokens = reply.prompt_tokens, reply.completion_tokens
                return Answer(reply.text, provider.name, reply.model, *tokens, passed_over)
        raise NoAnswer(", ".join(failures))

    async def _ask(self, provider: Provider, prompt: Prompt, seconds: float) -> ChatReply:
        """One call, timed and counted. Raises ProviderError."""
        messages = prompt.messages(examples=provider.needs_examples)
        request = ChatRequest(messages, provider.model, provider.temperature, provider.max_tokens)
        began = time.monotonic()
        result = "cancelled"
        try:
            async with asyncio.timeout(max(seconds, 0)):
                reply = await provider.chat(request)
            result = "ok"
            return reply
        except TimeoutError as error:
            result = ProviderTimeout.reason
            raise ProviderTimeout(f"{provider.name} had {seconds:.1f} s left, too few to answer") from error
        except ProviderError as error:
            result = error.reason
            raise
        finally:
            self._metrics.provider.labels(provider.name, result).observe(time.monotonic() - began)


def make_providers(settings: Settings) -> list[Provider]:
    """`AI_PROVIDER` and the `provider/model` pairs of `AI_FALLBACKS`. Raises ValueError for an unknown name."""
    chain = [make_provider(settings.ai_provider, settings.ai_model, settings)]
    for entry in settings.ai_fallbacks:
        name, _, model = entry.partition("/")
        chain.append(make_provider(name, model, settings))
    return chain
