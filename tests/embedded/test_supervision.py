"""The parent process as a person meets it: it starts everything, keeps it running, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from embedded.parts import free_port
from tests.conftest import PROJECT

pytestmark = pytest.mark.timeout(180)
CHILDREN = {"service": "app.py", "postgresql": "postgres", "valkey": "valkey-server", "model": "embedded.model_server"}


class Parent:
    """A running `python -m embedded` and what it printed up to its being ready."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.port = free_port()
        environment = os.environ | {"DATA_DIR": str(data), "MODULE_PORT": str(self.port), **settings}
        command = [sys.executable, "-m", "embedded"]
        self.process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
        self.printed: list[str] = []
        assert self.process.stdout
        for line in self.process.stdout:
            self.printed.append(line.rstrip("\n"))
            if "curl" in line and "/dev/router/messages" in line:
                break
        self.family = {child.pid: child for child in psutil.Process(self.process.pid).children(recursive=True)}

    @property
    def curls(self) -> list[httpx.Request]:
        return [as_request(line) for line in self.printed if line.lstrip().startswith("curl ")]

    def child(self, name: str) -> psutil.Process:
        """The process of a part that runs now."""

        def find() -> psutil.Process | None:
            for process in psutil.Process(self.process.pid).children():
                if process.status() != psutil.STATUS_ZOMBIE and CHILDREN[name] in " ".join(process.cmdline()[:3]):
                    return process
            return None

        found: psutil.Process = until(find)
        self.family[found.pid] = found
        return found

    def send(self, request: httpx.Request) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=15) as client:
            return client.send(request)

    def get(self, path: str) -> httpx.Response:
        authorization = {"Authorization": self.curls[0].headers["Authorization"]}
        return self.send(httpx.Request("GET", f"http://127.0.0.1:{self.port}{path}", headers=authorization))

    def converse(self) -> dict[str, Any]:
        """Paste both printed lines, as often as it takes; the callback of the event that was posted."""

        # Another user each time: an identical event within 10 s would be a repeat, and nobody is greeted again so soon.
        printed = self.curls[0]
        posted = json.loads(printed.content) | {"user_id": secrets.token_hex(4)}
        headers = {name: printed.headers[name] for name in ("Authorization", "Content-Type")}
        request = httpx.Request("POST", printed.url, headers=headers, json=posted)

        def post() -> str | None:
            try:
                answer = self.send(request)
            except httpx.HTTPError:
                return None
            return str(answer.json()["data"]["interaction_id"]) if answer.status_code == 200 else None

        interaction_id = until(post)

        def reply() -> dict[str, Any] | None:
            messages = self.send(self.curls[1]).json()["messages"]
            return next((body for body in messages if body["interaction_id"] == interaction_id), None)

        found: dict[str, Any] = until(reply, 60)
        return found

    def healthy(self) -> bool:
        try:
            return bool(self.get("/health").json()["data"]["status"] == "healthy")
        except (httpx.HTTPError, KeyError):
            return False

    def alive(self) -> list[psutil.Process]:
        """What is left of the family; a zombie waits for an init that this machine may not have."""
        return [
            child for child in self.family.values() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        ]

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        assert self.process.stdout
        self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(60)


def as_request(line: str) -> httpx.Request:
    """What `curl` would send for this line, read as a shell reads it."""
    words = shlex.split(line)
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    data = words[words.index("-d") + 1] if "-d" in words else None
    url = next(word for word in words if word.startswith("http"))
    return httpx.Request("POST" if data else "GET", url, headers=headers, content=data)


def until(found: Callable[[], Any], seconds: float = 30) -> Any:
    """What `found` returns, once that is something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def data(clean_environment: None) -> Iterator[Path]:
    """One data folder for the whole story, so that each start finds what the one before left."""
    with tempfile.TemporaryDirectory(prefix="sidecast-tests-") as folder:
        yield Path(folder)


@pytest.fixture
def start(data: Path) -> Iterator[Callable[..., Parent]]:
    parents: list[Parent] = []

    def make(**settings: str) -> Parent:
        parents.append(Parent(data, **settings))
        return parents[-1]

    yield make
    for parent in parents:
        if parent.process.poll() is None:
            parent.stop(signal.SIGTERM)
        if parent.process.stdout:
            parent.process.stdout.close()


def test_the_printed_lines_work_when_pasted_and_sigterm_leaves_nothing(
    start: Callable[..., Parent], data: Path
) -> None:
    parent = start()
    body = parent.converse()
    assert body["response_data"]["message"].startswith("🤖 ")
    assert body["response_data"]["fallback"] is False
    example = next(line for line in (PROJECT / "README.md").read_text().splitlines() if line.startswith("curl "))
    assert as_request(example).content == parent.curls[0].content, "the README shows the event that is printed"
    kept = data / "secrets.json"
    assert json.loads(kept.read_text())["API_KEY"] in "\n".join(parent.printed)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {name for name in CHILDREN if parent.child(name)} == CHILDREN.keys()
    assert parent.stop(signal.SIGTERM) == 0
    assert parent.alive() == []


def test_ctrl_c_stops_everything_in_order(start: Callable[..., Parent]) -> None:
    """The service is the first to stop, so that it can still write what it finishes."""
    parent = start()
    watched = {os.pidfd_open(parent.child(name).pid): name for name in CHILDREN}
    first = select.poll()
    for descriptor in watched:
        first.register(descriptor, select.POLLIN)
    parent.process.send_signal(signal.SIGINT)
    assert "service" in {watched[descriptor] for descriptor, _ in first.poll(30_000)}
    for descriptor in watched:
        os.close(descriptor)
    assert parent.process.wait(30) == 0


@pytest.mark.parametrize("name", CHILDREN)
def test_a_part_that_is_killed_starts_again_and_the_next_event_is_answered(
    start: Callable[..., Parent], name: str
) -> None:
    parent = start()
    victim = parent.child(name)
    victim.kill()
    victim.wait(5)
    until(parent.healthy)
    assert parent.child(name).pid != victim.pid
    assert parent.converse()["response_data"]["fallback"] is False


def test_without_postgresql_nothing_is_acknowledged(start: Callable[..., Parent]) -> None:
    """503 with Retry-After, alive but not ready; with it back, the next event is answered."""
    parent = start()
    parent.process.send_signal(signal.SIGSTOP)  # so that it does not bring PostgreSQL back yet
    parent.child("postgresql").kill()
    until(lambda: parent.get("/health").status_code == 503)
    health = parent.get("/health").json()
    assert health["success"] is False
    assert health["error"]["code"] == "SERVICE_UNAVAILABLE"
    assert health["data"]["dependencies"]["postgresql"]["state"] == "down"
    assert parent.get("/health/ready").status_code == 503
    assert parent.get("/health/live").status_code == 200
    refused = parent.send(parent.curls[0])
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
    assert refused.headers["Retry-After"]
    parent.process.send_signal(signal.SIGCONT)
    assert parent.converse()["response_data"]["fallback"] is False


def test_a_killed_parent_takes_its_children_along_and_the_next_start_works(start: Callable[..., Parent]) -> None:
    parent = start()
    first = parent.converse()
    parent.stop(signal.SIGKILL)
    until(lambda: not parent.alive(), 10)
    again = start()
    assert again.curls[0].headers["Authorization"] == parent.curls[0].headers["Authorization"]
    community = again.get(f"/api/v1/ai/interaction/{first['interaction_id']}").json()["data"]
    assert community["state"] == "delivered"
    again.converse()


def test_a_start_right_after_a_kill_waits_for_the_data_folder(start: Callable[..., Parent]) -> None:
    parent = start()
    parent.stop(signal.SIGKILL)
    again = start()
    again.converse()
    until(lambda: not parent.alive(), 10)
    assert again.alive()


def test_keys_of_the_environment_are_not_printed(start: Callable[..., Parent]) -> None:
    parent = start(VALID_API_KEYS="key-of-mine", ROUTER_RESPONSE_PATH="/response")
    text = "\n".join(parent.printed)
    assert "key-of-mine" not in text
    assert 'Authorization: Bearer $KEY"' in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"MODULE_PORT": "0"}, "MODULE_PORT"),
        ({"AI_TEMPERATURE": "9"}, "AI_TEMPERATURE: Input should be less than or equal to 2 (allowed: 0 to 2)"),
        ({"EMBEDDED_MODEL_PATH": "/nowhere.gguf"}, "EMBEDDED_MODEL_PATH: there is no file /nowhere.gguf"),
        ({"AI_FALLBACKS": "nonsense/x"}, "AI_FALLBACKS: Value error, entry 1: provider: Input should be"),
    ],
)
def test_a_start_that_cannot_work_says_why(data: Path, settings: dict[str, str], said: str) -> None:
    environment = os.environ | {"DATA_DIR": str(data), "MODULE_PORT": str(free_port())} | settings
    command = [sys.executable, "-m", "embedded"]
    ended = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named(start: Callable[..., Parent], data: Path) -> None:
    parent = start()
    with tempfile.TemporaryDirectory(prefix="sidecast-tests-") as other:
        environment = os.environ | {"DATA_DIR": other, "MODULE_PORT": str(parent.port)}
        command = [sys.executable, "-m", "embedded"]
        ended = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 2
    assert f"port {parent.port} is taken" in ended.stderr
