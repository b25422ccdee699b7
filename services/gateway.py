"""Completions and embeddings for any OpenAI client: which providers may answer, in which order, and their models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

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
    Usage,
)
from providers.resilient import Resilient
from services.ai_service import AIService, NoAnswer, length
from services.chains import Choice
from services.ledger import NOBODY, Account, Call
from services.logs import Log
from services.tasks import Tasks

AUTO = "auto"
WHOLE_SECONDS = 300.0
MODELS_SECONDS = 3600.0
DOWN_SECONDS = 30.0


class UnknownModel(Exception):
    """No provider of this service has a model of that name."""


@dataclass(frozen=True)
class Completion:
    """What a client asks for, and of whom; `model` is `auto`, a model's name, or `provider/model`."""

    messages: Sequence[Message]
    chain: Sequence[Choice]
    model: str = AUTO
    parameters: Mapping[str, Any] = field(default_factory=dict)
    account: Account = NOBODY
    priced: bool = False  # only of models whose price is known, since there is a budget in money


@dataclass(frozen=True)
class Listed:
    """The models of a provider as last heard, and whether it answered when last asked."""

    provider: str
    models: Sequence[ModelInfo] = ()
    up: bool = False
    at: float = 0.0


class Gateway:
    """Models for callers that bring their own prompts."""

    def __init__(self, ai: AIService, tasks: Tasks, log: Log) -> None:
        self._ai = ai
        self._tasks = tasks
        self._log = log
        self._lists: WeakKeyDictionary[Resilient, Listed] = WeakKeyDictionary()
        self._listing: dict[Resilient, asyncio.Task[None]] = {}

    async def complete(self, asked: Completion, *, shared: bool = False) -> ChatReply:
        """The first provider's reply; `shared` as `AIService.ask` has it. Raises UnknownModel, ProviderError."""
        able = await self._able(asked)
        asks = [(link, ChatRequest(asked.messages, model, asked.parameters)) for link, model in able]
        try:
            _, reply, _ = await self._ai.first(asks, WHOLE_SECONDS, asked.account, shared=shared)
        except NoAnswer as failed:
            raise _worst([error for _, error in failed.errors]) from failed
        return reply

    async def stream(self, asked: Completion) -> AsyncGenerator[Chunk, None]:
        """The first provider's reply in pieces; the next one is asked only while nothing was said.

        Raises UnknownModel, ProviderError.
        """
        errors: list[ProviderError] = []
        for link, model in await self._able(asked):
            said = _Said(link, model, asked)
            pieces = link.stream(ChatRequest(asked.messages, model, asked.parameters), WHOLE_SECONDS)
            try:
                async for chunk in pieces:
                    for ready in said.take(chunk):
                        yield ready
                if said.first_token is None:
                    raise ProviderBadAnswer(f"{link.provider.name}: the model gave no text")
                if said.usage.estimated:
                    yield Chunk([], said.model, said.usage)
                self._ai.ledger.note(said.call())
                return
            except ProviderError as error:
                errors.append(error)
                self._ai.note_error(link, model, error, said.seconds, account=asked.account)
                if said.first_token is not None:
                    raise
            except (GeneratorExit, asyncio.CancelledError):
                self._ai.ledger.note(replace(said.call(), result="cancelled"))
                raise
            finally:
                await pieces.aclose()
        raise _worst(errors)

    async def embed(
        self, texts: list[str], model: str, chain: Sequence[Choice], account: Account, *, priced: bool = False
    ) -> Embeddings:
        """`priced` as `Completion` has it. Raises UnknownModel, ProviderError."""
        errors: list[ProviderError] = []
        for link, name in await self._named(model, chain, priced=priced):
            began = time.monotonic()
            try:
                made = await link.embed(texts, name, link.provider.timeout)
            except ProviderError as error:
                errors.append(error)
                self._ai.note_error(link, name, error, time.monotonic() - began, kind="embedding", account=account)
            else:
                usage = replace(made.usage, completion_tokens=0).counted(sum(map(len, texts)), 0)
                took = time.monotonic() - began
                call = Call(link.provider.name, made.model, "ok", took, usage, kind="embedding", account=account)
                self._ai.ledger.note(replace(call, asked=name, own=link.own))
                return replace(made, usage=usage)
        raise _worst(errors)

    async def models(self, chain: Sequence[Choice]) -> list[Listed]:
        """The models of each provider, at most an hour old; older ones are told while they are asked for again."""
        return [await self._list(link) for link in _links(chain)]

    async def _able(self, asked: Completion) -> list[tuple[Resilient, str]]:
        """Those that may answer and take all parameters. Raises UnknownModel, ProviderBadRequest."""
        named = await self._named(asked.model, asked.chain, priced=asked.priced)
        able = [(link, model) for link, model in named if asked.parameters.keys() <= link.provider.parameters]
        if not able:
            [refused, *_] = sorted(asked.parameters.keys() - named[0][0].provider.parameters)
            raise ProviderBadRequest(f"{named[0][0].provider.name} does not take this parameter", refused)
        return able

    async def _named(self, model: str, chain: Sequence[Choice], *, priced: bool) -> list[tuple[Resilient, str]]:
        """Those of that name, with the model to ask each for. Raises UnknownModel, ProviderBadRequest."""
        found = await self._find(model, chain)
        if not priced:
            return found
        known = [(link, name) for link, name in found if self._ai.ledger.has_price(link.provider.name, name)]
        if not known:
            raise ProviderBadRequest("its price is not known, and there is a budget in money", "model")
        return known

    async def _find(self, model: str, chain: Sequence[Choice]) -> list[tuple[Resilient, str]]:
        if model == AUTO:
            return [(choice.link, choice.model) for choice in chain]
        provider, _, rest = model.partition("/")
        found = [(link, rest) for link in _links(chain) if link.provider.name == provider and rest]
        found = found or [(choice.link, model) for choice in chain if choice.model == model]
        if not found:
            for link in _links(chain):
                listed = await self._list(link)
                found += [(link, model)] if any(info.id == model for info in listed.models) else []
        if not found:
            raise UnknownModel(model)
        return found

    async def _list(self, link: Resilient) -> Listed:
        known = self._lists.get(link)
        if known is None or time.monotonic() - known.at > (MODELS_SECONDS if known.up else DOWN_SECONDS):
            if link not in self._listing:
                name = f"list the models of {link.provider.name}"
                self._listing[link] = self._tasks.spawn(self._ask_for_list(link), name)
            if known is None:
                await asyncio.wait([self._listing[link]])
        return self._lists.get(link, Listed(link.provider.name))

    async def _ask_for_list(self, link: Resilient) -> None:
        name = link.provider.name
        known = self._lists.get(link, Listed(name))
        try:
            self._lists[link] = Listed(name, await link.provider.models(), up=True, at=time.monotonic())
        except ProviderError as error:
            self._log.error("provider.no_list", f"{error}", provider=name, result=error.reason)
            self._lists[link] = replace(known, up=False, at=time.monotonic())
        finally:
            del self._listing[link]


class _Said:
    """What a stream has said so far; nothing is passed on before its first word."""

    def __init__(self, link: Resilient, model: str, asked: Completion) -> None:
        self.model = model
        self.first_token: float | None = None
        self._provider = link.provider.name
        self._own = link.own
        self._asked = length(asked.messages)
        self._account = asked.account
        self._wanted = model
        self._answered = 0
        self._usage = Usage()
        self._held: list[Chunk] = []
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def usage(self) -> Usage:
        return self._usage.counted(self._asked, self._answered)

    def take(self, chunk: Chunk) -> list[Chunk]:
        """What may be passed on now."""
        self.model, self._usage = chunk.model, chunk.usage or self._usage
        self._answered += sum(len(choice["delta"].get("content") or "") for choice in chunk.choices)
        if self.first_token is not None:
            return [chunk]
        self._held.append(chunk)
        if not _speaks(chunk):
            return []
        self.first_token = self.seconds
        return self._held

    def call(self) -> Call:
        said = self.seconds, self.usage
        call = Call(self._provider, self.model, "ok", *said, first_token=self.first_token, account=self._account)
        return replace(call, asked=self._wanted, own=self._own)


def _links(chain: Sequence[Choice]) -> list[Resilient]:
    """One for each provider of a chain."""
    return list(dict.fromkeys(choice.link for choice in chain))


def _speaks(chunk: Chunk) -> bool:
    """Whether something of it is for the reader."""
    return any(choice["delta"].get("content") or choice["delta"].get("tool_calls") for choice in chunk.choices)


def _worst(errors: list[ProviderError]) -> ProviderError:
    """What to tell the caller: what is wrong with the request, else what happened last."""
    return next((error for error in errors if isinstance(error, ProviderBadRequest)), errors[-1])
