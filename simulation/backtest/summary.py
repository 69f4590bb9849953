"""Statistics of a sweep per parameter point, each with its sampling error, one column of one point at a time.

The error of a mean comes from batch means: paths are cut into batches in their order, and the spread of the
batches' means is what counts. Neighbours that belong together (antithetic pairs) then do not pass for
independent. Quantiles have distribution-free limits from the binomial order statistics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit

from contracts_abi.errors import InputError
from simulation.backtest.parts import PATH, POINT
from simulation.backtest.plan import Scalar, SweepPlan
from simulation.backtest.store import read_plan, read_tables
from simulation.types import Float64

BATCHES: Final = 20
"""Enough for a spread, few enough that a batch's mean is nearly normal."""

QUANTILES: Final = (0.05, 0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile with distribution-free limits.

    Attributes
    ----------
    level
        Between 0 and 1.
    value
        The smallest value that at least this share of the rows does not exceed.
    low, high
        Limits that hold the true quantile with at least 95 %; infinite where the rows are too few for one.
    """

    level: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """One column at one parameter point.

    Attributes
    ----------
    point
        Number of the point.
    parameters
        The swept values there.
    column
        Name of the column.
    rows, unknown
        Rows with a value, and without one (missing or not a number); the figures are of the former.
    mean
        Of the rows with a value; not a number where there is none.
    standard_error
        Of the mean, by batch means; not a number with fewer than two batches.
    low, high
        Limits of the mean at 95 %, by Student's t.
    min, max
        Extremes.
    quantiles
        By level.
    """

    point: int
    parameters: Mapping[str, Scalar]
    column: str
    rows: int
    unknown: int
    mean: float
    standard_error: float
    low: float
    high: float
    min: float
    max: float
    quantiles: tuple[Quantile, ...]

    def record(self) -> dict[str, Any]:
        """Return JSON types; what is unknown or without limit is null."""
        plain = {
            name: _json(getattr(self, name))
            for name in ("mean", "standard_error", "low", "high", "min", "max")
        }
        return {
            "point": self.point,
            "parameters": dict(self.parameters),
            "column": self.column,
            "rows": self.rows,
            "unknown": self.unknown,
            **plain,
            "quantiles": [
                {"level": q.level, "value": _json(q.value), "low": _json(q.low), "high": _json(q.high)}
                for q in self.quantiles
            ],
        }


def summaries(
    folder: Path,
    *,
    columns: Sequence[str] | None = None,
    batches: int = BATCHES,
    quantiles: Sequence[float] = QUANTILES,
) -> Iterator[Statistics]:
    """Yield the statistics of a whole sweep, point by point, column by column.

    Parameters
    ----------
    folder
        Of the sweep.
    columns
        Numbers and booleans, the latter as 0 and 1; all of them without it.
    batches
        Of paths, at least two.
    quantiles
        Levels between 0 and 1.

    Raises
    ------
    InputError
        For a column that is unknown or holds text, and for numbers out of range.
    DataError
        If a part is missing or damaged.
    """
    if batches < 2:
        raise InputError(f"batches: must be at least 2, got {batches}")
    if wrong := [level for level in quantiles if not 0 < level < 1]:
        raise InputError(f"quantiles: must be between 0 and 1, got {wrong[0]}")
    plan = read_plan(folder)
    for point in range(plan.points):
        for column in _numbers(folder, columns):
            tables = list(read_tables(folder, columns=[PATH, column], points=[point]))
            yield _statistics(plan, point, column, pa.concat_tables(tables), batches, quantiles)


def _numbers(folder: Path, columns: Sequence[str] | None) -> list[str]:
    first = next(read_tables(folder, columns=columns))
    found = []
    for field in first.schema:
        is_number = not pa.types.is_string(field.type)
        if columns is not None and not is_number:
            raise InputError(f"column {field.name!r}: is text", fix="name columns of numbers")
        if is_number and (columns is not None or field.name not in (POINT, PATH)):
            found.append(field.name)
    return found


def _statistics(
    plan: SweepPlan, point: int, column: str, table: pa.Table, batches: int, quantiles: Sequence[float]
) -> Statistics:
    values = _floats(table[column])
    paths = _floats(table[PATH])
    known = ~np.isnan(values)
    group = 2 if json.loads(plan.scenario).get("antithetic") is True else 1  # no pair is torn apart
    batch = np.minimum(paths[known] // group * group * batches // plan.paths, batches - 1).astype(np.int64)
    mean, error, low, high = batch_means(values[known], batch, batches)
    ordered = np.sort(values[known])
    return Statistics(
        point=point,
        parameters=plan.parameters(point),
        column=column,
        rows=len(ordered),
        unknown=len(values) - len(ordered),
        mean=mean,
        standard_error=error,
        low=low,
        high=high,
        min=float(ordered[0]) if len(ordered) else np.nan,
        max=float(ordered[-1]) if len(ordered) else np.nan,
        quantiles=tuple(quantile(ordered, level) for level in quantiles),
    )


def _floats(column: pa.ChunkedArray) -> Float64:
    floats: Float64 = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
    return floats


def batch_means(
    values: Float64, batch: np.ndarray[Any, np.dtype[np.int64]], batches: int
) -> tuple[float, float, float, float]:
    """Return mean, its standard error, and its limits at 95 %.

    Parameters
    ----------
    values
        Shape (n,), known values.
    batch
        Shape (n,), the batch that each is of.
    batches
        How many batches there may be; empty ones do not count.

    Returns
    -------
    tuple of float
        The mean of all values; the standard error sqrt(sum of w_b (m_b - m)^2 / (B - 1)) over the B batches'
        means m_b, weighted by their share w_b of the values; the limits by Student's t with B - 1 degrees.
    """
    if not len(values):
        return np.nan, np.nan, np.nan, np.nan
    mean = float(np.mean(values))
    counts = np.bincount(batch, minlength=batches)
    filled = counts > 0
    number = int(filled.sum())
    if number < 2:
        return mean, np.nan, np.nan, np.nan
    means = np.bincount(batch, weights=values, minlength=batches)[filled] / counts[filled]
    weights = counts[filled] / counts.sum()
    error = float(np.sqrt((weights * (means - mean) ** 2).sum() / (number - 1)))
    reach = float(stdtrit(number - 1, 0.975)) * error
    return mean, error, mean - reach, mean + reach


def quantile(ordered: Float64, level: float) -> Quantile:
    """Return a quantile of sorted values, with limits that need no distribution.

    The number of values below the true quantile is binomial, so ranks at its 2.5 % and 97.5 % points hold it.
    """
    from scipy.stats import binom  # half a second, which only who asks for quantiles waits

    n = len(ordered)
    if n == 0:
        return Quantile(level, np.nan, -np.inf, np.inf)
    # The first rank whose share is at least the level; the slack is for 0.95 * 20 and the like.
    rank = max(1, int(np.ceil(level * n - 1e-9)))
    low = int(binom.ppf(0.025, n, level))
    high = int(binom.ppf(0.975, n, level)) + 1
    return Quantile(
        level=level,
        value=float(ordered[rank - 1]),
        low=float(ordered[low - 1]) if low >= 1 else -np.inf,
        high=float(ordered[high - 1]) if high <= n else np.inf,
    )


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
