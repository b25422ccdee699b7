"""The parent process: brings the parts that no setting replaces, then the service, and keeps them running.

`python -m embedded` is what `scripts/serve` runs. With `--parts-only` it brings PostgreSQL, Valkey and the model
alone, prints their addresses as one line of JSON, and stops when its standard input closes (tests and benches).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from config import RUNNING, ConfigError, Settings, load_settings
from embedded import parts
from embedded.first_run import load_secrets, sign_in_link
from embedded.supervisor import Child, Say, StartError, Watchdog

LOCK_SECONDS = 15.0


class Parent:
    """Owns the data folder (by a lock), a run folder for sockets, and the children."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self.settings = settings
        self.data = Path(settings.data_dir).resolve()
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs = self.data / "logs"
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self.env: dict[str, str] = {}
        self._say = say
        lock = _lock(self.data / "lock")
        # Sockets need a short path (about 100 bytes), which the data folder may not have.
        self.run = Path(tempfile.mkdtemp(prefix="sidecast-"))
        self.run.chmod(0o711)
        self._watchdog = Watchdog(self.run, lock)
        self._children: list[Child] = []

    async def start_parts(self) -> None:
        """Start what no setting replaces, all at once; `env` then holds the addresses. Raises StartError."""
        wanted = []
        if not self.settings.database_url:
            self.env["DATABASE_URL"] = parts.postgres_url(self.run)
            wanted.append(parts.postgres(self.data, self.run, self.logs))
        if not self.settings.redis_url:
            self.env["REDIS_URL"] = parts.valkey_url(self.run)
            wanted.append(parts.valkey(self.data, self.run, self.logs))
        if self._needs_model():
            port, key = parts.free_port(), secrets.token_urlsafe(32)
            self.env |= {"EMBEDDED_MODEL_URL": f"http://127.0.0.1:{port}", "EMBEDDED_MODEL_KEY": key}
            wanted.append(parts.model(self.settings.embedded_model_path, port, key, self.logs))
        await asyncio.gather(*(self._start(part) for part in wanted))

    async def start_service(self) -> None:
        settings = self.settings
        if _taken(settings.bind_host, settings.module_port):
            raise StartError(f"port {settings.module_port} is taken: stop what uses it, or set MODULE_PORT")
        part = parts.service(settings.module_port, settings.bind_host, self.env, settings.drain_timeout)
        await self._start(part)

    def write_addresses(self) -> None:
        """Tell the command line where the parts are."""
        path = self.data / RUNNING
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.env, file)

    async def stop(self) -> None:
        """The service first, then the parts it needs; the watchdog last."""
        (self.data / RUNNING).unlink(missing_ok=True)
        service = [child for child in self._children if child.part.name == "service"]
        await asyncio.gather(*(child.stop() for child in service))
        await asyncio.gather(*(child.stop() for child in self._children if child not in service))
        self._watchdog.close()

    async def _start(self, part: parts.Part) -> None:
        child = Child(part, self._watchdog, self._say)
        self._children.append(child)
        await child.start()

    def _needs_model(self) -> bool:
        names = {self.settings.ai_provider, *(name.split("/")[0] for name in self.settings.ai_fallbacks)}
        return "embedded" in names and not self.settings.embedded_model_url


def _lock(path: Path) -> int:
    """Hold the data folder; a parent that was killed lets go when its last child is gone. Raises StartError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StartError(f"another Sidecast runs on {path.parent}: stop it, or set DATA_DIR") from None
            time.sleep(0.1)
        else:
            return lock


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


async def _serve(parent: Parent, say: Say) -> None:
    began = time.monotonic()
    made = load_secrets(parent.data)
    settings = parent.settings
    if not settings.secret_key.get_secret_value():
        parent.env["SECRET_KEY"] = made["SECRET_KEY"]
    if not settings.valid_api_keys:
        parent.env["VALID_API_KEYS"] = made["API_KEY"]
    await parent.start_parts()
    parent.write_addresses()
    await parent.start_service()
    key = settings.valid_api_keys[0].get_secret_value() if settings.valid_api_keys else made["API_KEY"]
    address = _address(settings)
    link = await asyncio.to_thread(sign_in_link, address, key)
    say(_welcome(settings, address, link, "" if settings.valid_api_keys else key, time.monotonic() - began))


def _address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.bind_host in {"0.0.0.0", "::"} else settings.bind_host  # noqa: S104 - compared
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.module_port}"


def _welcome(settings: Settings, address: str, link: str, key: str, seconds: float) -> str:
    """What a first-time user needs: the dashboard, the key, and two lines to paste."""
    auth = f'-H "Authorization: Bearer {key or "$KEY"}"'
    event = {"session_id": "s1", "user_id": "42", "username": "johndoe", "display_name": "JohnDoe"}
    event |= {"entity_id": "twitch:channel:98765", "platform": "twitch", "message_content": "Hello there!"}
    lines = [f"\nSidecast is ready at {address} (after {seconds:.1f} s)"]
    lines.append(f"  the dashboard, to try it out (this link signs in once, within 15 minutes):\n    {link}")
    if key:
        lines.append(f"  key (made by the first run, kept in {settings.data_dir}/secrets.json): {key}")
    else:
        lines.append("  key: the first of VALID_API_KEYS; the lines below need it as $KEY")
    lines.append("  post a chat message:")
    json_header = "-H 'Content-Type: application/json'"
    lines.append(f"    curl -s {address}/api/v1/ai/interaction {auth} {json_header} -d '{json.dumps(event)}'")
    if settings.router_api_url:
        lines.append(f"  replies go to {settings.router_api_url}{settings.router_response_path}")
    else:
        lines.append("  read the reply (no ROUTER_API_URL is set, so it goes to the development router):")
        lines.append(f"    curl -s {address}/dev/router/messages {auth}")
    return "\n".join(lines) + "\n"


async def _run(settings: Settings, parts_only: bool) -> None:
    """Run until a signal or, with `parts_only`, until standard input closes; then stop the children."""

    def say(text: str) -> None:
        print(text, file=sys.stderr if parts_only else sys.stdout, flush=True)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    parent = Parent(settings, say)
    starting = asyncio.create_task(_parts(parent) if parts_only else _serve(parent, say))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopped
    finally:
        say("stopping …")
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await parent.stop()


async def _parts(parent: Parent) -> None:
    await parent.start_parts()
    print(json.dumps(parent.env), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    signal.raise_signal(signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/serve", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--parts-only", action="store_true", help="bring PostgreSQL, Valkey and the model alone")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        asyncio.run(_run(settings, arguments.parts_only))
    except (ConfigError, StartError, FileNotFoundError, RuntimeError) as error:
        print(f"Sidecast cannot start.\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
