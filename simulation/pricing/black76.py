"""Black-76, standardised as Derive's contracts compute it, over arrays and inside compiled kernels.

With ``m = strike / forward`` and ``v = volatility * sqrt(years)`` a call, in units of the discounted forward,
is

``c = max(N(d1) - m * N(d2), 0)``, ``d1 = -ln(m) / v + v / 2``, ``d2 = d1 - v``,

the put comes from parity on that number, ``p = max(c + m - 1, 0)``, and only then is either scaled. From
``v >= 24`` on a call is worth the discounted forward; below 1e-18 ``v`` counts as 1e-18, so that no time left
gives the intrinsic value without a case of its own. Source: reference of the margin engines, section 1.0.

The put by parity is exact to the last digits of the *forward*, not of itself: far out of the money it rounds
to 0. That is what the venue computes, and what a margin must agree with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast, overload

import numba
import numpy as np
from scipy.special import ndtr

from contracts_abi.errors import InputError
from simulation.types import Bool, Float64

F = TypeVar("F", bound=Callable[..., Any])
Floats: TypeAlias = float | Float64
"""A number, or an array of them; arrays broadcast."""

V_MAX: Final = 24.0
"""Total volatility from which a call is worth the whole discounted forward."""
V_MIN: Final = 1e-18
"""Total volatility that stands for none."""

_HALF_ROOT: Final = math.sqrt(0.5)


def compiled(function: F) -> F:
    """Return a function compiled to machine code, kept between runs; mypy sees the plain function.

    Division by zero gives infinity or NaN, as in NumPy; nothing raises.
    """
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def at_least_zero(fix: str, **values: Floats) -> None:
    """Refuse a negative number; NaN passes, for it means an unknown price and must stay visible as NaN.

    Parameters
    ----------
    fix
        What the user can do about it.
    **values
        Numbers or arrays under the name that the message gives them.

    Raises
    ------
    InputError
        Naming the first value below zero.
    """
    for name, value in values.items():
        if np.any(below := np.asarray(value) < 0.0):
            raise InputError(f"{name} {_first(value, below)!r} is below zero", fix=fix)


def above_zero(fix: str, **values: Floats) -> None:
    """Refuse a number that is not above zero; NaN passes, and the arguments are those of `at_least_zero`.

    Raises
    ------
    InputError
        Naming the first value that is 0 or below.
    """
    for name, value in values.items():
        if np.any(below := np.asarray(value) <= 0.0):
            raise InputError(f"{name} {_first(value, below)!r} is not above zero", fix=fix)


def _first(value: Floats, where: Bool | np.bool_) -> float:
    return float(np.asarray(value)[where].flat[0])


@overload
def standardised_call(m: float, v: float) -> float: ...
@overload
def standardised_call(m: Float64, v: Floats) -> Float64: ...
@overload
def standardised_call(m: Floats, v: Float64) -> Float64: ...
def standardised_call(m: Floats, v: Floats) -> Floats:
    """Return a call's value in units of the discounted forward.

    Parameters
    ----------
    m
        Strike over forward; 0 and infinity are allowed.
    v
        Volatility times the root of the years.

    Returns
    -------
    float or numpy.ndarray
        Between 0 and 1, of the shape that `m` and `v` broadcast to; NaN where either is NaN.

    Notes
    -----
    Absolute error below 5e-16 for ``v <= 3`` and below 4e-15 for ``v < 24``, where ``N(d2)`` is far out in a
    tail that a large `m` multiplies; from 24 on the value is 1 by definition. Source: reference of the margin
    engines, section 1.0.
    """
    ratio, total = np.broadcast_arrays(np.asarray(m, np.float64), np.asarray(v, np.float64))
    floor = np.maximum(total, V_MIN)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        d1 = 0.5 * floor - np.log(ratio) / floor
        # ratio * 0 is NaN for an infinite ratio: no forward is left to buy.
        second = np.where(np.isposinf(ratio), 0.0, ratio * ndtr(d1 - floor))
        call = np.maximum(ndtr(d1) - second, 0.0)
    result = np.where(total >= V_MAX, np.where(np.isnan(ratio), np.nan, 1.0), call)
    return float(result) if result.ndim == 0 else result


@overload
def black76(
    forward: float,
    strike: float,
    volatility: float,
    years: float,
    discount: float = ...,
    call: bool = ...,
) -> float: ...
@overload
def black76(
    forward: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    discount: Floats = ...,
    call: bool | Bool = ...,
) -> Any: ...
def black76(
    forward: Floats,
    strike: Floats,
    volatility: Floats,
    years: Floats,
    discount: Floats = 1.0,
    call: bool | Bool = True,
) -> Floats:
    """Return what European options on a forward are worth today.

    Parameters
    ----------
    forward, strike
        Dollars, not negative. A strike of 0 makes a call worth the discounted forward, a forward of 0 makes a
        put worth the discounted strike.
    volatility
        Annual, 0.5 for 50 %; 0 gives the discounted intrinsic value.
    years
        To expiry; 0 gives the intrinsic value.
    discount
        Dollars today for one dollar at expiry.
    call
        Whether it is a call; a put otherwise.

    Returns
    -------
    float or numpy.ndarray
        Dollars, of the shape that the arguments broadcast to, a float where all are scalars; NaN where an
        argument is NaN.

    Raises
    ------
    InputError
        If a number is below zero.

    Notes
    -----
    Absolute error below 1e-15 of the larger of discounted forward and strike while volatility times the root
    of the years is at most 3. Source: reference of the margin engines, section 1.0.
    """
    at_least_zero(
        "a price, a volatility or a time is 0 or more",
        forward=forward,
        strike=strike,
        volatility=volatility,
        years=years,
        discount=discount,
    )
    f, k = np.asarray(forward, np.float64), np.asarray(strike, np.float64)
    scale, cap = f * np.asarray(discount), k * np.asarray(discount)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        m = np.where(f == 0.0, np.inf, k / f)
        c = np.asarray(standardised_call(m, np.asarray(volatility, np.float64) * np.sqrt(years)))
        put = np.minimum(np.maximum(c + m - 1.0, 0.0) * scale, cap)
        # Without a forward parity is infinity times 0; a NaN in c stays one.
        put = np.where(np.isposinf(m), cap + 0.0 * c, put)
        value = np.where(call, np.minimum(c * scale, scale), put)
    return float(value) if value.ndim == 0 else value


@compiled
def standardised_call_scalar(m: float, v: float) -> float:
    """Return what `standardised_call` returns for two numbers, inside compiled kernels.

    The normal distribution comes from the complementary error function of the C library, so that the last
    digit may differ from SciPy's. Sharing one exponential between both terms, with a scaled error function
    from a table, was measured: no faster, and 1.2e-15 off the forward instead of 0.3e-15.
    """
    if v >= V_MAX:
        return 1.0 if m == m else math.nan
    if math.isinf(m):
        return v * 0.0  # 0, or NaN where v is NaN
    if m == 0.0:
        return 1.0 + v * 0.0
    total = V_MIN if v < V_MIN else v
    d1 = 0.5 * total - math.log(m) / total
    call = 0.5 * (math.erfc(-_HALF_ROOT * d1) - m * math.erfc(-_HALF_ROOT * (d1 - total)))
    return 0.0 if call < 0.0 else call


@compiled
def black76_scalar(
    forward: float, strike: float, volatility: float, years: float, discount: float, call: bool
) -> float:
    """Return what `black76` returns for one option, inside compiled kernels.

    Parameters
    ----------
    forward, strike, volatility, years, discount, call
        As of `black76`; nothing is checked, a number below zero gives NaN or nonsense.
    """
    scale, cap = forward * discount, strike * discount
    m = math.inf if forward == 0.0 else strike / forward
    c = standardised_call_scalar(m, volatility * math.sqrt(years))
    if call:
        # A call in units of the forward is at most 1; rounding may not lift it above.
        return min(c, 1.0) * scale if c == c else math.nan
    if math.isinf(m):
        return cap + 0.0 * c
    p = c + m - 1.0
    if p != p:
        return math.nan
    return min(max(p, 0.0) * scale, cap)


def implied_volatility(
    forward: Floats,
    strike: Floats,
    value: Floats,
    years: Floats,
    discount: Floats = 1.0,
    call: bool | Bool = True,
) -> Any:
    """Return the volatility at which `black76` gives the value.

    Parameters
    ----------
    forward, strike, years
        Above zero.
    value
        Dollars.
    discount, call
        As of `black76`.

    Returns
    -------
    float or numpy.ndarray
        Of the shape that the arguments broadcast to; NaN where no volatility gives the value: at or below
        what the option is worth without volatility, or not below its cap.

    Raises
    ------
    InputError
        If forward, strike, years or discount is not above zero.

    Notes
    -----
    Solved on the option of the same strike that is out of the money, so that the time value keeps its digits.
    """
    fix = "a price, a time or a discount is above zero"
    above_zero(fix, forward=forward, strike=strike, years=years, discount=discount)
    arrays = (np.asarray(x, np.float64) for x in (forward, strike, value, years, discount))
    f, k, x, t, d = np.broadcast_arrays(*arrays)
    is_call = np.asarray(call)
    m = k / f
    intrinsic = np.where(is_call, np.maximum(1.0 - m, 0.0), np.maximum(m - 1.0, 0.0))
    # A put of ratio m is m calls of ratio 1 / m.
    ratio = np.maximum(m, 1.0 / m)
    target = (x / (f * d) - intrinsic) / np.minimum(m, 1.0)
    solvable = (target > 0.0) & (target < 1.0)
    ratio, target, root = np.broadcast_arrays(ratio, np.where(solvable, target, np.nan), np.sqrt(t))

    def missed(v: Float64, /, *fixed: Any) -> Float64:
        return np.asarray(standardised_call(fixed[0], v) - fixed[1])

    # Imported here: it costs half a second, and pricing itself needs none of it.
    from scipy.optimize.elementwise import find_root

    found = find_root(
        missed,
        (np.full_like(target, 1e-9), np.full_like(target, V_MAX)),
        args=(ratio, target),
        tolerances={"xatol": 0.0, "xrtol": 1e-13, "fatol": 0.0, "frtol": 0.0},
    )
    result = np.asarray(np.where(found.success, found.x, np.nan) / root)
    return float(result) if result.ndim == 0 else result
