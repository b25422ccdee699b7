"""A model and a router that answer at once, or as late as told: `python -m bench.stubs PORT DELAY_SECONDS`.

`POST /v1/chat/completions` as OpenAI documents it; `POST /response` takes replies. `GET /seen` gives the ids of the
replies, in the order they came, with the time of each, its text, and the seconds from the arrival of the model's
request to its answer, which are a little more than it was told. `GET /asked` gives the number of completions, and the
last 100 requests for one. `POST /v1/traces` takes spans; `GET /traces` gives how often it did.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import uvloop


class Stub(asyncio.Protocol):
    """One connection; requests one after the other."""

    seen: list[dict[str, Any]] = []  # noqa: RUF012 - shared by all connections on purpose
    delay = 0.0
    answers = 0
    traces = 0
    asked: deque[bytes] = deque(maxlen=100)  # noqa: RUF012 - as above
    took: dict[str, float] = {}  # noqa: RUF012 - seconds by the answer's number

    def __init__(self) -> None:
        self._received = b""
        self._arrived = 0.0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._arrived = time.time()
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = head.lower().split(b"content-length: ", 1)
        length = int(fields[1].split(b"\r\n", 1)[0]) if len(fields) > 1 else 0
        if len(body) < length:
            return
        self._received = b""
        self._route(head.split(b" ", 2)[1], body)

    def _route(self, path: bytes, body: bytes) -> None:
        if path == b"/response":
            posted = json.loads(body)
            text = posted["response_data"]["message"]
            reply = {"id": posted["interaction_id"], "event": posted["event_id"], "text": text, "at": self._arrived}
            self.seen.append(reply | {"attempt": posted["attempt"], "model_seconds": self.took.get(_number(text), 0.0)})
            self._answer({})
        elif path == b"/seen":
            self._answer(self.seen)
        elif path == b"/asked":
            self._answer({"count": Stub.answers, "last": [json.loads(asked) for asked in self.asked]})
        elif path == b"/v1/traces":
            Stub.traces += 1
            self._answer({})
        elif path == b"/traces":
            self._answer({"count": Stub.traces})
        elif path == b"/v1/models":
            self._answer({"object": "list", "data": []})
        else:
            Stub.answers += 1
            self.asked.append(body)
            answer = self._stream if b'"stream":true' in body.replace(b" ", b"") else self._answer
            asyncio.get_running_loop().call_later(
                self.delay, self._complete, answer, completion(Stub.answers), self._arrived
            )

    def _complete(self, answer: Callable[[dict[str, Any]], None], body: dict[str, Any], began: float) -> None:
        answer(body)
        self.took[_number(body["choices"][0]["message"]["content"])] = time.time() - began

    def _stream(self, body: dict[str, Any]) -> None:
        """The completion word by word, as server-sent events, each a piece of its own."""
        words = body["choices"][0]["message"]["content"].split(" ")
        base = {"id": body["id"], "object": "chat.completion.chunk", "created": body["created"], "model": "stub"}
        deltas: list[dict[str, Any]] = [
            {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None} for word in words
        ]
        deltas.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        events = [f"data: {json.dumps(base | {'choices': [delta]})}\n\n" for delta in deltas] + ["data: [DONE]\n\n"]
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = "".join(f"{len(event):x}\r\n{event}\r\n" for event in events)
        if not self._transport.is_closing():
            self._transport.write(f"{head}{chunks}0\r\n\r\n".encode())

    def _answer(self, body: Any) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + content)


def completion(number: int) -> dict[str, Any]:
    """An answer like no other, so that two for one event are seen."""
    message = {"role": "assistant", "content": f"Hello from the stub, number {number}!"}
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "stub"}
    return about | {"choices": [choice], "usage": usage}


def _number(text: str) -> str:
    """The number of an answer, whatever was put before it."""
    return text.rsplit(" ", 1)[-1]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    Stub.delay = float(sys.argv[2])
    uvloop.run(serve(int(sys.argv[1])))
