"""The official JavaScript client against the real service, where Node and npm are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import API, KEY, PROJECT, MakeService
from tests.process import run_process
from tests.stubs.server import running

CLIENT = "openai@6.49.0"


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="Node and npm are not installed")
async def test_the_javascript_client(make_service: MakeService, tmp_path: Path) -> None:
    installed = await run_process(tmp_path, "npm", "install", "--no-audit", "--no-fund", CLIENT)
    if installed.code:
        pytest.skip(f"npm cannot install {CLIENT} here")
    script = tmp_path / "openai_client.mjs"
    shutil.copy(PROJECT / "tests" / "routes" / script.name, script)
    service = await make_service()
    async with running(service.app) as url:
        done = await run_process(tmp_path, "node", script.name, url + API, KEY)
    assert done.code == 0, done.output
    seen = json.loads(done.output.splitlines()[-1])
    assert seen["text"].strip()
    assert seen["streamed"].strip()
    assert seen["total"] > seen["completion"] > 0
    assert seen["dimensions"] > 100
    assert seen["models"] == ["auto", "embedded/SmolLM2-135M-Instruct.Q4_1"]
    assert seen["errors"] == [
        ["NotFoundError", "model_not_found", "model"],
        ["BadRequestError", None, "temperature"],
        ["AuthenticationError", "invalid_api_key", None],
    ]
