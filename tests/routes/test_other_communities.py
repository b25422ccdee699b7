"""A community's key and another's ids: on every route there is, what one hears is what one hears of nothing at all."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest
from quart.testing import WebsocketResponseError

from tests.conftest import API, MakeService, Service, event
from tests.routes.test_config import community
from tests.test_policies import OPEN

HELLO = [{"role": "user", "content": "hi"}]
# What a request to each route holds besides the ids; a new route that takes a body needs its line here.
BODIES: dict[str, dict[str, Any]] = {
    "POST /interaction": event(),
    "POST /interaction/batch": {"events": [event()]},
    "POST /interaction/cancel": {"entity_id": "twitch:channel:1", "user_id": "1"},
    "POST /chat/completions": {"messages": HELLO, "max_tokens": 1},
    "POST /embeddings": {"input": "hi"},
    "POST /test": {"message": "nothing to say"},
    "POST /keys": {"role": "community:{community_id}"},
    "POST /communities": {"name": "mine"},
    "PUT /communities/<community_id>": {"name": "mine"},
    "PUT /config": {"persona_name": "Otto"},
}


async def issue(service: Service, role: str) -> tuple[str, str]:
    """A key's text and id."""
    told = (await (await service.post("/keys", role=role)).get_json())["data"]
    return told["key"], told["key_id"]


async def ids_of_another(service: Service) -> dict[str, str]:
    """Everything of another community that a request can name."""
    channel = str(event()["entity_id"])
    theirs = await community(service, channel)
    reply = await service.answered(entity_id=channel, user_id=f"user-of-{theirs}")
    _, key_id = await issue(service, f"community:{theirs}")
    interaction_id = reply["interaction_id"]
    return {
        "community_id": theirs,
        "key_id": key_id,
        "interaction_id": interaction_id,
        "user_id": f"user-of-{theirs}",
        "platform": "twitch",
        "name": "no-model",
    }


async def heard(service: Service, key: str, method: str, rule: str, ids: dict[str, str]) -> list[tuple[int, str]]:
    """Status and body with the community named in the path, the query, the body and the header."""
    path = re.sub(r"<(?:path:)?(\w+)>", lambda found: ids[found[1]], rule)
    named = ids["community_id"]
    plain = method in {"GET", "DELETE"} or rule.startswith("/dashboard")
    body = BODIES.get(f"{method} {rule.removeprefix(API)}", {} if plain else None)
    assert body is not None, f"{method} {rule} needs a body in BODIES"
    body = {
        name: value.replace("{community_id}", named) if isinstance(value, str) else value
        for name, value in body.items()
    }
    bearer = {"Authorization": f"Bearer {key}"}
    ways: list[dict[str, Any]] = [
        {"json": body, "headers": bearer},
        {"json": body, "headers": bearer, "query_string": {"community_id": named}},
        {"json": body | {"community_id": named}, "headers": bearer},
        {"json": body, "headers": bearer | {"X-Community-Id": named}},
    ]
    answers = []
    for way in ways:
        if method in {"GET", "DELETE"}:
            way.pop("json")
        answer = await service.client.open(path, method=method, **way)
        text = re.sub(r'"(timings|latency_ms|created)":[^}]*}', "", await answer.get_data(as_text=True))
        answers.append((answer.status_code, text))
    return answers


async def test_another_community_is_as_one_that_does_not_exist_on_every_route(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service, str(event()["entity_id"]))
    key, _ = await issue(service, f"community:{mine}")
    theirs = await ids_of_another(service)
    nothing = {name: str(uuid4()) if name.endswith("_id") else value for name, value in theirs.items()}
    unguarded = []
    for rule in service.app.url_map.iter_rules():
        of_nobody = rule.rule.startswith("/dashboard") and "<community_id>" not in rule.rule
        if rule.rule in OPEN or rule.websocket or of_nobody:
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            one, other = [await heard(service, key, method, rule.rule, ids) for ids in (theirs, nothing)]
            for (status, text), (status_of_nothing, text_of_nothing) in zip(one, other, strict=True):
                assert status == status_of_nothing, f"{method} {rule.rule}"
                assert theirs["user_id"] not in text, f"{method} {rule.rule}"
                if status >= 400:
                    assert text == text_of_nothing, f"{method} {rule.rule}"
            if not {403, 404} & {status for status, _ in one}:
                unguarded.append(f"{method} {rule.rule}")
    assert unguarded == [], "these routes never looked at whose community was named"
    # And what was tried has changed nothing there.
    answer = await service.get(f"{API}/communities?community_id={theirs['community_id']}")
    assert (await answer.get_json())["data"]["communities"][0]["name"] != "mine"
    answer = await service.get(f"{API}/config?community_id={theirs['community_id']}")
    assert (await answer.get_json())["data"]["persona_name"] == ""
    known = await (await service.get(f"{API}/users/twitch/{theirs['user_id']}")).get_json()
    assert len(known["data"]["interactions"]) == 1


async def test_neither_does_a_stream_tell(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service, str(event()["entity_id"]))
    theirs = await community(service, str(event()["entity_id"]))
    key, _ = await issue(service, f"community:{mine}")
    bodies = []
    for named in (theirs, str(uuid4())):
        headers = {"Authorization": f"Bearer {key}", "X-Community-Id": named}
        with pytest.raises(WebsocketResponseError) as refused:
            async with service.client.websocket(f"{API}/stream", headers=headers) as socket:
                await socket.receive()
        assert refused.value.response.status_code == 404
        bodies.append(await refused.value.response.get_data())
    assert bodies[0] == bodies[1]
