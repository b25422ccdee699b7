"""When to speak: whole words in any script, full-width question marks, events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import load_settings
from services.events import ChatEvent
from services.settings import FAREWELLS, GREETINGS, CommunitySettings, of_environment
from services.triggers import Trigger, Triggers
from tests.conftest import event


def rules(**settings: Any) -> Triggers:
    return Triggers(CommunitySettings(**of_environment(load_settings(**settings))))


def match(text: str, **settings: Any) -> Trigger | None:
    return rules(**settings).match(ChatEvent(**event(message_content=text)))


def happened(message_type: str, **settings: Any) -> Trigger | None:
    return rules(**settings).match(ChatEvent(**event(message_type=message_type)))


@pytest.mark.parametrize("word", GREETINGS)
def test_greetings(word: str) -> None:
    for text in (word, word.upper(), f"oh {word}!", f"{word}, chat", f"({word})"):
        assert match(text) == Trigger("greeting", word)


@pytest.mark.parametrize("word", FAREWELLS)
def test_farewells(word: str) -> None:
    for text in (word, word.upper(), f"ok {word}", f"{word} all"):
        assert match(text) == Trigger("farewell", word)


@pytest.mark.parametrize(
    "text",
    ["this", "support", "they", "shield", "bytes", "collateral", "o70", "co7", "hi5", "_hi_", "!!lurk", "!lurking"],
)
def test_words_inside_words_are_none(text: str) -> None:
    assert match(text) is None


def test_full_width_and_case_are_folded() -> None:
    """Unicode NFKC and case folding: what looks the same is the same."""
    assert match("元気ですか？") == Trigger("question", "?")
    assert match("ＨＥＬＬＯ") == Trigger("greeting", "hello")
    assert match("grüße an STRASSE", question_triggers="straße") == Trigger("question", "straße")


def test_a_combining_mark_goes_on_with_the_word() -> None:
    assert match("नम क्या", question_triggers="नम") == Trigger("question", "नम")
    assert match("नमी", question_triggers="नम") is None
    assert match("नमी नम", question_triggers="नम") == Trigger("question", "नम")


@pytest.mark.parametrize("text", ["?", "???", "？？", " ? ? ", "?！", "🤔?", "", "   "])
def test_question_marks_alone_are_no_question(text: str) -> None:
    assert match(text) is None


def test_an_address_is_no_question() -> None:
    assert match("see https://example.org/watch?v=1") is None
    assert match("is https://example.org/watch?v=1 it?") == Trigger("question", "?")


def test_question_triggers_can_be_set() -> None:
    """Signs are found anywhere, words as whole words; set to nothing, nothing is a question."""
    for text, found in (("tell me how", "how"), ("show me", None), ("¿que", "¿"), ("really?", None)):
        trigger = match(text, question_triggers="how,¿")
        assert (trigger.match if trigger else None) == found
    assert match("really?", question_triggers="") is None


def test_events() -> None:
    assert happened("raid") == Trigger("event", "raid")
    assert happened("stream_online") is None
    assert happened("anything_else") is None
    assert happened("anything_else", event_response_types="anything_else") == Trigger("event", "anything_else")
    assert happened("raid", respond_to_events=False) is None


_default = rules()


@given(st.text(max_size=300))
def test_any_text_is_matched_without_an_error(text: str) -> None:
    """And a match is a word that stands in the text, folded."""
    trigger = _default.match(ChatEvent.model_construct(**event(message_content=text)))
    assert trigger is None or trigger.match in (*GREETINGS, *FAREWELLS, "?")
