"""A server that repeats the key that came with a request, in every part of an answer that may hold it."""

from __future__ import annotations

import json
from typing import Any

from quart import Quart, Response, request

MESSAGE = {"role": "assistant", "content": "Hello"}
COMPLETION = {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}


def answers(key: str) -> list[Response]:
    """Every way to refuse a key and to repeat it; last, a completion beside which it is repeated."""
    error = json.dumps({"error": {"message": f"wrong key {key}", "type": key, "code": key, "param": key}, key: key})
    statuses = [Response(error, status, {"WWW-Authenticate": key, "X-Key": key}) for status in (401, 400, 404, 500)]
    return [
        *statuses,
        Response(key, 429, {"Retry-After": key}),
        Response("", 302, {"Location": f"/{key}"}),
        Response(key, 200, {"Content-Type": "text/html"}),
        Response(error, 200, {"Content-Type": f"text/{key}"}),
        Response(f"data: {error}\n\n", 200, {"Content-Type": "text/event-stream"}),
        Response(json.dumps(COMPLETION | {key: key}), 200, {"Content-Type": "application/json", "X-Key": key}),
    ]


class Repeater:
    """Any provider by the way `turn`, and at `/response` a router that answers 401."""

    ways = len(answers(""))

    def __init__(self) -> None:
        self.turn = 0
        self.received: set[str] = set()
        self.replies: list[tuple[dict[str, str], Any]] = []
        self.app = Quart("repeater")
        self.app.add_url_rule("/<path:path>", "answer", self.answer, methods=["GET", "POST"])

    async def answer(self, path: str) -> Response:
        given = {name.lower(): value for name, value in request.headers.items()}
        key = given.get("authorization", "").removeprefix("Bearer ") or given.get("x-api-key", "")
        self.received.add(key)
        if path == "response":
            self.replies.append((given, await request.get_data(as_text=False)))
        return answers(key)[0 if path == "response" else self.turn]
