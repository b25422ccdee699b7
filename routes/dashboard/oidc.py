"""Signing in by OpenID Connect: to the provider, and back from there."""

from __future__ import annotations

from quart import Response, request

from routes.context import caller_address, headers, is_by_proxy, sidecast
from routes.dashboard.room import blueprint, go, is_https, may_carry_cookies, sign_in_about
from routes.dashboard.signing import HOME, enter
from routes.errors import APIError
from services.issuer import IssuerAway, SignInError
from services.oidc import BEGUN_SECONDS, Oidc, SignInStale

PLACE = f"{HOME}oidc"
COOKIE = "sidecast_oidc"


@blueprint.get("/oidc")
async def get_oidc() -> Response:
    """Send the browser to the provider."""
    oidc = _provider()
    _count()
    try:
        address, cookie = await oidc.begin(_redirect(), sign_in_about(request.args.get("next", ""))["following"])
    except SignInError as error:
        raise _refusal(oidc, error) from None
    response = await go(address)
    _set_cookie(response, cookie, BEGUN_SECONDS)
    return response


@blueprint.get("/oidc/callback")
async def get_oidc_callback() -> Response:
    """Begin a session for whom the provider has signed in."""
    oidc, services = _provider(), sidecast()
    given, cookie = request.args, request.cookies.get(COOKIE, "")
    try:
        person, following = await oidc.end(given.get("state", ""), cookie, given.get("code", ""))
    except SignInError as error:
        raise _refusal(oidc, error) from None
    principal = await oidc.principal_of(person)
    if principal is None:
        who = f"{oidc.name} knows you as {person.subject}, who is no admin here and has no community."
        raise APIError(403, "FORBIDDEN", f"{who} Ask the admin.")
    services.log.audit("oidc.signed_in", "someone signed in", role=principal.role, result="SUCCESS")
    response = await enter(await services.sessions.begin_as(person, principal), following or HOME)
    _set_cookie(response, "", 0)
    return response


def _provider() -> Oidc:
    """Raises APIError 404 where there is none, 403 where others could read along."""
    oidc = sidecast().oidc
    if not oidc.name:
        raise APIError(404, "NOT_FOUND", "There is no such page.")
    if not may_carry_cookies():
        raise APIError(403, "FORBIDDEN", "Others could read along who you are: open this page by https.")
    return oidc


def _count() -> None:
    """Raises APIError 429 where an address begins more often than a key may ask."""
    rate = sidecast().rates.take(f"address:{caller_address(request.scope, headers())}")
    if rate and rate.left < 0:
        message = "Too many have begun to sign in from this address."
        raise APIError(429, "RATE_LIMITED", message, retry_after=rate.seconds)


def _redirect() -> str:
    """Where the provider sends the browser back to: where it is now, or what was set."""
    given = headers()
    host = (given.get("x-forwarded-host", "") if is_by_proxy(request.scope) else "") or given.get("host", "")
    scheme = "https" if is_https() else "http"
    return sidecast().settings.oidc_redirect_url or f"{scheme}://{host}{PLACE}/callback"


def _refusal(oidc: Oidc, error: SignInError) -> APIError:
    status, code = 403, "FORBIDDEN"
    if isinstance(error, IssuerAway):
        status, code = 503, "SERVICE_UNAVAILABLE"
    elif isinstance(error, SignInStale):
        status, code = 400, "INVALID_REQUEST"
    return APIError(status, code, f"Signing in with {oidc.name}: {error}")


def _set_cookie(response: Response, cookie: str, seconds: float) -> None:
    # Lax, since it must come along when the provider sends the browser back.
    response.set_cookie(
        COOKIE, cookie, max_age=int(seconds), path=PLACE, secure=is_https(), httponly=True, samesite="Lax"
    )
