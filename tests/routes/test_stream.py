"""Chat completions over a WebSocket, on a real server with the real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.conftest import API, KEY, MakeService, Service
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

HELLO = [{"role": "user", "content": "Say hello."}]


@asynccontextmanager
async def connected(service: Service, key: str = KEY) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        running(service.app) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(url + API + "/stream", headers={"Authorization": f"Bearer {key}"}) as socket,
    ):
        yield socket


async def until_ended(socket: aiohttp.ClientWebSocketResponse, count: int = 1) -> dict[str, list[dict[str, Any]]]:
    """The frames of each request, until so many have ended."""
    frames: dict[str, list[dict[str, Any]]] = {}
    async with asyncio.timeout(20):
        while count:
            frame = await socket.receive_json()
            frames.setdefault(frame.pop("request_id"), []).append(frame)
            count -= "done" in frame or "error" in frame
    return frames


async def test_several_requests_at_once_each_by_its_id(make_service: MakeService) -> None:
    async with connected(await make_service()) as socket:
        for number in range(3):
            options = {"include_usage": True} if number == 0 else None
            await socket.send_json({"id": f"r{number}", "messages": HELLO, "max_tokens": 9, "stream_options": options})
        frames = await until_ended(socket, 3)
    assert set(frames) == {"r0", "r1", "r2"}
    for request_id, got in frames.items():
        *chunks, last = got
        assert last == {"done": True}
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert text.strip()
        assert bool(chunks[-1].get("usage")) == (request_id == "r0")


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ({"messages": HELLO}, "id"),
        ({"id": 7, "messages": HELLO}, "id"),
        ({"id": "x", "messages": []}, "messages"),
        ({"id": "x", "messages": HELLO, "base_url": "http://evil"}, "base_url"),
        ({"id": "x", "messages": HELLO, "model": "nobody/nothing"}, "model"),
        (["no", "object"], "body"),
    ],
)
async def test_a_bad_frame_fails_alone(make_service: MakeService, frame: Any, param: str) -> None:
    async with connected(await make_service()) as socket:
        await socket.send_json(frame)
        [[got]] = (await until_ended(socket)).values()
        assert (got["error"]["type"], got["error"]["param"]) == ("invalid_request_error", param)
        await socket.send_json({"id": "good", "messages": HELLO, "max_tokens": 5})
        assert (await until_ended(socket))["good"][-1] == {"done": True}


async def test_one_that_is_cancelled_ends_and_its_id_is_free(make_service: MakeService) -> None:
    stub = StubOpenAI(delay=30)
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url)
        async with connected(service) as socket:
            for _ in range(2):
                await socket.send_json({"id": "slow", "messages": HELLO})
            frames = await until_ended(socket)
            assert frames["slow"][0]["error"]["param"] == "id", "it is under way"
            await socket.send_json({"cancel": "slow"})
            await socket.send_json({"cancel": "nobody"})
            async with asyncio.timeout(5):
                while stub.at_once:
                    await asyncio.sleep(0.01)
            for number in range(9):
                await socket.send_json({"id": str(number), "messages": HELLO})
            [[refused]] = (await until_ended(socket)).values()
            assert refused["error"]["type"] == "rate_limit_error"


async def test_a_wrong_key_does_not_get_in(make_service: MakeService) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        async with connected(await make_service(), key="wrong"):
            pass
    assert error.value.status == 401
