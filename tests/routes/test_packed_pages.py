"""Pages as they are sent: compressed where that tells nobody anything, a part of what is long at a time."""

from __future__ import annotations

import gzip
import html
import re
from typing import Any

from routes.dashboard.room import COOKIE, PACKED_BYTES, masked, unmasked
from services.keys import SERVICE
from tests.conftest import KEY, MakeService, Service, event
from tests.routes.test_config import community

PAGE = "/dashboard/communities/all"


async def get(service: Service, path: str = PAGE, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.get(path, headers={"Authorization": f"Bearer {KEY}"} | named)


async def test_a_page_is_compressed_for_whoever_takes_it_so(make_service: MakeService) -> None:
    service = await make_service()
    plain, packed = await get(service), await get(service, accept_encoding="br, gzip")
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) * 3 < int(plain.headers["Content-Length"])
    assert gzip.decompress(await packed.get_data(as_text=False)) == await plain.get_data(as_text=False)
    for answer in (plain, packed):
        assert answer.headers["Vary"] == "Accept-Encoding, Sec-Fetch-Site"


async def test_what_another_site_asks_for_is_not_compressed(make_service: MakeService) -> None:
    """It could put a guess into the address and learn by the size whether the page has it too."""
    service = await make_service()
    for site, compressed in (("cross-site", False), ("same-site", False), ("same-origin", True), ("none", True)):
        answer = await get(service, accept_encoding="gzip", sec_fetch_site=site)
        assert ("Content-Encoding" in answer.headers) is compressed, site


async def test_what_is_short_or_no_page_stays_as_it_is(make_service: MakeService) -> None:
    service = await make_service()
    short = await get(service, f"{PAGE}/live?since=2020", accept_encoding="gzip")
    assert len(await short.get_data(as_text=False)) < PACKED_BYTES
    assert "Content-Encoding" not in short.headers
    found = re.search(r'href="(/dashboard/static/[^"]+css[^"]*)"', await (await get(service)).get_data(as_text=True))
    assert found
    style = await get(service, found[1], accept_encoding="gzip")
    assert gzip.decompress(await style.get_data(as_text=False)).startswith(b"@charset")


async def test_a_token_has_other_signs_on_each_page_and_all_of_them_hold(make_service: MakeService) -> None:
    service = await make_service()
    answer = await service.client.post("/dashboard/sign-in", form={"key": KEY})
    assert COOKIE in answer.headers["Set-Cookie"]
    mine = f"/dashboard/communities/{await community(service, str(event()['entity_id']))}"
    tokens = set()
    for _ in range(3):
        page = await (await service.client.get(PAGE)).get_data(as_text=True)
        found = re.search(r'X-CSRF-Token": "([^"]+)"', html.unescape(page))
        assert found
        tokens.add(found[1])
    assert len(tokens) == 3
    for token, status in [*((token, 200) for token in tokens), ("", 403), ("x", 403), ("é", 403), (page[:58], 403)]:
        form = {"csrf": token, "section": "words"}
        answer = await service.client.post(mine, form=form, headers={"HX-Request": "true"})
        assert answer.status_code == status, token


def test_a_masked_token_is_the_token_again() -> None:
    assert unmasked(masked("token")) == b"token"
    assert masked("token") != masked("token")
    for wrong in ("", "=", "a", "éé", "\ud800"):
        assert unmasked(wrong) != b"token"


async def test_keys_are_shown_a_page_at_a_time(make_service: MakeService) -> None:
    service = await make_service()
    for number in range(60):
        await service.sidecast.keys.issue(SERVICE, None, f"router number {number}.", None, "tests")
    first = await (await get(service, f"{PAGE}/keys")).get_data(as_text=True)
    assert "router number 59." in first
    assert "router number 9." not in first
    found = re.search(r"keys\?before=[0-9a-f-]+", first)
    assert found
    second = await (await get(service, f"{PAGE}/{found[0]}")).get_data(as_text=True)
    assert "router number 9." in second
    assert "router number 59." not in second
    assert f"/revoke?{found[0].partition('?')[2]}" in second
    assert (await get(service, f"{PAGE}/keys?before=x")).status_code == 200
