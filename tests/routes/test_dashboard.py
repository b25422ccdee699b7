"""The dashboard: who may see and change what, and that each page shows it."""

from __future__ import annotations

import asyncio
import html
import json
import re
import signal
import socket
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import jwt
import pytest
from redis.asyncio import Redis

from routes.dashboard.room import COOKIE, POLICY
from services.database import DatabaseUnavailable
from services.settings import CommunitySettings
from tests.conftest import KEY, SHARED_DATA, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

PAGES = ("playground", "activity", "numbers", "", "versions", "keys", "audit")


@dataclass
class Browser:
    """Looks at pages with a session of its own, and sends their forms."""

    service: Service
    client: Any

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        answer = await self.client.get(path, headers=headers)
        return answer.status_code, await answer.get_data(as_text=True)

    async def send(self, path: str, csrf: str | None = None, **form: str) -> tuple[int, str]:
        headers = {"HX-Request": "true", "X-CSRF-Token": await self.csrf() if csrf is None else csrf}
        answer = await self.client.post(path, form=form, headers=headers)
        return answer.status_code, await answer.get_data(as_text=True)

    async def csrf(self) -> str:
        _, page = await self.get("/dashboard/communities/all/audit")
        if "X-CSRF-Token" not in page:
            _, page = await self.get("/dashboard/communities")
        found = re.search(r'X-CSRF-Token": "([\w-]+)"', html.unescape(page))
        assert found
        return found[1]


async def sign_in(service: Service, key: str = KEY, **headers: str) -> tuple[Browser, Any]:
    client = service.app.test_client()
    answer = await client.post("/dashboard/sign-in", form={"key": key}, headers=headers)
    return Browser(service, client), answer


async def admin(service: Service) -> Browser:
    browser, answer = await sign_in(service)
    assert answer.status_code == 303
    return browser


async def pages_of(service: Service) -> str:
    """Where the pages of a new community begin."""
    return f"/dashboard/communities/{await community(service, str(event()['entity_id']))}"


async def settled(browser: Browser, root: str, said: str, seconds: float = 30) -> str:
    """What the playground shows of an event, once it has ended."""
    found = re.search(r'hx-get="([^"]+/playground/[^"]+)"', said)
    assert found, said
    async with asyncio.timeout(seconds):
        while "aria-busy" in (shown := (await browser.get(found[1]))[1]):
            await asyncio.sleep(0.05)
    return html.unescape(shown)


async def test_a_session_begins_with_a_key_and_is_the_browsers_alone(make_service: MakeService) -> None:
    service = await make_service()
    browser, answer = await sign_in(service)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/dashboard/"
    for part in ("HttpOnly", "SameSite=Lax", "Path=/dashboard"):
        assert part in cookie
    assert KEY not in cookie
    status, page = await browser.get("/dashboard/communities")
    assert status == 200
    assert KEY not in page
    for wrong in ("", "wrong", "x" * 5000):
        _, answer = await sign_in(service, wrong)
        assert answer.status_code == 401
        assert "not valid" in await answer.get_data(as_text=True)
        assert "Set-Cookie" not in answer.headers


async def test_a_routers_key_signs_nobody_in(make_service: MakeService) -> None:
    service = await make_service()
    key = (await (await service.post("/keys", role="service")).get_json())["data"]["key"]
    _, answer = await sign_in(service, key)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


async def test_a_cookie_is_sent_where_nobody_reads_along(make_service: MakeService) -> None:
    """By TLS, which a trusted proxy may end, or within one machine; elsewhere only where an admin allows it."""
    service = await make_service(trusted_proxies="127.0.0.0/8")
    for headers, secure in (
        ({"Host": "example.org", "X-Forwarded-Proto": "https"}, True),
        ({"Host": "[::1]:8"}, False),
    ):
        answer = await service.app.test_client().post(
            "/dashboard/sign-in", form={"key": KEY}, headers=headers, scope_base={"client": ("127.0.0.1", 1)}
        )
        assert answer.status_code == 303, headers
        assert ("Secure" in answer.headers["Set-Cookie"]) == secure
    _, answer = await sign_in(service, Host="192.168.1.5:8005")
    assert answer.status_code == 403
    allowed = await make_service(dashboard_plain_http=True)
    _, answer = await sign_in(allowed, Host="192.168.1.5:8005")
    assert answer.status_code == 303


async def test_whoever_is_not_signed_in_is_asked_to(make_service: MakeService) -> None:
    service = await make_service()
    root = await pages_of(service)
    client = service.app.test_client()
    answer = await client.get(f"{root}/numbers?span=week", headers={"Accept": "text/html"})
    assert answer.status_code == 303
    following = answer.headers["Location"]
    assert following.startswith("/dashboard/sign-in?next=%2Fdashboard%2F")
    page = await (await client.get(following)).get_data(as_text=True)
    assert f'value="{root}/numbers?span=week"' in page
    answer = await client.post("/dashboard/sign-in", form={"key": KEY, "next": f"{root}/numbers?span=week"})
    assert answer.headers["Location"] == f"{root}/numbers?span=week"
    for elsewhere in ("https://example.org/", "//example.org", "/\\example.org", "javascript:alert(1)"):
        answer = await client.post("/dashboard/sign-in", form={"key": KEY, "next": elsewhere})
        assert answer.headers["Location"] == "/dashboard/"
    assert (await service.client.get(root)).status_code == 401
    answer = await service.client.get(f"{root}/activity", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/dashboard/sign-in")


async def test_only_forms_of_ours_change_anything(make_service: MakeService) -> None:
    service = await make_service()
    root = await pages_of(service)
    browser = await admin(service)
    form = {"section": "persona", "persona_name": "Otto"}
    assert (await browser.send(root, csrf="", **form))[0] == 403
    assert (await browser.send(root, csrf="wrong", **form))[0] == 403
    token = await browser.csrf()
    answer = await browser.client.post(
        root, form=form, headers={"X-CSRF-Token": token, "Origin": "https://example.org", "Host": "localhost"}
    )
    assert answer.status_code == 403
    page = (await browser.get(root))[1]
    assert "Otto" not in page


async def test_a_link_signs_in_once(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    answer = await one.client.post("/dashboard/links", headers={"Authorization": f"Bearer {KEY}"})
    path = (await answer.get_json())["path"]
    client = two.app.test_client()
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard/")
    assert (await client.get("/dashboard/communities")).status_code == 200
    again = await one.app.test_client().get(path)
    assert again.status_code == 401
    assert "used already" in await again.get_data(as_text=True)


async def test_a_session_ends_when_it_is_ended_on_any_instance(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    browser = await admin(one)
    elsewhere = two.app.test_client()
    cookie = next(each for each in browser.client.cookie_jar if each.name == COOKIE).value
    headers = {"Cookie": f"{COOKIE}={cookie}"}
    assert (await elsewhere.get("/dashboard/communities", headers=headers)).status_code == 200
    status, _ = await browser.send("/dashboard/sign-out")
    assert status == 204
    assert (await elsewhere.get("/dashboard/communities", headers=headers)).status_code == 401
    assert (await one.client.get("/dashboard/communities", headers=headers)).status_code == 401


async def test_a_session_ends_with_its_key(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service, str(event()["entity_id"]))
    told = (await (await service.post("/keys", role=f"community:{mine}")).get_json())["data"]
    browser, _ = await sign_in(service, told["key"])
    assert (await browser.get(f"/dashboard/communities/{mine}"))[0] == 200
    await service.sidecast.keys.revoke(UUID(told["key_id"]), None, 0, "tests")
    assert (await browser.get(f"/dashboard/communities/{mine}"))[0] == 401


async def test_a_session_of_a_token_ends_with_it(make_service: MakeService) -> None:
    service = await make_service(secret_key="s" * 40)
    claims = {"sub": "ann", "role": "admin", "exp": int(time.time()) + 2}
    browser, answer = await sign_in(service, jwt.encode(claims, "s" * 40, "HS256"))
    assert answer.status_code == 303
    assert (await browser.get("/dashboard/communities"))[0] == 200
    async with asyncio.timeout(15):
        while (await browser.get("/dashboard/communities"))[0] == 200:
            await asyncio.sleep(0.2)


async def test_sessions_go_on_while_valkey_is_away(
    make_service: MakeService, own_valkey: tuple[str, asyncio.subprocess.Process]
) -> None:
    url, process = own_valkey
    service = await make_service(redis_url=url)
    browser = await admin(service)
    process.kill()
    await process.wait()
    assert (await browser.get("/dashboard/communities"))[0] == 200
    other = await admin(service)
    assert (await other.get("/dashboard/health"))[0] == 200


async def test_what_valkey_has_of_a_session_is_no_cookie(make_service: MakeService, redis: Redis) -> None:
    service = await make_service()
    browser = await admin(service)
    cookie = next(each for each in browser.client.cookie_jar if each.name == COOKIE).value
    names: list[str] = [str(name) for name in await redis.keys("sidecast:session:*")]
    text = " ".join([*names, *[str(await redis.get(name)) for name in names]])
    assert names
    assert cookie not in text
    assert KEY not in text


async def test_every_page_is_there_for_its_community_and_for_an_admin(make_service: MakeService) -> None:
    service = await make_service()
    mine = await community(service, str(event()["entity_id"]))
    theirs = await community(service, str(event()["entity_id"]))
    key = (await (await service.post("/keys", role=f"community:{mine}")).get_json())["data"]["key"]
    browser, _ = await sign_in(service, key)
    for page in PAGES:
        assert (await browser.get(f"/dashboard/communities/{mine}/{page}".rstrip("/")))[0] == 200, page
        status, text = await browser.get(f"/dashboard/communities/{theirs}/{page}".rstrip("/"))
        assert status == 404, page
        assert theirs not in text
        assert (await browser.get(f"/dashboard/communities/all/{page}".rstrip("/")))[0] == 404, page
    assert (await browser.get("/dashboard/health"))[0] == 403
    boss = await admin(service)
    for path in ("health", "communities", *(f"communities/all/{page}".rstrip("/") for page in PAGES[2:])):
        assert (await boss.get(f"/dashboard/{path}"))[0] == 200, path
    assert (await boss.get("/dashboard/nothing/here"))[0] == 404


async def test_a_page_holds_no_script_or_style_and_none_may_come_from_elsewhere(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    for page in (*PAGES, "/dashboard/sign-in", "/dashboard/nothing"):
        path = page if page.startswith("/") else f"{root}/{page}".rstrip("/")
        answer = await browser.client.get(path)
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert "unsafe" not in POLICY
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"
        text = await answer.get_data(as_text=True)
        assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|hx-on", text), path
        for address in re.findall(r'(?:src|href|action|hx-get|hx-post)="([^"]*)"', text):
            assert address.startswith(("/dashboard", "#", "?")), address


async def test_files_are_small_and_kept_for_good(make_service: MakeService) -> None:
    """Under 150 KB for a page and all that it asks for, at its first load."""
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    for page in PAGES:
        text = (await browser.get(f"{root}/{page}".rstrip("/")))[1]
        weight = len(text.encode())
        for address in re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', text):
            answer = await browser.client.get(address, headers={"Accept-Encoding": "gzip, br"})
            assert "immutable" in answer.headers["Cache-Control"]
            weight += len(await answer.get_data())
        assert weight < 150_000, page
    assert (await browser.get("/dashboard/static/VENDORED.md"))[0] == 404
    assert (await browser.get("/dashboard/static/..%2fapp.py"))[0] == 404


async def test_settings_are_saved_a_section_at_a_time_and_act(make_service: MakeService) -> None:
    """A bad value is named beside its field, and what was typed stays."""
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    status, page = await browser.send(root, section="persona", version="0", persona_name="Otto", enabled="true")
    assert (status, "Saved as version 1" in page) == (200, True)
    status, page = await browser.send(root, section="memory", retention_days="99999", context_history_limit="many")
    assert status == 422
    assert "must be a number" in page
    assert 'value="99999"' in page
    status, page = await browser.send(root, section="memory", retention_days="99999", context_history_limit="5")
    assert "less than or equal to 3650" in page
    status, page = await browser.send(root, section="persona", version="0", persona_name="Anna", enabled="true")
    assert (status, "Someone else has changed" in page) == (422, True)
    view = await service.sidecast.settings_store.view(UUID(root.rpartition("/")[2]))
    assert view is not None
    assert view.settings.persona_name == "Otto"
    form = {
        "section": "persona",
        "version": "1",
        "persona_name": "Otto",
        "enabled": "true",
        "inherit:persona_name": "1",
    }
    status, page = await browser.send(root, **form)
    assert status == 200
    view = await service.sidecast.settings_store.view(UUID(root.rpartition("/")[2]))
    assert view is not None
    assert "persona_name" not in view.own


async def test_sections_are_saved_one_after_the_other_and_a_race_is_told_again(make_service: MakeService) -> None:
    """What a section was seen at is what it is saved for, however often that is tried."""
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    _, page = await browser.send(root, section="persona", version="0", persona_name="Otto", enabled="true")
    for section in ("model", "speaking", "words", "memory", "limits", "budget"):
        assert f'id="version-{section}" value="1" hx-swap-oob="true"' in page
    assert (await browser.send(root, section="memory", version="1", retention_days="9"))[0] == 200
    for _ in range(2):
        status, page = await browser.send(root, section="persona", version="1", persona_name="Anna", enabled="true")
        assert (status, "Someone else has changed" in page) == (422, True)
        assert 'id="version-persona" value="1"' in page


async def test_a_number_stays_as_it_is_when_others_are_saved(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    await put(service, community_id=root.rpartition("/")[2], user_cooldown=12345.67)
    page = (await browser.get(root))[1]
    assert 'value="12345.67"' in page
    status, page = await browser.send(root, section="limits", user_cooldown="nan")
    assert (status, "must be a number" in page) == (422, True)


async def test_an_undo_keeps_no_key_for_another_address(make_service: MakeService) -> None:
    service = await make_service(community_url_http=True, community_url_allow="127.0.0.1")
    root, browser = await pages_of(service), await admin(service)
    mine = root.rpartition("/")[2]
    own = {"provider": "custom", "model": "m", "api_key": "canary-1"}
    assert (await put(service, community_id=mine, base_url="http://127.0.0.1:1/v1", **own))[0] == 200
    assert (await put(service, community_id=mine, base_url="http://127.0.0.1:2/v1", **own))[0] == 200
    assert (await browser.send(f"{root}/undo", version="1"))[0] == 204
    view = await service.sidecast.settings_store.view(UUID(mine))
    assert view is not None
    assert (view.settings.base_url, view.has_key) == ("http://127.0.0.1:1/v1", False)


async def test_a_router_says_nothing_in_a_playground(make_service: MakeService) -> None:
    service = await make_service()
    channel = f"playground:{await community(service, str(event()['entity_id']))}"
    answer = await service.post(**event(entity_id=channel))
    assert answer.status_code == 400
    assert (await answer.get_json())["error"]["details"][0]["field"] == "entity_id"
    answer = await service.post("/interaction/batch", events=[event(entity_id=channel), event()])
    first, second = (await answer.get_json())["data"]["results"]
    assert (first["success"], second["success"]) == (False, True)


async def test_a_session_that_ended_while_valkey_was_away_stays_so(
    make_service: MakeService, own_valkey: tuple[str, asyncio.subprocess.Process]
) -> None:
    url, process = own_valkey
    service = await make_service(redis_url=url)
    browser = await admin(service)
    cookie = next(each for each in browser.client.cookie_jar if each.name == COOKIE).value
    token = await service.sidecast.sessions.link(KEY)
    csrf = await browser.csrf()
    process.send_signal(signal.SIGSTOP)
    assert await service.sidecast.sessions.enter(token) is None, "it could be used again when Valkey is back"
    assert (await browser.send("/dashboard/sign-out", csrf=csrf))[0] == 204
    process.send_signal(signal.SIGCONT)
    service.sidecast.valkey._retry_at = 0.0
    assert await service.sidecast.sessions.find(cookie) is None
    assert await service.sidecast.sessions.find(cookie) is None


async def test_what_is_changed_counts_against_the_requests_of_a_key(make_service: MakeService) -> None:
    service = await make_service(api_rate_limit=5)
    root = await pages_of(service)
    statuses = []
    for _ in range(6):
        answer = await service.client.post(
            f"{root}/playground/try", form={"platform": "twitch"}, headers={"Authorization": f"Bearer {KEY}"}
        )
        statuses.append(answer.status_code)
    assert statuses[-1] == 429


async def test_the_page_of_health_is_there_without_postgresql(make_service: MakeService) -> None:
    service = await make_service()
    browser = await admin(service)
    with pytest.MonkeyPatch.context() as patch:
        away = AsyncMock(side_effect=DatabaseUnavailable("away"))
        patch.setattr(service.sidecast.instances, "alive", away)
        status, page = await browser.get("/dashboard/health")
    assert (status, "PostgreSQL does not answer" in page) == (200, True)


async def test_only_what_a_form_changed_is_the_communitys_own(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    page = (await browser.get(root))[1]
    section = page[page.index('id="section-speaking"') : page.index('id="section-words"')]
    form = {"section": "speaking", "version": "0"}
    for name, value in re.findall(r'<input id="field-\w+" name="(\w+)" type="text"[^>]*? value="([^"]*)"', section):
        form[name] = html.unescape(value)
    for name, text in re.findall(r'<textarea id="field-\w+" name="(\w+)".*?>([^<]*)</textarea>', section, re.DOTALL):
        form[name] = html.unescape(text)
    for name, options in re.findall(r'<select id="field-\w+" name="(\w+)"(.*?)</select>', section, re.DOTALL):
        form[name] = re.findall(r'value="(\w+)" selected', options)[0]
    form["only_live"] = "true"
    assert (await browser.send(root, **form))[0] == 200
    view = await service.sidecast.settings_store.view(UUID(root.rpartition("/")[2]))
    assert view is not None
    assert view.own == ("only_live",)


async def test_a_field_is_checked_as_it_is_typed(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    cases = (
        ("custom_patterns", "(?=x)", "RE2 does not take"),
        ("quiet_hours", "22-6", "must be like 22:00-06:30"),
        ("timezone", "Mars/Olympus", "is no time zone"),
        ("base_url", "http://169.254.169.254/", "must"),
        ("retention_days", "0", "greater than or equal to 1"),
        ("budget_tokens", "x", "must be a number"),
        ("persona_name", "Otto", ""),
        ("api_key", "é", "ASCII"),
    )
    for name, value, said in cases:
        status, shown = await browser.send(f"{root}/check?field={name}", **{name: value})
        assert status == 200, name
        text = re.sub("<[^>]+>", "", html.unescape(shown)).strip()
        assert (said in text) if said else not text, (name, text)


async def test_every_setting_is_on_the_page_with_its_meaning(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    page = html.unescape(re.sub("</?code>", "`", (await browser.get(root))[1]))
    for name, about in CommunitySettings.model_fields.items():
        assert f'name="{name}"' in page, name
        assert str(about.description) in page, name
    everywhere = (await browser.get("/dashboard/communities/all"))[1]
    assert 'name="api_key"' in page
    assert 'name="api_key"' not in everywhere


async def test_a_key_of_a_provider_is_never_shown(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    key = "sk-canary-4711"
    form = {"section": "model", "provider": "openai", "model": "m", "api_key": key}
    status, page = await browser.send(root, **form)
    assert (status, "a key is set" in page) == (200, True)
    for name in PAGES:
        assert key not in (await browser.get(f"{root}/{name}".rstrip("/")))[1], name
    status, page = await browser.send(
        root, section="model", provider="openai", model="m", api_key="", **{"version": "1"}
    )
    assert "a key is set" in page
    status, page = await browser.send(root, section="model", provider="openai", model="m", **{"inherit:api_key": "1"})
    assert "no key is set" in page


async def test_a_change_shows_when_it_is_live_on_all_instances(make_service: MakeService) -> None:
    one, _two = await make_service(), await make_service()
    root, browser = await pages_of(one), await admin(one)
    async with asyncio.timeout(20):
        while len(await one.sidecast.instances.alive()) < 2:
            await asyncio.sleep(0.1)
    _, page = await browser.send(root, section="persona", version="0", persona_name="Otto", enabled="true")
    found = re.search(r'hx-get="([^"]+/live\?since=[^"]+)"', page)
    assert found
    async with asyncio.timeout(20):
        while "Live on all" not in (shown := (await browser.get(html.unescape(found[1])))[1]):
            assert "Live on" in shown
            await asyncio.sleep(0.1)
    assert "<small" not in shown


async def test_versions_can_be_gone_back_to(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    for number, name in enumerate(("Otto", "Anna")):
        await browser.send(root, section="persona", version=str(number), persona_name=name, enabled="true")
    page = (await browser.get(f"{root}/versions"))[1]
    assert "Otto" in page
    assert "Back to version 1" in page
    assert "environment:1" in page
    assert (await browser.send(f"{root}/undo", version="1"))[0] == 204
    settings = await (await service.get(f"/api/v1/ai/config?community_id={root.rpartition('/')[2]}")).get_json()
    assert (settings["data"]["persona_name"], settings["data"]["version"]) == ("Otto", 3)
    assert (await browser.send(f"{root}/undo", version="0"))[0] == 204
    settings = await (await service.get(f"/api/v1/ai/config?community_id={root.rpartition('/')[2]}")).get_json()
    assert "persona_name" in settings["data"]["inherited"]
    for unknown in ("99", "", "-1", "1e3"):
        assert (await browser.send(f"{root}/undo", version=unknown))[0] == 404


async def test_the_playground_shows_a_real_reply_and_how_it_came_to_be(make_service: MakeService) -> None:
    """It is journaled and answered by a real model, and told to no router."""
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    status, said = await browser.send(f"{root}/playground", platform="twitch", username="ann", message="Hello there!")
    assert status == 200
    shown = await settled(browser, root, said, 90)
    for part in ("greeting", "Hello", "embedded", "tokens", "What the model was told", "co-host of a live stream"):
        assert part in shown
    assert 'data-state="delivered"' in shown
    assert service.messages == []
    _, said = await browser.send(f"{root}/playground", platform="twitch", username="ann", message="nice one")
    assert "Nothing is said" in said


@pytest.fixture
async def talk(make_service: MakeService) -> Any:
    stub = StubOpenAI("`Sure`, see https://evil.example @everyone")
    async with running(stub.app) as url:
        yield (
            await make_service(ai_provider="openai", ai_model="m", openai_base_url=f"{url}/v1", openai_api_key="k"),
            stub,
        )


async def test_the_playground_tells_what_the_rules_changed(talk: tuple[Service, StubOpenAI]) -> None:
    service, _ = talk
    root, browser = await pages_of(service), await admin(service)
    said = (await browser.send(f"{root}/playground", platform="twitch", username="ann", message="Hello there!"))[1]
    shown = await settled(browser, root, said)
    for part in ("https://evil.example", "links left out", "calls of others left out", "Sure", "openai"):
        assert part in shown
    text = re.findall(r'<span class="text">(.*?)</span>', shown)[0]
    assert "evil" not in text


async def test_events_can_be_let_happen_and_cooldowns_do_not_hold(talk: tuple[Service, StubOpenAI]) -> None:
    service, stub = talk
    root, browser = await pages_of(service), await admin(service)
    status, _ = await put(service, community_id=root.rpartition("/")[2], user_cooldown=600, channel_replies=1)
    assert status == 200
    for number, (kind, details) in enumerate((("raid", '{"viewers": "120"}'), ("follow", "{}"), ("raid", "{}"))):
        stub.answer = f"Thanks {number}"
        form = {"platform": "twitch", "username": "ann", "event": kind, "metadata": details}
        shown = await settled(browser, root, (await browser.send(f"{root}/playground", **form))[1])
        assert 'data-state="delivered"' in shown, shown
    assert "120" in str(stub.requests[0]["messages"])
    assert (await browser.send(f"{root}/playground", platform="twitch", username="a", metadata="{"))[0] == 400
    assert (await browser.send(f"{root}/playground", platform="Bad Platform", username="a", message="hi"))[0] == 400


async def test_a_message_can_be_tried_without_posting_it(talk: tuple[Service, StubOpenAI]) -> None:
    service, _ = talk
    root, browser = await pages_of(service), await admin(service)
    status, shown = await browser.send(f"{root}/playground/try", platform="twitch", message="how do I join?")
    assert status == 200
    assert "Sure" in shown
    assert "question" in shown
    _, shown = await browser.send(f"{root}/playground/try", platform="twitch", message="nice")
    assert "Nothing would be said" in shown
    assert "Nothing yet" in (await browser.get(f"{root}/activity"))[1]


async def test_activity_lists_and_filters_what_happened(talk: tuple[Service, StubOpenAI]) -> None:
    service, _ = talk
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    root, browser = f"/dashboard/communities/{mine}", await admin(service)
    await service.answered(entity_id=channel, user_id="ann", message_content="how do I join?")
    await put(service, community_id=mine, store_content=True)
    await service.answered(entity_id=channel, user_id="bob", message_content="Hello there!")
    page = (await browser.get(f"{root}/activity"))[1]
    rows = page.split("<tbody>")[1]
    assert rows.index("bob") < rows.index("ann")
    assert "not kept" in rows
    assert "Hello there!" in rows
    for query, there, gone in (
        ("user_id=ann", "ann", "bob"),
        ("trigger=greeting", "bob", "ann"),
        ("state=expired", "", "ann"),
    ):
        rows = (await browser.get(f"{root}/activity?rows=1&{query}"))[1].split("<tbody>")[1]
        assert there in rows
        assert gone not in rows
    first = re.findall(rf'href="({root}/activity/[^"]+)"', page)[0]
    detail = html.unescape((await browser.get(first))[1])
    assert "Hello there!" in detail
    assert "Tried, in order" in detail
    status, again = await browser.send(f"{first}/again")
    assert (status, "Sure" in again) == (200, True)
    last = re.findall(rf'href="({root}/activity/[^"]+)"', page)[-1]
    assert "not kept" in (await browser.get(last))[1]
    assert (await browser.send(f"{last}/again"))[0] == 404
    assert (await browser.get(f"{root}/activity?cursor=x"))[0] == 400


async def test_whoever_watches_hears_what_happens_on_any_instance(make_service: MakeService) -> None:
    one, two = await make_service(), await make_service()
    channel = str(event()["entity_id"])
    mine = await community(one, channel)
    async with running(one.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        path = f"/dashboard/communities/{mine}/activity/live"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"text/event-stream" in head
            await reader.readuntil(b"event: changed")  # that it begins
            await two.answered(entity_id=channel)
            await reader.readuntil(b"event: changed")
        writer.close()


async def test_numbers_add_up(talk: tuple[Service, StubOpenAI]) -> None:
    service, _ = talk
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    browser = await admin(service)
    before = await interactions_of_all(browser)
    for number in range(3):
        await service.answered(entity_id=channel, user_id=f"u{number}", message_content="Hello there!")
    await asyncio.sleep(0.1)
    for span in ("day", "week", "month", "nonsense"):
        page = html.unescape((await browser.get(f"/dashboard/communities/{mine}/numbers?span={span}"))[1])
        assert "<h2>3</h2>interactions" in page
        assert "said: 3" in page
        assert "openai/" in page
    assert await interactions_of_all(browser) == before + 3


async def interactions_of_all(browser: Browser) -> int:
    """What the page of numbers says of all communities, over a month."""
    page = html.unescape((await browser.get("/dashboard/communities/all/numbers?span=month"))[1])
    return int(re.findall(r"<h2>([\d ]+)</h2>interactions", page)[0].replace(" ", ""))


async def test_keys_are_issued_and_revoked(make_service: MakeService) -> None:
    service = await make_service()
    root, browser = await pages_of(service), await admin(service)
    _, page = await browser.send(f"{root}/keys", label="my bot", days="30")
    found = re.search(r'readonly value="(sc_[\w-]+)"', page)
    assert found
    assert (await service.get("/api/v1/ai/config", key=found[1])).status_code == 200
    assert found[1] not in (await browser.get(f"{root}/keys"))[1]
    revoke = re.findall(r'hx-post="([^"]+/revoke)"', page)[0]
    await browser.send(revoke, overlap="0")
    assert (await service.get("/api/v1/ai/config", key=found[1])).status_code == 401
    assert "key.revoked" in (await browser.get(f"{root}/audit"))[1]
    for bad in ({"days": "0"}, {"days": "x"}, {"label": "x" * 101}):
        assert (await browser.send(f"{root}/keys", **bad))[0] == 400
    assert (await browser.send("/dashboard/communities/all/keys", role="community"))[0] == 400


async def test_health_shows_each_part_and_each_instance(make_service: MakeService) -> None:
    one, _two = await make_service(), await make_service()
    browser = await admin(one)
    async with asyncio.timeout(20):
        while len(await one.sidecast.instances.alive()) < 2:
            await asyncio.sleep(0.1)
    page = (await browser.get("/dashboard/health"))[1]
    for part in ("postgresql", "valkey", "embedded", "router", "Under way"):
        assert part in page
    assert page.count(socket.gethostname()) >= 2


async def test_communities_are_found_by_the_beginning_of_a_name_or_channel(make_service: MakeService) -> None:
    service = await make_service()
    browser = await admin(service)
    name = f"Zed {time.time_ns()}"
    channel = str(event()["entity_id"])
    status, _ = await browser.send("/dashboard/communities", name=name, entities=channel)
    assert status == 204
    for begins in (name[:8].lower(), channel):
        assert name in (await browser.get(f"/dashboard/communities?begins={begins}"))[1]
    assert name not in (await browser.get("/dashboard/communities?begins=%25"))[1]
    assert (await browser.send("/dashboard/communities", name=" "))[0] == 400


class _Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, " ".join(sorted(name for name, _ in attrs))))
        self.found |= {
            ("!", value or "") for name, value in attrs if name in {"src", "href"} and "script:" in (value or "")
        }


VECTORS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "{{7*7}}{% for x in y %}",
    "javascript:alert(1)",
    "</textarea><iframe src=//evil.example>",
    "<a href=javascript:alert(1)>x</a>",
    "&lt;script&gt;",
    '" autofocus onfocus=alert(1) x="',
    "<!--><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
)


async def test_whatever_is_said_is_shown_as_text(talk: tuple[Service, StubOpenAI]) -> None:
    """In names, messages, prompts, settings and what a model says: no page gets another element or attribute by it."""
    service, stub = talk
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    root, browser = f"/dashboard/communities/{mine}", await admin(service)

    async def look(text: str) -> set[tuple[str, str]]:
        stub.answer = text
        vector = f"{text} {time.time_ns()}"
        await put(
            service,
            community_id=mine,
            store_content=True,
            system_prompt=text,
            persona_name=text[:50],
            custom_triggers=["zz"],
        )
        name = {"user_id": vector[:255], "username": vector[:255], "display_name": vector[:255]}
        await service.answered(entity_id=channel, message_content=f"zz {text}", **name)
        elements = _Elements()
        said = (await browser.send(f"{root}/playground", platform="slack", username=text[:50], message=f"zz {text}"))[1]
        elements.feed(said)
        found = re.search(r'hx-get="([^"]+/playground/[^"]+)"', said)
        assert found
        async with asyncio.timeout(30):
            while "aria-busy" in (shown := (await browser.get(found[1]))[1]):
                await asyncio.sleep(0.02)
        elements.feed(shown)
        elements.feed((await browser.send(f"{root}/playground/try", platform="twitch", message=f"zz {text}"))[1])
        for page in PAGES:
            elements.feed((await browser.get(f"{root}/{page}".rstrip("/")))[1])
        elements.feed((await browser.get("/dashboard/communities?begins=" + "%22%3E%3Cscript%3E"))[1])
        return elements.found

    plain = await look("plain words")
    for vector in VECTORS:
        assert await look(vector) - plain == set(), vector


async def test_no_text_that_was_made_to_mislead_is_more_than_text(talk: tuple[Service, StubOpenAI]) -> None:
    """The sample of such texts, as names, messages and what a model says."""
    path = SHARED_DATA / "injection_sample.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    service, stub = talk
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    root, browser = f"/dashboard/communities/{mine}", await admin(service)
    await put(service, community_id=mine, store_content=True, custom_triggers=["zz"])

    async def look(text: str) -> set[tuple[str, str]]:
        stub.answer, elements = text or "x", _Elements()
        name = re.sub(r"[\0\ud800-\udfff]", "", text)[:200] or "x"
        reply = await service.answered(entity_id=channel, message_content=f"zz {text}"[:10_000], username=name)
        elements.feed((await browser.get(f"{root}/activity/{reply['interaction_id']}"))[1])
        elements.feed(
            (await browser.send(f"{root}/playground/try", platform="twitch", message=f"zz {text}"[:10_000]))[1]
        )
        return elements.found

    allowed = await look("plain words")
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert len(texts) > 100
    for number, text in enumerate(texts):
        assert await look(text) - allowed == set(), number
