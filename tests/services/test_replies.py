"""Texts that fit their platform."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replies import DEFAULT_LIMIT, LIMITS, fit


@pytest.mark.parametrize("platform", [*LIMITS, "irc"])
@given(text=st.text(max_size=5_000), prefix=st.text(max_size=50))
def test_prefix_and_text_fit_the_platform(platform: str, text: str, prefix: str) -> None:
    said = fit(text, platform, prefix)
    assert len(prefix + said) <= LIMITS.get(platform, DEFAULT_LIMIT)
    assert not said.startswith(("/", ".", "!", " "))


def test_a_long_text_is_cut_at_a_word() -> None:
    said = fit("word " * 200, "twitch", "🤖 ")
    assert said.endswith("word…")
    assert len(said) > 480


def test_lines_become_one_where_the_platform_has_one() -> None:
    assert fit("one\n two", "twitch", "") == "one two"
    assert fit("one\n two", "discord", "") == "one\n two"


def test_commands_are_no_commands() -> None:
    assert fit("/ban you", "twitch", "") == "ban you"
    assert fit(" ./.!ban", "twitch", "") == "ban"
