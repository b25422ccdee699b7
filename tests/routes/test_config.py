"""Settings of communities: partial changes, versions, what is inherited, and that a change acts on every instance."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import API, KEY, MakeService, Service, event
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


async def community(service: Service, entity_id: str | None = None) -> str:
    """The id of the community of a channel, which is made by an event that triggers nothing."""
    entity_id = entity_id or event()["entity_id"]
    await service.accept(entity_id=entity_id, message_content="nothing to see")
    return str((await service.sidecast.communities._load({entity_id: "twitch"}))[entity_id].community_id)


async def put(service: Service, key: str = KEY, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await service.client.put(f"{API}/config", json=body, headers={"X-API-Key": key})
    told = await answer.get_json()
    return answer.status_code, told.get("data") or told["error"]


async def get(service: Service, community_id: str | None = None) -> dict[str, Any]:
    query = f"?community_id={community_id}" if community_id else ""
    body = await (await service.get(f"{API}/config{query}")).get_json()
    data: dict[str, Any] = body["data"]
    return data


async def test_a_change_names_what_it_changes_and_null_inherits_again(make_service: MakeService) -> None:
    service = await make_service(response_prefix="> ")
    mine = await community(service)
    before = await get(service, mine)
    assert (before["version"], before["response_prefix"], before["enabled"]) == (0, "> ", True)
    assert "response_prefix" in before["inherited"]
    status, after = await put(service, community_id=mine, response_prefix="~ ", temperature=1)
    assert (status, after["version"], after["response_prefix"], after["temperature"]) == (200, 1, "~ ", 1)
    assert before["system_prompt"] == after["system_prompt"]
    status, after = await put(service, community_id=mine, response_prefix=None)
    assert (after["version"], after["response_prefix"], after["temperature"]) == (2, "> ", 1)
    assert (await get(service, mine)) == after


async def test_an_answer_can_be_put_back_as_it_is(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service)
    status, after = await put(service, **(await get(service, mine)))
    assert (status, after["version"]) == (200, 1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("temperature", 2.1, "less than or equal to 2"),
        ("max_tokens", 10_001, "less than or equal to 10000"),
        ("max_tokens", "150", "valid integer"),
        ("system_prompt", "x" * 2001, "at most 2000 characters"),
        ("enabled", "yes", "valid boolean"),
        ("provider", "magic", "'embedded', 'ollama'"),
        ("provider", "openai", "must be named for the provider openai"),
        ("fallbacks", ["magic/x"], "entry 1"),
        ("custom_patterns", ["(?=x)y"], "RE2 does not take this pattern"),
        ("custom_patterns", ["(a"], "missing"),
        ("quiet_hours", ["25:00-26:00"], "must be like 22:00-06:30"),
        ("timezone", "Middle/Earth", "no time zone"),
        ("tempreature", 1, "is no setting"),
        ("base_url", "https://127.0.0.1/v1", "not a public address"),
        ("api_key", "ключ", "ASCII"),
        ("api_key", [], "ASCII"),
    ],
)
async def test_a_bad_value_is_named_with_its_rule(make_service: MakeService, field: str, value: Any, said: str) -> None:
    service = await make_service()
    mine = await community(service)
    status, error = await put(service, community_id=mine, **{field: value})
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    named = {"provider": "model"}.get(field, field) if value == "openai" else field
    assert error["details"][0]["field"].startswith(named)
    assert said in error["details"][0]["problem"]
    assert (await get(service, mine))["version"] == 0


async def test_a_stale_version_is_refused(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service)
    assert (await put(service, community_id=mine, version=0, language="German"))[0] == 200
    status, error = await put(service, community_id=mine, version=0, language="French")
    assert (status, error["code"]) == (409, "CONFLICT")
    assert (await get(service, mine))["language"] == "German"
    headers = {"X-API-Key": KEY, "If-Match": '"0"'}
    body = {"community_id": mine, "language": "Dutch"}
    assert (await service.client.put(f"{API}/config", json=body, headers=headers)).status_code == 409
    answer = await service.client.put(f"{API}/config", json=body, headers=headers | {"If-Match": '"1"'})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')


async def test_200_changes_at_once_lose_none_and_versions_have_no_gap(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    mine = await community(one)

    async def change(number: int) -> int:
        status, after = await put((one, two)[number % 2], community_id=mine, custom_triggers=[f"word{number}"])
        assert status == 200, after
        return int(after["version"])

    versions = await asyncio.gather(*(change(number) for number in range(200)))
    assert sorted(versions) == list(range(1, 201))
    assert (await get(one, mine))["version"] == 200
    entries = await one.sidecast.audit.entries(UUID(mine), 2**63 - 1, 1000)
    assert sorted(entry.details["version"] for entry in entries) == list(range(1, 201))
    set_to = [entry.details["custom_triggers"] for entry in reversed(entries)]
    assert all(later["from"] == earlier["to"] for earlier, later in itertools.pairwise(set_to)), "none was lost"
    assert await two.sidecast.audit.verify() >= 200


async def test_a_change_acts_on_every_instance_within_a_second(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    mine = await community(one, "twitch:channel:live")
    assert (await two.accept(entity_id="twitch:channel:live"))["triggered"]
    began = time.monotonic()
    await put(one, community_id=mine, enabled=False)
    while (await two.accept(entity_id="twitch:channel:live"))["triggered"]:
        assert time.monotonic() - began < 1
        await asyncio.sleep(0.01)
    await put(one, community_id=mine, enabled=None)


async def test_defaults_hold_for_every_community_that_has_none_of_its_own(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    mine, other = await community(one), await community(one)
    await put(one, community_id=mine, language="German")
    try:
        status, after = await put(two, language="Polish", greetings=False)
        assert (status, after["community_id"]) == (200, None)
        assert (await get(one, other))["language"] == "Polish"
        assert (await get(one, mine))["language"] == "German"
        assert not (await get(one, mine))["greetings"]
        assert (await put(two, base_url="https://example.com/v1"))[0] == 400
    finally:
        await put(two, language=None, greetings=None)


async def test_what_is_read_while_something_changes_still_has_the_defaults(make_service: MakeService) -> None:
    """News of a change comes between two reads of one community; nothing of what was read is kept then."""
    service = await make_service()
    communities = service.sidecast.communities
    mine = UUID(await community(service))
    service.sidecast.changes._hear("")
    select = communities._database.queries.select_community

    async def interrupted(*arguments: Any, **named: Any) -> Any:
        service.sidecast.changes._hear("")
        return await select(*arguments, **named)

    communities._database.queries.select_community = interrupted
    try:
        found = await communities.get(mine)
    finally:
        communities._database.queries.select_community = select
    assert found is not None
    assert found.settings.user_cooldown == 0, "as the tests' defaults have it"
    assert mine not in communities._known


async def test_a_provider_of_its_own_is_asked_and_brings_its_own_model(make_service: MakeService) -> None:
    """Nothing of what belongs to the inherited provider goes to another one."""
    stub, other = StubOpenAI("from the service's"), StubOpenAI("from their own")
    async with running(stub.app) as url, running(other.app) as other_url:
        service = await make_service(
            ai_provider="waddleai",
            waddleai_base_url=url,
            waddleai_api_key="canary-admin",
            ai_temperature=0.9,
            community_url_allow="127.0.0.1",
            community_url_http=True,
        )
        mine = await community(service, "twitch:channel:own")
        await put(service, community_id=mine, provider="custom", base_url=f"{other_url}/v1", model="theirs")
        body = await service.answered(entity_id="twitch:channel:own")
        assert body["response_data"]["message"] == "🤖 from their own"
        assert other.requests[0]["model"] == "theirs"
        assert "canary-admin" not in str(other.headers)
        status, after = await put(service, community_id=mine, api_key="canary-own")
        assert (status, after["api_key_set"]) == (200, True)
        assert "canary" not in str(await get(service, mine))
        await service.answered(entity_id="twitch:channel:own")
        assert other.headers[-1]["authorization"] == "Bearer canary-own"
        status, after = await put(service, community_id=mine, base_url=f"{other_url}/v2")
        assert not after["api_key_set"], "a key is for one address"
        status, after = await put(service, community_id=mine, api_key="canary-own")
        assert after["api_key_set"]
        status, after = await put(service, community_id=mine, api_key=None)
        assert (status, after["api_key_set"]) == (200, False)
    assert stub.requests == []


@pytest.mark.parametrize(
    ("settings", "text", "trigger"),
    [
        ({"greetings": False}, "hello", None),
        ({"greeting_words": ["moin"]}, "Moin!", ("greeting", "moin")),
        ({"custom_triggers": ["gg"]}, "gg all", ("custom", "gg")),
        ({"custom_patterns": [r"\bpizza\s+time\b"]}, "It's PIZZA   time", ("custom", r"\bpizza\s+time\b")),
        ({"persona_name": "Bobo"}, "well @Bobo tell me", ("mention", "Bobo")),
        ({"persona_name": "Bobo", "mentions": False}, "well @Bobo tell me", None),
        ({"enabled": False}, "hello", None),
        ({"quiet_hours": ["00:00-12:00", "12:00-00:00"]}, "hello", None),
        ({"quiet_until": 2**40}, "hello", None),
        ({"only_live": True}, "hello", None),
        ({"bot_names": ["user_x"]}, "hello", ("greeting", "hello")),
    ],
)
async def test_what_a_community_sets_decides_when_it_speaks(
    make_service: MakeService, settings: dict[str, Any], text: str, trigger: tuple[str, str] | None
) -> None:
    service = await make_service()
    entity_id = event()["entity_id"]
    mine = await community(service, entity_id)
    assert (await put(service, community_id=mine, **settings))[0] == 200
    ack = await service.accept(entity_id=entity_id, message_content=text)
    assert (ack["trigger"] and tuple(ack["trigger"].values())) == trigger


async def test_only_while_live(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    entity_id = event()["entity_id"]
    mine = await community(one, entity_id)
    await put(one, community_id=mine, only_live=True)
    await one.accept(entity_id=entity_id, message_type="stream_online")
    for service in (one, two):
        async with asyncio.timeout(1):
            while not (await service.accept(entity_id=entity_id, message_content="hello!"))["triggered"]:
                await asyncio.sleep(0.02)
    assert one.sidecast.communities.is_live(entity_id)
    await two.accept(entity_id=entity_id, message_type="stream_offline")
    async with asyncio.timeout(1):
        while (await one.accept(entity_id=entity_id, message_content="hello!"))["triggered"]:
            await asyncio.sleep(0.02)
