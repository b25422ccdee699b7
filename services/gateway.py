"""Completions and embeddings for any OpenAI client: which providers may answer, in which order, and their models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from providers.base import (
    ChatReply,
    ChatRequest,
    Chunk,
    Embeddings,
    Message,
    ModelInfo,
    ProviderBadAnswer,
    ProviderBadRequest,
    ProviderError,
)
from providers.resilient import BreakerOpen, Resilient
from services.ai_service import AIService
from services.logs import Log
from services.tasks import Tasks

AUTO = "auto"
STREAM_SECONDS = 300.0
MODELS_SECONDS = 3600.0
DOWN_SECONDS = 30.0


class UnknownModel(Exception):
    """No provider of this service has a model of that name."""


@dataclass(frozen=True)
class Completion:
    """What a client asks for; `model` is `auto`, a model's name, or `provider/model`."""

    messages: Sequence[Message]
    model: str = AUTO
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """The models of a provider as last heard, and whether it answered when last asked."""

    provider: str
    models: Sequence[ModelInfo] = ()
    up: bool = False
    at: float = 0.0


class Gateway:
    """The chain of the service, for callers that bring their own prompts."""

    def __init__(self, ai: AIService, tasks: Tasks, log: Log) -> None:
        self._ai = ai
        self._tasks = tasks
        self._log = log
        self._lists: dict[str, Listed] = {}
        self._listing: dict[str, asyncio.Task[None]] = {}

    async def complete(self, asked: Completion) -> ChatReply:
        """The first provider's reply. Raises UnknownModel, ProviderError."""
        errors: list[ProviderError] = []
        for link, model in await self._able(asked):
            request = ChatRequest(asked.messages, model, asked.parameters)
            try:
                return await link.chat(request, link.provider.timeout)
            except ProviderError as error:
                errors.append(self._note(link, error))
        raise _worst(errors)

    async def stream(self, asked: Completion) -> AsyncGenerator[Chunk, None]:
        """The first provider's reply in pieces; the next one is asked only while nothing was said.

        Raises UnknownModel, ProviderError.
        """
        errors: list[ProviderError] = []
        for link, model in await self._able(asked):
            held: list[Chunk] | None = []  # what came before the first word
            pieces = link.stream(ChatRequest(asked.messages, model, asked.parameters), STREAM_SECONDS)
            try:
                async for chunk in pieces:
                    if held is not None:
                        held.append(chunk)
                        if not _speaks(chunk):
                            continue
                        for early in held:
                            yield early
                        held = None
                    else:
                        yield chunk
                if held is None:
                    return
                errors.append(self._note(link, ProviderBadAnswer(f"{link.provider.name}: the model gave no text")))
            except ProviderError as error:
                errors.append(self._note(link, error))
                if held is None:
                    raise
            finally:
                await pieces.aclose()
        raise _worst(errors)

    async def embed(self, texts: list[str], model: str) -> Embeddings:
        """Raises UnknownModel, ProviderError."""
        errors: list[ProviderError] = []
        for link, name in await self._named(model):
            try:
                return await link.embed(texts, name, link.provider.timeout)
            except ProviderError as error:
                errors.append(self._note(link, error))
        raise _worst(errors)

    async def models(self) -> list[Listed]:
        """The models of each provider, at most an hour old; older ones are told while they are asked for again."""
        return [await self._list(link) for link in self._links]

    @property
    def _links(self) -> list[Resilient]:
        """One for each provider of the chain."""
        return list({link.provider.name: link for link in reversed(self._ai.chain)}.values())[::-1]

    async def _able(self, asked: Completion) -> list[tuple[Resilient, str]]:
        """Those that may answer and take all parameters. Raises UnknownModel, ProviderBadRequest."""
        named = await self._named(asked.model)
        able = [(link, model) for link, model in named if asked.parameters.keys() <= link.provider.parameters]
        if not able:
            [refused, *_] = sorted(asked.parameters.keys() - named[0][0].provider.parameters)
            raise ProviderBadRequest(f"{named[0][0].provider.name} does not take this parameter", refused)
        return able

    async def _named(self, model: str) -> list[tuple[Resilient, str]]:
        """Those of that name, with the model to ask each for. Raises UnknownModel."""
        chain = self._ai.chain
        if model == AUTO:
            return [(link, link.provider.model) for link in chain]
        provider, _, rest = model.partition("/")
        found = [(link, rest) for link in self._links if link.provider.name == provider and rest]
        found = found or [(link, model) for link in chain if link.provider.model == model]
        if not found:
            for link in self._links:
                listed = await self._list(link)
                found += [(link, model)] if any(info.id == model for info in listed.models) else []
        if not found:
            raise UnknownModel(model)
        return found

    async def _list(self, link: Resilient) -> Listed:
        name = link.provider.name
        known = self._lists.get(name)
        if known is None or time.monotonic() - known.at > (MODELS_SECONDS if known.up else DOWN_SECONDS):
            if name not in self._listing:
                self._listing[name] = self._tasks.spawn(self._ask_for_list(link), f"list the models of {name}")
            if known is None:
                await asyncio.wait([self._listing[name]])
        return self._lists.get(name, Listed(name))

    async def _ask_for_list(self, link: Resilient) -> None:
        name = link.provider.name
        known = self._lists.get(name, Listed(name))
        try:
            self._lists[name] = Listed(name, await link.provider.models(), up=True, at=time.monotonic())
        except ProviderError as error:
            self._note(link, error)
            self._lists[name] = replace(known, up=False, at=time.monotonic())
        finally:
            del self._listing[name]

    def _note(self, link: Resilient, error: ProviderError) -> ProviderError:
        if not isinstance(error, ProviderBadRequest | BreakerOpen):
            self._log.error("provider.failed", f"{error}", provider=link.provider.name, result=error.reason)
        return error


def _speaks(chunk: Chunk) -> bool:
    """Whether something of it is for the reader."""
    return any(choice["delta"].get("content") or choice["delta"].get("tool_calls") for choice in chunk.choices)


def _worst(errors: list[ProviderError]) -> ProviderError:
    """What to tell the caller: what is wrong with the request, else what happened last."""
    return next((error for error in errors if isinstance(error, ProviderBadRequest)), errors[-1])
