"""The settings of a community, or those that hold for all of them."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from quart import Blueprint, Response, jsonify, request

from routes.body import read_body
from routes.connection import BASE
from routes.context import headers, not_found, own_community, require, sidecast, success
from routes.errors import APIError
from routes.openapi import describe
from routes.shapes import answers as shapes
from routes.shapes.requests import ChangeHeaders, Whose, change_of_settings
from services.keys import COMMUNITY, Principal
from services.settings import DEFAULTS, CommunitySettings
from services.settings_store import BadSettings, StaleVersion, View

blueprint = Blueprint("config", __name__, url_prefix=BASE)
# What an answer tells besides, so that it can be put back as it is.
_TOLD = ("inherited", "api_key_set")
_ETAGS = {"ETag": "The version of the settings, for If-Match."}
_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"')


class Change(BaseModel):
    """Settings by name, null for those to be inherited again; each is checked where it is kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    community_id: str | None = None
    version: int | None = Field(None, ge=0)


@blueprint.get("/config")
@describe(shapes.Settings, roles=[COMMUNITY], query=Whose, answer_headers=_ETAGS)
async def get_config() -> Response:
    """The settings that hold for a community, and which of them it inherits; without an id those of all."""
    principal = await require(COMMUNITY)
    view = await sidecast().settings_store.view(_whose(principal, request.args.get("community_id")))
    return _answer(view)


@blueprint.put("/config")
@describe(
    shapes.Settings,
    roles=[COMMUNITY],
    body=change_of_settings(Change),
    query=Whose,
    headers=ChangeHeaders,
    errors=[409],
    answer_headers=_ETAGS,
)
async def put_config() -> Response:
    """Change what the body names; 409 where the settings are no longer at the version that it, or If-Match, gives."""
    principal = await require(COMMUNITY)
    body = await read_body(Change)
    whose = _whose(principal, body.community_id or request.args.get("community_id"))
    changes = {name: value for name, value in (body.model_extra or {}).items() if name not in _TOLD}
    try:
        view = await sidecast().settings_store.change(whose, changes, _version(body), principal.name)
    except StaleVersion as stale:
        message = f"The settings have changed since; they are at version {stale.version}."
        raise APIError(409, "CONFLICT", message) from None
    except BadSettings as bad:
        problems = [{"field": field, "problem": problem} for field, problem in bad.problems]
        raise APIError(400, "INVALID_REQUEST", "The settings have invalid fields.", problems) from None
    return _answer(view)


def _whose(principal: Principal, given: str | None) -> UUID:
    return own_community(principal, given) or DEFAULTS


def _version(body: Change) -> int | None:
    """The version that the caller has seen. Raises APIError 400."""
    given = headers().get("if-match")
    if body.version is not None or given in {None, "*"}:
        return body.version
    found = _ETAG.fullmatch(given or "")
    if found is None:
        problem = [{"field": "If-Match", "problem": "must be the ETag of an answer"}]
        raise APIError(400, "INVALID_REQUEST", "The request has an invalid header.", problem)
    return int(found[1])


def _answer(view: View | None) -> Response:
    """Raises APIError 404 where there is no such community."""
    if view is None:
        raise not_found()
    body: dict[str, Any] = {
        "community_id": None if view.community_id == DEFAULTS else str(view.community_id),
        "version": view.version,
        **view.settings.model_dump(),
        "api_key_set": view.has_key,
        "inherited": [name for name in CommunitySettings.model_fields if name not in view.own],
    }
    answer: Response = jsonify(success(body))
    answer.headers["ETag"] = f'"{view.version}"'
    return answer
