"""True prices from a file: which column is what, in what unit, zone and direction, is said and checked."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from contracts_abi.errors import InputError
from oracle.fields import PositiveDecimal
from oracle.sources import sources
from oracle.sources.recorded import LARGEST_OFFSET_S
from oracle.strict import StrictModel

_DECIMALS = 30
_FAR = 3
"""Times by which a price may differ from the one it should be near."""
_OWN_FIXES = {
    f"set decimals, which is {_DECIMALS}, or mend the row": (
        "mend the row, name another column, or set skip_bad_rows = true"
    ),
    "mend the row, or set allow_non_positive = true to let the guards judge it": (
        "mend the row, or set skip_bad_rows = true"
    ),
}
"""A recorded source's fixes that name keys which a truth does not have, and what helps here."""


class TruthFile(StrictModel):
    """A price series in a file.

    Attributes
    ----------
    path
        A ``.csv``, ``.csv.gz`` or ``.parquet`` file; relative to the scenario's folder.
    sha256
        Of its bytes; checked.
    time, price
        Names of the columns.
    time_unit
        ``iso`` or the unit of a number; ``s_or_ms`` where rows mix both.
    tz
        Zone of times without an offset, as ``America/New_York``; UTC without it.
    delimiter
        Between the columns of a CSV.
    time_offset_s
        Added to every time: 3600 for the close of hourly candles that carry their opening.
    order, duplicates
        In which order the rows stand, and what to do with two of one time.
    symbol_column, symbol
        Column that names the pair of each row, and the name to take; rows of others are left out.
    skip_bad_rows
        Leave out rows that cannot be read, instead of refusing the file.
    invert
        The file states how much base one quote is worth.
    near
        A price that the middle of the file should be near: catches an inverted or foreign series.
    max_gap_s
        Longest time between two rows.
    source
        Where the file is from.
    """

    path: str
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    time: str
    price: str
    time_unit: Literal["s", "ms", "us", "ns", "s_or_ms", "iso"] = "iso"
    tz: str | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    time_offset_s: int = Field(default=0, ge=-LARGEST_OFFSET_S, le=LARGEST_OFFSET_S)
    order: Literal["ascending", "descending"] = "ascending"
    duplicates: Literal["refuse", "first", "last"] = "refuse"
    symbol_column: str | None = None
    symbol: str | None = None
    skip_bad_rows: bool = False
    invert: bool = False
    near: PositiveDecimal | None = None
    max_gap_s: int | None = Field(default=None, ge=1)
    source: str = ""

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()

    @model_validator(mode="after")
    def _symbol_with_its_column(self) -> TruthFile:
        if (self.symbol_column is None) != (self.symbol is None):
            raise ValueError("symbol_column and symbol go together: give both, or none")
        return self

    def read(self, pair: str, folder: Path, where: str) -> tuple[tuple[int, Fraction], ...]:
        """Return time and price of every row, in time order.

        Raises
        ------
        InputError
            Naming file, row and fix.
        """
        base, quote = pair.split("/")
        config: dict[str, Any] = {
            "kind": "recorded",
            "base": base,
            "quote": quote,
            "path": folder / self.path,
            "decimals": _DECIMALS,
            "time": self.time,
            "price": self.price,
            "sha256": self.sha256,
            "time_unit": self.time_unit,
            "tz": self.tz,
            "delimiter": self.delimiter,
            "time_offset_s": self.time_offset_s,
            "order": self.order,
            "duplicates": self.duplicates,
            "symbol_column": self.symbol_column,
            "symbol": self.symbol,
            "skip_bad_rows": self.skip_bad_rows,
        }
        try:
            source = sources.build(config, where=where)
        except InputError as error:
            text = str(error)
            for theirs, own in _OWN_FIXES.items():
                if text.endswith(f"; {theirs}"):
                    raise InputError(text.removesuffix(f"; {theirs}"), fix=own) from None
            raise
        rows = tuple(
            (t, 1 / Fraction(mantissa, 10**_DECIMALS) if self.invert else Fraction(mantissa, 10**_DECIMALS))
            for t, mantissa in source.series()
        )
        self._plausible(rows, where)
        self._without_gaps(rows, where)
        return rows

    def _plausible(self, rows: tuple[tuple[int, Fraction], ...], where: str) -> None:
        if self.near is None:
            return
        middle, near = median_low(price for _, price in rows), Fraction(self.near)
        if near / _FAR <= middle <= near * _FAR:
            return
        if near / _FAR <= 1 / middle <= near * _FAR:
            fix = "set invert = false" if self.invert else "set invert = true"
            raise InputError(
                f"{where}: the prices of {self.path} are inverted: their middle is {float(middle):.6g}",
                fix=fix,
            )
        raise InputError(
            f"{where}: the middle of the prices of {self.path} is {float(middle):.6g}, not near {self.near}",
            fix="check the column, the pair and its unit",
        )

    def _without_gaps(self, rows: tuple[tuple[int, Fraction], ...], where: str) -> None:
        if self.max_gap_s is None:
            return
        for (before, _), (after, _) in pairwise(rows):
            if after - before > self.max_gap_s:
                raise InputError(
                    f"{where}: {self.path} has no row for {after - before} s after time {before}, "
                    f"limit {self.max_gap_s}",
                    fix="fill the gap, or set max_gap_s higher",
                )
