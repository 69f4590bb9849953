"""Raw SVI: what a slice says, whether it leaves an arbitrage, and the slice that fits given quotes.

``w(k) = a + b * (rho * (k - m) + sqrt((k - m)**2 + sigma**2))`` is the total variance, volatility squared
times years, at the log-moneyness ``k = ln(strike / forward)`` (Gatheral, 2004). Venues bend it: Derive clamps
`k` and caps `w` (reference of the margin engines, section 1.0), and a margin must agree with the venue.

A slice is free of butterfly arbitrage where Durrleman's function

``g(k) = (1 - k w' / (2 w))**2 - w'**2 / 4 * (1 / w + 1 / 4) + w'' / 2``

is not negative: it has the sign of the price's density. In the wings ``g`` nears ``1/4 - slope**2 / 16``,
which bounds the slopes ``b (1 - rho)`` and ``b (1 + rho)`` by 2 (Lee, 2004); the older bound of 4 follows.
Two slices are free of calendar arbitrage where the later total variance is nowhere below the earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from scipy.optimize import least_squares, minimize_scalar

from contracts_abi.errors import InputError
from simulation.portfolio.market import Svi
from simulation.pricing.black76 import Floats, above_zero
from simulation.types import Float64

VENUE_CLAMP: Final = 4.0
"""Derive: `k` stays within this many times ``sqrt(a + b * sigma)``."""
VENUE_CAP: Final = 144.0
"""Derive: no total variance above this."""
WING_BOUND: Final = 2.0
"""Steepest slope of total variance in log-moneyness without butterfly arbitrage."""
MIN_POINTS: Final = 6
"""Fewest strikes that a slice is fitted to: one more than it has parameters."""

_TOLERANCE: Final = 1e-9
"""How far below zero rounding may push what is zero."""


def raw_total_variance(k: Floats, a: Floats, b: Floats, rho: Floats, m: Floats, sigma: Floats) -> Any:
    """Return the total variance of raw SVI; every argument may be an array, and they broadcast.

    Parameters
    ----------
    k
        Log-moneyness.
    a, b, rho, m, sigma
        As of `simulation.portfolio.market.Svi`.
    """
    x = np.asarray(k, np.float64) - m
    return a + b * (rho * x + np.hypot(x, sigma))


def total_variance(svi: Svi, k: Floats) -> Any:
    """Return a slice's total variance at log-moneyness `k`, as the formula says and without any bounds."""
    return raw_total_variance(k, svi.a, svi.b, svi.rho, svi.m, svi.sigma)


def venue_total_variance(svi: Svi, k: Floats) -> Any:
    """Return a slice's total variance as Derive computes it.

    Parameters
    ----------
    svi
        The slice.
    k
        Log-moneyness against the slice's own forward; clamped to ``4 * sqrt(a + b * sigma)`` on either side.

    Returns
    -------
    float or numpy.ndarray
        At most 144; NaN where `k` is NaN.

    Raises
    ------
    InputError
        If ``a + b * sigma`` is below zero, or the total variance somewhere in `k`.
    """
    middle = svi.a + svi.b * svi.sigma
    if middle < 0.0:
        raise InputError(
            f"SVI slice with a + b * sigma = {middle!r} below zero", fix="its variance is negative; raise a"
        )
    bound = VENUE_CLAMP * np.sqrt(middle)
    return np.minimum(_not_negative(total_variance(svi, np.clip(k, -bound, bound))), VENUE_CAP)


def volatility(svi: Svi, strike: Floats) -> Any:
    """Return a slice's annual volatility at strikes in dollars, against the forward and time of the slice.

    Raises
    ------
    InputError
        If a strike is not above zero, or the slice's total variance is below zero there.
    """
    above_zero("a strike is above zero", strike=strike)
    k = np.log(np.asarray(strike, np.float64) / svi.forward)
    return np.sqrt(_not_negative(total_variance(svi, k)) / svi.tau)


def venue_volatility(svi: Svi, strike: Floats) -> Any:
    """Return what `volatility` returns, by the total variance that Derive computes.

    Forward and time are those of the slice, as the venue's feed stated them, and not the current ones.
    """
    above_zero("a strike is above zero", strike=strike)
    k = np.log(np.asarray(strike, np.float64) / svi.forward)
    return np.sqrt(venue_total_variance(svi, k) / svi.tau)


def _not_negative(w: Any) -> Any:
    if np.any(below := np.asarray(w) < 0.0):
        least = float(np.min(np.asarray(w)[below]))
        raise InputError(f"SVI slice with a total variance of {least!r}", fix="it is below zero; raise a")
    return w


# Arbitrage


def durrleman(svi: Svi, k: Floats) -> Any:
    """Return Durrleman's function of a slice; negative where a butterfly costs less than nothing.

    Parameters
    ----------
    svi
        The slice.
    k
        Log-moneyness.

    Returns
    -------
    numpy.ndarray
        Minus infinity where the total variance is not above zero.
    """
    at = np.asarray(k, np.float64)
    x = at - svi.m
    root = np.hypot(x, svi.sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        w = svi.a + svi.b * (svi.rho * x + root)
        # With sigma = 0 the slope jumps at m: take its middle there, and leave out the density's atom.
        slope = svi.b * (svi.rho + np.where(root > 0.0, x / root, 0.0))
        bend = np.where(root > 0.0, svi.b * svi.sigma**2 / root**3, 0.0)
        g = (1.0 - 0.5 * at * slope / w) ** 2 - 0.25 * slope**2 * (1.0 / w + 0.25) + 0.5 * bend
    return np.where(w > 0.0, g, -np.inf)


@dataclass(frozen=True, slots=True)
class Butterfly:
    """Whether a slice leaves a butterfly arbitrage.

    Attributes
    ----------
    least
        Least value of Durrleman's function; minus infinity where the total variance is not above zero.
    at
        Log-moneyness of it; infinite where it is the limit in a wing.
    wing
        The steeper slope of both wings, ``b * (1 + abs(rho))``; at most 2.
    """

    least: float
    at: float
    wing: float

    @property
    def free(self) -> bool:
        """Whether there is none."""
        return self.least >= -_TOLERANCE and self.wing <= WING_BOUND + _TOLERANCE


def butterfly(svi: Svi, low: float = -np.inf, high: float = np.inf) -> Butterfly:
    """Look for the least value of Durrleman's function of a slice.

    Parameters
    ----------
    svi
        The slice.
    low, high
        Range of log-moneyness to look in; the whole line unless told. The wing is checked at any rate.

    Notes
    -----
    On a grid that is fine around `m` and around the forward and reaches far into both wings, then refined by
    a bounded search around the least point.
    """
    grid = _grid(svi.m, svi.sigma, low, high)
    at, least = _refined(lambda k: durrleman(svi, k), grid)
    for limit, slope in ((-np.inf, svi.b * (1.0 - svi.rho)), (np.inf, svi.b * (1.0 + svi.rho))):
        if low <= limit <= high and 0.25 - slope**2 / 16.0 < least:
            at, least = limit, 0.25 - slope**2 / 16.0
    return Butterfly(least, at, svi.b * (1.0 + abs(svi.rho)))


@dataclass(frozen=True, slots=True)
class Calendar:
    """Whether two neighbouring slices leave a calendar arbitrage.

    Attributes
    ----------
    earlier, later
        Years to both expiries.
    least
        Least difference of total variance, later less earlier.
    at
        Log-moneyness of it.
    wings
        Whether neither wing of the later slice is flatter; if one is, the slices cross somewhere.
    """

    earlier: float
    later: float
    least: float
    at: float
    wings: bool

    @property
    def free(self) -> bool:
        """Whether there is none in the range that was looked at."""
        return self.least >= -_TOLERANCE


def calendar(slices: Sequence[Svi], low: float = -2.0, high: float = 2.0) -> tuple[Calendar, ...]:
    """Compare each slice with the next at the same log-moneyness, each against its own forward.

    Parameters
    ----------
    slices
        By time to expiry, ascending.
    low, high
        Range of log-moneyness to look in.

    Raises
    ------
    InputError
        If the slices do not ascend in time.
    """
    found = []
    for one, two in pairwise(slices):
        if two.tau <= one.tau:
            raise InputError(f"slice of {two.tau!r} years after {one.tau!r}", fix="sort slices by tau")
        grids = [_grid(svi.m, svi.sigma, low, high) for svi in (one, two)]

        def gap(k: Any, one: Svi = one, two: Svi = two) -> Any:
            return total_variance(two, k) - total_variance(one, k)

        at, least = _refined(gap, np.unique(np.concatenate(grids)))
        wings = all(two.b * (1.0 + s * two.rho) >= one.b * (1.0 + s * one.rho) for s in (-1.0, 1.0))
        found.append(Calendar(one.tau, two.tau, least, at, wings))
    return tuple(found)


def _grid(m: float, sigma: float, low: float, high: float) -> Float64:
    """Points that are dense around `m`, on the scale of sigma, and around 0, and reach beyond any strike."""
    far = np.sinh(np.linspace(-14.0, 14.0, 1_401))
    points = np.concatenate([m + max(sigma, 1e-6) * far, 1e-3 * far, m + 1e-3 * far])
    ends = [end for end in (low, high) if np.isfinite(end)]
    return np.unique(np.concatenate([points[(points >= low) & (points <= high)], ends]))


def _refined(function: Callable[[Any], Any], grid: Float64) -> tuple[float, float]:
    values = function(grid)
    i = int(np.argmin(values))
    best = float(grid[i]), float(values[i])
    if not np.isfinite(best[1]):
        return best
    bounds = (float(grid[max(i - 1, 0)]), float(grid[min(i + 1, grid.size - 1)]))
    found = minimize_scalar(lambda k: float(function(k)), bounds=bounds, method="bounded")
    return min(best, (float(found.x), float(found.fun)), key=lambda pair: pair[1])


# Calibration


@dataclass(frozen=True, slots=True)
class SliceFit:
    """A fitted slice and what it misses.

    Attributes
    ----------
    svi
        The slice.
    residuals
        Fitted less given total variance, in the order of the points.
    rms
        Root of the weighted mean of the squared residuals.
    butterfly
        Whether the slice leaves a butterfly arbitrage.
    penalised
        Whether the fit closest to the points had one, so that this is the closest that was found without.
    """

    svi: Svi
    residuals: Float64
    rms: float
    butterfly: Butterfly
    penalised: bool


def fit_slice(
    k: Float64,
    total_variance: Float64,
    weights: Float64 | None = None,
    *,
    forward: float = 1.0,
    tau: float = 1.0,
    arbitrage_free: bool = True,
) -> SliceFit:
    """Fit a raw SVI slice to total variances.

    Parameters
    ----------
    k, total_variance
        Log-moneyness and total variance of each point, shape (points,).
    weights
        Of the squared residuals; equal unless told. A weight of 0 leaves a point out.
    forward, tau
        Dollars and years that the slice is to state.
    arbitrage_free
        Whether to give up closeness where the closest slice leaves a butterfly arbitrage.

    Raises
    ------
    InputError
        If there are fewer than 6 distinct strikes with a weight, or a number is missing, or a total variance
        or a weight below zero.

    Notes
    -----
    A start is sought on a grid of (m, sigma), where the other three parameters are a linear problem (the
    quasi-explicit form of Zeliade Systems, 2009), then all five are fitted by bounded least squares in
    coordinates that are all simple bounds: both wing slopes from 0 to 2, the least total variance from 0, m
    and sigma. Weights are taken relative to their sum.
    """
    k, w = np.asarray(k, np.float64), np.asarray(total_variance, np.float64)
    share = np.ones_like(w) if weights is None else np.asarray(weights, np.float64)
    _check_points(k, w, share)
    used = share > 0.0
    fit = _Fit(k[used], w[used], share[used])
    x = min((fit.solve(start, 0.0) for start in fit.starts()), key=fit.cost)
    found, penalised = fit.slice(x, forward, tau), False
    check = butterfly(found)
    if arbitrage_free and not check.free:
        penalised = True
        for penalty in (1.0, 10.0, 100.0, 1e3, 1e4):
            x = fit.solve(x, penalty)
            found = fit.slice(x, forward, tau)
            check = butterfly(found)
            if check.free:
                break
    residuals = raw_total_variance(k, found.a, found.b, found.rho, found.m, found.sigma) - w
    rms = float(np.sqrt(np.sum(share * residuals**2) / np.sum(share)))
    return SliceFit(found, residuals, rms, check, penalised)


def _check_points(k: Float64, w: Float64, weights: Float64) -> None:
    if not (k.ndim == 1 and k.shape == w.shape == weights.shape):
        raise InputError(
            f"points of shapes {k.shape}, {w.shape} and {weights.shape}", fix="give equal lengths"
        )
    if not (np.isfinite(k).all() and np.isfinite(w).all() and np.isfinite(weights).all()):
        raise InputError("a point of the slice is missing or infinite", fix="leave it out")
    if np.any(w < 0.0) or np.any(weights < 0.0):
        raise InputError("a total variance or a weight is below zero", fix="leave the point out")
    strikes = np.unique(k[weights > 0.0]).size
    if strikes < MIN_POINTS:
        raise InputError(
            f"{strikes} strikes with a weight are too few for a slice of 5 parameters",
            fix=f"give at least {MIN_POINTS}",
        )


class _Fit:
    """Points scaled to order 1, and the coordinates (left slope, right slope, least variance, m, sigma)."""

    def __init__(self, k: Float64, w: Float64, weights: Float64) -> None:
        self.k, self.w = k, w
        self.scale = max(float(np.sqrt(np.average(w**2, weights=weights))), 1e-300)
        self.root = np.sqrt(weights / weights.sum()) / self.scale
        span = float(np.ptp(k))
        self.low = np.array([1e-9, 1e-9, 0.0, k.min() - span, min(1e-4, 1e-3 * span)])
        self.high = np.array([WING_BOUND, WING_BOUND, 2.0 * w.max() + 1e-12, k.max() + span, 10.0 * span])
        # Where a butterfly is looked for while fitting; the check afterwards looks further and finer.
        self.watched = np.unique(np.concatenate([span * np.sinh(np.linspace(-5, 5, 201)) / 10, k]))

    def starts(self, count: int = 3) -> list[Float64]:
        """The best points of the grid of (m, sigma), in the fit's coordinates."""
        span = float(np.ptp(self.k))
        m, sigma = (
            grid.ravel()
            for grid in np.meshgrid(
                np.linspace(self.k.min(), self.k.max(), 25), span * np.geomspace(3e-3, 2.0, 16), indexing="ij"
            )
        )
        y = (self.k - m[:, None]) / sigma[:, None]
        design = np.stack([np.ones_like(y), y, np.hypot(y, 1.0)], axis=-1) * self.root[:, None]
        a, d, c = (np.linalg.pinv(design) @ (self.w * self.root)).T
        c = np.maximum(c, 0.0)
        d = np.clip(d, -c, c)
        missed = (a[:, None] + d[:, None] * y + c[:, None] * np.hypot(y, 1.0) - self.w) * self.root
        x = np.stack([(c - d) / sigma, (c + d) / sigma, a + np.sqrt(c * c - d * d), m, sigma], axis=-1)
        return list(np.clip(x[np.argsort((missed**2).sum(axis=1))[:count]], self.low, self.high))

    def _model(self, x: Float64) -> Float64:
        left, right, least, m, sigma = x
        r = np.hypot(self.k - m, sigma)
        up, down = r + (self.k - m), r - (self.k - m)
        return np.asarray(least + 0.5 * (right * up + left * down) - sigma * np.sqrt(left * right))

    def _jacobian(self, x: Float64) -> Float64:
        left, right, _, m, sigma = x
        shift = self.k - m
        r = np.hypot(shift, sigma)
        ratio = np.sqrt(left / right)
        columns = (
            0.5 * (r - shift) - 0.5 * sigma / ratio,
            0.5 * (r + shift) - 0.5 * sigma * ratio,
            np.ones_like(shift),
            -0.5 * (right * (1.0 + shift / r) - left * (1.0 - shift / r)),
            0.5 * (left + right) * sigma / r - np.sqrt(left * right),
        )
        return np.asarray(np.stack(columns, axis=-1) * self.root[:, None])

    def cost(self, x: Float64) -> float:
        """The weighted squared residuals, relative to the size of the total variances."""
        return float(np.sum(((self._model(x) - self.w) * self.root) ** 2))

    def solve(self, start: Float64, penalty: float) -> Float64:
        """Fit from a start; with a penalty on every watched point where Durrleman's function is negative."""

        def missed(x: Float64) -> Float64:
            near: Float64 = (self._model(x) - self.w) * self.root
            if penalty == 0.0:
                return near
            # A little above zero: the finer check afterwards must pass too.
            g = durrleman(self.slice(x, 1.0, 1.0), self.watched)
            return np.concatenate([near, penalty * np.clip(1e-3 - g, 0.0, 1e3)])

        found = least_squares(
            missed,
            np.clip(start, self.low, self.high),
            jac=self._jacobian if penalty == 0.0 else "2-point",
            bounds=(self.low, self.high),
            x_scale=np.maximum(np.abs(start), 1e-3),
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
            max_nfev=400,
        )
        return np.asarray(found.x)

    def slice(self, x: Float64, forward: float, tau: float) -> Svi:
        """The slice of a point in the fit's coordinates."""
        left, right, least, m, sigma = (float(number) for number in x)
        b = 0.5 * (left + right)
        rho = min(max((right - left) / (left + right), -1.0), 1.0)
        a = least - sigma * float(np.sqrt(left * right))
        return Svi(a=a, b=b, rho=rho, m=m, sigma=sigma, forward=forward, tau=tau)
