"""JSON Web Tokens as keys: HS256 with `SECRET_KEY`, or RS256 and ES256 by the keys at `JWT_JWKS_URL` (RFC 7519, 7517).

The claim `role` is `admin`, `service` or `community:<id>`; `sub` and `exp` must be there, `iss` and `aud` where set.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from typing import Any
from uuid import UUID

import aiohttp
import httpx
import jwt
import orjson
from jwt.warnings import InsecureKeyLengthWarning
from yarl import URL

from config import CONNECT_TIMEOUT, PROBE_TIMEOUT, Settings
from providers.http import Session, UnfitAnswer, make_headers
from services.keys import COMMUNITY, ROLES, Principal
from services.logs import Log

LEEWAY_SECONDS = 10
FRESH_SECONDS = 600.0
AGAIN_SECONDS = 10.0
MAX_SUBJECT = 100
TOKEN = "jwt:"  # noqa: S105 - how the name of such a caller begins
_SHARED = "HS256"
_BY_KEY_SET = ("RS256", "ES256")


class Jwts:
    """Reads tokens; the key set is fetched when it is needed, and again when it is old or lacks a key."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._secret = settings.secret_key.get_secret_value()
        self._url = settings.jwt_jwks_url
        self._issuer = settings.jwt_issuer or None
        self._audience = settings.jwt_audience or None
        self._log = log
        self._session = Session()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = -FRESH_SECONDS
        self._tried = -AGAIN_SECONDS
        self._fetching = asyncio.Lock()

    async def close(self) -> None:
        await self._session.close()

    async def find(self, token: str) -> Principal | None:
        """Whose token it is; None for one that is not valid."""
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(header)
            return None if key is None else _principal(self._decode(token, key, header["alg"]))
        except (jwt.PyJWTError, ValueError, KeyError, TypeError):
            return None

    def _decode(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureKeyLengthWarning)  # SECRET_KEY is the admin's choice
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )

    async def _key(self, header: dict[str, Any]) -> Any:
        """What a token of this header is checked with; the algorithm decides, so that no key is taken for another."""
        algorithm = header.get("alg")
        if algorithm == _SHARED:
            return self._secret or None
        if algorithm not in _BY_KEY_SET or not self._url:
            return None
        name = header.get("kid")
        now = time.monotonic()
        if now - self._fetched > FRESH_SECONDS or name not in self._keys:
            await self._fetch()
        key = self._keys.get(name)
        return key if key is not None and key.algorithm_name == algorithm else None

    async def _fetch(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._tried < AGAIN_SECONDS:
                return
            self._tried = time.monotonic()
            try:
                body = await self._get()
                keys = jwt.PyJWKSet.from_dict(orjson.loads(body)).keys
            except (httpx.HTTPError, UnfitAnswer, TimeoutError, ValueError, jwt.PyJWTError) as error:
                message = f"JWT_JWKS_URL gave no key set ({type(error).__name__}); the keys known before still count"
                self._log.error("jwt.keys", message, result="ERROR")
                return
            self._keys = {key.key_id: key for key in keys}
            self._fetched = time.monotonic()

    async def _get(self) -> bytes:
        waits = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
        async with asyncio.timeout(PROBE_TIMEOUT):
            answer = await self._session.request("GET", URL(self._url), make_headers(()), None, waits)
            try:
                if answer.status != 200:
                    raise ValueError("the key set's server did not answer 200")
                return await answer.read()
            finally:
                answer.release()


def ends_at(token: str) -> float:
    """When a token that was found valid ends, in seconds since 1970."""
    return float(jwt.decode(token, options={"verify_signature": False})["exp"])


def _principal(claims: dict[str, Any]) -> Principal | None:
    role, _, community = str(claims.get("role", "")).partition(":")
    if role not in ROLES or (role == COMMUNITY) != bool(community):
        return None
    subject = str(claims["sub"])[:MAX_SUBJECT]
    return Principal(role, f"{TOKEN}{subject}", UUID(community) if community else None)
