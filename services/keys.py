"""Who may do what: the keys of the environment, keys that were issued, and the roles they carry.

Keys are known by their SHA-256 alone. Those that were issued are held in memory, read again when `Changes` says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from config import Settings
from services.audit import Audit
from services.changes import EVERYTHING, Changes
from services.database import Database, DatabaseUnavailable
from services.ids import new_id
from services.logs import Log
from services.tasks import Tasks

ADMIN = "admin"
SERVICE = "service"
COMMUNITY = "community"
ROLES = (ADMIN, SERVICE, COMMUNITY)
TOLD = "keys"
KEY_BYTES = 32
PREFIX = "sc_"
SHOWN = 10
USED_SECONDS = 10.0


@dataclass(frozen=True)
class Principal:
    """Whoever holds a key: an admin may do everything, `name` is what the audit log calls them."""

    role: str
    name: str
    community_id: UUID | None = None
    key_id: UUID | None = None

    def may(self, *roles: str) -> bool:
        return self.role == ADMIN or self.role in roles


@dataclass(frozen=True)
class Key:
    """An issued key, as it may be listed."""

    key_id: UUID
    prefix: str
    role: str
    community_id: UUID | None
    label: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        fields = {name: value and value.isoformat() for name, value in vars(self).items() if name.endswith("_at")}
        role = f"{COMMUNITY}:{self.community_id}" if self.role == COMMUNITY else self.role
        about = {"prefix": self.prefix, "label": self.label, "created_by": self.created_by}
        return {"key_id": str(self.key_id), "role": role, **about, **fields}


@dataclass(frozen=True)
class _Valid:
    digest: bytes
    principal: Principal
    until: float | None


class Keys:
    """Finds whose a key is, and issues, lists and revokes keys."""

    def __init__(self, settings: Settings, database: Database, changes: Changes, audit: Audit, log: Log) -> None:
        given = [key.get_secret_value() for key in settings.valid_api_keys]
        self._given = [(_digest(key), Principal(ADMIN, f"environment:{number}")) for number, key in enumerate(given, 1)]
        self._database = database
        self._queries = database.queries
        self._changes = changes
        self._audit = audit
        self._log = log
        self._issued: dict[bytes, _Valid] = {}
        self._stale = True
        self._reading = asyncio.Lock()
        self._used: set[UUID] = set()
        changes.listeners.append(self._forget)

    def open(self, tasks: Tasks) -> None:
        tasks.repeat(self.note_used, self._pause, "note when keys were used")

    async def find(self, key: str) -> Principal | None:
        """Whose key it is, or None."""
        return await self.of_digest(_digest(key))

    @staticmethod
    def digest(key: str) -> bytes:
        """What a key is known by."""
        return _digest(key)

    async def of_digest(self, digest: bytes) -> Principal | None:
        """Whose key it is that is known by this, or None."""
        # Every comparison is made, so that the time taken does not tell which key came close.
        matches = [principal for known, principal in self._given if hmac.compare_digest(digest, known)]
        if matches:
            return matches[0]
        if self._stale:
            await self._read()
        valid = self._issued.get(digest)
        if valid is None or not hmac.compare_digest(valid.digest, digest):
            return None
        if valid.until is not None and valid.until <= time.time():
            return None
        if valid.principal.key_id:
            self._used.add(valid.principal.key_id)
        return valid.principal

    async def issue(
        self, role: str, community_id: UUID | None, label: str, expires_at: datetime | None, actor: str
    ) -> tuple[Key, str]:
        """A new key, and its text, which is not kept. Raises DatabaseUnavailable."""
        text = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        row = {
            "key_id": new_id(),
            "digest": _digest(text),
            "prefix": text[:SHOWN],
            "role": role,
            "community_id": community_id,
            "label": label,
            "created_by": actor,
            "expires_at": expires_at,
        }
        async with self._changes.transaction() as change:
            connection = change.connection
            key = Key(**dict(await self._queries.insert_key(connection, **row)))
            about = {"key_id": str(key.key_id), "prefix": key.prefix, "role": role, "label": label}
            await self._audit.note(connection, actor, "key.issued", community_id, about)
            await change.tell(TOLD)
        return key, text

    async def of(self, community_id: UUID | None, before: UUID | None = None, rows: int | None = None) -> list[Key]:
        """Keys of a community, or of all, the newest first; of a page, those older than `before`.

        Raises DatabaseUnavailable.
        """
        page = {"community_id": community_id, "before": before, "rows": rows}
        async with self._database.connection() as connection:
            return [Key(**dict(row)) async for row in self._queries.select_keys(connection, **page)]

    async def revoke(self, key_id: UUID, community_id: UUID | None, seconds: float, actor: str) -> Key | None:
        """End a key, now or after some seconds; None where there is none, or not in this community.

        Raises DatabaseUnavailable.
        """
        async with self._changes.transaction() as change:
            connection = change.connection
            row = {"key_id": key_id, "community_id": community_id, "seconds": seconds}
            found = await self._queries.revoke_key(connection, **row)
            if found is None:
                return None
            key = Key(**dict(found))
            about = {"key_id": str(key_id), "prefix": key.prefix, "seconds": seconds}
            await self._audit.note(connection, actor, "key.revoked", key.community_id, about)
            await change.tell(TOLD)
        return key

    async def note_used(self) -> None:
        """Write down which keys were used."""
        used, self._used = self._used, set()
        if used:
            try:
                async with self._database.connection() as connection:
                    await self._queries.note_keys_used(connection, key_ids=sorted(used))
            except DatabaseUnavailable:
                self._used |= used

    async def _pause(self) -> None:
        await asyncio.sleep(USED_SECONDS)

    def _forget(self, what: str) -> None:
        if what in {EVERYTHING, TOLD}:
            self._stale = True

    async def _read(self) -> None:
        """Read the keys that may be used; while PostgreSQL is away those that were known may."""
        async with self._reading:
            if not self._stale:
                return
            moment = self._changes.moment
            try:
                async with self._database.connection() as connection:
                    rows = [row async for row in self._queries.select_valid_keys(connection)]
            except DatabaseUnavailable:
                return
            self._issued = {row["digest"]: _valid(row) for row in rows}
            # Only now: who asks meanwhile waits for what is read.
            self._stale = moment != self._changes.moment


def _valid(row: Any) -> _Valid:
    principal = Principal(row["role"], f"key:{row['prefix']}", row["community_id"], row["key_id"])
    return _Valid(row["digest"], principal, row["expires_at"])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
