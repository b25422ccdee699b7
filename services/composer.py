"""Makes replies: budget → context → prompt → model → a text that fits its platform, or a canned one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from config import Settings
from providers.base import Message
from services.ai_service import AIService, NoAnswer
from services.answer_cache import AnswerCache, Kept, question_of
from services.budgets import Budgets, Step
from services.cache_manager import CacheManager, ChannelKey, UserKey, without
from services.communities import Community
from services.interactions import Interaction, Reply
from services.ledger import Account
from services.logs import Log
from services.occasions import Occasion, occasion_of
from services.prompts import Prompt, build_prompt
from services.replies import Manner, fit, manner_of, reworded
from services.speech import looks_back
from services.tracing import Tracing
from services.triggers import TALK

EXPIRED = "expired"
SUPPRESSED = "suppressed"


@dataclass
class Making:
    """How a reply came to be: the budget's step, what the model was told, and for how many ms it was waited for.

    `others` are texts that may be said in its place, `raw` is what the model said.
    """

    step: Step = Step.WHOLE
    messages: tuple[Message, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    others: Iterator[str] = field(default_factory=lambda: iter(()))
    raw: str | None = None


class NoReply(Exception):
    """There is nothing to be said: the state in which the interaction ends, and why."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason


class Composer:
    """Makes a reply; where it goes is the caller's."""

    def __init__(
        self,
        settings: Settings,
        cache: CacheManager,
        answers: AnswerCache,
        ai: AIService,
        budgets: Budgets,
        tracing: Tracing,
        log: Log,
    ) -> None:
        self._settings = settings
        self._answers = answers
        self._cache = cache
        self._ai = ai
        self._budgets = budgets
        self._tracing = tracing
        self._log = log

    async def compose(self, item: Interaction, community: Community, account: Account, making: Making) -> Reply:
        """A model's reply, or a canned one when none answers. Raises NoReply."""
        if item.age > self._settings.reply_ttl:
            raise NoReply(EXPIRED, "reply_ttl")
        manner = manner_of(item.event, community.settings)
        occasion = occasion_of(item.event, item.trigger, item.gathered or 0)
        if item.attempts > self._settings.max_attempts:
            return _canned(occasion, manner, making, "attempts_exhausted")
        making.step = await self._budgets.step(community)
        if making.step is Step.SILENT:
            raise NoReply(SUPPRESSED, making.step)
        if making.step is Step.CANNED:
            if account.interaction_id is not None:  # and not only tried out
                self._ai.ledger.note_canned(account)
            return _canned(occasion, manner, making, making.step)
        return await self._ask(item, community, account, making, manner, occasion)

    async def _ask(
        self,
        item: Interaction,
        community: Community,
        account: Account,
        making: Making,
        manner: Manner,
        occasion: Occasion,
    ) -> Reply:
        prompt = await self._prompt(item, community, occasion)
        small = making.step is Step.SMALL
        chain = await self._ai.chains.of(community, small=small)
        began = time.monotonic()
        question = question_of(prompt, community, chain[0])
        if question is not None:
            prompt = question.prompt
            kept = await self._answers.find(question, community)
            if kept is not None and (text := fit(kept.to(item.event.name), manner)):
                making.timings["cached"] = round((time.monotonic() - began) * 1000, 1)
                making.messages = prompt.messages(examples=chain[0].link.provider.needs_examples)
                making.others = reworded(text, item.event.name, manner)
                self._ai.ledger.note_cached(account, kept.provider, kept.model, kept.usage)
                return Reply(text, manner.prefix, False, making.step if small else None, kept.provider, kept.model)
        left = self._settings.reply_ttl - item.age
        try:
            answer = await self._ai.answer(prompt, chain, left, account, shared=question is not None)
        except NoAnswer as error:
            if item.age > self._settings.reply_ttl:
                raise NoReply(EXPIRED, "reply_ttl") from None
            making.messages = error.messages
            self._log.error("interaction.fallback", f"no provider answered ({error.reason})", result="FALLBACK")
            return _canned(occasion, manner, making, error.reason)
        finally:
            making.timings["provider"] = round((time.monotonic() - began) * 1000, 1)
        making.messages = answer.messages
        said = making.raw = answer.text
        if question is not None:
            kept = Kept(said, answer.provider, answer.model, answer.prompt_tokens, answer.completion_tokens)
            said = kept.to(item.event.name)
            first = answer.passed_over is None and answer.provider == chain[0].link.provider.name
            if first and account.interaction_id is not None and fit(said, manner):
                self._answers.keep(question, kept, community)
        text = fit(said, manner)
        by = answer.provider, answer.model, answer.prompt_tokens, answer.completion_tokens
        if not text:
            return _canned(occasion, manner, making, "empty_reply", *by)
        making.others = _other_words(text, item, manner, occasion)
        reasons = [reason for reason in (making.step if small else None, answer.passed_over) if reason]
        return Reply(text, manner.prefix, False, ", ".join(reasons) or None, *by)

    async def _prompt(self, item: Interaction, community: Community, occasion: Occasion) -> Prompt:
        """With what was said before, by the user and in the channel."""
        settings, event = community.settings, item.event
        with self._tracing.span("context"):
            history = await self._cache.history(user_of(item), settings.remembered)
            heard = []
            if channel := channel_of(item, community):
                lines = await self._cache.heard(channel, settings.heard)
                heard = without(lines, event.user_id, [event.message_content, *(each.said for each in history)])
            earlier = await self._cache.earlier(user_of(item)) if settings.summarize and history else ""
        return build_prompt(settings, event, occasion, history, heard, earlier)


def _other_words(text: str, item: Interaction, manner: Manner, occasion: Occasion) -> Iterator[str]:
    """What may be said in a text's place; several people are not called by the name of one."""
    if occasion.many:
        return (other for line in occasion.canned if (other := fit(line, manner)))
    return reworded(text, item.event.name, manner)


def _canned(
    occasion: Occasion,
    manner: Manner,
    making: Making,
    reason: str,
    *by: str | int | None,
) -> Reply:
    """The best canned text; the others may take its place."""
    texts = [text for line in occasion.canned if (text := fit(line, manner))]
    making.others = iter(texts[1:])
    provider, model, *tokens = by or (None, None, None, None)
    return Reply(texts[0] if texts else "", manner.prefix, True, reason, provider, model, *tokens)  # type: ignore[arg-type]


def user_of(item: Interaction) -> UserKey:
    """Whose conversation an interaction is part of."""
    return UserKey(item.community_id, item.event.platform, item.event.user_id)


def channel_of(item: Interaction, community: Community) -> ChannelKey | None:
    """The channel whose recent chat an interaction is about; None where it is not."""
    if item.trigger.type not in TALK or not community.settings.heard or not looks_back(item.event.message_content):
        return None
    return ChannelKey(item.community_id, item.event.entity_id)
