"""Real PostgreSQL, Valkey and llama.cpp for the whole session, and services made on them for each test."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from quart import Quart
from quart.typing import TestClientProtocol
from redis.asyncio import Redis

from app import create_app
from config import Settings, load_settings
from embedded import parts as embedded_parts
from services.router_service import DevRouter
from services.settings import DEFAULTS
from services.sidecast import Sidecast

PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"
API = "/api/v1/ai"
KEY = "test-key-0123456789"
ENDED = {"delivered", "suppressed", "expired", "failed", "undeliverable"}
_numbers = count(1)


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> None:
    """No setting of the machine that runs the tests reaches them."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.startswith(("OPENAI_", "OLLAMA_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def parts(clean_environment: None) -> Iterator[dict[str, str]]:
    """Addresses of the embedded parts, started the way `scripts/serve` starts them."""
    with tempfile.TemporaryDirectory(prefix="sidecast-tests-") as folder:
        command = [sys.executable, "-m", "embedded", "--parts-only"]
        environment = os.environ | {"DATA_DIR": folder}
        with subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout
            yield json.loads(parent.stdout.readline())
            parent.communicate(timeout=30)


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A Valkey of the test's own, to be killed."""
    part = embedded_parts.valkey(tmp_path, tmp_path, tmp_path)
    process = await asyncio.create_subprocess_exec(*part.argv, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(10):
        while not await part.ready():
            await asyncio.sleep(0.02)
    yield embedded_parts.valkey_url(tmp_path), process
    if process.returncode is None:
        process.kill()
    await process.wait()


@dataclass
class Service:
    """One instance of the service, as a router and an admin see it."""

    app: Quart
    sidecast: Sidecast
    client: TestClientProtocol

    async def post(self, path: str = "/interaction", key: str = KEY, **body: Any) -> Any:
        return await self.client.post(API + path, json=body, headers={"Authorization": f"Bearer {key}"})

    async def accept(self, **fields: Any) -> dict[str, Any]:
        """Post an event that is taken; its ACK."""
        answer = await self.post(**event(**fields))
        body = await answer.get_json()
        assert answer.status_code == 200, body
        return cast(dict[str, Any], body["data"])

    async def get(self, path: str, key: str = KEY) -> Any:
        return await self.client.get(path, headers={"Authorization": f"Bearer {key}"})

    async def outcome(self, interaction_id: str) -> dict[str, Any]:
        answer = await self.get(f"{API}/interaction/{interaction_id}")
        return cast(dict[str, Any], (await answer.get_json())["data"])

    async def ended(self, interaction_id: str, seconds: float = 30) -> dict[str, Any]:
        """The outcome, once the interaction has one."""
        async with asyncio.timeout(seconds):
            while (outcome := await self.outcome(interaction_id))["state"] not in ENDED:
                await asyncio.sleep(0.01)
        return outcome

    async def answered(self, **fields: Any) -> dict[str, Any]:
        """Post an event and wait for its callback at the development router."""
        ack = await self.accept(**{"session_id": f"s-{next(_numbers)}"} | fields)
        await self.ended(ack["interaction_id"])
        return next(body for body in self.messages if body["interaction_id"] == ack["interaction_id"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        assert isinstance(self.sidecast.router, DevRouter)
        return list(self.sidecast.router.messages)


# What tests post has nothing of a chat's pace; those of limits set their own.
NO_LIMITS = dict.fromkeys(
    ("user_cooldown", "greeting_cooldown", "channel_replies", "community_replies", "repeat_seconds"), 0
)

MakeService = Callable[..., Awaitable[Service]]


def event(**fields: Any) -> dict[str, Any]:
    """A valid event of a channel of its own, changed by `fields`."""
    number = next(_numbers)
    base = {
        "session_id": "s1",
        "message_content": "Hello there!",
        "user_id": f"user-{number}",
        "username": f"user_{number}",
        "entity_id": f"twitch:channel:{number}",
        "platform": "twitch",
    }
    return base | fields


@pytest.fixture
async def make_service(parts: dict[str, str], redis: Redis) -> AsyncIterator[MakeService]:
    """Makes open services on the real parts; settings by name; closed when the test ends."""
    opened: list[Sidecast] = []

    async def make(**overrides: Any) -> Service:
        values: dict[str, Any] = {name.lower(): value for name, value in parts.items()}
        values |= {"valid_api_keys": KEY, "secret_key": "test secret", "log_level": "ERROR", "drain_timeout": 1}
        values |= {"api_rate_limit": 0, "gather_seconds": 0}
        values["request_timeout"] = 120  # the model has the lowest priority on a machine that may be busy
        app = create_app(load_settings(**(values | overrides)))
        sidecast: Sidecast = app.extensions["sidecast"]
        await sidecast.open()
        opened.append(sidecast)
        await sidecast.settings_store.change(DEFAULTS, NO_LIMITS, None, "tests")
        return Service(app, sidecast, app.test_client())

    yield make
    for sidecast in reversed(opened):
        await sidecast.drain()
        await sidecast.close()
    await forget_work(parts["DATABASE_URL"])


async def forget_work(url: str) -> None:
    """End what a test left open, so that the next test's workers do not take it up."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("select to_regclass('interactions')"):
            await connection.execute(
                "update interactions set state = 'failed', ended_at = now() where ended_at is null"
            )
    finally:
        await connection.close()


@pytest.fixture
async def database(parts: dict[str, str]) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(parts["DATABASE_URL"])
    yield connection
    await connection.close()


@pytest.fixture
async def empty(parts: dict[str, str]) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(parts["DATABASE_URL"])
    await admin.execute(f"create database {name}")
    yield parts["DATABASE_URL"].replace("/postgres?", f"/{name}?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def redis(parts: dict[str, str]) -> AsyncIterator[Redis]:
    """A client of the test's own, on an empty Valkey."""
    client = Redis.from_url(parts["REDIS_URL"], decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


async def valkey_value(redis: Redis, name: Any) -> Any:
    """What a key holds, whatever it is."""
    read: dict[Any, tuple[Any, ...]] = {
        "list": (redis.lrange, 0, -1),
        "zset": (redis.zrange, 0, -1),
        "string": (redis.get,),
        "stream": (redis.xrange,),
        "set": (redis.smembers,),
    }
    command, *arguments = read[await redis.type(name)]
    return await command(name, *arguments)
