"""Which of two margins was the better forecast: a score of value at risk and shortfall, and a test of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import stdtr

from contracts_abi.errors import InputError
from simulation.statistics import Floats


def fissler_ziegel(profits: Floats, var: Floats, es: Floats, confidence: float) -> Floats:
    """Return the Fissler-Ziegel score of each period, of degree zero (FZ0); smaller is better.

    With the quantile ``v = -var`` and shortfall ``e = -es`` of profit ``y`` at tail ``a``:
    ``-1{y <= v} (v - y) / (a e) + v / e + log(-e) - 1``. Its mean is least at the true pair, and a change of
    unit adds one constant to all scores.

    Parameters
    ----------
    profits, var, es
        Shape ``(T,)``; the last two positive, and `es` at least `var`.
    confidence
        Of both.

    Raises
    ------
    InputError
        If a shortfall is not positive or is below its value at risk.

    Notes
    -----
    Fissler and Ziegel (2016); the form is that of Patton, Ziegel and Chen (2019).
    """
    if not profits.shape == var.shape == es.shape:
        raise InputError("profits, value at risk and shortfall need one entry for each period")
    if not ((es > 0) & (es >= var)).all():
        raise InputError(
            "a shortfall is not positive, or below its value at risk", fix="score valid pairs only"
        )
    beyond = np.where(profits <= -var, -var - profits, 0.0)
    return np.asarray(beyond / ((1 - confidence) * es) + var / es + np.log(es) - 1)


@dataclass(frozen=True, slots=True)
class DieboldMariano:
    """Whether one series of scores is less than another by more than chance.

    Attributes
    ----------
    mean
        Mean difference, first less second; negative where the first is better.
    statistic
        Mean over its standard error, corrected for the size of the sample.
    p_value
        Two-sided.
    """

    mean: float
    statistic: float
    p_value: float


def diebold_mariano(first: Floats, second: Floats, lags: int = 0) -> DieboldMariano:
    """Return the Diebold-Mariano test with Newey-West errors and the correction of Harvey et al. (1997).

    Parameters
    ----------
    first, second
        Scores of the same periods, shape ``(T,)``.
    lags
        Autocovariances that the error counts, with Bartlett's weights; 0 fits forecasts whose periods do not
        overlap.

    Raises
    ------
    InputError
        If the series do not pair, are shorter than `lags` + 2, or `lags` is negative.
    """
    if first.shape != second.shape or first.ndim != 1 or not 0 <= lags < len(first) - 1:
        raise InputError(
            f"scores of shapes {first.shape} and {second.shape} with {lags} lags cannot be compared"
        )
    difference = first - second
    n = len(difference)
    mean = float(difference.mean())
    centred = difference - mean
    variance = float(centred @ centred) / n
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / n
    if not variance > 0:
        same = mean == 0
        return DieboldMariano(mean, 0.0 if same else float(np.copysign(np.inf, mean)), 1.0 if same else 0.0)
    horizon = lags + 1
    correction = sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = mean / sqrt(variance / n) * correction
    return DieboldMariano(mean, statistic, float(2 * stdtr(n - 1, -abs(statistic))))
