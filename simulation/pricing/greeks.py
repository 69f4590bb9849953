"""The Greeks of Black-76 in closed form, all at once.

Derivatives of ``value = exp(-rate * years) * (F * N(d1) - K * N(d2))`` with the forward ``F`` held where it
is not the variable: what margin methods need that shock the forward, not the spot. Derivatives by time are
those of the calendar: what a year's passing would bring at today's pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import ndtr

from simulation.pricing.black76 import V_MIN, Floats, above_zero, at_least_zero, black76
from simulation.types import Bool

_ROOT_TAU: Final = float(np.sqrt(2.0 * np.pi))
_FAR: Final = 40.0
"""Deviations from which the normal distribution is 1 and its density 0, in float64."""


@dataclass(frozen=True, slots=True)
class Greeks:
    """Value and derivatives of options, each a float or an array of one shape.

    Attributes
    ----------
    value
        Dollars.
    delta
        By the forward.
    gamma
        Delta by the forward, per dollar.
    vega
        By the volatility, dollars per 1.00 of volatility (100 points).
    theta
        By calendar time, dollars per year; negative of the derivative by the years left.
    rho
        By the rate with the forward held, dollars per 1.00.
    vanna
        Delta by the volatility.
    volga
        Vega by the volatility.
    charm
        Delta by calendar time, per year.
    speed
        Gamma by the forward.
    """

    value: Any
    delta: Any
    gamma: Any
    vega: Any
    theta: Any
    rho: Any
    vanna: Any
    volga: Any
    charm: Any
    speed: Any


def black76_greeks(
    forward: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    rate: Floats = 0.0,
    call: bool | Bool = True,
) -> Greeks:
    """Return value and Greeks of European options on a forward.

    Parameters
    ----------
    forward, strike
        Dollars, above zero.
    volatility
        Annual, 0.5 for 50 %.
    years
        To expiry.
    rate
        Annual, continuously compounded; discounts, and leaves the forward alone.
    call
        Whether it is a call; a put otherwise.

    Returns
    -------
    Greeks
        Of the shape that the arguments broadcast to; floats where all are scalars. With no time or no
        volatility left they are the limits; where strike and forward are then equal, the value has a kink and
        every derivative by forward, volatility or time is NaN.

    Raises
    ------
    InputError
        If forward or strike is not above zero, or volatility or time is below it.
    """
    above_zero("a price is above zero", forward=forward, strike=strike)
    at_least_zero("a volatility or a time is 0 or more", volatility=volatility, years=years)
    arrays = (np.asarray(x, np.float64) for x in (forward, strike, volatility, years, rate))
    f, k, sigma, t, r = np.broadcast_arrays(*arrays)
    discount = np.exp(-r * t)
    value = np.asarray(black76(f, k, sigma, t, discount, call))

    # Without time or volatility the payoff has no curvature, except at the strike.
    flat = sigma * np.sqrt(t) < V_MIN
    level, left = np.where(flat, 1.0, sigma), np.where(flat, 1.0, t)
    root = np.sqrt(left)
    v = level * root
    d1 = np.where(flat, _FAR * np.sign(f - k), 0.5 * v - np.log(k / f) / v)
    d2 = d1 - np.where(flat, 0.0, v)
    density = np.where(flat, 0.0, discount * np.exp(-0.5 * d1 * d1) / _ROOT_TAU)

    # N(d1) - 1 as -N(-d1): a put's small delta keeps its digits.
    delta = discount * np.where(call, ndtr(d1), -ndtr(-d1))
    gamma = density / (f * v)
    vega = density * f * root
    kink = np.where(flat & (f == k), np.nan, 0.0)

    def shaped(greek: Any) -> Any:
        # A call per option may have more dimensions than the numbers.
        whole = np.broadcast_to(greek, value.shape)
        return float(whole) if whole.ndim == 0 else np.array(whole)

    return Greeks(
        value=shaped(value),
        delta=shaped(delta + kink),
        gamma=shaped(gamma + kink),
        vega=shaped(vega + kink),
        theta=shaped(r * value - 0.5 * vega * level / left + kink),
        rho=shaped(-t * value),
        vanna=shaped(-density * d2 / level + kink),
        volga=shaped(vega * d1 * d2 / level + kink),
        charm=shaped(r * delta + 0.5 * density * d2 / left + kink),
        speed=shaped(-gamma / f * (1.0 + d1 / v) + kink),
    )
