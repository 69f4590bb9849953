"""Bounds by unit: a number of a scenario that only a mistaken unit explains is refused, and the unit named.

Names of keys end with their units, so one table holds for all channels and policies, those to come too.
Bounds are wide: they are to catch wei for gwei, parts of one for basis points and raw amounts for whole
tokens, which are off by a thousand and more, and no scenario that is meant. Channels have closer bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from contracts_abi.errors import InputError


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit, and which numbers of it are taken for another one's.

    Attributes
    ----------
    ends
        What the names of its keys end with, where that begins with an underscore; else a whole name.
    most
        Largest size of a number, whatever its sign.
    least
        Smallest size of a number that is not 0.
    said
        How it is to be written.
    """

    ends: str
    most: float
    least: float
    said: str


UNITS: Final = (
    Unit("_gwei", 1e5, 0.0, "gwei, at most 100,000: 8 for a fee of 8 gwei, which is 8e9 wei"),
    Unit("_bps", 1e5, 1.0, "basis points, 0 or 1 to 100,000: 50 for half a per cent"),
    Unit("_usd", 1e13, 0.0, "US dollars, at most 1e13: 1500000 for a million and a half"),
    Unit("_usd_day", 1e13, 0.0, "US dollars a day, at most 1e13"),
    Unit("cash", 1e13, 0.0, "US dollars, at most 1e13: 1500000 for a million and a half"),
    Unit("tokens", 1e17, 0.0, "whole tokens, at most 1e17: 5 for 5 ether, which is 5e18 wei"),
    Unit("_tokens", 1e17, 0.0, "whole tokens, at most 1e17: 5 for 5 ether, which is 5e18 wei"),
    Unit("fee", 0.1, 0.0, "a part of what is traded, at most 0.1: 0.003 for 30 basis points"),
    Unit(
        "per_dollar", 0.01, 0.0, "a part of the price for each dollar, at most 0.01: 1e-9 for 0.1 % a million"
    ),
)
"""Units by the names of keys."""


def require_units(table: Any, where: str) -> None:
    """Refuse a number somewhere in a table that is beyond what its key's unit allows.

    Parameters
    ----------
    table
        As it stands in a file: tables, lists and values.
    where
        Dotted key of the table, for messages.

    Raises
    ------
    InputError
        Naming the key, the value and the unit.
    """
    if isinstance(table, Mapping):
        for key, value in table.items():
            _require_unit(str(key), value, f"{where}.{key}")
            require_units(value, f"{where}.{key}")
    elif isinstance(table, list | tuple):
        for i, value in enumerate(table):
            require_units(value, f"{where}.{i}")


def _require_unit(key: str, value: Any, where: str) -> None:
    named = (unit for unit in UNITS if key == unit.ends or (unit.ends[0] == "_" and key.endswith(unit.ends)))
    unit = next(named, None)
    if unit is None:
        return
    for name, number in value.items() if isinstance(value, Mapping) else [(None, value)]:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            continue  # whoever reads it says what is wrong with it
        if abs(number) > unit.most or 0.0 < abs(number) < unit.least:
            at = where if name is None else f"{where}.{name}"
            raise InputError(f"{at} is {number:g}", fix=unit.said)
