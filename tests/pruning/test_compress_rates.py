"""The rate grammar reads what the official code reads, and refuses what that code misreads."""

import random
import re

import pytest

from tests.reference import needs_reference, reference
from utils.pruning.compress_rates import fit_rates, format_rates, num_removed, parse_rates

# What the official code was run on, and what it gave.
READ_ALIKE = {
    "[0.]": [0.0],
    "[0.95]+[0.5]*6": [0.95] + [0.5] * 6,
    "0.5": [0.5],
    "0.": [0.0],
    "0.5*3": [0.5] * 3,
    "[0.5] *6": [0.5] * 6,
    "[0.5]*0": [],
    " [0.5] + [0.6]*2 ": [0.5, 0.6, 0.6],
    "(0.5)*3": [0.5] * 3,
    "[0.5]*03": [0.5] * 3,
    "[0.10]+[0.8]*5+[0.85]+[0.8]*3": [0.1] + [0.8] * 5 + [0.85] + [0.8] * 3,
    "0.1+0.2": [0.1, 0.2],
    r"[0.5]\*2": [0.5, 0.5],
    "[0.60]*35+\n[0.4]": [0.6] * 35 + [0.4],
}
MISREAD = {  # what was given, and the term that is wrong
    "[1.]": "[1.]",
    "6*[0.5]": "6*[0.5]",
    "[-0.5]": "[-0.5]",
    "[7.5]": "[7.5]",
    "[10.5]": "[10.5]",
    "[1.5e-1]": "[1.5e-1]",
    "[0.5]x3": "[0.5]x3",
    "[0..5]": "[0..5]",
    "[0.5]*-3": "[0.5]*-3",
    "[0.5": "[0.5",
    "[0.5)": "[0.5)",
    "[0.1]+[nan 0.5]": "[nan 0.5]",
}
REJECTED_ALIKE = ["[1]", "[0.5,0.6]", "[0.5]*2.5", "[1e-1]", "[0.5]*6*2", "", "[0.5]+", "0,5"]
REJECTED_ALIKE += [
    "[0.5]-[0.6]",
    "[]",
    "*3",
    "+",
    "[0.5]++[0.5]",
    "rate",
    "[nan]",
    "[inf]",
    "[0x1]",
]
COUNT_AFTER_BLANK = ["[0.5] * 6", "[0.5]* 6"]  # the official code takes these as one rate


def official_rates(text):
    """What the official code makes of `text`; None where it stops."""
    rates = []
    for term in text.split("+"):
        counts, values = re.findall(r"\*\d+", term), re.findall(r"\d+\.\d*", term)
        if len(counts) > 1 or len(values) != 1:
            return None
        rates += [float(values[0])] * (int(counts[0][1:]) if counts else 1)
    return rates


@pytest.mark.parametrize("text", READ_ALIKE)
def test_what_makes_sense_is_read_as_the_official_code_reads_it(text):
    assert parse_rates(text) == READ_ALIKE[text] == official_rates(text)


@pytest.mark.parametrize("text", MISREAD)
def test_what_the_official_code_misreads_is_an_error(text):
    assert official_rates(text) is not None
    with pytest.raises(ValueError, match=re.escape(f"got {MISREAD[text]!r}")):
        parse_rates(text)


@pytest.mark.parametrize("text", REJECTED_ALIKE)
def test_what_the_official_code_stops_at_is_an_error(text):
    assert official_rates(text) is None
    with pytest.raises(ValueError, match=r"compress rate, term \d+ \(character \d+\): expected"):
        parse_rates(text)


@pytest.mark.parametrize("text", COUNT_AFTER_BLANK)
def test_a_blank_before_the_count_hides_nothing(text):
    assert official_rates(text) == [0.5]
    assert parse_rates(text) == [0.5] * 6


@pytest.mark.parametrize(
    ("text", "rate"), [("[.5]", 0.5), ("[0]", 0.0), ("0", 0.0), ("[ 0.5 ]", 0.5)]
)
def test_other_spellings_of_a_number_are_read(text, rate):
    assert parse_rates(text) == [rate]


def test_random_texts_are_read_alike_or_refused():
    generator, accepted = random.Random(0), 0
    pieces = ["[", "]", "(", ")", "*", "+", ".", "0", "1", "5", "0.5", "[0.5]", "*2", " ", "-", "e"]
    for _ in range(20_000):
        text = "".join(generator.choices(pieces, k=generator.randint(1, 8)))
        official = official_rates(re.sub(r"\s", "", text))
        try:
            rates = parse_rates(text)
        except ValueError:
            continue
        accepted += 1
        assert all(0 <= rate < 1 for rate in rates)
        assert official in (rates, None), text
    assert accepted > 500, "hardly any text was accepted: nothing was compared"


def test_the_error_says_where_and_what():
    message = (
        "compress rate, term 3 (character 13): expected [rate] or [rate]*count "
        "with 0 <= rate < 1 and count <= 9999, got '[1.5]*2'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_rates("[0.1]+[0.2]+[1.5]*2")


@pytest.mark.parametrize("rate", ["1", "1.0", "0.99999999999999999999", "9" * 400])
def test_a_rate_that_keeps_nothing_is_an_error(rate):
    with pytest.raises(ValueError, match="0 <= rate < 1"):
        parse_rates(f"[{rate}]")


@pytest.mark.parametrize("count", ["10000", "999999999999", "9" * 5000])
def test_a_count_beyond_any_network_is_an_error(count):
    with pytest.raises(ValueError, match="count <= 9999"):
        parse_rates(f"[0.5]*{count}")


@pytest.mark.parametrize("text", [t for t in READ_ALIKE if t != "[0.5]*0"])
def test_formatted_rates_parse_to_the_same(text):
    assert parse_rates(format_rates(parse_rates(text))) == parse_rates(text)


def test_any_rates_survive_formatting():
    generator = random.Random(0)
    rates = [generator.random() ** generator.choice([1, 20, 60]) for _ in range(2000)]
    rates += [0.0, 0.0, 1e-5, 5e-324, 1 - 2**-53, 0.1 + 0.2]
    assert parse_rates(format_rates(rates)) == rates


def test_equal_neighbours_are_joined():
    assert format_rates([0.95, 0.5, 0.5, 0.5, 0.9, 0.5]) == "[0.95]+[0.5]*3+[0.9]+[0.5]"
    assert format_rates([0, 0.00001]) == "[0.0]+[0.00001]"


def test_rates_that_the_official_code_ignores_are_dropped():
    rates = [0.1 * i for i in range(8)]
    assert fit_rates(rates, 8, 0, "net") == rates
    assert fit_rates(rates, 7, 1, "net") == rates[:7]
    assert fit_rates(rates[:7], 7, 1, "net") == rates[:7]


@pytest.mark.parametrize("number", [0, 11, 14, 55])
def test_too_few_or_too_many_rates_are_an_error(number):
    message = (
        f"compress rate: {number} rates for vgg_16_bn, "
        "expected 12 (or 13; the official code ignores the last)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        fit_rates([0.5] * number, 12, 1, "vgg_16_bn")


def test_where_none_is_ignored_the_number_must_fit():
    with pytest.raises(ValueError, match=r"56 rates for resnet_56, expected 55$"):
        fit_rates([0.5] * 56, 55, 0, "resnet_56")


@pytest.mark.parametrize(
    ("rate", "filters", "removed"),
    [(0.0, 64, 0), (0.95, 64, 60), (0.6, 16, 9), (0.29, 100, 28), (0.1, 16, 1), (0.99, 16, 15)],
)
def test_the_number_removed_is_the_truncated_product(rate, filters, removed):
    assert num_removed(rate, filters) == removed


@pytest.mark.parametrize("rate", [-0.5, 1.0, 1.5, float("nan")])
def test_an_impossible_rate_removes_nothing(rate):
    with pytest.raises(ValueError, match=f"compress rate {rate}: expected 0 <= rate < 1"):
        num_removed(rate, 64)


@needs_reference
def test_every_published_string_is_read_as_the_official_code_reads_it():
    rows = reference("flops.json")["hrank_strings"]
    assert rows
    for row in rows:
        rates = parse_rates(row["compress_rate"])
        assert rates == official_rates(row["compress_rate"])
        assert len(rates) == row["n_rates"]
