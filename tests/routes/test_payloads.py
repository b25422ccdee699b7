"""What platforms send, mapped to our event as a router does: bots are never answered, roles are honoured."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import reduce
from itertools import count
from operator import getitem
from typing import Any

import pytest

from config import Settings
from services.events import CHAT
from tests.conftest import API, SHARED_DATA, MakeService, Service
from tests.routes.test_config import community, get, put
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

PAYLOADS = SHARED_DATA / "payloads"
pytestmark = pytest.mark.skipif(not PAYLOADS.exists(), reason="the payloads of platforms (shared/data) are not here")

Fields = dict[str, Any]
Talk = tuple[Service, StubOpenAI]
User = tuple[object, str]  # id, name
Message = tuple[str, str, str | None]  # kind, text, id
ROLES = {"broadcaster", "moderator", "vip", "subscriber"}
# Our types of events with the platforms' names for them; the others keep theirs.
KINDS = {
    CHAT: "channel.chat.message chat.message.sent message app_mention",
    "follow": "channel.follow channel.followed",
    "subscription": "channel.subscribe channel.subscription.message channel.subscription.new"
    " channel.subscription.renewal resub",
    "gift_subscription": "channel.subscription.gift channel.subscription.gifts community_sub_gift pay_it_forward",
    "cheer": "channel.cheer channel.bits.use kicks.gifted",
    "raid": "channel.raid",
    "member_join": "member_joined_channel",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}


def mapped(platform: str, channel: object, user: User, message: Message, badges: Any = (), **told: Any) -> Fields:
    """Our event; what of `told` is None is not told."""
    entity_id, (user_id, username), (kind, text, message_id) = f"{platform}:channel:{channel}", user, message
    author = {"session_id": f"{entity_id}:{user_id}", "user_id": str(user_id), "username": username}
    said = {"message_type": KIND_OF.get(kind, kind), "message_content": text}
    ids = {"platform": platform, "entity_id": entity_id, "event_id": message_id, "reply_to": message_id}
    metadata = {name: value for name, value in told.items() if value is not None}
    return author | said | ids | {"roles": sorted(ROLES.intersection(badges)), "metadata": metadata}


def twitch(body: Fields) -> Fields:
    """`badges` are of this channel; `source_badges`, in a shared chat, of the one where it was written."""
    event = body["event"]
    kind = event.get("notice_type") or body["subscription"]["type"]
    channel = event.get("to_broadcaster_user_id") or event["broadcaster_user_id"]
    who = next(name for name in ("chatter_user", "from_broadcaster_user", "user") if f"{name}_id" in event)
    user = event[f"{who}_id"] or "anonymous", event[f"{who}_login"] or "anonymous"
    text = event.get("message") or ""
    message = kind, text if isinstance(text, str) else text["text"], event.get("message_id")
    badges = [badge["set_id"] for badge in event.get("badges", ())]
    told = event | (event.get(kind) or {})
    details = {"months": told.get("cumulative_months"), "viewers": told.get("viewers"), "gifts": told.get("total")}
    details["amount"] = f"{told['bits']} bits" if "bits" in told else None
    return mapped("twitch", channel, user, message, badges, **details) | {"display_name": event[f"{who}_name"]}


def discord(message: Fields) -> Fields:
    """What its author may do is not in a message."""
    author, said = message["author"], (CHAT, message["content"], message["id"])
    is_bot = author.get("bot", False) or "webhook_id" in message
    event = mapped("discord", message["channel_id"], (author["id"], author["username"]), said)
    return event | {"is_bot": is_bot, "display_name": author.get("global_name")}


def slack(body: Fields) -> Fields:
    """A message's id is its `ts`, which all events about it have in common; a classic bot is no user."""
    event = body["event"]
    user_id = event.get("user") or event["bot_id"]
    message = event["type"], event.get("text", ""), event.get("ts") or body["event_id"]
    found = mapped("slack", event["channel"], (user_id, event.get("username") or user_id), message)
    return found | {"is_bot": "bot_id" in event, "reply_to": event.get("thread_ts")}


def kick(payload: Fields) -> Fields:
    """Whether its author is a bot is not in a message."""
    kind, body = payload["headers"]["Kick-Event-Type"], payload["body"]
    if kind == "livestream.status.updated":
        kind = "stream_online" if body["is_live"] else "stream_offline"
    who = next((name for name in ("sender", "follower", "subscriber", "gifter") if name in body), "broadcaster")
    user, message = body[who], (kind, body.get("content", ""), body.get("message_id"))
    badges = [badge["type"] for badge in (user.get("identity") or {}).get("badges", ())]
    gifts = len(body["giftees"]) if "giftees" in body else None
    amount = f"{body['gift']['amount']} kicks" if "gift" in body else None
    details = {"months": body.get("duration"), "gifts": gifts, "amount": amount}
    author = user["user_id"], user["username"]
    return mapped("kick", body["broadcaster"]["user_id"], author, message, badges, **details)


# Each platform's mapping, and where a message of it has its text and its id.
MAPPINGS = {
    "twitch": (twitch, "event/message/text", "event/message_id"),
    "discord": (discord, "content", "id"),
    "slack": (slack, "event/text", "event/ts"),
    "kick": (kick, "body/content", "body/message_id"),
}
PLATFORMS = pytest.mark.parametrize("platform", MAPPINGS)
_numbers = count(1)


def read(file: str, changes: Fields | None = None, channel: object = None) -> Fields:
    """The event of a payload, some of whose values are changed, in a channel of the test's own."""
    payload = json.loads((PAYLOADS / file).read_text())
    for path, value in (changes or {}).items():
        *way, last = path.split("/")
        reduce(getitem, way, payload)[last] = value
    event = MAPPINGS[file.partition("_")[0]][0](payload)
    return event | {"entity_id": f"{event['entity_id']}-{channel or next(_numbers)}"}


def say(text: str, file: str, changes: Fields, channel: object) -> Fields:
    """The same author says something else."""
    _, text_at, id_at = MAPPINGS[file.partition("_")[0]]
    return read(file, changes | {text_at: text, id_at: f"said-{next(_numbers)}"}, channel)


@pytest.fixture
async def talk(make_service: MakeService) -> AsyncIterator[Talk]:
    stub = StubOpenAI()
    async with running(stub.app) as url:
        yield await make_service(ai_provider="waddleai", waddleai_base_url=url), stub


async def fate(service: Service, event: Fields) -> tuple[str, str | None] | None:
    """State and reason of an event; None for one that triggers nothing."""
    ack = await service.accept(**event)
    if not ack["triggered"]:
        return None
    outcome = await service.ended(ack["interaction_id"])
    return outcome["state"], outcome["reason"]


DELIVERED, BOT = ("delivered", None), ("suppressed", "bot_author")
TWITCH = "twitch_eventsub_channel_chat_message_1.json"
SHARED = "twitch_eventsub_channel_chat_message_2.json"
NOTICE, MONTHS = "twitch_eventsub_channel_chat_notification_{}.json", {1: 10, 2: 65, 3: 58, 5: 2}
DISCORD = "discord_example_message.json"
SLACK = "slack_message_message_body.json"
KICK = "kick_chat_message_sent_chat_message.json"
GIFTS = "kick_channel_subscription_gifts_channel_subscription_gifts.json"
# Each with our type, fields that are as they should be, and whether it is answered.
TAKEN: list[tuple[str, str, Fields, bool]] = [
    *((file, CHAT, {"roles": ["moderator", "subscriber"]}, True) for file in (TWITCH, SHARED, KICK)),
    ("twitch_eventsub_channel_follow_1.json", "follow", {}, True),
    ("twitch_eventsub_channel_follow_2.json", "follow", {}, True),
    ("twitch_eventsub_channel_subscribe_1.json", "subscription", {}, True),
    ("twitch_eventsub_channel_subscription_message_1.json", "subscription", {"metadata": {"months": 15}}, True),
    ("twitch_eventsub_channel_subscription_gift_1.json", "gift_subscription", {"metadata": {"gifts": 2}}, True),
    ("twitch_eventsub_channel_subscription_end_1.json", "channel.subscription.end", {}, False),
    ("twitch_eventsub_channel_cheer_1.json", "cheer", {"metadata": {"amount": "1000 bits"}}, True),
    ("twitch_eventsub_channel_bits_use_1.json", "cheer", {"metadata": {"amount": "2 bits"}}, True),
    ("twitch_eventsub_channel_raid_1.json", "raid", {"metadata": {"viewers": 9001}}, True),
    *((NOTICE.format(n), "subscription", {"metadata": {"months": months}}, True) for n, months in MONTHS.items()),
    (NOTICE.format(4), "gift_subscription", {"metadata": {"gifts": 1}, "username": "anonymous"}, True),
    *((NOTICE.format(number), "gift_subscription", {"roles": ["subscriber"]}, True) for number in (6, 7, 8, 9)),
    (NOTICE.format(10), "shared_chat_resub", {}, False),
    (NOTICE.format(11), "unknown", {}, False),
    (NOTICE.format(12), "modiversary", {"roles": ["moderator"]}, False),
    (DISCORD, CHAT, {"is_bot": False}, False),
    ("discord_example_crossposted_message.json", CHAT, {"is_bot": False}, False),
    (SLACK, CHAT, {"is_bot": False}, True),
    ("slack_message_message_body2.json", CHAT, {}, False),
    ("slack_message_message_body3.json", CHAT, {}, False),
    ("slack_message_bot_user_message_event_payload.json", CHAT, {"is_bot": False}, True),
    ("slack_message_thread_broadcast_event_payload.json", CHAT, {}, True),
    ("slack_events_valid_event_body.json", CHAT, {}, True),
    ("slack_events_message_file_share_body.json", CHAT, {}, False),
    ("slack_events_join_event_body.json", "member_join", {}, True),
    ("slack_events_left_event_body.json", "member_left_channel", {}, False),
    ("kick_channel_followed_channel_follow.json", "follow", {}, True),
    ("kick_channel_subscription_new_channel_subscription_created.json", "subscription", {}, True),
    ("kick_channel_subscription_renewal_channel_subscription_renewal.json", "subscription", {}, True),
    (GIFTS, "gift_subscription", {"metadata": {"gifts": 1}}, True),
    ("kick_kicks_gifted_kicks_gifted.json", "cheer", {"metadata": {"amount": "500 kicks"}}, True),
]


@PLATFORMS
async def test_what_a_platform_sends_is_taken(talk: Talk, platform: str) -> None:
    """The model knows what it is about, and the answer goes back to where it came from."""
    service, stub = talk
    for file, kind, fields, answered in (row for row in TAKEN if row[0].startswith(platform)):
        event, before = read(file), len(stub.requests)
        assert event == event | fields | {"message_type": kind}, file
        assert await fate(service, event) == (DELIVERED if answered else None), file
        assert len(stub.requests) - before == answered
        if answered:
            reply, prompt = service.messages[-1], stub.prompts[-1]
            kept = ("session_id", "entity_id", "platform", "user_id", "event_id", "reply_to")
            assert [reply[name] for name in kept] == [event[name] for name in kept]
            assert (event.get("display_name") or event["username"]) in prompt
            assert event["message_content"] in prompt
            assert all(str(value) in prompt for value in event["metadata"].values())
    assert len(service.messages) == len(stub.requests)


async def test_a_channel_is_live_from_online_to_offline(talk: Talk) -> None:
    service, _ = talk
    hello = read(KICK, channel="live")
    await put(service, community_id=await community(service, hello["entity_id"]), only_live=True)
    assert await fate(service, hello) is None
    for state, told in (("started", DELIVERED), ("ended", None)):
        assert await fate(service, read(f"kick_livestream_status_updated_stream_{state}.json", {}, "live")) is None
        assert await fate(service, say("Hello!", KICK, {}, "live")) == told


BOTS: list[tuple[str, Fields]] = [
    *((TWITCH, {"event/chatter_user_login": name}) for name in Settings.model_fields["bot_names"].default),
    (DISCORD, {"author/bot": True}),
    (DISCORD, {"webhook_id": "1"}),
    ("discord_hikari_message_payload.json", {"author": {"id": "1", "username": "hook"}}),
    ("slack_message_bot_bot_message_event_payload.json", {}),
    ("slack_message_bot_classic_bot_message_event_payload.json", {}),
    (KICK, {"body/sender/username": "Nightbot"}),
]


@PLATFORMS
async def test_a_bot_is_never_answered(talk: Talk, platform: str) -> None:
    """Nor obeyed, also where it is a moderator."""
    service, stub = talk
    for file, changes in (row for row in BOTS if row[0].startswith(platform)):
        channel = next(_numbers)
        for text in ("Hello!", "what is this?", "!ai forget me"):
            assert await fate(service, say(text, file, changes, channel)) == BOT, changes
        off = say("!ai off", file, changes, channel)
        assert await fate(service, off) == (BOT if off["roles"] else None)
        assert (await get(service, await community(service, off["entity_id"])))["enabled"]
    assert service.messages == stub.requests == []


async def test_an_event_of_a_bot_is_not_answered(talk: Talk) -> None:
    for file, path in (
        ("twitch_eventsub_channel_follow_2.json", "event/user_login"),
        ("twitch_eventsub_channel_raid_1.json", "event/from_broadcaster_user_login"),
        (GIFTS, "body/gifter/username"),
    ):
        assert await fate(talk[0], read(file, {path: "StreamElements"})) == BOT, file
    assert talk[0].messages == []


def badges(*names: str) -> list[dict[str, str]]:
    """As Twitch and Kick write them."""
    return [{"set_id": name, "type": name} for name in names]


AUTHORS: list[tuple[str, Fields, bool]] = [
    (TWITCH, {}, True),
    (TWITCH, {"event/badges": badges("broadcaster")}, True),
    (TWITCH, {"event/badges": badges("vip", "subscriber", "sub-gifter")}, False),
    (SHARED, {"event/badges": [], "event/source_badges": badges("moderator")}, False),
    (DISCORD, {}, False),
    (SLACK, {}, False),
    (KICK, {}, True),
    (KICK, {"body/sender/identity/badges": badges("broadcaster")}, True),
    (KICK, {"body/sender/identity/badges": badges("vip", "subscriber")}, False),
    (KICK, {"body/sender/identity": None}, False),
]


@PLATFORMS
async def test_roles_are_honoured(talk: Talk, platform: str) -> None:
    """Moderators and broadcasters are obeyed, others are not; anyone is forgotten."""
    service, _ = talk
    for file, changes, may in (row for row in AUTHORS if row[0].startswith(platform)):
        for command in ("!ai off", "!ai quiet 1m"):
            channel = next(_numbers)
            assert await fate(service, say(command, file, changes, channel)) == (DELIVERED if may else None), changes
            hello = say("Hello!", file, changes, channel)
            assert await fate(service, hello) == (None if may else DELIVERED)
        assert await fate(service, say("!ai forget me", file, changes, channel)) == DELIVERED
        assert "Forgotten" in service.messages[-1]["response_data"]["message"]
        mine = await community(service, hello["entity_id"])
        path = f"{API}/users/{platform}/{hello['user_id']}?community_id={mine}"
        assert (await (await service.get(path)).get_json())["data"] == {"interactions": [], "conversations": {}}
