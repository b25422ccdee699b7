"""What routes share: the services, the caller, the shape of a success."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from quart import Websocket, current_app, request

from routes import connection
from routes.connection import SizedRequest
from routes.errors import APIError
from services.access import TooManyAttempts
from services.budgets import Step
from services.chains import Choice
from services.communities import Community
from services.gateway import AUTO
from services.keys import ADMIN, COMMUNITY, Principal
from services.ledger import NOBODY, Account
from services.rates import WINDOW_SECONDS
from services.sidecast import Sidecast

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def sidecast() -> Sidecast:
    """The services of this app."""
    return cast(Sidecast, current_app.extensions["sidecast"])


def request_id() -> str:
    """The id of this request."""
    return str(request.scope["state"]["request_id"])


def while_heard() -> AbstractAsyncContextManager[None]:
    """Ends what is inside, with ClientDisconnected, when the caller goes away. For after the body was read."""
    return connection.while_heard(cast(SizedRequest, request).body.receive)


def success(data: dict[str, Any]) -> dict[str, Any]:
    """The body of every answer that is no error."""
    return {"success": True, "data": data}


async def require(*roles: str, websocket: Websocket | None = None, counted: bool = True) -> Principal:
    """The caller, who is an admin or has one of the roles. Raises APIError 401, 403 or 429.

    What is `counted` counts against the key's requests a minute.
    """
    scope = request.scope if websocket is None else websocket.scope
    given = headers() if websocket is None else headers_of(websocket)
    principal = await identify(presented_key(given), scope, given)
    if not principal.may(*roles):
        raise APIError(403, "FORBIDDEN", "This key may not do this.")
    if counted:
        count(principal, scope)
    return principal


async def identify(credential: str, scope: Any, given: dict[str, str]) -> Principal:
    """Whose key it is. Raises APIError 401 or 429."""
    try:
        principal = await sidecast().access.identify(credential, caller_address(scope, given))
    except TooManyAttempts as blocked:
        message = "Too many wrong keys came from this address."
        raise APIError(429, "RATE_LIMITED", message, retry_after=blocked.seconds) from None
    if principal is None:
        raise APIError(401, "UNAUTHORIZED", "A valid key is needed: Authorization: Bearer <key>.")
    return principal


async def shows_admin_key() -> bool:
    """Whether the caller is an admin, where nobody has to be: a wrong key is as none."""
    given = headers()
    try:
        principal = await sidecast().access.identify(presented_key(given), caller_address(request.scope, given))
    except TooManyAttempts:
        return False
    return principal is not None and principal.role == ADMIN


def count(principal: Principal, scope: Any) -> None:
    """Count a request of a key, and tell the caller what it has left. Raises APIError 429.

    The headers are those of draft-ietf-httpapi-ratelimit-headers, in its last form and the older one in use.
    """
    rate = sidecast().rates.take(str(principal.key_id or principal.name))
    if rate is None:
        return
    left = max(rate.left, 0)
    scope.setdefault("state", {})["headers"] = {
        "RateLimit-Policy": f'"requests";q={rate.limit};w={WINDOW_SECONDS}',
        "RateLimit": f'"requests";r={left};t={rate.seconds}',
        "RateLimit-Limit": str(rate.limit),
        "RateLimit-Remaining": str(left),
        "RateLimit-Reset": str(rate.seconds),
    }
    if rate.left < 0:
        message = f"This key may make {rate.limit} requests a minute."
        raise APIError(429, "RATE_LIMITED", message, retry_after=rate.seconds)


def not_found() -> APIError:
    """What a community's key hears of another community, and everyone of one that does not exist."""
    return APIError(404, "NOT_FOUND", "There is no such community.")


def own_community(principal: Principal, given: str | None) -> UUID | None:
    """The community that a request is about: the caller's own, or the one it names; None where an admin names none.

    Raises APIError 404.
    """
    try:
        named = UUID(given) if given else None
    except ValueError:
        raise not_found() from None
    if principal.role == COMMUNITY:
        if named not in {None, principal.community_id}:
            raise not_found()
        return principal.community_id
    return named


async def known_community(principal: Principal, given: str | None) -> UUID | None:
    """As `own_community`, of those that there are. Raises APIError 404, DatabaseUnavailable."""
    community_id = own_community(principal, given)
    if community_id is not None and await sidecast().communities.get(community_id) is None:
        raise not_found()
    return community_id


@dataclass(frozen=True)
class Caller:
    """Who asks for completions: whose providers answer, and on whose account."""

    chain: Sequence[Choice]
    account: Account
    community: Community | None = None

    @property
    def priced(self) -> bool:
        """Whether only models count whose price is known."""
        return self.community is not None and self.community.settings.budget_cost > 0

    async def chain_for(self, model: str) -> Sequence[Choice]:
        """Who may answer now: by its budget, a community may have no more than a small model. Raises BudgetSpent."""
        if self.community is None:
            return self.chain
        step = await sidecast().budgets.check(self.community)
        if step is Step.SMALL and model == AUTO:
            return await sidecast().chains.of(self.community, small=True)
        return self.chain


async def caller(principal: Principal, named: str | None) -> Caller:
    """The caller's community: a community key's own, else the one of `X-Community-Id`, else none. Raises APIError 404.

    Raises DatabaseUnavailable too.
    """
    services = sidecast()
    if principal.community_id is None and not named:
        return Caller(services.chains.default, NOBODY)
    community_id = own_community(principal, named)
    community = await services.communities.get(community_id) if community_id else None
    if community is None:
        raise not_found()
    return Caller(await services.chains.of(community), Account(community_id), community)


def headers() -> dict[str, str]:
    """The request's headers by their names in lower case; of several with one name the last."""
    return cast(SizedRequest, request).by_name


def headers_of(websocket: Websocket) -> dict[str, str]:
    """A handshake's headers, as `headers` has them."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in websocket.scope["headers"]}


def caller_address(scope: Any, given: dict[str, str]) -> str:
    """Who calls: the other end of the connection or, where that is a trusted proxy, who it says it speaks for."""
    client = scope.get("client")
    address = client[0] if client else ""
    trusted = sidecast().trusted_proxies
    if not trusted:
        return address
    chain = [part.strip() for part in given.get("x-forwarded-for", "").split(",") if part.strip()]
    while chain and _is_in(address, trusted):
        address = chain.pop()
    return address


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def is_by_proxy(scope: Any) -> bool:
    """Whether a trusted proxy is at the other end of the connection."""
    client = scope.get("client")
    return bool(client and sidecast().trusted_proxies and _is_in(client[0], sidecast().trusted_proxies))


def presented_key(given: dict[str, str]) -> str:
    scheme, _, token = given.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or given.get("x-api-key", "") or given.get("x-service-key", "")
