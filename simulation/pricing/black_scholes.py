"""Black-Scholes with a dividend yield: Black-76 on the forward that spot, rate and yield imply."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from simulation.pricing.black76 import Floats, black76
from simulation.types import Bool


def forward_of(spot: Floats, years: Floats, rate: Floats = 0.0, dividend: Floats = 0.0) -> Any:
    """Return the forward price that leaves no arbitrage, ``spot * exp((rate - dividend) * years)``.

    Parameters
    ----------
    spot
        Dollars.
    years
        To delivery.
    rate, dividend
        Annual, continuously compounded; the dividend of a coin is what lending it out earns.
    """
    return spot * np.exp((np.asarray(rate) - dividend) * years)


@overload
def black_scholes(
    spot: float,
    strike: float,
    volatility: float,
    years: float,
    rate: float = ...,
    dividend: float = ...,
    call: bool = ...,
) -> float: ...
@overload
def black_scholes(
    spot: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    rate: Floats = ...,
    dividend: Floats = ...,
    call: bool | Bool = ...,
) -> Any: ...
def black_scholes(
    spot: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    rate: Floats = 0.0,
    dividend: Floats = 0.0,
    call: bool | Bool = True,
) -> Any:
    """Return what European options on a spot price are worth today.

    Parameters
    ----------
    spot, strike
        Dollars, not negative.
    volatility
        Annual, 0.5 for 50 %.
    years
        To expiry.
    rate, dividend
        Annual, continuously compounded; either sign.
    call
        Whether it is a call; a put otherwise.

    Returns
    -------
    float or numpy.ndarray
        Dollars, of the shape that the arguments broadcast to; NaN where an argument is NaN.

    Raises
    ------
    InputError
        If a price, a volatility or a time is below zero.
    """
    forward = forward_of(spot, years, rate, dividend)
    return black76(forward, strike, volatility, years, np.exp(-np.asarray(rate) * years), call)
