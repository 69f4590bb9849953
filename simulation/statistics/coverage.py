"""Whether a margin covered what it promised to: tests of exceedances, and how bad they were.

A *hit* is a period whose loss exceeded the value at risk. Profit is positive, value at risk and expected
shortfall are positive losses. Formulas, and the numbers that the tests hold them to, are of section 4.6 of
the reference.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, chdtrc, ndtri, stdtrit, xlogy

from contracts_abi.errors import InputError
from simulation.statistics import Floats, normal_tail, student_tail

Hits: TypeAlias = NDArray[np.bool_]

PLUS_FACTORS: Final = (0.0, 0.0, 0.0, 0.0, 0.0, 0.40, 0.50, 0.65, 0.75, 0.85, 1.0)
"""Basel 1996, on a multiplier of 3: by hits of 250 days at 99 %."""

MULTIPLIERS: Final = (1.5, 1.5, 1.5, 1.5, 1.5, 1.70, 1.76, 1.83, 1.88, 1.92, 2.0)
"""MAR99 of the Basel framework, likewise."""


@dataclass(frozen=True, slots=True)
class LikelihoodRatio:
    """A likelihood-ratio test.

    Attributes
    ----------
    statistic
        Chi-squared if the hypothesis holds.
    p_value
        How often chance alone is at least as far off.
    """

    statistic: float
    p_value: float


def kupiec(hits: int, periods: int, probability: float) -> LikelihoodRatio:
    """Return Kupiec's test of the proportion of hits (POF); chi-squared with one degree of freedom.

    Parameters
    ----------
    hits, periods
        Counts.
    probability
        Of a hit, for example 0.01.

    Raises
    ------
    InputError
        For counts or a probability that cannot be.
    """
    if not 0 <= hits <= periods or periods == 0 or not 0 < probability < 1:
        raise InputError(f"{hits} hits of {periods} at probability {probability} cannot be tested")
    said = _log_likelihood(hits, periods, probability)
    seen = _log_likelihood(hits, periods, hits / periods)
    return _ratio(said, seen, 1)


@dataclass(frozen=True, slots=True)
class Christoffersen:
    """Whether hits come one after another more often than apart.

    Attributes
    ----------
    transitions
        ``n[i][j]``: how often state ``i`` (1 for a hit) was followed by state ``j``.
    coverage
        Kupiec's test over all periods.
    independence
        Chi-squared with one degree of freedom.
    conditional
        Both together, two degrees.
    """

    transitions: tuple[tuple[int, int], tuple[int, int]]
    coverage: LikelihoodRatio
    independence: LikelihoodRatio
    conditional: LikelihoodRatio


def christoffersen(hits: Hits, probability: float) -> Christoffersen:
    """Return Christoffersen's tests of independence and of conditional coverage.

    Parameters
    ----------
    hits
        Shape ``(T,)``, in order of time.
    probability
        Of a hit, for example 0.01.

    Raises
    ------
    InputError
        With fewer than two periods.
    """
    if len(hits) < 2:
        raise InputError(f"{len(hits)} periods have no order to test")
    before, after = hits[:-1], hits[1:]
    n = [[int(np.sum((before == i) & (after == j))) for j in (False, True)] for i in (False, True)]
    (n00, n01), (n10, n11) = n
    alike = _log_likelihood(n01 + n11, len(hits) - 1, (n01 + n11) / (len(hits) - 1))
    apart = _log_likelihood(n01, n00 + n01, n01 / max(1, n00 + n01))
    apart += _log_likelihood(n11, n10 + n11, n11 / max(1, n10 + n11))
    independence = _ratio(alike, apart, 1)
    coverage = kupiec(int(hits.sum()), len(hits), probability)
    both = coverage.statistic + independence.statistic
    conditional = LikelihoodRatio(both, float(chdtrc(2, both)))
    return Christoffersen(((n00, n01), (n10, n11)), coverage, independence, conditional)


class Zone(StrEnum):
    """Zone of Basel's traffic light."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class TrafficLight:
    """What the Basel committee's traffic light says of a number of hits.

    Attributes
    ----------
    zone
        Green while chance gives no more hits in under 95 % of cases, red from 99.99 %.
    cumulative
        Probability of that many hits or fewer, if the margin is right.
    plus_factor, multiplier
        Of 1996 and of the framework in force; None but for 250 days at 99 %, which they are defined for.
    """

    zone: Zone
    cumulative: float
    plus_factor: float | None
    multiplier: float | None


def traffic_light(hits: int, periods: int = 250, probability: float = 0.01) -> TrafficLight:
    """Return the zone of Basel's traffic light.

    Parameters
    ----------
    hits, periods
        Counts.
    probability
        Of a hit.

    Raises
    ------
    InputError
        For counts that cannot be.
    """
    if not 0 <= hits <= periods or periods == 0:
        raise InputError(f"{hits} hits of {periods} cannot be")
    cumulative = float(bdtr(hits, periods, probability))
    zone = Zone.GREEN if cumulative < 0.95 else Zone.YELLOW if cumulative < 0.9999 else Zone.RED
    defined = periods == 250 and probability == 0.01
    row = min(hits, 10)
    return TrafficLight(
        zone, cumulative, PLUS_FACTORS[row] if defined else None, MULTIPLIERS[row] if defined else None
    )


def acerbi_szekely_z1(profits: Floats, var: Floats, es: Floats) -> float:
    """Return Acerbi and Székely's first statistic: how far losses beyond the quantile exceed the shortfall.

    Zero is expected of a right shortfall, less of one that is too small; NaN without a hit.

    Parameters
    ----------
    profits, var, es
        Shape ``(T,)``.

    Raises
    ------
    InputError
        If a shortfall is not positive.
    """
    hits, shares = _shares(profits, var, es)
    return float(shares[hits].mean()) + 1 if hits.any() else float("nan")


def acerbi_szekely_z2(profits: Floats, var: Floats, es: Floats, confidence: float) -> float:
    """Return Acerbi and Székely's second statistic, which also counts the hits.

    Zero is expected of a right shortfall, less of one that is too small; 1 without a hit.

    Parameters
    ----------
    profits, var, es
        Shape ``(T,)``.
    confidence
        Of the shortfall.

    Raises
    ------
    InputError
        If a shortfall is not positive.
    """
    hits, shares = _shares(profits, var, es)
    return float(shares[hits].sum()) / (len(profits) * (1 - confidence)) + 1


def simulated_z2(
    periods: int, confidence: float, simulations: int, seed: int, degrees: float | None = None
) -> Floats:
    """Return draws of the second statistic where the shortfall is right.

    Only tails are drawn: the number of hits is binomial, and their losses follow from the distribution's
    inverse at uniform points below the quantile.

    Parameters
    ----------
    periods
        ``T``.
    confidence
        Of the shortfall.
    simulations
        Number of draws.
    seed
        Of the generator.
    degrees
        Student's degrees of freedom; normal without them. The statistic does not depend on the scale.

    Returns
    -------
    array
        Shape ``(simulations,)``, not sorted.
    """
    return _simulated(periods, confidence, simulations, seed, degrees)[1]


def simulated_z1(
    periods: int, confidence: float, simulations: int, seed: int, degrees: float | None = None
) -> Floats:
    """Return draws of the first statistic where the shortfall is right; NaN for draws without a hit.

    Parameters and shape are those of `simulated_z2`.
    """
    return _simulated(periods, confidence, simulations, seed, degrees)[0]


def critical_value(draws: Floats, level: float) -> float:
    """Return the value below which a statistic is rejected at `level`.

    Parameters
    ----------
    draws
        Of `simulated_z1` or `simulated_z2`.
    level
        For example 0.05.
    """
    return float(np.nanquantile(draws, level))


def simulated_p_value(draws: Floats, statistic: float) -> float:
    """Return how often chance gives a statistic as small, counting the sample itself; NaN for NaN."""
    known = draws[~np.isnan(draws)]
    if np.isnan(statistic):
        return float("nan")
    return (float(np.sum(known <= statistic)) + 1) / (len(known) + 1)


@dataclass(frozen=True, slots=True)
class Severity:
    """How bad the periods were that margin did not cover.

    Attributes
    ----------
    hits, periods
        Counts.
    coverage
        Share of periods that were covered.
    max_uncovered
        Greatest loss beyond the margin, in the unit of the profits; 0 without a hit.
    mean_uncovered
        Mean loss beyond the margin over hits.
    max_ratio
        Greatest loss over its margin.
    worst
        Index of the greatest loss beyond the margin; None without a hit.
    """

    hits: int
    periods: int
    coverage: float
    max_uncovered: float
    mean_uncovered: float
    max_ratio: float
    worst: int | None


def severity(profits: Floats, margin: Floats) -> Severity:
    """Return how bad the hits were.

    Parameters
    ----------
    profits, margin
        Shape ``(T,)``, of one unit; a margin that is positive covers a loss as great.

    Raises
    ------
    InputError
        If shapes differ, nothing is there, or something is not a number.
    """
    hits = exceedances(profits, margin)
    uncovered = np.where(hits, -profits - margin, 0.0)
    count = int(hits.sum())
    if count == 0:
        return Severity(0, len(profits), 1.0, 0.0, 0.0, 0.0, None)
    # A margin of nothing, or next to it, was exceeded without limit.
    with np.errstate(over="ignore", divide="ignore"):
        ratios = np.where(margin[hits] > 0, -profits[hits] / margin[hits], np.inf)
    return Severity(
        count,
        len(profits),
        1 - count / len(profits),
        float(uncovered.max()),
        float(uncovered.sum()) / count,
        float(ratios.max()),
        int(uncovered.argmax()),
    )


def exceedances(profits: Floats, margin: Floats) -> Hits:
    """Return where the loss was greater than the margin; one as great is covered.

    Raises
    ------
    InputError
        If shapes differ, nothing is there, or something is not a number.
    """
    if profits.shape != margin.shape or profits.ndim != 1 or len(profits) == 0:
        raise InputError(f"profits of shape {profits.shape} and margins of shape {margin.shape} do not pair")
    if not (np.isfinite(profits).all() and np.isfinite(margin).all()):
        raise InputError("a profit or a margin is not a number", fix="leave the period out and say so")
    return np.asarray(-profits > margin)


def coverage_by(buckets: Sequence[Hashable], hits: Hits) -> dict[Hashable, tuple[int, int]]:
    """Return hits and periods of each bucket (a year, a regime of volatility), in order of appearance."""
    out: dict[Hashable, tuple[int, int]] = {}
    for bucket, hit in zip(buckets, hits, strict=True):
        count, periods = out.get(bucket, (0, 0))
        out[bucket] = (count + int(hit), periods + 1)
    return out


def _log_likelihood(hits: int, periods: int, probability: float) -> float:
    return float(xlogy(periods - hits, 1 - probability) + xlogy(hits, probability))


def _ratio(under: float, over: float, degrees: int) -> LikelihoodRatio:
    statistic = max(0.0, -2 * (under - over))
    return LikelihoodRatio(statistic, float(chdtrc(degrees, statistic)))


def _shares(profits: Floats, var: Floats, es: Floats) -> tuple[Hits, Floats]:
    if es.shape != profits.shape or not (es > 0).all():
        raise InputError("the test of expected shortfall needs one for each period, all of them positive")
    return exceedances(profits, var), profits / es


def _simulated(
    periods: int, confidence: float, simulations: int, seed: int, degrees: float | None
) -> tuple[Floats, Floats]:
    a = 1 - confidence
    rng = np.random.default_rng(seed)
    counts = rng.binomial(periods, a, simulations)
    below = a * (1 - rng.random(int(counts.sum())))  # never 0, where the inverse is infinite
    if degrees is None:
        shares = np.asarray(ndtri(below) / normal_tail(confidence).es)
    else:
        unit = sqrt((degrees - 2) / degrees) / student_tail(confidence, degrees).es
        shares = np.asarray(stdtrit(degrees, below) * unit)
    sums = np.bincount(np.repeat(np.arange(simulations), counts), weights=shares, minlength=simulations)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, sums / counts, np.nan)
    return means + 1, np.asarray(sums / (periods * a) + 1)
