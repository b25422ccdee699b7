"""The task runner: nothing vanishes, nothing fails unheard."""

from __future__ import annotations

import asyncio
import json

import pytest

from config import load_settings
from services.logs import open_log
from services.tasks import Tasks


async def test_a_task_that_fails_is_logged_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("no")

    tasks = Tasks(open_log(load_settings()))
    await tasks.spawn(fail(), "the-name")
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["action"], line["message"]) == ("error", "task.failed", "the task the-name failed")
    assert len(tasks) == 0


async def test_drain_waits_then_cancels() -> None:
    done: list[str] = []

    async def work(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            done.append(name)
        except asyncio.CancelledError:
            done.append(f"{name} cancelled")
            raise

    tasks = Tasks(open_log(load_settings()))
    tasks.spawn(work("quick", 0.05), "quick")
    tasks.spawn(work("slow", 30), "slow")
    assert len(tasks) == 2
    assert await tasks.drain(0.2) == 1
    assert done == ["quick", "slow cancelled"]


async def test_a_loop_goes_on_after_a_step_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            raise ValueError("no")

    async def pause() -> None:
        await asyncio.sleep(0)

    tasks = Tasks(open_log(load_settings()))
    tasks.repeat(step, pause, "loop")
    while steps < 3:
        await asyncio.sleep(0)
    await tasks.drain(1)
    assert capsys.readouterr().out.count("task.failed") == 1


async def test_a_loop_that_is_in_a_step_when_it_is_drained_does_not_pause_again() -> None:
    async def step() -> None:
        await asyncio.sleep(0.05)

    async def pause() -> None:
        await asyncio.sleep(30)

    tasks = Tasks(open_log(load_settings()))
    tasks.repeat(step, pause, "loop")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await tasks.drain(20) == 0
