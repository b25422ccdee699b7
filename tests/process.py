"""Programs that a test runs, while its own loop goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120


@dataclass(frozen=True)
class Done:
    code: int
    output: str


async def run_process(folder: Path, *command: str) -> Done:
    """Run a command in a folder, two minutes at most; what it says goes to `output`, errors too."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate()
    return Done(process.returncode or 0, output.decode())
