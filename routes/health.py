"""What the service is and how it is: for people, probes and Prometheus. No key is needed."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from quart import Blueprint, Response, current_app, jsonify

from routes.connection import BASE
from routes.context import headers, shows_admin_key, sidecast, success
from routes.errors import APIError, render
from routes.openapi import describe
from routes.shapes.answers import Alive, Index, Ready, Status
from routes.shapes.envelope import UnhealthyRefusal
from services.health import Health

blueprint = Blueprint("health", __name__)


@blueprint.get("/")
@describe(Index, roles=None)
async def get_index() -> dict[str, Any] | Response:
    """Name, version and every endpoint; a browser is sent to the dashboard."""
    if "text/html" in headers().get("accept", ""):
        return Response(status=303, headers={"Location": "/dashboard/"})
    settings = sidecast().settings
    endpoints = sorted(
        f"{method} {rule.rule}"
        for rule in current_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )
    return success({"module": settings.module_name, "version": settings.module_version, "endpoints": endpoints})


@blueprint.get(f"{BASE}/status")
@describe(Status, roles=None)
async def get_status() -> dict[str, Any]:
    """Module, version and the health of each provider."""
    services = sidecast()
    health = (await services.health.check()).as_dict()
    names = {provider.name for provider in services.chains.providers}
    providers = {name: state for name, state in health["dependencies"].items() if name in names}
    about = {"module": services.settings.module_name, "version": services.settings.module_version}
    return success(about | {"status": health["status"], "providers": providers})


@blueprint.get("/health")
@describe(Health, roles=None, errors=[503], refusal=UnhealthyRefusal)
async def get_health() -> Response:
    """Each dependency with its state and latency; 503 when nothing can be accepted."""
    return _answer(await sidecast().health.check())


@blueprint.get("/health/live")
@describe(Alive, roles=None)
async def get_live() -> dict[str, Any]:
    """That this process runs."""
    return success({"status": "alive"})


@blueprint.get("/health/ready")
@describe(Ready, roles=None, errors=[503])
async def get_ready() -> dict[str, Any]:
    """Whether events should be sent here: the database answers and the instance is not stopping."""
    services = sidecast()
    if services.intake.closed or not await services.health.ready():
        raise APIError(503, "SERVICE_UNAVAILABLE", "This instance takes no events now.")
    return success({"status": "ready"})


@blueprint.get("/metrics")
@describe(roles=None, media=["text/plain"])
async def get_metrics() -> Response:
    """Prometheus' text format; who shows an admin key is also told what communities have spent today."""
    text = await sidecast().readings.render(communities=await shows_admin_key())
    return Response(text, content_type=CONTENT_TYPE_LATEST)


def _answer(health: Health) -> Response:
    if health.ready:
        response: Response = jsonify(success(health.as_dict()))
        return response
    error = APIError(503, "SERVICE_UNAVAILABLE", "The database is not available.")
    response = render(error)
    response.set_data(current_app.json.dumps({"success": False, "error": error.as_dict(), "data": health.as_dict()}))
    return response
