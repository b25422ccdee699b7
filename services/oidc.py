"""Signing in to the dashboard by OpenID Connect: the code flow with state, nonce and PKCE (RFC 6749, RFC 7636).

What was begun is known for ten minutes, under the state that the provider hands back and a cookie together: whoever has
only one of them ends nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from uuid import UUID

import orjson

from config import Settings
from services.communities import Communities
from services.issuer import Attempt, Issuer, Person, SignInError, SignInRefused
from services.keys import ADMIN, COMMUNITY, Principal
from services.logs import Log
from services.short_lived import ShortLived
from services.valkey import Valkey

BEGUN_SECONDS = 600.0
MAX_NAME = 100
# No sign with which one person's channel could be written as another's.
_IN_CHANNEL = re.compile(r"[A-Za-z0-9._-]+")


class SignInStale(SignInError):
    """It was begun too long ago, in another browser, or has ended already."""


class Oidc:
    """Begins and ends signing in, and knows who may. `name` is the provider's; empty where there is none."""

    def __init__(self, settings: Settings, valkey: Valkey, communities: Communities, log: Log) -> None:
        self.name = settings.oidc_name if settings.oidc_issuer else ""
        self._issuer = Issuer(settings, log)
        self._emails = {entry.lower() for entry in settings.oidc_admins if "@" in entry}
        self._admins = {entry for entry in settings.oidc_admins if "@" not in entry}
        self._channel = settings.oidc_channel
        self._communities = communities
        self._begun = ShortLived(valkey, "oidc")

    async def close(self) -> None:
        await self._issuer.close()

    async def begin(self, redirect: str, following: str) -> tuple[str, str]:
        """Where to send the browser, and its cookie; it comes back to `redirect`. Raises IssuerAway."""
        state, cookie, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        address = await self._issuer.where_to(Attempt(nonce, verifier, redirect), state, email=bool(self._emails))
        about = {"attempt": [nonce, verifier, redirect], "following": following}
        await self._begun.put(_name(state, cookie), orjson.dumps(about).decode(), BEGUN_SECONDS)
        return address, cookie

    async def end(self, state: str, cookie: str, code: str) -> tuple[Person, str]:
        """Who came back, this once, and where to go then. Raises SignInError."""
        text = await self._begun.take(_name(state, cookie))
        if text is None:
            raise SignInStale("This was begun too long ago, or in another browser. Begin again.")
        about = orjson.loads(text)
        if not code:
            raise SignInRefused("It has not signed you in. Begin again.")
        return await self._issuer.person(code, Attempt(*about["attempt"])), str(about["following"])

    async def principal_of(self, person: Person) -> Principal | None:
        """What someone may do here now; None for nothing. Raises DatabaseUnavailable."""
        if person.issuer != self._issuer.address:
            return None
        name = f"oidc:{person.subject}"[:MAX_NAME]
        if person.subject in self._admins or person.email in self._emails:
            return Principal(ADMIN, name)
        community_id = await self._community_of(person.subject)
        return Principal(COMMUNITY, name, community_id) if community_id else None

    async def _community_of(self, subject: str) -> UUID | None:
        if not self._channel or not _IN_CHANNEL.fullmatch(subject):
            return None
        return await self._communities.id_of(self._channel.replace("{sub}", subject))


def _name(state: str, cookie: str) -> str:
    return hashlib.sha256(f"{state}.{cookie}".encode("utf-8", "surrogatepass")).hexdigest()
