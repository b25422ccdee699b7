"""The replay bench, on a log of its own and, where it is present, on the sample of real chat."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypercorn.asyncio import serve

from app import server_config
from bench import replay
from bench.client import percentile
from config import load_settings
from embedded.parts import free_port, http_ready
from tests.conftest import KEY, SHARED_DATA, MakeService
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

SAMPLE = SHARED_DATA / "chat_sample.jsonl.gz"


async def run(make_service: MakeService, file: Path, limit: int | None, **settings: Any) -> replay.Run:
    """Replay `file` over real HTTP against a service that runs under Hypercorn."""
    service = await make_service(**settings)
    port = free_port()
    stopping = asyncio.Event()

    async def until_stopped() -> None:
        await stopping.wait()

    config = server_config(load_settings(module_port=port))
    server = asyncio.create_task(serve(service.app, config, shutdown_trigger=until_stopped))
    ready = http_ready(port, "/health/ready")
    while not await ready():
        await asyncio.sleep(0.01)
    arguments = argparse.Namespace(
        file=file, rate=200.0, limit=limit, patience=30.0, key=KEY, url=f"http://127.0.0.1:{port}"
    )
    try:
        return await replay.replay(arguments)
    finally:
        stopping.set()
        await server


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
async def test_every_message_is_accounted_for(make_service: MakeService, tmp_path: Path, name: str) -> None:
    texts = ["hello", "nothing", "is it on?", "bye", "what now?"]
    rows = [
        {"platform": "twitch", "channel": None, "username": f"u{n}", "message": text} for n, text in enumerate(texts)
    ]
    path = tmp_path / name
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    stub = StubOpenAI()
    async with running(stub.app) as url:
        seen = await run(make_service, path, None, ai_provider="waddleai", waddleai_base_url=url)
    assert (seen.sent, len(seen.acks)) == (5, 5)
    assert seen.triggers == {"question": 2, "greeting": 1, "farewell": 1}
    assert seen.states == {"delivered": 4}
    assert (seen.waiting, seen.fallbacks) == (set(), 0)
    text = replay.report(seen)
    assert "| triggered               | 4 (question 2, farewell 1, greeting 1) |" in text
    assert "| lost                    | 0 |" in text


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample of real chat (shared/data) is not here")
async def test_no_triggered_event_of_real_chat_is_lost(make_service: MakeService) -> None:
    """500 real messages, the real model."""
    seen = await run(make_service, SAMPLE, 500, reply_ttl=600)
    assert len(seen.acks) == seen.sent == 500
    assert seen.states["delivered"] == sum(seen.triggers.values()) > 0
    assert seen.waiting == set()


def test_percentiles_are_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([7.0], 0.5) == 7
