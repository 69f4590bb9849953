"""Merton's jump diffusion: Brownian motion, and jumps that arrive by a Poisson process.

The log price moves by ``(mu - sigma**2 / 2 - lambda k) dt + sigma dW`` and jumps by normal ``J`` of mean
``m`` and deviation ``d``; ``k = exp(m + d**2 / 2) - 1``, so the mean price grows by ``mu`` with or without
jumps. Its variance is ``(sigma**2 + lambda (m**2 + d**2)) t``. Merton (1976).

Jumps come at times, not at steps: unit exponential gaps over the intensity. So a path has the same jumps at
any step length, and a greater intensity brings the same jumps sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from contracts_abi.errors import InputError
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.contagion.prices.fields import (
    Correlations,
    JumpDeviation,
    JumpMean,
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
from simulation.contagion.prices.gbm import check_diffusion, shift_log_weights
from simulation.contagion.prices.streams import (
    Seeds,
    correlated,
    normals,
    prices_from,
    sign_of,
    stream,
    years,
)
from simulation.types import Float64

_CHUNK: Final = 8
"""Gaps drawn at once; part of what a seed means, so not to be changed."""


@dataclass(frozen=True, slots=True)
class Merton:
    """Correlated diffusions with jumps of each asset alone and jumps of all at once.

    Attributes
    ----------
    assets
        Symbols.
    start
        Prices at step 0, shape ``(assets,)``.
    drift, volatility
        Growth of the mean price, and deviation of the diffusion, both a year, shape ``(assets,)``.
    correlation
        Of the diffusions, shape ``(assets, assets)``.
    intensity
        Jumps of one asset alone, a year, shape ``(assets,)``.
    jump_mean, jump_deviation
        Of the log jump, for both sorts of jump, shape ``(assets,)``.
    common_intensity
        Jumps of all assets at one time, a year; sizes are independent.
    drift_shift
        As of `Gbm`: on the diffusion only.
    """

    assets: tuple[str, ...]
    start: Float64
    drift: Float64
    volatility: Float64
    correlation: Float64
    intensity: Float64
    jump_mean: Float64
    jump_deviation: Float64
    common_intensity: float
    drift_shift: Float64

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        check_diffusion(self.assets, self.drift, self.volatility, self.correlation, self.drift_shift)
        for field in ("intensity", "jump_mean", "jump_deviation"):
            check_shape(field, getattr(self, field), (len(self.assets),))
        for field in ("intensity", "jump_deviation"):
            value = getattr(self, field)
            check_each(field, value, self.assets, value >= 0, "0 or more")
        if not (self.common_intensity >= 0 and np.isfinite(self.common_intensity)):
            raise InputError(f"common_intensity is {self.common_intensity}", fix="it must be 0 or more")

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`.

        A mirrored seed turns diffusion and jump sizes around their means; jump times are the same.
        """
        check_steps(steps, dt_s)
        factor = cholesky(self.correlation, self.assets)
        dt = years(dt_s)
        growth = np.exp(self.jump_mean + self.jump_deviation**2 / 2) - 1
        lost = (self.intensity + self.common_intensity) * growth
        mean = ((self.drift + self.drift_shift - self.volatility**2 / 2 - lost) * dt)[:, None]
        scale = (self.volatility * np.sqrt(dt))[:, None]
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for path, seed in zip(out, seeds, strict=True):
            moves = correlated(factor, normals(seed, self.assets, steps))
            moves *= scale
            moves += mean
            self._add_jumps(seed, moves, dt)
            prices_from(self.start, moves, path)
        return out

    def _add_jumps(self, seed: np.random.SeedSequence, moves: Float64, dt: float) -> None:
        steps = moves.shape[1]
        sign = sign_of(seed)
        common = np.empty(0)
        if self.common_intensity > 0:
            common, _ = _arrivals(stream(seed, "common jump"), self.common_intensity, steps * dt)
        for a, asset in enumerate(self.assets):
            if self.intensity[a] > 0:
                times, z = _arrivals(stream(seed, "jump", asset), float(self.intensity[a]), steps * dt)
                self._add(moves[a], a, times, sign * z, dt)
            if common.size:
                z = stream(seed, "common jump", asset).standard_normal(common.size)
                self._add(moves[a], a, common, sign * z, dt)

    def _add(self, row: Float64, a: int, times: Float64, z: Float64, dt: float) -> None:
        at = np.minimum((times / dt).astype(np.int64), len(row) - 1)
        np.add.at(row, at, self.jump_mean[a] + self.jump_deviation[a] * z)

    def log_weights(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return the log likelihood ratio of each path, shape ``(len(seeds),)``; zeros without a shift."""
        check_steps(steps, dt_s)
        return shift_log_weights(
            self.assets, self.volatility, self.correlation, self.drift_shift, seeds, steps, dt_s
        )


def _arrivals(rng: np.random.Generator, intensity: float, horizon: float) -> tuple[Float64, Float64]:
    """Return the times of jumps before `horizon` in years, ascending, and a normal draw for each."""
    gaps: list[Float64] = []
    sizes: list[Float64] = []
    total = 0.0
    while total < horizon * intensity:
        gaps.append(rng.standard_exponential(_CHUNK))
        sizes.append(rng.standard_normal(_CHUNK))
        total += float(gaps[-1].sum())
    if not gaps:
        return np.empty(0), np.empty(0)
    times = np.cumsum(np.concatenate(gaps)) / intensity
    within = int(np.searchsorted(times, horizon))
    return times[:within], np.concatenate(sizes)[:within]


@price_processes.register("merton")
class MertonSpec(PriceSpec):
    """Jump diffusion of Merton, with jumps of one asset and of all at once.

    Attributes
    ----------
    process
        The name.
    volatility
        Deviation of the diffusion a year, jumps not counted; at most 20: 0.9 is 90 %.
    drift
        Growth of the mean price a year, jumps counted; 0 for assets that are left out.
    correlation
        Of the diffusions: one for all pairs, or a table by pair.
    intensity
        Jumps of each asset alone, a year; 0 for assets that are left out.
    jump_mean, jump_deviation
        Of the log jump, -0.03 for a fall by 3 %; at most 5 up or down, and a deviation of 2.
    common_intensity
        Jumps of all assets at one time, a year.
    drift_shift
        Importance sampling on the diffusion, weighed out again.
    """

    kind: ClassVar[str] = "merton"

    process: Literal["merton"] = "merton"
    volatility: Volatility
    jump_mean: JumpMean
    jump_deviation: JumpDeviation
    intensity: PerAsset = 0.0
    common_intensity: FiniteFloat = Field(default=0.0, ge=0)
    drift: PerAsset = 0.0
    correlation: Correlations = 0.0
    drift_shift: PerAsset = 0.0

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> Merton:
        """Return the process; see `PriceSpec.build`."""
        return Merton(
            tuple(assets),
            starts(start_prices),
            per_asset("drift", self.drift, assets, 0.0),
            per_asset("volatility", self.volatility, assets),
            correlation_matrix(self.correlation, assets),
            per_asset("intensity", self.intensity, assets, 0.0),
            per_asset("jump_mean", self.jump_mean, assets),
            per_asset("jump_deviation", self.jump_deviation, assets),
            float(self.common_intensity),
            per_asset("drift_shift", self.drift_shift, assets, 0.0),
        )
