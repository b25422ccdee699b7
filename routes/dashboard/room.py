"""What all pages of the dashboard share: who is there, whose community it is about, how a page is made and refused."""

from __future__ import annotations

import base64
import gzip
import hmac
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

from quart import Blueprint, Response, current_app, render_template, request
from quart.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from routes.body import read_raw
from routes.context import count, headers, identify, is_by_proxy, not_found, presented_key, sidecast
from routes.dashboard.files import FOLDER, Files, read_files
from routes.dashboard.words import FILTERS
from routes.errors import RENDERERS, APIError, as_api_error
from services.communities import Community
from services.database import DatabaseUnavailable
from services.keys import ADMIN, Principal
from services.sessions import Session
from services.settings import DEFAULTS

COOKIE = "sidecast_session"
ALL = "all"
MAX_FIELDS = 1_000
MOST_DIGITS = 18
# Nothing of it comes from elsewhere, and no script or style is in a page itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`, with which a browser does not say which site a form was sent from.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
# A page is compressed from this size on; a higher level takes longer than the bytes it spares are worth.
PACKED_BYTES = 1_000
PACKED_LEVEL = 4
_LOCAL = {"127.0.0.1", "::1", "localhost"}
_FILES = "dashboard_files"

blueprint = Blueprint("dashboard", __name__, url_prefix="/dashboard", template_folder=str(FOLDER / "templates"))


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page; with a session where it is a browser, without one where a key came along."""

    principal: Principal
    session: Session | None

    @property
    def is_admin(self) -> bool:
        return self.principal.role == ADMIN

    @property
    def csrf(self) -> str:
        """What its forms hand back: other signs each time it is asked for."""
        return masked(self.session.csrf) if self.session else ""


class SignInNeeded(Exception):
    """Nobody is signed in."""


@blueprint.record_once
def _prepare(state: BlueprintSetupState) -> None:
    app: Any = state.app
    app.extensions[_FILES] = read_files()
    app.jinja_env.globals["static"] = app.extensions[_FILES].address
    app.jinja_env.filters |= FILTERS


def files() -> Files:
    """The files that pages are made of."""
    found: Files = current_app.extensions[_FILES]
    return found


async def visitor(*roles: str) -> Visitor:
    """Who is there, who may change things only by a form of ours. Raises SignInNeeded, APIError 403 or 429."""
    given = headers()
    if presented_key(given):
        found = Visitor(await identify(presented_key(given), request.scope, given), None)
    else:
        session = await sidecast().sessions.find(request.cookies.get(COOKIE, ""))
        if session is None:
            raise SignInNeeded
        if request.method not in {"GET", "HEAD"}:
            await _check_form(session)
        found = Visitor(session.principal, session)
    if not found.principal.may(*roles):
        raise APIError(403, "FORBIDDEN", "Your key may not do this.")
    if request.method not in {"GET", "HEAD"}:  # what asks a model, or changes something
        count(found.principal, request.scope)
    return found


async def _check_form(session: Session) -> None:
    """Raises APIError 403 for what another site's page has sent."""
    check_origin()
    token = headers().get("x-csrf-token") or (await form()).get("csrf", [""])[0]
    if not hmac.compare_digest(unmasked(token), session.csrf.encode()):
        raise APIError(403, "FORBIDDEN", "This form is too old. Load the page again.")


def masked(token: str) -> str:
    """A token in other signs each time, so that how well a page compresses tells nothing of it (BREACH)."""
    text = token.encode()
    pad = secrets.token_bytes(len(text))
    return base64.urlsafe_b64encode(pad + _xor(pad, text)).decode().rstrip("=")


def unmasked(given: str) -> bytes:
    """The token again; of what is none, something else."""
    try:
        both = base64.urlsafe_b64decode(given.encode() + b"=" * (-len(given) % 4))
    except ValueError:
        return b""
    return _xor(both[: len(both) // 2], both[len(both) // 2 :])


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=False))


def check_origin() -> None:
    """Raises APIError 403 where a browser says that a form was sent from another site."""
    origin, host = headers().get("origin", ""), headers().get("host", "")
    if origin and urlsplit(origin).hostname != urlsplit(f"//{host}").hostname:
        raise APIError(403, "FORBIDDEN", "This form was sent from another site.")


async def form() -> dict[str, list[str]]:
    """The fields of a form. Raises APIError 400."""
    raw = await read_raw()
    try:
        found = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise APIError(400, "INVALID_REQUEST", "The form cannot be read.") from None
    if any("\0" in value for values in found.values() for value in values):
        raise APIError(400, "INVALID_REQUEST", "The form has a sign (U+0000) that no text may have.")
    return found


async def fields() -> dict[str, str]:
    """The fields of a form, the last of each name."""
    return {name: values[-1] for name, values in (await form()).items()}


def whole_number(text: str) -> int | None:
    """A number of a form or an address; None for what is none, or none that the database could have."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


async def community_of(who: Visitor, given: str) -> Community:
    """The community that a page is about. Raises APIError 404, DatabaseUnavailable."""
    found = None
    try:
        community_id = UUID(given)
        if who.principal.community_id in {None, community_id}:
            found = await sidecast().communities.get(community_id)
    except ValueError:
        pass
    if found is None:
        raise not_found()
    return found


async def community_or_all(who: Visitor, given: str) -> Community:
    """As `community_of`; for an admin also what holds for all of them."""
    if given == ALL and who.is_admin:
        return await sidecast().communities.of_all()
    return await community_of(who, given)


def name_in_path(community: Community) -> str:
    """How a community stands in the address of its pages."""
    return ALL if community.community_id == DEFAULTS else str(community.community_id)


async def page(name: str, who: Visitor | None, community: Community | None = None, **more: Any) -> str:
    """A page or a piece of one."""
    about: dict[str, Any] = {"who": who, "csrf": who.csrf if who else "", "community": community}
    at = name_in_path(community) if community else ""
    about |= {"at": at, "in_all": at in {"", ALL}}
    return await render_template(name, **about, **more)


def by_htmx() -> bool:
    """Whether a piece of a page is asked for, and not a whole one."""
    return headers().get("hx-request") == "true"


async def go(address: str) -> Response:
    """Send the browser elsewhere in the dashboard."""
    response = Response("", 204 if by_htmx() else 303)
    response.headers["HX-Redirect" if by_htmx() else "Location"] = address
    return response


def is_https() -> bool:
    """Whether the browser speaks to us, or to a proxy that we trust, by TLS."""
    return request.scheme == "https" or (is_by_proxy(request.scope) and headers().get("x-forwarded-proto") == "https")


def may_carry_cookies() -> bool:
    """Whether nobody can read along: by TLS, or within one machine, or where an admin has allowed it."""
    host = urlsplit(f"//{headers().get('host', '')}").hostname
    return is_https() or host in _LOCAL or sidecast().settings.dashboard_plain_http


@blueprint.after_request
async def _secure(response: Response) -> Response:
    response.headers.extend(_SAFE)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


@blueprint.after_request
async def _pack(response: Response) -> Response:
    """Compress a page, unless another site sent the browser here, which might learn by its size what is in it."""
    given = headers()
    large = response.mimetype == "text/html" and (response.content_length or 0) > PACKED_BYTES
    led_here = given.get("sec-fetch-site", "none") not in {"none", "same-origin"}
    if large and not led_here and "gzip" in given.get("accept-encoding", ""):
        response.set_data(gzip.compress(await response.get_data(as_text=False), PACKED_LEVEL, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    if response.mimetype == "text/html":
        response.headers["Vary"] = "Accept-Encoding, Sec-Fetch-Site"
    return response


@blueprint.errorhandler(SignInNeeded)
async def _sign_in_first(_error: SignInNeeded) -> Response:
    following = request.full_path.rstrip("?") if request.method == "GET" and not by_htmx() else ""
    if "text/html" in headers().get("accept", ""):
        return await go(f"/dashboard/sign-in?{in_query(next=following)}")
    response = Response(await page("sign_in.html", None, **sign_in_about(following)), 401)
    response.headers["WWW-Authenticate"] = "Bearer"
    if by_htmx():
        response.headers["HX-Redirect"] = "/dashboard/sign-in"
    return response


def sign_in_about(following: str) -> dict[str, Any]:
    """What the page to sign in shows; `following` is where to go then."""
    allowed = following if following.startswith("/dashboard") else ""
    return {"following": allowed, "plain": not may_carry_cookies(), "problem": "", "provider": sidecast().oidc.name}


async def refuse(error: APIError) -> Response:
    """An error as a page, or beside what is there already."""
    response = Response(await page("error.html", None, error=error, piece=by_htmx()), error.status)
    if by_htmx():
        response.headers["HX-Retarget"] = "#flash"
        response.headers["HX-Reswap"] = "innerHTML"
    return response


@blueprint.errorhandler(APIError)
async def _refused(error: APIError) -> Response:
    return await refuse(error)


@blueprint.errorhandler(HTTPException)
@blueprint.errorhandler(DatabaseUnavailable)
async def _failed(error: HTTPException | DatabaseUnavailable) -> Response:
    return await refuse(as_api_error(error))


RENDERERS[blueprint.name] = refuse


def in_query(**given: str | None) -> str:
    """A query of what is given."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if value)
