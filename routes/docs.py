"""The API's description, for programs and for people; all files are served from here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import orjson
from quart import Blueprint, Response, current_app, send_file
from werkzeug.exceptions import NotFound

from routes.context import sidecast
from routes.openapi import describe, make_document

blueprint = Blueprint("docs", __name__)
FOLDER = Path(__file__).resolve().parent.parent / "web" / "static" / "docs"
FILES = {
    "docs.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
FRESH_SECONDS = 3600
# Swagger UI sets styles of its own on elements and has its icons in `data:` addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KEPT = "openapi"


@blueprint.get("/openapi.json")
@describe(dict[str, Any], roles=None, bare=True)
async def get_openapi() -> Response:
    """This document."""
    kept = current_app.extensions
    if _KEPT not in kept:
        # Elsewhere, since it takes as long as many requests do.
        app, version = cast(Any, current_app)._get_current_object(), sidecast().settings.module_version
        kept[_KEPT] = orjson.dumps(await asyncio.to_thread(make_document, app, version))
    return Response(kept[_KEPT], content_type="application/json")


@blueprint.get("/docs")
@describe(roles=None, media=["text/html"])
async def get_docs() -> Response:
    """This document as a page to read and to try out."""
    answer = await _file("index.html", "text/html", 0)
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


@blueprint.get("/docs/<name>")
@describe(roles=None, media=sorted({*FILES.values()}))
async def get_docs_file(name: str) -> Response:
    """A file that the page is made of."""
    if name not in FILES:
        raise NotFound
    return await _file(name, FILES[name], FRESH_SECONDS)


async def _file(name: str, media: str, seconds: int) -> Response:
    """A file, which a browser keeps for some seconds and asks for anew by its ETag."""
    answer = await send_file(FOLDER / name, mimetype=media, cache_timeout=seconds, conditional=True)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
