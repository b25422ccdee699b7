"""Figures of a day, a week or a month: replies, times, tokens and cost, and how the models did."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson
from quart import request

from routes.context import sidecast
from routes.dashboard.room import blueprint, community_or_all, page, visitor
from services.communities import Community
from services.keys import COMMUNITY
from services.numbers import Step, total
from services.settings import DEFAULTS

# By name: how many seconds it is back, and in steps of how many.
SPANS = {"day": (86_400, 3_600), "week": (7 * 86_400, 6 * 3_600), "month": (30 * 86_400, 86_400)}
SHARES = (0.5, 0.95, 0.99)
FINE = "ok"
CACHED = "cached"


@dataclass(frozen=True)
class Model:
    """How a model did: calls, those that failed by what, and what the cache spared."""

    name: str
    calls: int
    failed: int
    cached: int
    failures: dict[str, int]

    @property
    def share(self) -> float:
        """Of the calls, those that were answered."""
        return (self.calls - self.failed) / self.calls if self.calls else 1.0


@blueprint.get("/communities/<community_id>/numbers")
async def get_numbers(community_id: str) -> str:
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    span = request.args.get("span", "day")
    span = span if span in SPANS else "day"
    back, seconds = SPANS[span]
    await sidecast().numbers.flush()
    steps = await sidecast().numbers.since(community.community_id, time.time() - back, seconds)
    whole = total(steps)
    about: dict[str, Any] = {
        "span": span,
        "spans": list(SPANS),
        "whole": whole,
        "times": [(share, whole.percentile(share)) for share in SHARES],
        "outcomes": _outcomes(whole),
        "models": _models(whole),
        "chart": orjson.dumps(_chart(steps)).decode(),
        "spent": await _spent(community),
    }
    return await page("numbers.html", who, community, **about)


async def _spent(community: Community) -> Any:
    """What a community has used of the day's budget; None where it has none."""
    if community.community_id == DEFAULTS:
        return None
    return await sidecast().budgets.spent(community.community_id)


def _outcomes(whole: Step) -> list[tuple[str, dict[str, int]]]:
    """How many of each trigger ended how."""
    found: dict[str, dict[str, int]] = {}
    for (trigger, state), count in sorted(whole.replies.items()):
        found.setdefault(trigger, {})[state] = count
    return sorted(found.items(), key=lambda each: -sum(each[1].values()))


def _models(whole: Step) -> list[Model]:
    results: dict[str, Counter[str]] = {}
    for (model, result), count in whole.calls.items():
        results.setdefault(model, Counter())[result] += count
    return [_model(name, found) for name, found in sorted(results.items())]


def _model(name: str, results: Counter[str]) -> Model:
    failures = {result: count for result, count in results.items() if result not in {FINE, CACHED}}
    return Model(name, results[FINE] + sum(failures.values()), sum(failures.values()), results[CACHED], dict(failures))


def _chart(steps: list[Step]) -> dict[str, list[Any]]:
    """Columns by step, as the page draws them."""
    return {
        "at": [step.at for step in steps],
        "delivered": [_count(step, "delivered") for step in steps],
        "not_said": [sum(step.replies.values()) - _count(step, "delivered") for step in steps],
        **{f"p{share * 100:g}": [_rounded(step.percentile(share)) for step in steps] for share in SHARES},
        "tokens": [step.prompt_tokens + step.completion_tokens for step in steps],
        "cost": [step.cost for step in steps],
        "ok": [_answered(step) for step in steps],
    }


def _count(step: Step, state: str) -> int:
    return sum(count for (_, ended), count in step.replies.items() if ended == state)


def _answered(step: Step) -> float | None:
    """The share of calls that were answered, in per cent."""
    made = sum(count for (_, result), count in step.calls.items() if result != CACHED)
    fine = sum(count for (_, result), count in step.calls.items() if result == FINE)
    return round(100 * fine / made, 1) if made else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
