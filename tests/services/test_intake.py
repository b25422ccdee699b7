"""Repeats are recognised as long as they must be, by all instances; many events share a commit."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from services.database import DatabaseUnavailable
from services.group_commit import GroupCommit
from services.tasks import Tasks
from tests.conftest import MakeService, event


async def age(database: asyncpg.Connection[asyncpg.Record], interaction_id: str, seconds: float) -> None:
    """Let a row be older."""
    sql = "update interactions set received_at = received_at - make_interval(secs => $2) where interaction_id = $1"
    await database.execute(sql, interaction_id, seconds)


async def test_an_identical_event_without_an_id_is_a_repeat_for_10_s(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    one, two = await make_service(), await make_service()
    posted = event()
    first = await one.accept(**posted)
    repeat = await two.accept(**posted)
    assert (repeat["interaction_id"], repeat["duplicate"]) == (first["interaction_id"], True)
    other = await one.accept(**posted | {"metadata": {"n": 1}})
    assert other["duplicate"] is False
    await age(database, first["interaction_id"], 9)
    assert (await one.accept(**posted))["duplicate"] is True
    await age(database, first["interaction_id"], 2)
    again = await one.accept(**posted)
    assert again["duplicate"] is False
    assert again["interaction_id"] != first["interaction_id"]


async def test_an_id_is_recognised_for_24_hours_also_by_another_instance(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    posted = event(event_id="day-1")
    first = await (await make_service()).accept(**posted)
    later = await make_service()
    await later.ended(first["interaction_id"])
    await age(database, first["interaction_id"], 24 * 3600 - 60)
    assert (await later.accept(**posted))["duplicate"] is True
    await age(database, first["interaction_id"], 120)
    assert (await later.accept(**posted))["duplicate"] is False


async def test_a_storm_of_repeats_over_two_instances_is_answered_once(make_service: MakeService) -> None:
    services = [await make_service(), await make_service()]
    for posted in (event(event_id="storm"), event()):
        answers = await asyncio.gather(*(services[n % 2].post(**posted) for n in range(200)))
        acks = [(await answer.get_json())["data"] for answer in answers]
        assert len({ack["interaction_id"] for ack in acks}) == 1
        assert [ack["duplicate"] for ack in acks].count(False) == 1
        await services[0].ended(acks[0]["interaction_id"])
    assert sum(len(service.messages) for service in services) == 2


async def test_events_that_come_together_share_a_commit(
    make_service: MakeService, database: asyncpg.Connection[asyncpg.Record]
) -> None:
    service = await make_service(log_level="ERROR")
    posted = [event() for _ in range(100)]
    await asyncio.gather(*(service.post(**body) for body in posted))
    entities = [body["entity_id"] for body in posted]
    commits = await database.fetchval(
        "select count(distinct received_at) from interactions where entity_id = any($1)", entities
    )
    assert commits < 50


async def test_a_caller_that_goes_away_undoes_nothing(make_service: MakeService) -> None:
    """The row that was committed is answered, though nobody waited for the ACK."""
    service = await make_service()
    posted = event(event_id="gone")
    request = asyncio.create_task(service.post(**posted))
    await asyncio.sleep(0.001)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    ack = await service.accept(**posted)
    assert (await service.ended(ack["interaction_id"]))["state"] == "delivered"
    assert len(service.messages) == 1


async def test_what_a_commit_raises_reaches_every_caller_and_the_next_one_works(make_service: MakeService) -> None:
    failing = True

    async def commit(rows: list[int]) -> list[int]:
        await asyncio.sleep(0.01)
        if failing:
            raise DatabaseUnavailable
        return [row * 2 for row in rows]

    service = await make_service()
    group = GroupCommit(commit, Tasks(service.sidecast.log), patience=0)
    results = await asyncio.gather(*(group.submit([n]) for n in range(5)), return_exceptions=True)
    assert all(isinstance(result, DatabaseUnavailable) for result in results)
    failing = False
    assert await asyncio.gather(*(group.submit([n, n + 1]) for n in range(3))) == [[0, 2], [2, 4], [4, 6]]
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(group.submit([9]), 0.001)
    assert await group.submit([5]) == [10]


async def test_rows_that_are_not_urgent_go_with_those_that_are(make_service: MakeService) -> None:
    commits: list[list[int]] = []

    async def commit(rows: list[int]) -> list[int]:
        commits.append(rows)
        return rows

    group = GroupCommit(commit, Tasks((await make_service()).sidecast.log), patience=60)
    assert await group.submit([1], urgent=False) == [1], "the first has nothing to wait for"
    waiting = asyncio.create_task(group.submit([2], urgent=False))
    await asyncio.sleep(0.05)
    assert commits == [[1]]
    assert await group.submit([3]) == [3]
    assert await waiting == [2]
    assert commits == [[1], [2, 3]]
