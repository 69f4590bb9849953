"""Knock-out options: the example of an instrument that enters a margin by its value under a scenario.

A method that reprices needs nothing of an instrument but `value_under`: what it would be worth at a shocked
price and volatility. Formulas: Black-Scholes with a barrier watched at every moment (Reiner and Rubinstein,
"Breaking down the barriers", 1991), here in one line for all four kinds by reflection: with ``U(S)`` the
value of the payoff cut to the side where the option lives,

``value = U(S) - (H / S)**(2 * rate / sigma**2 - 1) * U(H**2 / S)``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.special import log_ndtr

from contracts_abi.errors import InputError
from simulation.portfolio.instruments import Barrier
from simulation.pricing.black76 import Floats, above_zero, at_least_zero
from simulation.types import Float64

_NO_VOLATILITY: Final = 1e-4
"""Annual volatility below which the path counts as certain: the reflected term would lose its digits."""


def value_under(
    instrument: Barrier,
    spot: Floats,
    volatility: Floats,
    years: Floats,
    rate: Floats = 0.0,
    *,
    reference: float | None = None,
) -> Any:
    """Return what a knock-out option is worth at a price, a volatility and a time to expiry.

    Parameters
    ----------
    instrument
        The option; it says where the barrier is, not on which side of it the price has been.
    spot
        Price of the underlying under the scenario, dollars.
    volatility
        Annual, under the scenario.
    years
        To expiry.
    rate
        Annual, continuously compounded; the drift of the price too.
    reference
        Price before the scenario, dollars: it says on which side the option lives, and a `spot` on the other
        side has knocked it out. Without it every `spot` counts as a price at which the option is alive; give
        it wherever the scenario moves the price.

    Returns
    -------
    float or numpy.ndarray
        Dollars, of the shape that the arguments broadcast to; 0 at and beyond the barrier, NaN where an
        argument is NaN.

    Raises
    ------
    InputError
        If a price is not above zero, a volatility or a time is below it, or spots lie on both sides of the
        barrier and `reference` is not given.

    Notes
    -----
    A scenario is one jump, then the barrier is watched from the shocked price on. Below a volatility of
    0.0001 the path counts as certain.
    """
    above_zero("a price is above zero", spot=spot)
    at_least_zero("a volatility or a time is 0 or more", volatility=volatility, years=years)
    arrays = (np.asarray(x, np.float64) for x in (spot, volatility, years, rate))
    s, sigma, t, r = np.broadcast_arrays(*arrays)
    above = _alive_above(instrument, s, reference)
    sure = sigma < _NO_VOLATILITY
    # A stand-in volatility and time keep the formula finite where its result is not used.
    alive = _reflected(instrument, above, s, np.where(sure, 1.0, sigma), np.where(t == 0.0, 1.0, t), r)
    certain = _certain(instrument, above, s, t, r)
    value = np.where(sure | (t == 0.0), certain + 0.0 * sigma, alive)
    dead = s <= instrument.barrier if above else s >= instrument.barrier
    value = np.where(dead, 0.0 * (sigma + t + r), value)
    return float(value) if value.ndim == 0 else value


def _alive_above(instrument: Barrier, spot: Float64, reference: float | None) -> bool:
    if reference is not None:
        above_zero("a price is above zero", reference=reference)
        return reference > instrument.barrier
    above = bool(np.any(spot > instrument.barrier))
    if above and np.any(spot < instrument.barrier):
        raise InputError(
            f"spots on both sides of the barrier {instrument.barrier!r}",
            fix="give reference, the price before the scenario: it says on which side the option lives",
        )
    return above


def _certain(instrument: Barrier, above: bool, s: Float64, t: Float64, r: Float64) -> Float64:
    """Without volatility the price goes straight to the forward: dead if that is beyond the barrier."""
    end = s * np.exp(r * t)
    gain = end - instrument.strike if instrument.call else instrument.strike - end
    crossed = end <= instrument.barrier if above else end >= instrument.barrier
    return np.where(crossed, 0.0 * end, np.exp(-r * t) * np.maximum(gain, 0.0))


def _reflected(
    instrument: Barrier, above: bool, s: Float64, sigma: Float64, t: Float64, r: Float64
) -> Float64:
    """The payoff between two prices, less its mirror image behind the barrier."""
    strike, barrier = instrument.strike, instrument.barrier
    low, high = (strike, np.inf) if instrument.call else (0.0, strike)
    low, high = (max(low, barrier), high) if above else (low, min(high, barrier))
    if low >= high:
        return np.zeros_like(s) + 0.0 * (s + sigma + t + r)
    v = sigma * np.sqrt(t)
    drift = (r + 0.5 * sigma * sigma) * t
    with np.errstate(divide="ignore"):
        to_low, to_high = (np.log(s / edge) if edge > 0.0 else np.inf for edge in (low, high))
    mirror = 2.0 * np.log(barrier / s)
    weight = (r / (sigma * sigma) - 0.5) * mirror

    # The mirror image lies beyond the barrier: probabilities count from its far side, where they are small.
    side = 1.0 if above else -1.0

    def within(shift: Float64 | float, log_scale: Float64 | float) -> tuple[Float64, Float64]:
        # Factor and probability are multiplied as logarithms: alone one may overflow and the other vanish.
        def tail(distance: Any, up: Float64 | float, share: Float64) -> Float64:
            return np.asarray(side * np.exp(up + log_ndtr(side * (distance + shift + share) / v)))

        asset = tail(to_low, log_scale + shift, drift) - tail(to_high, log_scale + shift, drift)
        cash = tail(to_low, log_scale, drift - v * v) - tail(to_high, log_scale, drift - v * v)
        return asset, cash

    asset, cash = within(0.0, 0.0)
    asset_mirror, cash_mirror = within(mirror, weight)
    sign = 1.0 if instrument.call else -1.0
    value = s * (asset - asset_mirror) - strike * np.exp(-r * t) * (cash - cash_mirror)
    # Rounding near the barrier may leave a trace below zero.
    return np.asarray(np.maximum(sign * value, 0.0))
