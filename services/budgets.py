"""What a community may spend on models in a day (of UTC), in tokens and in US dollars, as the ledger has it.

As a budget goes, replies get cheaper before they stop: the small model, when it is used up canned texts, then silence.
What instances spend is known to each other within two seconds; calls that are under way may go beyond the budget.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from services.communities import Community
from services.database import DatabaseUnavailable
from services.ledger import Ledger, Spent
from services.logs import Log
from services.settings import CommunitySettings

SMALL_FROM = 0.8
FRESH_SECONDS = 2.0
MAX_KNOWN = 10_000


class Step(StrEnum):
    """How replies are made; the values are what is given as an interaction's reason."""

    WHOLE = "within_budget"
    SMALL = "budget_small_model"
    CANNED = "budget_canned"
    SILENT = "budget_silent"


class BudgetSpent(Exception):
    """Nothing is left of the day's budget; `seconds` until the next day."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass
class _Known:
    day: datetime
    spent: Spent
    fresh_until: float = 0.0
    step: Step = Step.WHOLE
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Budgets:
    """Says at which step a community is; one that has no budget costs no query."""

    def __init__(self, ledger: Ledger, log: Log) -> None:
        self._ledger = ledger
        self._log = log
        self._known: OrderedDict[UUID, _Known] = OrderedDict()
        ledger.listeners.append(self._note)

    async def step(self, community: Community) -> Step:
        """At which step replies of a community are now."""
        settings = community.settings
        if not settings.budget_tokens and not settings.budget_cost:
            return Step.WHOLE
        known = await self._read(community.community_id)
        step = _step(settings, known.spent)
        if step is not known.step:
            known.step = step
            about = {"community": str(community.community_id), "tokens": known.spent.tokens, "cost": known.spent.cost}
            self._log.system("budget.step", f"the day's budget of a community: {step}", **about, result="CHANGED")
        return step

    async def check(self, community: Community) -> Step:
        """As `step`, for callers to whom nothing canned can be said. Raises BudgetSpent."""
        step = await self.step(community)
        if step in {Step.CANNED, Step.SILENT}:
            raise BudgetSpent((_today() + timedelta(days=1) - datetime.now(UTC)).total_seconds())
        return step

    async def spent(self, community_id: UUID) -> Spent:
        """What a community has spent today."""
        return (await self._read(community_id)).spent

    async def _read(self, community_id: UUID) -> _Known:
        """What was spent today: elsewhere up to two seconds ago, or before PostgreSQL went away; here up to now."""
        known = self._get(community_id)
        if known.fresh_until < time.monotonic():
            async with known.reading:
                if known.fresh_until < time.monotonic():
                    try:
                        known.spent = await self._ledger.spent(community_id, known.day)
                    except DatabaseUnavailable:
                        pass  # what is counted here counts on
                    known.fresh_until = time.monotonic() + FRESH_SECONDS
        return known

    def _get(self, community_id: UUID) -> _Known:
        known = self._known.get(community_id)
        if known is None or known.day != _today():
            known = self._known[community_id] = _Known(_today(), Spent())
        self._known.move_to_end(community_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return known

    def _note(self, row: dict[str, Any]) -> None:
        known = self._known.get(row["community_id"])
        if known is not None and row["called_at"] >= known.day:
            known.spent = known.spent.plus(row)


def _step(settings: CommunitySettings, spent: Spent) -> Step:
    shares = [
        used / most
        for used, most in ((spent.tokens, settings.budget_tokens), (spent.cost, settings.budget_cost))
        if most
    ]
    used = max(shares, default=0.0)
    if used >= 1:
        return Step.CANNED if spent.canned < settings.budget_canned else Step.SILENT
    return Step.SMALL if used >= SMALL_FROM and settings.budget_small_model else Step.WHOLE


def _today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
