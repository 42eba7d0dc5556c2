"""Verdicts on measured numbers beside published ones."""

import json

import pytest

from utils.metrics.accuracy import Accuracy
from utils.paper.compare import EXACT, NO_RATES, compare_row, row_without_rates
from utils.paper.tables import rows_of


def row_named(arch, name):
    return next(row for row in rows_of(arch) if row.row == name)


def test_what_rounds_to_the_printed_digits_is_exact():
    found = compare_row(row_named("resnet_56", "50.0%"), 62_715_530, 489_359)
    assert found["verdict"] == EXACT
    assert found["macs"] == {
        "published": "62.72M", "measured": 62_715_530, "difference": -4_470, "verdict": EXACT
    }  # fmt: skip


def test_what_truncates_to_the_printed_digits_is_exact():
    found = compare_row(row_named("resnet_110", "68.6%"), 79_304_330, 538_175)
    assert found["parameters"]["verdict"] == EXACT and found["verdict"] == EXACT


def test_a_difference_is_computed_and_named():
    found = compare_row(row_named("vgg_16_bn", "65.3%"), 116_629_002, 4_808_145)
    assert found["macs"]["difference"] == 116_629_002 - 108_610_000
    assert found["verdict"] == (
        "macs: differs by +8,019,002 (+7.38%), parameters: differs by +2,168,145 (+82.13%)"
    )


def test_the_verdict_names_each_part_when_only_one_differs():
    found = compare_row(row_named("resnet_110", "58.2%"), 105_625_226, 701_903)
    assert found["verdict"] == f"macs: differs by -74,774 (-0.07%), parameters: {EXACT}"


def test_accuracy_leaves_the_verdict_on_arithmetic_alone():
    row = row_named("resnet_56", "50.0%")
    found = compare_row(row, 62_715_530, 489_359, Accuracy(9200, 10_000, loss=0.3))
    assert found["verdict"] == EXACT
    assert found["top1_percent"]["difference"] == pytest.approx(-1.17)
    assert found["top1_percent"]["verdict"] == (
        "differs by -1.17 points, the published one outside the 95% interval of 10,000 images"
    )


@pytest.mark.parametrize(
    ("correct", "images", "verdict"),
    [(9317, 10_000, EXACT), (943, 1_017, "inside the 95% interval of 1,017 images")],
)
def test_accuracy_is_judged_with_the_interval_of_its_images(correct, images, verdict):
    row = row_named("resnet_56", "50.0%")
    found = compare_row(row, 62_715_530, 489_359, Accuracy(correct, images, loss=0.3))
    assert found["top1_percent"]["verdict"].endswith(verdict)


def test_a_comparison_is_plain_data():
    row = row_named("resnet_56", "baseline")
    found = compare_row(row, 125_485_706, 848_954, Accuracy(9, 10, loss=0.3))
    assert json.loads(json.dumps(found)) == found
    assert compare_row(row, 125_485_706, 848_954)["top1_percent"] is None


def test_a_row_without_rates_has_the_form_of_the_others_and_no_numbers_of_ours():
    row = row_named("vgg_16_bn", "76.5%")
    found, other = row_without_rates(row), compare_row(row, 1, 1)
    assert found.keys() == other.keys() and found["macs"].keys() == other["macs"].keys()
    assert found["verdict"] == NO_RATES and found["macs"]["published"] == "73.70M"
    assert found["macs"]["measured"] is None and found["note"].startswith("No rates published")
