"""Communities as JSON, to be carried to another service or kept: names, channels, settings, and keys if asked for.

Keys are left out, or sealed with a passphrase (scrypt and Fernet), never in clear.
"""

from __future__ import annotations

import base64
import os
from typing import Annotated, Any, Literal
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.communities import Communities
from services.events import Name
from services.settings import DEFAULTS
from services.settings_store import KEY, BadSettings, SettingsStore

SALT_BYTES = 16
# RFC 7914 as OWASP advises it: 128 MiB and about a third of a second.
_COST = {"length": 32, "n": 2**17, "r": 8, "p": 1}


class WrongPassphrase(Exception):
    """The keys were sealed with another one."""


def _not_nil(community_id: UUID) -> UUID:
    if community_id == DEFAULTS:
        raise ValueError("is that of the settings of all")
    return community_id


class Carried(BaseModel):
    """A community; `settings` are those that it has set itself."""

    model_config = ConfigDict(extra="forbid")

    community_id: Annotated[UUID, AfterValidator(_not_nil)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    entities: list[Name] = []
    settings: dict[str, Any] = {}
    sealed_key: str | None = None


class Document(BaseModel):
    """What is exported and imported."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["sidecast communities 1"] = "sidecast communities 1"
    salt: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9+/]{22}==$")] | None = None
    communities: Annotated[list[Carried], Field(max_length=100_000)]


class Carrying:
    """All raise DatabaseUnavailable."""

    def __init__(self, communities: Communities, store: SettingsStore) -> None:
        self._communities = communities
        self._store = store

    async def export(self, ids: list[UUID], passphrase: str | None) -> Document:
        """Communities by their ids, without the ones that there are not; keys where a passphrase is given.

        Raises Unreadable where a key cannot be read.
        """
        salt = os.urandom(SALT_BYTES)
        fernet = _fernet(passphrase, salt) if passphrase else None
        carried = []
        for community_id in ids:
            view = await self._store.view(community_id)
            if view is None:
                continue
            [listed] = await self._communities.page(community_id, UUID(int=0), 1)
            own = view.settings.model_dump(include=set(view.own))
            key = await self._store.key(community_id) if fernet and view.has_key else None
            sealed = fernet.encrypt(key.encode()).decode() if fernet and key else None
            fields = {"name": listed.name, "entities": listed.entities, "settings": own, "sealed_key": sealed}
            carried.append(Carried(community_id=community_id, **fields))
        return Document(salt=base64.b64encode(salt).decode() if fernet else None, communities=carried)

    async def take(self, document: Document, passphrase: str | None, actor: str) -> int:
        """Make the communities, or make those that there are as the document has them; how many have no key yet.

        Channels are moved to them. Raises WrongPassphrase and BadSettings before anything is changed.
        """
        fernet = _fernet(passphrase, base64.b64decode(document.salt)) if passphrase and document.salt else None
        keys = {one.community_id: _opened(fernet, one.sealed_key) for one in document.communities if one.sealed_key}
        for one in document.communities:
            try:
                await self._store.check(one.settings, with_key=bool(keys.get(one.community_id)))
            except BadSettings as bad:
                named = [(f"{one.community_id}, {field}", problem) for field, problem in bad.problems]
                raise BadSettings(named) from None
        for one in document.communities:
            if await self._communities.change(one.community_id, one.name, one.entities, actor) is None:
                await self._communities.make(one.name, one.entities, actor, one.community_id)
            view = await self._store.view(one.community_id)
            changes: dict[str, Any] = dict.fromkeys(view.own if view else ()) | one.settings
            key = keys.get(one.community_id)
            await self._store.change(one.community_id, changes | ({KEY: key} if key else {}), None, actor)
        return list(keys.values()).count(None)


def _opened(fernet: Fernet | None, sealed: str) -> str | None:
    if fernet is None:
        return None
    try:
        return fernet.decrypt(sealed).decode()
    except InvalidToken:
        raise WrongPassphrase from None


def _fernet(passphrase: str, salt: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(Scrypt(salt=salt, **_COST).derive(passphrase.encode())))
