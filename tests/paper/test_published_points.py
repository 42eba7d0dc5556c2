"""The published points: shares and differences by hand, and that every one says its source."""

import json
from pathlib import Path

import pytest

from utils.paper import published_points as module
from utils.paper.printed_number import PrintedNumber
from utils.paper.published_points import published_points
from utils.paper.tables import published_rows

OTHERS = json.loads((Path(module.__file__).with_name("other_methods.json")).read_text())["rows"]


def point(arch, method, row):
    (found,) = [x for x in published_points(arch) if (x.method, x.row) == (method, row)]
    return found


def test_the_papers_rows_are_shares_of_their_baseline():
    half = point("resnet_56", "HRank", "50.0%")
    assert half.macs_percent == pytest.approx(100 * 62.72 / 125.49)
    assert (half.top1_percent, half.difference) == (93.17, pytest.approx(-0.09))
    dense = point("resnet_56", "HRank", "baseline")
    assert (dense.macs_percent, dense.difference) == (100.0, 0.0)
    # 34.78M of 125.49M is what the row's MACs say, not its 74.1% removed
    plus = point("resnet_56", "HRankPlus", "74.1%")
    assert plus.macs_percent == pytest.approx(27.7, abs=0.05)


def test_other_methods_have_their_own_baseline_or_none():
    l1 = point("resnet_56", "L1", "pruned-B")
    assert (l1.macs_percent, l1.top1_percent, l1.difference) == pytest.approx((72.4, 93.06, 0.02))
    assert point("resnet_56", "ABCPruner", "70%").difference is None
    assert published_points("resnet_20") == []


def test_every_point_is_of_a_known_network_and_names_its_source():
    known = {row.arch for row in published_rows()}
    for fact in OTHERS:
        assert fact["arch"] in known and len(fact["source"]) > 20, fact
        assert PrintedNumber(fact["published"]["macs"]).value > 0
    found = [x for arch in known for x in published_points(arch)]
    assert len(found) == len(OTHERS) + len(published_rows())
    assert all(0 < x.macs_percent <= 100 and 60 < x.top1_percent < 96 for x in found)


@pytest.mark.parametrize("fact", OTHERS, ids=lambda fact: f"{fact['method']}-{fact['arch']}")
def test_the_share_removed_is_that_of_the_papers_dense_network(fact):
    """Counters differ by two points of a percent at most, as for ABCPruner's ResNet-56."""
    dense = next(row for row in published_rows() if row.arch == fact["arch"]).macs.value
    share = 100 - 100 * PrintedNumber(fact["published"]["macs"]).value / dense
    assert float(fact["published"]["macs_removed_percent"]) == pytest.approx(float(share), abs=2)
