"""Trying a message out: the reply it would get and the whole trace; nothing is journaled, remembered or posted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

if TYPE_CHECKING:
    from services.database import Connection


async def tried(service: Service, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = await service.post("/test", **body)
    told: dict[str, Any] = await answer.get_json()
    assert answer.status_code == status, told
    return told["data"] if status == 200 else told["error"]  # type: ignore[no-any-return]


async def test_a_reply_comes_with_its_whole_trace_and_nothing_is_left(
    make_service: MakeService, database: Connection
) -> None:
    stub = StubOpenAI("I am Otto")
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, waddleai_model="m")
        mine = await community(service, str(event()["entity_id"]))
        await put(service, community_id=mine, persona_name="Otto", response_prefix="> ", cache_seconds=0)
        before = await database.fetchval("select count(*) from interactions")
        trace = await tried(service, message="who are you?", community_id=mine, username="anna")
        assert trace["reply"] == "> I am Otto"
        assert trace["trigger"] == {"type": "question", "match": "?"}
        assert (trace["provider"], trace["model"], trace["reason"]) == ("waddleai", "m", None)
        assert trace["tokens"] == {"prompt": 7, "completion": 4}
        assert trace["prompt"] == stub.requests[-1]["messages"]
        assert "Otto" in trace["prompt"][0]["content"]
        assert trace["prompt"][-1] == {"role": "user", "content": '<message from="anna">\nwho are you?\n</message>'}
        assert 0 < trace["timings"]["provider"] <= trace["timings"]["total"]
        assert len((await tried(service, message="who are you?", community_id=mine))["prompt"]) == 2, "no history"
    assert await database.fetchval("select count(*) from interactions") == before
    assert service.messages == []


async def test_why_there_is_no_reply(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service, str(event()["entity_id"]))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"message": "nice play"}, "no_trigger"),
        ({"message": "hello", "username": "Nightbot"}, "bot_author"),
        ({"message": "!ai forget me"}, "commands_are_not_tried"),
    ]
    for body, reason in cases:
        trace = await tried(service, community_id=mine, **body)
        assert (trace["reply"], trace["reason"], trace["prompt"]) == (None, reason, [])
    await put(service, community_id=mine, enabled=False)
    assert (await tried(service, message="hello", community_id=mine))["reason"] == "off_or_quiet"


async def test_a_canned_text_names_what_failed(make_service: MakeService) -> None:
    service = await make_service(ai_provider="waddleai", waddleai_base_url="http://127.0.0.1:1")
    trace = await tried(service, message="hello", username="anna")
    assert (trace["reply"], trace["fallback"]) == ("🤖 Hello anna!", True)
    assert trace["reason"] == "waddleai: provider_unreachable"


async def test_an_event_can_be_tried_with_its_details(make_service: MakeService) -> None:
    service = await make_service()
    trace = await tried(service, message="", message_type="raid", metadata={"viewers": 120})
    assert trace["trigger"] == {"type": "event", "match": "raid"}
    assert "120" in trace["prompt"][-1]["content"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "message"),
        ({"message": "x" * 10_001}, 400, "message"),
        ({"message": "hi", "platform": "My Space"}, 400, "platform"),
        ({"message": "hi", "community": "1"}, 400, "community"),
        ({"message": "hi", "metadata": {"much": "x" * 17_000}}, 400, "metadata"),
        ({"message": "hi", "community_id": "00000000-0000-0000-0000-0000000000ff"}, 404, None),
        ({"message": "hi", "community_id": "mine"}, 404, None),
    ],
)
async def test_what_cannot_be_tried_is_refused(
    make_service: MakeService, body: dict[str, Any], status: int, field: str | None
) -> None:
    error = await tried(await make_service(), status, **body)
    assert [detail["field"] for detail in error["details"]] == ([field] if field else [])


async def test_trying_out_takes_no_canned_reply_from_the_chat(make_service: MakeService) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        channel = str(event()["entity_id"])
        mine = await community(service, channel)
        await put(service, community_id=mine, budget_tokens=1, budget_canned=1)
        await tried(service, message="hello", community_id=mine)
        for _ in range(2):
            trace = await tried(service, message="hello", community_id=mine)
            assert (trace["budget"], trace["fallback"]) == ("budget_canned", True)
        ack = await service.accept(entity_id=channel)
        assert (await service.ended(ack["interaction_id"]))["reason"] == "budget_canned"
