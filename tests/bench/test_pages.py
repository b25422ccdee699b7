"""A short form of the bench of the dashboard's pages: each answers, weighs little, and is found by indexes."""

from __future__ import annotations

import pytest

from bench import pages
from bench.rig import rig

pytestmark = pytest.mark.timeout(240)
# Nothing is read from end to end but what is under way, which is little.
FEW = {"interactions_under_way"}


def test_each_page_answers_and_weighs_little(clean_environment: None) -> None:
    """5,000 interactions of 20 communities; how long it takes is for the long form, on a quiet machine."""
    with rig() as made:
        measures, planned = pages.run(made, 5_000, 20, 2)
    assert {"playground", "activity", "numbers of a month, all", "keys, all"} <= {each.name for each in measures}
    for each in measures:
        assert each.packed < each.plain, each.name
        assert each.first_look <= pages.MOST_BYTES, each.name
    for line in planned.splitlines()[2:]:
        query, indexes, _, whole, _ = [cell.strip() for cell in line.strip("|").split("|")]
        assert indexes, query
        assert {name for name in whole.split(", ") if name != "–"} <= FEW, query
