"""A printed number agrees with what rounds or truncates to its digits, and with nothing else."""

from decimal import Decimal

import pytest

from utils.paper.printed_number import PrintedNumber


@pytest.mark.parametrize(
    ("text", "value", "step"),
    [("62.72M", 62_720_000, 10_000), ("1.52B", 1_520_000_000, 10_000_000), ("12", 12, 1)],
)
def test_a_printed_number_is_its_digits_times_its_unit(text, value, step):
    printed = PrintedNumber(text)
    assert (printed.value, printed.step) == (value, step)


@pytest.mark.parametrize(
    ("text", "number", "agrees"),
    [
        ("62.72M", 62_715_530, True),  # rounded up
        ("0.53M", 538_175, True),  # truncated
        ("0.53M", 540_000, False),
        ("0.53M", 524_999, False),
        ("0.53M", 525_000, True),  # a tie, rounded up
        ("93.17", 93.17, True),
        ("93.50", 93.5, True),
        ("93.50", 93.4, False),
        ("93.5", 93.52, True),
    ],
)
def test_agreement_is_rounding_or_truncation_to_the_printed_digits(text, number, agrees):
    assert PrintedNumber(text).agrees_with(number) is agrees


@pytest.mark.parametrize("number", range(0, 3_000_000, 123_457))
def test_every_number_agrees_with_how_it_is_rounded_and_how_it_is_truncated(number):
    millions = Decimal(number) / 10**6
    for rounding in ("ROUND_HALF_EVEN", "ROUND_HALF_UP", "ROUND_DOWN"):
        text = f"{millions.quantize(Decimal('0.01'), rounding)}M"
        assert PrintedNumber(text).agrees_with(number)


@pytest.mark.parametrize("text", ["", "62,72M", "-1", "1.M", "5K", "62.72 M", "1e6"])
def test_other_text_is_an_error(text):
    with pytest.raises(ValueError, match="printed number: expected one like 62.72M or 93.50"):
        PrintedNumber(text)
