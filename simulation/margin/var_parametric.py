"""Value at risk in closed form: normal factors, and a portfolio of its first or second order in them.

The profit is ``d'x + x'G x / 2`` with ``x`` normal. First order alone is delta-normal; with the second, the
first four cumulants are exact and the Cornish-Fisher expansion makes a quantile of them. The expansion is a
quantile function only where it rises, and is used only then. Source: reference of the margin engines,
section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, pi, sqrt
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, FiniteFloat
from scipy.special import ndtri

from simulation.margin import margin_methods
from simulation.margin.result import Grade
from simulation.margin.scenario_grid import positive_part
from simulation.margin.var_historical import Estimate, StatisticalMethod, StatisticalParameters, revalue
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.statistics import Floats, Tail, normal_tail, sample_tail

_STEP: Final = 2e-3
"""Logarithmic step of the differences: their truncation and their rounding are both below 1e-10 here."""

_REACH: Final = 6.0
"""Normal quantiles up to which the expansion has to rise."""

_MOST_SKEWED: Final = 6 * (sqrt(2) - 1)


class ParametricParameters(StatisticalParameters):
    """Parameters of the closed forms.

    Attributes
    ----------
    mean
        Whether factors drift by their ``sample`` mean, or not at all (``zero``).
    decay
        Exponential weights of the covariance; equal weights without it.
    """

    mean: Literal["zero", "sample"] = "zero"
    decay: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = None


class DeltaGammaParameters(ParametricParameters):
    """Parameters of the second order.

    Attributes
    ----------
    simulations, seed
        Of the simulation of ``d'x + x'G x / 2`` where the expansion is no quantile function.
    """

    simulations: int = Field(default=100_000, ge=1_000, le=10_000_000)
    seed: int = Field(default=1, ge=0)


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and covariance of the factors over the margin period.

    Attributes
    ----------
    mean
        Shape (factors,).
    covariance
        Shape (factors, factors).
    """

    mean: Floats
    covariance: Floats


def moments(
    returns: Floats,
    periods: float = 1.0,
    mean: Literal["zero", "sample"] = "zero",
    decay: float | None = None,
) -> Moments:
    """Return mean and covariance of the factors, both in proportion to the margin period.

    Parameters
    ----------
    returns
        Shape (rows, factors), oldest first.
    periods
        The margin period in rows.
    mean, decay
        As in `ParametricParameters`; around a sample mean the covariance has the divisor less one, by weights
        ``1 - sum(w**2)``.
    """
    rows = len(returns)
    weights = np.full(rows, 1 / rows) if decay is None else decay ** np.arange(rows - 1.0, -1.0, -1.0)
    weights = weights / weights.sum()
    centre = weights @ returns if mean == "sample" else np.zeros(returns.shape[1])
    centred = returns - centre
    covariance = (centred * weights[:, None]).T @ centred
    if mean == "sample":
        covariance = covariance / (1 - float(weights @ weights))
    return Moments(centre * periods, covariance * periods)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """First and second derivatives of the profit by logarithmic moves of the factors, dollars.

    Attributes
    ----------
    delta
        Shape (factors,).
    gamma
        Shape (factors, factors); of a token it is its value, for its price is exponential in the move.
    """

    delta: Floats
    gamma: Floats


def sensitivity(profit: Callable[[Floats], Floats], factors: int, step: float = _STEP) -> Sensitivity:
    """Return the derivatives of a profit by central differences of the fourth order.

    Parameters
    ----------
    profit
        From moves of shape (rows, factors) to profits of shape (rows,).
    factors
        How many there are.
    step
        Logarithmic.
    """
    unit = np.eye(factors) * step
    # One valuation for everything: no move, four along each axis, eight for each pair.
    along = [k * unit[i] for i in range(factors) for k in (-2, -1, 1, 2)]
    pairs = [(i, j) for i in range(factors) for j in range(i)]
    across = [
        k * (a * unit[i] + b * unit[j]) for i, j in pairs for k in (1, 2) for a in (1, -1) for b in (1, -1)
    ]
    values = profit(np.array([np.zeros(factors), *along, *across]))
    here, line = values[0], values[1 : 1 + 4 * factors].reshape(factors, 4)
    delta = (8 * (line[:, 2] - line[:, 1]) - (line[:, 3] - line[:, 0])) / (12 * step)
    gamma = np.diag((16 * (line[:, 1] + line[:, 2]) - (line[:, 0] + line[:, 3]) - 30 * here) / (12 * step**2))
    for (i, j), square in zip(pairs, values[1 + 4 * factors :].reshape(len(pairs), 2, 4), strict=True):
        near, far = (
            (v[0] - v[1] - v[2] + v[3]) / (4 * (k * step) ** 2) for k, v in zip((1, 2), square, strict=True)
        )
        gamma[i, j] = gamma[j, i] = (4 * near - far) / 3
    return Sensitivity(delta, gamma)


@dataclass(frozen=True, slots=True)
class Cumulants:
    """Shape of ``d'x + x'G x / 2``.

    Attributes
    ----------
    mean, deviation
        Dollars.
    skewness, excess
        Third and fourth standardised cumulant; 0 for a normal profit.
    """

    mean: float
    deviation: float
    skewness: float
    excess: float


def cumulants(delta: Floats, gamma: Floats, covariance: Floats) -> Cumulants:
    """Return the first four cumulants of ``d'x + x'G x / 2`` for normal ``x`` without a mean, exactly.

    ``k_n = n!/2 d' S A**(n-2) d + (n-1)!/2 tr A**n`` with ``A = G S``.
    """
    a = gamma @ covariance
    a2 = a @ a
    spread = covariance @ delta
    k1 = 0.5 * float(np.trace(a))
    k2 = float(delta @ spread) + 0.5 * float(np.trace(a2))
    k3 = 3 * float(spread @ gamma @ spread) + float(np.trace(a2 @ a))
    k4 = 12 * float(spread @ gamma @ covariance @ gamma @ spread) + 3 * float(np.trace(a2 @ a2))
    if k2 <= 0:
        return Cumulants(k1, 0.0, 0.0, 0.0)
    return Cumulants(k1, sqrt(k2), k3 / k2**1.5, k4 / k2**2)


def cornish_fisher(z: float, skewness: float, excess: float) -> float:
    """Return the quantile of a standardised distribution at the normal quantile `z`, to the fourth moment."""
    return (
        z + (z**2 - 1) * skewness / 6 + (z**3 - 3 * z) * excess / 24 - (2 * z**3 - 5 * z) * skewness**2 / 36
    )


def is_monotone(skewness: float, excess: float) -> bool:
    """Return whether the expansion is a quantile function: whether it rises wherever a normal variable is.

    That is from -6 to 6; what lies beyond has a probability of 2e-9. A token alone, whose profit is the
    exponential of a normal move, keeps this rule and not one for all numbers. A skewness beyond
    ``6 (sqrt(2) - 1)``, where no expansion rises everywhere, is refused as well.
    """
    # The derivative is c + b z + a z**2.
    a = excess / 8 - skewness**2 / 6
    b = skewness / 3
    c = 1 - excess / 8 + 5 * skewness**2 / 36
    least = c + a * _REACH**2 - abs(b) * _REACH
    if a > 0 and abs(b) < 2 * a * _REACH:
        least = c - b * b / (4 * a)
    return bool(abs(skewness) <= _MOST_SKEWED and least > 0)


def cornish_fisher_tail(shape: Cumulants, confidence: float) -> Tail:
    """Return value at risk and shortfall of the expansion; the integral of it over the tail is closed too.

    Parameters
    ----------
    shape
        For which `is_monotone`.
    confidence
        For example 0.99.
    """
    a = 1 - confidence
    z = float(ndtri(a))
    s, k = shape.skewness, shape.excess
    density = exp(-z * z / 2) / sqrt(2 * pi)
    mean = -density / a * (1 + z * s / 6 + (z**2 - 1) * k / 24 - (2 * z**2 - 1) * s**2 / 36)
    return Tail(
        -(shape.mean + shape.deviation * cornish_fisher(z, s, k)), -(shape.mean + shape.deviation * mean)
    )


class _Parametric(StatisticalMethod):
    parameters: ParametricParameters

    def _inputs(self, portfolio: Portfolio, market: Market) -> tuple[Moments, Sensitivity]:
        p = self.parameters
        factors = p.history.factors
        found = sensitivity(lambda moves: revalue(portfolio, market, factors, moves), len(factors))
        return moments(p.history.array, p.periods, p.mean, p.decay), found


@margin_methods.register("var.delta_normal")
class VarDeltaNormal(_Parametric):
    """Value at risk of a portfolio taken as linear in normal factors: ``z sqrt(h d'S d) - h d'm``.

    Options count by their delta and vega alone, and no time passes.

    Attributes
    ----------
    parameters
        History, confidences, margin period, and how mean and covariance are estimated.
    """

    kind: ClassVar[str] = "var.delta_normal"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "RiskMetrics 1996; reference of the margin engines, section 4.1"
    parameters: ParametricParameters

    def estimate(self, portfolio: Portfolio, market: Market) -> Estimate:
        """Return both tails of the normal profit.

        Raises
        ------
        PriceMissing, InputError
            As `revalue`.
        """
        by, greeks = self._inputs(portfolio, market)
        mean = float(greeks.delta @ by.mean)
        deviation = sqrt(positive_part(float(greeks.delta @ by.covariance @ greeks.delta)))
        unit = (normal_tail(c) for c in (self.parameters.initial_confidence, self.parameters.confidence))
        initial, maintenance = (Tail(deviation * t.var - mean, deviation * t.es - mean) for t in unit)
        return Estimate(initial, maintenance, components={"mean": mean, "deviation": deviation})


@margin_methods.register("var.delta_gamma")
class VarDeltaGamma(_Parametric):
    """Value at risk of the second order by Cornish-Fisher, or by simulation where that is no quantile.

    The component ``simulated`` is 1 where the expansion does not rise everywhere and ``d'x + x'G x / 2`` was
    drawn instead.

    Attributes
    ----------
    parameters
        Those of delta-normal, and the simulation's.
    """

    kind: ClassVar[str] = "var.delta_gamma"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "Cornish-Fisher 1938, Zangari 1996; reference of the margin engines, section 4.1"
    parameters: DeltaGammaParameters

    def estimate(self, portfolio: Portfolio, market: Market) -> Estimate:
        """Return both tails of the quadratic profit.

        Raises
        ------
        PriceMissing, InputError
            As `revalue`.
        """
        p = self.parameters
        by, greeks = self._inputs(portfolio, market)
        # The quadratic around the drift, so that what is left has no mean.
        delta = greeks.delta + greeks.gamma @ by.mean
        drift = float(greeks.delta @ by.mean + by.mean @ greeks.gamma @ by.mean / 2)
        shape = cumulants(delta, greeks.gamma, by.covariance)
        shape = Cumulants(shape.mean + drift, shape.deviation, shape.skewness, shape.excess)
        closed = is_monotone(shape.skewness, shape.excess)
        if closed:
            tails = [cornish_fisher_tail(shape, c) for c in (p.initial_confidence, p.confidence)]
        else:
            profits = drift + quadratic(delta, greeks.gamma, by.covariance, p.simulations, p.seed)
            tails = [sample_tail(profits, c) for c in (p.initial_confidence, p.confidence)]
        components = {
            "mean": shape.mean,
            "deviation": shape.deviation,
            "skewness": shape.skewness,
            "excess_kurtosis": shape.excess,
            "simulated": float(not closed),
        }
        return Estimate(tails[0], tails[1], components=components)


def quadratic(delta: Floats, gamma: Floats, covariance: Floats, simulations: int, seed: int) -> Floats:
    """Return draws of ``d'x + x'G x / 2`` for normal ``x``, shape (simulations,).

    Parameters
    ----------
    delta, gamma, covariance
        Of shape (factors,), and twice (factors, factors).
    simulations, seed
        How many, and the generator's seed.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    x = np.random.default_rng(seed).standard_normal((simulations, len(delta))) @ root.T
    return np.asarray(x @ delta + 0.5 * np.einsum("ij,jk,ik->i", x, gamma, x))
