"""Keyed hashes: of users, for logs, and of events, to know a repeat.

Their key is the installation's, sealed in the database: it stays when `SECRET_KEY` is changed, so that an event which
comes again meanwhile, or at another instance, is the same event.
"""

from __future__ import annotations

import hashlib
import hmac

from config import Settings
from services.database import Database
from services.events import ChatEvent
from services.logs import Log
from services.vault import Unreadable, Vault

NAME = "hashing"


class Hashing:
    """Until it is opened, and where its key cannot be read, `SECRET_KEY` is the key."""

    def __init__(self, settings: Settings, vault: Vault, database: Database, log: Log) -> None:
        self._vault = vault
        self._database = database
        self._log = log
        self.secret = settings.secret_key.get_secret_value()
        self._use(self.secret)

    async def open(self) -> None:
        """Take the installation's key, or make this one be it. Raises DatabaseUnavailable."""
        queries = self._database.queries
        async with self._database.connection() as connection:
            sealed = await queries.select_secret(connection, name=NAME)
            if sealed is None:
                await queries.insert_secret(connection, name=NAME, sealed=self._vault.seal(NAME, self.secret))
                sealed = await queries.select_secret(connection, name=NAME)
        try:
            self._use(self._vault.open(NAME, sealed))
        except Unreadable:
            message = (
                "the key of hashes cannot be read (was SECRET_KEY changed without SECRET_KEY_PREVIOUS?): repeats of "
                "events from before are not known. Set both, or run `scripts/sidecast secrets rotate --new-hashing-key`"
            )
            self._log.error("hashing.unreadable", message, result="ERROR")

    def user(self, platform: str, user_id: str) -> str:
        """Names a user without saying who it is: the same user, the same 16 characters, per installation."""
        return hmac.new(self._user_key, f"{platform}\0{user_id}".encode(), "sha256").hexdigest()[:16]

    def event(self, event: ChatEvent, as_json: str) -> bytes:
        """Equal for equal events alone; `as_json` is the event's."""
        return event.fingerprint(self._event_key, as_json)

    def _use(self, secret: str) -> None:
        self.secret = secret
        self._user_key = hashlib.sha256(b"sidecast log user\0" + secret.encode()).digest()
        self._event_key = b"sidecast event\0" + secret.encode()
