"""Tests of exceedances against the reference's numbers, and against cases that can be done by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.statistics import lognormal_shortfall, normal_tail, sample_tail, student_tail
from simulation.statistics.coverage import (
    Zone,
    acerbi_szekely_z1,
    acerbi_szekely_z2,
    christoffersen,
    coverage_by,
    critical_value,
    kupiec,
    severity,
    simulated_p_value,
    simulated_z1,
    simulated_z2,
    traffic_light,
)

FILE = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "stats_reference.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
there = pytest.mark.skipif(not VECTORS, reason=f"no reference numbers at {FILE}")


@there
def test_kupiec() -> None:
    for case in VECTORS["kupiec"]:
        found = kupiec(case["x"], case["T"], case["p"])
        assert found.statistic == pytest.approx(case["LR"], rel=1e-10, abs=1e-10)
        assert found.p_value == pytest.approx(case["pval"], rel=1e-10)


@there
def test_kupiec_intervals() -> None:
    # The table's bounds are exclusive; its first, 0 of 255 days at 1 %, says that none is rejected for few.
    for probability, rows in VECTORS["kupiec_nonrejection_95"].items():
        for periods, (low, high) in rows.items():
            p, n = float(probability), int(periods)
            kept = [x for x in range(n + 1) if kupiec(x, n, p).statistic < 3.841458820694124]
            assert kept[-1] == high - 1
            assert kept[0] == low + 1 or (low == 0 and kept[0] <= 1)


def test_kupiec_of_a_calculator_that_halves_nothing() -> None:
    assert kupiec(3, 250, 0.01).statistic == pytest.approx(0.09494012, abs=1e-8)  # and not 0.189
    assert kupiec(10, 1000, 0.01).p_value == 1
    for wrong in ((-1, 10, 0.01), (11, 10, 0.01), (0, 0, 0.01), (1, 10, 0.0), (1, 10, 1.0)):
        with pytest.raises(InputError):
            kupiec(*wrong)


@there
@pytest.mark.parametrize(("name", "probability"), [("a", 0.25), ("b", 0.01)])
def test_christoffersen(name: str, probability: float) -> None:
    case = VECTORS["christoffersen"][name]
    hits = np.zeros(case["T"], dtype=bool)
    hits[case["hits"]] = True
    found = christoffersen(hits, probability)
    assert [list(row) for row in found.transitions] == case["n"]
    assert found.independence.statistic == pytest.approx(case["LR_ind"], rel=1e-12)
    assert found.independence.p_value == pytest.approx(case["p_ind"], rel=1e-10)
    assert found.coverage.statistic == pytest.approx(case["LR_uc"], rel=1e-12)
    assert found.conditional.statistic == pytest.approx(case["LR_cc"], rel=1e-12)
    assert found.conditional.p_value == pytest.approx(case["p_cc"], rel=1e-10)


def test_christoffersen_without_a_hit_finds_nothing() -> None:
    found = christoffersen(np.zeros(100, dtype=bool), 0.01)
    assert found.independence.statistic == 0
    assert found.conditional.statistic == found.coverage.statistic
    with pytest.raises(InputError):
        christoffersen(np.zeros(1, dtype=bool), 0.01)


@there
def test_traffic_light() -> None:
    basel = VECTORS["basel"]
    for hits, cumulative in enumerate(basel["cum_prob_le_k_T250_p01"]):
        found = traffic_light(hits)
        assert found.cumulative == pytest.approx(cumulative, abs=5e-7)
        assert found.plus_factor == basel["plus_factor_1996"][hits]
        assert found.multiplier == pytest.approx(basel["multiplier_frtb_MAR99"][hits])
        assert found.zone is (Zone.GREEN if hits <= 4 else Zone.YELLOW if hits <= 9 else Zone.RED)
    assert traffic_light(30).multiplier == 2
    assert traffic_light(5, 500).multiplier is None


@there
def test_tails_in_closed_form() -> None:
    for confidence, case in VECTORS["normal"].items():
        found = normal_tail(float(confidence))
        assert found.var == pytest.approx(case["VaR"], rel=1e-12)
        assert found.es == pytest.approx(case["ES"], rel=1e-11)
    for name, case in VECTORS["student_t_std"].items():
        degrees, confidence = name.removeprefix("nu").split("_")
        found = student_tail(float(confidence), float(degrees))
        assert found.var == pytest.approx(case["VaR"], rel=1e-10)
        assert found.es == pytest.approx(case["ES"], rel=1e-10)


@there
def test_lognormal_shortfall() -> None:
    for case in VECTORS["lognormal_ES_risk_factors_vega"]:
        arguments = (case["sigma"], case["tau"], case["lam"])
        plain, vega = lognormal_shortfall(*arguments), lognormal_shortfall(*arguments, vega=True)
        assert plain.short == pytest.approx(case["short"], rel=1e-9)
        assert plain.long == pytest.approx(case["long_textbook"], rel=1e-9)
        assert vega.long == pytest.approx(case["long_vega"], rel=1e-9)
        assert vega.long == pytest.approx(case["doc_long"], abs=2e-9)


@there
def test_critical_values_of_acerbi_and_szekely() -> None:
    for name, degrees in (("normal", None), ("t3", 3.0)):
        case = VECTORS[f"acerbi_szekely_Z2_{name}_T250_a025"]
        draws = simulated_z2(250, 0.975, 400_000, 7, degrees)
        assert abs(draws.mean()) < 0.005
        # Both sides are simulated: the deviation of a quantile by 100,000 draws is some 0.003.
        assert critical_value(draws, 0.05) == pytest.approx(case["q05"], abs=0.01)
        far = critical_value(draws, 0.0001)
        assert far == pytest.approx(case["q0001"], abs=0.1 if degrees is None else 0.6)


def test_acerbi_and_szekely_by_hand() -> None:
    profits = np.array([-3.0, 1.0, -1.0, -5.0])
    var, es = np.full(4, 2.0), np.array([2.5, 2.5, 2.5, 4.0])
    assert acerbi_szekely_z1(profits, var, es) == pytest.approx((-3 / 2.5 - 5 / 4) / 2 + 1)
    assert acerbi_szekely_z2(profits, var, es, 0.75) == pytest.approx((-3 / 2.5 - 5 / 4) / (4 * 0.25) + 1)
    assert np.isnan(acerbi_szekely_z1(profits, var + 9, es + 9))
    assert acerbi_szekely_z2(profits, var + 9, es + 9, 0.75) == 1
    with pytest.raises(InputError):
        acerbi_szekely_z2(profits, var, es * 0, 0.75)


def test_a_shortfall_that_is_too_small_is_rejected_and_a_right_one_is_not() -> None:
    rng = np.random.default_rng(3)
    profits = rng.standard_normal(2_000)
    tail = normal_tail(0.975)
    draws = simulated_z2(2_000, 0.975, 20_000, 5)
    for share, rejected in ((1.0, False), (0.7, True)):
        var, es = np.full(2_000, share * tail.var), np.full(2_000, share * tail.es)
        value = simulated_p_value(draws, acerbi_szekely_z2(profits, var, es, 0.975))
        assert (value < 0.01) is rejected
    assert np.isnan(simulated_p_value(simulated_z1(250, 0.99, 1_000, 5), float("nan")))


def test_severity_by_hand() -> None:
    found = severity(np.array([-10.0, -12.0, 5.0, -30.0]), np.array([10.0, 10.0, 10.0, 20.0]))
    assert (found.hits, found.periods, found.coverage) == (2, 4, 0.5)  # a loss as great is covered
    assert (found.max_uncovered, found.mean_uncovered, found.max_ratio, found.worst) == (10, 6, 1.5, 3)
    none = severity(np.zeros(3), np.ones(3))
    assert (none.coverage, none.max_uncovered, none.worst) == (1, 0, None)
    assert severity(np.array([-1.0]), np.array([0.0])).max_ratio == np.inf
    assert severity(np.array([-1e6]), np.array([5e-324])).max_ratio == np.inf
    with pytest.raises(InputError):
        severity(np.array([np.nan]), np.ones(1))
    with pytest.raises(InputError):
        severity(np.ones(2), np.ones(1))


def test_coverage_by_bucket() -> None:
    assert coverage_by(["a", "b", "a"], np.array([True, False, False])) == {"a": (1, 2), "b": (0, 1)}


def test_the_quantile_convention_by_hand() -> None:
    profits = -np.arange(1.0, 101.0)  # losses of 1 to 100
    at99, at95 = sample_tail(profits, 0.99), sample_tail(profits, 0.95)
    assert (at99.var, at99.es) == (99, 100)  # a T = 1: the second worst, and the mean of the worst one
    assert (at95.var, at95.es) == (95, 98)
    between = sample_tail(profits, 0.975)  # a T = 2.5
    assert between.var == 98
    assert between.es == pytest.approx((100 + 99 + 0.5 * 98) / 2.5)
    assert sample_tail(profits[:10], 0.9).var == 9  # 0.1 * 10 is 0.99999 in floats
    few = sample_tail(profits[:10], 0.99)
    assert (few.var, few.es) == (10, 10)
    for wrong in (np.array([]), np.array([1.0, np.nan])):
        with pytest.raises(InputError):
            sample_tail(wrong, 0.99)
    with pytest.raises(InputError):
        sample_tail(profits, 99.0)
    with pytest.raises(InputError):
        student_tail(0.99, 2.0)
