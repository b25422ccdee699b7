"""Values at the ends of what their types hold are taken or refused, and break nothing."""

from __future__ import annotations

from typing import Any

import pytest

from config import MAX_COMPLETION_BYTES
from tests.conftest import API, KEY, MakeService
from tests.routes.test_config import community

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/usage?until=9999-12-31", "until"),
        ("/usage?until=0001-01-01", "until"),
        ("/usage?since=0001-01-01", "since"),
        ("/audit?before=9223372036854775808", "before"),
        ("/history?community_id={}&before=9999-12-31T23:59:59-14:00", "before"),
        ("/history?community_id={}&user_id=%00", "user_id"),
        (
            "/history?community_id={}&cursor=MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMCAwMWExZmNhYi0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMGU3ZTc",
            "cursor",
        ),
        ("/history?community_id={}&before=0001-01-01T00:00:00%2B14:00", "before"),
        ("/users/twi%00tch/42", "platform"),
        ("/users/twitch/%00", "user_id"),
    ],
)
async def test_what_cannot_be_asked_is_named(make_service: MakeService, path: str, field: str) -> None:
    service = await make_service()
    answer = await service.client.get(API + path.format(await community(service)), headers=HEADERS)
    body = await answer.get_json()
    assert (answer.status_code, body["error"]["details"][0]["field"]) == (400, field), body


async def test_a_person_of_no_name_cannot_be_forgotten(make_service: MakeService) -> None:
    service = await make_service()
    answer = await service.client.delete(f"{API}/users/twitch/%00", headers=HEADERS)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/usage?since=1970-01-01&until=9998-12-31",
        "/usage?until=1970-01-01",
        "/audit?before=9223372036854775807",
        "/history?community_id={}&before=9999-12-31T23:59:59Z",
        "/history?community_id={}&before=0001-01-01T00:00:00Z",
        "/users/twitch/a%2Fb",
    ],
)
async def test_what_can_just_be_asked_is_answered(make_service: MakeService, path: str) -> None:
    service = await make_service()
    answer = await service.client.get(API + path.format(await community(service)), headers=HEADERS)
    assert answer.status_code == 200, await answer.get_json()


@pytest.mark.parametrize(("expires_at", "status"), [("9999-12-31T23:59:59Z", 200), ("9999-12-31T23:59:59-14:00", 400)])
async def test_a_key_ends_within_the_calendar(make_service: MakeService, expires_at: str, status: int) -> None:
    answer = await (await make_service()).post("/keys", role="service", expires_at=expires_at)
    assert answer.status_code == status, await answer.get_json()


async def test_what_no_openai_route_has_read_is_refused_in_openais_shape_too(make_service: MakeService) -> None:
    service = await make_service()
    answer: Any = await service.post("/embeddings", input="x" * MAX_COMPLETION_BYTES)
    body = await answer.get_json()
    assert (answer.status_code, body["error"]["type"]) == (413, "invalid_request_error"), body


async def test_a_database_that_is_away_is_told_in_openais_shape_too(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await make_service()
    monkeypatch.setattr(service.sidecast.database, "_pool", None)
    headers = HEADERS | {"X-Community-Id": "01a1fcab-0000-7000-8000-00000000c0de"}
    answer = await service.client.get(f"{API}/models", headers=headers)
    monkeypatch.undo()
    body = await answer.get_json()
    assert (answer.status_code, body["error"]["type"]) == (503, "server_error"), body
    assert answer.headers["Retry-After"] == "1"


async def test_a_bug_is_told_in_the_shape_of_its_route(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: Any, **__: Any) -> None:
        raise RuntimeError("canary")

    service = await make_service(log_level="ERROR")
    monkeypatch.setattr(service.sidecast.gateway, "models", bug)
    monkeypatch.setattr(service.sidecast.keys, "of", bug)
    answer = await service.get(f"{API}/models")
    assert answer.status_code == 500
    error = (await answer.get_json())["error"]
    assert (error["type"], error["message"]) == ("server_error", "Something went wrong on our side.")
    answer = await service.get(f"{API}/keys")
    assert (await answer.get_json())["error"]["code"] == "INTERNAL_ERROR"


@pytest.mark.parametrize(("path", "field"), [(f"twitch/{'x' * 256}", "user_id"), ("My%20Space/42", "platform")])
async def test_a_person_is_named_as_in_events(make_service: MakeService, path: str, field: str) -> None:
    service = await make_service()
    for call in (service.client.get, service.client.delete):
        answer = await call(f"{API}/users/{path}", headers=HEADERS)
        assert answer.status_code == 400
        assert [detail["field"] for detail in (await answer.get_json())["error"]["details"]] == [field]
