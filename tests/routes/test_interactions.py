"""POST /interaction and GET /interaction/<id>: the contract, to the letter."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.conftest import API, KEY, MakeService, event
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

JSON = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

BROKEN: list[tuple[str, Any]] = [
    *[(name, None) for name in ("session_id", "user_id", "username", "entity_id", "platform")],
    *[(name, "") for name in ("session_id", "user_id", "username", "entity_id", "platform", "message_type")],
    *[(name, "x" * 256) for name in ("session_id", "user_id", "username", "entity_id")],
    *[(name, "x" * 256) for name in ("display_name", "event_id", "reply_to")],
    *[(name, 7) for name in ("session_id", "user_id", "username", "entity_id", "platform", "message_content")],
    ("platform", "x" * 51),
    ("platform", "Twitch"),
    ("platform", "twitch\n"),
    ("platform", "twi tch"),
    ("message_type", "x" * 101),
    ("message_content", "x" * 10_001),
    ("is_bot", "yes"),
    ("is_bot", 1),
    ("roles", "moderator"),
    ("roles", [1]),
    ("metadata", []),
    ("metadata", {"note": "x" * 16_400}),
]


@pytest.mark.parametrize(("field", "value"), BROKEN)
async def test_each_rule_broken_once_is_400_and_names_the_field(
    make_service: MakeService, field: str, value: Any
) -> None:
    service = await make_service()
    answer = await service.post(**event(**{field: value}))
    body = await answer.get_json()
    assert answer.status_code == 400
    assert body["success"] is False
    assert body["error"]["code"] == "INVALID_REQUEST"
    assert [detail["field"].split(".")[0] for detail in body["error"]["details"]] == [field]
    assert body["error"]["details"][0]["problem"]


async def test_longest_values_and_nulls_are_taken(make_service: MakeService) -> None:
    """The bounds themselves are inside; null is the same as absent; unknown fields are ignored."""
    service = await make_service()
    long = dict.fromkeys(("session_id", "user_id", "username", "entity_id"), "x" * 255)
    nulls = dict.fromkeys(("message_type", "display_name", "event_id", "is_bot", "roles", "reply_to", "metadata"))
    ack = await service.accept(**long, **nulls, message_content="x" * 10_000, platform="a" * 50, extra={"any": 1})
    assert ack["triggered"] is False


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer "},
        {"X-API-Key": "wrong"},
        {"X-Service-Key": KEY[:-1]},
    ],
)
async def test_no_key_or_a_wrong_one_is_401(make_service: MakeService, headers: dict[str, str]) -> None:
    service = await make_service()
    answer = await service.client.post(f"{API}/interaction", json=event(), headers=headers)
    assert answer.status_code == 401
    assert (await answer.get_json())["error"]["code"] == "UNAUTHORIZED"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "X-Service-Key"])
async def test_a_key_travels_in_any_of_three_headers(make_service: MakeService, header: str) -> None:
    service = await make_service()
    value = f"Bearer {KEY}" if header == "Authorization" else KEY
    answer = await service.client.post(f"{API}/interaction", json=event(), headers={header: value})
    assert answer.status_code == 200


async def test_wrong_media_type_is_415(make_service: MakeService) -> None:
    service = await make_service()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = JSON | {"Content-Type": kind}
        answer = await service.client.post(f"{API}/interaction", data=json.dumps(event()), headers=headers)
        assert answer.status_code == 415
        assert (await answer.get_json())["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = await service.client.post(f"{API}/interaction", data=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415


async def test_over_64_kib_is_413(make_service: MakeService) -> None:
    service = await make_service()
    small = json.dumps(event()).encode()
    for size, status in ((64 * 1024, 200), (64 * 1024 + 1, 413)):
        answer = await service.client.post(f"{API}/interaction", data=small.ljust(size), headers=JSON)
        assert answer.status_code == status
    assert (await answer.get_json())["error"]["code"] == "TOO_LARGE"


async def test_unknown_paths_and_methods_are_json_errors(make_service: MakeService) -> None:
    service = await make_service()
    for answer, status, code in (
        (await service.get("/nowhere"), 404, "NOT_FOUND"),
        (await service.get(f"{API}/interaction"), 405, "METHOD_NOT_ALLOWED"),
        (await service.get(f"{API}/interaction/not-an-id"), 404, "NOT_FOUND"),
        (await service.get(f"{API}/interaction/{UUID(int=0)}"), 404, "NOT_FOUND"),
    ):
        assert answer.status_code == status
        assert (await answer.get_json())["error"]["code"] == code


async def test_ack_of_what_triggers_and_of_what_does_not(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    service = await make_service()
    ack = await service.accept(message_content="HELLO all")
    UUID(ack["interaction_id"])
    assert ack == {
        "message": "Processing request",
        "session_id": "s1",
        "interaction_id": ack["interaction_id"],
        "triggered": True,
        "trigger": {"type": "greeting", "match": "hello"},
        "duplicate": False,
    }
    silent = event(message_content="that was close")
    answer = await service.post(**silent)
    assert (await answer.get_json())["data"] == {
        "message": "Processing request",
        "session_id": "s1",
        "interaction_id": None,
        "triggered": False,
        "trigger": None,
        "duplicate": False,
    }
    rows = await database.fetchval("select count(*) from interactions where entity_id = $1", silent["entity_id"])
    assert rows == 0


async def test_the_row_is_committed_before_the_ack(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Another connection sees the row when the ACK arrives, though the model has not answered yet."""
    stub = StubOpenAI(delay=0.5)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        ack = await service.accept()
        state = await database.fetchval(
            "select state from interactions where interaction_id = $1", ack["interaction_id"]
        )
        assert state in {"received", "answering"}
        await service.ended(ack["interaction_id"])


async def test_the_callback_has_the_published_shape(make_service: MakeService) -> None:
    stub = StubOpenAI("Hello JohnDoe!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        posted = event(display_name="JohnDoe", event_id="e-1", reply_to="m-1", message_content="hi")
        ack = await service.accept(**posted)
        await service.ended(ack["interaction_id"])
        answer = await service.get("/dev/router/messages")
        [body] = (await answer.get_json())["messages"]
        assert body.pop("received_at")
        assert isinstance(body.pop("processing_time_ms"), int)
        assert body == {
            "session_id": "s1",
            "module_name": "ai_interaction_module",
            "success": True,
            "response_action": "chat",
            "response_data": {"message": "🤖 Hello JohnDoe!", "fallback": False},
            "interaction_id": ack["interaction_id"],
            "event_id": "e-1",
            "entity_id": posted["entity_id"],
            "platform": "twitch",
            "user_id": posted["user_id"],
            "reply_to": "m-1",
            "attempt": 1,
        }


async def test_what_became_of_an_interaction_can_be_read(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    """State, reason, model, tokens and timings stay; the texts are erased when it has ended."""
    stub = StubOpenAI("Sure!")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, ai_model="gpt-x")
        ack = await service.accept(message_content="is this on?")
        outcome = await service.ended(ack["interaction_id"])
    assert outcome["state"] == "delivered"
    assert outcome["trigger"] == {"type": "question", "match": "?"}
    assert (outcome["provider"], outcome["model"], outcome["reason"]) == ("waddleai", "gpt-x", None)
    assert outcome["tokens"] == {"prompt": 7, "completion": 4}
    assert outcome["attempts"] == 1
    assert outcome["timings"].keys() == {"waited", "provider", "answered", "delivery", "total"}
    assert (outcome["message"], outcome["reply"]) == (None, None)
    row = await database.fetchrow(
        "select event, reply from interactions where interaction_id = $1", ack["interaction_id"]
    )
    assert row is not None
    assert tuple(row) == (None, None)


async def test_a_repeat_is_answered_once(make_service: MakeService) -> None:
    """The same event_id, or Idempotency-Key, or webhook-id, in one channel: one interaction."""
    service = await make_service()
    first = event(event_id="m-1")
    one, *others = await asyncio.gather(*(service.post(**first) for _ in range(10)))
    acks = [(await answer.get_json())["data"] for answer in (one, *others)]
    assert len({ack["interaction_id"] for ack in acks}) == 1
    assert sorted(ack["duplicate"] for ack in acks) == [False] + [True] * 9
    elsewhere = await service.accept(**first | {"entity_id": "twitch:channel:elsewhere"})
    assert elsewhere["duplicate"] is False
    for header in ("Idempotency-Key", "webhook-id"):
        unnamed = event()
        answers = [
            await service.client.post(f"{API}/interaction", json=unnamed, headers=JSON | {header: "k-1"})
            for _ in range(2)
        ]
        assert [(await answer.get_json())["data"]["duplicate"] for answer in answers] == [False, True]


async def test_the_same_id_with_another_body_is_409(make_service: MakeService) -> None:
    service = await make_service()
    first = event(event_id="m-1")
    ack = await service.accept(**first)
    answer = await service.post(**first | {"message_content": "Hello again!"})
    assert answer.status_code == 409
    assert (await answer.get_json())["error"]["code"] == "CONFLICT"
    repeat = await service.accept(**first)
    assert (repeat["interaction_id"], repeat["duplicate"]) == (ack["interaction_id"], True)


async def test_bots_are_never_answered(make_service: MakeService) -> None:
    """An event of a bot ends as suppressed, with the reason, and nothing is posted."""
    service = await make_service(bot_names="Nightbot")
    for fields in ({"is_bot": True}, {"username": "NightBot"}, {"message_content": "🤖 Hello Anna!"}):
        ack = await service.accept(**fields)
        outcome = await service.outcome(ack["interaction_id"])
        assert (outcome["state"], outcome["reason"]) == ("suppressed", "bot_author")
    assert service.messages == []


async def test_an_unknown_channel_is_refused_when_registration_is_off(make_service: MakeService) -> None:
    known = event()
    await (await make_service()).accept(**known)
    service = await make_service(auto_register=False)
    answer = await service.post(**event())
    assert answer.status_code == 404
    assert (await answer.get_json())["error"]["details"][0]["field"] == "entity_id"
    assert (await service.post(**known)).status_code == 200


async def test_a_channel_seen_by_many_at_once_gets_one_community(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    services = [await make_service() for _ in range(3)]
    posted = [event(entity_id="twitch:channel:rush", message_content="o7") for _ in range(30)]
    await asyncio.gather(*(services[n % 3].post(**body) for n, body in enumerate(posted)))
    communities = await database.fetch(
        "select distinct community_id from interactions where entity_id = 'twitch:channel:rush'"
    )
    assert len(communities) == 1
    assert await database.fetchval("select count(*) from communities where name = 'twitch:channel:rush'") == 1


async def test_the_request_id_comes_back(make_service: MakeService) -> None:
    service = await make_service()
    headers = {"X-Request-ID": "abc-123"}
    answer = await service.client.get("/health/live", headers=headers)
    assert answer.headers["X-Request-ID"] == "abc-123"
    answer = await service.client.get("/health/live", headers={"X-Request-ID": "x" * 500})
    assert len(answer.headers["X-Request-ID"]) == 32
