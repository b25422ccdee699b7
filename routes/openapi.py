"""The API's description: `describe` says what a route takes and answers, `make_document` tells it as OpenAPI 3.1.

quart-schema reads what its documenting decorators leave on a route, which costs a request nothing. It is not installed
in the app (`init_app`): there it would replace the JSON provider and look at every answer.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from quart import Quart
from quart_schema import (
    DataSource,
    Info,
    QuartSchema,
    document_headers,
    document_querystring,
    document_request,
    document_response,
)
from quart_schema.openapi import APIKeySecurityScheme, HttpSecurityScheme, OpenAPIProvider, Tag
from werkzeug.routing.rules import Rule

from config import Settings
from routes.errors import CODES
from routes.shapes.envelope import Refusal, Success
from routes.shapes.openai import OpenAIRefusal
from routes.shapes.reply import CompactReply, Reply
from services.keys import COMMUNITY
from services.settings import of_environment

Route = TypeVar("Route", bound=Callable[..., Any])

EXAMPLES = Path(__file__).with_name("examples.json")
TITLE = "Sidecast"
ABOUT = """An AI co-host that a chat router calls.

A success is `{"success": true, "data": …}`, an error `{"success": false, "error": {"code", "message", "details"}}`;
the OpenAI-compatible endpoints have OpenAI's own shapes for both. A key travels in any one of the three headers below.
Every answer has an `X-Request-ID`: the request's own, or one that is made for it. Where `API_RATE_LIMIT` is set,
each but those of events tells in `RateLimit` and `RateLimit-Policy` how many requests the key may still make, and when
the count begins anew."""
SECURITY = {
    "bearer": HttpSecurityScheme(scheme="bearer"),
    "api_key": APIKeySecurityScheme(name="X-API-Key", in_="header"),
    "service_key": APIKeySecurityScheme(name="X-Service-Key", in_="header"),
}
# Blueprints whose routes are pages for people, and no part of the API.
PAGES = {"dashboard"}
_MORE = "_sidecast_more"
_VARIABLE = re.compile("<(?:[^<>:]*:)?([^<>]+)>")
_JSON = "application/json"
_SCHEMAS = "#/components/schemas/{model}"

_SAID = {
    400: "The request has invalid fields.",
    401: "A valid key is needed: Authorization: Bearer <key>.",
    403: "This key may not do this.",
    404: "There is no such thing here.",
    408: "The request's body did not arrive in time.",
    409: "It is not what the caller has seen, or came before with another body.",
    413: "The request's body is too large.",
    415: "The body must be application/json.",
    429: "Too many requests, or too many wrong keys from one address.",
    500: "Something went wrong on our side.",
    503: "A part that is needed does not answer; try again.",
    504: "No model answered in time.",
}
_HEADERS = {
    401: {"WWW-Authenticate": "How to present a key."},
    429: {"Retry-After": "Seconds to wait."},
    503: {"Retry-After": "Seconds to wait."},
}
_WITH_KEY = {401, 403, 429, 503}
_WITH_BODY = {400, 408, 413, 415}


class Undescribed(Exception):
    """A route that nothing is said of; the text says what to do."""


@dataclass(frozen=True)
class _More:
    """What quart-schema has no place for."""

    answer: Any
    roles: tuple[str, ...] | None
    errors: frozenset[int]
    media: tuple[str, ...]
    answer_headers: Mapping[str, str]
    bare: bool
    refusal: type[BaseModel]


def describe(
    answer: Any = None,
    *,
    roles: Iterable[str] | None,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    headers: type[BaseModel] | None = None,
    errors: Iterable[int] = (),
    media: Iterable[str] = (),
    answer_headers: Mapping[str, str] | None = None,
    bare: bool = False,
    refusal: type[BaseModel] = Refusal,
) -> Callable[[Route], Route]:
    """Says of a route what its docstring does not; examples are in `examples.json`, by the route's name.

    `answer` is the shape of a success's `data`, or of all of it where it is `bare`; `media` are the types of answers
    that are no JSON. `roles` may call it besides admins, or anyone where they are None. `errors` are statuses besides
    those that follow from the rest.
    """
    statuses = {500, *errors}
    statuses |= set() if roles is None else _WITH_KEY
    statuses |= _WITH_BODY if body else {400} if query else set()
    statuses |= {404} if query and "community_id" in query.model_fields else set()
    listed = None if roles is None else tuple(roles)
    more = _More(answer, listed, frozenset(statuses), tuple(media), answer_headers or {}, bare, refusal)

    def decorator(route: Route) -> Route:
        if body:
            document_request(body)(route)
        if query:
            document_querystring(query)(route)
        if headers:
            document_headers(headers)(route)
        if answer:
            document_response(answer if bare else Success[answer])(route)
        setattr(route, _MORE, more)
        return route

    return decorator


def make_document(app: Quart, version: str) -> dict[str, Any]:
    """The OpenAPI document of all routes. Raises Undescribed."""
    app.config.setdefault("QUART_SCHEMA_CONVERSION_PREFERENCE", "pydantic")
    app.config.setdefault("QUART_SCHEMA_CONVERT_CASING", False)
    info = Info(title=TITLE, version=version, description="\n\n".join([ABOUT, *_websockets(app)]))
    schema = QuartSchema(info=info, security_schemes=dict(SECURITY), tags=_tags(app))
    document: dict[str, Any] = _Provider(app, schema).schema()
    components = document["components"]
    document["webhooks"] = _webhooks(components["schemas"])
    components["responses"] = _refusals(app, components["schemas"])
    return document


def load_examples() -> dict[str, Any]:
    """Examples by operation: `body`, `answer`, `parameters`, or a media type; outside of them, those of all paths."""
    examples: dict[str, Any] = orjson.loads(EXAMPLES.read_bytes())
    for name in ("get_config", "put_config"):
        # With every setting, as it is where nobody has set anything.
        examples[name]["answer"] = of_environment(Settings.model_construct()) | examples[name]["answer"]
    return examples


class _Provider(OpenAPIProvider):
    """quart-schema's document, with what it leaves out."""

    def __init__(self, app: Quart, extension: QuartSchema) -> None:
        super().__init__(app, extension)
        self._examples = load_examples()

    def operation_id(self, _method: str, _path: str, func: Callable[..., Any]) -> str:
        return func.__name__

    def generate_rules(self) -> Iterable[Rule]:
        return [rule for rule in super().generate_rules() if _tag(rule) not in PAGES]

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Raises Undescribed."""
        more = getattr(self._app.view_functions[rule.endpoint], _MORE, None)
        if more is None:
            raise Undescribed(f"{rule.rule}: its route needs @describe(…), and an example in {EXAMPLES.name}")
        built, components = super().build_paths(rule)
        [operations] = _plain(built).values()
        for operation in operations.values():
            self._complete(operation, more, _tag(rule))
        # quart-schema's own path loses all but the last of several variables, where that has a converter.
        return {_VARIABLE.sub(r"{\1}", rule.rule): operations}, _plain(components)

    def _complete(self, operation: dict[str, Any], more: _More, tag: str) -> None:
        examples = self._examples.get(operation["operationId"], {})
        operation["tags"] = [tag]
        operation["description"] = f"{operation['description'].strip()}\n\n{_whose(more.roles)}".strip()
        operation["security"] = [] if more.roles is None else [{name: []} for name in SECURITY]
        if more.roles is not None:
            operation["x-roles"] = ["admin", *more.roles]
        for parameter in operation["parameters"]:
            common = self._examples["parameters"] if parameter["in"] == "path" else {}
            known = common | examples.get("parameters", {})
            if parameter["name"] in known:
                parameter["example"] = known[parameter["name"]]
        if "requestBody" in operation:
            operation["requestBody"]["content"][_JSON]["example"] = examples.get("body")
        has_path = any(parameter["in"] == "path" for parameter in operation["parameters"])
        answers = operation.pop("responses")
        operation["responses"] = {"200": _answer(answers.get(200), more, examples)} | {
            str(status): {"$ref": f"#/components/responses/{_name(more, status)}"}
            for status in sorted(more.errors | ({404} if has_path else set()))
        }

    def build_querystring_parameters(self, model: type[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        parameters, components = super().build_querystring_parameters(model)
        for parameter in parameters:
            schema = parameter["schema"]
            # A query has no null: what may be left out is left out.
            schema |= next((kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}), {})
        return parameters, components

    def build_headers_parameters(self, model: type[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        # By the names that the model's aliases give them, which quart-schema would write small.
        parameters, components = self.build_querystring_parameters(model)
        return [parameter | {"in": "header"} for parameter in parameters], components

    def build_request_body(self, model: type[Any], source: DataSource) -> tuple[dict[str, Any], dict[str, Any]]:
        body, components = super().build_request_body(model, source)
        content = body["content"][_JSON]
        components[model.__name__] = content["schema"]
        content["schema"] = {"$ref": _SCHEMAS.format(model=model.__name__)}
        return body | {"required": True}, components


def _answer(built: dict[str, Any] | None, more: _More, examples: Mapping[str, Any]) -> dict[str, Any]:
    """A success, from what quart-schema built of its shape."""
    answer = built or {"content": {}}
    told = isinstance(more.answer, type) and (issubclass(more.answer, BaseModel) or is_dataclass(more.answer))
    answer["description"] = inspect.cleandoc(more.answer.__doc__ or "") if told else "As it is."
    if _JSON in answer["content"]:
        example = examples.get("answer")
        answer["content"][_JSON]["example"] = example if more.bare else {"success": True, "data": example}
    for media in more.media:
        # Without a schema: of a stream it would be that of one event, of a file there is none.
        answer["content"][media] = {"example": examples[media]} if media in examples else {}
    return answer | _with_headers(more.answer_headers)


def _with_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    told = {name: {"description": said, "schema": {"type": "string"}} for name, said in headers.items()}
    return {"headers": told} if told else {}


def _whose(roles: tuple[str, ...] | None) -> str:
    if roles is None:
        return "Needs no key."
    named = [f"`{COMMUNITY}:<id>`" if role == COMMUNITY else f"`{role}`" for role in roles]
    return f"Needs a key of the role {' or '.join([*named, '`admin`'])}."


def _refusals(app: Quart, schemas: dict[str, Any]) -> dict[str, Any]:
    """Every error that some operation refers to."""
    described = [getattr(route, _MORE, None) for route in app.view_functions.values()]
    named = {_name(more, status): (more, status) for more in described if more for status in more.errors | {404}}
    return {name: _refusal(named[name][0].refusal, named[name][1], schemas) for name in sorted(named)}


def _name(more: _More, status: int) -> str:
    return f"{more.refusal.__name__}{status}"


def _refusal(model: type[BaseModel], status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    code, message = CODES.get(status, CODES[500]), _SAID[status]
    if model is OpenAIRefusal:
        kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
        example: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    else:
        example = {"success": False, "error": {"code": code, "message": message, "details": []}}
    content = {_JSON: {"schema": _refer(model, schemas), "example": example}}
    return {"description": message, "content": content} | _with_headers(_HEADERS.get(status, {}))


def _refer(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to a shape, which is added with all that it consists of."""
    schema: dict[str, Any] = _plain(model.model_json_schema(ref_template=_SCHEMAS, mode="serialization"))
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


def _webhooks(schemas: dict[str, Any]) -> dict[str, Any]:
    """What the router receives."""
    examples = {name: {"value": value} for name, value in load_examples()["reply"].items()}
    content = {"schema": {"oneOf": [_refer(model, schemas) for model in (Reply, CompactReply)]}, "examples": examples}
    described = {
        "operationId": "reply",
        "summary": "A reply, posted to the router at ROUTER_API_URL + ROUTER_RESPONSE_PATH.",
        "description": "Signed by Standard Webhooks where ROUTER_CALLBACK_SECRET is set; `webhook-id` is the "
        "interaction's id, `X-Request-ID` that of the request which brought the event, and `traceparent` its trace, "
        "where one is made. Offered again until it is taken, refused or too old; redirects are not followed.",
        "requestBody": {"required": True, "content": {_JSON: content}},
        "responses": {
            "2XX": {"description": "Taken."},
            "408": {"description": "Offered again later, as after 429 and 5XX."},
            "429": {"description": "Offered again later, after `Retry-After`, 30 s at most."},
            "3XX": {"description": "Not offered again."},
            "4XX": {"description": "Not offered again."},
            "5XX": {"description": "Offered again later."},
        },
    }
    return {"reply": {"post": described}}


def _websockets(app: Quart) -> list[str]:
    """What OpenAPI has no place for, from the docstrings of the modules."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.websocket]
    return [f"`WS {rule.rule}`: {_room(app, rule.endpoint.partition('.')[0])}" for rule in rules]


def _tags(app: Quart) -> list[Tag | dict[str, Any]]:
    """A tag for each blueprint that has routes, with what its module says of itself."""
    names = {_tag(rule) for rule in app.url_map.iter_rules() if not rule.websocket} - PAGES
    return [Tag(name=name, description=_room(app, name)) for name in app.blueprints if name in names]


def _tag(rule: Rule) -> str:
    return str(rule.endpoint).partition(".")[0]


def _room(app: Quart, name: str) -> str:
    return inspect.cleandoc(sys.modules[app.blueprints[name].import_name].__doc__ or "")


def _plain(value: Any) -> Any:
    """Without the titles that pydantic makes of names, and without null as a default: absent is not always null."""
    if isinstance(value, dict):
        noise = {"title"} if isinstance(value.get("title"), str) else set()
        noise |= {"default"} if value.get("default", ...) is None else set()
        return {key: _plain(inner) for key, inner in value.items() if key not in noise}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
