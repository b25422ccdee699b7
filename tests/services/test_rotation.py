"""Another SECRET_KEY while instances run: no setting, key or text is lost, and no event is taken for another."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from config import load_settings
from services.database import Database
from services.hashing import Hashing
from services.logs import open_log
from services.rotation import Rotated
from services.vault import Vault
from tests.conftest import MakeService, Service, event
from tests.routes.test_config import community, get, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

OLD = {"secret_key": "the old one"}
BOTH = {"secret_key": "the new one", "secret_key_previous": "the old one"}
NEW = {"secret_key": "the new one"}
COMMUNITIES = 8


class Load:
    """Changes settings and posts events at whichever instances are up, and knows what it was told was taken."""

    def __init__(self, url: str) -> None:
        self.up: list[Service] = []
        self.settings: dict[str, dict[str, Any]] = {}
        self.channels: dict[str, str] = {}
        self.taken: list[str] = []
        self.posted: list[tuple[dict[str, Any], str]] = []
        self.stopping = False
        self._url = url
        self._turn = itertools.count()

    def instance(self) -> Service:
        return self.up[next(self._turn) % len(self.up)]

    async def begin(self) -> None:
        for _ in range(COMMUNITIES):
            channel = str(event()["entity_id"])
            mine = await community(self.instance(), channel)
            self.channels[mine] = channel
            own: dict[str, Any] = {
                "provider": "custom",
                "base_url": f"{self._url}/v1",
                "model": "m",
                "store_content": True,
            }
            self.settings[mine] = own
            status, body = await put(self.instance(), community_id=mine, **own, api_key=f"key of {mine}")
            assert status == 200, body

    async def run(self) -> None:
        for number in itertools.count():
            if self.stopping:
                return
            mine = list(self.channels)[number % COMMUNITIES]
            changes = {"persona_name": f"persona {number}"}
            status, body = await put(self.instance(), community_id=mine, **changes)
            assert status == 200, body
            self.settings[mine] |= changes
            said = event(entity_id=self.channels[mine], event_id=f"event {number}", message_content=f"hello {number}")
            ack = await self.instance().accept(**said)
            self.posted.append((said, ack["interaction_id"]))
            repeated = await self.instance().accept(**said)
            assert (repeated["interaction_id"], repeated["duplicate"]) == (ack["interaction_id"], True)


@pytest.fixture
async def provider() -> AsyncIterator[tuple[StubOpenAI, str]]:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        yield stub, url


async def test_nothing_is_lost_while_the_secret_is_changed_under_load(
    empty: str, make_service: MakeService, provider: tuple[StubOpenAI, str]
) -> None:
    """Instances are restarted one by one with old and new, `secrets rotate` runs, then one by one with new alone."""
    stub, url = provider

    async def start(secrets: dict[str, str]) -> Service:
        allowed = {"community_url_allow": "127.0.0.1", "community_url_http": True}
        return await make_service(database_url=empty, **allowed, **secrets)

    async def restart(secrets: dict[str, str]) -> None:
        for _ in range(2):
            gone = load.up.pop(0)
            load.up.append(await start(secrets))
            await asyncio.sleep(0.2)
            await gone.sidecast.drain()

    load = Load(url)
    load.up = [await start(OLD), await start(OLD)]
    await load.begin()
    running_load = asyncio.create_task(load.run())
    await asyncio.sleep(0.2)
    await restart(BOTH)
    done = await load.up[0].sidecast.rotation.rotate("tests", lambda _: None)
    assert (done.keys, done.unreadable) == (COMMUNITIES, 0)
    await restart(NEW)
    again = await load.up[0].sidecast.rotation.rotate("tests", lambda _: None)
    load.stopping = True
    await running_load
    assert again.unreadable == 0
    assert len(load.posted) > COMMUNITIES
    for mine, own in load.settings.items():
        told = await get(load.up[0], mine)
        assert {name: told[name] for name in own} == own
        assert told["api_key_set"]
        assert await load.up[1].sidecast.settings_store.key(UUID(mine)) == f"key of {mine}"
    for said, interaction_id in load.posted:
        outcome = await load.up[0].ended(interaction_id)
        assert (outcome["state"], outcome["message"]) == ("delivered", said["message_content"])
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer key of {mine}" for mine in load.channels}


def test_a_user_is_named_by_a_keyed_hash() -> None:
    def hashing(secret: str) -> Hashing:
        settings = load_settings(secret_key=secret)
        return Hashing(settings, Vault(settings), Database("", open_log(settings)), open_log(settings))

    one, other = hashing("secret"), hashing("another secret")
    assert one.user("twitch", "42") == one.user("twitch", "42")
    named = {one.user("twitch", "42"), one.user("kick", "42"), one.user("twitch", "43"), other.user("twitch", "42")}
    assert len(named) == 4
    assert len(one.user("twitch", "42")) == 16


async def test_a_secret_that_is_lost_is_told_and_replaced(empty: str, make_service: MakeService) -> None:
    one = await make_service(database_url=empty, secret_key="lost")
    two = await make_service(database_url=empty, secret_key="found")
    assert one.sidecast._hashing.user("t", "u") != two.sidecast._hashing.user("t", "u")
    rotation = two.sidecast.rotation
    assert await rotation.rotate("tests", lambda _: None) == Rotated(unreadable=1), "it may be the environment that is"
    again = await make_service(database_url=empty, secret_key="lost")
    assert again.sidecast._hashing.user("t", "u") == one.sidecast._hashing.user("t", "u")
    assert await rotation.rotate("tests", lambda _: None, new_hashing_key=True) == Rotated()
    three = await make_service(database_url=empty, secret_key="found")
    assert three.sidecast._hashing.user("t", "u") == two.sidecast._hashing.user("t", "u")
