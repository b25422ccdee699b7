"""Delivery: retried while it may succeed, refused for good otherwise, signed, never redirected."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any

import pytest

from config import load_settings
from embedded.parts import free_port
from services.router_service import HttpRouter, RouterUnavailable
from tests.conftest import MakeService
from tests.stubs.router import StubRouter
from tests.stubs.server import running


async def deliver(make_service: MakeService, router: StubRouter, **settings: Any) -> dict[str, Any]:
    """Answer one event with the router at work; its outcome."""
    async with running(router.app) as url:
        service = await make_service(router_api_url=f"{url}/", **settings)
        ack = await service.accept(event_id="e-1")
        return await service.ended(ack["interaction_id"])


async def test_a_reply_is_offered_again_until_it_is_taken(make_service: MakeService) -> None:
    router = StubRouter((500, {}), (408, {}), (429, {}))
    outcome = await deliver(make_service, router)
    assert outcome["state"] == "delivered"
    assert [body["attempt"] for body in router.bodies] == [1, 2, 3, 4]
    assert len({body["interaction_id"] for body in router.bodies}) == 1


async def test_retry_after_is_honoured(make_service: MakeService) -> None:
    router = StubRouter((429, {"Retry-After": "1"}))
    began = time.monotonic()
    await deliver(make_service, router)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("value", ["-1", "1e99", "NaN", "abc", "", "9" * 400, "٣"])
async def test_a_nonsensical_retry_after_is_bounded(value: str) -> None:
    router = StubRouter((503, {"Retry-After": value}))
    async with running(router.app) as url:
        client = HttpRouter(load_settings(router_api_url=url))
        with pytest.raises(RouterUnavailable) as error:
            await client.post("1", {}, {})
        await client.close()
    assert 0 <= error.value.retry_after <= 30


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410, 422])
async def test_other_refusals_are_final_and_redirects_not_followed(make_service: MakeService, status: int) -> None:
    router = StubRouter(*[(status, {"Location": "/elsewhere"})] * 2)
    outcome = await deliver(make_service, router)
    assert (outcome["state"], outcome["reason"]) == ("undeliverable", f"router_status_{status}")
    assert (len(router.bodies), router.redirected) == (1, 0)


async def test_a_router_that_is_away_is_unavailable() -> None:
    client = HttpRouter(load_settings(router_api_url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(RouterUnavailable, match="router_unreachable"):
        await client.post("1", {}, {})
    await client.close()


async def test_replies_are_signed_by_standard_webhooks(make_service: MakeService) -> None:
    key = b"0123456789abcdef01234567"
    router = StubRouter()
    secret = f"whsec_{base64.b64encode(key).decode()}"
    outcome = await deliver(make_service, router, router_callback_secret=secret, router_api_key="rk")
    [headers] = router.headers
    signed = f"{outcome['interaction_id']}.{headers['webhook-timestamp']}.".encode() + router.raw[0]
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-id"] == outcome["interaction_id"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["authorization"] == "Bearer rk"


async def test_without_secrets_nothing_is_signed(make_service: MakeService) -> None:
    router = StubRouter()
    await deliver(make_service, router)
    assert not {"authorization", "webhook-signature", "webhook-id"} & router.headers[0].keys()


async def test_the_compact_format_has_four_fields(make_service: MakeService) -> None:
    router = StubRouter()
    await deliver(make_service, router, router_response_format="compact")
    [body] = router.bodies
    assert body.keys() == {"event_id", "response", "platform", "channel_id"}
    assert (body["event_id"], body["platform"]) == ("e-1", "twitch")
    assert body["response"].startswith("🤖 ")


async def test_the_development_router_is_off_when_a_router_is_set(make_service: MakeService) -> None:
    service = await make_service(router_api_url="http://127.0.0.1:1")
    assert (await service.get("/dev/router/messages")).status_code == 404
