"""Who is signed in to the dashboard. A session is as good as the key it was begun with: one that ends takes it along.

One of OpenID Connect is as good as the person's right to be here, which is looked up at every request.

The browser has 256 random bits; Valkey has their SHA-256, and what the session is.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from services.changes import Changes
from services.issuer import Person
from services.keys import Keys, Principal
from services.oidc import Oidc
from services.short_lived import ShortLived
from services.valkey import Valkey

SESSION_SECONDS = 12 * 3600.0
LINK_SECONDS = 15 * 60.0
TOKEN_BYTES = 32
ENDED = "session"


@dataclass(frozen=True)
class Session:
    """`csrf` is what every form must hand back."""

    name: str
    principal: Principal
    csrf: str


class Sessions:
    """Begins, finds and ends sessions, and makes links that begin one, once."""

    def __init__(self, valkey: Valkey, keys: Keys, oidc: Oidc, changes: Changes) -> None:
        self._keys = keys
        self._oidc = oidc
        self._changes = changes
        self._sessions = ShortLived(valkey, "session")
        self._links = ShortLived(valkey, "link")
        changes.listeners.append(self._hear)

    async def begin(self, principal: Principal, credential: str | None, until: float | None = None) -> str:
        """The text of a cookie, for whoever showed this key; without one it lasts until a moment (seconds since 1970).

        What a token said holds until it ends.
        """
        seconds = min(SESSION_SECONDS, until - time.time()) if until else SESSION_SECONDS
        return await self._begin(principal, self._keys.digest(credential).hex() if credential else None, seconds)

    async def begin_as(self, person: Person, principal: Principal) -> str:
        """The text of a cookie, for whom a provider has signed in."""
        return await self._begin(principal, None, SESSION_SECONDS, person)

    async def _begin(
        self, principal: Principal, digest: str | None, seconds: float, person: Person | None = None
    ) -> str:
        token, csrf = secrets.token_urlsafe(TOKEN_BYTES), secrets.token_urlsafe(TOKEN_BYTES)
        about = {"csrf": csrf, "digest": digest, "principal": vars(principal), "person": person and vars(person)}
        text = orjson.dumps(about, default=str).decode()  # the database's UUIDs are of a class of its own
        await self._sessions.put(_name(token), text, seconds)
        return token

    async def find(self, token: str) -> Session | None:
        """The session of a cookie, unless it or its key has ended. Raises DatabaseUnavailable."""
        name = _name(token)
        text = await self._sessions.get(name) if token else None
        if text is None:
            return None
        about = orjson.loads(text)
        principal = await self._principal(about)
        if principal is None:
            await self._sessions.drop(name)
            return None
        return Session(name, principal, about["csrf"])

    async def _principal(self, about: dict[str, Any]) -> Principal | None:
        """What whoever began a session may do now."""
        if about["digest"]:
            return await self._keys.of_digest(bytes.fromhex(about["digest"]))
        if about["person"]:
            return await self._oidc.principal_of(Person(**about["person"]))
        return _read(about["principal"])

    async def end(self, session: Session) -> None:
        """Raises DatabaseUnavailable."""
        await self._sessions.drop(session.name)
        async with self._changes.transaction() as change:
            await change.tell(f"{ENDED}:{session.name}")

    async def link(self, credential: str) -> str:
        """A text that begins a session with this key, once, within 15 minutes."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        await self._links.put(_name(token), self._keys.digest(credential).hex(), LINK_SECONDS)
        return token

    async def enter(self, token: str) -> str | None:
        """The cookie of a session that a link begins; None for one that was used or is too old."""
        digest = await self._links.take(_name(token))
        principal = await self._keys.of_digest(bytes.fromhex(digest)) if digest else None
        return None if principal is None else await self._begin(principal, digest, SESSION_SECONDS)

    def _hear(self, what: str) -> None:
        kind, _, name = what.partition(":")
        if kind == ENDED:
            self._sessions.forget(name)


def _read(fields: dict[str, str | None]) -> Principal:
    ids = {name: UUID(text) if (text := fields[name]) else None for name in ("community_id", "key_id")}
    return Principal(str(fields["role"]), str(fields["name"]), **ids)


def _name(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
