"""Asks the providers in order until one answers."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from config import Settings
from providers.base import ChatReply, ChatRequest, Message, ProviderBadRequest, ProviderError, ProviderTimeout
from providers.resilient import BreakerOpen, Resilient
from services.chains import Chains, Choice
from services.ledger import NOBODY, UNCOUNTED, Account, Call, Ledger
from services.logs import Log
from services.prompts import Prompt
from services.tokens import Tokens

_FlightKey = tuple[int, UUID | None, bytes]
Failures = list[tuple[str, ProviderError]]
Ask = tuple[Resilient, ChatRequest]


@dataclass(frozen=True)
class Answer:
    """A model's text, who gave it, and why those before it did not."""

    text: str
    provider: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    passed_over: str | None
    messages: tuple[Message, ...]


class NoAnswer(Exception):
    """No provider answered; `errors` are those of each by its name, `reason` names them in a line."""

    def __init__(self, errors: Failures, messages: tuple[Message, ...] = ()) -> None:
        self.errors = errors
        self.messages = messages
        self.reason = _reasons(errors)
        super().__init__(self.reason)


class AIService:
    """Asks those who may answer, and writes down each call."""

    def __init__(self, chains: Chains, settings: Settings, ledger: Ledger, log: Log) -> None:
        self.chains = chains
        self.ledger = ledger
        self._flights: dict[_FlightKey, asyncio.Future[ChatReply]] = {}
        self._tokens = Tokens(log)
        self._hedge_seconds = settings.ai_hedge_seconds
        self._log = log

    async def answer(
        self, prompt: Prompt, chain: Sequence[Choice], seconds: float, account: Account, *, shared: bool = False
    ) -> Answer:
        """The first provider's answer within `seconds` over all of them; `shared` as `ask` has it. Raises NoAnswer."""
        deadline = time.monotonic() + seconds
        asks = [(choice.link, await self._request(choice, prompt)) for choice in chain]
        told = tuple(asks[0][1].messages)
        try:
            link, reply, failures = await self.first(asks, deadline - time.monotonic(), account, shared=shared)
        except NoAnswer as failed:
            raise NoAnswer(failed.errors, told) from failed
        usage = reply.usage.prompt_tokens, reply.usage.completion_tokens
        return Answer(reply.text, link.provider.name, reply.model, *usage, _reasons(failures) or None, told)

    async def _request(self, choice: Choice, prompt: Prompt) -> ChatRequest:
        fitting = await self._tokens.fit(prompt, choice)
        messages = fitting.messages(examples=choice.link.provider.needs_examples)
        parameters = {"temperature": choice.temperature, "max_tokens": choice.max_tokens}
        return ChatRequest(messages, choice.model, parameters)

    async def first(
        self, asks: Sequence[Ask], seconds: float, account: Account = NOBODY, *, shared: bool = False
    ) -> tuple[Resilient, ChatReply, Failures]:
        """Who answered, what, and who did not before; within `seconds` over all that are asked. Raises NoAnswer.

        The next one is asked when one fails and, where `AI_HEDGE_SECONDS` is set, also when it takes so long.
        """
        deadline = time.monotonic() + seconds
        if self._hedge_seconds:
            return await self._first_of_several(asks, deadline, account, shared)
        failures: Failures = []
        for link, request in asks:
            try:
                reply = await self.ask(link, request, deadline - time.monotonic(), account, shared=shared)
            except ProviderError as error:
                failures.append((link.provider.name, error))
            else:
                return link, reply, failures
        raise NoAnswer(failures)

    async def _first_of_several(
        self, asks: Sequence[Ask], deadline: float, account: Account, shared: bool
    ) -> tuple[Resilient, ChatReply, Failures]:
        waiting, failures = deque(asks), Failures()
        running: dict[asyncio.Task[ChatReply], Resilient] = {}
        try:
            while waiting or running:
                if waiting:
                    link, request = waiting.popleft()
                    asking = self.ask(link, request, deadline - time.monotonic(), account, shared=shared)
                    running[asyncio.create_task(asking)] = link
                patience = self._hedge_seconds if waiting else None
                done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    link = running.pop(task)
                    try:
                        return link, task.result(), failures
                    except ProviderError as error:
                        failures.append((link.provider.name, error))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        raise NoAnswer(failures)

    async def ask(
        self,
        link: Resilient,
        request: ChatRequest,
        limit: float,
        account: Account = NOBODY,
        *,
        shared: bool = False,
    ) -> ChatReply:
        """One provider's reply, with a row in the ledger. Raises ProviderError.

        At temperature 0, or where they may be `shared`, equal calls of one community in flight together are one call.
        """
        if not shared and request.parameters.get("temperature") != 0:
            return await self._ask(link, request, limit, account)
        key = (id(link), account.community_id, request.fingerprint())
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.ensure_future(self._ask(link, request, limit, account))
            flight.add_done_callback(functools.partial(self._land, key))
        # Who goes away does not take the call from the others; its own time is bounded by the one who began it.
        try:
            async with asyncio.timeout(max(limit, 0)):
                return await asyncio.shield(flight)
        except TimeoutError as error:
            raise ProviderTimeout(f"{link.provider.name} gave no answer within {limit:.1f} s") from error

    def _land(self, key: _FlightKey, flight: asyncio.Future[ChatReply]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen, though nobody may wait for it any more

    async def _ask(self, link: Resilient, request: ChatRequest, limit: float, account: Account) -> ChatReply:
        began = time.monotonic()
        name, said = link.provider.name, length(request.messages)
        try:
            reply = await link.chat(request, limit)
        except ProviderError as error:
            self.note_error(link, request.model, error, time.monotonic() - began, account=account)
            raise
        except asyncio.CancelledError:
            took, usage = time.monotonic() - began, UNCOUNTED.counted(said, 0)
            self.ledger.note(Call(name, request.model, "cancelled", took, usage, account=account, own=link.own))
            raise
        reply = replace(reply, usage=reply.usage.counted(said, len(reply.text)))
        took = time.monotonic() - began
        call = Call(name, reply.model, "ok", took, reply.usage, account=account, asked=request.model, own=link.own)
        self.ledger.note(call)
        return reply

    def note_error(
        self,
        link: Resilient,
        model: str,
        error: ProviderError,
        seconds: float,
        *,
        kind: str = "chat",
        account: Account = NOBODY,
    ) -> None:
        """Write down a call that failed; one that was not made, because the breaker is open, was told before."""
        name = link.provider.name
        call = Call(name, model, error.reason, seconds, kind=kind, account=account, own=link.own)
        if isinstance(error, BreakerOpen):
            self.ledger.tell(call)
            self._log.info("provider.passed_over", f"{error}", provider=name, result=error.reason)
            return
        self.ledger.note(call)
        if not isinstance(error, ProviderBadRequest):
            self._log.error("provider.failed", f"{error}", provider=name, result=error.reason)


def length(messages: Sequence[Message]) -> int:
    """How many characters messages have together."""
    return sum(len(str(message.get("content") or "")) for message in messages)


def _reasons(failures: Failures) -> str:
    return ", ".join(f"{name}: {error.reason}" for name, error in failures)
