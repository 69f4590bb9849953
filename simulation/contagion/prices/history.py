"""Tables of past prices: read from a file, checked, and turned into log returns of one period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.prices.fields import check_assets
from simulation.types import Float64


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices of some assets at the same times.

    Attributes
    ----------
    assets
        Symbols.
    times
        Unix seconds, rising, shape ``(rows,)``.
    prices
        Positive, shape ``(rows, assets)``.
    """

    assets: tuple[str, ...]
    times: Float64
    prices: Float64

    def __post_init__(self) -> None:
        rows = len(self.times)
        if rows < 2 or self.prices.shape != (rows, len(self.assets)):
            raise InputError(
                f"prices of shape {self.prices.shape} for {rows} times of {len(self.assets)} assets",
                fix="give two times or more, and a price of each asset at each",
            )
        check_assets(self.assets, np.ones(len(self.assets)))
        if not np.isfinite(self.times).all():
            raise InputError("a time of the table is not a number", fix="use unix seconds")
        gaps = np.diff(self.times)
        if not (gaps > 0).all():
            row = int(np.argmin(gaps > 0))
            raise InputError(
                f"time {self.times[row + 1]:.0f} is not after {self.times[row]:.0f}",
                fix="sort the rows and leave repeated ones out",
            )
        bad = np.argwhere(~(np.isfinite(self.prices) & (self.prices > 0)))
        if len(bad):
            row, a = bad[0]
            raise InputError(
                f"price of {self.assets[a]} at {self.times[row]:.0f} is {self.prices[row, a]:g}",
                fix="a price is positive; leave the row out",
            )

    def log_returns(self, period_s: float) -> Float64:
        """Return the log returns of each period, shape ``(rows - 1, assets)``.

        Raises
        ------
        InputError
            Where two rows are not `period_s` apart: a gap is not a return.
        """
        off = np.flatnonzero(np.abs(np.diff(self.times) - period_s) > 1e-6 * period_s)
        if len(off):
            row = int(off[0])
            raise InputError(
                f"rows at {self.times[row]:.0f} and {self.times[row + 1]:.0f} are not {period_s:g} s apart",
                fix="cut the table before the gap, or fill it",
            )
        return np.asarray(np.diff(np.log(self.prices), axis=0))


def read_table(path: Path, assets: Sequence[str]) -> PriceTable:
    """Read a table: a column ``time`` in unix seconds or ISO 8601 (UTC), and one column for each asset.

    Parameters
    ----------
    path
        ``.csv`` (also compressed) or ``.parquet``; rows in any order.
    assets
        Columns that are wanted; others are left.

    Raises
    ------
    InputError
        Naming the file and what it lacks.
    """
    import pandas as pd  # here, since most runs read no table

    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}", fix="give a CSV or Parquet file of prices") from None
    for name in ("time", *assets):
        if name not in frame.columns:
            raise UnknownNameError(f"column of {path}", name, [str(c) for c in frame.columns])
    try:
        times = _seconds(frame["time"])
        prices = frame[list(assets)].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: {error}", fix="times are unix seconds or ISO 8601, prices numbers"
        ) from None
    order = np.argsort(times, kind="stable")
    try:
        return PriceTable(tuple(assets), times[order], prices[order])
    except InputError as error:
        raise InputError(f"{path}: {error.message}", fix=error.fix) from None


def _seconds(column: object) -> Float64:
    import pandas as pd

    series = pd.Series(column)
    if pd.api.types.is_numeric_dtype(series):
        return np.asarray(series, dtype=np.float64)
    stamps = pd.to_datetime(series, utc=True, format="ISO8601")
    return np.asarray((stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1), dtype=np.float64)
