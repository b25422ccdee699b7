"""Makes replies: budget → context → prompt → model → a text that fits its platform, or a canned one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from config import Settings
from providers.base import Message
from services.ai_service import AIService, NoAnswer
from services.budgets import Budgets, Step
from services.cache_manager import CacheManager, UserKey
from services.communities import Community
from services.interactions import Interaction, Reply
from services.ledger import Account
from services.logs import Log
from services.prompts import build_prompt
from services.replies import Manner, canned_text, fit, manner_of

EXPIRED = "expired"
SUPPRESSED = "suppressed"


@dataclass
class Making:
    """How a reply came to be: the budget's step, what the model was told, and for how many ms it was waited for."""

    step: Step = Step.WHOLE
    messages: tuple[Message, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


class NoReply(Exception):
    """There is nothing to be said: the state in which the interaction ends, and why."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason


class Composer:
    """Makes a reply; where it goes is the caller's."""

    def __init__(self, settings: Settings, cache: CacheManager, ai: AIService, budgets: Budgets, log: Log) -> None:
        self._settings = settings
        self._cache = cache
        self._ai = ai
        self._budgets = budgets
        self._log = log

    async def compose(self, item: Interaction, community: Community, account: Account, making: Making) -> Reply:
        """A model's reply, or the canned one when none answers. Raises NoReply."""
        if item.age > self._settings.reply_ttl:
            raise NoReply(EXPIRED, "reply_ttl")
        manner = manner_of(item.event, community.settings)
        prefix = manner.prefix
        canned = fit(canned_text(item.event, item.trigger), manner)
        if item.attempts > self._settings.max_attempts:
            return Reply(canned, prefix, fallback=True, reason="attempts_exhausted")
        making.step = await self._budgets.step(community)
        if making.step is Step.SILENT:
            raise NoReply(SUPPRESSED, making.step)
        if making.step is Step.CANNED:
            if account.interaction_id is not None:  # and not only tried out
                self._ai.ledger.note_canned(account)
            return Reply(canned, prefix, fallback=True, reason=making.step)
        return await self._ask(item, community, account, making, manner, canned)

    async def _ask(
        self,
        item: Interaction,
        community: Community,
        account: Account,
        making: Making,
        manner: Manner,
        canned: str,
    ) -> Reply:
        settings, prefix = community.settings, manner.prefix
        history = await self._cache.history(user_of(item), settings.remembered)
        prompt = build_prompt(settings, item.event, item.trigger, history)
        small = making.step is Step.SMALL
        chain = await self._ai.chains.of(community, small=small)
        making.messages = prompt.messages(examples=chain[0].link.provider.needs_examples)
        began = time.monotonic()
        try:
            answer = await self._ai.answer(prompt, chain, self._settings.reply_ttl - item.age, account)
        except NoAnswer as error:
            if item.age > self._settings.reply_ttl:
                raise NoReply(EXPIRED, "reply_ttl") from None
            self._log.error("interaction.fallback", f"no provider answered ({error.reason})", result="FALLBACK")
            return Reply(canned, prefix, fallback=True, reason=error.reason)
        finally:
            making.timings["provider"] = round((time.monotonic() - began) * 1000, 1)
        text = fit(answer.text, manner)
        by = answer.provider, answer.model, answer.prompt_tokens, answer.completion_tokens
        if not text:
            return Reply(canned, prefix, True, "empty_reply", *by)
        reasons = [reason for reason in (making.step if small else None, answer.passed_over) if reason]
        return Reply(text, prefix, False, ", ".join(reasons) or None, *by)


def user_of(item: Interaction) -> UserKey:
    """Whose conversation an interaction is part of."""
    return UserKey(item.community_id, item.event.platform, item.event.user_id)
