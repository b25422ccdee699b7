"""When to speak: greetings, farewells, questions, a streamer's own words and events, by whole words in any script.

Matching is on the message in Unicode form NFKC, case-folded, so that a full-width `？` is a `?` and `HELLO` a `hello`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from services import speech
from services.events import CHAT, ChatEvent
from services.settings import FAREWELLS, GREETINGS, CommunitySettings, compile_pattern
from services.speech import Phrases
from services.texts import fold

_ADDRESS = re.compile(r"(?<!\S)\S+?://\S+")


COMMAND = "command"
EVENT = "event"
# Triggers whose answer may be about what was said in the channel.
TALK = frozenset({"question", "mention", "custom"})
QUESTION_MARK = "?"
_GREETINGS, _FAREWELLS = frozenset(GREETINGS), frozenset(FAREWELLS)


@dataclass(frozen=True)
class Trigger:
    """Why an event is answered: the `type`, as the API names it, and as `match` the word that did it."""

    type: str
    match: str


@dataclass(frozen=True)
class Decision:
    """Whether an event is answered; or `why` it is not."""

    trigger: Trigger | None
    why: str = ""


class Triggers:
    """The rules of one community's settings, compiled once."""

    def __init__(self, settings: CommunitySettings) -> None:
        greeting_words = settings.greeting_words if settings.greetings else []
        farewell_words = settings.farewell_words if settings.farewells else []
        question_words = settings.question_triggers if settings.questions else []
        # A streamer's own words are found literally, wherever they stand; those that are known, where they mean it.
        own = (
            ("custom", settings.custom_triggers),
            ("greeting", [word for word in greeting_words if word not in _GREETINGS]),
            ("farewell", [word for word in farewell_words if word not in _FAREWELLS]),
            ("question", [word for word in question_words if word != QUESTION_MARK]),
            ("mention", [settings.persona_name] if settings.mentions and settings.persona_name else []),
        )
        self._own = [(kind, _Words(words)) for kind, words in own if words]
        self._greetings = Phrases(word for word in greeting_words if word in _GREETINGS)
        self._farewells = Phrases(word for word in farewell_words if word in _FAREWELLS)
        self._questions = QUESTION_MARK in question_words
        self._own_name = fold(settings.persona_name)
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
        return self.decide(event).trigger

    def decide(self, event: ChatEvent) -> Decision:
        """The trigger of an event, or why there is none."""
        if event.message_type != CHAT:
            if event.message_type in self._events:
                return Decision(Trigger(EVENT, event.message_type))
            return Decision(None, "this type of event is not answered")
        text = fold(event.message_content)
        if "://" in text:
            text = _ADDRESS.sub(" ", text)
        for pattern, compiled in self._patterns:
            if compiled.search(text):
                return Decision(Trigger("custom", pattern))
        if not any(map(str.isalnum, text)):
            return Decision(None, "there is no word in it")
        for kind, words in self._own:
            if word := words.find(text):
                return Decision(Trigger(kind, word))
        return self._read(speech.take_apart(text, self._own_name))

    def _read(self, line: speech.Line) -> Decision:
        """What a message says by itself: a question goes before the greeting that it begins with."""
        asked = speech.question(line) if self._questions and line.words else speech.NOTHING
        why = asked.why
        if asked.kind and line.spaced:
            return Decision(Trigger(asked.kind, asked.match))
        for phrases, rule in ((self._greetings, speech.greeting), (self._farewells, speech.farewell)):
            for place in phrases.find(line):
                reading = rule(line, place)
                if reading.kind:
                    return Decision(Trigger(reading.kind, reading.match))
                why = reading.why
        if asked.kind:  # in scripts where a greeting may end like a question
            return Decision(Trigger(asked.kind, asked.match))
        return Decision(None, why)


class _Words:
    """Finds the first of some words as a whole word; a word of signs alone, such as `?`, is found anywhere."""

    def __init__(self, words: Iterable[str]) -> None:
        self._spelling = {fold(word): word for word in words}
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
