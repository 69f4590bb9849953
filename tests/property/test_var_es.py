"""Laws of value at risk and expected shortfall on any sample, and the one that value at risk breaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from simulation.margin.var_historical import History, filtered_scenarios, revalue
from simulation.margin.var_parametric import Cumulants, cornish_fisher_tail, is_monotone
from simulation.portfolio.instruments import Portfolio, Position, Spot
from simulation.portfolio.market import Market, Underlying
from simulation.statistics import quantile_row, sample_tail, tail_rows
from simulation.statistics.coverage import christoffersen, kupiec, severity
from simulation.statistics.procyclicality import buffered, floored, stressed_weight
from simulation.statistics.volatility import ewma_variance

PROFIT = st.floats(-1e6, 1e6, allow_subnormal=False)
CONFIDENCE = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995])


def samples(size: int = 60) -> st.SearchStrategy[NDArray[np.float64]]:
    """Return samples of one to `size` profits."""
    return st.integers(1, size).flatmap(lambda n: arrays(np.float64, n, elements=PROFIT))


PAIRS = st.integers(1, 60).flatmap(lambda n: arrays(np.float64, (2, n), elements=PROFIT))


@given(pair=PAIRS, confidence=CONFIDENCE)
def test_shortfall_is_sub_additive(pair: NDArray[np.float64], confidence: float) -> None:
    first, second, both = (sample_tail(x, confidence).es for x in (pair[0], pair[1], pair.sum(axis=0)))
    assert both <= first + second + 1e-6


def test_value_at_risk_is_not_sub_additive() -> None:
    # Two loans that default in different rows, each in one of a hundred: alone beyond the tail's edge.
    first, second = np.full(100, 1.0), np.full(100, 1.0)
    first[3], second[70] = -100.0, -100.0
    apart = sample_tail(first, 0.985).var + sample_tail(second, 0.985).var
    together = sample_tail(first + second, 0.985).var
    assert apart == -2
    assert together == 99
    assert sample_tail(first + second, 0.985).es <= 2 * sample_tail(first, 0.985).es


@given(profits=samples(), confidence=CONFIDENCE, factor=st.floats(1e-3, 1e3), added=PROFIT)
def test_scaling_and_cash(
    profits: NDArray[np.float64], confidence: float, factor: float, added: float
) -> None:
    plain, moved = sample_tail(profits, confidence), sample_tail(factor * profits + added, confidence)
    assert moved.var == pytest.approx(factor * plain.var - added, rel=1e-9, abs=1e-6)
    assert moved.es == pytest.approx(factor * plain.es - added, rel=1e-9, abs=1e-6)


@given(profits=samples(), confidence=CONFIDENCE, seed=st.integers(0, 99))
def test_the_order_of_the_sample_does_not_matter(
    profits: NDArray[np.float64], confidence: float, seed: int
) -> None:
    plain = sample_tail(profits, confidence)
    mixed = sample_tail(np.random.default_rng(seed).permutation(profits), confidence)
    assert (mixed.var, mixed.es) == (plain.var, plain.es)


@given(profits=samples(200), pair=st.tuples(st.floats(0.5, 0.999), st.floats(0.5, 0.999)))
def test_more_confidence_never_asks_less(profits: NDArray[np.float64], pair: tuple[float, float]) -> None:
    low, high = (sample_tail(profits, c) for c in sorted(pair))
    assert high.var >= low.var
    assert high.es >= low.es - 1e-6
    for tail in (low, high):
        assert tail.es >= tail.var - 1e-6


@given(profits=samples(), confidence=CONFIDENCE, row=st.integers(0, 59), loss=st.floats(0, 1e6))
def test_a_worse_row_never_asks_less(
    profits: NDArray[np.float64], confidence: float, row: int, loss: float
) -> None:
    worse = profits.copy()
    worse[row % len(profits)] -= loss
    plain, after = sample_tail(profits, confidence), sample_tail(worse, confidence)
    assert after.var >= plain.var
    assert after.es >= plain.es - 1e-6


@given(profits=samples(200), confidence=CONFIDENCE)
def test_the_quantile_is_a_row_and_no_more_rows_are_beyond_than_promised(
    profits: NDArray[np.float64], confidence: float
) -> None:
    found = sample_tail(profits, confidence)
    assert -found.var in profits
    # Strictly worse than the value at risk are at most a T rows, which is what makes it one.
    assert np.sum(-profits > found.var) <= tail_rows(len(profits), confidence)
    assert 1 <= quantile_row(len(profits), confidence) <= len(profits)
    assert found.es <= -profits.min() + 1e-6


@given(
    signs=arrays(np.bool_, (50, 2)),
    sizes=st.tuples(st.floats(0.001, 0.2), st.floats(0.001, 0.2)),
    decay=st.floats(0.8, 0.999),
)
@settings(deadline=None)  # the first call imports scipy.signal
def test_with_constant_volatility_filtered_is_historical(
    signs: NDArray[np.bool_], sizes: tuple[float, float], decay: float
) -> None:
    returns = np.where(signs, 1.0, -1.0) * np.array(sizes)
    assert filtered_scenarios(returns, "ewma", decay) == pytest.approx(returns, rel=1e-9)
    varied = returns * (1 + np.arange(50)[:, None] / 50)
    assert filtered_scenarios(varied, "ewma", 1.0) == pytest.approx(
        varied
    )  # a decay of 1 remembers its start


@given(returns=arrays(np.float64, (30, 2), elements=st.floats(-0.3, 0.3)), factor=st.floats(0.1, 10))
@settings(deadline=None)
def test_filtering_does_not_depend_on_the_unit(returns: NDArray[np.float64], factor: float) -> None:
    shifted = np.where(np.abs(returns) < 1e-3, 0.05, returns)
    scaled = filtered_scenarios(factor * shifted)
    assert scaled == pytest.approx(factor * filtered_scenarios(shifted), rel=1e-9)
    assert (ewma_variance(shifted) > 0).all()


MARKET = Market(underlyings={"ETH": Underlying(spot=2_000), "BTC": Underlying(spot=40_000)})


@given(
    returns=arrays(np.float64, (40, 2), elements=st.floats(-0.5, 0.5)),
    quantities=st.tuples(st.floats(-10, 10), st.floats(-1, 1)),
)
def test_revaluation_adds_up_and_does_not_depend_on_order(
    returns: NDArray[np.float64], quantities: tuple[float, float]
) -> None:
    legs = [
        Position(instrument=Spot(asset=asset), quantity=quantity)
        for asset, quantity in zip(("ETH", "BTC"), quantities, strict=True)
    ]
    factors = ("ETH", "BTC")
    both = revalue(Portfolio(positions=tuple(legs)), MARKET, factors, returns)
    turned = revalue(Portfolio(positions=tuple(legs[::-1])), MARKET, factors[::-1], returns[:, ::-1])
    parts = sum(revalue(Portfolio(positions=(leg,)), MARKET, factors, returns) for leg in legs)
    assert both == pytest.approx(parts, abs=1e-6)
    assert both == pytest.approx(turned, abs=1e-6)


@given(returns=arrays(np.float64, (20, 2), elements=st.floats(-0.5, 0.5)))
def test_the_digest_is_of_the_numbers_alone(returns: NDArray[np.float64]) -> None:
    history = History(factors=("ETH", "BTC"), returns=returns)
    assert History(factors=("ETH", "BTC"), returns=np.asfortranarray(returns)).digest == history.digest
    assert History.model_validate(history.model_dump(mode="json")).digest == history.digest


@given(
    skewness=st.floats(-2.4, 2.4),
    excess=st.floats(0, 10),
    pair=st.tuples(st.floats(0.9, 0.999), st.floats(0.9, 0.999)),
)
def test_the_expansion_keeps_the_laws_where_it_is_used(
    skewness: float, excess: float, pair: tuple[float, float]
) -> None:
    if is_monotone(skewness, excess):
        low, high = (cornish_fisher_tail(Cumulants(0, 1, skewness, excess), c) for c in sorted(pair))
        assert high.var >= low.var - 1e-9
        assert high.es >= low.es - 1e-6
        assert low.es >= low.var - 1e-6


@given(hits=arrays(np.bool_, st.integers(2, 300)), probability=st.sampled_from([0.01, 0.025, 0.05]))
def test_tests_of_coverage_add_up(hits: NDArray[np.bool_], probability: float) -> None:
    found = christoffersen(hits, probability)
    assert sum(map(sum, found.transitions)) == len(hits) - 1
    assert found.coverage == kupiec(int(hits.sum()), len(hits), probability)
    for test in (found.coverage, found.independence, found.conditional):
        assert test.statistic >= 0
        assert 0 <= test.p_value <= 1


@given(profits=samples(), margin=st.floats(0, 1e6))
def test_what_is_uncovered_is_never_negative(profits: NDArray[np.float64], margin: float) -> None:
    found = severity(profits, np.full(len(profits), margin))
    assert found.max_uncovered >= found.mean_uncovered - 1e-6
    assert found.mean_uncovered >= 0
    assert found.max_uncovered == pytest.approx(max(0.0, -profits.min() - margin), abs=1e-6)


@given(
    margin=arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1e6)),
    seed=st.integers(0, 99),
    stress=st.floats(0, 1e6),
)
def test_tools_against_procyclicality_never_ask_less(
    margin: NDArray[np.float64], seed: int, stress: float
) -> None:
    flags = np.random.default_rng(seed).random(len(margin)) < 0.5
    held = buffered(margin, flags)
    assert (held >= margin).all()
    assert (held <= 1.25 * margin).all()
    assert (stressed_weight(margin, stress) >= margin).all()
    assert (floored(margin, stress) >= np.maximum(margin, stress)).all()
