"""The command line, as `scripts/sidecast` runs it, on the database of a running service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT, MakeService, Service, event
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


async def test_the_secret_is_changed_while_instances_run(make_service: MakeService, sidecast: CommandLine) -> None:
    """Old, then old and new, then new alone: the key of a community is read all the while."""
    stub = StubOpenAI()
    async with running(stub.app) as url:
        allowed = {"community_url_allow": "127.0.0.1", "community_url_http": True}
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
        assert "4 cannot be read" in await sidecast("secrets", "rotate", SECRET_KEY="another one", code=1)
        await put(alone, community_id=mine, api_key=None)
