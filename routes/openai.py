"""OpenAI's API (platform.openai.com/docs/api-reference), in its own shapes: any OpenAI client can use the service."""

from __future__ import annotations

import base64
import functools
import math
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from quart import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from providers.base import (
    ProviderBadRequest,
    ProviderContentRefused,
    ProviderContextTooLong,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderTimeout,
    Usage,
)
from routes.body import read_body
from routes.connection import BASE
from routes.context import Caller, caller, headers, require, sidecast, while_heard
from routes.errors import RENDERERS, RETRY_SECONDS, APIError, as_api_error
from routes.openapi import describe as describe_route
from routes.shapes import openai as shapes
from routes.shapes.requests import CallerHeaders, CompletionHeaders, ModelFilter
from services.budgets import BudgetSpent
from services.database import DatabaseUnavailable
from services.gateway import AUTO, Completion, UnknownModel
from services.keys import COMMUNITY, SERVICE

blueprint = Blueprint("openai", __name__, url_prefix=BASE)
MAX_MESSAGES = 50
MAX_TEXTS = 256
MAX_RETRY_SECONDS = 86_400
Refusal = APIError | BudgetSpent | UnknownModel | ProviderError
_described = functools.partial(
    describe_route,
    roles=[SERVICE, COMMUNITY],
    headers=CallerHeaders,
    errors=[404, 504],
    bare=True,
    refusal=shapes.OpenAIRefusal,
)

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_CODES: dict[type[ProviderError], str] = {
    ProviderContextTooLong: "context_length_exceeded",
    ProviderContentRefused: "content_filter",
}


class _Strict(BaseModel):
    """Fields that it does not name are refused: what has no effect here would be missed silently."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class StreamOptions(_Strict):
    include_usage: bool = False


class ChatBody(_Strict):
    """A request for a chat completion, as far as any provider here takes it."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Name = AUTO
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class EmbeddingBody(_Strict):
    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    model: Name = AUTO
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


@blueprint.post("/chat/completions")
@_described(shapes.Completion, body=ChatBody, headers=CompletionHeaders, media=["text/event-stream"])
async def post_completion() -> Response:
    """A chat completion, whole or as a stream of server-sent events."""
    asking = await _caller()
    asked = await read_body(ChatBody)
    if asked.stream:
        bodies = chunk_bodies(asked, await completion(asked, asking))
        async with while_heard():
            first = await anext(bodies)  # an outage up to here is an error's status, not a broken stream
        answer = Response(_events(first, bodies), content_type="text/event-stream; charset=utf-8")
        answer.headers["Cache-Control"] = "no-cache"
        answer.timeout = None
        return answer
    async with while_heard():
        # A caller that would take an answer from a cache takes one that another caller waits for already.
        shared = "max-age=" in headers().get("cache-control", "")
        reply = await sidecast().gateway.complete(await completion(asked, asking), shared=shared)
    choices = [_choice(number, dict(choice)) for number, choice in enumerate(reply.choices)]
    body = _made("chat.completion") | {"model": reply.model, "choices": choices, "usage": _usage(reply.usage)}
    return _answer(body)


@blueprint.post("/embeddings")
@_described(shapes.Embeddings, body=EmbeddingBody)
async def post_embedding() -> Response:
    """Texts as vectors."""
    asking = await _caller()
    asked = await read_body(EmbeddingBody)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    chain = await asking.chain_for(asked.model)
    made = await sidecast().gateway.embed(texts, asked.model, chain, asking.account, priced=asking.priced)
    data = [
        {"object": "embedding", "index": number, "embedding": _vector(list(vector), asked.encoding_format)}
        for number, vector in enumerate(made.vectors)
    ]
    tokens = made.usage.prompt_tokens or 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens} | ({"estimated": True} if made.usage.estimated else {})
    return _answer({"object": "list", "data": data, "model": made.model, "usage": usage})


@blueprint.get("/models")
@_described(shapes.Models, query=ModelFilter)
async def get_models() -> Response:
    """The models of all providers, and whether each provider answers; `?free=true` those that cost nothing."""
    asking = await _caller()
    return _answer({"object": "list", "data": await _models(asking, free=request.args.get("free") == "true")})


@blueprint.get("/models/<path:name>")
@_described(shapes.Model)
async def get_model(name: str) -> Response:
    """One model."""
    asking = await _caller()
    found = next((model for model in await _models(asking) if model["id"] == name), None)
    if found is None:
        raise UnknownModel(name)
    return _answer(found)


@blueprint.errorhandler(APIError)
@blueprint.errorhandler(BudgetSpent)
@blueprint.errorhandler(UnknownModel)
@blueprint.errorhandler(ProviderError)
@blueprint.errorhandler(HTTPException)
@blueprint.errorhandler(DatabaseUnavailable)
async def refuse(error: Refusal | HTTPException | DatabaseUnavailable) -> Response:
    """Every error of these routes in OpenAI's shape."""
    status, body = describe(as_api_error(error) if isinstance(error, HTTPException | DatabaseUnavailable) else error)
    answer = _answer({"error": body})
    answer.status_code = status
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if status in {429, 503}:
        wait = error.seconds if isinstance(error, BudgetSpent) else getattr(error, "retry_after", None)
        answer.headers["Retry-After"] = str(math.ceil(min(wait, MAX_RETRY_SECONDS))) if wait else RETRY_SECONDS
    return answer


RENDERERS[blueprint.name] = refuse


def describe(error: Refusal) -> tuple[int, dict[str, Any]]:
    """The status of an error, and OpenAI's body for it."""
    if isinstance(error, APIError):
        [detail, *_] = error.details or [{"field": "", "problem": ""}]
        message = f"{error.message} {detail['field']}: {detail['problem']}" if detail["field"] else error.message
        code = "invalid_api_key" if error.status == 401 else None
        return error.status, _error(error.status, message, detail["field"].split(".")[0] or None, code)
    if isinstance(error, BudgetSpent):
        return 429, _error(429, "The community's budget for today is used up.", None, "insufficient_quota")
    if isinstance(error, UnknownModel | ProviderNotFound):
        missing = "does not exist here" if isinstance(error, UnknownModel) else "is not at its provider"
        return 404, _error(404, f"The model {missing}.", "model", "model_not_found")
    if isinstance(error, ProviderBadRequest):
        message = f"The model's provider does not take this request ({error.reason})."
        return 400, _error(400, message, error.param, _CODES.get(type(error)))
    if isinstance(error, ProviderRateLimited):
        return 429, _error(429, "The model's provider asks to wait.", None, "rate_limit_exceeded")
    status = 504 if isinstance(error, ProviderTimeout) else 503
    return status, _error(status, f"No model answered ({error.reason}).", None, error.reason)


def _error(status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    return {"message": message, "type": kind, "param": param, "code": code}


def _answer(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), content_type="application/json")


def _message(message: Message) -> dict[str, Any]:
    fields = message.model_dump(exclude_none=True, exclude={"refusal"})
    # What OpenAI calls a developer is the system to every other provider.
    return fields | {"role": "system"} if message.role == "developer" else fields


async def _caller() -> Caller:
    return await caller(await require(SERVICE, COMMUNITY), headers().get("x-community-id"))


async def completion(asked: ChatBody, asking: Caller) -> Completion:
    """What a caller asks for. Raises BudgetSpent."""
    messages = [_message(message) for message in asked.messages]
    chain = await asking.chain_for(asked.model)
    return Completion(messages, chain, asked.model, _parameters(asked), asking.account, priced=asking.priced)


def _made(kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time())}


def _parameters(asked: ChatBody) -> dict[str, Any]:
    """What the client gave, by the names that providers take."""
    given = asked.model_dump(exclude_none=True, exclude={"messages", "model", "stream", "stream_options"})
    if "max_completion_tokens" in given:
        given["max_tokens"] = given.pop("max_completion_tokens")
    # What is the default anyway is no reason to pass a provider over.
    for name, default in (("n", 1), ("logprobs", False), ("presence_penalty", 0), ("frequency_penalty", 0)):
        if given.get(name) == default:
            del given[name]
    return given


def _choice(number: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None} | dict(choice["message"])
    base = {"index": number, "message": message, "logprobs": choice.get("logprobs")}
    return base | {"finish_reason": choice.get("finish_reason") or "stop"}


def _usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's counts, and `estimated` where the provider did not count."""
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return counts | ({"estimated": True} if usage.estimated else {})


async def chunk_bodies(asked: ChatBody, wanted: Completion) -> AsyncGenerator[dict[str, Any], None]:
    """The reply in OpenAI's chunks, the usage last if it was asked for. Raises UnknownModel, ProviderError."""
    pieces = sidecast().gateway.stream(wanted)
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    base = _made("chat.completion.chunk") | ({"usage": None} if include_usage else {})
    usage, model = Usage(), asked.model
    try:
        async for chunk in pieces:
            usage, model = chunk.usage or usage, chunk.model
            if chunk.choices:
                yield base | {"model": model, "choices": chunk.choices}
    finally:
        await pieces.aclose()
    if include_usage:
        yield base | {"model": model, "choices": [], "usage": _usage(usage)}


async def _events(first: dict[str, Any], bodies: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[bytes]:
    """The chunks as OpenAI frames them, then `[DONE]`; or an error, and no `[DONE]`."""
    try:
        yield _frame(first)
        async for body in bodies:
            yield _frame(body)
    except ProviderError as error:
        yield _frame({"error": describe(error)[1]})
        return
    finally:
        await bodies.aclose()
    yield b"data: [DONE]\n\n"


def _frame(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _vector(vector: list[float], encoding: str) -> list[float] | str:
    """Numbers, or as the official client asks for them: 32-bit floats, little-endian, in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector


async def _models(asking: Caller, *, free: bool = False) -> list[dict[str, Any]]:
    auto = {"id": AUTO, "object": "model", "created": 0, "owned_by": "sidecast", "provider": None, "state": "up"}
    listed = [] if free else [auto]
    for part in await sidecast().gateway.models(asking.chain):
        state = {"provider": part.provider, "state": "up" if part.up else "down"}
        listed += [
            {"id": f"{part.provider}/{model.id}", "object": "model", "created": model.created}
            | {"owned_by": model.owner or part.provider}
            | state
            | {"pricing": {"prompt": model.prompt_price, "completion": model.completion_price}}
            for model in part.models
            if model.free or not free
        ]
    return listed
