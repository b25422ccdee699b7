"""A past, made up: what a service of many communities would have in PostgreSQL after a week, and a month of numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import orjson
from tqdm import tqdm

from config import Settings
from services.contents import Contents
from services.logs import open_log
from services.settings import DEFAULTS, CommunitySettings, of_environment, resolve
from services.triggers import Trigger
from services.vault import Vault

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Row = tuple[Any, ...]

DAYS = 7
BATCH = 20_000
BIG_SHARE = 0.2
BIG_USERS, USERS = 20_000, 300
# Of each: the value, and how often it is.
TRIGGERS = {"question": 400, "greeting": 250, "mention": 230, "farewell": 60, "event": 40, "custom": 15, "command": 5}
STATES = {"delivered": 600, "suppressed": 350, "expired": 40, "failed": 9, "undeliverable": 1}
PLATFORMS = {"twitch": 800, "youtube": 150, "discord": 49, "kick": 1}
REASONS = {"suppressed": "channel_limit", "expired": "reply_ttl", "failed": "attempts_exhausted"}
OWN = {"store_content": True, "persona_name": "Ada", "system_prompt": "You are Ada, who likes trains. " * 20}
NUMBERS_HOURS = 30 * 24

INTERACTIONS = (
    *("interaction_id", "community_id", "entity_id", "platform", "session_id", "user_id", "message_type"),
    *("trigger_type", "trigger_match", "dedupe_key", "event_hash", "state", "reason", "provider", "model"),
    *("prompt_tokens", "completion_tokens", "timings", "attempts", "deliveries", "received_at", "answered_at"),
    *("ended_at", "request_id", "sealed"),
)
CONVERSATIONS = (
    *("community_id", "user_id", "platform", "entity_id", "conversation_id", "started_at", "last_at", "messages"),
)
MESSAGES = (
    *("interaction_id", "role", "conversation_id", "community_id", "at", "message_type", "trigger_type"),
    *("trigger_match", "state", "fallback", "provider", "model", "prompt_tokens", "completion_tokens", "attempts"),
    *("timings", "archived", "platform"),
)
LEDGER = (
    *("call_id", "called_at", "community_id", "interaction_id", "kind", "provider", "model", "result"),
    *("prompt_tokens", "completion_tokens", "estimated", "latency_ms", "first_token_ms", "cost"),
)
NUMBERS = """
insert into numbers (community_id, hour, what, name, bucket, count, prompt_tokens, completion_tokens, cost)
select c, date_trunc('hour', now()) - make_interval(hours => h), what, name, bucket, 1 + h % 9, tokens, tokens / 9,
    tokens / 1e6
from unnest($1::uuid[]) as c, generate_series(0, $2::int - 1) as h,
    (
        select 'replies', trigger || ' ' || state, 0
        from unnest(array['question', 'greeting', 'mention', 'event']) as trigger,
            unnest(array['delivered', 'suppressed', 'expired']) as state
        union all
        select 'calls', 'waddleai/model ' || result, 900 from unnest(array['ok', 'timeout']) as result
    ) as n (what, name, tokens),
    generate_series(20, 19 + $3::int) as bucket
where $3 > 1 or name in ('question delivered', 'greeting suppressed', 'waddleai/model ok')
"""
NUMBERS_BY_DAY = """
insert into numbers_by_day
select community_id, date_trunc('day', hour, 'UTC'), what, name, bucket, sum(count), sum(prompt_tokens),
    sum(completion_tokens), sum(cost)
from numbers
group by 1, 2, 3, 4, 5
"""


@dataclass(frozen=True)
class Channel:
    """Where someone says something: of which community, and where."""

    community_id: UUID
    entity_id: str
    platform: str


@dataclass
class Past:
    """What was made up: the big community is the first. `count` interactions of a week, and some that are older."""

    count: int
    communities: list[UUID]
    settings: Settings
    chance: random.Random
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    talks: dict[Channel, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def big(self) -> UUID:
        return self.communities[0]

    def new_id(self, moment: datetime) -> UUID:
        """A UUID version 7 of a moment, as the service makes them."""
        milliseconds = int(moment.timestamp() * 1000)
        value = milliseconds << 80 | self.chance.getrandbits(80)
        return UUID(int=value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62)

    def channel(self, community_id: UUID) -> Channel:
        platform = self.one_of(PLATFORMS)
        return Channel(community_id, f"{platform}:channel:{community_id.hex[:12]}", platform)

    def one_of(self, shares: dict[str, int]) -> str:
        return self.chance.choices(list(shares), list(shares.values()))[0]

    def user(self, community_id: UUID) -> str:
        """Some come far more often than others."""
        users = BIG_USERS if community_id == self.big else USERS
        return f"user-{community_id.hex[:6]}-{int(users * self.chance.random() ** 2)}"


def make_past(count: int, communities: int, settings: Settings) -> Past:
    chance = random.Random(1)
    return Past(count, [UUID(int=chance.getrandbits(128), version=4) for _ in range(communities)], settings, chance)


async def fill(url: str, past: Past) -> None:
    """Write it down, on a database that has its tables."""
    connection = await asyncpg.connect(url)
    # What refers to a row is made before it, and all of it fits.
    await connection.execute("set session_replication_role = replica; set synchronous_commit = off")
    await _fill_communities(connection, past)
    for_calls = _Writing(connection, past)
    await for_calls.journal()
    await for_calls.archive()
    await for_calls.conversations()
    await _fill_settings(connection, past)
    await _fill_numbers(connection, past)
    await connection.execute("vacuum analyze", timeout=600)
    await connection.close()


async def _fill_communities(connection: Connection, past: Past) -> None:
    named = [(each, f"Community {number}") for number, each in enumerate(past.communities)]
    await connection.copy_records_to_table("communities", records=named, columns=["community_id", "name"])
    channels = [
        (f"{platform}:channel:{each.hex[:12]}", each, platform) for each in past.communities for platform in PLATFORMS
    ]
    columns = ["entity_id", "community_id", "platform"]
    await connection.copy_records_to_table("entities", records=channels, columns=columns)


class _Writing:
    """The journal, the archive, the conversations and the ledger, in the order of time."""

    def __init__(self, connection: Connection, past: Past) -> None:
        self._connection = connection
        self._past = past
        self._contents = Contents(Vault(past.settings), open_log(past.settings))
        values = resolve(of_environment(past.settings), OWN)
        self._keeping = CommunitySettings.model_validate(values)

    async def journal(self) -> None:
        past = self._past
        begin, step = past.now - timedelta(days=DAYS), timedelta(days=DAYS) / past.count
        with tqdm(total=past.count, desc="interactions") as bar:
            for first in range(0, past.count, BATCH):
                numbers = range(first, min(first + BATCH, past.count))
                rows = [self._interaction(begin + step * number) for number in numbers]
                await self._copy("interactions", INTERACTIONS, rows)
                said = [row for row in map(_by_name, rows) if row["answered_at"]]
                await self._copy("messages", MESSAGES, [line for row in said for line in self._said(row)])
                await self._copy("ledger", LEDGER, [self._call(row) for row in said])
                bar.update(len(rows))

    async def archive(self) -> None:
        """As many older ones of the big community as it has in the journal, a week at a time before."""
        past = self._past
        count = int(past.count * BIG_SHARE)
        begin, step = past.now - timedelta(days=DAYS * 2), timedelta(days=DAYS) / count
        with tqdm(total=count, desc="older ones") as bar:
            for first in range(0, count, BATCH):
                numbers = range(first, min(first + BATCH, count))
                rows = [_by_name(self._interaction(begin + step * number, past.big)) for number in numbers]
                lines = [line for row in rows for line in self._said(row, archived=True)]
                await self._copy("messages", MESSAGES, lines)
                bar.update(len(rows))

    async def conversations(self) -> None:
        rows = [
            (channel.community_id, user, channel.platform, channel.entity_id, *about)
            for channel, users in self._past.talks.items()
            for user, about in users.items()
        ]
        await self._copy("conversations", CONVERSATIONS, rows)

    def _interaction(self, moment: datetime, community_id: UUID | None = None) -> Row:
        past = self._past
        if community_id is None:
            is_big = past.chance.random() < BIG_SHARE
            community_id = past.big if is_big else past.chance.choice(past.communities)
        channel, state, trigger = past.channel(community_id), past.one_of(STATES), past.one_of(TRIGGERS)
        row_id, took = past.new_id(moment), past.chance.uniform(300, 4000)
        delivered = state == "delivered"
        ended = min(moment + timedelta(milliseconds=took), past.now)
        sealed = self._sealed(row_id, trigger, delivered) if community_id == past.big else None
        return (
            *(row_id, community_id, channel.entity_id, channel.platform, "session", past.user(community_id)),
            *("chatMessage", trigger, "hello", f"id:{row_id}", os.urandom(32), state, REASONS.get(state)),
            *(("waddleai", "model", 420, 42) if delivered else (None,) * 4),
            *(orjson.dumps({"queued": 1.2, "model": took - 9, "total": took}).decode(), 1, int(delivered), moment),
            *(ended if delivered else None, ended, f"request-{row_id}", sealed),
        )

    def _sealed(self, row_id: UUID, trigger: str, delivered: bool) -> str | None:
        reply = "It begins at eight, and there will be trains again, as every week." if delivered else None
        message = "when does it begin, and will there be trains again?"
        return self._contents.seal(row_id, self._keeping, Trigger(trigger, ""), message, reply)

    def _said(self, row: dict[str, Any], *, archived: bool = False) -> Iterator[Row]:
        """The two lines of a conversation, where it is one that is written down."""
        if row["trigger_type"] == "command":
            return
        channel = Channel(row["community_id"], row["entity_id"], row["platform"])
        talk = self._past.talks.setdefault(channel, {}).setdefault(
            row["user_id"], [self._past.new_id(row["received_at"]), row["received_at"], None, 0]
        )
        talk[2:] = row["ended_at"], talk[3] + 2
        same = row["message_type"], row["trigger_type"], row["trigger_match"]
        made = False, row["provider"], row["model"], row["prompt_tokens"], row["completion_tokens"]
        answered = row["state"] == "delivered"
        for role, at in (("user", row["received_at"]), ("assistant", row["ended_at"]))[: 1 + answered]:
            last = archived and (role == "assistant" or not answered)
            known = (1, row["timings"]) if last else (None, None)
            state = row["state"] if last else None
            yield (
                row["interaction_id"],
                role,
                talk[0],
                channel.community_id,
                at,
                *same,
                state,
                *made,
                *known,
                last,
                row["platform"] if last else None,
            )

    def _call(self, row: dict[str, Any]) -> Row:
        call_id = self._past.new_id(row["ended_at"])
        about = row["community_id"], row["interaction_id"], "chat", row["provider"], row["model"], "ok"
        return (call_id, row["ended_at"], *about, 420, 42, False, 900.0, 200.0, 0.0004)

    async def _copy(self, table: str, columns: tuple[str, ...], rows: list[Row]) -> None:
        await self._connection.copy_records_to_table(table, records=rows, columns=columns)


def _by_name(row: Row) -> dict[str, Any]:
    return dict(zip(INTERACTIONS, row, strict=True))


async def _fill_settings(connection: Connection, past: Past) -> None:
    """200 versions of the big community's and of all's, 5,000 lines of the audit log, 500 keys."""
    versions = [
        (each, number, orjson.dumps(OWN | {"persona_name": f"Ada {number}"}).decode(), "environment:1")
        for each in (past.big, DEFAULTS)
        for number in range(1, 201)
    ]
    columns = ["community_id", "version", "own", "actor"]
    await connection.copy_records_to_table("settings_versions", records=versions, columns=columns)
    current = [row[:3] for row in versions if row[1] == 200]
    await connection.copy_records_to_table("settings", records=current, columns=columns[:3])
    details = orjson.dumps({"persona_name": {"from": "Ada 1", "to": "Ada 2"}}).decode()
    changes = [
        (n, past.now.isoformat(), "environment:1", "settings.changed", _someone(past, n), details, os.urandom(32))
        for n in range(1, 5001)
    ]
    columns = ["number", "at", "actor", "action", "community_id", "details", "hash"]
    await connection.copy_records_to_table("audit", records=changes, columns=columns)
    keys = [(past.new_id(past.now), os.urandom(32), "sc_abcdefg", *_role(past, n), "bench") for n in range(500)]
    columns = ["key_id", "digest", "prefix", "role", "community_id", "label", "created_by"]
    await connection.copy_records_to_table("keys", records=keys, columns=columns)


def _someone(past: Past, number: int) -> UUID:
    """Each fifth time it is the big community."""
    return past.big if number % 5 == 0 else past.communities[number % len(past.communities)]


def _role(past: Past, number: int) -> tuple[str, UUID | None, str]:
    if number % 2:
        return "service", None, f"router {number}"
    return "community", _someone(past, number), f"bot {number}"


async def _fill_numbers(connection: Connection, past: Past) -> None:
    """Of the big community and of all in ten buckets each, of the others one of the commonest."""
    with tqdm(total=len(past.communities) + 1, desc="numbers") as bar:
        await connection.execute(NUMBERS, [past.big, DEFAULTS], NUMBERS_HOURS, 10, timeout=120)
        bar.update(2)
        for first in range(1, len(past.communities), 50):
            several = past.communities[first : first + 50]
            await connection.execute(NUMBERS, several, NUMBERS_HOURS, 1, timeout=120)
            bar.update(len(several))
    await connection.execute(NUMBERS_BY_DAY, timeout=120)
