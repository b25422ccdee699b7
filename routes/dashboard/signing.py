"""Signing in and out, and the files of the pages, which need neither."""

from __future__ import annotations

import click
from quart import Response, request
from quart.cli import ScriptInfo, pass_script_info
from werkzeug.exceptions import NotFound

from routes import command
from routes.context import headers, identify, sidecast
from routes.dashboard.room import (
    COOKIE,
    blueprint,
    check_origin,
    fields,
    files,
    go,
    is_https,
    may_carry_cookies,
    page,
    sign_in_about,
    visitor,
)
from routes.errors import APIError
from services.keys import COMMUNITY, Principal
from services.sessions import SESSION_SECONDS
from services.sidecast import Sidecast

HOME = "/dashboard/"
KEPT_SECONDS = 365 * 86_400


@blueprint.get("/sign-in")
async def get_sign_in() -> str:
    return await page("sign_in.html", None, **sign_in_about(request.args.get("next", "")))


@blueprint.post("/sign-in")
async def post_sign_in() -> Response:
    """Begin a session with a key or a JWT."""
    check_origin()
    given = await fields()
    about = sign_in_about(given.get("next", ""))
    if about["plain"]:
        raise APIError(403, "FORBIDDEN", "Others could read your key along: open this page by https.")
    credential = given.get("key", "").strip()
    try:
        principal = await identify(credential, request.scope, headers())
    except APIError as refused:
        problem = "This key is not valid." if refused.status == 401 else refused.message
        return Response(await page("sign_in.html", None, **about | {"problem": problem}), refused.status)
    if not principal.may(COMMUNITY):
        problem = "This key is a router's. Use an admin's key, or a community's."
        return Response(await page("sign_in.html", None, **about | {"problem": problem}), 403)
    return await enter(await _begin(principal, credential), about["following"] or HOME)


async def _begin(principal: Principal, credential: str) -> str:
    sidecast().log.audit("dashboard.signed_in", principal.name, result="SUCCESS")
    sessions, until = sidecast().sessions, sidecast().access.ends_at(credential, principal)
    return await sessions.begin(principal, None if until else credential, until)


@blueprint.get("/enter/<token>")
async def get_enter(token: str) -> Response:
    """Begin a session by a link, which works once."""
    cookie = await sidecast().sessions.enter(token) if may_carry_cookies() else None
    if cookie is None:
        about = sign_in_about("") | {"problem": "This link was used already, or is too old."}
        return Response(await page("sign_in.html", None, **about), 401)
    return await enter(cookie, HOME)


async def enter(cookie: str, following: str) -> Response:
    """Hand the browser its session."""
    response = await go(following)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(SESSION_SECONDS),
        path="/dashboard",
        secure=is_https(),
        httponly=True,
        samesite="Lax",
    )
    return response


@blueprint.post("/sign-out")
async def post_sign_out() -> Response:
    """End the session, on every instance."""
    who = await visitor(COMMUNITY)
    if who.session:
        await sidecast().sessions.end(who.session)
    response = await go(f"{HOME}sign-in")
    response.delete_cookie(COOKIE, path="/dashboard")
    return response


@blueprint.post("/links")
async def post_link() -> dict[str, str]:
    """A link that signs in once, for whoever has shown a key."""
    who = await visitor(COMMUNITY)
    credential = headers().get("authorization", "").partition(" ")[2].strip()
    if who.session is not None or not credential or sidecast().access.ends_at(credential, who.principal):
        raise APIError(403, "FORBIDDEN", "A link is made with a key, in the header Authorization.")
    return {"path": f"{HOME}enter/{await sidecast().sessions.link(credential)}"}


@blueprint.get("/static/<name>")
async def get_static(name: str) -> Response:
    """A file of the pages; its address changes with it, so it is kept for good."""
    found = files().get(name)
    if found is None:
        raise NotFound
    packed = "gzip" in headers().get("accept-encoding", "")
    response = Response(found.packed if packed else found.plain, content_type=found.kind)
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    # An instance of another version asks for another file by this name.
    same = files().address(name).endswith("?" + request.query_string.decode("latin-1"))
    response.headers["Cache-Control"] = f"public, max-age={KEPT_SECONDS}, immutable" if same else "no-cache"
    return response


@blueprint.cli.command("link")
@pass_script_info
def link(info: ScriptInfo) -> None:
    """Print a link to the dashboard that signs an admin in, once, within 15 minutes."""

    async def make(services: Sidecast) -> str:
        keys, settings = services.settings.valid_api_keys, services.settings
        if not keys or not services.valkey.is_set:
            raise click.ClickException("a link needs a key in VALID_API_KEYS, and Valkey (REDIS_URL)")
        token = await services.sessions.link(keys[0].get_secret_value())
        return f"http://127.0.0.1:{settings.module_port}{HOME}enter/{token}"

    click.echo(command.run(info, make))
