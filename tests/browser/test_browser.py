"""The dashboard in a real browser: each page, by mouse, by keyboard, on a phone; nothing leaves the machine.

With SCREENSHOTS set to a folder, a picture of each page goes there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.conftest import KEY, MakeService, Service, event
from tests.routes.test_config import community, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
FOLDER = os.environ.get("SCREENSHOTS", "")
# Nothing of its own that goes to other hosts.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
PAGES = ("playground", "activity", "numbers", "", "versions", "keys", "audit")
ADMINS = ("/dashboard/health", "/dashboard/communities", "/dashboard/communities/all")
PHONE = {"width": 360, "height": 740}
SECONDS = 60_000
FOCUS = """(() => {
    const at = document.activeElement, style = getComputedStyle(at);
    return {name: at.name || "", text: (at.innerText || "").trim(), outline: style.outlineStyle + style.boxShadow};
})()"""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (Debian: apt install chromium)")


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        expect.set_options(timeout=SECONDS)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@asynccontextmanager
async def visiting(chromium: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """A page of a browser that knows nobody; fails where something went wrong in it, or went elsewhere."""
    context: BrowserContext = await chromium.new_context(base_url=url, **options)
    context.set_default_timeout(SECONDS)
    page = await context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url))
    try:
        yield page
    finally:
        await context.close()
    assert wrong == []


@pytest.fixture
async def site(make_service: MakeService) -> AsyncIterator[tuple[Service, StubOpenAI, str]]:
    """A service whose model answers at once, and its address."""
    stub = StubOpenAI("Welcome, glad you are here!")
    async with running(stub.app) as model:
        service = await make_service(
            ai_provider="openai", ai_model="m", openai_base_url=f"{model}/v1", openai_api_key="k"
        )
        async with running(service.app) as url:
            yield service, stub, url


async def sign_in(page: Page, key: str = KEY) -> None:
    await page.goto("/dashboard/sign-in")
    await page.get_by_label("Key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/playground")


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_role("button", name="Say it").click()


async def picture(page: Page, name: str) -> None:
    if FOLDER:
        await page.screenshot(path=Path(FOLDER) / f"{name}.png", full_page=name not in {"settings", "all"})


@pytest.mark.timeout(400)
async def test_from_the_first_start_to_the_first_reply(chromium: Browser, make_service: MakeService) -> None:
    """The link that is printed, the playground, a real model's reply."""
    service = await make_service()
    token = await service.sidecast.sessions.link(KEY)
    async with running(service.app) as url, visiting(chromium, url) as page:
        await page.goto(f"/dashboard/enter/{token}")
        await page.wait_for_url("**/playground")
        await say(page, "Hello there!")
        reply = page.locator(".reply[data-state=delivered] > p .text")
        await expect(reply).not_to_be_empty(timeout=5 * SECONDS)  # on a machine that may be busy
        await page.get_by_text("Why, and how").first.click()
        await expect(page.get_by_text("embedded, SmolLM2").first).to_be_visible()
        await expect(page.get_by_label("Message", exact=True)).to_have_value("")


async def test_a_persona_is_changed_and_the_next_reply_uses_it(
    chromium: Browser, site: tuple[Service, StubOpenAI, str]
) -> None:
    service, stub, url = site
    mine = await community(service, str(event()["entity_id"]))
    async with visiting(chromium, url) as page:
        await sign_in(page)
        await page.goto(f"/dashboard/communities/{mine}")
        await page.get_by_label("Persona name").fill("Captain Otto")
        await page.get_by_role("button", name="Save “Who it is”").click()
        await expect(page.get_by_text("Live on")).to_be_visible()
        await page.get_by_role("link", name="Playground").click()
        await say(page, "Hello there!")
        await expect(page.locator(".reply[data-state=delivered]")).to_have_count(1)
        assert "Captain Otto" in str(stub.requests[-1]["messages"])
        # And back again.
        await page.get_by_role("link", name="Versions").click()
        await page.get_by_role("button", name="Everything as for all").click()
        await expect(page.get_by_text("They are at version 2")).to_be_visible()
        await page.get_by_role("link", name="Settings", exact=True).click()
        await expect(page.get_by_label("Persona name")).to_have_value("")


async def test_a_bad_value_is_told_beside_its_field(chromium: Browser, site: tuple[Service, StubOpenAI, str]) -> None:
    _, _, url = site
    async with visiting(chromium, url) as page:
        await sign_in(page)
        await page.get_by_role("link", name="Settings", exact=True).click()
        await page.get_by_label("Custom patterns").fill("(?=x)")
        await page.get_by_label("Timezone").fill("Mars/Olympus")
        await page.keyboard.press("Tab")
        await expect(page.locator("#problem-custom_patterns")).to_contain_text("RE2 does not take this pattern")
        await expect(page.locator("#problem-timezone")).to_contain_text("no time zone")
        await page.get_by_label("Timezone").fill("Europe/Berlin")
        await expect(page.locator("#problem-timezone")).to_be_empty()


async def test_a_session_that_was_revoked_leads_to_the_sign_in(
    chromium: Browser, site: tuple[Service, StubOpenAI, str]
) -> None:
    service, _, url = site
    mine = await community(service, str(event()["entity_id"]))
    told = (await (await service.post("/keys", role=f"community:{mine}")).get_json())["data"]
    async with visiting(chromium, url) as page:
        await sign_in(page, told["key"])
        assert mine in page.url
        await service.client.delete(f"/api/v1/ai/keys/{told['key_id']}", headers={"Authorization": f"Bearer {KEY}"})
        await page.get_by_role("link", name="Numbers").click()
        await page.wait_for_url("**/sign-in?*")


async def test_a_community_sees_no_other(chromium: Browser, site: tuple[Service, StubOpenAI, str]) -> None:
    service, _, url = site
    mine, theirs = [await community(service, str(event()["entity_id"])) for _ in range(2)]
    key = (await (await service.post("/keys", role=f"community:{mine}")).get_json())["data"]["key"]
    context = await chromium.new_context(base_url=url)
    page = await context.new_page()
    await sign_in(page, key)
    answer = await page.goto(f"/dashboard/communities/{theirs}")
    assert answer is not None
    assert answer.status == 404
    await expect(page.get_by_role("heading")).to_have_text("There is nothing here")
    await page.get_by_role("link", name="To the dashboard").click()
    await page.wait_for_url(f"**/{mine}/playground")
    await context.close()


async def test_everything_can_be_done_with_the_keyboard(
    chromium: Browser, site: tuple[Service, StubOpenAI, str]
) -> None:
    _, _, url = site

    async def tab_to(page: Page, reached: Callable[[dict[str, str]], bool]) -> None:
        for _ in range(120):
            at = await page.evaluate(FOCUS)
            if reached(at):
                assert at["outline"] != "nonenone", "where one is must be seen"
                return
            await page.keyboard.press("Tab")
        raise AssertionError("cannot be reached")

    async with visiting(chromium, url) as page:
        await page.goto("/dashboard/sign-in")
        await tab_to(page, lambda at: at["name"] == "key")
        await page.keyboard.type(KEY)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/playground")
        await page.reload()
        await tab_to(page, lambda at: at["name"] == "message")
        await page.keyboard.type("Hello there!")
        await page.keyboard.press("Enter")
        await expect(page.locator(".reply[data-state=delivered]")).to_have_count(1)
        await page.reload()
        await tab_to(page, lambda at: at["text"] == "Settings")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Settings", exact=True)).to_be_visible()
        await tab_to(page, lambda at: at["name"] == "persona_name")
        await page.keyboard.type("Otto")
        await tab_to(page, lambda at: at["text"].startswith("Save"))
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Saved as version")).to_be_visible()
        await page.keyboard.press("Home")


async def filled(service: Service, page: Page) -> str:
    """Where the pages of a community are that has something on each."""
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    await put(service, community_id=mine, persona_name="Otto", store_content=True)
    await put(service, community_id=mine, budget_tokens=100_000)
    for number in range(3):
        await service.answered(entity_id=channel, user_id=f"user-{number}", message_content="Hello there!")
    root = f"/dashboard/communities/{mine}"
    await page.goto(f"{root}/playground")
    await say(page, "how do I join the tournament?")
    await expect(page.locator(".reply[data-state=delivered]")).to_have_count(1)
    await page.get_by_text("Why, and how").first.click()
    return root


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_shuts_anyone_out(chromium: Browser, site: tuple[Service, StubOpenAI, str], scheme: Any) -> None:
    """By axe-core's rules: names, roles, contrast."""
    service, _, url = site
    async with visiting(chromium, url, color_scheme=scheme) as page:
        await page.goto("/dashboard/sign-in")
        await _check(page, "sign-in")
        await sign_in(page)
        root = await filled(service, page)
        await _check(page, "playground")
        await picture(page, f"playground{'-dark' if scheme == 'dark' else ''}")
        for path in (*(f"{root}/{name}".rstrip("/") for name in PAGES[1:]), *ADMINS):
            await page.goto(path)
            await page.wait_for_timeout(300)
            await _check(page, path)
            if scheme == "light":
                await picture(page, path.removeprefix(root).strip("/").rpartition("/")[2] or "settings")
        await page.goto(f"{root}/activity")
        await page.locator("tbody a").first.click()
        await _check(page, "interaction")
        if scheme == "light":
            await picture(page, "interaction")


async def _check(page: Page, where: str) -> None:
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run().then((found) => found.violations)")
    serious = [
        (each["id"], [node["target"] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]
    assert serious == [], where


async def test_pages_fit_a_phone(chromium: Browser, site: tuple[Service, StubOpenAI, str]) -> None:
    service, _, url = site
    async with visiting(chromium, url, viewport=PHONE) as page:
        await sign_in(page)
        root = await filled(service, page)
        await picture(page, "phone")
        for path in (*(f"{root}/{name}".rstrip("/") for name in PAGES), *ADMINS):
            await page.goto(path)
            wide = await page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
            assert wide <= 0, path


async def test_activity_follows_what_happens(chromium: Browser, site: tuple[Service, StubOpenAI, str]) -> None:
    service, _, url = site
    channel = str(event()["entity_id"])
    mine = await community(service, channel)
    async with visiting(chromium, url) as page:
        await sign_in(page)
        await page.goto(f"/dashboard/communities/{mine}/activity")
        await expect(page.get_by_text("Nothing yet")).to_be_visible()
        await service.answered(entity_id=channel, user_id="ann", message_content="Hello there!")
        await expect(page.locator("tbody").get_by_text("ann")).to_be_visible()
        await page.get_by_label("Trigger").select_option("question")
        await expect(page.get_by_text("Nothing yet")).to_be_visible()
