"""Asks the providers in order until one answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from config import Settings
from providers.base import ChatRequest, Provider, ProviderError
from providers.breaker import Breaker, Rule, State
from providers.catalog import make_provider
from providers.resilient import BreakerOpen, Resilient
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
    """No provider answered; `reason` names each one's failure."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AIService:
    """The providers of the service, opened once: `AI_PROVIDER`, then `AI_FALLBACKS`.

    Those that ask the same server with the same key share a breaker.
    """

    def __init__(self, providers: list[Provider], settings: Settings, metrics: Metrics, log: Log) -> None:
        self._rule = Rule(settings.breaker_failures, settings.breaker_open_seconds)
        self._metrics = metrics
        self._log = log
        self._breakers: dict[tuple[str, str, str], Breaker] = {}
        self.chain = [Resilient(provider, self._breaker(provider), self._note_attempt) for provider in providers]

    @property
    def providers(self) -> list[Provider]:
        return [link.provider for link in self.chain]

    async def open(self) -> None:
        for provider in self.providers:
            await provider.open()

    async def close(self) -> None:
        await asyncio.gather(*(provider.close() for provider in self.providers))

    async def answer(self, prompt: Prompt, seconds: float) -> Answer:
        """The first provider's answer within `seconds` over all of them. Raises NoAnswer."""
        deadline = time.monotonic() + seconds
        failures: list[str] = []
        for link in self.chain:
            provider = link.provider
            parameters = {"temperature": provider.temperature, "max_tokens": provider.max_tokens}
            messages = prompt.messages(examples=provider.needs_examples)
            try:
                reply = await link.chat(ChatRequest(messages, provider.model, parameters), deadline - time.monotonic())
            except ProviderError as error:
                failures.append(f"{provider.name}: {error.reason}")
                # What is passed over while its breaker is open was told when that opened.
                write = self._log.info if isinstance(error, BreakerOpen) else self._log.error
                write("provider.failed", f"{error}", provider=provider.name, result=error.reason)
            else:
                usage = reply.usage.prompt_tokens, reply.usage.completion_tokens
                return Answer(reply.text, provider.name, reply.model, *usage, ", ".join(failures) or None)
        raise NoAnswer(", ".join(failures))

    def _breaker(self, provider: Provider) -> Breaker:
        key = (provider.name, *provider.address)
        if key not in self._breakers:
            self._metrics.provider_breaker.labels(provider.name).state(State.CLOSED)
            self._breakers[key] = Breaker(self._rule, lambda state: self._note_breaker(provider.name, state))
        return self._breakers[key]

    def _note_attempt(self, provider: Provider, result: str, seconds: float) -> None:
        self._metrics.provider.labels(provider.name, result).observe(seconds)

    def _note_breaker(self, name: str, state: State) -> None:
        self._metrics.provider_breaker.labels(name).state(state)
        if state is State.OPEN:
            message = (
                f"{name} keeps failing and is not asked for {self._rule.open_seconds:g} s; fallbacks or canned texts "
                "answer. The lines provider.failed before this one say why."
            )
            self._log.error("provider.away", message, provider=name, result="ERROR")
        elif state is State.CLOSED:
            self._log.system("provider.back", f"{name} answers again", provider=name, result="SUCCESS")


def make_providers(settings: Settings) -> list[Provider]:
    """`AI_PROVIDER` and the `provider/model` pairs of `AI_FALLBACKS`. Raises ValueError for one that cannot be made."""
    chain = [make_provider(settings.ai_provider, settings.ai_model, settings)]
    for entry in settings.ai_fallbacks:
        name, _, model = entry.partition("/")
        chain.append(make_provider(name, model, settings))
    return chain
