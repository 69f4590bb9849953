"""The tools against procyclicality, their measures, and the record of the rule that moves a margin."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from contracts_abi.errors import InputError
from simulation.statistics.procyclicality import (
    AdjustmentRule,
    Regime,
    adjusted,
    buffered,
    floored,
    next_regime,
    procyclicality,
    stressed_weight,
    worst_call,
)

MARGIN = np.array([100.0, 110.0, 130.0, 180.0, 160.0, 120.0])
STRESS = np.array([False, False, True, True, True, False])


def test_a_buffer_is_used_up_before_anything_is_called() -> None:
    # 137.5 is held when stress begins; 130 is within it, 180 is beyond, and what was called stays.
    found = buffered(MARGIN, STRESS)
    assert found == pytest.approx([125, 137.5, 137.5, 180, 180, 150])
    assert (found >= MARGIN).all()
    assert (found <= 1.25 * MARGIN + 1e-9).all()
    assert worst_call(found, 5) < worst_call(1.25 * MARGIN, 5)
    assert buffered(MARGIN, ~STRESS, 0.0) == pytest.approx(MARGIN)
    with pytest.raises(InputError):
        buffered(MARGIN, STRESS[:2])


def test_stressed_weight_and_floor_only_raise() -> None:
    assert stressed_weight(MARGIN, 180.0) == pytest.approx([120, 127.5, 142.5, 180, 165, 135])
    assert stressed_weight(MARGIN, 50.0) == pytest.approx(MARGIN)
    assert floored(MARGIN, 125.0) == pytest.approx([125, 125, 130, 180, 160, 125])
    assert floored(MARGIN, MARGIN[::-1]) == pytest.approx(np.maximum(MARGIN, MARGIN[::-1]))
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError):
            stressed_weight(MARGIN, 180.0, wrong)
    for bad in (np.array([]), np.array([-1.0]), np.array([np.nan])):
        with pytest.raises(InputError):
            floored(bad, 1.0)


def test_measures_by_hand() -> None:
    found = procyclicality(MARGIN, (1, 2, 30))
    assert found.peak_to_trough == pytest.approx(1.8)
    assert found.calls == {1: 50, 2: 70, 30: 80}
    assert found.cost == pytest.approx(800 / 6)
    assert worst_call(MARGIN[::-1][2:], 9) == 0
    assert worst_call(MARGIN[:1], 1) == 0
    assert procyclicality(np.array([0.0, 1.0])).peak_to_trough == np.inf
    with pytest.raises(InputError):
        worst_call(MARGIN, 0)


def test_a_regime_ends_only_well_below_its_threshold() -> None:
    rule = AdjustmentRule()
    assert next_regime(Regime.CALM, 1.24, rule) is Regime.CALM
    assert next_regime(Regime.CALM, 1.25, rule) is Regime.TENSE
    assert next_regime(Regime.TENSE, 1.07, rule) is Regime.TENSE
    assert next_regime(Regime.TENSE, 1.06, rule) is Regime.CALM
    assert next_regime(Regime.STRESSED, 1.71, rule) is Regime.STRESSED
    assert next_regime(Regime.STRESSED, 1.69, rule) is Regime.TENSE
    assert next_regime(Regime.CALM, 2.0, rule) is Regime.STRESSED


def test_the_rule_tells_what_it_did() -> None:
    ratio = np.array([1.0, 2.1, 2.1, 2.1, 1.0, 1.0, 1.0, 1.0])
    found = adjusted(np.full(8, 100.0), ratio, np.zeros(8))
    assert found.factor == pytest.approx([1, 1.1, 1.2, 1.25, 1.15, 1.05, 1, 1])
    assert found.margin == pytest.approx(100 * found.factor)
    assert [change.index for change in found.history] == [1, 2, 3, 4, 5, 6]
    first = found.history[0]
    assert (first.before, first.after, first.regime) == (1, 1.1, Regime.STRESSED)
    assert first.reason == "stressed at ratio 2.1, crowding 0: towards 1.25"
    for before, after in zip(found.history, found.history[1:], strict=False):
        assert before.after == after.before


def test_crowding_raises_in_proportion() -> None:
    rule = AdjustmentRule(step=9)
    found = adjusted(np.full(3, 100.0), np.ones(3), np.array([0.25, 0.625, 1.0]), rule)
    assert found.margin == pytest.approx([100, 125, 150])
    with pytest.raises(InputError):
        adjusted(np.ones(2), np.ones(2), np.array([0.5, 1.5]))
    with pytest.raises(InputError):
        adjusted(np.ones(2), np.ones(3), np.ones(2))


def test_the_rule_does_not_look_ahead() -> None:
    rng = np.random.default_rng(5)
    margin, ratio, share = rng.random(50), 3 * rng.random(50), rng.random(50)
    whole, part = adjusted(margin, ratio, share), adjusted(margin[:20], ratio[:20], share[:20])
    assert whole.factor[:20] == pytest.approx(part.factor)
    assert (whole.factor >= 1).all()
    assert np.abs(np.diff(whole.factor)).max() <= 0.1 + 1e-12


def test_thresholds_that_cross_are_refused() -> None:
    with pytest.raises(ValidationError, match="does not lie above"):
        AdjustmentRule(tense_above=2.0, stressed_above=1.5)
