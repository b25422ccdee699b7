"""A server with OpenAI's chat completions, as documented at platform.openai.com/docs/api-reference/chat.

What it is told to say as it is, it says at Anthropic's path too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, jsonify, request

COUNTS = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
Answer = str | tuple[int, str, str]


class StubOpenAI:
    """Records every request and says `answer`: a text, or (status, content type, body) as it is."""

    def __init__(self, answer: Answer = "Hello from the stub", delay: float = 0.0) -> None:
        self.answer = answer
        self.delay = delay
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer_headers: dict[str, str] = {}
        self.at_once = 0
        self.most_at_once = 0
        self.app = Quart("openai")
        self.app.post("/v1/chat/completions")(self.complete)
        self.app.post("/v1/messages", endpoint="messages")(self.complete)
        self.app.post("/v1/embeddings")(self.embed)
        self.app.get("/v1/models")(self.models)

    async def complete(self) -> Response:
        self.requests.append(await request.get_json())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.at_once -= 1
        if isinstance(self.answer, tuple):
            status, content_type, body = self.answer
            return Response(body, status=status, content_type=content_type, headers=self.answer_headers)
        if self.requests[-1].get("stream"):
            return Response(self._pieces(self.requests[-1]["model"], self.answer), content_type="text/event-stream")
        message = {"role": "assistant", "content": self.answer}
        return jsonify(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": self.requests[-1]["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": COUNTS,
            }
        )

    async def _pieces(self, model: str, answer: str) -> AsyncIterator[str]:
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model}
        for delta, reason in (({"role": "assistant", "content": answer}, None), ({}, "stop")):
            yield f"data: {json.dumps(base | {'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n"
        yield f"data: {json.dumps(base | {'choices': [], 'usage': COUNTS})}\n\ndata: [DONE]\n\n"

    async def embed(self) -> dict[str, Any]:
        body = await request.get_json()
        data = [
            {"object": "embedding", "index": index, "embedding": [0.1, 0.2]} for index, _ in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return {"object": "list", "data": data, "model": body["model"], "usage": usage}

    async def models(self) -> dict[str, Any]:
        listed = [{"id": "stub-1", "object": "model", "created": 1_700_000_000, "owned_by": "tests"}]
        return {"object": "list", "data": listed}

    @property
    def prompts(self) -> list[str]:
        """Each request's messages as one text."""
        return ["\n".join(message["content"] for message in body["messages"]) for body in self.requests]
