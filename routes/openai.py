"""OpenAI's API (platform.openai.com/docs/api-reference), in its own shapes: any OpenAI client can use the service."""

from __future__ import annotations

import base64
import math
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from quart import Blueprint, Response, request

from providers.base import (
    Chunk,
    ProviderBadRequest,
    ProviderContentRefused,
    ProviderContextTooLong,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    Usage,
)
from routes.body import read_body
from routes.context import BASE, require, sidecast
from routes.errors import RETRY_SECONDS, APIError
from services.gateway import AUTO, Completion, UnknownModel
from services.keys import SERVICE

blueprint = Blueprint("openai", __name__, url_prefix=BASE)
MAX_MESSAGES = 50
MAX_TEXTS = 256

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error"}
_CODES: dict[type[ProviderError], str] = {
    ProviderContextTooLong: "context_length_exceeded",
    ProviderContentRefused: "content_filter",
}


class _Strict(BaseModel):
    """Fields that it does not name are refused: what has no effect here would be missed silently."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class _StreamOptions(_Strict):
    include_usage: bool = False


class _Chat(_Strict):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Name = AUTO
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
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


class _Embedding(_Strict):
    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    model: Name = AUTO
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


@blueprint.post("/chat/completions")
async def post_completion() -> Response:
    """A chat completion, whole or as a stream of server-sent events."""
    require(SERVICE)
    asked = await read_body(_Chat)
    completion = Completion([_message(message) for message in asked.messages], asked.model, _parameters(asked))
    made = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time())}
    if asked.stream:
        pieces = sidecast().gateway.stream(completion)
        first = await anext(pieces)  # an outage up to here is an error's status, not a broken stream
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        answer = Response(_events(made, first, pieces, usage), content_type="text/event-stream; charset=utf-8")
        answer.headers["Cache-Control"] = "no-cache"
        answer.timeout = None
        return answer
    reply = await sidecast().gateway.complete(completion)
    choices = [_choice(number, dict(choice)) for number, choice in enumerate(reply.choices)]
    body = made | {"object": "chat.completion", "model": reply.model, "choices": choices, "usage": _usage(reply.usage)}
    return _answer(body)


@blueprint.post("/embeddings")
async def post_embedding() -> Response:
    """Texts as vectors."""
    require(SERVICE)
    asked = await read_body(_Embedding)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    made = await sidecast().gateway.embed(texts, asked.model)
    data = [
        {"object": "embedding", "index": number, "embedding": _vector(list(vector), asked.encoding_format)}
        for number, vector in enumerate(made.vectors)
    ]
    tokens = made.usage.prompt_tokens or 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _answer({"object": "list", "data": data, "model": made.model, "usage": usage})


@blueprint.get("/models")
async def get_models() -> Response:
    """The models of all providers, and whether each provider answers; `?free=true` those that cost nothing."""
    require(SERVICE)
    return _answer({"object": "list", "data": await _models(free=request.args.get("free") == "true")})


@blueprint.get("/models/<path:name>")
async def get_model(name: str) -> Response:
    """One model."""
    require(SERVICE)
    found = next((model for model in await _models() if model["id"] == name), None)
    if found is None:
        raise UnknownModel(name)
    return _answer(found)


@blueprint.errorhandler(APIError)
async def api_error(error: APIError) -> Response:
    [detail, *_] = error.details or [{"field": "", "problem": ""}]
    message = f"{error.message} {detail['field']}: {detail['problem']}" if detail["field"] else error.message
    code = "invalid_api_key" if error.status == 401 else None
    return _refuse(error.status, message, detail["field"].split(".")[0] or None, code)


@blueprint.errorhandler(UnknownModel)
async def unknown_model(error: UnknownModel) -> Response:
    return _refuse(404, f"The model '{error}' does not exist here.", "model", "model_not_found")


@blueprint.errorhandler(ProviderError)
async def provider_error(error: ProviderError) -> Response:
    if isinstance(error, ProviderBadRequest):
        message = f"The model's provider does not take this request ({error.reason})."
        return _refuse(400, message, error.param, _CODES.get(type(error)))
    if isinstance(error, ProviderRateLimited):
        answer = _refuse(429, "The model's provider asks to wait.", None, "rate_limit_exceeded")
        answer.headers["Retry-After"] = str(math.ceil(min(error.retry_after, 3600)) or 1)
        return answer
    status = 504 if isinstance(error, ProviderTimeout) else 503
    return _refuse(status, f"No model answered ({error.reason}).", None, error.reason)


def _refuse(status: int, message: str, param: str | None, code: str | None) -> Response:
    kind = _TYPES.get(status, "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "")
    answer = _answer({"error": _error(message, kind or "invalid_request_error", param, code)})
    answer.status_code = status
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        answer.headers["Retry-After"] = RETRY_SECONDS
    return answer


def _error(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"message": message, "type": kind, "param": param, "code": code}


def _answer(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), content_type="application/json")


def _message(message: _Message) -> dict[str, Any]:
    fields = message.model_dump(exclude_none=True, exclude={"refusal"})
    # What OpenAI calls a developer is the system to every other provider.
    return fields | {"role": "system"} if message.role == "developer" else fields


def _parameters(asked: _Chat) -> dict[str, Any]:
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


def _usage(usage: Usage) -> dict[str, int]:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _events(
    made: dict[str, Any], first: Chunk, pieces: AsyncGenerator[Chunk, None], include_usage: bool
) -> AsyncIterator[bytes]:
    """The stream as OpenAI frames it: chunks, the usage if it was asked for, `[DONE]`; or an error, and no `[DONE]`."""
    usage: Usage | None = None
    base = made | {"object": "chat.completion.chunk"}
    if include_usage:
        base["usage"] = None
    model = first.model

    def frame(chunk: Chunk) -> bytes:
        return _frame(base | {"model": chunk.model, "choices": chunk.choices})

    try:
        if first.choices:
            yield frame(first)
        async for chunk in pieces:
            usage = chunk.usage or usage
            model = chunk.model
            if chunk.choices:
                yield frame(chunk)
    except ProviderError as error:
        yield _frame({"error": _error(f"The model broke off ({error.reason}).", "server_error", None, error.reason)})
        return
    finally:
        await pieces.aclose()
    if include_usage:
        yield _frame(base | {"model": model, "choices": [], "usage": _usage(usage or Usage())})
    yield b"data: [DONE]\n\n"


def _frame(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _vector(vector: list[float], encoding: str) -> list[float] | str:
    """Numbers, or as the official client asks for them: 32-bit floats, little-endian, in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector


async def _models(*, free: bool = False) -> list[dict[str, Any]]:
    auto = {"id": AUTO, "object": "model", "created": 0, "owned_by": "sidecast", "provider": None, "state": "up"}
    listed = [] if free else [auto]
    for part in await sidecast().gateway.models():
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
