"""Margin that does not rise just when nobody can pay: the tools of EMIR, and what they cost.

Pure transforms of a margin series (Regulation 153/2013, article 28; section 4.7 of the reference), measures
of how procyclical a series is, and a rule that moves a margin by regime and keeps a record of why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.statistics import Floats

Flags: TypeAlias = NDArray[np.bool_]
Factor = Annotated[FiniteFloat, Field(ge=1)]


def buffered(margin: Floats, stressed: Flags, buffer: float = 0.25) -> Floats:
    """Return a margin with a buffer that is built in calm and may be used up in stress: article 28(1)(a).

    In calm the margin and the buffer are asked. When stress begins, what was last asked is held: a margin
    that rises eats the buffer first, and only what goes beyond is called. Always between the margin and the
    margin with the whole buffer.

    Parameters
    ----------
    margin
        Shape ``(T,)``, in order of time.
    stressed
        Shape ``(T,)``; when the buffer may be used.
    buffer
        Share of the margin, at least a quarter by the regulation.

    Raises
    ------
    InputError
        If shapes differ, a margin is negative or no number, or `buffer` is negative.
    """
    checked(margin)
    if stressed.shape != margin.shape or buffer < 0:
        raise InputError("a buffer needs one flag of stress for each margin, and must not be negative")
    out = (1 + buffer) * margin
    for t in range(1, len(margin)):
        if stressed[t]:
            out[t] = max(margin[t], min(out[t], out[t - 1]))
    return out


def stressed_weight(margin: Floats, stress_margin: Floats | float, weight: float = 0.25) -> Floats:
    """Return a margin that stressed observations are a part of: article 28(1)(b).

    Parameters
    ----------
    margin
        Shape ``(T,)``.
    stress_margin
        The same portfolio's margin over the stressed period; one figure, or one for each time.
    weight
        Of the stressed margin, at least a quarter by the regulation.

    Raises
    ------
    InputError
        If a margin is negative or no number, or `weight` is not in 0 to 1.
    """
    checked(margin)
    stress = np.broadcast_to(
        checked(np.atleast_1d(np.asarray(stress_margin, dtype=np.float64))), margin.shape
    )
    if not 0 <= weight <= 1:
        raise InputError(f"weight {weight} of stressed observations is not in 0 to 1")
    return np.maximum(margin, (1 - weight) * margin + weight * stress)


def floored(margin: Floats, long_margin: Floats | float) -> Floats:
    """Return a margin that is never below the one of ten years' volatility: article 28(1)(c).

    Parameters
    ----------
    margin
        Shape ``(T,)``.
    long_margin
        The same portfolio's margin by the volatility of ten years; one figure, or one for each time.

    Raises
    ------
    InputError
        If a margin is negative or no number.
    """
    checked(margin)
    return np.maximum(margin, checked(np.atleast_1d(np.asarray(long_margin, dtype=np.float64))))


@dataclass(frozen=True, slots=True)
class Procyclicality:
    """How procyclical a margin series is, and what it costs.

    Attributes
    ----------
    peak_to_trough
        Greatest margin over the least; infinite where the least is 0.
    calls
        Days to the greatest rise within that many days, in the unit of the margin.
    cost
        Mean margin.
    """

    peak_to_trough: float
    calls: dict[int, float]
    cost: float


def procyclicality(margin: Floats, days: tuple[int, ...] = (1, 5, 30)) -> Procyclicality:
    """Return the measures of Murphy, Vasios and Vause of one cycle.

    Parameters
    ----------
    margin
        Shape ``(T,)``, one a day.
    days
        Lengths of calls.
    """
    checked(margin)
    least = float(margin.min())
    return Procyclicality(
        float(margin.max()) / least if least > 0 else float("inf"),
        {n: worst_call(margin, n) for n in days},
        float(margin.mean()),
    )


def worst_call(margin: Floats, days: int) -> float:
    """Return the greatest rise of a margin within `days` entries or fewer; 0 where it never rises.

    Raises
    ------
    InputError
        If `days` is less than 1, or a margin is negative or no number.
    """
    checked(margin)
    if days < 1:
        raise InputError(f"a call within {days} days cannot be", fix="count from 1")
    spans = range(1, min(days, len(margin) - 1) + 1)
    return max([0.0, *(float(np.max(margin[n:] - margin[:-n])) for n in spans)])


class Regime(StrEnum):
    """Regime of volatility."""

    CALM = "calm"
    TENSE = "tense"
    STRESSED = "stressed"


class AdjustmentRule(StrictModel):
    """How much a margin is raised, by regime of volatility and by crowding.

    Attributes
    ----------
    tense_above, stressed_above
        Ratio of short to long volatility at which a regime begins.
    release
        Share of its threshold that the ratio must fall below before a regime ends: it does not flutter.
    tense_factor, stressed_factor
        What the margin is multiplied by in each regime; 1 in calm.
    crowded_above
        Share of open interest, on one side or of one holder, from which the margin is raised further.
    crowded_factor
        What the margin is multiplied by at a share of 1; between the threshold and 1 in proportion.
    step
        Most that the factor may change at one time, upward or downward.
    """

    tense_above: Annotated[FiniteFloat, Field(gt=0)] = 1.25
    stressed_above: Annotated[FiniteFloat, Field(gt=0)] = 2.0
    release: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.85
    tense_factor: Factor = 1.1
    stressed_factor: Factor = 1.25
    crowded_above: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.25
    crowded_factor: Factor = 1.5
    step: Annotated[FiniteFloat, Field(gt=0)] = 0.1

    @model_validator(mode="after")
    def _in_order(self) -> AdjustmentRule:
        if self.stressed_above <= self.tense_above or self.stressed_factor < self.tense_factor:
            raise InputError(
                f"stressed ({self.stressed_above}, factor {self.stressed_factor}) does not lie above "
                f"tense ({self.tense_above}, factor {self.tense_factor})",
                fix="raise stressed_above and stressed_factor",
            )
        return self


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One change of the factor, and why.

    Attributes
    ----------
    index
        Entry of the series at which it holds first.
    before, after
        Factor on the margin.
    regime
        Of volatility, at that entry.
    volatility_ratio, crowding
        What the rule saw.
    reason
        One line.
    """

    index: int
    before: float
    after: float
    regime: Regime
    volatility_ratio: float
    crowding: float
    reason: str


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A margin series that a rule has moved.

    Attributes
    ----------
    margin, factor
        Shape ``(T,)``; the factor is at least 1.
    history
        Every change, in order.
    """

    margin: Floats
    factor: Floats
    history: tuple[Adjustment, ...]


def adjusted(
    margin: Floats, volatility_ratio: Floats, crowding: Floats, rule: AdjustmentRule | None = None
) -> Adjusted:
    """Return a margin moved by regime and crowding; each entry looks at itself and what was before.

    Parameters
    ----------
    margin
        Shape ``(T,)``, in order of time.
    volatility_ratio
        Shape ``(T,)``: short over long volatility, as known at that time.
    crowding
        Shape ``(T,)``: share of open interest, 0 to 1.
    rule
        The defaults without one.

    Raises
    ------
    InputError
        If shapes differ, a ratio or margin is negative or no number, or a share is not in 0 to 1.
    """
    used = AdjustmentRule() if rule is None else rule
    for values in (margin, volatility_ratio, crowding):
        checked(values)
    if not margin.shape == volatility_ratio.shape == crowding.shape or (crowding > 1).any():
        raise InputError("each margin needs a ratio of volatility and a share of open interest of 0 to 1")
    regime, factor = Regime.CALM, 1.0
    factors, history = np.empty(len(margin)), []
    for t in range(len(margin)):
        ratio, share = float(volatility_ratio[t]), float(crowding[t])
        regime = next_regime(regime, ratio, used)
        wanted = _regime_factor(regime, used) * _crowding_factor(share, used)
        after = min(max(wanted, factor - used.step), factor + used.step)
        if after != factor:
            reason = f"{regime.value} at ratio {ratio:.3g}, crowding {share:.3g}: towards {wanted:.4g}"
            history.append(Adjustment(t, factor, after, regime, ratio, share, reason))
        factors[t] = factor = after
    return Adjusted(margin * factors, factors, tuple(history))


def next_regime(regime: Regime, ratio: float, rule: AdjustmentRule) -> Regime:
    """Return the regime after one look: up at a threshold, down only below its released share."""
    if ratio >= rule.stressed_above:
        return Regime.STRESSED
    if regime is Regime.STRESSED and ratio >= rule.release * rule.stressed_above:
        return Regime.STRESSED
    if ratio >= rule.tense_above:
        return Regime.TENSE
    if regime is not Regime.CALM and ratio >= rule.release * rule.tense_above:
        return Regime.TENSE
    return Regime.CALM


def checked(margin: Floats) -> Floats:
    """Return a series that has entries, none of them negative or no number.

    Raises
    ------
    InputError
        If it is not so.
    """
    if margin.ndim != 1 or len(margin) == 0 or not (np.isfinite(margin) & (margin >= 0)).all():
        raise InputError("a series is empty, or has an entry that is negative or no number")
    return margin


def _regime_factor(regime: Regime, rule: AdjustmentRule) -> float:
    return {
        Regime.CALM: 1.0,
        Regime.TENSE: rule.tense_factor,
        Regime.STRESSED: rule.stressed_factor,
    }[regime]


def _crowding_factor(share: float, rule: AdjustmentRule) -> float:
    beyond = max(0.0, share - rule.crowded_above) / (1 - rule.crowded_above)
    return 1 + (rule.crowded_factor - 1) * beyond
