"""A price that comes back to its peg: the logarithm of price over peg is an Ornstein-Uhlenbeck process.

With ``x = ln(S / peg)``, ``dx = -k x dt + sigma dW``. Over a step ``x' = x exp(-k dt) + s Z`` with ``s**2 =
sigma**2 (1 - exp(-2 k dt)) / (2 k)``: exact at any step (Uhlenbeck and Ornstein 1930). In the long run the
deviation of ``x`` is ``sigma / sqrt(2 k)``, and a gap halves in ``ln 2 / k``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

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
from simulation.contagion.prices.streams import Seeds, correlated, normals, years
from simulation.types import Float64


@dataclass(frozen=True, slots=True)
class OrnsteinUhlenbeck:
    """Correlated prices that come back to a peg.

    Attributes
    ----------
    assets
        Symbols.
    start, peg
        Price at step 0, and where it is drawn to, shape ``(assets,)``.
    speed
        Rate a year at which a gap closes, positive, shape ``(assets,)``.
    volatility
        Deviation of the log price a year if nothing drew it back, shape ``(assets,)``.
    correlation
        Of the Brownian motions, shape ``(assets, assets)``.
    """

    assets: tuple[str, ...]
    start: Float64
    peg: Float64
    speed: Float64
    volatility: Float64
    correlation: Float64

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        for field in ("peg", "speed", "volatility"):
            check_shape(field, getattr(self, field), (len(self.assets),))
        check_each("peg", self.peg, self.assets, self.peg > 0, "positive")
        check_each("speed", self.speed, self.assets, self.speed > 0, "positive")
        check_each("volatility", self.volatility, self.assets, self.volatility >= 0, "0 or more")
        cholesky(self.correlation, self.assets)

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        from scipy.signal import lfilter  # here, since importing it takes longer than a small run

        check_steps(steps, dt_s)
        factor = cholesky(self.correlation, self.assets)
        dt = years(dt_s)
        keep = np.exp(-self.speed * dt)
        scale = self.volatility * np.sqrt(-np.expm1(-2 * self.speed * dt) / (2 * self.speed))
        gap = np.log(self.start / self.peg)
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for path, seed in zip(out, seeds, strict=True):
            z = correlated(factor, normals(seed, self.assets, steps))
            path[0] = self.start
            for a in range(len(self.assets)):
                x, _ = lfilter([1.0], [1.0, -keep[a]], scale[a] * z[a], zi=[keep[a] * gap[a]])
                path[1:, a] = self.peg[a] * np.exp(x)
        return out


@price_processes.register("ou")
class OrnsteinUhlenbeckSpec(PriceSpec):
    """A price drawn back to its peg, for stable and wrapped tokens.

    Attributes
    ----------
    process
        The name.
    peg
        Where the price is drawn to.
    half_life_days
        Days in which a gap halves.
    volatility
        Deviation of the log price a year if nothing drew it back; at most 20: 0.02 is 2 %.
    correlation
        Of the draws: one for all pairs, or a table by pair.
    """

    kind: ClassVar[str] = "ou"

    process: Literal["ou"] = "ou"
    volatility: Volatility
    half_life_days: PerAsset
    peg: PerAsset = 1.0
    correlation: Correlations = 0.0

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> OrnsteinUhlenbeck:
        """Return the process; see `PriceSpec.build`."""
        days = per_asset("half_life_days", self.half_life_days, assets)
        check_each("half_life_days", days, assets, days > 0, "positive")
        return OrnsteinUhlenbeck(
            tuple(assets),
            starts(start_prices),
            per_asset("peg", self.peg, assets, 1.0),
            np.log(2.0) * 365 / days,
            per_asset("volatility", self.volatility, assets),
            correlation_matrix(self.correlation, assets),
        )
