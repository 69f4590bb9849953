"""Any marginals, bound by a t copula: extremes of several assets come together more often than by chance.

A step draws ``T = X sqrt(n / C)``, ``X`` normal with the given correlation and ``C`` a chi-square common to
all assets, and gives each asset the quantile of its own distribution at ``U = F_n(T)``. Kendall's tau of a
pair is ``2 / pi asin(rho)`` whatever the marginals (Lindskog, McNeil and Schmock 2003), and the chance of a
joint extreme does not vanish: ``2 F_{n+1}(-sqrt((n + 1)(1 - rho) / (1 + rho)))`` (Demarta and McNeil 2005).

Returns of one step have these marginals and this copula; those of many steps, which are independent, go
towards the normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field, FiniteFloat, model_validator
from scipy.special import chdtri, ndtri, stdtr, stdtrit

from contracts_abi.errors import InputError
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.contagion.prices.bootstrap import check_period
from simulation.contagion.prices.fields import (
    Correlations,
    PerAsset,
    Volatility,
    check_assets,
    check_steps,
    cholesky,
    correlation_matrix,
    per_asset,
    starts,
)
from simulation.contagion.prices.history import read_table
from simulation.contagion.prices.streams import Seeds, correlated, normals, prices_from, stream, years
from simulation.types import Float64


class Marginal(Protocol):
    """Distribution of one asset's log return of a step."""

    def quantile(self, t: Float64, degrees: float, dt_s: float) -> Float64:
        """Return the log returns at the probabilities ``F(t)``, ``F`` of Student's t with `degrees`."""
        ...


@dataclass(frozen=True, slots=True)
class NormalMarginal:
    """Normal log returns.

    Attributes
    ----------
    volatility
        Deviation a year, 0 or more.
    """

    volatility: float

    def __post_init__(self) -> None:
        _check_volatility(self.volatility)

    def quantile(self, t: Float64, degrees: float, dt_s: float) -> Float64:
        """Return the log returns at the probabilities ``F(t)``; see `Marginal`."""
        # From the side that has the digits: near 1 a probability has few.
        z = -ndtri(stdtr(degrees, -np.abs(t)))
        return np.asarray(np.copysign(self.volatility * np.sqrt(years(dt_s)) * z, t))


@dataclass(frozen=True, slots=True)
class StudentMarginal:
    """Log returns of Student's t, scaled to a volatility.

    Attributes
    ----------
    volatility
        Deviation a year, 0 or more.
    degrees
        Degrees of freedom, more than 2.
    """

    volatility: float
    degrees: float

    def __post_init__(self) -> None:
        _check_volatility(self.volatility)
        if not self.degrees > 2:
            raise InputError(f"marginal_degrees is {self.degrees:g}", fix="it must be more than 2")

    def quantile(self, t: Float64, degrees: float, dt_s: float) -> Float64:
        """Return the log returns at the probabilities ``F(t)``; see `Marginal`."""
        n = self.degrees
        own = np.abs(t) if n == degrees else -stdtrit(n, stdtr(degrees, -np.abs(t)))
        unit = np.sqrt((n - 2) / n)
        return np.asarray(np.copysign(self.volatility * np.sqrt(years(dt_s)) * unit * own, t))


@dataclass(frozen=True, slots=True)
class EmpiricalMarginal:
    """Log returns of a history, between the least and the greatest that were seen.

    Attributes
    ----------
    returns
        Of one period, sorted, shape ``(rows,)``.
    period_s
        Seconds of the period; a step has to be as long.
    """

    returns: Float64
    period_s: float

    def __post_init__(self) -> None:
        if len(self.returns) < 2 or not np.isfinite(self.returns).all() or (np.diff(self.returns) < 0).any():
            raise InputError("an empirical marginal needs two returns or more, sorted and finite")

    def quantile(self, t: Float64, degrees: float, dt_s: float) -> Float64:
        """Return the log returns at the probabilities ``F(t)``, on the line between those seen."""
        check_period(dt_s, self.period_s)
        rows = len(self.returns)
        return np.interp(stdtr(degrees, t), (np.arange(rows) + 0.5) / rows, self.returns)


def _check_volatility(value: float) -> None:
    if not (value >= 0 and np.isfinite(value)):
        raise InputError(f"volatility is {value:g}", fix="it must be 0 or more")


@dataclass(frozen=True, slots=True)
class TCopula:
    """Independent steps whose returns are bound by a t copula.

    Attributes
    ----------
    assets
        Symbols.
    start
        Prices at step 0, shape ``(assets,)``.
    marginals
        One for each asset.
    correlation
        Of the copula, shape ``(assets, assets)``.
    degrees
        Degrees of freedom of the copula, positive.
    log_drift
        Growth of the log price a year, beside the marginals, shape ``(assets,)``.
    """

    assets: tuple[str, ...]
    start: Float64
    marginals: tuple[Marginal, ...]
    correlation: Float64
    degrees: float
    log_drift: Float64

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        if len(self.marginals) != len(self.assets):
            raise InputError(f"{len(self.marginals)} marginals for {len(self.assets)} assets")
        if not (self.degrees > 0 and np.isfinite(self.degrees)):
            raise InputError(f"degrees is {self.degrees:g}", fix="it must be positive")
        cholesky(self.correlation, self.assets)

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        check_steps(steps, dt_s)
        factor = cholesky(self.correlation, self.assets)
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for path, seed in zip(out, seeds, strict=True):
            t = correlated(factor, normals(seed, self.assets, steps))
            t *= np.sqrt(self.degrees / chdtri(self.degrees, 1 - stream(seed, "copula").random(steps)))
            for row, marginal in zip(t, self.marginals, strict=True):
                row[:] = marginal.quantile(row, self.degrees, dt_s)
            t += (self.log_drift * years(dt_s))[:, None]
            prices_from(self.start, t, path)
        return out


@price_processes.register("t-copula")
class TCopulaSpec(PriceSpec):
    """Normal, Student or past returns of each asset, bound by a t copula.

    Attributes
    ----------
    process
        The name.
    degrees
        Degrees of freedom of the copula; 3 to 6 bind extremes much, 30 hardly.
    correlation
        Of the copula: one for all pairs, or a table by pair.
    volatility
        Deviation of the log price a year, for normal and Student marginals; at most 20: 0.9 is 90 %.
    marginal_degrees
        Degrees of freedom of Student marginals; normal for assets that are left out.
    file
        Table of prices whose returns are the marginals, instead of a volatility.
    period_s
        Seconds between the table's rows, and of a step.
    log_drift
        Growth of the log price a year, beside the marginals.
    """

    kind: ClassVar[str] = "t-copula"

    process: Literal["t-copula"] = "t-copula"
    degrees: FiniteFloat = Field(gt=0)
    correlation: Correlations = 0.0
    volatility: Volatility | None = None
    marginal_degrees: PerAsset | None = None
    file: str | None = None
    period_s: FiniteFloat | None = Field(default=None, gt=0)
    log_drift: PerAsset = 0.0

    @model_validator(mode="after")
    def _one_or_the_other(self) -> TCopulaSpec:
        if (self.file is None) == (self.volatility is None):
            raise ValueError("needs exactly one of volatility and file")
        if (self.file is None) != (self.period_s is None):
            raise ValueError("file and period_s belong together: give both or neither")
        if self.file is not None and self.marginal_degrees is not None:
            raise ValueError("marginal_degrees and file: the file has the marginals; leave one out")
        return self

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> TCopula:
        """Return the process; see `PriceSpec.build`."""
        return TCopula(
            tuple(assets),
            starts(start_prices),
            self._marginals(assets, folder),
            correlation_matrix(self.correlation, assets),
            self.degrees,
            per_asset("log_drift", self.log_drift, assets, 0.0),
        )

    def _marginals(self, assets: Sequence[str], folder: Path) -> tuple[Marginal, ...]:
        if self.file is not None and self.period_s is not None:
            period = self.period_s
            returns = read_table(folder / self.file, assets).log_returns(period)
            return tuple(EmpiricalMarginal(np.sort(column), period) for column in returns.T)
        assert self.volatility is not None
        volatility = per_asset("volatility", self.volatility, assets)
        if self.marginal_degrees is None:
            return tuple(NormalMarginal(float(v)) for v in volatility)
        degrees = per_asset("marginal_degrees", self.marginal_degrees, assets, np.inf)
        return tuple(
            NormalMarginal(float(v)) if np.isinf(n) else StudentMarginal(float(v), float(n))
            for v, n in zip(volatility, degrees, strict=True)
        )
