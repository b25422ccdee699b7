"""Answering: bounded, in order of the journal, with a fallback, and taken up again when an instance is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from services.contents import Contents
from services.events import ChatEvent
from services.ids import new_id
from services.interactions import Entry, Interaction, Interactions
from services.limits import Taking
from services.tasks import Tasks
from tests.conftest import MakeService, Service, event
from tests.stubs.openai import StubOpenAI
from tests.stubs.router import StubRouter
from tests.stubs.server import running

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


async def test_the_real_model_answers(make_service: MakeService) -> None:
    service = await make_service()
    body = await service.answered(message_content="Hello there!", display_name="JohnDoe")
    text = body["response_data"]["message"]
    assert text.startswith("🤖 ")
    assert 3 < len(text) <= 500
    assert body["response_data"]["fallback"] is False


async def test_no_more_at_once_than_set_and_the_rest_wait_in_postgresql(
    make_service: MakeService, database: Connection
) -> None:
    stub = StubOpenAI(delay=0.5)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, max_concurrent_requests=3)
        acks = await asyncio.gather(*(service.accept() for _ in range(10)))
        states = await database.fetch("select state, count(*) from interactions where ended_at is null group by 1")
        counts = {row["state"]: row["count"] for row in states}
        assert counts["answering"] <= 3
        assert counts["received"] >= 7
        outcomes = [await service.ended(ack["interaction_id"]) for ack in acks]
    assert {outcome["state"] for outcome in outcomes} == {"delivered"}
    assert stub.most_at_once == 3
    waits = sorted(outcome["timings"]["waited"] for outcome in outcomes)
    assert waits[3] > 450, "all but the first three waited for a slot"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"message_content": "hi"}, "Hello Jo!"),
        ({"message_content": "bye"}, "See you soon, Jo!"),
        ({"message_content": "is it late?"}, "Good question, Jo!"),
        ({"message_type": "raid"}, "Welcome, raiders! Thank you, Jo!"),
        ({"message_type": "follow"}, "Thank you for the follow, Jo!"),
    ],
)
async def test_the_canned_text_goes_out_when_every_provider_fails(
    make_service: MakeService, fields: dict[str, Any], said: str
) -> None:
    first, second = StubOpenAI((500, "text/plain", "no")), StubOpenAI((200, "text/html", "<html>"))
    async with running(first.app) as url, running(second.app) as other:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url=url,
            ai_fallbacks="embedded/any",
            embedded_model_url=other,
        )
        body = await service.answered(display_name="Jo", **fields)
        outcome = await service.outcome(body["interaction_id"])
    assert said in body["response_data"]["message"]
    assert body["response_data"]["fallback"] is True
    assert outcome["state"] == "delivered"
    assert outcome["reason"] == "waddleai: provider_bad_answer, embedded: provider_bad_answer"


async def test_the_next_provider_answers_when_one_fails(make_service: MakeService) -> None:
    """It has a model name of its own, and the interaction says why the first did not answer."""
    stub = StubOpenAI((503, "text/plain", "down"))
    async with running(stub.app) as url:
        service = await make_service(
            ai_provider="waddleai", ai_model="big", waddleai_base_url=url, ai_fallbacks="embedded"
        )
        body = await service.answered()
        outcome = await service.outcome(body["interaction_id"])
    assert [request["model"] for request in stub.requests] == ["big"] * 3, "a status 503 may heal"
    assert body["response_data"]["fallback"] is False
    assert outcome["provider"] == "embedded"
    assert outcome["model"] == "SmolLM2-135M-Instruct.Q4_1"
    assert outcome["reason"] == "waddleai: provider_bad_answer"


async def test_nobody_wants_a_late_hello(make_service: MakeService) -> None:
    stub = StubOpenAI(delay=5)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, reply_ttl=0.3)
        outcome = await service.ended((await service.accept())["interaction_id"])
    assert (outcome["state"], outcome["reason"]) == ("expired", "reply_ttl")
    assert service.messages == []


async def crash(service: Service, lease_seconds: float = 0.001, **fields: Any) -> str:
    """Leave a row as an instance that was killed leaves it: leased, and soon the lease is over."""
    chat = ChatEvent(**event(**fields))
    community = (await service.sidecast.communities.of([chat]))[chat.entity_id]
    trigger = community.triggers.match(chat)
    assert trigger is not None
    item = Interaction(new_id(), community.community_id, chat, trigger, 0.0)
    entry = Entry(
        item,
        chat.model_dump_json(),
        f"id:{item.interaction_id}",
        b"hash",
        60,
        Taking(item.interaction_id, ()),
        leased=True,
    )
    parts = service.sidecast
    contents = Contents(parts.vault, parts.log)
    killed = Interactions(parts.database, parts.communities, contents, Tasks(parts.log), uuid4(), lease_seconds)
    assert await killed.insert([entry]) == [None]
    return str(item.interaction_id)


async def test_what_a_killed_instance_held_is_answered_by_another(
    make_service: MakeService, database: Connection
) -> None:
    service = await make_service()
    interaction_id = await crash(service)
    outcome = await service.ended(interaction_id)
    assert (outcome["state"], outcome["attempts"]) == ("delivered", 2)
    [body] = service.messages
    assert body["interaction_id"] == interaction_id


async def test_a_poisoned_event_ends_with_the_canned_text(make_service: MakeService, database: Connection) -> None:
    service = await make_service(max_attempts=1)
    outcome = await service.ended(await crash(service))
    assert (outcome["state"], outcome["reason"]) == ("delivered", "attempts_exhausted")
    assert service.messages[0]["response_data"]["fallback"] is True


async def test_an_answered_row_is_delivered_without_a_second_model_call(
    make_service: MakeService, database: Connection
) -> None:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        interaction_id = await crash(service, lease_seconds=3600)
        await database.execute(
            "update interactions set state = 'answered', reply = 'Kept', answered_at = now(), lease_until = now() "
            "where interaction_id = $1",
            interaction_id,
        )
        assert (await service.ended(interaction_id))["state"] == "delivered"
    assert stub.requests == []
    assert service.messages[0]["response_data"]["message"] == "Kept"


async def test_a_paused_owner_cannot_write_after_its_lease_went_to_another(
    make_service: MakeService, database: Connection
) -> None:
    """The fence: while one instance waits for its model, another has claimed the row."""
    stub = StubOpenAI("Too late", delay=0.3)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        ack = await service.accept()
        async with asyncio.timeout(5):
            while (await service.outcome(ack["interaction_id"]))["state"] != "answering":
                await asyncio.sleep(0.01)
        await database.execute(
            "update interactions set fence = fence + 1, lease_owner = $2 where interaction_id = $1",
            ack["interaction_id"],
            uuid4(),
        )
        await asyncio.sleep(0.6)
        assert (await service.outcome(ack["interaction_id"]))["state"] == "answering"
    assert service.messages == []


async def test_leases_are_renewed_while_the_model_thinks(make_service: MakeService, database: Connection) -> None:
    """Two instances, a model slower than the lease: one attempt, one reply."""
    stub = StubOpenAI(delay=1.5)
    async with running(stub.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "lease_seconds": 0.5}
        one, two = await make_service(**settings), await make_service(**settings)
        outcome = await one.ended((await one.accept())["interaction_id"])
    assert (outcome["state"], outcome["attempts"]) == ("delivered", 1)
    assert (len(one.messages), len(two.messages), len(stub.requests)) == (1, 0, 1)


async def test_a_stopping_instance_finishes_what_it_began(make_service: MakeService) -> None:
    stub = StubOpenAI(delay=0.3)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, drain_timeout=5)
        await service.accept()
        await service.sidecast.drain()
    assert len(service.messages) == 1
    answer = await service.post(**event())
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


async def test_leases_are_renewed_while_an_instance_drains(make_service: MakeService) -> None:
    """A drain longer than the lease: no other instance begins what this one is finishing."""
    stub = StubOpenAI(delay=1.5)
    async with running(stub.app) as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": url, "lease_seconds": 0.5, "drain_timeout": 5}
        one, two = await make_service(**settings), await make_service(**settings)
        ack = await one.accept()
        await one.sidecast.drain()
        outcome = await two.ended(ack["interaction_id"])
    assert (outcome["state"], outcome["attempts"], len(stub.requests)) == ("delivered", 1, 1)
    assert len(one.messages) + len(two.messages) == 1


async def test_what_a_stopping_instance_cannot_finish_the_next_one_begins_at_once(make_service: MakeService) -> None:
    """Handed back, not left to its lease, and the cut-off try does not count."""
    slow, quick = StubOpenAI(delay=20), StubOpenAI()
    async with running(slow.app) as slow_url, running(quick.app) as quick_url:
        first = await make_service(ai_provider="waddleai", waddleai_base_url=slow_url, drain_timeout=0.2)
        ack = await first.accept()
        await first.sidecast.drain()
        second = await make_service(ai_provider="waddleai", waddleai_base_url=quick_url)
        outcome = await second.ended(ack["interaction_id"], seconds=5)
    assert (outcome["state"], outcome["attempts"]) == ("delivered", 1)


async def test_a_slow_router_holds_no_slot(make_service: MakeService) -> None:
    """With one slot and a router that is down, models go on answering."""
    router = StubRouter(*[(503, {})] * 1000)
    stub = StubOpenAI()
    async with running(router.app) as router_url, running(stub.app) as url:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url=url,
            router_api_url=router_url,
            max_concurrent_requests=1,
            delivery_ttl=1,
        )
        acks = [await service.accept() for _ in range(5)]
        outcomes = [await service.ended(ack["interaction_id"]) for ack in acks]
    assert len(stub.requests) == 5
    assert {outcome["state"] for outcome in outcomes} == {"undeliverable"}
    assert {outcome["reason"] for outcome in outcomes} <= {"router_status_503", "router_breaker_open"}
    assert max(outcome["timings"]["answered"] for outcome in outcomes) < 1000


async def test_discord_replies_mention_nobody(make_service: MakeService) -> None:
    service = await make_service()
    body = await service.answered(platform="discord")
    assert body["response_data"]["allowed_mentions"] == {"parse": []}
