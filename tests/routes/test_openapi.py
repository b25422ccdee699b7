"""`openapi.json` tells of every route, and what it tells is true; `/docs` shows it and asks no other origin."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from jsonschema_rs import Draft202012Validator

from app import FastJSON
from routes.openapi import load_examples
from tests.conftest import KEY, PROJECT, MakeService, Service
from tests.process import run_process
from tests.stubs.openai import StubOpenAI
from tests.stubs.router import StubRouter
from tests.stubs.server import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
_VARIABLE = re.compile("<(?:[^<>:]*:)?([^<>]+)>")


async def document_of(service: Service) -> dict[str, Any]:
    answer = await service.client.get("/openapi.json")
    document: dict[str, Any] = await answer.get_json()
    assert answer.status_code == 200, document
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def test_every_route_is_in_it_and_nothing_else(make_service: MakeService) -> None:
    """One that is not raises `Undescribed`, which says what to do."""
    service = await make_service()
    described = {(method, path) for method, path, _ in operations(await document_of(service))}
    every = service.app.url_map.iter_rules()
    rules = [rule for rule in every if not rule.websocket and not rule.rule.startswith("/dashboard")]
    assert described == {
        (method, _VARIABLE.sub(r"{\1}", rule.rule))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


async def test_it_is_valid_and_says_what_each_operation_is_for(make_service: MakeService) -> None:
    service = await make_service()
    document = await document_of(service)
    schemathesis.openapi.from_dict(document).validate()
    tags = {tag["name"] for tag in document["tags"]}
    names = []
    for method, path, operation in operations(document):
        assert operation["summary"], f"{method} {path}: its route's docstring is its summary"
        assert operation["description"], f"{method} {path}"
        assert set(operation["tags"]) <= tags
        names.append(operation["operationId"])
    assert len(names) == len(set(names))
    for rule in service.app.url_map.iter_rules():
        assert not rule.websocket or f"WS {rule.rule}" in document["info"]["description"]


async def test_every_body_and_answer_has_an_example_that_fits_its_schema(make_service: MakeService) -> None:
    document = await document_of(await make_service())
    answers = document["components"]["responses"] | {
        f"{operation['operationId']} answer": operation["responses"]["200"] for _, _, operation in operations(document)
    }
    bodies = {
        f"{operation['operationId']} body": operation["requestBody"]
        for _, _, operation in operations(document)
        if "requestBody" in operation
    }
    for name, part in (answers | bodies).items():
        if content := part["content"].get("application/json"):
            assert content.get("example") is not None, f"{name} has no example in routes/examples.json"
            fits(document, content["schema"], content["example"], name)
    reply = document["webhooks"]["reply"]["post"]["requestBody"]["content"]["application/json"]
    for name, example in reply["examples"].items():
        fits(document, reply["schema"], example["value"], name)


async def test_no_example_is_of_an_operation_that_is_gone(make_service: MakeService) -> None:
    known = {operation["operationId"] for _, _, operation in operations(await document_of(await make_service()))}
    assert load_examples().keys() <= known | {"parameters", "reply"}


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any, name: str) -> None:
    root = {"components": document["components"], **schema}
    problems = [error.message for error in Draft202012Validator(root).iter_errors(value)]
    assert problems == [], name


async def test_whose_key_may_do_what_is_as_it_says(make_service: MakeService) -> None:
    service = await make_service()
    made = await service.post("/communities", name="ours")
    community = (await made.get_json())["data"]["community_id"]
    for role in ("service", f"community:{community}"):
        issued = await service.post("/keys", role=role)
        headers = {"X-API-Key": (await issued.get_json())["data"]["key"]}
        for method, path, operation in operations(await document_of(service)):
            called = getattr(service.client, method.lower())
            answer = await called(re.sub("{[^}]+}", "x", path), headers=headers)
            allowed = role.partition(":")[0] in operation.get("x-roles", [role.partition(":")[0]])
            assert (answer.status_code != 403) == allowed, f"{role}: {method} {path}"


async def test_it_is_made_once_and_leaves_the_app_as_it_was(make_service: MakeService) -> None:
    service = await make_service()
    routes = dict(service.app.view_functions)
    first = await (await service.client.get("/openapi.json")).get_data(as_text=False)
    kept = service.app.extensions["openapi"]
    assert await (await service.client.get("/openapi.json")).get_data(as_text=False) == first == kept
    assert service.app.extensions["openapi"] is kept
    assert type(service.app.json) is FastJSON
    assert service.app.view_functions == routes
    assert not any(hasattr(route, "__wrapped__") for route in routes.values())


@pytest.mark.parametrize("form", ["full", "compact"])
async def test_what_the_router_receives_is_as_it_says(make_service: MakeService, form: str) -> None:
    router, stub = StubRouter(), StubOpenAI()
    async with running(router.app) as router_url, running(stub.app) as url:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url=url,
            router_api_url=router_url,
            router_response_format=form,
        )
        for platform in ("twitch", "discord"):
            ack = await service.accept(platform=platform)
            await service.ended(ack["interaction_id"])
        document = strict(await document_of(service))
    schema = document["webhooks"]["reply"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(router.bodies) == 2
    for body in router.bodies:
        fits(document, schema, body, form)


async def test_the_page_and_all_it_loads_is_served_from_here(make_service: MakeService) -> None:
    service = await make_service()
    answer = await service.client.get("/docs")
    page = await answer.get_data(as_text=True)
    assert answer.content_type == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in page + policy
    referred = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(referred) > 3
    kinds = {"js": "text/javascript", "css": "text/css", "png": "image/png", "json": "application/json"}
    for name in referred:
        answer = await service.client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.content_type.partition(";")[0] == kinds[name.rpartition(".")[2]]
        if name.endswith(".css"):
            style = await answer.get_data(as_text=True)
            assert all(address.startswith("data:") for address in re.findall(r"url\(['\"]?([^)]{5})", style))
            assert "@import" not in style
    assert "http" not in (PROJECT / "web/static/docs/docs.js").read_text()


async def test_a_file_is_kept_by_the_browser_and_no_other_is_served(make_service: MakeService) -> None:
    service = await make_service()
    answer = await service.client.get("/docs/swagger-ui.css")
    assert "max-age=3600" in answer.headers["Cache-Control"]
    again = await service.client.get("/docs/swagger-ui.css", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    for name in ("LICENSE", "index.html", "..%2f..%2f..%2fapp.py", "x.js"):
        answer = await service.client.get(f"/docs/{name}")
        assert (answer.status_code, (await answer.get_json())["error"]["code"]) == (404, "NOT_FOUND"), name


async def test_nothing_that_it_allows_to_ask_breaks_the_service(
    empty: str, make_service: MakeService, tmp_path: Path
) -> None:
    """schemathesis asks every operation, well and badly: no 5xx, and only answers that are described."""
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(
            database_url=empty, ai_provider="custom", ai_model="stub-1", custom_base_url=f"{url}/v1"
        )
        described = tmp_path / "openapi.json"
        described.write_text(json.dumps(strict(await document_with_real_ids(service))))
        async with running(service.app) as base:
            done = await run_process(
                tmp_path,
                *(sys.executable, "-m", "schemathesis.cli", "run", str(described), "--url", base),
                *("--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)),
                *("--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--no-shrink"),
                *("--continue-on-failure", "--request-timeout", "10"),
            )
    assert done.code == 0, done.output


async def document_with_real_ids(service: Service) -> dict[str, Any]:
    """The document with examples of what there is, so that not every answer is a 404."""
    ack = await service.accept(entity_id="twitch:channel:98765", user_id="42")
    outcome = await service.ended(ack["interaction_id"])
    issued = await service.post("/keys", role="service")
    known = load_examples()["parameters"]
    text = json.dumps(await document_of(service))
    for name, real in (
        ("interaction_id", ack["interaction_id"]),
        ("community_id", outcome["community_id"]),
        ("key_id", (await issued.get_json())["data"]["key_id"]),
        ("name", "custom/stub-1"),
    ):
        text = text.replace(known[name], real)
    document: dict[str, Any] = json.loads(text)
    return document


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """Nothing may be in an answer that the document does not name; clients are not told so, to leave room for more."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document
