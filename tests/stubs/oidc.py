"""An OpenID Connect provider: discovery, authorization (everyone is let in at once), token and key set endpoints.

It checks what a strict one does: the client's secret, the code, the PKCE verifier and the redirect URI.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt import algorithms
from quart import Quart, Response, jsonify, request

CLIENT = "sidecast"
SECRET = "canary-client-secret"
ALGORITHMS: dict[str, Any] = {"RS256": algorithms.RSAAlgorithm, "ES256": algorithms.ECAlgorithm}


def new_key(algorithm: str) -> Any:
    return rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return made


def signed(header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:
    """A token as its header says: `none`, HS256 of bytes, or RS256 or ES256 of a private key."""
    parts = [base64url(json.dumps(part).encode()) for part in (header, claims)]
    content = ".".join(parts).encode()
    algorithm = header["alg"]
    if algorithm == "none":
        signature = b""
    elif algorithm == "HS256":
        signature = hmac.digest(key, content, "sha256")
    else:
        signature = ALGORITHMS[algorithm](ALGORITHMS[algorithm].SHA256).sign(content, key)
    return ".".join([*parts, base64url(signature)])


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class StubProvider:
    """Signs in `person`; `claims` and `header` replace what its ID tokens say otherwise, None takes a part away."""

    def __init__(self, algorithm: str = "RS256") -> None:
        self.person: dict[str, Any] = {"sub": "12345"}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": algorithm, "kid": "1", "typ": "JWT"}
        self._kind = ALGORITHMS[algorithm]
        self.key = new_key(algorithm)
        self.keys = {"1": self.key}
        self.signs_with: Any = self.key
        self.metadata: dict[str, Any] = {}
        self.url = ""  # set by whoever runs it
        self.delay = 0.0
        self.broken: dict[str, Response] = {}
        self.asked: list[str] = []
        self.authorized: list[dict[str, str]] = []
        self.refused: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.app = Quart("oidc")
        self.app.before_request(self.wait)
        self.app.get("/.well-known/openid-configuration")(self.configuration)
        self.app.get("/authorize")(self.authorize)
        self.app.post("/token")(self.token)
        self.app.get("/keys")(self.key_set)

    async def wait(self) -> Response | None:
        self.asked.append(request.path)
        await asyncio.sleep(self.delay)
        return self.broken.get(request.path)

    async def configuration(self) -> dict[str, Any]:
        base = request.host_url.rstrip("/")
        about = {
            "issuer": base,
            "authorization_endpoint": f"{base}/authorize",
            "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "claims_parameter_supported": True,
        }
        return about | self.metadata

    async def authorize(self) -> Response:
        given = request.args.to_dict()
        self.authorized.append(given)
        code = secrets.token_urlsafe(8)
        self._codes[code] = given
        query = urlencode({"code": code, "state": given["state"]})
        return Response("", 302, {"Location": f"{given['redirect_uri']}?{query}"})

    async def token(self) -> Response:
        given = (await request.form).to_dict()
        begun = self._codes.pop(given.get("code", ""), None)
        wrong = self._wrong(given, begun)
        if begun is None or wrong:
            self.refused.append(wrong)
            response: Response = jsonify({"error": wrong})
            response.status_code = 400
            return response
        token = signed(self.header, self._claims(begun["nonce"]), self.signs_with)
        return jsonify(
            {"access_token": "canary-access", "token_type": "bearer", "id_token": token, "scope": ["openid"]}
        )

    def _wrong(self, given: dict[str, str], begun: dict[str, str] | None) -> str:
        client = given.get("client_id"), given.get("client_secret")
        if request.authorization:
            client = request.authorization.username, request.authorization.password
        if client != (CLIENT, SECRET):
            return "invalid_client"
        challenge = base64url(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
        if begun is None or begun["code_challenge"] != challenge or begun["code_challenge_method"] != "S256":
            return "invalid_grant"
        return "" if begun["redirect_uri"] == given.get("redirect_uri") else "invalid_request"

    def _claims(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        about = {"iss": request.host_url.rstrip("/"), "aud": CLIENT, "iat": now, "exp": now + 600, "nonce": nonce}
        return {name: value for name, value in (about | self.person | self.claims).items() if value is not None}

    async def key_set(self) -> dict[str, Any]:
        """With a key of a kind that nobody here knows."""
        listed = [self._kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in self.keys.items()]
        return {"keys": [{"kty": "EC", "crv": "P-9000", "kid": "odd"}, *listed]}
