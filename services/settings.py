"""What a community sets for itself; what it does not is as an admin set for all, or else as the environment says."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import datetime, time
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import re2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from config import Provider, Settings, Temperature, Tokens, check_fallbacks

# The row of the settings that hold for every community which has none of its own.
DEFAULTS = UUID(int=0)
# In many languages; those that a streamer adds are found literally, wherever they stand.
GREETINGS = (
    *("o7", "hi", "hello", "hey", "yo", "howdy", "greetings", "sup", "hiya", "heya", "wassup", "hullo"),
    *("good morning", "good evening", "good afternoon", "morning", "gm", "hola", "buenas", "saludos", "buenos días"),
    *("bonjour", "salut", "coucou", "bonsoir", "hallo", "moin", "servus", "guten morgen", "guten abend", "guten tag"),
    *(
        "ciao",
        "oi",
        "olá",
        "ola",
        "bom dia",
        "boa tarde",
        "boa noite",
        "привет",
        "здравствуйте",
        "merhaba",
        "selam",
        "hej",
    ),
    *("cześć", "namaste", "こんにちは", "こんばんは", "こんばんわ", "おはよう", "初見", "はじめまして", "わこつ"),
    *("안녕", "你好", "大家好", "早安"),
)
FAREWELLS = (
    *("!lurk", "bye", "goodbye", "later", "cya", "see ya", "see you", "gn", "good night", "good nite", "goodnight"),
    *("gtg", "g2g", "gotta go", "got to go", "have to go", "going to bed", "off to bed", "going to sleep"),
    *("heading out", "heading off", "peace out", "ttyl", "laters", "adiós", "adios", "hasta luego", "tchau"),
    *("nos vemos", "hasta mañana", "chao", "até logo", "até amanhã", "bis morgen", "auf wiedersehen", "take care"),
    *(
        "à demain",
        "à bientôt",
        "bonne soirée",
        "さようなら",
        "au revoir",
        "bonne nuit",
        "tschüss",
        "gute nacht",
        "пока",
        "до свидания",
        "спокойной ночи",
    ),
    *("おやすみ", "おつかれ", "お疲れ", "またね", "ばいばい", "バイバイ", "잘자", "晚安", "再见", "拜拜"),
)
MAX_WORDS = 200
MAX_PATTERNS = 50
PATTERN_BYTES = 1 << 20
SHOWN = 6
_RANGE = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")

Word = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Words = Annotated[list[Word], Field(max_length=MAX_WORDS)]

Span = Annotated[float, Field(ge=0, le=86_400)]
Count = Annotated[int, Field(ge=0, le=10_000)]


def _check_pattern(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


def _check_hours(hours: str) -> str:
    if not _RANGE.fullmatch(hours):
        raise ValueError("must be like 22:00-06:30")
    return hours


def _check_zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("is no time zone of the IANA's, such as Europe/Berlin")
    return name


@functools.cache
def _zones() -> frozenset[str]:
    """All there are, which takes 10 ms to find out: a thousand files are looked at."""
    return frozenset(available_timezones())


def _check_entry(entry: str) -> str:
    return check_fallbacks((entry,))[0] if entry else entry


def _listed(entries: list[str]) -> list[str]:
    return list(check_fallbacks(tuple(entries)))


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_check_pattern)]


def compile_pattern(pattern: str) -> Any:
    """A pattern of a user's, by RE2 alone, whose time is linear in the text. Raises ValueError that says why not."""
    options = re2.Options()
    options.max_mem = PATTERN_BYTES
    options.log_errors = False
    options.case_sensitive = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be read"
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        # A sign or two of the pattern help, more of it stays out, as every value does.
        rule, _, piece = said.partition(": ")
        raise ValueError(f"RE2 does not take this pattern: {said if len(piece) <= SHOWN else rule}") from None


class CommunitySettings(BaseModel):
    """All settings of one community, each with its value; the description of each is for the streamer.

    None for what the provider decides.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    enabled: bool = Field(description="Whether it answers at all; commands of moderators are taken all the same.")
    provider: Provider = Field(description="Which provider answers first.")
    model: Annotated[str, Field(max_length=255)] = Field(description="Its model; empty: the provider's own.")
    temperature: Temperature | None = Field(description="How freely the model answers.")
    max_tokens: Tokens | None = Field(description="Longest answer in tokens.")
    fallbacks: Annotated[list[str], Field(max_length=10), AfterValidator(_listed)] = Field(
        description="Providers tried after it, in order, each as `provider/model`."
    )
    base_url: Annotated[str, Field(max_length=500)] = Field(
        description="A server of your own for the provider; empty: the provider's. A new one clears `api_key`."
    )
    system_prompt: Annotated[str, Field(max_length=2000)] = Field(
        description="What the model is told before everything else."
    )
    persona_name: Annotated[str, Field(max_length=50)] = Field(description="What the co-host is called.")
    language: Annotated[str, Field(max_length=50)] = Field(
        description="Language of replies, such as `German`; empty: the user's."
    )
    response_prefix: Annotated[str, Field(max_length=50)] = Field(description="Put before every reply.")

    allowed_links: Words = Field(
        description="Hosts, such as `example.org`, that a reply may lead to; others are cut out."
    )
    greetings: bool = Field(description="Answer greetings.")
    greeting_words: Words = Field(description="Words that are greetings.")
    farewells: bool = Field(description="Answer farewells.")
    farewell_words: Words = Field(description="Words that are farewells.")
    questions: bool = Field(description="Answer questions.")
    question_triggers: Words = Field(description="Signs and words that make a message a question.")
    mentions: bool = Field(description="Answer who calls the co-host by its name.")
    custom_triggers: Words = Field(description="Words of your own that are answered.")
    custom_patterns: Annotated[list[Pattern], Field(max_length=MAX_PATTERNS)] = Field(
        description="Patterns (RE2) of your own that are answered, whatever the case."
    )
    respond_to_events: bool = Field(description="Answer events (follows, raids, …) as well as chat.")
    event_response_types: Words = Field(description="Events that are answered.")
    bot_names: Words = Field(description="User names that are never answered.")
    quiet_hours: Annotated[list[Annotated[str, AfterValidator(_check_hours)]], Field(max_length=14)] = Field(
        description="Times of day without an answer, such as `22:00-06:30`."
    )
    timezone: Annotated[str, AfterValidator(_check_zone)] = Field(description="Time zone of `quiet_hours`.")
    only_live: bool = Field(description="Answer only while the channel is live (after a `stream_online`).")
    quiet_until: Annotated[int, Field(ge=0, le=2**53)] = Field(
        description="No answer until then, in seconds since 1970; set by `!ai quiet`."
    )

    enable_chat_context: bool = Field(description="Remember what each user said and was answered.")
    context_history_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        description="Exchanges of a user that a prompt shows."
    )
    summarize: bool = Field(
        description="Have the model sum up what a conversation has no room for any more, for later prompts."
    )
    recent_chat: Annotated[int, Field(ge=0, le=100)] = Field(
        description="Messages of a channel's recent chat that the prompt for a question shows; 0: none."
    )
    cache_seconds: Span = Field(
        description="Seconds in which the same question, where it is not about who asks, gets the same answer; 0: none."
    )
    store_content: bool = Field(
        description="Keep what was said and answered, sealed, for `retention_days`; off: only until it is answered."
    )
    retention_days: Annotated[int, Field(ge=1, le=3650)] = Field(description="See there.")
    user_cooldown: Span = Field(description="Seconds between two replies to one user; 0: none. Events do not count.")
    greeting_cooldown: Span = Field(description="Seconds until the same user is greeted again; 0: none.")
    repeat_seconds: Span = Field(
        description="Seconds in which a channel is not told the same text twice; 0: it may be."
    )
    channel_replies: Count = Field(description="Replies in a channel in `channel_seconds`; 0: any number.")
    channel_seconds: Span = Field(description="See there.")
    community_replies: Count = Field(
        description="Replies in all channels together in `community_seconds`; 0: any number."
    )
    community_seconds: Span = Field(description="See there.")
    budget_tokens: Annotated[int, Field(ge=0, le=10**9)] = Field(
        description="Tokens of prompts and replies in a day (of UTC); 0: any number."
    )
    budget_cost: Annotated[float, Field(ge=0, le=10**6)] = Field(
        description="US dollars in a day, for models whose prices are known; 0: any sum."
    )
    budget_small_model: Annotated[str, Field(max_length=255), AfterValidator(_check_entry)] = Field(
        description="Who answers when 80 % of a budget is used, as `provider/model`; empty: as before."
    )
    budget_canned: Count = Field(description="Canned replies in a day once a budget is used up; then silence.")

    @property
    def remembered(self) -> int:
        """How many exchanges of a user are kept."""
        return self.context_history_limit if self.enable_chat_context else 0

    @property
    def heard(self) -> int:
        """How many messages of a channel are kept."""
        return self.recent_chat if self.enable_chat_context else 0


def of_environment(settings: Settings) -> dict[str, Any]:
    """What holds where neither a community nor an admin has set anything."""
    return {
        "enabled": True,
        "provider": settings.ai_provider,
        "model": settings.ai_model,
        "temperature": settings.ai_temperature,
        "max_tokens": None,
        "fallbacks": list(settings.ai_fallbacks),
        "base_url": "",
        "system_prompt": settings.system_prompt,
        "persona_name": "",
        "language": "",
        "response_prefix": settings.response_prefix,
        "allowed_links": [],
        "greetings": True,
        "greeting_words": list(GREETINGS),
        "farewells": True,
        "farewell_words": list(FAREWELLS),
        "questions": True,
        "question_triggers": list(settings.question_triggers),
        "mentions": True,
        "custom_triggers": [],
        "custom_patterns": [],
        "respond_to_events": settings.respond_to_events,
        "event_response_types": list(settings.event_response_types),
        "bot_names": list(settings.bot_names),
        "quiet_hours": [],
        "timezone": "UTC",
        "only_live": False,
        "quiet_until": 0,
        "enable_chat_context": settings.enable_chat_context,
        "context_history_limit": settings.context_history_limit,
        "summarize": False,
        "recent_chat": 20,
        "cache_seconds": 300.0,
        "store_content": False,
        "retention_days": 30,
        "user_cooldown": 10.0,
        "greeting_cooldown": 1800.0,
        "repeat_seconds": 30.0,
        "channel_replies": 20,
        "channel_seconds": 30.0,
        "community_replies": 60,
        "community_seconds": 60.0,
        "budget_tokens": 0,
        "budget_cost": 0.0,
        "budget_small_model": "",
        "budget_canned": 20,
    }


# What belongs to a provider: another provider does not inherit it.
_OF_PROVIDER = {"model": "", "temperature": None, "max_tokens": None, "base_url": ""}


def resolve(inherited: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The values that hold: a community's own before those it inherits."""
    below: dict[str, Any] = dict(inherited)
    if own.get("provider", below["provider"]) != below["provider"]:
        below |= _OF_PROVIDER
    return {**below, **own}


def in_hours(hours: list[str], zone: str, now: float) -> bool:
    """Whether a moment, in seconds since 1970, is within one of some times of day."""
    moment = datetime.fromtimestamp(now, ZoneInfo(zone)).time()
    for entry in hours:
        begin, end = (time.fromisoformat(part) for part in entry.split("-"))
        if (begin <= moment < end) if begin <= end else (moment >= begin or moment < end):
            return True
    return False
