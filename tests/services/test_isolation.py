"""Whatever comes at once, and is given up at any point: what is of one community is never seen in another."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from redis.asyncio import Redis

from services.bus import STREAM
from tests.conftest import API, KEY, MakeService, Service, event, valkey_value
from tests.stubs.echo import EchoOpenAI

COMMUNITIES = 50
CALLS = 10_000
AT_ONCE = 100
TO_CANCEL = 0.45  # of which some end before their time
CANARY = re.compile(r"canary-([a-z]+)-(\d\d)")
TABLES = ("communities", "entities", "interactions", "ledger", "settings", "audit", "keys")
READ = ("config", "history", "users", "outcome", "usage")
# Kinds of calls, and how many of each in a hundred.
MIX = {"chat": 22, "event": 5, "test": 3, "whole": 13, "stream": 10, "config": 9, "change": 2, "history": 6, "users": 7}
MIX |= {"outcome": 8, "usage": 3, "cancel": 4, "foreign": 8}
PLACES = {"provider", "answer", "reply", "valkey", "stream", "memory", "database"}
LEAST_SEEN = 3_000

Call = tuple[str, str, dict[str, str], Any]


@dataclass
class Sightings:
    """Canaries by the place where they were seen, and what was wrong with some."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def look(self, place: str, text: str, number: int) -> None:
        """Only canaries of the community of this number belong in the text."""
        for kind, found in CANARY.findall(text):
            if int(found) == number:
                self.right[place] += 1
            else:
                self.wrong.append(f"{place}: the {kind} of {found} where {number:02} belongs")


@dataclass
class Community:
    """As its router and its streamer know it; users and ids of events are the same in all of them."""

    number: int
    community_id: str = ""
    key: str = ""
    interactions: list[str] = field(default_factory=list)
    event_numbers: Iterator[int] = field(default_factory=itertools.count)

    def canary(self, kind: str) -> str:
        return f"canary-{kind}-{self.number:02}"

    @property
    def entity_id(self) -> str:
        return f"twitch:channel:{self.canary('channel')}"


class Crowd:
    """Makes calls of all kinds at any instance; some are cancelled, or hang up, before their answer."""

    def __init__(self, services: list[Service], seen: Sightings, chance: random.Random) -> None:
        self._services = services
        self._seen = seen
        self._chance = chance
        self._took: dict[str, float] = {}
        self.communities: list[Community] = []
        self.cancelled: Counter[str] = Counter()
        self.statuses: Counter[tuple[bool, int]] = Counter()

    async def found(self, number: int, url: str) -> None:
        """A community with everything of its own, known at all instances."""
        one, made = self._services[0], Community(number)
        body: dict[str, Any] = {"name": made.canary("name"), "entities": [made.entity_id]}
        made.community_id = (await (await one.post("/communities", **body)).get_json())["data"]["community_id"]
        role = f"community:{made.community_id}"
        made.key = (await (await one.post("/keys", role=role)).get_json())["data"]["key"]
        own: dict[str, Any] = {"store_content": number % 2 == 0}
        own |= {"provider": "custom", "model": made.canary("model"), "base_url": f"{url}/{made.canary('url')}/v1"}
        own |= {"api_key": made.canary("key"), "system_prompt": f"You are {made.canary('prompt')}."}
        answer = await one.client.put(f"{API}/config", json=own, headers={"X-API-Key": made.key})
        assert answer.status_code == 200
        for service in self._services:
            while (await service.get(f"{API}/config", made.key)).status_code != 200:
                await asyncio.sleep(0.01)
        self.communities.append(made)

    async def run(self, calls: int) -> None:
        kinds = self._chance.choices(list(MIX), list(MIX.values()), k=calls)

        async def work() -> None:
            while kinds:
                await self._call(kinds.pop())

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

    async def _call(self, kind: str) -> None:
        community, chance = self._chance.choice(self.communities), self._chance
        patience = chance.uniform(0, self._took.get(kind, 0.05)) if chance.random() < TO_CANCEL else None
        hang_up = patience if chance.random() < 0.5 else None
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience if hang_up is None else None):
                status, text = await self._ask(self._request(kind, community), hang_up)
        except TimeoutError:
            self.cancelled["by its task"] += 1
            return
        self._seen.look("foreign" if kind == "foreign" else "answer", text, community.number)
        if hang_up is not None:
            return
        self.statuses[kind == "foreign", status] += 1
        if patience is None:
            self._took[kind] = time.monotonic() - began
        if kind in {"chat", "event"} and status == 200:
            community.interactions.append(json.loads(text)["data"]["interaction_id"])

    async def _ask(self, call: Call, hang_up: float | None) -> tuple[int, str]:
        """Status and body; who hangs up, after so many seconds, gets none or a part."""
        method, path, headers, body = call
        client = self._chance.choice(self._services).client
        headers = headers | {"Content-Type": "application/json"}
        connection: Any
        async with client.request(API + path, method=method, headers=headers) as connection:
            await connection.send(json.dumps(body).encode() if body else b"")
            await connection.send_complete()
            if hang_up is not None:
                await asyncio.sleep(hang_up)
                self.cancelled["by hanging up"] += connection.status_code is None
                await connection.disconnect()
        answer = await connection.as_response()
        return answer.status_code, await answer.get_data(as_text=True)

    def _request(self, kind: str, community: Community) -> Call:
        """A call for a community, by its own key or by an admin's that names it."""
        own, admin = {"X-API-Key": community.key}, {"X-API-Key": KEY, "X-Community-Id": community.community_id}
        headers, said = self._chance.choice((own, admin)), f"Hello, {community.canary('said')}!"
        if kind == "foreign":
            community = self._chance.choice([each for each in self.communities if each is not community])
            kind, headers = self._chance.choice(READ), own
        if kind in READ:
            return "GET", self._path(kind, community), headers, None
        if kind == "change":
            return "PUT", "/config", own, {"system_prompt": f"You are {community.canary('prompt')} {time.time()}."}
        if kind == "test":
            return "POST", "/test", headers, {"message": said, "community_id": community.community_id}
        if kind in {"whole", "stream"}:
            asked = self._chance.choice((said, "Hello, who are you?"))  # the one of its own, or the same for all
            body = {"messages": [{"role": "user", "content": asked}], "temperature": 0, "stream": kind == "stream"}
            return "POST", "/chat/completions", headers | {"Cache-Control": "max-age=60"}, body
        user = {"entity_id": community.entity_id, "user_id": f"user-{self._chance.randrange(10)}"}
        if kind == "cancel":
            return "POST", "/interaction/cancel", admin, user
        what = {"message_content": said} if kind == "chat" else {"message_type": "raid", "metadata": {"with": said}}
        posted = event(username="anna", event_id=f"event-{next(community.event_numbers)}", **user)
        return "POST", "/interaction", admin, {**posted, **what}

    def _path(self, kind: str, community: Community) -> str:
        """Where something of a community is read."""
        if kind == "outcome" and community.interactions:
            return f"/interaction/{self._chance.choice(community.interactions)}"
        name = {"users": f"users/twitch/user-{self._chance.randrange(10)}", "outcome": "config"}.get(kind, kind)
        return f"/{name}?community_id={community.community_id}"


async def look_in_valkey(redis: Redis, seen: Sightings, numbers: dict[UUID, int]) -> None:
    """Each key names its community, and holds nothing of another; so does each entry of the stream."""
    async for key in redis.scan_iter("*", count=1000):
        kept = await valkey_value(redis, key)
        if key == STREAM:
            for _, entry in kept:
                if entry["community_id"]:
                    seen.look("stream", str(entry), numbers[UUID(entry["community_id"])])
            continue
        seen.look("valkey", f"{key} {kept}", numbers[UUID(key[key.index("{") + 1 : key.index("}")])])


async def look_in_database(
    database: asyncpg.Connection[asyncpg.Record], seen: Sightings, numbers: dict[UUID, int]
) -> None:
    """Each row names its community; looked at when all interactions have ended."""
    left = "select count(*) from interactions where ended_at is null and community_id = any($1)"
    async with asyncio.timeout(60):
        while await database.fetchval(left, list(numbers)):
            await asyncio.sleep(0.05)
    for table in TABLES:
        select = f"select community_id, t::text as row from {table} t where community_id = any($1)"
        for found in await database.fetch(select, list(numbers)):
            seen.look("database", found["row"], numbers[found["community_id"]])


def look_in_memory(service: Service, seen: Sightings, numbers: dict[UUID, int]) -> None:
    sidecast = service.sidecast
    copies = [*sidecast.cache._talks._kept.items(), *sidecast.cache._rings._kept.items()]
    kept: list[tuple[UUID, Any]] = [(UUID(key.partition("{")[2].partition("}")[0]), copy) for key, copy in copies]
    kept += sidecast.communities._known.items()
    kept += [(key, [choice.model for choice in chain]) for key, (_, chain) in sidecast.chains._of.items()]
    for community_id, known in kept:
        seen.look("memory", str(known), numbers[community_id])


@pytest.mark.timeout(240)
async def test_nothing_of_a_community_is_seen_in_another(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record], redis: Redis
) -> None:
    seen, chance = Sightings(), random.Random(7)

    def answer(path: str, key: str, body: dict[str, Any]) -> str:
        """Whose a request is, its key says."""
        [(_, number)] = CANARY.findall(key)
        seen.look("provider", f"{path} {body}", int(number))
        return f"canary-answered-{number}, as to {body['messages'][-1]['content']}"

    async with EchoOpenAI(answer, lambda: chance.uniform(0, 0.03)).running() as url:
        settings = {"ai_provider": "waddleai", "waddleai_base_url": f"{url}/nobody", "max_concurrent_requests": 40}
        settings |= {"community_url_allow": "127.0.0.1", "community_url_http": True}
        services = [await make_service(**settings) for _ in range(2)]
        crowd = Crowd(services, seen, chance)
        for number in range(COMMUNITIES):
            await crowd.found(number, url)
        await crowd.run(CALLS)
        numbers = {UUID(community.community_id): community.number for community in crowd.communities}
        await look_in_database(database, seen, numbers)
    await look_in_valkey(redis, seen, numbers)
    channels = {community.entity_id: community.number for community in crowd.communities}
    for service in services:
        look_in_memory(service, seen, numbers)
        for body in service.messages:
            seen.look("reply", str(body), channels[body["entity_id"]])
    assert seen.wrong[:10] == []
    assert {place for place, number in seen.right.items() if number >= LEAST_SEEN} == PLACES, seen.right
    assert 0.25 < crowd.cancelled.total() / CALLS < 0.35, crowd.cancelled
    assert crowd.statuses.keys() == {(False, 200), (True, 404)}, crowd.statuses
