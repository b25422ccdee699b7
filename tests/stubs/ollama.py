"""A server with Ollama's HTTP API, as documented in its repository (docs/api.md): chat, embed, tags and show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, jsonify, request

COUNTS = {
    "total_duration": 5_000_000,
    "load_duration": 1_000_000,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 1_000_000,
    "eval_count": 5,
    "eval_duration": 3_000_000,
}


class StubOllama:
    """Answers `answer`, or fails with (status, error) as Ollama words it."""

    def __init__(self, answer: str | tuple[int, str] = "Hello from Ollama", delay: float = 0.0) -> None:
        self.answer = answer
        self.delay = delay
        self.breaks_off = False
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.app = Quart("ollama")
        self.app.post("/api/chat")(self.chat)
        self.app.post("/api/embed")(self.embed)
        self.app.get("/api/tags")(self.tags)
        self.app.post("/api/show")(self.show)

    async def chat(self) -> Response:
        self.requests.append(await request.get_json())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await asyncio.sleep(self.delay)
        if isinstance(self.answer, tuple):
            status, error = self.answer
            response: Response = jsonify({"error": error})
            response.status_code = status
            return response
        body = self.requests[-1]
        if body.get("stream", True):
            return Response(self._pieces(body["model"]), content_type="application/x-ndjson")
        message: dict[str, Any] = {"role": "assistant", "content": self.answer}
        if body.get("tools"):
            call = {"function": {"name": body["tools"][0]["function"]["name"], "arguments": {"city": "Ghent"}}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return jsonify(self._line(body["model"], message) | {"done_reason": "stop", "done": True} | COUNTS)

    def _line(self, model: str, message: dict[str, Any]) -> dict[str, Any]:
        return {"model": model, "created_at": "2026-01-01T00:00:00.000000Z", "message": message, "done": False}

    async def _pieces(self, model: str) -> AsyncIterator[str]:
        for word in str(self.answer).split(" "):
            yield json.dumps(self._line(model, {"role": "assistant", "content": f"{word} "})) + "\n"
        if not self.breaks_off:
            last = self._line(model, {"role": "assistant", "content": ""})
            yield json.dumps(last | {"done_reason": "stop", "done": True} | COUNTS) + "\n"

    async def embed(self) -> dict[str, Any]:
        body = await request.get_json()
        vectors = [[0.1, 0.2, 0.3] for _ in body["input"]]
        counts = {"total_duration": 14_143_917, "load_duration": 1_019_500, "prompt_eval_count": 8}
        return {"model": body["model"], "embeddings": vectors} | counts

    async def tags(self) -> dict[str, Any]:
        details = {"format": "gguf", "family": "llama", "families": None, "parameter_size": "3B"}
        details["quantization_level"] = "Q4_0"
        model = {"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 2_019_393_189, "digest": "a80c4f17acd5"}
        return {"models": [model | {"modified_at": "2026-01-01T00:00:00Z", "details": details}]}

    async def show(self) -> Response:
        body = await request.get_json()
        if body["model"].partition(":")[0] != "llama3.2":
            missing: Response = jsonify({"error": f"model '{body['model']}' not found"})
            missing.status_code = 404
            return missing
        details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
        details |= {"parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        shown = {"modelfile": "FROM llama3.2", "parameters": "", "template": "{{ .Prompt }}", "details": details}
        return jsonify(
            shown | {"model_info": {"general.architecture": "llama"}, "capabilities": ["completion", "tools"]}
        )
