"""Several events of a kind become one thank-you: a flood of follows, a gift of a hundred subscriptions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from services.events import ChatEvent
from services.gathering import gathers, merged
from services.occasions import occasion_of
from services.templates import TEMPLATES
from services.triggers import EVENT, Trigger
from tests.conftest import MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


def happened(message_type: str, name: str = "Jo", **metadata: Any) -> ChatEvent:
    return ChatEvent(**event(message_type=message_type, message_content="", username=name, metadata=metadata))


def canned(posted: ChatEvent, gathered: int = 0) -> list[str]:
    return occasion_of(posted, Trigger(EVENT, posted.message_type), gathered).canned


async def flood(services: list[Service], posts: list[dict[str, Any]]) -> Counter[tuple[str, str | None]]:
    """How each of some events ended, that were posted to the services in turns."""
    acks = await asyncio.gather(
        *(services[number % len(services)].accept(**fields) for number, fields in enumerate(posts))
    )
    assert all(ack["triggered"] for ack in acks)
    outcomes = [await services[0].ended(ack["interaction_id"]) for ack in acks]
    return Counter((outcome["state"], outcome["reason"]) for outcome in outcomes)


def follows(count: int, **fields: Any) -> list[dict[str, Any]]:
    base = {"message_type": "follow", "message_content": "", "entity_id": event()["entity_id"]} | fields
    return [base | {"user_id": f"f{n}", "username": f"f{n}", "event_id": f"e{n}"} for n in range(count)]


async def test_a_flood_of_follows_is_one_thank_you(make_service: MakeService) -> None:
    """On two instances; the model hears of their number, and of no names."""
    stub = StubOpenAI("Welcome, all of you!")
    async with running(stub.app) as url:
        chosen = {"ai_provider": "waddleai", "waddleai_base_url": url, "gather_seconds": 1}
        services = [await make_service(**chosen) for _ in range(2)]
        ended = await flood(services, follows(100))
        assert ended == {("delivered", None): 1, ("suppressed", "gathered"): 99}
        [asked] = stub.requests
    assert "100 viewers followed the channel." in asked["messages"][-1]["content"]
    assert "f1" not in asked["messages"][-1]["content"].replace("follow", "")
    messages = [body for service in services for body in service.messages]
    assert [body["response_data"]["message"] for body in messages] == ["🤖 Welcome, all of you!"]


async def test_a_gift_and_its_subscriptions_are_one_thank_you(make_service: MakeService) -> None:
    stub = StubOpenAI((500, "text/plain", "no"))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, gather_seconds=0.5)
        base = {"message_content": "", "entity_id": event()["entity_id"]}
        gift = base | {"message_type": "gift_subscription", "user_id": "g", "username": "Gina"}
        given = [base | {"message_type": "subscription", "user_id": f"s{n}", "username": f"s{n}"} for n in range(50)]
        ended = await flood([service], [*given[:25], gift | {"metadata": {"total": 50}}, *given[25:]])
        assert Counter(state for state, _ in ended.elements()) == {"delivered": 1, "suppressed": 50}
    [body] = service.messages
    assert body["response_data"]["message"] == "🤖 Thank you for the 50 gifts, Gina!"
    assert body["user_id"] == "g"


async def test_one_alone_is_named_and_takes_its_place_under_the_limits(make_service: MakeService) -> None:
    stub = StubOpenAI((500, "text/plain", "no"))
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, gather_seconds=0.2)
        [first], [second] = follows(1), follows(1)
        mine = await community(service, first["entity_id"])
        await put(service, community_id=mine, channel_replies=1, channel_seconds=60)
        again = first | {"user_id": "other", "username": "other", "event_id": "another"}
        ends = [next(iter(await flood([service], [posted]))) for posted in (first, again, second)]
    assert [state for state, _ in ends] == ["delivered", "suppressed", "delivered"]
    assert ends[1][1] == "channel_limit"
    assert {body["response_data"]["message"] for body in service.messages} == {"🤖 Thank you for the follow, f0!"}


async def test_what_waits_for_others_survives_its_instance(make_service: MakeService) -> None:
    """The wait is in the journal: whoever is there when it ends answers."""
    one = await make_service(gather_seconds=1)
    acks = [await one.accept(**fields) for fields in follows(5)]
    await one.sidecast.drain()
    await one.sidecast.close()
    other = await make_service(gather_seconds=1)
    states = Counter([(await other.ended(ack["interaction_id"]))["state"] for ack in acks])
    assert states == {"delivered": 1, "suppressed": 4}


async def test_what_is_too_old_takes_nobody_with_it(make_service: MakeService, database: Any) -> None:
    """It expires by itself, and those that came since are thanked."""
    service = await make_service(gather_seconds=1, reply_ttl=20)
    old, *fresh = follows(4)
    first = await service.accept(**old)
    await database.execute("update interactions set received_at = now() - interval '1 hour' where ended_at is null")
    ended = await flood([service], fresh)
    assert sorted(state for state, _ in ended.elements()) == ["delivered", "suppressed", "suppressed"]
    assert (await service.ended(first["interaction_id"]))["state"] == "expired"


def test_what_stands_for_several_is_no_larger_than_an_event_may_be() -> None:
    large = [happened("follow", f"{n}" + "n" * 250, extra="x" * 16_000) for n in range(50)]
    whole = merged(large[0], large)
    assert ChatEvent.model_validate_json(whole.model_dump_json()) == whole


@pytest.mark.parametrize(
    ("posted", "said"),
    [
        (happened("subscription"), "Thank you for the subscription, Jo!"),
        (happened("subscription", months=1), "Thank you for the subscription, Jo!"),
        (happened("subscription", months=7), "Thank you for 7 months, Jo!"),
        (happened("resub", cumulative_months=24), "Thank you for 24 months, Jo!"),
        (happened("resubscription"), "Thank you for staying with us, Jo!"),
        (happened("gift_subscription", total=100), "Thank you for the 100 gifts, Jo!"),
        (happened("gift_subscription", total=1), "Thank you for the gift, Jo!"),
        (happened("donation", amount="5.00 EUR"), "Thank you for the 5.00 EUR, Jo!"),
        (happened("donation", amount=5, currency="USD"), "Thank you for the 5 USD, Jo!"),
        (happened("cheer", bits=100), "Thank you for the 100 bits, Jo!"),
        (happened("raid", viewers=120), "Welcome, all 120 raiders! Thank you, Jo!"),
        (happened("raid"), "Welcome, raiders! Thank you, Jo!"),
        (happened("boost"), "Thank you for the boost, Jo!"),
        (happened("member_join"), "Welcome, Jo!"),
        (happened("hype_train"), "Thank you, Jo!"),
        (happened("raid", viewers=True), "Welcome, raiders! Thank you, Jo!"),
        (happened("donation", amount={"of": "all"}), "Thank you for the donation, Jo!"),
    ],
)
def test_each_event_has_a_canned_text_of_its_own(posted: ChatEvent, said: str) -> None:
    assert canned(posted)[0] == said


def test_each_kind_has_several_canned_texts() -> None:
    for kind, template in TEMPLATES.items():
        assert len([line for line in template.canned if set(line.split("{")[1:]) and "{name}" in line]) > 2, kind


def test_a_few_are_named_and_many_are_not() -> None:
    few = [happened("follow", name) for name in ("A", "B", "C")]
    assert canned(merged(few[1], few), 3)[0] == "Thank you for the follows, A, B and C!"
    many = [happened("follow", f"u{n}") for n in range(9)]
    assert canned(merged(many[0], many), 9)[0] == "Thank you all for the 9 follows!"


def test_two_givers_are_both_named() -> None:
    gifts = [happened("gift_subscription", "A", total=5), happened("gift_subscription", "B")]
    assert canned(merged(gifts[0], gifts), 2)[0] == "Thank you for the 6 gifts, A and B!"


@pytest.mark.parametrize(
    ("posted", "together"),
    [
        (happened("follow"), True),
        (happened("subscription"), True),
        (happened("gift_subscription"), True),
        (happened("member_join"), True),
        (happened("subscription", months=12), False),
        (happened("raid", viewers=3), False),
        (happened("donation"), False),
        (ChatEvent(**event(message_type="subscription", message_content="love it here")), False),
    ],
)
def test_what_is_told_of_one_person_alone_is_answered_alone(posted: ChatEvent, together: bool) -> None:
    assert gathers(posted, Trigger(EVENT, posted.message_type)) is together
