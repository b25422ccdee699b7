"""When to speak: whole words in any script, full-width question marks, events."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.triggers import decide, read, shares
from config import load_settings
from services.events import ChatEvent
from services.settings import FAREWELLS, GREETINGS, CommunitySettings, of_environment
from services.triggers import Trigger, Triggers
from tests.conftest import PROJECT, SHARED_DATA, event

CHAT = SHARED_DATA / "chat_sample.jsonl.gz"


def rules(**settings: Any) -> Triggers:
    return Triggers(CommunitySettings(**of_environment(load_settings(**settings))))


def match(text: str, **settings: Any) -> Trigger | None:
    return rules(**settings).match(ChatEvent(**event(message_content=text)))


def happened(message_type: str, **settings: Any) -> Trigger | None:
    return rules(**settings).match(ChatEvent(**event(message_type=message_type)))


@pytest.mark.parametrize(
    "text", ["㌖" * 9_990 + " ://", "is this <" + " " * 9_970 + "?", "a" * 9_000 + "://" + "b" * 900]
)
def test_no_message_takes_long(text: str) -> None:
    """No rule goes over the whole of a text for each of its letters, which takes seconds and not milliseconds."""
    began = time.process_time()
    match(text)
    assert time.process_time() - began < 1


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
    assert match("what is https://example.org/watch?v=1 about?") == Trigger("question", "?")


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
    """And a match is one of the words, or stands in the text; where there is none, it is said why."""
    decision = _default.decide(ChatEvent.model_construct(**event(message_content=text)))
    if decision.trigger is None:
        assert decision.why
    elif decision.trigger.type != "question":
        assert decision.trigger.match in (*GREETINGS, *FAREWELLS)


@pytest.mark.skipif(not CHAT.exists(), reason="the sample of real chat (shared/data) is not here")
def test_real_chat_is_decided_as_people_do() -> None:
    """On labelled messages that the rules were not made by; how rightly is in bench/README.md."""
    labelled = [each for each in read(PROJECT / "tests/data/triggers.tsv", CHAT) if each.counts]
    precision, recall, right = shares([(each.kind, decide(_default, each)) for each in labelled])
    assert precision > 0.7
    assert recall > 0.6
    assert right > 0.85


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("heyyyy", "greeting"),
        ("hiii chat", "greeting"),
        ("good morning everyone", "greeting"),
        ("おはよう！", "greeting"),
        ("привет всем", "greeting"),
        ("byeee guys", "farewell"),
        ("gtg, see you all tomorrow", "farewell"),
        ("gn chat", "farewell"),
        ("talk to you later", None),
        ("I'll do it later", None),
        ("hey that's mine", None),
        ("he said hi to me", None),
        ("how do I join", "question"),
        ("anyone know the song", "question"),
        ("what game is this", "question"),
        ("PC版は？", "question"),
        ("@someone what do you think?", None),
        ("user_1: did you try it?", None),
        ("what??", None),
        ("え？", None),
        ("really?!", None),
        (":thinking:?", None),
        ("<:pog:123>?", None),
        ("where are you from?", "question"),
        ("have a great day", None),
        ("was spielst du?", "question"),
        ("wo wohnst du?", "question"),
        ("de dónde eres?", "question"),
        ("comment ça va ?", "question"),
        ("このゲームは何？", "question"),
        ("hasta mañana a todos", "farewell"),
        ("hi-res textures", None),
    ],
)
def test_what_a_message_means_decides(text: str, kind: str | None) -> None:
    trigger = match(text)
    assert (trigger.type if trigger else None) == kind


def test_a_streamers_own_words_are_found_literally_wherever_they_stand() -> None:
    for text in ("and he said moin.dia to me", "MOIN.DIA"):
        assert _own.match(ChatEvent(**event(message_content=text))) == Trigger("greeting", "moin.dia")
    assert _own.match(ChatEvent(**event(message_content="moinxdia"))) is None


_own = Triggers(CommunitySettings(**(of_environment(load_settings()) | {"greeting_words": ["moin.dia"]})))
