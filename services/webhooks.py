"""Signatures by Standard Webhooks 1.0 (github.com/standard-webhooks): HMAC-SHA256 over `id.timestamp.body`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time

TOLERANCE_SECONDS = 300


class BadSignature(Exception):
    """The signature is missing, wrong or too old."""


def signing_key(secret: str) -> bytes:
    """The key of a `whsec_…` secret (base64), or the text's own bytes. Raises ValueError for bad base64."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret[6:], validate=True)
    except binascii.Error:
        raise ValueError("a secret that begins with whsec_ must go on in base64") from None


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The signature, `v1,…`."""
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def verify(keys: list[bytes], message_id: str, timestamp: str, signatures: str, body: bytes) -> None:
    """Check the three headers of a message against any of several keys. Raises BadSignature.

    Several signatures stand apart by spaces. Each is compared with each key in constant time.
    """
    known = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12
    if not message_id or not known or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        raise BadSignature
    expected = [sign(key, message_id, timestamp, body).encode() for key in keys]
    given = [signature.encode() for signature in signatures.split(" ")[:10]]
    matches = [hmac.compare_digest(one, other) for one in expected for other in given]
    if not any(matches):
        raise BadSignature
