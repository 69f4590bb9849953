"""Volatility that changes: exponential weights and GARCH(1,1), and a history rescaled to today's.

A variance series has one entry more than the returns: entry ``t`` is what was known before return ``t``, and
the last is the forecast. Nothing here looks ahead inside a recursion; the start value looks at the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from scipy.special import digamma, gammaln

from contracts_abi.errors import InputError
from simulation.statistics import Floats

RISKMETRICS: Final = 0.94
"""Daily decay of RiskMetrics; clearing houses use 0.97 to 0.995."""

BACKCAST_ROWS: Final = 75
"""The first rows that a recursion is started from, weighted by `RISKMETRICS`."""

PERSISTENCE: Final = 1 - 1e-7
"""Most that alpha and beta together may be: a variance that comes back, if slowly."""


def ewma_variance(returns: Floats, decay: float = RISKMETRICS, start: Floats | float | None = None) -> Floats:
    """Return the variance by exponential weights: ``v' = decay v + (1 - decay) r**2``.

    Parameters
    ----------
    returns
        Shape ``(T,)`` or ``(T, factors)``, oldest first.
    decay
        More than 0 and at most 1; with 1 the variance stays at its start.
    start
        Variance before the first return; the mean square of the sample by default.

    Returns
    -------
    array
        Shape ``(T + 1,)`` or ``(T + 1, factors)``.

    Raises
    ------
    InputError
        If `decay` is out of range, or a factor does not move at all.
    """
    if not 0 < decay <= 1:
        raise InputError(f"decay {decay} is not in (0, 1]", fix="RiskMetrics has 0.94 for days")
    squares = np.asarray(checked(returns) ** 2)
    first = np.asarray(squares.mean(axis=0) if start is None else start, dtype=np.float64)
    if not (first > 0).all():
        raise InputError("a factor without any movement has no volatility", fix="leave the factor out")
    head = np.broadcast_to(first, squares.shape[1:])[None]
    return np.concatenate([head, _recursive((1 - decay) * squares, decay, decay * head)])


def checked(returns: Floats) -> Floats:
    """Return returns as floats, or refuse them.

    Raises
    ------
    InputError
        With fewer than two rows, or one that is not a number.
    """
    values = np.asarray(returns, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise InputError("a history needs two returns or more, and none that is not a number")
    return values


@dataclass(frozen=True, slots=True)
class Garch:
    """A fitted GARCH(1,1): ``v' = omega + alpha e**2 + beta v`` with ``e = r - mu``.

    Attributes
    ----------
    mu, omega, alpha, beta
        Parameters, in the unit of the returns.
    degrees
        Degrees of freedom of the innovations; None where they are normal.
    log_likelihood
        At the parameters.
    variance
        Shape ``(T + 1,)``; the last is the forecast.
    """

    mu: float
    omega: float
    alpha: float
    beta: float
    degrees: float | None
    log_likelihood: float
    variance: Floats


def garch_variance(garch: Garch, returns: Floats) -> Floats:
    """Return the variance of other returns by parameters that were fitted before.

    Parameters
    ----------
    garch
        A fit; its variance is not looked at.
    returns
        Shape ``(T,)``, oldest first.

    Returns
    -------
    array
        Shape ``(T + 1,)``.
    """
    values = checked(returns)
    start = _backcast(values - values.mean() if garch.mu else values)
    return _variance(values - garch.mu, garch.omega, garch.alpha, garch.beta, start)


def fit_garch(
    returns: Floats, mean: Literal["zero", "constant"] = "zero", likelihood: Literal["normal", "t"] = "normal"
) -> Garch:
    """Return the GARCH(1,1) of greatest likelihood.

    The recursion starts at the weighted mean square of the first 75 residuals, as in the package `arch`,
    which the tests hold it against. Optimised on returns of variance one, by SLSQP with the exact gradient.

    Parameters
    ----------
    returns
        Shape ``(T,)``, oldest first.
    mean
        Whether `mu` is fitted or 0.
    likelihood
        Normal innovations, or Student's t of variance one.

    Raises
    ------
    InputError
        For fewer than 50 returns, ones that do not move, or where no maximum is found.

    Notes
    -----
    Bollerslev (1986), and (1987) for t; section 4.3 of the reference.
    """
    values = checked(returns)
    scale = float(values.std())
    if len(values) < 50 or not scale > 0:
        raise InputError(
            f"GARCH(1,1) cannot be fitted to {len(values)} returns of deviation {scale:g}",
            fix="give 50 or more that move, or use exponential weights",
        )
    y = values / scale
    start = _backcast(y - y.mean() if mean == "constant" else y)
    # The likelihood is flat along alpha + beta: start from the best of a small grid.
    tries = [
        np.array([float(y.mean()), (1 - whole) * float(y.var()), alpha, whole - alpha, 6.0])
        for alpha in (0.02, 0.05, 0.1, 0.2)
        for whole in (0.5, 0.7, 0.9, 0.98)
    ]
    free = [mean == "constant", True, True, True, likelihood == "t"]
    fixed = np.array([0.0, 0, 0, 0, np.inf])

    def spread(theta: Floats) -> Floats:
        whole = fixed.copy()
        whole[free] = theta
        return whole

    def objective(theta: Floats) -> tuple[float, Floats]:
        value, gradient = _likelihood(y, spread(theta), start)
        return -value / len(y), -gradient[free] / len(y)

    # Here and not above: importing it takes longer than most runs that fit nothing.
    from scipy.optimize import LinearConstraint, minimize

    first = min((t[free] for t in tries), key=lambda theta: objective(theta)[0])
    bounds = np.array([(-10.0, 10.0), (1e-8, 10.0), (0.0, 1.0), (0.0, 1.0), (2.05, 500.0)])[free]
    sums = np.array([[0.0, 0, 1, 1, 0]])[:, free]
    found: Any = minimize(
        objective,
        first,
        jac=True,
        method="SLSQP",
        bounds=bounds.tolist(),
        constraints=[LinearConstraint(sums, -np.inf, PERSISTENCE)],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    # Mode 8 says that no direction is better any more: at this tolerance, a maximum.
    if found.status not in (0, 8) or not np.isfinite(found.fun):
        raise InputError(f"GARCH(1,1) does not fit: {found.message}", fix="use exponential weights")
    mu, omega, alpha, beta, degrees = (float(v) for v in spread(np.clip(found.x, bounds[:, 0], bounds[:, 1])))
    variance = _variance(y - mu, omega, alpha, beta, start)
    return Garch(
        mu * scale,
        omega * scale**2,
        alpha,
        beta,
        degrees if likelihood == "t" else None,
        -float(found.fun) * len(y) - len(y) * float(np.log(scale)),
        variance * scale**2,
    )


def filtered(returns: Floats, variance: Floats) -> Floats:
    """Return each past return at the forecast's volatility: ``r * sqrt(v[T] / v[t])``.

    Parameters
    ----------
    returns
        Shape ``(T,)`` or ``(T, factors)``.
    variance
        One row more.

    Raises
    ------
    InputError
        If the shapes do not fit, or a variance is not positive.

    Notes
    -----
    Hull and White (1998), Barone-Adesi et al. (1999); section 4.3 of the reference.
    """
    if variance.shape != (len(returns) + 1, *returns.shape[1:]):
        raise InputError(f"variances of shape {variance.shape} for returns of shape {returns.shape}")
    if not (variance > 0).all():
        raise InputError("a variance is not positive", fix="leave factors out that do not move")
    return np.asarray(returns * np.sqrt(variance[-1] / variance[:-1]))


def _backcast(residuals: Floats) -> float:
    rows = min(BACKCAST_ROWS, len(residuals))
    weights = RISKMETRICS ** np.arange(rows)
    return float(weights @ residuals[:rows] ** 2 / weights.sum())


def _decayed(values: Floats, beta: float, before: float) -> Floats:
    """Return ``s[t] = values[t] + beta s[t - 1]`` along the first axis."""
    return _recursive(values, beta, np.array([beta * before]))


def _recursive(values: Floats, beta: float, added: Floats) -> Floats:
    from scipy.signal import lfilter  # as of scipy.optimize

    out, _ = lfilter([1.0], [1.0, -beta], values, axis=0, zi=added)
    return np.asarray(out, dtype=np.float64)


def _variance(residuals: Floats, omega: float, alpha: float, beta: float, start: float) -> Floats:
    squares = np.concatenate([[start], residuals**2])
    return _decayed(omega + alpha * squares, beta, start)


def _likelihood(y: Floats, theta: Floats, start: float) -> tuple[float, Floats]:
    """Return the log-likelihood and its gradient; infinite degrees of freedom are the normal."""
    mu, omega, alpha, beta, degrees = (float(v) for v in theta)
    e = y - mu
    v = _variance(e, omega, alpha, beta, start)[:-1]
    lagged = np.concatenate([[start], v[:-1]])
    squares = np.concatenate([[start], e[:-1] ** 2])
    moves = np.concatenate([[0.0], -2 * alpha * e[:-1]])
    slopes = [_decayed(x, beta, 0.0) for x in (moves, np.ones_like(e), squares, lagged)]
    by_degrees = 0.0
    if np.isinf(degrees):
        value = -0.5 * float(np.sum(np.log(2 * np.pi * v) + e**2 / v))
        by_v = 0.5 * (e**2 / v - 1) / v
        by_e = -e / v
    else:
        u = e**2 / (v * (degrees - 2))
        constant = gammaln((degrees + 1) / 2) - gammaln(degrees / 2) - 0.5 * np.log(np.pi * (degrees - 2))
        value = float(np.sum(constant - 0.5 * np.log(v) - (degrees + 1) / 2 * np.log1p(u)))
        share = (degrees + 1) / 2 * u / (1 + u)
        by_v = (share - 0.5) / v
        by_e = -(degrees + 1) * e / (v * (degrees - 2)) / (1 + u)
        by_degrees = float(
            np.sum(
                (digamma((degrees + 1) / 2) - digamma(degrees / 2)) / 2
                - 0.5 / (degrees - 2)
                - 0.5 * np.log1p(u)
                + share / (degrees - 2)
            )
        )
    gradient = [float(by_v @ slope) for slope in slopes]
    gradient[0] -= float(by_e.sum())
    return value, np.array([*gradient, by_degrees])
