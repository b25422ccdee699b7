"""What was said and became of it: written with the reply, told in pages, carried as JSON, gone in time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import API, KEY, MakeService, Service, event
from tests.routes.test_command_line import CommandLine
from tests.routes.test_config import community, put

if TYPE_CHECKING:
    from services.database import Connection as Database


@pytest.fixture
def sidecast(parts: dict[str, str], tmp_path: Path) -> CommandLine:
    return CommandLine(parts, tmp_path)


async def history(service: Service, community_id: str, status: int = 200, **query: Any) -> dict[str, Any]:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await service.get(f"{API}/history?community_id={community_id}&{text}")
    told: dict[str, Any] = await answer.get_json()
    assert answer.status_code == status, told
    return told["data"] if status == 200 else told["error"]  # type: ignore[no-any-return]


async def talked(service: Service, users: int = 3) -> str:
    """A community where each of some users was greeted, and asked something."""
    channel = event()["entity_id"]
    for number in range(users):
        for text in ("hello", "what is my rank?"):
            who = {"user_id": f"u{number}", "username": f"u{number}"}
            ack = await service.accept(**event(entity_id=channel, message_content=text, **who))
            await service.ended(ack["interaction_id"])
    return await community(service, channel)


async def aged(database: Database, days: int = 30) -> None:
    await database.execute(
        "update interactions set ended_at = ended_at - $1 * interval '1 day' where ended_at is not null", days
    )
    await database.execute("update messages set at = at - $1 * interval '1 day'", days)


async def test_each_reply_has_its_rows_in_the_transaction_of_the_reply(
    make_service: MakeService, database: Database
) -> None:
    service = await make_service()
    mine = await talked(service)
    replies = await database.fetch("select interaction_id from interactions where community_id = $1::uuid", mine)
    rows = await database.fetch(
        """
        select m.interaction_id, m.role, m.xmin::text = i.xmin::text as same, m.provider, m.trigger_type, c.user_id
        from messages m
        join conversations c using (conversation_id)
        join interactions i using (interaction_id)
        where m.community_id = $1::uuid order by m.at
        """,
        mine,
    )
    assert len(rows) == 2 * len(replies) == 12
    assert [row["role"] for row in rows[:2]] == ["user", "assistant"]
    assert {row["user_id"] for row in rows} == {"u0", "u1", "u2"}
    assert {row["provider"] for row in rows} == {"embedded"}
    counts = await database.fetch("select messages, last_at > started_at as went_on from conversations "
                                  "where community_id = $1::uuid", mine)  # fmt: skip
    assert [(row["messages"], row["went_on"]) for row in counts] == [(4, True)] * 3


async def test_a_reply_that_is_not_committed_has_no_rows(make_service: MakeService, database: Database) -> None:
    service = await make_service()
    await database.execute("alter table messages add constraint never check (false) not valid")
    try:
        ack = await service.accept()
        await asyncio.sleep(1)
        assert (await service.outcome(ack["interaction_id"]))["state"] == "answering"
    finally:
        await database.execute("alter table messages drop constraint never")


async def test_pages_follow_each_other_and_can_be_filtered(make_service: MakeService, database: Database) -> None:
    service = await make_service()
    mine = await talked(service)
    whole = (await history(service, mine))["interactions"]
    assert len(whole) == 6
    for moment in ("now() - interval '1 hour'", "now()"):  # and where all ended at once
        await database.execute(f"update interactions set ended_at = {moment} where community_id = $1::uuid", mine)
    found: list[str] = []
    cursor = None
    while True:
        page = await history(service, mine, limit=2, **({"cursor": cursor} if cursor else {}))
        found += [row["interaction_id"] for row in page["interactions"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(found) == sorted(row["interaction_id"] for row in whole)
    cases: list[tuple[dict[str, Any], int]] = [
        ({"user_id": "u1"}, 2),
        ({"platform": "twitch"}, 6),
        ({"platform": "kick"}, 0),
        ({"trigger": "greeting"}, 3),
        ({"trigger": "greeting", "user_id": "u2"}, 1),
        ({"state": "delivered"}, 6),
        ({"state": "expired"}, 0),
        ({"entity_id": whole[0]["entity_id"]}, 6),
        ({"since": "2020-01-01T00:00:00Z"}, 6),
        ({"before": "2020-01-01T00:00:00Z"}, 0),
    ]
    for query, count in cases:
        assert len((await history(service, mine, **query))["interactions"]) == count, query
    for query in ({"cursor": "x"}, {"cursor": "eA"}, {"state": "gone"}, {"since": "yesterday"}, {"limit": 0}):
        await history(service, mine, 400, **query)


async def test_it_outlives_the_journal_and_ends_in_its_own_time(make_service: MakeService, database: Database) -> None:
    service = await make_service(journal_retention=7, history_retention=60)
    mine = await talked(service)
    before = (await history(service, mine))["interactions"]
    await aged(database)
    await service.sidecast._retention.trim()
    assert await database.fetchval("select count(*) from interactions where community_id = $1::uuid", mine) == 0
    after = (await history(service, mine))["interactions"]
    same = (
        "interaction_id",
        "state",
        "trigger",
        "provider",
        "model",
        "user_id",
        "prompt_tokens",
        "attempts",
        "timings",
    )
    assert [{name: row[name] for name in same} for row in after] == [
        {name: row[name] for name in same} for row in before
    ]
    pages = [(await history(service, mine, limit=4)), (await history(service, mine, user_id="u1", trigger="greeting"))]
    assert [len(page["interactions"]) for page in pages] == [4, 1]
    narrowed: list[tuple[dict[str, Any], int]] = [
        ({"platform": "twitch"}, 6),
        ({"platform": "kick"}, 0),
        ({"trigger": "greeting"}, 3),
        ({"state": "delivered"}, 6),
        ({"state": "expired"}, 0),
        ({"user_id": "u2"}, 2),
        ({"user_id": "u2", "platform": "kick"}, 0),
    ]
    for query, count in narrowed:
        assert len((await history(service, mine, **query))["interactions"]) == count, query
    again = await history(service, mine, cursor=pages[0]["next"])
    assert [row["interaction_id"] for row in pages[0]["interactions"] + again["interactions"]] == [
        row["interaction_id"] for row in before
    ]
    await aged(database, 40)
    await service.sidecast._retention.trim()
    assert (await history(service, mine))["interactions"] == []
    for table in ("messages", "conversations"):
        assert await database.fetchval(f"select count(*) from {table} where community_id = $1::uuid", mine) == 0


@pytest.mark.parametrize("kept", [True, False])
async def test_it_is_carried_as_lines_of_json(
    make_service: MakeService, database: Database, sidecast: CommandLine, tmp_path: Path, kept: bool
) -> None:
    """To another community, which keeps the texts or does not; twice is once."""
    service = await make_service()
    mine = await talked(service, 1)
    await put(service, community_id=mine, store_content=True)
    channel = (await history(service, mine))["interactions"][0]["entity_id"]
    who = {"user_id": "u9", "username": "u9"}
    ack = await service.accept(**event(entity_id=channel, message_content="hello, my secret", **who))
    await service.ended(ack["interaction_id"])
    file = tmp_path / "history.jsonl"
    await sidecast("history", "export", mine, "--file", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["message"] for line in lines] == ["hello, my secret", None, None]
    assert lines[0]["reply"]
    for line in lines:  # as though it came from another service
        line["interaction_id"] = line["interaction_id"][:-4] + "abcd"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    other = await community(service, event()["entity_id"])
    await put(service, community_id=other, store_content=kept)
    told = await sidecast("history", "import", other, str(file))
    assert told.startswith("3 new interactions")
    assert ("left out" in told) is not kept
    assert (await sidecast("history", "import", other, str(file))).startswith("0 new")
    taken = (await history(service, other))["interactions"]
    same = ("interaction_id", "state", "trigger", "provider", "user_id", "entity_id", "received_at", "ended_at")
    assert [{name: row[name] for name in same} for row in taken] == [
        {name: line[name] for name in same} for line in lines
    ]
    assert taken[0]["message"] == ("hello, my secret" if kept else None)
    sealed = await database.fetch("select sealed from messages where community_id = $1::uuid", other)
    assert "secret" not in str(sealed)
    if kept:
        await put(service, community_id=other, retention_days=1)
        await aged(database, 2)
        await service.sidecast._retention.trim()
        assert {row["sealed"] for row in await database.fetch("select sealed from messages")} == {None}


async def test_lines_that_cannot_be_taken_are_told_and_change_nothing(
    make_service: MakeService, sidecast: CommandLine, tmp_path: Path
) -> None:
    service = await make_service()
    mine = await community(service, event()["entity_id"])
    good = {"entity_id": "e", "platform": "twitch", "user_id": "u", "received_at": "2026-01-01T00:00:00Z"}
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(good) + "\n\n" + json.dumps(good | {"platform": "Twitch!"}) + "\n")
    assert "line 3: platform: " in await sidecast("history", "import", mine, str(file), code=1)
    assert (await history(service, mine))["interactions"] == []
    file.write_text(json.dumps(good | {"message": "nul \0 here", "reply": "x" * 10}) + "\n")
    assert (await sidecast("history", "import", mine, str(file))).startswith("1 new")
    [line] = (await history(service, mine))["interactions"]
    assert (line["user_id"], line["state"], line["message"]) == ("u", "delivered", None)


async def test_the_history_is_trimmed_to_its_end(make_service: MakeService, database: Database) -> None:
    """In as many batches as it takes; and a conversation that goes on stays."""
    service = await make_service(history_retention=60)
    mine = await talked(service, 1)
    channel = (await history(service, mine))["interactions"][0]["entity_id"]
    await database.execute("delete from messages where community_id <> $1::uuid", mine)
    archive = """
        update messages set archived = true, at = at - interval '90 days',
            state = case role when 'assistant' then 'delivered' end
    """
    await database.execute(archive)
    copies = """
        insert into messages (interaction_id, role, conversation_id, community_id, at, archived, state)
        select i.id, r.role, m.conversation_id, m.community_id, m.at, true,
            case r.role when 'assistant' then 'delivered' end
        from (select * from messages limit 1) m,
            (select gen_random_uuid() as id from generate_series(1, 2500)) i,
            (values ('user'), ('assistant')) as r (role)
    """
    await database.execute(copies)
    await service.answered(user_id="u0", username="u0", entity_id=channel, message_content="hello")
    await service.sidecast._retention.trim()
    left = await database.fetch("select c.user_id, m.role from messages m join conversations c using (conversation_id)")
    assert sorted((row["user_id"], row["role"]) for row in left) == [("u0", "assistant"), ("u0", "user")]


async def test_what_was_never_answered_is_in_the_history_too(make_service: MakeService, database: Database) -> None:
    service = await make_service(journal_retention=7, history_retention=60)
    channel = event()["entity_id"]
    mine = await community(service, channel)
    await put(service, community_id=mine, channel_replies=1, channel_seconds=60)
    ends = []
    for number in range(3):
        who = {"user_id": f"u{number}", "username": f"u{number}"}
        ack = await service.accept(**event(entity_id=channel, message_content="hello", **who))
        ends.append((await service.ended(ack["interaction_id"]))["state"])
    assert ends == ["delivered", "suppressed", "suppressed"]
    before = (await history(service, mine))["interactions"]
    await aged(database)
    await service.sidecast._retention.trim()
    after = (await history(service, mine))["interactions"]
    same = ("interaction_id", "state", "reason", "user_id", "trigger", "reply")
    assert [{name: row[name] for name in same} for row in after] == [
        {name: row[name] for name in same} for row in before
    ]
    assert len((await history(service, mine, state="suppressed"))["interactions"]) == 2
    await aged(database, 40)
    await service.sidecast._retention.trim()
    for table in ("messages", "conversations"):
        assert await database.fetchval(f"select count(*) from {table} where community_id = $1::uuid", mine) == 0


async def test_what_the_journal_has_no_longer_is_told_of_a_person_too(
    make_service: MakeService, database: Database
) -> None:
    service = await make_service(journal_retention=7)
    mine = await talked(service, 1)
    await aged(database, 10)
    await service.sidecast._retention.trim()
    told = await (await service.get(f"{API}/users/twitch/u0?community_id={mine}")).get_json()
    assert [row["community_id"] for row in told["data"]["interactions"]] == [mine, mine]


async def test_who_was_forgotten_is_forgotten_again_though_only_the_history_knows_them(
    make_service: MakeService, database: Database
) -> None:
    """As after a restore."""
    service = await make_service(journal_retention=7)
    mine = await talked(service, 1)
    await aged(database, 10)
    await service.sidecast._retention.trim()
    hashed = service.sidecast._hashing.user("twitch", "u0")
    insert = "insert into forgotten (number, hash, community_id, user_hash) values (-1, '', $1::uuid, $2)"
    await database.execute(insert, mine, hashed)
    assert await service.sidecast.privacy.forget_again("restore") == 1
    assert (await history(service, mine))["interactions"] == []


async def test_who_is_forgotten_is_not_in_the_history(make_service: MakeService, database: Database) -> None:
    service = await make_service(journal_retention=7)
    mine = await talked(service, 2)
    await aged(database, 10)
    await service.sidecast._retention.trim()
    path = f"{API}/users/twitch/u0?community_id={mine}"
    assert (await service.client.delete(path, headers={"Authorization": f"Bearer {KEY}"})).status_code == 200
    assert {row["user_id"] for row in (await history(service, mine))["interactions"]} == {"u1"}
    for table in ("conversations", "interactions"):
        select = f"select count(*) from {table} where community_id = $1::uuid and user_id = 'u0'"
        assert await database.fetchval(select, mine) == 0
    assert await database.fetchval("select count(*) from messages where community_id = $1::uuid", mine) == 4
