"""Chat completions over a WebSocket: several at once, each by an id of the client's.

In: a completion request with an `id`, or `{"cancel": id}`. Out: OpenAI's chunks with that id as `request_id`, then
`{"request_id", "done": true}` or `{"request_id", "error"}`.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import orjson
from pydantic import ValidationError
from quart import Blueprint, websocket

from providers.base import ProviderError
from routes.body import details, parse
from routes.connection import BASE
from routes.context import Caller, caller, count, headers_of, require
from routes.errors import APIError
from routes.openai import ChatBody, chunk_bodies, completion, describe, refuse
from services.budgets import BudgetSpent
from services.gateway import UnknownModel
from services.keys import COMMUNITY, SERVICE

blueprint = Blueprint("stream", __name__, url_prefix=BASE)
blueprint.register_error_handler(APIError, refuse)
AT_ONCE = 8
MAX_ID = 255


@blueprint.websocket("/stream")
async def stream() -> None:
    """Answer requests until the client goes away."""
    principal = await require(SERVICE, COMMUNITY, websocket=websocket)
    named = headers_of(websocket).get("x-community-id")
    await caller(principal, named)
    await websocket.accept()
    running: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            raw = await websocket.receive()
            request_id: str | None = None
            try:
                body = _read(raw)
                if (cancelled := body.get("cancel")) is not None:
                    _cancel(running, cancelled)
                    continue
                request_id = _id(body.pop("id", None))
                count(principal, websocket.scope)
                _check_free(request_id, running)
                asked = ChatBody.model_validate(body)
            except ValidationError as error:
                await _send(request_id, error=describe(_refusal(details(error)))[1])
            except APIError as error:
                await _send(request_id, error=describe(error)[1])
            else:
                task = running[request_id] = asyncio.create_task(
                    _answer(request_id, asked, await caller(principal, named))
                )
                task.add_done_callback(functools.partial(_forget, running, request_id))
    finally:
        for task in list(running.values()):
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


async def _answer(request_id: str, asked: ChatBody, asking: Caller) -> None:
    try:
        bodies = chunk_bodies(asked, await completion(asked, asking))
    except BudgetSpent as error:
        await _send(request_id, error=describe(error)[1])
        return
    try:
        async for body in bodies:
            await _send(request_id, **body)
    except (ProviderError, UnknownModel) as error:
        await _send(request_id, error=describe(error)[1])
    else:
        await _send(request_id, done=True)
    finally:
        await bodies.aclose()


async def _send(request_id: str | None, **body: Any) -> None:
    await websocket.send(orjson.dumps({"request_id": request_id} | body).decode())


def _read(raw: str | bytes) -> dict[str, Any]:
    body = parse(raw.encode() if isinstance(raw, str) else raw)
    if not isinstance(body, dict):
        raise _refusal([{"field": "body", "problem": "must be a JSON object"}])
    return body


def _forget(running: dict[str, asyncio.Task[None]], request_id: str, _task: asyncio.Task[None]) -> None:
    del running[request_id]


def _cancel(running: dict[str, asyncio.Task[None]], request_id: Any) -> None:
    task = running.get(request_id) if isinstance(request_id, str) else None
    if task is not None:
        task.cancel()


def _id(request_id: Any) -> str:
    """Raises APIError."""
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_ID:
        raise _refusal([{"field": "id", "problem": f"must be a text of 1 to {MAX_ID} characters"}])
    return request_id


def _check_free(request_id: str, running: dict[str, asyncio.Task[None]]) -> None:
    """Raises APIError where another request has this id, or too many run."""
    if request_id in running:
        raise _refusal([{"field": "id", "problem": "is under way already"}])
    if len(running) >= AT_ONCE:
        raise APIError(429, "RATE_LIMITED", f"At most {AT_ONCE} requests run at once on a connection.")


def _refusal(problems: list[dict[str, str]]) -> APIError:
    return APIError(400, "INVALID_REQUEST", "The request has invalid fields.", problems)
