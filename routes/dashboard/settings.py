"""A community's settings: what each means, what it may be, what it was; and what holds for all of them."""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from quart import Response, request

from config import allowed_values
from routes.context import sidecast
from routes.dashboard.room import blueprint, community_or_all, fields, go, name_in_path, page, visitor, whole_number
from routes.errors import APIError
from services.communities import Community
from services.keys import COMMUNITY
from services.settings import DEFAULTS, CommunitySettings
from services.settings_store import KEY, BadSettings, StaleVersion, View

SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "persona",
        "Who it is",
        ("enabled", "persona_name", "system_prompt", "language", "response_prefix", "allowed_links"),
    ),
    (
        "model",
        "Which model answers",
        ("provider", "model", "temperature", "max_tokens", "fallbacks", "base_url", KEY),
    ),
    (
        "speaking",
        "When it speaks",
        (
            *("mentions", "greetings", "farewells", "questions", "respond_to_events", "event_response_types"),
            *("custom_triggers", "custom_patterns", "bot_names", "only_live", "quiet_hours", "timezone", "quiet_until"),
        ),
    ),
    ("words", "Words it knows", ("greeting_words", "farewell_words", "question_triggers")),
    (
        "memory",
        "What it remembers",
        (
            *("enable_chat_context", "context_history_limit", "summarize", "recent_chat", "cache_seconds"),
            *("store_content", "retention_days"),
        ),
    ),
    (
        "limits",
        "How often",
        (
            *("user_cooldown", "greeting_cooldown", "repeat_seconds", "channel_replies", "channel_seconds"),
            *("community_replies", "community_seconds"),
        ),
    ),
    ("budget", "What it may cost", ("budget_tokens", "budget_cost", "budget_small_model", "budget_canned")),
)
_NOT_FOR_ALL = {KEY, "base_url", "quiet_until"}
_KEY_MEANS = "The key for this provider; it is sealed and never shown again."
LONG = 500
PAGE_ROWS = 25
LAST = 2**62


@dataclass(frozen=True)
class Field:
    """A setting as a page shows it."""

    name: str
    means: str
    kind: str  # switch, choice, lines, long, number or text
    value: Any
    inherited: Any
    own: bool
    allowed: str
    choices: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    longest: int | None = None
    problem: str = ""


@blueprint.get("/communities/<community_id>")
async def get_settings(community_id: str) -> str:
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    view = await _view(community)
    about = await _about(community, view)
    listed = await sidecast().communities.page(community.community_id, DEFAULTS, 1)
    entities = [entity for each in listed for entity in each.entities if not entity.startswith("playground:")]
    return await page("settings.html", who, community, **about, entities=entities)


@blueprint.post("/communities/<community_id>")
async def post_settings(community_id: str) -> Response:
    """Save one section of the settings."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    given, view = await fields(), await _view(community)
    section = given.get("section", "")
    names = _names(section, community)
    changes, problems = _changes(given, names, view)
    if changes and not problems:
        try:
            changed = community.community_id, changes, whole_number(given.get("version", "")), who.principal.name
            view = _known(await sidecast().settings_store.change(*changed))
        except StaleVersion:
            problems = [("", "Someone else has changed the settings since you loaded them. Load the page again.")]
        except BadSettings as bad:
            problems = bad.problems
    inherited = await sidecast().settings_store.inherited(community.community_id)
    about: dict[str, Any] = {"section": _section(section, community, view, inherited, dict(problems), given)}
    saved = view.version if changes and not problems else None
    # What was not saved is still of the version that was seen; what was, is so for the other sections too.
    about["version"] = view.version if saved else given.get("version", "")
    about["others"] = [name for name, _, _ in SECTIONS if name != section] if saved else []
    moment = (await sidecast().instances.moment()).isoformat() if saved else ""
    return Response(
        await page("section.html", who, community, saved=saved, moment=moment, **about),
        200 if not problems else 422,
    )


@blueprint.post("/communities/<community_id>/check")
async def post_check(community_id: str) -> str:
    """What is wrong with one field as it is typed; nothing is changed."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    given, view = await fields(), await _view(community)
    name = request.args.get("field", "")
    if name not in {*CommunitySettings.model_fields, KEY}:
        raise APIError(400, "INVALID_REQUEST", "There is no such setting.")
    changes, problems = _changes(given, (name,), view)
    if not problems:
        problems = await sidecast().settings_store.problems(community.community_id, changes)
    found = [problem for field, problem in problems if field.partition(".")[0] in {name, ""}]
    return await page("problem.html", who, community, problem=_readable(found[0]) if found else "")


@blueprint.get("/communities/<community_id>/live")
async def get_live(community_id: str) -> str:
    """On how many instances a change that was made before a moment holds by now."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    since = request.args.get("since", "")
    alive = await sidecast().instances.alive()
    hold = sum(1 for instance in alive if instance.heard_at and instance.heard_at.isoformat() >= since)
    return await page("live.html", who, community, hold=hold, alive=len(alive), since=since)


@blueprint.get("/communities/<community_id>/versions")
async def get_versions(community_id: str) -> str:
    """What the settings were, and who changed what."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    before = whole_number(request.args.get("before", "")) or LAST
    found = await sidecast().settings_store.versions(community.community_id, before, PAGE_ROWS + 1)
    rows = []
    for number, version in enumerate(found[:PAGE_ROWS]):
        earlier = found[number + 1].own if number + 1 < len(found) else {}
        names = sorted(n for n in {**earlier, **version.own} if earlier.get(n) != version.own.get(n))
        rows.append((version, [(name, earlier.get(name), version.own.get(name)) for name in names]))
    following = rows[-1][0].version if len(found) > PAGE_ROWS else None
    return await page("versions.html", who, community, rows=rows, following=following, view=await _view(community))


@blueprint.post("/communities/<community_id>/undo")
async def post_undo(community_id: str) -> Response:
    """Set everything as it was at a version."""
    who = await visitor(COMMUNITY)
    community = await community_or_all(who, community_id)
    version = whole_number((await fields()).get("version", ""))
    if version is None:
        raise APIError(404, "NOT_FOUND", "That version is not known any more.")
    try:
        view = await sidecast().settings_store.undo(community.community_id, version, who.principal.name)
    except BadSettings as bad:
        raise APIError(409, "CONFLICT", f"That cannot be set any more: {_readable(bad.problems[0][1])}") from None
    except StaleVersion:
        raise APIError(409, "CONFLICT", "Someone else changes the settings at this moment. Try again.") from None
    if view is None:
        raise APIError(404, "NOT_FOUND", "That version is not known any more.")
    return await go(f"/dashboard/communities/{name_in_path(community)}/versions")


async def _view(community: Community) -> View:
    return _known(await sidecast().settings_store.view(community.community_id))


def _known(view: View | None) -> View:
    if view is None:
        raise APIError(404, "NOT_FOUND", "There is no such community.")
    return view


async def _about(community: Community, view: View) -> dict[str, Any]:
    inherited = await sidecast().settings_store.inherited(community.community_id)
    sections = [_section(name, community, view, inherited, {}, {}) for name, _, _ in SECTIONS]
    return {"sections": sections, "version": view.version, "saved": None, "moment": ""}


def _section(
    name: str,
    community: Community,
    view: View,
    inherited: CommunitySettings,
    problems: dict[str, str],
    given: dict[str, str],
) -> dict[str, Any]:
    by_field = {field.partition(".")[0]: _readable(problem) for field, problem in problems.items()}
    shown = [
        _field(each, view, inherited, by_field.pop(each, ""), given if problems else {})
        for each in _names(name, community)
    ]
    title = next(title for known, title, _ in SECTIONS if known == name)
    return {"name": name, "title": title, "fields": shown, "problems": list(by_field.values())}


def _names(section: str, community: Community) -> tuple[str, ...]:
    """The settings of a section, those that only a community may have left out where it is about all."""
    for name, _, names in SECTIONS:
        if name == section:
            return tuple(n for n in names if community.community_id != DEFAULTS or n not in _NOT_FOR_ALL)
    raise APIError(400, "INVALID_REQUEST", "There is no such section.")


def _field(name: str, view: View, inherited: CommunitySettings, problem: str, given: dict[str, str]) -> Field:
    if name == KEY:
        return Field(name, _KEY_MEANS, "secret", view.has_key, None, view.has_key, "", longest=500, problem=problem)
    about = CommunitySettings.model_fields[name]
    value = getattr(view.settings, name)
    if name in given:
        value = given[name]
    low, high, longest = _bounds(name)
    return Field(
        name,
        about.description or "",
        _kind(about, longest),
        _text(value),
        _text(getattr(inherited, name)),
        name in view.own,
        allowed_values(about).replace("characters", "lines" if _kind(about, longest) == "lines" else "characters"),
        _choices(about),
        low,
        high,
        longest,
        problem,
    )


def _kind(about: FieldInfo, longest: int | None) -> str:
    plain = _plain_type(about.annotation)
    if plain is bool:
        return "switch"
    if _choices(about):
        return "choice"
    if typing.get_origin(plain) is list:
        return "lines"
    if plain in {int, float}:
        return "number"
    return "long" if (longest or 0) > LONG else "text"


def _plain_type(annotation: Any) -> Any:
    """The type of a value, of `X | None` and of an annotated one X."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
            annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
        else:
            return annotation


def _choices(about: FieldInfo) -> tuple[str, ...]:
    plain = _plain_type(about.annotation)
    return typing.get_args(plain) if typing.get_origin(plain) is typing.Literal else ()


def _bounds(name: str) -> tuple[float | None, float | None, int | None]:
    """The least and greatest number, and the greatest length, as JSON Schema has them."""
    schema = _schemas()[name]
    found = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), schema)
    return found.get("minimum"), found.get("maximum"), found.get("maxLength")


@functools.cache
def _schemas() -> dict[str, Any]:
    properties: dict[str, Any] = CommunitySettings.model_json_schema()["properties"]
    return properties


def _text(value: Any) -> Any:
    """A value as a form has it."""
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    if value is None:
        return ""
    return value if isinstance(value, bool) else str(value).removesuffix(".0")


def _changes(given: dict[str, str], names: Sequence[str], view: View) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What a form changes, and what in it is no value at all."""
    changes: dict[str, Any] = {}
    problems = []
    for name in names:
        if f"inherit:{name}" in given:
            changes[name] = None
            continue
        if name == KEY:
            if given.get(KEY):
                changes[KEY] = given[KEY]
            continue
        try:
            value = _value(name, given.get(name, ""))
        except ValueError:
            problems.append((name, "must be a number"))
            continue
        if value != getattr(view.settings, name):
            changes[name] = value
    return changes, problems


def _value(name: str, text: str) -> Any:
    """A setting of a form's text. Raises ValueError."""
    about = CommunitySettings.model_fields[name]
    text = text.replace("\r\n", "\n")
    plain = _plain_type(about.annotation)
    if plain is bool:
        return text == "true"
    if typing.get_origin(plain) is list:
        return [line.strip() for line in text.split("\n") if line.strip()]
    if plain in {int, float}:
        return None if not text.strip() else int(text) if plain is int else _finite(text)
    return text


def _finite(text: str) -> float:
    """Raises ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _readable(problem: str) -> str:
    """A problem as a sentence."""
    return problem.removeprefix("Value error, ").removeprefix("Input ")
