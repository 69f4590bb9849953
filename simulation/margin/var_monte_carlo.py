"""Value at risk by simulation: fat-tailed factors that crash together, and jumps of the whole market.

Margins are Student's t at the factor's own volatility, the dependence is a t-copula whose correlation comes
from Kendall's tau, and on top a Poisson number of jumps moves every price at once. The portfolio is priced in
full. Drawn from a seed; the error of the shortfall is reported. Source: reference of the margin engines,
section 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, pi, sqrt
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, FiniteFloat
from scipy.special import stdtr, stdtrit

from contracts_abi.errors import InputError
from simulation.margin import margin_methods
from simulation.margin.result import Grade
from simulation.margin.var_historical import VOL, Estimate, StatisticalMethod, StatisticalParameters, revalue
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.statistics import Floats, sample_tail, tail_rows
from simulation.statistics.volatility import RISKMETRICS, ewma_variance

TWO_SIDED_95: Final = 1.959963984540054
"""Normal quantile of the confidence intervals."""


class MonteCarloParameters(StatisticalParameters):
    """Parameters of the simulation. Those of jumps are assumptions, not estimates.

    Attributes
    ----------
    simulations, seed
        How many rows are drawn, and the generator's seed.
    copula_degrees
        Degrees of freedom of the copula: the fewer, the more often factors crash together.
    margin_degrees
        Degrees of freedom of each factor, more than 2.
    volatility
        ``sample``: the root mean square of the history; ``ewma``: exponential weights.
    decay
        Of ``ewma``.
    jump_intensity
        Expected number of jumps in one row of the history.
    jump_mean, jump_deviation
        Of one jump, logarithmic; the same for every price, none for volatilities.
    """

    simulations: int = Field(default=50_000, ge=1_000, le=10_000_000)
    seed: int = Field(default=1, ge=0)
    copula_degrees: Annotated[FiniteFloat, Field(gt=0.5, le=1_000)] = 4.0
    margin_degrees: Annotated[FiniteFloat, Field(gt=2, le=1_000)] = 4.0
    volatility: Literal["sample", "ewma"] = "ewma"
    decay: Annotated[FiniteFloat, Field(gt=0, lt=1)] = RISKMETRICS
    jump_intensity: Annotated[FiniteFloat, Field(ge=0, le=10)] = 0.005
    jump_mean: FiniteFloat = -0.1
    jump_deviation: Annotated[FiniteFloat, Field(ge=0)] = 0.1


@dataclass(frozen=True, slots=True)
class Jumps:
    """Jumps of the whole market.

    Attributes
    ----------
    intensity
        Expected number over the margin period.
    mean, deviation
        Of one, logarithmic.
    """

    intensity: float
    mean: float
    deviation: float


def kendall(returns: Floats) -> Floats:
    """Return Kendall's tau-b of every pair of factors, shape (factors, factors).

    Parameters
    ----------
    returns
        Shape (rows, factors).
    """
    rows, factors = returns.shape
    concordant = np.zeros((factors, factors))
    # One row against all later ones: rows times factors at a time, not rows squared.
    for row in range(rows - 1):
        signs = np.sign(returns[row + 1 :] - returns[row])
        concordant += signs.T @ signs
    untied = np.sqrt(np.diag(concordant))
    if not (untied > 0).all():
        raise InputError("a factor of the history never moves", fix="leave the factor out")
    return np.asarray(concordant / np.outer(untied, untied))


def correlation_of(tau: Floats) -> Floats:
    """Return the copula's correlation ``sin(pi tau / 2)``, brought back to a positive semidefinite one."""
    values, vectors = np.linalg.eigh(np.sin(pi / 2 * tau))
    whole = (vectors * np.maximum(values, 1e-12)) @ vectors.T
    unit = np.sqrt(np.diag(whole))
    return np.asarray(whole / np.outer(unit, unit))


def drawn(
    rng: np.random.Generator,
    simulations: int,
    deviation: Floats,
    correlation: Floats,
    copula_degrees: float,
    margin_degrees: float,
    jumps: Jumps | None = None,
    prices: Floats | None = None,
) -> Floats:
    """Return simulated moves of the factors, shape (simulations, factors).

    Parameters
    ----------
    rng
        The generator; draws are taken in one order whatever the portfolio.
    simulations
        How many rows.
    deviation
        Standard deviation of each factor without jumps, shape (factors,).
    correlation
        Of the copula.
    copula_degrees, margin_degrees
        As in `MonteCarloParameters`.
    jumps
        None for none.
    prices
        1 for factors that jump and 0 for others; all jump without it.
    """
    factors = len(deviation)
    root = np.linalg.cholesky(correlation)
    normal = rng.standard_normal((simulations, factors)) @ root.T
    common = np.sqrt(copula_degrees / rng.chisquare(copula_degrees, simulations))
    z = normal * common[:, None]
    if copula_degrees != margin_degrees:
        # By the lower tail on both sides: above one half a probability loses its digits.
        z = -np.sign(z) * stdtrit(margin_degrees, stdtr(copula_degrees, -np.abs(z)))
    moves = z * sqrt((margin_degrees - 2) / margin_degrees) * deviation
    if jumps is None or jumps.intensity == 0:
        return np.asarray(moves)
    counts = rng.poisson(jumps.intensity, simulations)
    sizes = counts * jumps.mean + np.sqrt(counts) * jumps.deviation * rng.standard_normal(simulations)
    return np.asarray(moves + np.outer(sizes, np.ones(factors) if prices is None else prices))


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How far figures of a simulation may be from those of endless draws, with 95 % confidence.

    Attributes
    ----------
    es_error
        Standard error of the expected shortfall.
    es_low, es_high
        Its interval.
    var_low, var_high
        Interval of the value at risk, by order statistics.
    """

    es_error: float
    es_low: float
    es_high: float
    var_low: float
    var_high: float


def uncertainty(profits: Floats, confidence: float) -> Uncertainty:
    """Return the errors of value at risk and shortfall of independent draws.

    The shortfall's variance is ``(variance of the tail + c (ES - VaR)**2) / (N (1 - c))`` (Manistre and
    Hancock 2005): the first part alone forgets that the quantile is estimated too.

    Parameters
    ----------
    profits
        Shape (draws,).
    confidence
        For example 0.99.
    """
    found = sample_tail(profits, confidence)
    share = tail_rows(len(profits), confidence)
    ordered = np.sort(profits)
    tail = ordered[: max(2, ceil(share))]
    error = sqrt((float(tail.var()) + confidence * (found.es - found.var) ** 2) / share)
    spread = TWO_SIDED_95 * sqrt(share * confidence)
    last = len(ordered) - 1
    high, low = (min(last, max(0, floor(share + side * spread))) for side in (-1, 1))
    return Uncertainty(
        error,
        found.es - TWO_SIDED_95 * error,
        found.es + TWO_SIDED_95 * error,
        -float(ordered[low]),
        -float(ordered[high]),
    )


def fitted(
    returns: Floats, volatility: Literal["sample", "ewma"] = "ewma", decay: float = RISKMETRICS
) -> tuple[Floats, Floats]:
    """Return deviation and correlation of the factors by a history, shapes (factors,), (factors, factors).

    Parameters
    ----------
    returns
        Shape (rows, factors), oldest first.
    volatility, decay
        As in `MonteCarloParameters`.

    Raises
    ------
    InputError
        If a factor never moves.
    """
    if volatility == "sample":
        deviation = np.sqrt(np.mean(returns**2, axis=0))
    else:
        deviation = np.sqrt(ewma_variance(returns, decay)[-1])
    return np.asarray(deviation), correlation_of(kendall(returns))


@margin_methods.register("var.monte_carlo")
class VarMonteCarlo(StatisticalMethod):
    """Value at risk by simulation of fat tails that come together and of jumps, priced in full.

    Every portfolio sees the same draws, so that requirements of parts and of the whole compare.

    Attributes
    ----------
    parameters
        History, confidences, margin period, and the distribution.
    """

    kind: ClassVar[str] = "var.monte_carlo"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = (
        "reference of the margin engines, section 4.4; parameters of jumps are assumptions"
    )
    parameters: MonteCarloParameters

    def scenarios(self) -> Floats:
        """Return the drawn moves over the margin period, shape (simulations, factors).

        Raises
        ------
        InputError
            If a factor never moves.
        """
        p = self.parameters
        deviation, correlation = fitted(p.history.array, p.volatility, p.decay)
        return drawn(
            np.random.default_rng(p.seed),
            p.simulations,
            deviation * sqrt(p.periods),
            correlation,
            p.copula_degrees,
            p.margin_degrees,
            Jumps(p.jump_intensity * p.periods, p.jump_mean, p.jump_deviation),
            np.array([0.0 if name.endswith(VOL) else 1.0 for name in p.history.factors]),
        )

    def estimate(self, portfolio: Portfolio, market: Market) -> Estimate:
        """Return both tails, and the errors of the one that maintenance is of.

        Raises
        ------
        PriceMissing, InputError
            As `revalue`, and if a factor never moves.
        """
        p = self.parameters
        profits = revalue(portfolio, market, p.history.factors, self.scenarios(), p.elapsed_s)
        error = uncertainty(profits, p.confidence)
        components = {
            "expected_shortfall_error": error.es_error,
            "expected_shortfall_low": error.es_low,
            "expected_shortfall_high": error.es_high,
            "value_at_risk_low": error.var_low,
            "value_at_risk_high": error.var_high,
        }
        return Estimate(
            sample_tail(profits, p.initial_confidence),
            sample_tail(profits, p.confidence),
            components=components,
        )
