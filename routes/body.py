"""One strict reader for every JSON body: what other JSON parsers would read differently is refused with 400."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from quart import Request, request
from werkzeug.exceptions import RequestTimeout

from config import BODY_TIMEOUT, MAX_BATCH_BYTES, MAX_EVENT_BYTES
from routes.context import BASE, headers, sidecast
from routes.errors import APIError
from services.webhooks import BadSignature, verify

Model = TypeVar("Model", bound=BaseModel)

BATCH = f"{BASE}/interaction/batch"
MAX_DEPTH = 50
_MAX_DIGITS = 19
_UNSAFE = re.compile("[\x00\ud800-\udfff]")


class SizedRequest(Request):
    """A request whose body may be 64 KiB, and a batch's 4 MiB."""

    def __init__(self, method: str, scheme: str, path: str, *arguments: Any, **options: Any) -> None:
        options["max_content_length"] = MAX_BATCH_BYTES if path == BATCH else MAX_EVENT_BYTES
        super().__init__(method, scheme, path, *arguments, **options)


async def read_signed(model: type[Model]) -> Model:
    """As `read_body`, of a body signed by Standard Webhooks where `INTAKE_SECRET` is set. Raises APIError 401 too."""
    keys = sidecast().intake_keys
    if keys:
        given = headers()
        message_id, timestamp, signatures = (
            given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        raw = await _read()
        try:
            verify(keys, message_id, timestamp, signatures, raw)
        except BadSignature:
            raise APIError(401, "UNAUTHORIZED", "The request's signature is missing, wrong or too old.") from None
    return await read_body(model)


async def read_body(model: type[Model]) -> Model:
    """The request's body as `model`. Raises APIError 400 with each field's problem, 413 or 415."""
    given = headers()
    if given.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise APIError(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json.")
    if given.get("content-encoding", "identity") != "identity":
        raise APIError(415, "UNSUPPORTED_MEDIA_TYPE", "A compressed body is not taken.")
    raw = await _read()
    try:
        return model.model_validate(parse(raw))
    except ValidationError as error:
        raise APIError(400, "INVALID_REQUEST", "The request has invalid fields.", details(error)) from None


async def _read() -> bytes:
    """The whole body. Raises RequestTimeout, RequestEntityTooLarge."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return bytes(await request.body)
    except TimeoutError:
        raise RequestTimeout from None


def parse(raw: bytes) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN, 50 levels, 64-bit numbers, no U+0000 or lone surrogates."""
    try:
        text = raw.decode("utf-8")
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
            _check_depth(text)
        value = _DECODER.decode(text)
    except UnicodeDecodeError:
        _refuse("the body is not UTF-8")
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error.msg} at character {error.pos}")
    if b"\\u" in raw:
        _check_texts(value)
    return value


def _refuse(problem: str) -> NoReturn:
    raise APIError(400, "INVALID_REQUEST", "The body cannot be read.", [{"field": "body", "problem": problem}])


def details(error: ValidationError) -> list[dict[str, str]]:
    """The name of each bad field and the rule it breaks; values are not repeated."""
    return [
        {"field": ".".join(map(str, problem["loc"])) or "body", "problem": problem["msg"]}
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        _refuse("a key stands twice in one object")
    return made


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS or not -(2**63) <= (number := int(digits)) < 2**63:
        _refuse("a number is beyond 64 bits")
    return number


def _fraction(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        _refuse("a number is beyond what a double holds")
    return number


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole_number, parse_float=_fraction, parse_constant=_constant
)


def _check_depth(text: str) -> None:
    """Refuse what is nested deeper than 50 levels before a recursive parser sees it."""
    depth = 0
    quoted = escaped = False
    for sign in text:
        if quoted:
            quoted = escaped or sign != '"'
            escaped = sign == "\\" and not escaped
        elif sign == '"':
            quoted = True
        elif sign in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(f"the body is nested deeper than {MAX_DEPTH} levels")
        elif sign in "]}":
            depth -= 1


def _check_texts(value: Any) -> None:
    """Refuse texts that PostgreSQL or UTF-8 cannot hold."""
    if isinstance(value, str):
        if _UNSAFE.search(value):
            _refuse("a text holds U+0000 or half of a surrogate pair")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_texts(key)
            _check_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner)
