"""A short form of the fault bench: everything is broken once, and nothing is lost, doubled or answered twice."""

from __future__ import annotations

import pytest
import uvloop

from bench import faults
from bench.rig import rig

pytestmark = pytest.mark.timeout(240)
SHORT = ["service killed", "PostgreSQL killed", "Valkey killed", "router: reset", "provider: half-close"]


def test_nothing_accepted_is_lost_or_answered_twice(clean_environment: None) -> None:
    """400 events in each story, at 150 a second."""
    with rig() as made:
        text, good = uvloop.run(faults.run([made], SHORT, 400, 150))
    assert good, text
    for line in text.splitlines()[2:]:
        story, accepted, delivered, *_ = [cell.strip() for cell in line.strip("|").split("|")]
        assert (accepted, delivered) == ("400", "400"), story
