"""Sessions of the dashboard."""

from __future__ import annotations

from services.keys import COMMUNITY
from tests.conftest import MakeService


async def test_a_communitys_key_begins_a_session(make_service: MakeService) -> None:
    """Its community's id comes from the database, as a UUID of a class of the driver's own."""
    service = await make_service()
    made = await service.sidecast.communities.make("Mine", [], "tests")
    _, text = await service.sidecast.keys.issue(COMMUNITY, made.community_id, "", None, "tests")
    answer = await service.client.post("/dashboard/sign-in", form={"key": text})
    assert answer.status_code == 303
    assert (await service.client.get(f"/dashboard/communities/{made.community_id}")).status_code == 200
