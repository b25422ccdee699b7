"""Who signs people in: an OpenID Connect provider, known by its issuer alone (OpenID Connect Core and Discovery 1.0).

A person is who a signed ID token says; what else the provider gives is not kept.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, Field

from config import SIGN_IN_TIMEOUT, Settings
from providers.http import UnfitAnswer, httpx_options
from services.logs import Log

ALGORITHMS = ("RS256", "ES256")
LEEWAY_SECONDS = 10
FRESH_SECONDS = 3600.0
AGAIN_SECONDS = 5.0
DISCOVERY = "/.well-known/openid-configuration"
BASIC, POST = "client_secret_basic", "client_secret_post"
# Asked for where a provider does not put them into the ID token unasked (Twitch).
EMAIL_CLAIMS = '{"id_token":{"email":null,"email_verified":null}}'
_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")
_CODE = re.compile(r"[a-z_]{1,50}")
_UNFIT = (httpx2.HTTPError, httpx2.InvalidURL, UnfitAnswer, TimeoutError, ValueError, TypeError, KeyError, JoseError)


class SignInError(Exception):
    """Nobody was signed in; the text is for whoever wanted to be."""


class IssuerAway(SignInError):
    """The provider gave no answer, or none that can be used."""


class SignInRefused(SignInError):
    """What came back is not to be trusted."""


@dataclass(frozen=True)
class Person:
    """Who was signed in, and by whom; `email` is empty unless it was verified there."""

    issuer: str
    subject: str
    email: str = ""


@dataclass(frozen=True)
class Attempt:
    """What only we and the browser's way to the provider and back have in common."""

    nonce: str
    verifier: str
    redirect: str


class _Metadata(BaseModel):
    """What a provider says of itself, as far as it is needed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = (BASIC,)
    claims_parameter_supported: bool = False


class _Listed(BaseModel):
    keys: list[dict[str, Any]] = Field(max_length=100)


@dataclass(frozen=True)
class _Known:
    metadata: _Metadata
    keys: KeySet
    since: float


class Issuer:
    """Fetches what it needs to know when it is needed, and again when it is old or lacks a key."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.address = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._client = AsyncOAuth2Client(
            self._client_id,
            settings.oidc_client_secret.get_secret_value(),
            scope=settings.oidc_scopes,
            code_challenge_method="S256",
            **httpx_options(SIGN_IN_TIMEOUT, verify=True, outbound=None, http=httpx2),
        )
        self._log = log
        self._kept: _Known | None = None
        self._tried = -AGAIN_SECONDS
        self._fetching = asyncio.Lock()

    async def close(self) -> None:
        await self._client.aclose()

    async def where_to(self, attempt: Attempt, state: str, *, email: bool) -> str:
        """The address at which the provider asks who someone is. Raises IssuerAway."""
        metadata = (await self._know()).metadata
        more = {"claims": EMAIL_CLAIMS} if email and metadata.claims_parameter_supported else {}
        address, _ = self._client.create_authorization_url(
            metadata.authorization_endpoint,
            state=state,
            code_verifier=attempt.verifier,
            nonce=attempt.nonce,
            redirect_uri=attempt.redirect,
            **more,
        )
        return str(address)

    async def person(self, code: str, attempt: Attempt) -> Person:
        """Who came back with a code. Raises IssuerAway, SignInRefused."""
        claims = await self._verify(await self._exchange(code, attempt), attempt.nonce)
        subject, email = str(claims["sub"]), claims.get("email")
        if not _SUBJECT.fullmatch(subject):
            raise self._refuse("a subject that is not 1 to 255 signs of ASCII")
        verified = claims.get("email_verified") is True and isinstance(email, str) and email.isascii()
        return Person(self.address, subject, str(email).lower() if verified else "")

    async def _exchange(self, code: str, attempt: Attempt) -> str:
        """The ID token for a code."""
        metadata = (await self._know()).metadata
        way = POST if POST in metadata.token_endpoint_auth_methods_supported else BASIC
        try:
            async with asyncio.timeout(SIGN_IN_TIMEOUT):
                token = await self._client.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=attempt.verifier,
                    redirect_uri=attempt.redirect,
                    auth=self._client.client_auth(way),
                )
        except OAuthError as error:
            said = error.error if isinstance(error.error, str) and _CODE.fullmatch(error.error) else "no known error"
            raise self._refuse(f"the provider did not take the code ({said})") from None
        except _UNFIT as error:
            raise self._away("oidc.token", "no answer to a code that can be used", error) from None
        self._client.token = None  # nothing is asked with it
        return str(token.get("id_token", ""))

    async def _verify(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that was signed by the issuer, for us, now, and for this attempt."""
        try:
            signed = await self._decode(token)
            options = {
                "iss": {"essential": True, "value": (await self._know()).metadata.issuer},
                "aud": {"essential": True, "value": self._client_id},
            }
            about = {"nonce": nonce, "client_id": self._client_id}
            claims = CodeIDToken(signed.claims, signed.header, options, about)
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            which = f" {error.claim}" if isinstance(error, ClaimError) else ""
            raise self._refuse(f"an ID token that is not valid ({type(error).__name__}{which})") from None
        return dict(claims)

    async def _decode(self, token: str) -> jwt.Token:
        known = await self._know()
        try:
            return jwt.decode(token, known.keys, ALGORITHMS)
        except InvalidKeyIdError:
            return jwt.decode(token, (await self._know(besides=known)).keys, ALGORITHMS)

    async def _know(self, besides: _Known | None = None) -> _Known:
        """What is known of the provider; what is known `besides` was not enough. Raises IssuerAway."""
        async with self._fetching:
            now, kept = time.monotonic(), self._kept
            fresh = kept is not None and kept is not besides and now - kept.since < FRESH_SECONDS
            if not fresh and now - self._tried >= AGAIN_SECONDS:
                self._kept = kept = await self._fetch() or kept
                self._tried = time.monotonic()  # from its end on: who has waited meanwhile does not try as well
        if kept is None:
            raise IssuerAway("It does not answer at this moment. Try again in a minute.")
        return kept

    async def _fetch(self) -> _Known | None:
        try:
            metadata = _Metadata.model_validate_json(await self._get(f"{self.address}{DISCOVERY}"))
            self._check(metadata)
            listed = _Listed.model_validate_json(await self._get(metadata.jwks_uri)).keys
            # Others, some of which cannot be read here, sign nothing that is taken.
            keys = [key for key in listed if key.get("kty") == "RSA" or key.get("crv") == "P-256"]
            return _Known(metadata, KeySet.import_key_set({"keys": keys}), time.monotonic())
        except _UNFIT as error:
            self._away("oidc.issuer", "OIDC_ISSUER gave no configuration or no keys that can be used", error)
            return None

    def _check(self, metadata: _Metadata) -> None:
        """Raises ValueError for another's configuration, and one that would have our secret read along."""
        if metadata.issuer.rstrip("/") != self.address:
            raise ValueError("the configuration of another issuer")
        endpoints = metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri
        safe = ("https://",) if self.address.startswith("https://") else ("https://", "http://")
        if not all(endpoint.startswith(safe) for endpoint in endpoints):
            raise ValueError("an endpoint without https")

    async def _get(self, url: str) -> bytes:
        async with asyncio.timeout(SIGN_IN_TIMEOUT):
            answer = await self._client.request("GET", url, withhold_token=True)
        if answer.status_code != 200:
            raise ValueError("an answer that is not 200")
        return bytes(answer.content)

    def _away(self, action: str, what: str, error: Exception) -> IssuerAway:
        self._log.error(action, f"{what} ({type(error).__name__})", result="ERROR")
        return IssuerAway("It does not answer at this moment. Try again in a minute.")

    def _refuse(self, why: str) -> SignInRefused:
        self._log.error("oidc.refused", why, result="FAILED")
        return SignInRefused("What it answered cannot be trusted. Begin again.")
