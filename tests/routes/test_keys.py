"""Keys and tokens: roles, issuing, revoking with overlap, wrong ones, and what a community's key may see."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from quart import Quart

from services.audit import BrokenChain
from tests.conftest import API, KEY, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.server import running

SECRET = "a secret of at least 32 characters, for HS256"


async def issue(service: Service, role: str, key: str = KEY, **more: Any) -> dict[str, Any]:
    answer = await service.post("/keys", key, role=role, **more)
    body = await answer.get_json()
    assert answer.status_code == 200, body
    data: dict[str, Any] = body["data"]
    return data


async def status(service: Service, path: str, key: str) -> int:
    return int((await service.get(API + path, key)).status_code)


async def test_a_key_is_told_once_and_kept_as_a_hash(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    service = await make_service()
    made = await issue(service, "service", label="router")
    assert len(made["key"]) > 43
    listed = (await (await service.get(f"{API}/keys")).get_json())["data"]["keys"]
    mine = next(key for key in listed if key["key_id"] == made["key_id"])
    assert (mine["prefix"], mine["role"], mine["label"]) == (made["key"][:10], "service", "router")
    assert made["key"] not in str(listed)
    kept = await database.fetch("select * from keys")
    assert made["key"][10:] not in str(kept)
    assert (await service.post(key=made["key"], **event())).status_code == 200
    await service.sidecast.keys.note_used()
    assert await database.fetchval("select last_used_at from keys where key_id::text = $1", made["key_id"])


async def test_roles(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service)
    router = (await issue(service, "service"))["key"]
    streamer = (await issue(service, f"community:{mine}"))["key"]
    assert (await service.post(key=router, **event())).status_code == 200
    assert (await service.post(key=streamer, **event())).status_code == 403
    assert [await status(service, path, router) for path in ("/models", "/config", "/keys", "/audit")] == [
        200,
        403,
        403,
        403,
    ]
    assert [await status(service, path, streamer) for path in ("/models", "/config", "/keys", "/audit")] == [200] * 4
    answer = await service.post("/keys", streamer, role="admin")
    assert answer.status_code == 403
    assert (await issue(service, f"community:{mine}", streamer))["role"] == f"community:{mine}"


async def test_a_key_ends_when_it_is_revoked_or_over_on_every_instance(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    made = await issue(one, "service")
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    short = await issue(one, "service", expires_at=soon)
    for service in (one, two):
        async with asyncio.timeout(1):
            while await status(service, "/models", made["key"]) != 200:
                await asyncio.sleep(0.02)
    answer = await one.client.delete(f"{API}/keys/{made['key_id']}", headers={"X-API-Key": KEY})
    assert (await answer.get_json())["data"]["revoked_at"]
    async with asyncio.timeout(1):
        while await status(two, "/models", made["key"]) != 401:
            await asyncio.sleep(0.02)
    assert await status(one, "/models", made["key"]) == 401
    await asyncio.sleep(0.3)
    assert await status(one, "/models", short["key"]) == 401


async def test_a_key_is_rotated_with_an_overlap(make_service: MakeService) -> None:
    service = await make_service()
    old, new = await issue(service, "service"), await issue(service, "service")
    path = f"{API}/keys/{old['key_id']}?overlap=0.4"
    assert (await service.client.delete(path, headers={"X-API-Key": KEY})).status_code == 200
    assert await status(service, "/models", old["key"]) == 200
    await asyncio.sleep(0.5)
    assert [await status(service, "/models", key["key"]) for key in (old, new)] == [401, 200]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "king"}, "role"),
        ({"role": "community"}, "role"),
        ({"role": "admin:x"}, "role"),
        ({"role": "admin", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"role": "admin", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"role": "admin", "text": "mine"}, "text"),
        ({}, "role"),
    ],
)
async def test_a_bad_key_request_names_its_field(make_service: MakeService, body: dict[str, Any], field: str) -> None:
    answer = await (await make_service()).post("/keys", **body)
    assert answer.status_code == 400
    assert (await answer.get_json())["error"]["details"][0]["field"] == field


async def test_another_community_is_as_one_that_does_not_exist_on_every_route(make_service: MakeService) -> None:
    service = await make_service()
    mine, other, nobody = await community(service), await community(service), str(uuid4())
    streamer = (await issue(service, f"community:{mine}"))["key"]
    headers = {"X-API-Key": streamer}
    told: dict[str, list[Any]] = {}
    for about in (other, nobody, "7"):
        for path in ("config", "communities", "keys", "audit", "history", "usage"):
            answer = await service.client.get(f"{API}/{path}?community_id={about}", headers=headers)
            told.setdefault(path, []).append((answer.status_code, await answer.get_data()))
        answer = await service.client.put(f"{API}/config", json={"community_id": about}, headers=headers)
        told.setdefault("put", []).append((answer.status_code, await answer.get_data()))
        answer = await service.client.post(f"{API}/keys", json={"role": f"community:{about}"}, headers=headers)
        told.setdefault("post", []).append((answer.status_code, await answer.get_data()))
        answer = await service.client.get(f"{API}/models", headers=headers | {"X-Community-Id": about})
        told.setdefault("models", []).append((answer.status_code, await answer.get_data()))
    for path, answers in told.items():
        assert [answer[0] for answer in answers] == [404] * 3, path
        assert len({body for _, body in answers}) == 1, path
    for path in ("config", "communities", "keys", "audit", "history", "usage"):
        answer = await service.client.get(f"{API}/{path}?community_id={mine}", headers=headers)
        assert answer.status_code == 200
        assert other not in await answer.get_data(as_text=True)
        assert await status(service, f"/{path}", streamer) == 200
    others = await issue(service, f"community:{other}")
    answer = await service.client.delete(f"{API}/keys/{others['key_id']}", headers=headers)
    assert answer.status_code == 404
    ack = await service.accept()
    assert await status(service, f"/interaction/{ack['interaction_id']}", streamer) == 404


async def test_channels_share_a_community_and_move(make_service: MakeService) -> None:
    service, second = await make_service(), await make_service()
    first, other = event()["entity_id"], event(platform="discord")["entity_id"]
    before = await community(service, first)
    answer = await service.post("/communities", name="Ours", entities=[first, other])
    made = (await answer.get_json())["data"]
    assert (made["name"], made["entities"]) == ("Ours", sorted([first, other]))
    assert made["community_id"] != before
    async with asyncio.timeout(1):
        while await community(second, first) != made["community_id"]:
            await asyncio.sleep(0.02)
    await put(service, community_id=made["community_id"], language="Welsh")
    path = f"{API}/communities/{before}"
    answer = await service.client.put(path, json={"name": "Back", "entities": [first]}, headers={"X-API-Key": KEY})
    assert (await answer.get_json())["data"]["entities"] == [first]
    for community_id, name in ((before, "Back"), (made["community_id"], "Ours")):
        listed = await (await service.get(f"{API}/communities?community_id={community_id}")).get_json()
        assert [row["name"] for row in listed["data"]["communities"]] == [name]


async def test_history_tells_what_became_of_interactions(make_service: MakeService) -> None:
    service = await make_service()
    entity_id = event()["entity_id"]
    mine = await community(service, entity_id)
    body = await service.answered(entity_id=entity_id)
    told = (await (await service.get(f"{API}/history?community_id={mine}")).get_json())["data"]["interactions"]
    assert [(row["interaction_id"], row["state"], row["message"]) for row in told] == [
        (body["interaction_id"], "delivered", None)
    ]
    assert (await service.get(f"{API}/history")).status_code == 400


async def test_the_audit_log_tells_who_did_what_and_shows_a_changed_row(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    service = await make_service()
    mine = await community(service)
    streamer = (await issue(service, f"community:{mine}"))["key"]
    await put(service, streamer, community_id=mine, language="Basque", provider="openrouter", api_key="canary-key")
    told = (await (await service.get(f"{API}/audit?community_id={mine}")).get_json())["data"]["entries"]
    assert [(entry["action"], entry["actor"]) for entry in told] == [
        ("settings.changed", f"key:{streamer[:10]}"),
        ("key.issued", "environment:1"),
    ]
    assert told[0]["details"]["language"] == {"from": None, "to": "Basque"}
    assert told[0]["details"]["api_key"] == "set"
    assert "canary" not in str(told)
    assert await service.sidecast.audit.verify() == await database.fetchval("select max(number) from audit")
    number = told[0]["number"]
    for change in ("update audit set actor = ''", "delete from audit", "truncate audit"):
        with pytest.raises(asyncpg.RaiseError, match="rows of audit are never changed"):
            await database.execute(change)
    await database.execute("set session_replication_role = replica")  # as who owns the server may, for once
    kept = await database.fetchval("update audit set actor = 'nobody' where number = $1 returning actor", number)
    assert kept == "nobody"
    with pytest.raises(BrokenChain, match=f"number {number} "):
        await service.sidecast.audit.verify()
    await database.execute("update audit set actor = $2 where number = $1", number, f"key:{streamer[:10]}")
    assert await service.sidecast.audit.verify() > 0


def token(key: Any, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> str:
    given = {"sub": "anna", "role": "admin", "exp": time.time() + 60} | claims
    return jwt.encode({k: v for k, v in given.items() if v is not None}, key, algorithm, {"kid": kid} if kid else None)


async def test_a_token_signed_with_the_secret(make_service: MakeService) -> None:
    service = await make_service(secret_key=SECRET, jwt_issuer="us", jwt_audience="sidecast")
    mine = await community(service)
    named: dict[str, Any] = {"iss": "us", "aud": "sidecast"}
    assert await status(service, "/config", token(SECRET, **named)) == 200
    assert await status(service, "/models", token(SECRET, role=f"community:{mine}", **named)) == 200
    assert await status(service, "/config", token(SECRET, role="service", **named)) == 403
    wrong = [
        token(SECRET, iss="them", aud="sidecast"),
        token(SECRET, iss="us"),
        token(SECRET, exp=time.time() - 60, **named),
        token(SECRET, exp=None, **named),
        token(SECRET, sub=None, **named),
        token(SECRET, role=None, **named),
        token(SECRET, role="king", **named),
        token(SECRET, role="community:7", **named),
        token("another secret of at least 32 characters", **named),
        jwt.encode({"sub": "a", "role": "admin", "exp": time.time() + 60, **named}, "", "none"),
        token(SECRET, **named)[:-2] + "xx",
        "a.b.c",
    ]
    assert {await status(service, "/models", each) for each in wrong} == {401}


async def test_a_token_of_a_key_set(make_service: MakeService) -> None:
    """RS256 and ES256; a key that is new to us is fetched; a public key is never taken for an HMAC secret."""
    old, new = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    of_rsa = jwt.algorithms.RSAAlgorithm.to_jwk(old.public_key(), as_dict=True) | {"kid": "old", "alg": "RS256"}
    of_ec = jwt.algorithms.ECAlgorithm.to_jwk(new.public_key(), as_dict=True) | {"kid": "new", "alg": "ES256"}
    keys, asked = [of_rsa], []
    app = Quart("jwks")

    @app.get("/jwks")
    async def jwks() -> dict[str, Any]:
        asked.append(1)
        return {"keys": keys}

    async with running(app) as url:
        service = await make_service(secret_key=SECRET, jwt_jwks_url=f"{url}/jwks")
        assert await status(service, "/models", token(old, "RS256", "old")) == 200
        assert await status(service, "/models", token(old, "RS256", "old")) == 200
        assert len(asked) == 1
        assert await status(service, "/models", token(new, "ES256", "new")) == 401
        keys.append(of_ec)
        service.sidecast._jwts._tried -= 10
        assert await status(service, "/models", token(new, "ES256", "new")) == 200
        assert await status(service, "/models", token(new, "ES256", "old")) == 401
        assert await status(service, "/models", token(SECRET, "HS256", "old")) == 200
    assert await status(service, "/models", token(old, "RS256", "old")) == 200, "known keys go on"


async def test_an_address_with_too_many_wrong_keys_is_not_listened_to(make_service: MakeService) -> None:
    """But for keys that were right from there before; `X-Forwarded-For` counts from a trusted proxy alone."""
    service = await make_service(trusted_proxies="10.0.0.0/8", valid_api_keys=f"{KEY},another-key")

    async def ask(key: str, client: str, forwarded: str | None = None) -> Any:
        headers = {"X-API-Key": key} | ({"X-Forwarded-For": forwarded} if forwarded else {})
        scope = {"client": (client, 1)}
        return await service.client.get(f"{API}/models", headers=headers, scope_base=scope)

    assert (await ask("wrong", "1.2.3.4")).status_code == 401
    assert (await ask(KEY, "1.2.3.4")).status_code == 200
    for _ in range(99):
        assert (await ask("wrong", "1.2.3.4", "9.9.9.9")).status_code == 401
    blocked = await ask("another-key", "1.2.3.4")
    assert blocked.status_code == 429
    assert 0 < int(blocked.headers["Retry-After"]) <= 60
    assert (await ask(KEY, "1.2.3.4")).status_code == 200, "it was right before"
    assert (await ask("another-key", "9.9.9.9")).status_code == 200
    assert (await ask("another-key", "10.1.1.1", "8.8.8.8, 1.2.3.4")).status_code == 429
    assert (await ask("another-key", "10.1.1.1", "1.2.3.4, 8.8.8.8")).status_code == 200
