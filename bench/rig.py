"""Starts what a bench needs, each in a process of its own: the embedded parts, stubs, instances of the service."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil

from embedded.parts import PROJECT, free_port

KEY = "bench-key"
START_SECONDS = 60.0
CONFIG = "/api/v1/ai/config"
# So that they are counted, and reached by nothing that is measured.
WIDE_LIMITS: dict[str, float] = {
    "user_cooldown": 0,
    "greeting_cooldown": 0,
    "channel_replies": 10_000,
    "community_replies": 10_000,
}
WIDE_LIMITS |= {"repeat_seconds": 0.001}


class Rig:
    """PostgreSQL and Valkey, and processes that are ended with the rig. `SERVER_CORE` is the service's own core."""

    def __init__(self, data: str) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        environment = os.environ | {"DATA_DIR": data, "AI_PROVIDER": "waddleai"}
        command = [sys.executable, "-m", "embedded", "--parts-only"]
        self.parts = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addresses: dict[str, str] = json.loads(self.parts.stdout.readline()) if self.parts.stdout else {}

    def run(
        self, *arguments: str, core: int | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start `python …`; on `core` alone where one is given."""
        command = [sys.executable, *arguments]
        process = subprocess.Popen(
            command, cwd=PROJECT, env=os.environ | (environment or {}), text=True, stdout=subprocess.DEVNULL
        )
        if core is not None and hasattr(os, "sched_setaffinity") and core < (os.cpu_count() or 1):
            os.sched_setaffinity(process.pid, {core})
        self.processes.append(process)
        return process

    def service(
        self, stub_port: int, port: int | None = None, core: int | None = None, settings: dict[str, str] | None = None
    ) -> int:
        """Start an instance whose model and router are the stub's, and return its port."""
        port = port or free_port()
        stub = f"http://127.0.0.1:{stub_port}"
        environment = self.addresses | {"AI_PROVIDER": "waddleai", "WADDLEAI_BASE_URL": stub, "ROUTER_API_URL": stub}
        environment |= {"VALID_API_KEYS": KEY, "SECRET_KEY": "bench", "MODULE_PORT": str(port), "LOG_LEVEL": "ERROR"}
        environment["API_RATE_LIMIT"] = "0"
        self.run("app.py", core=core, environment=environment | (settings or {}))
        wait_ready(port)
        put(port, CONFIG, WIDE_LIMITS)
        return port

    def stub(self, delay: float) -> int:
        port = free_port()
        self.run("-m", "bench.stubs", str(port), str(delay))
        wait_ready(port, "/seen")
        return port

    def noop(self, core: int | None = None) -> int:
        port = free_port()
        self.run("-m", "bench.noop", str(port), core=core)
        wait_ready(port)
        return port

    def keep_off(self, core: int) -> None:
        """Keep this process and the embedded parts off a core, which is the service's."""
        others = set(range(os.cpu_count() or 1)) - {core}
        if hasattr(os, "sched_setaffinity") and others:
            parts = psutil.Process(self.parts.pid)
            for pid in (0, parts.pid, *(child.pid for child in parts.children(recursive=True))):
                with contextlib.suppress(ProcessLookupError):  # PostgreSQL's workers come and go
                    os.sched_setaffinity(pid, others)

    def end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        self.processes.remove(process)

    def close(self) -> None:
        for process in list(self.processes):
            self.end(process)
        self.parts.communicate(timeout=60)


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="sidecast-bench-") as data:
        made = Rig(data)
        try:
            yield made
        finally:
            made.close()


def wait_ready(port: int, path: str = "/health/ready") -> None:
    """Return when the path answers 200. Raises TimeoutError after a minute."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            get(port, path)
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers at port {port}")


def put(port: int, path: str, body: dict[str, Any]) -> None:
    send(port, path, body, "PUT")


def send(port: int, path: str, body: dict[str, Any], method: str = "POST") -> Any:
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


def get(port: int, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"X-API-Key": KEY})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())
