"""Many servers in one, each at a path of its own, with OpenAI's chat completions, whole and streamed.

On aiohttp, which is lighter than Quart, for tests of thousands of calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from embedded.parts import free_port

Answer = Callable[[str, str, dict[str, Any]], str]


class EchoOpenAI:
    """Says what `answer` makes of a request's path, its `Authorization` and its body, after `delay()` seconds."""

    def __init__(self, answer: Answer, delay: Callable[[], float]) -> None:
        self._answer = answer
        self._delay = delay

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The URL that the servers' paths are below."""
        app, port = web.Application(), free_port()
        app.router.add_post("/{place}/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
        await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        answer = self._answer(request.path, request.headers["Authorization"], body)
        await asyncio.sleep(self._delay())
        if body.get("stream"):
            return await _stream(request, answer)
        choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "model": body["model"], "choices": [choice]})


async def _stream(request: web.Request, answer: str) -> web.StreamResponse:
    """The answer word by word."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for word in answer.split(" "):
            delta = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
            await response.write(f"data: {json.dumps({'choices': [delta]})}\n\n".encode())
            await asyncio.sleep(0)
        await response.write(b"data: [DONE]\n\n")
    return response
