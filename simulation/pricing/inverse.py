"""Contracts that are margined and settled in their underlying: worth in coin, and in dollars.

An inverse perpetual or future of `notional` dollars pays ``notional * (1 / entry - 1 / price)`` coins: in
coin a curve that falls without end as the price nears zero, in dollars of the new price a straight line. An
inverse option pays its dollar payoff divided by the settlement price, in coin.

Source: reference of the margin engines, section 2.1 (the row of a future that the venue's vectors confirm).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulation.pricing.black76 import Floats, above_zero, black76
from simulation.types import Bool


def shock_profit_coin(coins: Floats, shock: Floats) -> Any:
    """Return what an inverse perpetual or future gains in coin when its price moves, ``coins * s / (1 + s)``.

    Parameters
    ----------
    coins
        Signed size in coin at the price before: dollars of notional over that price.
    shock
        Relative move of the price, -0.2 for a fall by 20 %; above -1.

    Returns
    -------
    float or numpy.ndarray
        Coins: ``coins * (1 - 1 / (1 + shock))``, written so that a small shock keeps its digits.

    Raises
    ------
    InputError
        If a shock is -1 or below: at a price of zero no number of coins pays for the loss.
    """
    after = 1.0 + np.asarray(shock, np.float64)
    above_zero("an inverse contract has no value at a price of zero; keep shocks above -1", price_after=after)
    return _plain(coins * np.asarray(shock) / after)


def linear_profit(notional: Floats, entry: Floats, price: Floats) -> Any:
    """Return what an inverse perpetual or future has gained in coin since it was entered.

    Parameters
    ----------
    notional
        Signed dollars.
    entry, price
        Dollars at which it was entered, and now.

    Returns
    -------
    float or numpy.ndarray
        Coins: ``notional * (1 / entry - 1 / price)``.

    Raises
    ------
    InputError
        If a price is not above zero.
    """
    above_zero("an inverse contract has no value at a price of zero", entry=entry, price=price)
    gap = np.asarray(price, np.float64) - entry
    return _plain(notional * gap / entry / price)


def linear_profit_dollars(notional: Floats, entry: Floats, price: Floats) -> Any:
    """Return `linear_profit` in dollars at the price now, ``notional * (price / entry - 1)``.

    Collateral held in the coin moves as well; this is the contract alone.
    """
    above_zero("an inverse contract has no value at a price of zero", entry=entry, price=price)
    return _plain(notional * (np.asarray(price, np.float64) - entry) / entry)


def option_coin(
    forward: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    coin_discount: Floats = 1.0,
    call: bool | Bool = True,
) -> Any:
    """Return what inverse options are worth in coin today.

    Parameters
    ----------
    forward, strike
        Dollars; the forward above zero.
    volatility, years, call
        As of `black76`.
    coin_discount
        Coins today for one coin at expiry; 1 where the venue pays no interest on coins.

    Returns
    -------
    float or numpy.ndarray
        Coins per option on one coin: Black-76 in units of the forward, times `coin_discount`. A call is worth
        at most one coin; a put any number of them.

    Raises
    ------
    InputError
        If the forward is not above zero, or another number is below it.
    """
    above_zero("an option settled in coin has no value at a price of zero", forward=forward)
    return black76(1.0, np.asarray(strike, np.float64) / forward, volatility, years, coin_discount, call)


def option_dollars(
    spot: Floats,
    forward: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    coin_discount: Floats = 1.0,
    call: bool | Bool = True,
) -> Any:
    """Return what inverse options are worth in dollars today: `option_coin` times the price of a coin.

    Parameters
    ----------
    spot
        Price of one coin today, dollars.
    forward, strike, volatility, years, coin_discount, call
        As of `option_coin`.

    Notes
    -----
    With the forward that `coin_discount` and a dollar discount ``D`` imply, ``spot * coin_discount / D``,
    this is ``black76(forward, strike, volatility, years, D, call)``.
    """
    above_zero("an option settled in coin has no value at a price of zero", spot=spot)
    return _plain(spot * np.asarray(option_coin(forward, strike, volatility, years, coin_discount, call)))


def _plain(value: Any) -> Any:
    array = np.asarray(value, np.float64)
    return float(array) if array.ndim == 0 else array
