"""A server with Ollama's HTTP API, as documented in its repository (docs/api.md): /api/chat and /api/tags."""

from __future__ import annotations

import asyncio
from typing import Any

from quart import Quart, Response, jsonify, request


class StubOllama:
    """Answers `answer`, or fails with (status, error) as Ollama words it."""

    def __init__(self, answer: str | tuple[int, str] = "Hello from Ollama", delay: float = 0.0) -> None:
        self.answer = answer
        self.delay = delay
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.app = Quart("ollama")
        self.app.post("/api/chat")(self.chat)
        self.app.get("/api/tags")(self.tags)

    async def chat(self) -> Response:
        self.requests.append(await request.get_json())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await asyncio.sleep(self.delay)
        if isinstance(self.answer, tuple):
            status, error = self.answer
            response: Response = jsonify({"error": error})
            response.status_code = status
            return response
        return jsonify(
            {
                "model": self.requests[-1]["model"],
                "created_at": "2026-01-01T00:00:00.000000Z",
                "message": {"role": "assistant", "content": self.answer},
                "done_reason": "stop",
                "done": True,
                "total_duration": 5_000_000,
                "load_duration": 1_000_000,
                "prompt_eval_count": 26,
                "prompt_eval_duration": 1_000_000,
                "eval_count": 5,
                "eval_duration": 3_000_000,
            }
        )

    async def tags(self) -> dict[str, Any]:
        details = {"format": "gguf", "family": "llama", "families": None, "parameter_size": "3B"}
        details["quantization_level"] = "Q4_0"
        model = {"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 2_019_393_189, "digest": "a80c4f17acd5"}
        return {"models": [model | {"modified_at": "2026-01-01T00:00:00Z", "details": details}]}
