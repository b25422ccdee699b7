"""The command line, as `scripts/sidecast` runs it, on the database of a running service."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import API, PROJECT, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.routes.test_keys import status
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running


class CommandLine:
    """Runs commands with the settings of a service on these parts."""

    def __init__(self, parts: dict[str, str], folder: Path) -> None:
        self._environment = parts | {"DATA_DIR": str(folder), "PATH": "", "SECRET_KEY": "test secret"}

    async def __call__(self, *command: str, code: int = 0, **settings: str) -> str:
        """What it prints; `code` is how it is to end."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "quart", "--app", "app:create_app", *command],
            cwd=PROJECT,
            env=self._environment | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout.strip()


@pytest.fixture
def sidecast(parts: dict[str, str], tmp_path: Path) -> CommandLine:
    return CommandLine(parts, tmp_path)


async def test_keys_are_issued_listed_and_revoked(make_service: MakeService, sidecast: CommandLine) -> None:
    service = await make_service()
    key = await sidecast("keys", "create", "--role", "service", "--label", "our router", "--days", "3")
    async with asyncio.timeout(1):
        while await status(service, "/models", key) != 200:
            await asyncio.sleep(0.02)
    [line] = [line for line in (await sidecast("keys", "list")).splitlines() if key[:10] in line]
    key_id, prefix, role, label, *_ = line.split("\t")
    assert (prefix, role, label) == (key[:10], "service", "our router")
    assert "ends now" in await sidecast("keys", "revoke", key_id)
    async with asyncio.timeout(1):
        while await status(service, "/models", key) != 401:
            await asyncio.sleep(0.02)
    for role in ("king", "community:7", f"community:{key_id}"):
        assert "--role" in await sidecast("keys", "create", "--role", role, code=2)
    assert "no such key" in await sidecast("keys", "revoke", "00000000-0000-0000-0000-000000000000", code=1)


async def test_communities_are_listed_and_the_audit_log_is_verified(
    make_service: MakeService, sidecast: CommandLine
) -> None:
    service = await make_service()
    channel = event()["entity_id"]
    mine = await community(service, channel)
    assert f"{mine}\t{channel}\t{channel}" in await sidecast("communities", "list")
    assert "each chained to the one before" in await sidecast("audit", "verify")


async def test_the_secret_is_changed_while_instances_run(
    empty: str, make_service: MakeService, parts: dict[str, str], tmp_path: Path
) -> None:
    """Old, then old and new, then new alone: the key of a community is read all the while."""
    sidecast = CommandLine(parts | {"DATABASE_URL": empty}, tmp_path)
    stub = StubOpenAI()
    async with running(stub.app) as url:
        allowed = {"database_url": empty, "community_url_allow": "127.0.0.1", "community_url_http": True}
        old = await make_service(secret_key="the old one", **allowed)
        channel = event()["entity_id"]
        mine = await community(old, channel)
        own: dict[str, Any] = {"provider": "custom", "base_url": f"{url}/v1", "model": "m", "api_key": "canary-own"}
        own["store_content"] = True
        assert (await put(old, community_id=mine, **own))[0] == 200

        async def sent(service: Service) -> str:
            await service.answered(entity_id=channel)
            return str(stub.headers[-1]["authorization"])

        assert await sent(old) == "Bearer canary-own"
        await old.sidecast.drain()
        both = await make_service(secret_key="the new one", secret_key_previous="the old one", **allowed)
        assert await sent(both) == "Bearer canary-own"
        said = await sidecast("secrets", "rotate", SECRET_KEY="the new one", SECRET_KEY_PREVIOUS="the old one")
        assert said == "sealed with SECRET_KEY now: 1 keys of communities, 2 texts"
        await both.sidecast.drain()
        alone = await make_service(secret_key="the new one", **allowed)
        assert await sent(alone) == "Bearer canary-own"
        assert "5 cannot be read" in await sidecast("secrets", "rotate", SECRET_KEY="another one", code=1)
        await put(alone, community_id=mine, api_key=None)


async def test_a_person_is_forgotten_with_a_receipt(make_service: MakeService, sidecast: CommandLine) -> None:
    service = await make_service()
    for _ in range(2):
        await service.answered(user_id="cli/forgotten")
    told = dict(
        line.split("\t") for line in (await sidecast("users", "forget", "twitch", "cli/forgotten")).splitlines()
    )
    assert (told["interactions"], len(told["receipt_id"])) == ("2", 36)
    known = await (await service.get(f"{API}/users/twitch/cli/forgotten")).get_json()
    assert known["data"] == {"interactions": [], "conversations": {}}


async def test_communities_are_carried_with_their_keys_sealed_or_left_out(
    make_service: MakeService, sidecast: CommandLine, tmp_path: Path
) -> None:
    service = await make_service(community_url_allow="127.0.0.1", community_url_http=True)
    channel = event()["entity_id"]
    mine = await community(service, channel)
    own = {"provider": "custom", "base_url": "http://127.0.0.1:9/v1", "model": "m", "persona_name": "Otto"}
    assert (await put(service, community_id=mine, **own, api_key="canary-carried"))[0] == 200
    plain, sealed = tmp_path / "plain.json", tmp_path / "sealed.json"
    allowed: Any = {"COMMUNITY_URL_ALLOW": "127.0.0.1", "COMMUNITY_URL_HTTP": "true"}
    await sidecast("communities", "export", mine, "--file", str(plain))
    await sidecast("communities", "export", mine, "--with-keys", "--file", str(sealed), SIDECAST_PASSPHRASE="open up")
    assert "canary" not in plain.read_text() + sealed.read_text()
    assert json.loads(plain.read_text())["communities"][0]["settings"] == own
    await put(service, community_id=mine, persona_name="Anna", greetings=False, api_key=None)
    said = await sidecast("communities", "import", str(sealed), code=1, SIDECAST_PASSPHRASE="open down", **allowed)
    assert "Nothing was changed" in said
    assert (await shown(sidecast, mine))["settings"]["persona_name"] == "Anna"
    said = await sidecast("communities", "import", str(sealed), SIDECAST_PASSPHRASE="open up", **allowed)
    assert said == "1 communities"
    about = await shown(sidecast, mine)
    assert (about["settings"]["persona_name"], about["settings"]["greetings"], about["api_key_set"]) == (
        "Otto",
        True,
        True,
    )
    assert await service.sidecast.settings_store.key(UUID(mine)) == "canary-carried"
    await put(service, community_id=mine, provider=None, base_url=None, model=None, api_key=None)
    said = await sidecast("communities", "import", str(sealed), **allowed)
    assert said == "1 communities, 1 of them without their key"
    elsewhere = plain.read_text().replace(mine, "00000000-0000-0000-0000-00000000c0de")
    plain.write_text(elsewhere)
    await sidecast("communities", "import", str(plain), **allowed)
    assert (await shown(sidecast, "00000000-0000-0000-0000-00000000c0de"))["entities"] == [channel]
    plain.write_text(elsewhere.replace("Otto", "x" * 51))
    await put(service, community_id=mine, enabled=False)
    said = await sidecast("communities", "import", str(plain), code=1, **allowed)
    assert "persona_name: String should have" in said
    assert "Nothing was changed" in said
    assert (await shown(sidecast, "00000000-0000-0000-0000-00000000c0de"))["settings"]["persona_name"] == "Otto"
    plain.write_text(elsewhere.replace("c0de", "0000"))
    assert "that of the settings of all" in await sidecast("communities", "import", str(plain), code=1, **allowed)
    assert "no such community" in await sidecast("communities", "show", "00000000-0000-0000-0000-0000000000ff", code=1)


async def shown(sidecast: CommandLine, community_id: str) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(await sidecast("communities", "show", community_id))
    return about


async def test_a_backup_is_restored_while_the_service_runs_and_who_was_forgotten_stays_so(
    empty: str, make_service: MakeService, parts: dict[str, str], tmp_path: Path
) -> None:
    sidecast = CommandLine(parts | {"DATABASE_URL": empty}, tmp_path)
    service = await make_service(database_url=empty)
    channel = event()["entity_id"]
    reply = await service.answered(entity_id=channel, user_id="gone")
    kept = await service.answered(entity_id=channel, user_id="here")
    await service.answered(entity_id=channel, user_id="back")
    await sidecast("users", "forget", "twitch", "back")
    back = await service.answered(entity_id=channel, user_id="back")
    path = str(tmp_path / "backup")
    assert "MB" in await sidecast("data", "backup", path)
    await sidecast("users", "forget", "twitch", "gone")
    later = await service.answered(entity_id=channel)
    said = await sidecast("data", "restore", path, "--yes")
    assert said == "restored\n1 people who were forgotten since the backup were forgotten again"
    known = await (await service.get(f"{API}/users/twitch/gone")).get_json()
    assert known["data"]["interactions"] == []
    known = await (await service.get(f"{API}/users/twitch/back")).get_json()
    assert len(known["data"]["interactions"]) == 1, "forgotten before the backup, and here again"
    for interaction_id in (reply["interaction_id"], kept["interaction_id"], back["interaction_id"]):
        assert (await service.outcome(interaction_id))["state"] == "delivered"
    assert (await service.get(f"{API}/interaction/{later['interaction_id']}")).status_code == 404
    assert "Nothing was changed" in await sidecast("data", "restore", __file__, "--yes", code=1)
