"""One strict reader for every JSON body: what other JSON parsers would read differently is refused with 400."""

from __future__ import annotations

import asyncio
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, TypeVar

import jiter
from pydantic import AfterValidator, AwareDatetime, BaseModel, ValidationError
from quart import request
from werkzeug.exceptions import RequestTimeout

from config import BODY_TIMEOUT
from routes.context import headers, sidecast
from routes.errors import APIError
from services.webhooks import BadSignature, verify

Model = TypeVar("Model", bound=BaseModel)

MAX_DEPTH = 50
MAX_PROBLEM = 200
# U+0000, an integer that may be beyond 64 bits, a fraction that may be infinite: rare enough to look closer.
_DOUBTFUL = re.compile(rb"\\u0000|(?:^|[:\[,\s])-?\d{19}|[eE]\+?\d{3}")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be of the years 1 to 9999, in UTC too") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


async def read_signed(model: type[Model]) -> Model:
    """As `read_body`, of a body signed by Standard Webhooks where `INTAKE_SECRET` is set. Raises APIError 401 too."""
    keys = sidecast().intake_keys
    if keys:
        given = headers()
        message_id, timestamp, signatures = (
            given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        raw = await read_raw()
        try:
            verify(keys, message_id, timestamp, signatures, raw)
        except BadSignature:
            raise APIError(401, "UNAUTHORIZED", "The request's signature is missing, wrong or too old.") from None
    return await read_body(model)


async def read_body(model: type[Model]) -> Model:
    """The request's body as `model`. Raises APIError 400 with each field's problem, 413 or 415."""
    given = headers()
    kind = given.get("content-type", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise APIError(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json.")
    if given.get("content-encoding", "identity") != "identity":
        raise APIError(415, "UNSUPPORTED_MEDIA_TYPE", "A compressed body is not taken.")
    raw = await read_raw()
    try:
        return model.model_validate(parse(raw))
    except ValidationError as error:
        raise APIError(400, "INVALID_REQUEST", "The request has invalid fields.", details(error)) from None


def read_query(model: type[Model]) -> Model:
    """The query as `model`. Raises APIError 400 with each field's problem."""
    given = request.args.to_dict()
    if unfit := sorted(name for name, value in given.items() if "\0" in value):
        problems = [{"field": name[:100], "problem": "must have no U+0000"} for name in unfit]
        raise APIError(400, "INVALID_REQUEST", "The query has invalid fields.", problems)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise APIError(400, "INVALID_REQUEST", "The query has invalid fields.", details(error)) from None


async def read_raw() -> bytes:
    """The whole body. Raises RequestTimeout, RequestEntityTooLarge."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return bytes(await request.body)
    except TimeoutError:
        raise RequestTimeout from None


def parse(raw: bytes) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN, 50 levels, 64-bit numbers, no U+0000 or lone surrogates."""
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        _refuse(f"the body is not JSON in UTF-8: {str(error)[:MAX_PROBLEM]}")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH or _DOUBTFUL.search(raw):
        _check(value, MAX_DEPTH)
    return value


def _refuse(problem: str) -> NoReturn:
    raise APIError(400, "INVALID_REQUEST", "The body cannot be read.", [{"field": "body", "problem": problem}])


def details(error: ValidationError) -> list[dict[str, str]]:
    """The name of each bad field and the rule it breaks; values are not repeated."""
    return [
        {"field": ".".join(map(str, problem["loc"])) or "body", "problem": problem["msg"]}
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _check(value: Any, levels: int) -> None:
    """Refuse what PostgreSQL, or another parser, would read differently or not at all."""
    if isinstance(value, str) and "\0" in value:
        _refuse("a text holds U+0000")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        _refuse("a number is beyond 64 bits")
    elif isinstance(value, float) and math.isinf(value):
        _refuse("a number is beyond what a double holds")
    elif isinstance(value, dict | list):
        if levels == 0:
            _refuse(f"the body is nested deeper than {MAX_DEPTH} levels")
        for inner in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            _check(inner, levels - 1)
