"""A chat router: takes replies at `/response`, and may refuse the first ones."""

from __future__ import annotations

from typing import Any

from quart import Quart, Response, request


class StubRouter:
    """`answers` are the statuses (and Retry-After) of the first posts; later ones are 200."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.app = Quart("router")
        self.app.post("/response")(self.take)
        self.app.post("/elsewhere")(self.elsewhere)
        self.redirected = 0

    async def take(self) -> Response:
        self.raw.append(await request.get_data(cache=True, as_text=False, parse_form_data=False))
        self.bodies.append(await request.get_json())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        return Response("", status=status, headers=headers)

    async def elsewhere(self) -> str:
        self.redirected += 1
        return ""
