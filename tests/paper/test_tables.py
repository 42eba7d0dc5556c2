"""The rows in facts.json: complete, findable by their rates, and the reference's numbers."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from utils.paper.tables import matching_row, rows_of

ARCHS = {"vgg_16_bn": 13, "resnet_56": 55, "resnet_110": 109}  # network: convs
REFERENCE = Path(__file__).parents[2] / "../shared/reference/flops.json"


def expand(string):
    terms = re.findall(r"\[([\d.]+)\](?:\*(\d+))?", string)
    return [float(rate) for rate, count in terms for _ in range(int(count or 1))]


def row_named(arch, name):
    return next(row for row in rows_of(arch) if row.row == name)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_baseline_comes_first_and_no_name_twice(arch):
    names = [row.row for row in rows_of(arch)]
    assert names[0] == "baseline" and len(names) >= 4 and len(set(names)) == len(names)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_row_has_a_source_and_rates_of_the_right_length(arch):
    for row in rows_of(arch):
        assert row.arch == arch and row.source
        assert (row.compress_rate is None) == (row.compress_rate_source is None)
        if row.compress_rate is not None:
            assert len(expand(row.compress_rate)) == ARCHS[arch]
        else:
            assert row.note.startswith("No rates published")


@pytest.mark.parametrize("arch", ARCHS)
def test_every_row_with_rates_is_found_by_its_rates(arch):
    for row in rows_of(arch):
        if row.compress_rate is not None:
            found = matching_row(arch, expand(row.compress_rate), expand=expand)
            assert found.compress_rate == row.compress_rate


def test_the_spelling_of_the_rates_does_not_matter():
    found = matching_row("resnet_110", [0.1] + [0.4] * 108, expand=expand)
    assert found.row == "37.9% (README correction)"


def test_a_correction_is_found_before_what_it_corrects():
    mistaken = row_named("resnet_110", "41.2% (paper)")
    found = matching_row("resnet_110", expand(mistaken.compress_rate), expand=expand)
    assert found.macs.text == "156.90M"


def test_unpublished_rates_and_unpublished_networks_match_no_row():
    assert matching_row("resnet_56", [0.123] * 55, expand=expand) is None
    assert matching_row("no_such_network", [0.0], expand=expand) is None
    assert rows_of("no_such_network") == ()


@pytest.mark.parametrize("arch", ARCHS)
def test_printed_macs_and_their_percentages_agree_within_the_printed_digits(arch):
    dense = rows_of(arch)[0].macs.value
    for row in rows_of(arch):
        percent = 100 - 100 * row.macs.value / dense
        slack = row.macs_removed_percent.step
        assert abs(percent - row.macs_removed_percent.value) <= slack, row.row


@pytest.mark.skipif(not REFERENCE.exists(), reason="reference tables are not at hand")
@pytest.mark.parametrize("arch", ARCHS)
def test_rows_are_the_rows_of_the_reference(arch):
    published = json.loads(REFERENCE.read_text())["published"]
    expected = {
        row["row"].replace("base", "baseline"): (
            Decimal(str(row["published_flops"])) * 10**6,
            Decimal(str(row["published_params_M"])) * 10**6,
            row["published_acc"],
        )
        for row in published
        if row["table"] == "HRank" and row["arch"] == arch
    }
    found = {
        row.row: (row.macs.value, row.parameters.value, row.top1_percent.text)
        for row in rows_of(arch)
    }
    assert found == expected
