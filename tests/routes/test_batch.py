"""Batches, cancelling and signed intake."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import asyncpg
import pytest

from services.webhooks import sign
from tests.conftest import API, KEY, MakeService, Service, event
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

JSON = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


async def batch(service: Service, events: list[Any]) -> list[dict[str, Any]]:
    answer = await service.post("/interaction/batch", events=events)
    body = await answer.get_json()
    assert answer.status_code == 200, body
    results: list[dict[str, Any]] = body["data"]["results"]
    assert [result["index"] for result in results] == list(range(len(events)))
    return results


async def test_a_bad_event_fails_alone(make_service: MakeService) -> None:
    service = await make_service()
    known = event(event_id="b-1")
    await service.accept(**known)
    results = await batch(
        service,
        [
            event(message_content="hello"),
            event(platform="No Such"),
            event(message_content="nothing"),
            7,
            known,
            known | {"message_content": "Hello, other"},
        ],
    )
    assert [result["success"] for result in results] == [True, False, True, False, True, False]
    assert results[0]["data"]["trigger"] == {"type": "greeting", "match": "hello"}
    assert results[1]["error"]["code"] == "INVALID_REQUEST"
    assert results[1]["error"]["details"][0]["field"] == "platform"
    assert results[2]["data"]["triggered"] is False
    assert results[3]["error"]["code"] == "INVALID_REQUEST"
    assert results[4]["data"]["duplicate"] is True
    assert results[5]["error"]["code"] == "CONFLICT"


async def test_repeats_inside_a_batch_are_one_interaction(make_service: MakeService) -> None:
    service = await make_service()
    same = event(event_id="b-2")
    results = await batch(service, [same, same, same])
    assert len({result["data"]["interaction_id"] for result in results}) == 1
    assert sorted(result["data"]["duplicate"] for result in results) == [False, True, True]


async def test_a_batch_has_1_to_500_events_and_4_mib(make_service: MakeService) -> None:
    service = await make_service()
    assert len(await batch(service, [event(message_content="x" * 5_000) for _ in range(500)])) == 500
    for events in ([], [event()] * 501, "none", None):
        answer = await service.post("/interaction/batch", events=events)
        assert answer.status_code == 400
        assert (await answer.get_json())["error"]["details"][0]["field"] == "events"
    for size, status in ((4 * 1024 * 1024, 400), (4 * 1024 * 1024 + 1, 413)):
        answer = await service.client.post(f"{API}/interaction/batch", data=b"{}".ljust(size), headers=JSON)
        assert answer.status_code == status


async def test_headers_do_not_name_the_events_of_a_batch(make_service: MakeService) -> None:
    service = await make_service()
    events = {"events": [event(), event()]}
    answer = await service.client.post(f"{API}/interaction/batch", json=events, headers=JSON | {"Idempotency-Key": "k"})
    results = (await answer.get_json())["data"]["results"]
    assert [result["data"]["duplicate"] for result in results] == [False, False]


async def test_a_deleted_message_or_a_banned_user_is_not_answered(make_service: MakeService) -> None:
    """What waits and what is being answered is suppressed; what was sent stays as it is."""
    stub = StubOpenAI(delay=0.4)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, max_concurrent_requests=2)
        channel = event()["entity_id"]
        acks = [
            await service.accept(entity_id=channel, user_id=user, event_id=f"c-{user}-{number}")
            for user in ("good", "bad")
            for number in range(3)
        ]
        for target, cancelled in (({"event_id": "c-good-2"}, 1), ({"user_id": "bad"}, 3), ({"user_id": "bad"}, 0)):
            answer = await service.post("/interaction/cancel", entity_id=channel, **target)
            assert (await answer.get_json())["data"] == {"cancelled": cancelled}
        elsewhere = await service.post("/interaction/cancel", entity_id="another", user_id="good")
        assert (await elsewhere.get_json())["data"] == {"cancelled": 0}
        outcomes = [await service.ended(ack["interaction_id"]) for ack in acks]
        await asyncio.sleep(0.5)
    states = [(outcome["state"], outcome["reason"]) for outcome in outcomes]
    assert states == [("delivered", None)] * 2 + [("suppressed", "cancelled")] * 4
    assert len(service.messages) == 2


@pytest.mark.parametrize(
    "body", [{}, {"event_id": "1"}, {"entity_id": "e"}, {"entity_id": "e", "event_id": "1", "user_id": "2"}]
)
async def test_a_cancellation_names_a_channel_and_a_message_or_a_user(
    make_service: MakeService, body: dict[str, str]
) -> None:
    service = await make_service()
    answer = await service.post("/interaction/cancel", **body)
    assert answer.status_code == 400


OLD, NEW = b"old-old-old-old-old-old-", b"new-new-new-new-new-new-"


def signed(raw: bytes, key: bytes, *, age: float = 0, message_id: str = "msg_1", more: str = "") -> dict[str, str]:
    now = str(int(time.time() - age))
    signature = sign(key, message_id, now, raw)
    return JSON | {"webhook-id": message_id, "webhook-timestamp": now, "webhook-signature": more + signature}


async def test_a_signed_intake_takes_signed_events_alone(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Standard Webhooks over the raw body, ±5 minutes, any of several secrets; all refusals are the same 401."""
    encoded = [f"whsec_{base64.b64encode(key).decode()}" for key in (OLD, NEW)]
    service = await make_service(intake_secret=",".join(encoded))
    posted = event()
    raw = json.dumps(posted).encode()
    wrong = sign(b"wrong", "msg_1", "1", raw)
    refused = [
        JSON,
        signed(raw, b"wrong"),
        signed(raw + b" ", NEW),
        signed(raw, NEW, age=301),
        signed(raw, NEW, age=-302),
        signed(raw, NEW) | {"webhook-id": "msg_2"},
        signed(raw, NEW) | {"webhook-id": ""},
        signed(raw, NEW) | {"webhook-timestamp": "now"},
        signed(raw, NEW) | {"webhook-signature": ""},
        signed(raw, NEW) | {"webhook-signature": "v1,é"},
    ]
    bodies = set()
    for headers in refused:
        answer = await service.client.post(f"{API}/interaction", data=raw, headers=headers)
        assert answer.status_code == 401
        bodies.add(await answer.get_data(as_text=True))
    assert len(bodies) == 1
    count = "select count(*) from interactions where entity_id = $1"
    assert await database.fetchval(count, posted["entity_id"]) == 0
    for number, headers in enumerate(
        [
            signed(raw, OLD, message_id="a"),
            signed(raw, NEW, message_id="b.c"),
            signed(raw, NEW, age=290, message_id="d"),
            signed(raw, NEW, message_id="e", more=f"{wrong} "),
        ]
    ):
        answer = await service.client.post(f"{API}/interaction", data=raw, headers=headers)
        assert answer.status_code == 200, number
    assert await database.fetchval(count, posted["entity_id"]) == 4
