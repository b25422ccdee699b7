"""Sums up, by the model and in the background, what a conversation has no room for any more (`summarize`).

A few exchanges are summed up together with what was summed up before; while that is under way for as many as may be, or
a budget is running out, what goes is simply gone.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from providers.base import ChatRequest
from services.ai_service import AIService, NoAnswer
from services.budgets import Budgets, Step
from services.cache_manager import CacheManager, Exchange, UserKey
from services.changes import Changes
from services.communities import Community
from services.database import DatabaseUnavailable
from services.ledger import Account
from services.logs import Log
from services.prompts import summary_messages
from services.texts import head, without_tokens

TOGETHER = 3
AT_ONCE = 2
MAX_WAITING = 1_000
SECONDS = 30.0
MAX_SUMMARY = 500
TOKENS = 150


class Summaries:
    """Of users' conversations."""

    def __init__(self, cache: CacheManager, ai: AIService, budgets: Budgets, changes: Changes, log: Log) -> None:
        changes.listeners.append(self._hear_change)
        self._cache = cache
        self._ai = ai
        self._budgets = budgets
        self._log = log
        self._waiting: OrderedDict[UserKey, list[Exchange]] = OrderedDict()
        self._running = 0

    async def add(self, user: UserKey, community: Community, gone: list[Exchange]) -> None:
        """Take in what a conversation has lost; every few of them are summed up."""
        if not gone or not community.settings.summarize:
            return
        waiting = self._waiting.setdefault(user, [])
        waiting[:] = [*waiting, *gone][-2 * TOGETHER :]
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        if len(waiting) < TOGETHER or self._running >= AT_ONCE:
            return
        del self._waiting[user]
        self._running += 1
        try:
            await self._sum_up(user, community, waiting, time.monotonic())
        except (NoAnswer, DatabaseUnavailable) as error:
            self._log.info("summary.none", f"a conversation was not summed up ({error})", result="ERROR")
        finally:
            self._running -= 1

    def _hear_change(self, what: str) -> None:
        """A user is forgotten."""
        for user in [user for user in self._waiting if what == self._cache.change_of(user)]:
            del self._waiting[user]

    async def _sum_up(self, user: UserKey, community: Community, exchanges: list[Exchange], since: float) -> None:
        """Raises NoAnswer, DatabaseUnavailable."""
        if await self._budgets.step(community) is not Step.WHOLE:
            return
        before = await self._cache.earlier(user)
        messages = tuple(summary_messages(before, exchanges))
        chain = await self._ai.chains.of(community)
        parameters = {"temperature": 0.2, "max_tokens": TOKENS}
        asks = [(choice.link, ChatRequest(messages, choice.model, parameters)) for choice in chain]
        _, reply, _ = await self._ai.first(asks, SECONDS, Account(community.community_id))
        summary = head(" ".join(without_tokens(reply.text).split()), MAX_SUMMARY)
        if summary:
            await self._cache.keep_earlier(user, summary, since)
