"""A volatility surface of SVI slices: between expiries, under a shock of the forward, and fitted to quotes.

Between two expiries the total variance at the same log-moneyness runs straight in time, which keeps the
surface free of calendar arbitrage where its slices are; before the first and after the last the volatility is
theirs. When the forward moves, a rule says what becomes of the smile:

- sticky strike: each strike keeps its volatility, as with a venue whose feed carries its own forward;
- sticky delta: the smile moves along. At one expiry the delta is a function of log-moneyness and volatility
  alone, so that keeping the volatility of each log-moneyness keeps that of each delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.portfolio.market import Svi
from simulation.pricing.black76 import Floats, above_zero, at_least_zero, black76, implied_volatility
from simulation.pricing.svi import SliceFit, fit_slice, raw_total_variance
from simulation.types import Bool, Float64


class Sticky(StrEnum):
    """What a smile does when the forward moves."""

    STRIKE = "sticky strike"
    DELTA = "sticky delta"


@dataclass(frozen=True, slots=True)
class Surface:
    """Slices by time to expiry.

    Attributes
    ----------
    slices
        Ascending in `tau`, at least one; forward and tau of each are those of the surface.

    Raises
    ------
    InputError
        If there is no slice, or they do not ascend.
    """

    slices: tuple[Svi, ...]

    def __post_init__(self) -> None:
        if not self.slices:
            raise InputError("a surface without slices", fix="give at least one")
        for i in np.flatnonzero(np.diff(self._column("tau")) <= 0.0):
            one, two = self.slices[i], self.slices[i + 1]
            raise InputError(f"slice of {two.tau!r} years after {one.tau!r}", fix="sort slices by tau")

    def _column(self, name: str) -> Float64:
        return np.array([getattr(svi, name) for svi in self.slices])

    def forward(self, years: Floats) -> Any:
        """Return the forward of a time in years, dollars; its logarithm runs straight between expiries."""
        return np.exp(np.interp(years, self._column("tau"), np.log(self._column("forward"))))

    def volatility(
        self, strike: Floats, years: Floats, shock: Floats = 0.0, rule: Sticky = Sticky.STRIKE
    ) -> Any:
        """Return annual volatilities.

        Parameters
        ----------
        strike
            Dollars, above zero.
        years
            To expiry.
        shock
            Relative move of every forward, -0.2 for a fall by 20 %; above -1.
        rule
            What the smile does then.

        Returns
        -------
        float or numpy.ndarray
            Of the shape that the arguments broadcast to; NaN where an argument is NaN.

        Raises
        ------
        InputError
            If a strike is not above zero, a time below it, a shock -1 or less, or a total variance negative.
        """
        above_zero("a strike is above zero", strike=strike)
        above_zero("keep shocks above -1", forward_after=1.0 + np.asarray(shock, np.float64))
        at_least_zero("a time is 0 or more", years=years)
        arrays = (np.asarray(x, np.float64) for x in (strike, years, shock))
        price, t, move = np.broadcast_arrays(*arrays)
        anchor = self.forward(t) * (1.0 + move if rule is Sticky.DELTA else 1.0)
        k = np.log(price / anchor)
        taus = self._column("tau")
        later = np.clip(np.searchsorted(taus, t), 0, taus.size - 1)
        earlier = np.clip(np.searchsorted(taus, t, side="right") - 1, 0, taus.size - 1)
        gap = taus[later] - taus[earlier]
        # One expiry alone counts at it, before the first and after the last.
        share = np.where(gap > 0.0, (t - taus[earlier]) / np.where(gap > 0.0, gap, 1.0), 0.0)
        time = np.where(gap > 0.0, t, taus[earlier])
        w = (1.0 - share) * self._variance(earlier, k) + share * self._variance(later, k)
        if np.any(w < 0.0):
            raise InputError(
                f"surface with a total variance of {float(np.nanmin(w))!r}", fix="raise a of a slice"
            )
        result = np.sqrt(w / time) + 0.0 * (t + move)
        return float(result) if result.ndim == 0 else result

    def _variance(self, index: Any, k: Float64) -> Any:
        parameters = (self._column(name)[index] for name in ("a", "b", "rho", "m", "sigma"))
        return raw_total_variance(k, *parameters)

    def value(
        self,
        strike: Floats,
        years: Floats,
        call: bool | Bool = True,
        *,
        discount: Floats = 1.0,
        shock: Floats = 0.0,
        rule: Sticky = Sticky.STRIKE,
    ) -> Any:
        """Return what options are worth under a shock of the forward, dollars.

        Parameters
        ----------
        strike, years, shock, rule
            As of `volatility`.
        call, discount
            As of `simulation.pricing.black76.black76`.
        """
        forward = self.forward(years) * (1.0 + np.asarray(shock, np.float64))
        return black76(forward, strike, self.volatility(strike, years, shock, rule), years, discount, call)

    def moved(self, shock: float, rule: Sticky) -> Surface:
        """Return the surface after the forwards have moved: what sticky delta turns it into for good.

        Under sticky strike the smile stays and so does the surface: price it with the new forward.
        """
        above_zero("keep shocks above -1", forward_after=1.0 + shock)
        if rule is Sticky.STRIKE:
            return self
        return Surface(
            tuple(svi.model_copy(update={"forward": svi.forward * (1.0 + shock)}) for svi in self.slices)
        )


# Calibration

_LEAST_SPREAD: Final = 0.01
"""Half a spread in volatility that a quote counts as having at least: one point. Tight quotes near the money
would outvote the wings otherwise."""


@dataclass(frozen=True, slots=True)
class Quotes:
    """The options of one expiry as quoted.

    Attributes
    ----------
    label
        Name of the expiry.
    forward, years
        Dollars; to expiry.
    strike, call
        Shape (options,).
    bid, ask
        In units of the discounted forward, as venues quote inverse options; NaN where there is none.
    """

    label: str
    forward: float
    years: float
    strike: Float64
    call: Bool
    bid: Float64
    ask: Float64


@dataclass(frozen=True, slots=True)
class Points:
    """The quotes of one expiry that a slice is fitted to.

    Attributes
    ----------
    used
        Which of the quotes, shape (options,).
    k, volatility
        Log-moneyness, and annual volatility at the middle of bid and ask, shape (points,).
    half_spread
        Half of the volatility at the ask less that at the bid.
    """

    used: Bool
    k: Float64
    volatility: Float64
    half_spread: Float64


def points_of(quotes: Quotes) -> Points:
    """Return the quotes to fit to: out of the money, quoted on both sides and not crossed.

    In the money an option says nothing that its counterpart out of the money does not say better. A bid must
    be solvable for a volatility, and so must the ask.
    """
    out = np.where(quotes.call, quotes.strike >= quotes.forward, quotes.strike < quotes.forward)
    with np.errstate(invalid="ignore"):
        used = out & (quotes.bid > 0.0) & (quotes.ask > quotes.bid)
    ratio, call = quotes.strike[used] / quotes.forward, quotes.call[used]
    sides = np.stack([quotes.bid[used], 0.5 * (quotes.bid + quotes.ask)[used], quotes.ask[used]])
    bid, middle, ask = implied_volatility(1.0, ratio, sides, quotes.years, call=call)
    solved = np.isfinite(bid) & np.isfinite(ask)
    used[used] = solved
    return Points(used, np.log(ratio)[solved], middle[solved], (0.5 * (ask - bid))[solved])


@dataclass(frozen=True, slots=True)
class ExpiryFit:
    """One expiry, fitted.

    Attributes
    ----------
    quotes, points
        What was given, and what of it was used.
    fit
        The slice; its residuals are in total variance.
    residuals
        Fitted less quoted volatility, per point; 0.01 is a point of volatility.
    rms
        Root of the mean squared residual in volatility, weighted as in the fit.
    in_spread
        Share of the points whose fitted volatility lies between those of bid and ask.
    """

    quotes: Quotes
    points: Points
    fit: SliceFit
    residuals: Float64
    rms: float
    in_spread: float


@dataclass(frozen=True, slots=True)
class SurfaceFit:
    """A fitted surface.

    Attributes
    ----------
    surface
        Of the expiries that could be fitted.
    fits
        One per slice.
    refused
        Label and reason of each expiry that could not.
    """

    surface: Surface
    fits: tuple[ExpiryFit, ...]
    refused: tuple[tuple[str, str], ...]


def fit_expiry(quotes: Quotes, *, arbitrage_free: bool = True) -> ExpiryFit:
    """Fit a slice to the quotes of one expiry, each weighted by the inverse square of its spread.

    Parameters
    ----------
    quotes
        As quoted.
    arbitrage_free
        As of `simulation.pricing.svi.fit_slice`.

    Raises
    ------
    InputError
        If too few quotes can be used.

    Notes
    -----
    Half spreads below one point of volatility count as one point. The weights are those of total variances:
    a volatility's error counts ``2 * volatility * years`` times there.
    """
    points = points_of(quotes)
    spread = np.maximum(points.half_spread, _LEAST_SPREAD)
    weights = (2.0 * points.volatility * quotes.years * spread) ** -2.0
    try:
        fit = fit_slice(
            points.k,
            points.volatility**2 * quotes.years,
            weights,
            forward=quotes.forward,
            tau=quotes.years,
            arbitrage_free=arbitrage_free,
        )
    except InputError as error:
        raise InputError(f"expiry {quotes.label}: {error.message}", fix=error.fix) from None
    w = points.volatility**2 * quotes.years + fit.residuals
    residuals = np.sqrt(np.maximum(w, 0.0) / quotes.years) - points.volatility
    rms = float(np.sqrt(np.average(residuals**2, weights=spread**-2.0)))
    return ExpiryFit(
        quotes, points, fit, residuals, rms, float(np.mean(np.abs(residuals) <= points.half_spread))
    )


def fit_surface(expiries: Sequence[Quotes], *, arbitrage_free: bool = True) -> SurfaceFit:
    """Fit a slice to every expiry that has enough quotes; say why, of each that has not.

    Parameters
    ----------
    expiries
        In any order.
    arbitrage_free
        As of `simulation.pricing.svi.fit_slice`; slices are fitted one by one, so that calendar arbitrage
        between them is for `simulation.pricing.svi.calendar` to find.

    Raises
    ------
    InputError
        If no expiry can be fitted.
    """
    fits, refused = [], []
    for quotes in sorted(expiries, key=lambda expiry: expiry.years):
        try:
            fits.append(fit_expiry(quotes, arbitrage_free=arbitrage_free))
        except InputError as error:
            refused.append((quotes.label, str(error)))
    if not fits:
        reasons = "; ".join(reason for _, reason in refused)
        raise InputError(f"no expiry can be fitted: {reasons or 'none was given'}")
    return SurfaceFit(Surface(tuple(fit.fit.svi for fit in fits)), tuple(fits), tuple(refused))
