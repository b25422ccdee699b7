"""A router that is down: few tries, nothing held in memory, everything delivered when it is back, or given up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg

from tests.conftest import PROJECT, MakeService
from tests.stubs.openai import StubOpenAI
from tests.stubs.router import StubRouter
from tests.stubs.server import running


async def test_a_router_that_comes_back_gets_everything_once(make_service: MakeService) -> None:
    """The breaker keeps the tries few while it is down; no model is asked twice."""
    router = StubRouter(*[(503, {})] * 6)
    stub = StubOpenAI()
    async with running(router.app) as router_url, running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, router_api_url=router_url)
        acks = [await service.accept() for _ in range(20)]
        outcomes = [await service.ended(ack["interaction_id"], 60) for ack in acks]
    assert {outcome["state"] for outcome in outcomes} == {"delivered"}
    assert len(stub.requests) == 20
    taken = router.bodies[6:]
    assert sorted(body["interaction_id"] for body in taken) == sorted(ack["interaction_id"] for ack in acks)


async def test_an_undeliverable_reply_can_be_redriven_from_the_command_line(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record], parts: dict[str, str], tmp_path: Path
) -> None:
    """What the user wrote is gone, the reply is not; a second try needs no model."""
    router = StubRouter((400, {}))
    stub = StubOpenAI("The reply")
    async with running(router.app) as router_url, running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, router_api_url=router_url)
        ack = await service.accept(message_content="hello, private")
        outcome = await service.ended(ack["interaction_id"])
        assert (outcome["state"], outcome["reply"], outcome["message"]) == ("undeliverable", "🤖 The reply", "")
        environment = parts | {"DATA_DIR": str(tmp_path), "PATH": ""}
        command = [sys.executable, "-m", "quart", "--app", "app:create_app", "interactions", "redrive"]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "replies are offered to the router again" in done.stdout
        outcome = await service.ended(ack["interaction_id"])
    assert outcome["state"] == "delivered"
    own = [body for body in router.bodies if body["interaction_id"] == ack["interaction_id"]]
    assert [body["response_data"]["message"] for body in own] == ["🤖 The reply"] * 2
    assert len(stub.requests) == 1


async def test_what_ended_long_ago_is_trimmed(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    service = await make_service()
    old, new = [await service.answered() for _ in range(2)]
    await database.execute(
        "update interactions set ended_at = ended_at - interval '7 days 1 hour' where interaction_id = $1",
        old["interaction_id"],
    )
    await service.sidecast._retention.trim()
    left = await database.fetch(
        "select interaction_id::text from interactions where interaction_id = any($1::uuid[])",
        [old["interaction_id"], new["interaction_id"]],
    )
    assert [row[0] for row in left] == [new["interaction_id"]]
