"""Exact values as text, the same everywhere: in the record, in the reports, in a message."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Final

_SIGNIFICANT: Final = 8
_WIDE: Final = Context(prec=120, rounding=ROUND_HALF_EVEN)


def decimal_of(value: Fraction) -> Decimal:
    """Return a fraction as a decimal of 120 digits, which holds every price and sum exactly or nearly so."""
    return _WIDE.divide(Decimal(value.numerator), Decimal(value.denominator))


def price_text(price: Fraction) -> str:
    """Return a price as a plain decimal: exact where it ends, else 8 places or 8 significant digits.

    The more precise of the two is taken, so that neither 43000.5 nor 0.0000012345 loses what matters.
    """
    exact = decimal_of(price)
    if exact == 0:
        return "0"
    places = max(_SIGNIFICANT, _SIGNIFICANT - exact.adjusted() - 1)
    if 18 >= -int(exact.as_tuple().exponent) > 0 and Fraction(exact) == price:
        places = max(places, -int(exact.as_tuple().exponent))
    return _trimmed(_fixed(price, places))


def money_text(value: Fraction) -> str:
    """Return an amount of quote currency with two places, rounded half to even."""
    return _fixed(value, 2)


def _fixed(value: Fraction, places: int) -> str:
    """Return a number of any size with so many places, rounded half to even."""
    rounded = round(value * 10**places)
    digits = f"{abs(rounded):0{places + 1}d}"
    sign = "-" if rounded < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def token_text(raw: int, decimals: int) -> str:
    """Return token units as whole tokens, exact."""
    return _trimmed(f"{Decimal(raw).scaleb(-decimals, _WIDE):f}")


def _trimmed(text: str) -> str:
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def stamp(t: int) -> str:
    """Return unix seconds as ``2022-05-12T08:00:00Z``."""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration_text(seconds: int) -> str:
    """Return a duration for people: ``0 s``, ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 0:
        return "−" + duration_text(-seconds)
    for size, unit, smaller, small in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"


def usd_text(money: str) -> str:
    """Return an amount of `money_text` for people: ``$1.23 m``, ``−$450.00``."""
    amount = Decimal(money)
    size = abs(amount)
    sign = "−" if amount < 0 else ""
    for unit, name in ((Decimal(10**12), " tn"), (Decimal(10**9), " bn"), (Decimal(10**6), " m")):
        if size >= unit:
            return f"{sign}${size / unit:,.2f}{name}"
    return f"{sign}${size:,.2f}" if size < 1_000 else f"{sign}${size:,.0f}"


def percent_text(bps: int) -> str:
    """Return basis points as a signed percentage, or as a factor where it says more."""
    if abs(bps) >= 1_000_000:
        factor = Decimal(bps) / 10_000 + 1
        return f"{factor:,.0f} times" if abs(factor) < 10**9 else f"{factor:.3g} times"
    return f"{bps / 100:+.2f} %".replace("-", "−")
