"""What the model is told about each trigger and event, and what is said without a model: one file each.

A line is taken with what is known filled in (`{name}`, `{months}` …); one that needs more than is known is passed over.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_PLACE = re.compile(r"\{(\w+)\}")
_FOLDER = Path(__file__).parent


class Example(BaseModel):
    """How a co-host answers; the names are nobody's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    said: str
    answered: str


class Template(BaseModel):
    """A kind of trigger: the `task`, what `happened`, and `canned` texts; `…_many` where several events are one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    examples: tuple[Example, ...]
    canned: tuple[str, ...]
    happened: tuple[str, ...] = ()
    canned_many: tuple[str, ...] = ()
    happened_many: tuple[str, ...] = ()


TEMPLATES = {
    file.stem: Template.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    for file in sorted(_FOLDER.glob("*.toml"))
}


def filled(lines: tuple[str, ...], facts: Mapping[str, str]) -> list[str]:
    """The lines of which everything is known, with it."""
    return [
        _PLACE.sub(lambda found: facts[found[1]], line)
        for line in lines
        if all(facts.get(name) for name in _PLACE.findall(line))
    ]
