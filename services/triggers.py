"""When to speak: greetings, farewells, questions, a streamer's own words and events, by whole words in any script.

Matching is on the message in Unicode form NFKC, case-folded, so that a full-width `？` is a `?` and `HELLO` a `hello`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from services.events import CHAT, ChatEvent
from services.settings import CommunitySettings, compile_pattern

_ADDRESS = re.compile(r"\S+://\S+")


COMMAND = "command"


@dataclass(frozen=True)
class Trigger:
    """Why an event is answered: the `type`, as the API names it, and as `match` the word that did it."""

    type: str
    match: str


class Triggers:
    """The rules of one community's settings, compiled once."""

    def __init__(self, settings: CommunitySettings) -> None:
        kinds = (
            ("custom", True, settings.custom_triggers),
            ("greeting", settings.greetings, settings.greeting_words),
            ("farewell", settings.farewells, settings.farewell_words),
            ("question", settings.questions, settings.question_triggers),
            ("mention", settings.mentions, [settings.persona_name] if settings.persona_name else []),
        )
        self._rules = [(kind, _Words(words)) for kind, on, words in kinds if on and words]
        self._patterns = [(pattern, compile_pattern(pattern)) for pattern in settings.custom_patterns]
        self._events = frozenset(settings.event_response_types) if settings.respond_to_events else frozenset[str]()
        self._bots = frozenset(name.casefold() for name in [*settings.bot_names, settings.persona_name] if name)
        prefix = settings.response_prefix
        # A router may hand us what we said ourselves; what begins with a sign such as `>` may be anyone's.
        self._own_prefix = prefix if prefix.strip() and not (prefix.isascii() and len(prefix.strip()) < 2) else None

    def is_bot(self, event: ChatEvent) -> bool:
        """Whether a bot wrote it, or the co-host itself: by its name, or by what it puts before every reply."""
        if event.is_bot or event.username.casefold() in self._bots:
            return True
        return self._own_prefix is not None and event.message_content.startswith(self._own_prefix)

    def match(self, event: ChatEvent) -> Trigger | None:
        """The trigger of an event, or None when there is nothing to say."""
        if event.message_type != CHAT:
            return Trigger("event", event.message_type) if event.message_type in self._events else None
        text = _fold(event.message_content)
        if "://" in text:
            text = _ADDRESS.sub(" ", text)
        for pattern, compiled in self._patterns:
            if compiled.search(text):
                return Trigger("custom", pattern)
        if not any(map(str.isalnum, text)):
            return None  # question marks, or emoji, and nothing else
        for kind, words in self._rules:
            if word := words.find(text):
                return Trigger(kind, word)
        return None


class _Words:
    """Finds the first of some words as a whole word; a word of signs alone, such as `?`, is found anywhere."""

    def __init__(self, words: Iterable[str]) -> None:
        self._spelling = {_fold(word): word for word in words}
        longest_first = sorted(self._spelling, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_bounded, longest_first))) if longest_first else None

    def find(self, text: str) -> str | None:
        """The word as the settings spell it, or None."""
        found = self._pattern.search(text) if self._pattern else None
        while found and self._pattern and unicodedata.category(text[found.end() : found.end() + 1] or " ")[0] == "M":
            # A combining mark goes on with the word, which \w does not say.
            found = self._pattern.search(text, found.start() + 1)
        return self._spelling[found.group()] if found else None


def _bounded(word: str) -> str:
    """The word as a pattern that no letter, digit or `!` touches at an end of it that is one."""
    if not any(map(str.isalnum, word)):
        return re.escape(word)
    return r"(?<![\w!])" + re.escape(word) + (r"(?!\w)" if word[-1:].isalnum() else "")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
