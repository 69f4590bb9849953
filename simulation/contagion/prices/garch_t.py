"""GARCH(1,1) with Student's t: volatility that clusters, and tails that a normal does not have.

A period (a day, an hour) has the log return ``mu + sqrt(v) e`` with ``e`` Student's t of variance one, and
``v' = omega + alpha v e**2 + beta v``. Bollerslev (1986, 1987). A volatility model belongs to its period: to
simulate shorter steps, the period's return is spread over them. Written as a normal over a chi-square,
``e = Z sqrt((n - 2) / C)``, a period has one ``C`` and each of its steps a normal of its own; the steps add
up to exactly the period's t, and within it prices are a diffusion of constant, random volatility.

The mean of ``exp`` of a Student's t does not exist, so the drift is of the logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.contagion.prices.fields import (
    Correlations,
    PerAsset,
    Volatility,
    check_assets,
    check_each,
    check_shape,
    check_steps,
    cholesky,
    correlation_matrix,
    per_asset,
    starts,
)
from simulation.contagion.prices.history import read_table
from simulation.contagion.prices.streams import YEAR_S, Seeds, correlated, normals, prices_from, stream
from simulation.statistics.volatility import fit_garch
from simulation.types import Float64

_CHUNK: Final = 64
"""Paths whose recursions run side by side; no bit depends on it."""


@dataclass(frozen=True, slots=True)
class GarchT:
    """One GARCH(1,1) with t innovations for each asset, of constant correlation.

    Attributes
    ----------
    assets
        Symbols.
    start
        Prices at step 0, shape ``(assets,)``.
    mu, omega, alpha, beta
        Per period, of log returns as parts of one, shape ``(assets,)``.
    degrees
        Degrees of freedom, more than 2, shape ``(assets,)``.
    start_variance
        Variance of the first period, shape ``(assets,)``.
    correlation
        Of the normals below the t, shape ``(assets, assets)``.
    period_s
        Seconds of the period; a whole number of steps.
    joint_tails
        Whether all assets have their heavy periods together: one uniform draw gives each its chi-square. Else
        each draws its own.
    """

    assets: tuple[str, ...]
    start: Float64
    mu: Float64
    omega: Float64
    alpha: Float64
    beta: Float64
    degrees: Float64
    start_variance: Float64
    correlation: Float64
    period_s: float
    joint_tails: bool = True

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        for field in ("mu", "omega", "alpha", "beta", "degrees", "start_variance"):
            check_shape(field, getattr(self, field), (len(self.assets),))
        for field in ("alpha", "beta"):
            value = getattr(self, field)
            check_each(field, value, self.assets, value >= 0, "0 or more")
        check_each("degrees", self.degrees, self.assets, self.degrees > 2, "more than 2")
        whole = self.alpha + self.beta
        check_each(
            "alpha + beta", whole, self.assets, whole < 1, "less than 1, or the variance never comes back"
        )
        for field in ("omega", "start_variance"):
            value = getattr(self, field)
            check_each(field, value, self.assets, value > 0, "positive")
        if not (self.period_s > 0 and np.isfinite(self.period_s)):
            raise InputError(f"period_s is {self.period_s}", fix="use a positive number of seconds")
        cholesky(self.correlation, self.assets)

    def steps_a_period(self, dt_s: float) -> int:
        """Return how many steps a period has.

        Raises
        ------
        InputError
            If it is no whole number.
        """
        steps = round(self.period_s / dt_s)
        if steps < 1 or abs(steps * dt_s - self.period_s) > 1e-9 * self.period_s:
            raise InputError(
                f"a period of {self.period_s:g} s is no whole number of steps of {dt_s:g} s",
                fix="use a step that divides the period",
            )
        return steps

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        check_steps(steps, dt_s)
        each = self.steps_a_period(dt_s)
        factor = cholesky(self.correlation, self.assets)
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for first in range(0, len(seeds), _CHUNK):
            some = slice(first, first + _CHUNK)
            for path, moves in zip(out[some], self._moves(seeds[some], steps, each, factor), strict=True):
                prices_from(self.start, moves[:, :steps].copy(), path)
        return out

    def _moves(self, seeds: Seeds, steps: int, each: int, factor: Float64) -> Float64:
        """Return the log returns of some paths up to the end of their last period, (paths, assets, steps)."""
        periods = -(-steps // each)
        shape = (len(seeds), len(self.assets), periods, each)
        z = np.array([correlated(factor, normals(s, self.assets, periods * each)) for s in seeds])
        heavy = np.array([self._mixing(s, periods) for s in seeds])
        # What a whole period's normals add up to, of variance one.
        sums = z.reshape(shape).sum(axis=3) / np.sqrt(each)
        variance = self.variances((heavy * sums) ** 2)
        scale = np.sqrt(variance / each) * heavy
        moves = z.reshape(shape) * scale[..., None]
        moves += self.mu[:, None, None] / each
        return np.asarray(moves.reshape(len(seeds), len(self.assets), -1))

    def variances(self, squares: Float64) -> Float64:
        """Return the variance of each period.

        Parameters
        ----------
        squares
            Of the innovations of variance one, shape ``(paths, assets, periods)``.
        """
        by_period = np.ascontiguousarray(np.moveaxis(squares, 2, 0))
        out = np.empty_like(by_period)
        v = np.broadcast_to(self.start_variance, by_period.shape[1:])
        for t, square in enumerate(by_period):
            out[t] = v
            v = self.omega + v * (self.alpha * square + self.beta)
        return np.ascontiguousarray(np.moveaxis(out, 0, 2))

    def _mixing(self, seed: np.random.SeedSequence, periods: int) -> Float64:
        """Return ``sqrt((n - 2) / C)`` of each asset and period."""
        from scipy.special import chdtri  # here, as in simulation.statistics: many runs do not need it

        shared = stream(seed, "tail").random(periods) if self.joint_tails else None
        out = np.empty((len(self.assets), periods))
        for a, (asset, n) in enumerate(zip(self.assets, self.degrees, strict=True)):
            if shared is not None and a > 0 and n == self.degrees[a - 1]:
                out[a] = out[a - 1]
                continue
            u = stream(seed, "tail", asset).random(periods) if shared is None else shared
            # chdtri inverts the upper tail; 1 - u is in (0, 1] where u is in [0, 1).
            out[a] = np.sqrt((n - 2) / chdtri(n, 1 - u))
        return out


def fitted(
    assets: Sequence[str],
    start: Float64,
    returns: Float64,
    period_s: float,
    correlation: Float64 | None = None,
    joint_tails: bool = True,
) -> GarchT:
    """Return the process fitted to a history, which goes on where the history ends.

    Parameters
    ----------
    returns
        Log returns of one period, oldest first, shape ``(rows, assets)``.
    correlation
        That of the standardised residuals by default.

    Raises
    ------
    InputError
        Naming the asset that does not fit.
    """
    fits = []
    for a, asset in enumerate(assets):
        try:
            fits.append(fit_garch(returns[:, a], "constant", "t"))
        except InputError as error:
            raise InputError(f"{asset}: {error.message}", fix=error.fix) from None
    if correlation is None:
        residuals = [(returns[:, a] - f.mu) / np.sqrt(f.variance[:-1]) for a, f in enumerate(fits)]
        correlation = np.corrcoef(residuals).reshape(len(fits), len(fits))
        correlation = (correlation + correlation.T) / 2
        np.fill_diagonal(correlation, 1.0)
    return GarchT(
        tuple(assets),
        start,
        np.array([f.mu for f in fits]),
        np.array([f.omega for f in fits]),
        np.array([f.alpha for f in fits]),
        np.array([f.beta for f in fits]),
        np.array([f.degrees for f in fits], dtype=np.float64),
        np.array([f.variance[-1] for f in fits]),
        correlation,
        period_s,
        joint_tails,
    )


@price_processes.register("garch-t")
class GarchTSpec(PriceSpec):
    """GARCH(1,1) with t innovations, by parameters or fitted to a table of prices.

    Attributes
    ----------
    process
        The name.
    period_s
        Seconds of the period that the model is of; a day by default.
    file
        Table of prices, one row a period, to fit to; instead of the parameters.
    volatility
        Long-run deviation of the log price a year, at most 20: 0.9 is 90 %.
    alpha, beta
        Weights of the last squared return and of the last variance, per period.
    degrees
        Degrees of freedom of the innovations.
    start_volatility
        Of the first period, a year, at most 20; the long-run one for assets that are left out.
    log_drift
        Growth of the log price a year.
    correlation
        Of the normals below the t; with a file, by default, as it was there.
    joint_tails
        Whether all assets have their heavy periods together.
    """

    kind: ClassVar[str] = "garch-t"

    process: Literal["garch-t"] = "garch-t"
    period_s: FiniteFloat = Field(default=86_400.0, gt=0)
    file: str | None = None
    volatility: Volatility | None = None
    alpha: PerAsset | None = None
    beta: PerAsset | None = None
    degrees: PerAsset | None = None
    start_volatility: Volatility | None = None
    log_drift: PerAsset | None = None
    correlation: Correlations | None = None
    joint_tails: bool = True

    @model_validator(mode="after")
    def _one_or_the_other(self) -> GarchTSpec:
        given = {
            name: getattr(self, name) is not None
            for name in ("volatility", "alpha", "beta", "degrees", "start_volatility", "log_drift")
        }
        if self.file is not None:
            for name, there in given.items():
                if there:
                    raise ValueError(f"{name} and file: the file is what it is fitted to; leave one out")
        else:
            for name in ("volatility", "alpha", "beta", "degrees"):
                if not given[name]:
                    raise ValueError(f"{name} is missing; give it, or a file to fit to")
        return self

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> GarchT:
        """Return the process; see `PriceSpec.build`."""
        correlation = None if self.correlation is None else correlation_matrix(self.correlation, assets)
        if self.file is not None:
            returns = read_table(folder / self.file, assets).log_returns(self.period_s)
            return fitted(assets, starts(start_prices), returns, self.period_s, correlation, self.joint_tails)
        assert self.volatility is not None
        assert self.alpha is not None
        assert self.beta is not None
        assert self.degrees is not None
        part = self.period_s / YEAR_S
        long_run = per_asset("volatility", self.volatility, assets) ** 2 * part
        alpha, beta = per_asset("alpha", self.alpha, assets), per_asset("beta", self.beta, assets)
        first = long_run
        if self.start_volatility is not None:
            first = per_asset("start_volatility", self.start_volatility, assets, np.nan) ** 2 * part
            first = np.where(np.isnan(first), long_run, first)
        return GarchT(
            tuple(assets),
            starts(start_prices),
            per_asset("log_drift", self.log_drift or 0.0, assets, 0.0) * part,
            long_run * (1 - alpha - beta),
            alpha,
            beta,
            per_asset("degrees", self.degrees, assets),
            first,
            np.eye(len(assets)) if correlation is None else correlation,
            self.period_s,
            self.joint_tails,
        )
