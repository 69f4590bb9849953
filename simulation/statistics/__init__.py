"""Tails of distributions: the one quantile convention of this project, and the closed forms.

A sample of ``T`` profits is sorted, worst first, and ``a`` is one less the confidence. Value at risk is the
loss of order ``k = floor(a T) + 1``, the regulators' choice: no interpolation, so the figure is a loss that
was there. (numpy's default interpolates and is another one.) Expected shortfall is the mean of the worst
``a T``: of the worst ``ceil(a T)`` the last has the fraction that is left as its weight. Where ``a T < 1``
both are the worst loss. So shortfall is never below value at risk, and is sub-additive on every sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, floor, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, ndtri, stdtrit

from contracts_abi.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tail:
    """The lower tail of a distribution of profit; losses are positive.

    Attributes
    ----------
    var
        Value at risk.
    es
        Expected shortfall.
    """

    var: float
    es: float


def tail_rows(rows: int, confidence: float) -> float:
    """Return ``a T``, how many rows of a sample the tail has; not rounded to a whole number.

    The ninth decimal is rounded: ``(1 - 0.9) * 10`` is one row, and not a little less as in floats.

    Raises
    ------
    InputError
        If `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1", fix="write 99 % as 0.99")
    return round((1 - confidence) * rows, 9)


def quantile_row(rows: int, confidence: float) -> int:
    """Return the order of the value at risk: 1 for the worst of the sample."""
    return min(floor(tail_rows(rows, confidence)) + 1, rows)


def sample_tail(profits: Floats, confidence: float) -> Tail:
    """Return value at risk and expected shortfall of a sample of profits.

    Parameters
    ----------
    profits
        Shape ``(T,)``, in any order and unit; a loss is negative.
    confidence
        For example 0.99.

    Raises
    ------
    InputError
        If there is no row, or one is not a number.
    """
    rows = len(profits)
    if rows == 0 or not np.isfinite(profits).all():
        raise InputError("a tail needs at least one profit, and none that is not a number")
    share = tail_rows(rows, confidence)
    order = quantile_row(rows, confidence)
    worst = np.sort(np.partition(profits, order - 1)[:order])
    var = -float(worst[-1])
    if share <= 1:
        return Tail(var, -float(worst[0]))
    whole = floor(share)
    total = float(worst[:whole].sum())
    if share > whole:
        total += (share - whole) * float(worst[whole])
    return Tail(var, -total / share)


def normal_tail(confidence: float) -> Tail:
    """Return the tail of the standard normal distribution: 2.326348 and 2.665214 at 99 %."""
    a = 1 - confidence
    z = float(ndtri(a))
    return Tail(-z, _density(z) / a)


def student_tail(confidence: float, degrees: float) -> Tail:
    """Return the tail of Student's t with a variance of one.

    Parameters
    ----------
    confidence
        For example 0.99.
    degrees
        Degrees of freedom, more than 2.

    Raises
    ------
    InputError
        If there is no variance to scale to one.
    """
    if not degrees > 2:
        raise InputError(
            f"Student's t with {degrees} degrees of freedom has no variance", fix="use more than 2"
        )
    a = 1 - confidence
    quantile = float(stdtrit(degrees, a))
    unit = sqrt((degrees - 2) / degrees)
    at = exp(gammaln((degrees + 1) / 2) - gammaln(degrees / 2)) / sqrt(degrees * pi)
    density = at * (1 + quantile**2 / degrees) ** (-(degrees + 1) / 2)
    shortfall = density / a * (degrees + quantile**2) / (degrees - 1)
    return Tail(-quantile * unit, shortfall * unit)


@dataclass(frozen=True, slots=True)
class LognormalShortfall:
    """Expected shortfall of one unit, as a share of its price.

    Attributes
    ----------
    short, long
        Of a short and of a long position.
    """

    short: float
    long: float


def lognormal_shortfall(sigma: float, years: float, tail: float, *, vega: bool = False) -> LognormalShortfall:
    """Return the shortfall of a price without drift whose logarithm is normal.

    Parameters
    ----------
    sigma
        Annual volatility.
    years
        Horizon.
    tail
        Probability of the tail, for example 1e-6.
    vega
        Whether the long factor is to be Vega's own, which has ``exp(-(sigma**2 years / 2)**2)`` on its tail.

    Notes
    -----
    Section 4.5 of the reference; Vega's four documented pairs are what it is held to.
    """
    s = sigma * sqrt(years)
    z = float(ndtri(tail))
    quirk = exp(-((s * s / 2) ** 2)) if vega else 1.0
    return LognormalShortfall(float(ndtr(z + s)) / tail - 1, 1 - quirk * float(ndtr(z - s)) / tail)


def _density(z: float) -> float:
    return exp(-z * z / 2) / sqrt(2 * pi)
