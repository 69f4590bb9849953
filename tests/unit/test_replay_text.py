"""Exact values as text: nothing is lost that matters, and the same value is always the same text."""

from __future__ import annotations

from fractions import Fraction

import pytest

from simulation.replay.text import (
    duration_text,
    money_text,
    percent_text,
    price_text,
    stamp,
    token_text,
    usd_text,
)


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (Fraction("43000.5"), "43000.5"),
        (Fraction(1, 3), "0.33333333"),
        (Fraction(2, 3), "0.66666667"),
        (Fraction("0.0000012345"), "0.0000012345"),
        (Fraction(1, 3 * 10**12), "0.00000000000033333333"),
        (Fraction(2_603_130_370_000_000), "2603130370000000"),
        (Fraction("1.193900000000000001"), "1.193900000000000001"),
        (Fraction("100"), "100"),
        (Fraction(0), "0"),
        (Fraction("-5402.00"), "-5402"),
        (2 * 10**36 + Fraction("0.000000000000000001"), "2" + "0" * 36 + ".000000000000000001"),
        (Fraction(10**400), "1" + "0" * 400),
        (Fraction("1e-10"), "0.0000000001"),
        (Fraction(-1, 3), "-0.33333333"),
    ],
)
def test_prices(price: Fraction, text: str) -> None:
    assert price_text(price) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(1, 3), "0.33"),
        (Fraction("0.125"), "0.12"),
        (Fraction("0.135"), "0.14"),
        (Fraction(-1, 1000), "0.00"),
        (Fraction(-3, 2), "-1.50"),
        (Fraction(10**30), "1" + "0" * 30 + ".00"),
        (Fraction(-(10**400)), "-1" + "0" * 400 + ".00"),
        (Fraction("-0.05"), "-0.05"),
    ],
)
def test_money_is_rounded_half_to_even_and_never_minus_zero(value: Fraction, text: str) -> None:
    assert money_text(value) == text


def test_tokens_are_exact() -> None:
    assert token_text(1_500_000, 6) == "1.5"
    assert token_text(10**24, 18) == "1000000"
    assert token_text(1, 18) == "0." + "0" * 17 + "1"
    assert token_text(0, 18) == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (725, "12 min 5 s"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
        (-90, "−1 min 30 s"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("money", "text"),
    [
        ("0.00", "$0.00"),
        ("999.99", "$999.99"),
        ("1779044.83", "$1.78 m"),
        ("-45.20", "−$45.20"),
        ("26300.49", "$26,300"),
        ("2600000000000.00", "$2.60 tn"),
    ],
)
def test_dollars_for_people(money: str, text: str) -> None:
    assert usd_text(money) == text


@pytest.mark.parametrize(
    ("bps", "text"),
    [
        (0, "+0.00 %"),
        (-285, "−2.85 %"),
        (84_691, "+846.91 %"),
        (10**16, "1.00e+12 times"),
        (1_600_000, "161 times"),
    ],
)
def test_percentages(bps: int, text: str) -> None:
    assert percent_text(bps) == text


def test_stamps_are_utc() -> None:
    assert stamp(1_652_342_400) == "2022-05-12T08:00:00Z"
