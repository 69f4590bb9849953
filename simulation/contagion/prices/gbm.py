"""Geometric Brownian motion: log returns normal and independent over time.

``ln S(t + dt) = ln S(t) + (mu - sigma**2 / 2) dt + sigma sqrt(dt) Z``, so the mean of ``S(t)`` is
``S(0) exp(mu t)`` and the variance of its logarithm ``sigma**2 t``. Textbook (Black and Scholes 1973).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

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
    solve_lower,
    starts,
)
from simulation.contagion.prices.streams import Seeds, correlated, normals, prices_from, years
from simulation.types import Float64


@dataclass(frozen=True, slots=True)
class Gbm:
    """Correlated geometric Brownian motions.

    Attributes
    ----------
    assets
        Symbols.
    start
        Prices at step 0, shape ``(assets,)``.
    drift, volatility
        Growth of the mean price and deviation of the log price, both a year, shape ``(assets,)``.
    correlation
        Of the log returns, shape ``(assets, assets)``.
    drift_shift
        Added to the drift of the paths that are drawn; `log_weights` takes it out again. Zeros without.
    """

    assets: tuple[str, ...]
    start: Float64
    drift: Float64
    volatility: Float64
    correlation: Float64
    drift_shift: Float64

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        check_diffusion(self.assets, self.drift, self.volatility, self.correlation, self.drift_shift)

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        check_steps(steps, dt_s)
        factor = cholesky(self.correlation, self.assets)
        dt = years(dt_s)
        mean = ((self.drift + self.drift_shift - self.volatility**2 / 2) * dt)[:, None]
        scale = (self.volatility * np.sqrt(dt))[:, None]
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for path, seed in zip(out, seeds, strict=True):
            moves = correlated(factor, normals(seed, self.assets, steps))
            moves *= scale
            moves += mean
            prices_from(self.start, moves, path)
        return out

    def log_weights(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return the log likelihood ratio of each path, shape ``(len(seeds),)``; zeros without a shift."""
        check_steps(steps, dt_s)
        return shift_log_weights(
            self.assets, self.volatility, self.correlation, self.drift_shift, seeds, steps, dt_s
        )


def check_diffusion(
    assets: Sequence[str], drift: Float64, volatility: Float64, correlation: Float64, shift: Float64
) -> None:
    """Refuse parameters of a diffusion that do not fit the assets.

    Raises
    ------
    InputError
        Naming the field; also where a shift has no density: along a volatility of 0 or a correlation of 1.
    """
    shape = (len(assets),)
    check_shape("drift", drift, shape)
    check_shape("volatility", volatility, shape)
    check_shape("drift_shift", shift, shape)
    check_each("volatility", volatility, assets, volatility >= 0, "0 or more")
    factor = cholesky(correlation, assets)
    if shift.any():
        check_each("volatility", volatility, assets, volatility > 0, "positive for a drift_shift")
        if (np.diagonal(factor) == 0).any():
            raise InputError("a drift_shift with assets of correlation 1", fix="leave one of them out")


def shift_log_weights(
    assets: Sequence[str],
    volatility: Float64,
    correlation: Float64,
    shift: Float64,
    seeds: Seeds,
    steps: int,
    dt_s: float,
) -> Float64:
    """Return the log likelihood ratios of paths whose drift was shifted (Girsanov, in discrete time).

    With ``theta`` the shift of the standard normals a step, ``L theta = shift sqrt(dt) / sigma``, a path has
    ``-theta . sum Z - steps |theta|**2 / 2``, ``Z`` the draws before the shift.
    """
    if not shift.any():
        return np.zeros(len(seeds))
    theta = solve_lower(cholesky(correlation, assets), shift * np.sqrt(years(dt_s)) / volatility)
    half = 0.5 * steps * float(np.sum(theta**2))
    sums = (normals(seed, assets, steps).sum(axis=1) for seed in seeds)
    return np.array([-float(np.sum(theta * z)) - half for z in sums])


@price_processes.register("gbm")
class GbmSpec(PriceSpec):
    """Geometric Brownian motion, by yearly drift, volatility and correlations.

    Attributes
    ----------
    process
        The name.
    volatility
        Deviation of the log price a year, at most 20: 0.9 is 90 %.
    drift
        Growth of the mean price a year; 0 for assets that are left out.
    correlation
        Of log returns: one for all pairs, or a table by pair.
    drift_shift
        Importance sampling: added to the drift of what is drawn, and weighed out again.
    """

    kind: ClassVar[str] = "gbm"

    process: Literal["gbm"] = "gbm"
    volatility: Volatility
    drift: PerAsset = 0.0
    correlation: Correlations = 0.0
    drift_shift: PerAsset = 0.0

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> Gbm:
        """Return the process; see `PriceSpec.build`."""
        return Gbm(
            tuple(assets),
            starts(start_prices),
            per_asset("drift", self.drift, assets, 0.0),
            per_asset("volatility", self.volatility, assets),
            correlation_matrix(self.correlation, assets),
            per_asset("drift_shift", self.drift_shift, assets, 0.0),
        )
