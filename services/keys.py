"""Who may do what: API keys and the roles they carry."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from config import Settings

ADMIN = "admin"
SERVICE = "service"


@dataclass(frozen=True)
class Principal:
    """Whoever holds a key. An admin may do everything."""

    role: str

    def may(self, *roles: str) -> bool:
        return self.role == ADMIN or self.role in roles


class Keys:
    """The keys of `VALID_API_KEYS`, kept as SHA-256 and compared in constant time; all are admin keys."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in settings.valid_api_keys]

    def find(self, key: str) -> Principal | None:
        """Whose key it is, or None."""
        digest = _digest(key)
        # Every comparison is made, so that the time taken does not tell which key came close.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return Principal(ADMIN) if any(matches) else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
