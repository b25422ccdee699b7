"""Seals secrets for the database: with `SECRET_KEY`, and bound to the place where each belongs.

What was sealed with `SECRET_KEY_PREVIOUS` can be read while keys are rotated; what is sealed now takes the new one.
"""

from __future__ import annotations

import base64
import hashlib

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from config import Settings


class Unreadable(Exception):
    """It was sealed with another key, for another place, or it was changed."""


class Vault:
    """Fernet (AES-128-CBC and HMAC-SHA256) over the place and the secret together."""

    def __init__(self, settings: Settings) -> None:
        keys = [settings.secret_key, settings.secret_key_previous]
        self._fernet = MultiFernet(
            [_fernet(key.get_secret_value()) for key in keys if key.get_secret_value() or key is keys[0]]
        )

    def seal(self, place: str, secret: str) -> str:
        return self._fernet.encrypt(orjson.dumps([place, secret])).decode()

    def open(self, place: str, sealed: str) -> str:
        """Raises Unreadable."""
        try:
            kept_for, secret = orjson.loads(self._fernet.decrypt(sealed))
        except (InvalidToken, ValueError):
            raise Unreadable from None
        if kept_for != place:
            raise Unreadable
        return str(secret)

    def rotate(self, sealed: str) -> str:
        """The same, sealed with the newest key. Raises Unreadable."""
        try:
            return self._fernet.rotate(sealed).decode()
        except InvalidToken:
            raise Unreadable from None


def _fernet(secret: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"sidecast vault\0" + secret.encode()).digest()))
