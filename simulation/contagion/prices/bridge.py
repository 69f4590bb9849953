"""Through points that are known: straight lines of the logarithm, with a Brownian bridge between them.

With points ``(t_k, p_k)`` and a Brownian motion ``W`` of the volatility, ``ln S(t) = L(t) + W(t) - I(t)``,
where ``L`` joins the ``ln p_k`` and ``I`` the ``W(t_k)`` by straight lines: every path goes through every
point, and between two of them is a Brownian bridge, whose variance is ``sigma**2 (t - t_k)(t_{k+1} - t) /
(t_{k+1} - t_k)`` (textbook). After the last point nothing holds it: ``ln S`` is ``ln p_K + W(t) - W(t_K)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from contracts_abi.errors import InputError
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.contagion.prices.fields import (
    Correlations,
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

Points = tuple[tuple[float, float], ...]
"""Seconds after step 0, rising from 0, and the price then."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """Prices that are known at some times and drawn in between.

    Attributes
    ----------
    assets
        Symbols.
    points
        One series an asset; the first is at 0.
    volatility
        Deviation of the log price a year of the motion that is bridged, shape ``(assets,)``.
    correlation
        Of the motions, shape ``(assets, assets)``.
    """

    assets: tuple[str, ...]
    points: tuple[Points, ...]
    volatility: Float64
    correlation: Float64

    def __post_init__(self) -> None:
        for name, own in zip(self.assets, self.points, strict=True):
            if not own or own[0][0] != 0:
                raise InputError(f"points of {name} do not begin at 0", fix="add [0, PRICE]")
            for (before, _), (after, _) in pairwise(own):
                if not after > before:
                    raise InputError(f"points of {name}: {after:g} after {before:g}", fix="times rise")
            worst = min(price for _, price in own)
            if not worst > 0:
                raise InputError(f"points of {name}: a price of {worst:g}", fix="a price is positive")
        check_assets(self.assets, self.start)
        check_shape("volatility", self.volatility, (len(self.assets),))
        check_each("volatility", self.volatility, self.assets, self.volatility >= 0, "0 or more")
        cholesky(self.correlation, self.assets)

    @property
    def start(self) -> Float64:
        """Price of each asset at step 0, shape ``(assets,)``."""
        return np.array([own[0][1] for own in self.points])

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        check_steps(steps, dt_s)
        factor = cholesky(self.correlation, self.assets)
        # The motion has to reach the last point, also where the path ends before it.
        last = max(own[-1][0] for own in self.points)
        drawn = max(steps, math.ceil(last / dt_s))
        times = dt_s * np.arange(drawn + 1, dtype=np.float64)
        scale = (self.volatility * np.sqrt(years(dt_s)))[:, None]
        known = [
            (np.array([t for t, _ in own]), np.log([p / own[0][1] for _, p in own])) for own in self.points
        ]
        line = [np.interp(times, at, logs) for at, logs in known]
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for path, seed in zip(out, seeds, strict=True):
            moves = correlated(factor, normals(seed, self.assets, drawn)) * scale
            motion = np.concatenate([np.zeros((len(self.assets), 1)), np.cumsum(moves, axis=1)], axis=1)
            for a, (at, _) in enumerate(known):
                held = np.interp(times, at, np.interp(at, times, motion[a]))
                path[:, a] = self.start[a] * np.exp(line[a] + motion[a] - held)[: steps + 1]
        return out


@price_processes.register("bridge")
class BridgeSpec(PriceSpec):
    """Prices through known points, drawn in between.

    Attributes
    ----------
    process
        The name.
    points
        By symbol: rows of seconds after step 0 and price; an asset without stays at the book's price.
    volatility
        Deviation of the log price a year between the points, 0 for assets that a table leaves out; at most
        20: 0.9 is 90 %.
    correlation
        Of the draws: one for all pairs, or a table by pair.
    """

    kind: ClassVar[str] = "bridge"

    process: Literal["bridge"] = "bridge"
    points: dict[
        str,
        Annotated[tuple[tuple[Annotated[FiniteFloat, Field(ge=0)], FiniteFloat], ...], Field(min_length=1)],
    ]
    volatility: Volatility = 0.0
    correlation: Correlations = 0.0

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> Bridge:
        """Return the process; see `PriceSpec.build`.

        Raises
        ------
        InputError
            Also where the first point is not the book's price.
        """
        per_asset("points", dict.fromkeys(self.points, 0.0), assets, 0.0)
        start = starts(start_prices)
        for name, price in zip(assets, start, strict=True):
            first = self.points[name][0][1] if name in self.points else price
            if abs(first - price) > 1e-6 * price:
                raise InputError(
                    f"{name} is {price:g} in the book and {first:g} at its first point",
                    fix="correct one of them",
                )
        points = self._points(assets, start)
        return Bridge(
            tuple(assets),
            points,
            per_asset("volatility", self.volatility, assets, 0.0),
            correlation_matrix(self.correlation, assets),
        )

    def _points(self, assets: Sequence[str], start: Float64) -> tuple[Points, ...]:
        known: Mapping[str, Points] = self.points
        return tuple(
            known.get(name, ((0.0, float(price)),)) for name, price in zip(assets, start, strict=True)
        )
