"""The rows in facts.json: complete, findable by their rates, and the reference's numbers."""

import re
from decimal import Decimal

import pytest

from tests.reference import needs_reference, reference
from utils.paper.tables import matching_row, published_rows, rows_of

NUM_RATES = {  # layout, network: rates
    ("hrank", "vgg_16_bn"): 13,
    ("hrank", "resnet_56"): 55,
    ("hrank", "resnet_110"): 109,
    ("hrank", "densenet_40"): 39,
    ("hrank", "googlenet"): 10,
    ("hrank", "resnet_50"): 53,
    ("hrankplus", "vgg_16_bn"): 12,
    ("hrankplus", "resnet_56"): 30,
    ("hrankplus", "resnet_110"): 57,
    ("hrankplus", "densenet_40"): 39,
    ("hrankplus", "googlenet"): 10,
    ("hrankplus", "resnet_50"): 20,
    ("hrankplus", "mobilenet_v2"): 8,
}
UNITS = {"M": 10**6, "B": 10**9}


def expand(string):
    terms = re.findall(r"\[([\d.]+)\](?:\*(\d+))?", string)
    return [float(rate) for rate, count in terms for _ in range(int(count or 1))]


def row_named(arch, name):
    return next(row for row in rows_of(arch) if row.row == name)


def test_every_row_is_of_a_known_network():
    assert {(row.layout, row.arch) for row in published_rows()} == NUM_RATES.keys()


@pytest.mark.parametrize(("layout", "arch"), NUM_RATES)
def test_the_baseline_comes_first_and_no_name_twice(layout, arch):
    names = [row.row for row in rows_of(arch, layout)]
    assert names[0] == "baseline" and len(set(names)) == len(names)


@pytest.mark.parametrize(("layout", "arch"), NUM_RATES)
def test_every_row_has_a_source_and_rates_of_the_right_length(layout, arch):
    for row in rows_of(arch, layout):
        assert row.arch == arch and row.source
        assert (row.compress_rate is None) == (row.compress_rate_source is None)
        if row.compress_rate is not None:
            assert len(expand(row.compress_rate)) == NUM_RATES[layout, arch]
        else:
            assert row.note.startswith("No rates published")


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: f"{row.arch} {row.row}")
def test_rates_that_are_not_the_authors_prove_nothing_and_say_so(row):
    source = row.compress_rate_source or ""
    others = source.startswith(("search:", "third party:"))
    assert others == ("a match proves nothing" in source)


@pytest.mark.parametrize(("layout", "arch"), NUM_RATES)
def test_every_row_with_rates_is_found_by_its_rates(layout, arch):
    for row in rows_of(arch, layout):
        if row.compress_rate is not None:
            rates = expand(row.compress_rate)
            found = matching_row(rows_of(arch, layout), rates, expand)
            assert (found.compress_rate, found.layout) == (row.compress_rate, layout)


def test_the_spelling_of_the_rates_does_not_matter():
    found = matching_row(rows_of("resnet_110"), [0.1] + [0.4] * 108, expand)
    assert found.row == "37.9% (README correction)"


def test_a_correction_is_found_before_what_it_corrects():
    mistaken = row_named("resnet_110", "41.2% (paper)")
    found = matching_row(rows_of("resnet_110"), expand(mistaken.compress_rate), expand)
    assert found.macs.text == "156.90M"


def test_unpublished_rates_and_unpublished_networks_match_no_row():
    assert matching_row(rows_of("resnet_56"), [0.123] * 55, expand) is None
    assert matching_row(rows_of("no_such_network"), [0.0], expand) is None
    assert rows_of("no_such_network") == ()


def test_the_same_rates_in_another_layout_match_no_row():
    rates = expand("[0.0]+[0.2]*12+[0.0]+[0.2]*12+[0.0]+[0.2]*12")
    assert matching_row(rows_of("densenet_40", "hrankplus"), rates, expand).row == "38.5%"
    assert matching_row(rows_of("densenet_40"), rates, expand) is None


@pytest.mark.parametrize(("layout", "arch"), NUM_RATES)
def test_printed_macs_and_their_percentages_agree_or_a_note_says_that_they_do_not(layout, arch):
    dense = rows_of(arch, layout)[0].macs.value
    for row in rows_of(arch, layout):
        percent = 100 - 100 * row.macs.value / dense
        slack = row.macs_removed_percent.step + 100 * row.macs.step / dense
        if abs(percent - row.macs_removed_percent.value) > slack:
            assert f"{row.macs_removed_percent.text}%" in row.note, row.row


@needs_reference
def test_rows_are_the_rows_of_the_reference():
    expected = [
        (
            row["table"].split()[0],
            row["arch"],
            row["row"].replace("base", "baseline"),
            Decimal(str(row["published_flops"])) * UNITS[row["published_flops_unit"]],
            Decimal(str(row["published_params_M"])) * 10**6,
            row["published_acc"].split()[0],
        )
        for row in reference("flops.json")["published"]
    ]
    found = [
        (
            row.publication,
            row.arch,
            row.row,
            row.macs.value,
            row.parameters.value,
            "/".join(top.text for top in (row.top1_percent, row.top5_percent) if top),
        )
        for row in published_rows()
    ]
    assert found == expected
