"""Log lines: five levels, the seeds' fields, no text and no key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from config import load_settings
from services.logs import open_log
from tests.conftest import KEY, MakeService
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

CANARY = "canary-7731"


Output = pytest.CaptureFixture[str]


def lines(capsys: Output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_has_exactly_these_fields(capsys: Output) -> None:
    log = open_log(load_settings())
    with bound_contextvars(request_id="r-1"):
        log.audit("interaction.delivered", "greeting on twitch", user="u", community="c", result="SUCCESS")
    [line] = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "audit",
        "module": "ai_interaction_module",
        "action": "interaction.delivered",
        "user": "u",
        "community": "c",
        "result": "SUCCESS",
        "message": "greeting on twitch",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("DEBUG", ["system", "audit", "error", "info", "debug"]),
        ("INFO", ["system", "audit", "error", "info"]),
        ("WARNING", ["system", "audit", "error"]),
        ("ERROR", ["system", "audit", "error"]),
    ],
)
def test_system_and_audit_are_always_written(capsys: Output, level: str, written: list[str]) -> None:
    log = open_log(load_settings(log_level=level))
    for write in (log.system, log.audit, log.error, log.info, log.debug):
        write("test.line", "said")
    assert [line["level"] for line in lines(capsys)] == written


def test_an_error_says_where_it_came_from_but_not_its_words(capsys: Output) -> None:
    log = open_log(load_settings())
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ValueError(CANARY) from error
    except ValueError:
        log.error("task.failed", "it failed", exc_info=True)
    [line] = lines(capsys)
    assert "test_logs.py" in line["exception"]
    assert line["exception"].index("builtins.ValueError") < line["exception"].index("caused by")
    assert line["exception"].endswith("builtins.KeyError")
    assert CANARY not in str(line)


def test_on_a_terminal_lines_are_for_reading(capsys: Output) -> None:
    open_log(load_settings(log_format="console")).info("test.line", "a sentence")
    text = capsys.readouterr().out
    assert "a sentence" in text
    assert not text.startswith("{")


def test_a_log_file_is_written_where_a_folder_is_set(capsys: Output, tmp_path: Path) -> None:
    open_log(load_settings(log_dir=str(tmp_path / "logs"))).info("test.line", "a sentence")
    text = (tmp_path / "logs" / "ai_interaction_module.log").read_text()
    assert json.loads(text)["message"] == "a sentence"
    open_log(load_settings())  # lets go of the file


async def test_no_text_and_no_key_in_any_line(make_service: MakeService, capsys: Output) -> None:
    """What users and models say, who they are, and every key stay out, at the most talkative level and in failures."""
    stub = StubOpenAI(f"answer {CANARY}")
    secrets = {
        "valid_api_keys": f"{KEY},{CANARY}",
        "waddleai_api_key": f"wa-{CANARY}",
        "router_api_key": CANARY,
        "router_callback_secret": CANARY,
        "secret_key": CANARY,
    }
    async with running(stub.app) as url:
        service = await make_service(ai_provider="waddleai", waddleai_base_url=url, log_level="DEBUG", **secrets)
        for answer in (
            stub.answer,
            (401, "application/json", json.dumps({"error": CANARY})),
            (200, "text/html", CANARY),
        ):
            stub.answer = answer
            await service.answered(message_content=f"hello {CANARY}", user_id=CANARY, username=CANARY)
        await service.post(**{"user_id": CANARY, "platform": CANARY.upper()})
        await service.post(key=CANARY + "x")
    text = capsys.readouterr().out
    assert text.count('"interaction.delivered"') == 3
    assert '"provider.failed"' in text
    assert CANARY not in text
