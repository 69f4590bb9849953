"""Field types that the models of files share: times, exact decimals, pairs and addresses."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeAlias

from eth_utils.address import is_address
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from contracts_abi.calls import checksummed


def _unix(value: object) -> object:
    """Turn a TOML date-time with an offset into unix seconds."""
    if not isinstance(value, datetime):
        raise ValueError("needs a date and time with an offset, such as 2020-03-12T09:00:00Z")
    if value.tzinfo is None:
        raise ValueError("has no time zone; write the offset, such as Z for UTC")
    if value.microsecond:
        raise ValueError("has a fraction of a second; times are whole seconds")
    return int(value.timestamp())


_MAGNITUDE = 80
"""Places before and after the point that a figure may have: a 256-bit integer has 77 digits."""


def _positive_decimal(value: object) -> object:
    """Turn a decimal string into a `Decimal`; a TOML float would already have lost digits.

    Figures beyond `_MAGNITUDE` are refused: a short text such as ``1e999999999`` is an integer of a gigabyte.
    """
    if not isinstance(value, str):
        raise ValueError('must be a quoted decimal, such as "169.54"')
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError('is not a decimal number such as "169.54"') from None
    if not number.is_finite() or number <= 0:
        raise ValueError("must be finite and above zero")
    if number.adjusted() >= _MAGNITUDE or -int(number.as_tuple().exponent) > _MAGNITUDE:
        raise ValueError(f"has more than {_MAGNITUDE} places before or after the point")
    return number


def _amount(value: object) -> object:
    """Turn a decimal string of at least zero into a `Decimal`."""
    return Decimal(0) if isinstance(value, str) and _is_zero(value) else _positive_decimal(value)


def _signed(value: object) -> object:
    """Turn a decimal string of either sign into a `Decimal`."""
    if isinstance(value, str) and value.startswith("-"):
        number = _positive_decimal(value[1:])
        return -number if isinstance(number, Decimal) else number
    return _positive_decimal(value)


def _is_zero(text: str) -> bool:
    try:
        return Decimal(text) == 0
    except InvalidOperation:
        return False


def bounded_number(text: str) -> None:
    """Refuse a number that is none, or whose digits would fill memory; words that are no number pass.

    Raises
    ------
    ValueError
        If it has more places than `_positive_decimal` allows, or is infinite.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        return
    if not number.is_finite():
        raise ValueError("must be finite")
    if number.adjusted() >= _MAGNITUDE or -int(number.as_tuple().exponent) > _MAGNITUDE:
        raise ValueError(f"has more than {_MAGNITUDE} places before or after the point")


UnixSeconds: TypeAlias = Annotated[
    int, BeforeValidator(_unix), WithJsonSchema({"type": "string", "format": "date-time"})
]
PositiveDecimal: TypeAlias = Annotated[
    Decimal, BeforeValidator(_positive_decimal), WithJsonSchema({"type": "string", "format": "decimal"})
]
AnyAmount: TypeAlias = Annotated[
    Decimal, BeforeValidator(_amount), WithJsonSchema({"type": "string", "format": "decimal"})
]
SignedDecimal: TypeAlias = Annotated[
    Decimal, BeforeValidator(_signed), WithJsonSchema({"type": "string", "format": "decimal"})
]
Pair: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+$")]


def _checksummed(value: str) -> str:
    if not is_address(value):
        raise ValueError("is no address: 0x and 40 hex digits are needed")
    return checksummed(value)


Address: TypeAlias = Annotated[str, AfterValidator(_checksummed)]
