"""Signing in to the dashboard by OpenID Connect, at a provider that checks what a strict one does."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from quart import Response as QuartResponse
from quart.typing import TestClientProtocol as Browser

from config import ConfigError, load_settings
from tests.conftest import MakeService, Service, event
from tests.stubs.oidc import CLIENT, SECRET, StubProvider, new_key, public_pem
from tests.stubs.server import running

BEGIN = "/dashboard/oidc"
OIDC = {"oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_admins": "12345", "oidc_name": "Twitch"}


@pytest.fixture
async def provider() -> AsyncIterator[StubProvider]:
    stub = StubProvider()
    async with running(stub.app) as url:
        stub.url = url
        yield stub


async def begun(client: Browser, path: str = BEGIN, **more: Any) -> str:
    """The address at the provider that a browser is sent to."""
    answer = await client.get(path, **more)
    assert answer.status_code == 303, await answer.get_data(as_text=True)
    return str(answer.headers["Location"])


async def at_provider(address: str) -> str:
    """The path and query that the provider sends a browser back to."""
    async with httpx.AsyncClient() as browser:
        back = urlsplit((await browser.get(address)).headers["Location"])
    return f"{back.path}?{back.query}"


async def sign_in(client: Browser, path: str = BEGIN) -> Any:
    """The answer to a browser that went to the provider and came back."""
    return await client.get(await at_provider(await begun(client, path)))


async def is_in(client: Browser) -> bool:
    return bool((await client.get("/dashboard/communities")).status_code != 401)


def cookie_of(client: Browser, name: str) -> str:
    return str(next(cookie.value for cookie in client.cookie_jar or () if cookie.name == name))


async def refused(client: Browser, status: int, says: str) -> None:
    """That signing in ends in a page that says so, and in no session."""
    answer = await sign_in(client)
    text = await answer.get_data(as_text=True)
    assert (answer.status_code, says in text) == (status, True), text
    assert "Traceback" not in text
    assert not await is_in(client)


async def test_an_admin_signs_in(make_service: MakeService, provider: StubProvider) -> None:
    """With state, nonce and PKCE; the session's cookie is out of scripts' reach, that of the way there is gone."""
    service = await make_service(oidc_issuer=provider.url, oidc_scopes="openid user:read", **OIDC)
    page = await (await service.client.get("/dashboard/sign-in?next=/dashboard/health")).get_data(as_text=True)
    assert 'href="/dashboard/oidc?next=/dashboard/health"' in page
    assert "Sign in with Twitch" in page
    answer = await sign_in(service.client, f"{BEGIN}?next=/dashboard/health")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard/health")
    session, other = sorted(answer.headers.getlist("Set-Cookie"), reverse=True)
    assert all(part in session for part in ("sidecast_session=", "HttpOnly", "SameSite=Lax", "Path=/dashboard"))
    assert "sidecast_oidc=;" in other
    assert (await service.client.get("/dashboard/health")).status_code == 200
    [asked] = provider.authorized
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT, "openid user:read")
    assert asked["redirect_uri"] == "http://localhost/dashboard/oidc/callback"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["nonce"]) >= 43
    assert len(asked["state"]) >= 43
    assert "claims" not in asked, "no e-mail address is wanted"


async def test_by_es256_and_basic_authentication(make_service: MakeService) -> None:
    stub = StubProvider("ES256")
    stub.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_basic"]}
    async with running(stub.app) as url:
        service = await make_service(oidc_issuer=f"{url}/", **OIDC)
        assert (await sign_in(service.client)).status_code == 303
        assert await is_in(service.client)


async def test_without_settings_there_is_no_such_page(make_service: MakeService) -> None:
    service = await make_service()
    assert (await service.client.get(BEGIN)).status_code == 404
    assert (await service.client.get(f"{BEGIN}/callback?code=a&state=b")).status_code == 404
    assert BEGIN not in await (await service.client.get("/dashboard/sign-in")).get_data(as_text=True)


async def test_a_streamer_gets_the_community_of_their_channel(
    make_service: MakeService, provider: StubProvider
) -> None:
    service = await make_service(oidc_issuer=provider.url, oidc_channel="twitch:channel:{sub}", **OIDC)
    mine = event()["entity_id"]
    made = await service.sidecast.communities.make("Mine", [mine], "tests")
    other = await service.sidecast.communities.make("Other", [], "tests")
    provider.person = {"sub": mine.rpartition(":")[2]}
    assert (await sign_in(service.client)).status_code == 303
    assert (await service.client.get(f"/dashboard/communities/{made.community_id}")).status_code == 200
    assert (await service.client.get(f"/dashboard/communities/{other.community_id}")).status_code == 404
    assert (await service.client.get("/dashboard/health")).status_code == 403


async def test_who_has_no_right_is_told_so(make_service: MakeService, provider: StubProvider) -> None:
    """And so is who would be another's channel by the signs in their id."""
    service = await make_service(oidc_issuer=provider.url, oidc_channel="twitch:{sub}", **OIDC)
    await service.sidecast.communities.make("Not yours", ["twitch:channel:777"], "tests")
    for subject in ("no-one", "channel:777", "{sub}", "12345 ", "1" * 256):
        provider.person = {"sub": subject}
        await refused(service.client, 403, "")
    provider.person = {"sub": "no-one"}
    await refused(service.client, 403, "Twitch knows you as no-one, who is no admin here and has no community.")


async def test_an_address_counts_if_it_was_verified(make_service: MakeService, provider: StubProvider) -> None:
    """It is asked for where the provider gives it on request only; an id that looks like it is none."""
    service = await make_service(oidc_issuer=provider.url, **OIDC | {"oidc_admins": "Admin@example.org"})
    unverified: list[dict[str, Any]] = [
        {"sub": "1", "email": "admin@example.org"},
        {"sub": "1", "email": "admin@example.org", "email_verified": False},
        {"sub": "1", "email": "admin@example.org", "email_verified": "true"},
        {"sub": "1", "email": ["admin@example.org"], "email_verified": True},
        {"sub": "1", "email": "other@example.org", "email_verified": True},
        {"sub": "1", "email": "admin@example.or\u0261", "email_verified": True},
        {"sub": "Admin@example.org", "email_verified": True},
        {"sub": "admin@example.org", "email_verified": True},
    ]
    for person in unverified:
        provider.person = person
        await refused(service.client, 403, "who is no admin here")
    provider.person = {"sub": "1", "email": "aDMIN@example.org", "email_verified": True}
    assert (await sign_in(service.client)).status_code == 303
    assert json.loads(provider.authorized[-1]["claims"])["id_token"].keys() == {"email", "email_verified"}


async def test_a_right_that_was_taken_away_ends_the_session(make_service: MakeService, provider: StubProvider) -> None:
    """On the next request, whether it was an admin's, a channel's, or another issuer's to give."""
    service = await make_service(oidc_issuer=provider.url, oidc_channel="twitch:channel:{sub}", **OIDC)
    await sign_in(service.client)
    cookie = cookie_of(service.client, "sidecast_session")

    async def status(service: Service) -> int:
        headers = {"Cookie": f"sidecast_session={cookie}"}
        return int((await service.app.test_client().get("/dashboard/health", headers=headers)).status_code)

    assert await status(await make_service(oidc_issuer=provider.url, **OIDC)) == 200
    assert await status(await make_service(oidc_issuer=provider.url, **OIDC | {"oidc_admins": "9"})) == 401
    await sign_in(service.client)
    cookie = cookie_of(service.client, "sidecast_session")
    assert await status(await make_service(oidc_issuer="https://other.example.org", **OIDC)) == 401


async def test_a_callback_works_once_and_in_its_browser(make_service: MakeService, provider: StubProvider) -> None:
    """Whoever knows its address alone ends nothing, and does not spoil it either."""
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    here, elsewhere = service.client, service.app.test_client()
    callback = await at_provider(await begun(here))
    assert (await elsewhere.get(callback)).status_code == 400
    await begun(elsewhere)
    answer = await elsewhere.get(callback)
    assert answer.status_code == 400
    assert "in another browser" in await answer.get_data(as_text=True)
    assert not await is_in(elsewhere)
    cookie = cookie_of(here, "sidecast_oidc")
    assert (await here.get(callback)).status_code == 303
    here.set_cookie("localhost", "sidecast_oidc", cookie, path="/dashboard/oidc")
    assert (await here.get(callback)).status_code == 400
    assert provider.asked.count("/token") == 1


@pytest.mark.parametrize("change", ["state=x&", "state=&", "other=x&"])
async def test_another_state_ends_nothing(make_service: MakeService, provider: StubProvider, change: str) -> None:
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    code = parse_qs(urlsplit(await at_provider(await begun(service.client))).query)["code"][0]
    answer = await service.client.get(f"{BEGIN}/callback?{change}code={code}")
    assert answer.status_code == 400
    assert "/token" not in provider.asked
    assert not await is_in(service.client)


async def test_who_says_no_at_the_provider_is_not_signed_in(make_service: MakeService, provider: StubProvider) -> None:
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    state = parse_qs(urlsplit(await begun(service.client)).query)["state"][0]
    answer = await service.client.get(f"{BEGIN}/callback?error=access_denied&state={state}")
    assert answer.status_code == 403
    assert "It has not signed you in" in await answer.get_data(as_text=True)


async def test_an_id_token_must_be_for_us_and_now(make_service: MakeService, provider: StubProvider) -> None:
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    wrong: list[dict[str, Any]] = [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": [CLIENT, "another"]},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"aud": None},
        {"iss": "https://other.example.org"},
        {"iss": None},
        {"exp": time.time() - 60},
        {"exp": None},
        {"exp": "later"},
        {"iat": time.time() + 3600},
        {"nbf": time.time() + 3600},
        {"sub": None},
        {"sub": 12345},
        {"sub": "12345\0"},
    ]
    for claims in wrong:
        provider.claims = claims
        await refused(service.client, 403, "cannot be trusted")
    provider.claims = {"aud": [CLIENT], "azp": CLIENT}
    assert (await sign_in(service.client)).status_code == 303


async def test_an_id_token_must_be_signed_by_the_issuer(make_service: MakeService, provider: StubProvider) -> None:
    """By RS256 or ES256 alone: a public key is never taken for a secret, nor no signature for one."""
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    wrong: list[tuple[dict[str, Any], Any]] = [
        ({"alg": "none"}, None),
        ({"alg": "HS256"}, public_pem(provider.key)),
        ({"alg": "HS256"}, SECRET.encode()),
        ({"alg": "RS256"}, new_key("RS256")),
        ({"alg": "ES256"}, new_key("ES256")),
        ({"alg": "RS256", "kid": "unknown"}, provider.key),
        ({"alg": "RS256", "crit": ["made-up"], "made-up": 1}, provider.key),
    ]
    for header, key in wrong:
        provider.header, provider.signs_with = {"kid": "1"} | header, key
        await refused(service.client, 403, "cannot be trusted")


async def test_a_new_key_is_fetched(make_service: MakeService, provider: StubProvider) -> None:
    """What is known of a provider is asked for once, and again when it signs with a key that is not known."""
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    await sign_in(service.client)
    await sign_in(service.client)
    assert provider.asked.count("/keys") == 1
    provider.signs_with = provider.keys["2"] = new_key("RS256")
    provider.header["kid"] = "2"
    service.sidecast.oidc._issuer._tried -= 5
    assert (await sign_in(service.client)).status_code == 303
    assert provider.asked.count("/keys") == 2


async def test_a_secret_or_redirect_that_the_provider_does_not_take(
    make_service: MakeService, provider: StubProvider
) -> None:
    service = await make_service(oidc_issuer=provider.url, **OIDC | {"oidc_client_secret": "wrong"})
    await refused(service.client, 403, "cannot be trusted")
    assert provider.refused == ["invalid_client"]


async def test_a_provider_that_is_away_or_slow(
    make_service: MakeService, provider: StubProvider, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A page says so, soon; those who ask while it was just found away wait for nothing."""
    monkeypatch.setattr("services.issuer.SIGN_IN_TIMEOUT", 0.3)
    away = await make_service(oidc_issuer="http://127.0.0.1:9", **OIDC)
    slow = await make_service(oidc_issuer=provider.url, **OIDC)
    callback = await at_provider(await begun(slow.client))
    provider.delay = 2
    began = time.monotonic()
    for service, path in [(away, BEGIN), (slow, callback), (away, BEGIN)]:
        answer = await service.client.get(path)
        text = await answer.get_data(as_text=True)
        assert (answer.status_code, "does not answer at this moment" in text) == (503, True), text
    assert time.monotonic() - began < 1
    assert not await is_in(slow.client)
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/.well-known/openid-configuration", "{", 200),
        ("/.well-known/openid-configuration", '{"issuer": "https://other.example.org"}', 200),
        ("/.well-known/openid-configuration", "", 302),
        ("/keys", '{"keys": []}', 200),
        ("/keys", '{"keys": [{"kty": "RSA"}]}', 200),
        ("/keys", '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1"}]}', 200),
        ("/keys", " " * 9_000_000, 200),
        ("/token", "{", 200),
        ("/token", "[]", 200),
        ("/token", "busy", 500),
        ("/token", "", 302),
    ],
)
async def test_a_provider_that_talks_nonsense(
    make_service: MakeService, provider: StubProvider, path: str, body: str, status: int
) -> None:
    """No redirect is followed, and no answer read that is too large."""
    provider.broken[path] = QuartResponse(body, status, {"Location": f"{provider.url}/elsewhere"})
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    answer = await (sign_in(service.client) if path == "/token" else service.client.get(BEGIN))
    assert answer.status_code == 503
    assert "/elsewhere" not in provider.asked


async def test_another_issuers_configuration_is_not_taken(make_service: MakeService, provider: StubProvider) -> None:
    provider.metadata = {"issuer": "https://other.example.org"}
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    assert (await service.client.get(BEGIN)).status_code == 503


async def test_where_a_browser_comes_back_to(make_service: MakeService, provider: StubProvider) -> None:
    """What is set, else where it is; a proxy's word for that counts if it is trusted."""
    service = await make_service(oidc_issuer=provider.url, trusted_proxies="10.0.0.0/8", **OIDC)
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "co.example.org", "Host": "localhost"}

    async def redirect(service: Service, client: str) -> str:
        address = await begun(service.client, headers=forwarded, scope_base={"client": (client, 1)})
        return parse_qs(urlsplit(address).query)["redirect_uri"][0]

    assert await redirect(service, "10.1.1.1") == "https://co.example.org/dashboard/oidc/callback"
    assert await redirect(service, "192.0.2.1") == "http://localhost/dashboard/oidc/callback"
    fixed = await make_service(
        oidc_issuer=provider.url, oidc_redirect_url="https://a.example.org/dashboard/oidc/callback", **OIDC
    )
    assert await redirect(fixed, "192.0.2.1") == "https://a.example.org/dashboard/oidc/callback"


async def test_not_over_plain_http_from_elsewhere(make_service: MakeService, provider: StubProvider) -> None:
    service = await make_service(oidc_issuer=provider.url, **OIDC)
    for path in (BEGIN, f"{BEGIN}/callback?code=a&state=b"):
        answer = await service.client.get(path, headers={"Host": "co.example.org"})
        assert answer.status_code == 403
    assert provider.asked == []


async def test_an_address_begins_no_more_often_than_a_key_may_ask(
    make_service: MakeService, provider: StubProvider
) -> None:
    service = await make_service(oidc_issuer=provider.url, api_rate_limit=2, **OIDC)
    statuses = [(await service.client.get(BEGIN)).status_code for _ in range(4)]
    assert statuses.count(429) >= 1


async def test_no_secret_is_in_a_log(make_service: MakeService, provider: StubProvider, capsys: Any) -> None:
    service = await make_service(oidc_issuer=provider.url, log_level="DEBUG", **OIDC)
    await sign_in(service.client)
    code = parse_qs(urlsplit(await at_provider(await begun(service.client))).query)["code"][0]
    provider.claims = {"aud": "another", "email": "canary@example.org"}
    await sign_in(service.client)
    provider.broken["/token"] = QuartResponse(f'{{"error": "canary-error {SECRET}"}}', 400)
    await sign_in(service.client)
    said = capsys.readouterr().out
    assert "oidc.refused" in said
    assert "InvalidClaimError aud" in said
    assert "canary" not in said
    assert code not in said
    assert "12345" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"oidc_client_id": ""}, "OIDC_CLIENT_ID: not set"),
        ({"oidc_client_secret": ""}, "OIDC_CLIENT_SECRET: not set"),
        ({"oidc_admins": ""}, "OIDC_ADMINS or OIDC_CHANNEL: not set"),
        ({"oidc_issuer": ""}, "OIDC_ISSUER: not set"),
        ({"oidc_issuer": "http://co.example.org"}, "OIDC_ISSUER: Value error, must start with https://"),
        ({"oidc_issuer": "co.example.org"}, "OIDC_ISSUER: Value error, must start with http"),
        ({"oidc_scopes": "email"}, "OIDC_SCOPES: Value error, must have openid in it"),
        ({"oidc_channel": "twitch:channel"}, "OIDC_CHANNEL: Value error, must have {sub} in it"),
        ({"oidc_channel": "{sub}:{email}"}, "OIDC_CHANNEL: Value error, must have {sub} in it"),
        ({"oidc_channel": "{sub.__class__}"}, "OIDC_CHANNEL: Value error, must have {sub} in it"),
        ({"oidc_name": "x" * 51}, "OIDC_NAME: String should have at most 50 characters"),
    ],
)
def test_settings_that_would_sign_nobody_in_stop_the_start(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(**{"oidc_issuer": "https://id.example.org"} | OIDC | changes)
    assert str(error.value).startswith(said)
    assert SECRET not in str(error.value)
