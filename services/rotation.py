"""Seals anew, with `SECRET_KEY`, what was sealed with `SECRET_KEY_PREVIOUS`: keys and texts of communities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import orjson

from services.audit import Audit
from services.changes import Changes
from services.communities import COMMUNITY
from services.database import Database
from services.hashing import NAME as HASHING
from services.hashing import Hashing
from services.vault import Unreadable, Vault

BATCH_ROWS = 500


@dataclass
class Rotated:
    """How many keys and texts are sealed with the newest secret now, and how many could not be read."""

    keys: int = 0
    texts: int = 0
    unreadable: int = 0


class Rotation:
    """Works while instances run that have both secrets. All raise DatabaseUnavailable."""

    def __init__(self, database: Database, vault: Vault, hashing: Hashing, audit: Audit, changes: Changes) -> None:
        self._database = database
        self._queries = database.queries
        self._vault = vault
        self._hashing = hashing
        self._audit = audit
        self._changes = changes

    async def rotate(self, actor: str, note: Callable[[Rotated], None], *, new_hashing_key: bool = False) -> Rotated:
        """Seal everything anew; `note` hears how far it is after each batch.

        A key of hashes that cannot be read is left as it is, or with `new_hashing_key` replaced by the one in use.
        """
        done = Rotated()
        await self._rotate_hashing(done, replace=new_hashing_key)
        await self._rotate_keys(done)
        note(done)
        after = UUID(int=0)
        while rows := await self._next_texts(after):
            after = rows[-1]["interaction_id"]
            await self._rotate_texts(rows, done)
            note(done)
        at: dict[str, Any] = {"after": UUID(int=0), "after_role": ""}
        while rows := await self._next_messages(at):
            at = {"after": rows[-1]["interaction_id"], "after_role": rows[-1]["role"]}
            await self._rotate_messages(rows, done)
            note(done)
        async with self._changes.transaction() as change:
            await self._audit.note(change.connection, actor, "secrets.rotated", None, asdict(done))
        return done

    async def _rotate_hashing(self, done: Rotated, *, replace: bool) -> None:
        async with self._database.connection() as connection:
            before = await self._queries.select_secret(connection, name=HASHING)
            sealed = self._sealed_anew(before, done)
            if sealed is None and replace:
                done.unreadable -= 1
                sealed = self._vault.seal(HASHING, self._hashing.secret)
            if sealed is not None:
                await self._queries.update_secret(connection, name=HASHING, before=before, sealed=sealed)

    async def _rotate_keys(self, done: Rotated) -> None:
        async with self._database.connection() as connection:
            rows = [row async for row in self._queries.select_sealed(connection)]
        for row in rows:
            sealed = self._sealed_anew(row["sealed_key"], done)
            if sealed is None:
                continue
            async with self._changes.transaction() as change:
                about = {"community_id": row["community_id"], "before": row["sealed_key"], "sealed_key": sealed}
                await self._queries.update_sealed(change.connection, **about)
                await change.tell(f"{COMMUNITY}:{row['community_id']}")
            done.keys += 1

    async def _next_texts(self, after: UUID) -> list[Any]:
        async with self._database.connection() as connection:
            return [row async for row in self._queries.select_kept(connection, after=after, rows=BATCH_ROWS)]

    async def _rotate_texts(self, rows: list[Any], done: Rotated) -> None:
        anew = [
            {"interaction_id": str(row["interaction_id"]), "before": row["sealed"], "sealed": sealed}
            for row in rows
            if (sealed := self._sealed_anew(row["sealed"], done)) is not None
        ]
        async with self._database.connection() as connection:
            await self._queries.update_kept(connection, rows=orjson.dumps(anew).decode())
        done.texts += len(anew)

    async def _next_messages(self, at: dict[str, Any]) -> list[Any]:
        async with self._database.connection() as connection:
            return [row async for row in self._queries.select_kept_messages(connection, **at, rows=BATCH_ROWS)]

    async def _rotate_messages(self, rows: list[Any], done: Rotated) -> None:
        anew = [
            dict(row) | {"interaction_id": str(row["interaction_id"]), "before": row["sealed"], "sealed": sealed}
            for row in rows
            if (sealed := self._sealed_anew(row["sealed"], done)) is not None
        ]
        async with self._database.connection() as connection:
            await self._queries.update_kept_messages(connection, rows=orjson.dumps(anew).decode())
        done.texts += len(anew)

    def _sealed_anew(self, sealed: str, done: Rotated) -> str | None:
        try:
            return self._vault.rotate(sealed)
        except Unreadable:
            done.unreadable += 1
            return None
