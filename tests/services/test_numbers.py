"""Numbers by the hour, and by the day for a span that is long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

from services.numbers import DAY, HOUR, total
from services.settings import DEFAULTS
from tests.conftest import MakeService

if TYPE_CHECKING:
    from services.database import Connection as Database


async def test_days_tell_what_their_hours_tell(make_service: MakeService, database: Database) -> None:
    numbers = (await make_service()).sidecast.numbers
    mine = uuid4()
    for state, seconds in (("delivered", 0.5), ("delivered", 2.0), ("suppressed", 0.0)):
        for _ in range(3):
            numbers.note_end(mine, "greeting", state, seconds)
        await numbers.flush()
    since = time.time() - 2 * DAY
    by_hour, by_day = total(await numbers.since(mine, since, HOUR)), total(await numbers.since(mine, since, DAY))
    assert by_hour == by_day
    assert by_hour.percentile(0.5) == by_day.percentile(0.5) is not None
    assert by_day.replies == {("greeting", "delivered"): 6, ("greeting", "suppressed"): 3}
    assert len(await numbers.since(mine, since, DAY)) in {2, 3}
    assert total(await numbers.since(DEFAULTS, since, DAY)).replies[("greeting", "delivered")] >= 6


async def test_what_is_old_goes_from_both(make_service: MakeService, database: Database) -> None:
    numbers = (await make_service()).sidecast.numbers
    mine = uuid4()
    numbers.note_end(mine, "greeting", "delivered", 1.0)
    await numbers.flush()
    await database.execute("update numbers set hour = hour - interval '9 days' where community_id = $1", mine)
    await database.execute("update numbers_by_day set day = day - interval '9 days' where community_id = $1", mine)
    assert await numbers.trim(8, 1_000) == 1
    for table in ("numbers", "numbers_by_day"):
        assert await database.fetchval(f"select count(*) from {table} where community_id = $1", mine) == 0
