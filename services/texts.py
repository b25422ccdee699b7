"""What is done to texts in more than one place."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import regex

# What models take for their own: special tokens and role markers of chat templates.
_TOKENS = regex.compile(
    r"<\|(?:im_start|start_header_id)\|>\s*\w*|<start_of_turn>\w*|<\|[^|<>]{0,40}\|>|<｜[^｜<>]{0,40}｜>"
    r"|</?(?:s|think|assistant|system|user|eos|bos|end_of_turn|pad|unk)>|</?tool_call>|<unused\d{1,4}>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>",
    regex.I,
)
_GRAPHEME = regex.compile(r"\X")
MOST_ROUNDS = 8


def fold(text: str) -> str:
    """In Unicode form NFKC and case-folded, so that a full-width `？` is a `?` and `HELLO` a `hello`."""
    return unicodedata.normalize("NFKC", text).casefold()


def without_tokens(text: str) -> str:
    """Without what a model would take for the end of a turn or the start of another, also where that leaves one."""
    for _ in range(MOST_ROUNDS):
        before, text = text, str(_TOKENS.sub("", text))
        if text == before:
            return text
    return text.replace("<", "").replace("[", "")


def head(text: str, room: int, measure: Callable[[str], int] = len) -> str:
    """As many whole characters, as people see them (UAX #29), as there is room for."""
    kept, used = [], 0
    for found in _GRAPHEME.finditer(text):
        used += measure(found[0])
        if used > room:
            break
        kept.append(found[0])
    return "".join(kept)
