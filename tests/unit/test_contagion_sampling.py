"""Paths that are drawn to say more: in mirrored pairs, and from a distribution of more losses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from contracts_abi.errors import InputError
from keeper.commands.sweep import run_sweep
from simulation.contagion.causes import columns, difference, effects_of
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.metrics import (
    PLAIN,
    Sampling,
    path_columns,
    plain_mean,
    ratio,
    sampling_of,
    tail_of,
    upper_tail,
)
from simulation.contagion.prices import build as build_prices
from simulation.contagion.prices.streams import refuse_mirrored
from simulation.contagion.record import figures, histogram, sampling_record, shares
from simulation.contagion.world import build_world
from simulation.types import Float64
from tests.contagion_books import one_pair_book

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
YEAR = 365 * 86_400.0
VOLATILITY, YEARS, STEPS = 0.8, 0.04, 4
DEVIATION = VOLATILITY * np.sqrt(YEARS)


def put_run(debt: float, shift: float = 0.0, *, antithetic: bool = False) -> Run:
    """One account that nobody liquidates: 1 ETH against `debt`, so that its bad debt is a put's payoff."""
    book = one_pair_book([1.0], [debt])
    eth = {"process": "gbm", "volatility": VOLATILITY, "drift_shift": shift}
    parts = [
        {"assets": ["ETH"], "prices": eth},
        {"assets": ["USD"], "prices": {"process": "gbm", "volatility": 0.0}},
    ]
    dt = YEARS * YEAR / STEPS
    prices = build_prices({"process": "composite", "parts": parts}, ["ETH", "USD"], [1.0, 1.0])
    return Run(build_world(book), prices, (), STEPS, dt, antithetic=antithetic)


def put(debt: float) -> float:
    """Mean of ``max(debt - S, 0)`` for a lognormal S of mean 1 (Black 1976)."""
    d1 = -np.log(debt) / DEVIATION + DEVIATION / 2
    return float(debt * norm.cdf(DEVIATION - d1) - norm.cdf(-d1))


def quantile_of(debt: float, level: float) -> tuple[float, float]:
    """The loss that is exceeded with 1 - level, and the mean of what is beyond it."""
    z = norm.ppf(1 - level)
    price = np.exp(DEVIATION * z - DEVIATION**2 / 2)
    return float(debt - price), float(debt - norm.cdf(z - DEVIATION) / (1 - level))


def test_a_pair_mirrors_each_other_and_batches_may_tear_it_apart() -> None:
    run = put_run(0.9, antithetic=True)
    whole = path_columns(run_paths(run, 3, 0, 10), run.dt_s)
    drift = -(DEVIATION**2) / 2
    z = (np.log(whole["price.ETH"]) - drift) / DEVIATION
    assert z[0::2] == pytest.approx(-z[1::2], abs=1e-12)
    assert len(set(np.round(np.abs(z), 9))) == 5
    for size in (1, 3, 7):
        again = columns(run, 3, 10, size=size)
        assert all((again[name] == whole[name]).all() for name in whole), size


def test_pairs_lower_the_error_and_their_interval_says_so() -> None:
    plain = columns(put_run(1.0), 1, 2_000, size=2_000)["bad_debt_usd"]
    paired = columns(put_run(1.0, antithetic=True), 1, 2_000, size=2_000)["bad_debt_usd"]
    a, b = plain_mean(plain), plain_mean(paired, group=2)
    assert a.low < put(1.0) < a.high
    assert b.low < put(1.0) < b.high
    pairs = paired.reshape(-1, 2).mean(axis=1)
    assert pairs.var() < 0.7 * plain.var() / 2


def test_no_pair_is_torn_apart_by_a_batch_of_the_interval() -> None:
    # Twins that cancel: any mean over whole pairs is 0, so the interval is a point.
    values = np.tile([1.0, -1.0], 31)
    assert plain_mean(values, group=2).high == 0.0
    assert plain_mean(values, group=1).high > 0.0
    # Three paths: the third one's twin was not drawn.
    assert plain_mean(np.array([1.0, 3.0, 5.0]), group=2).value == 3.0


class Stubborn:
    """Prices that have no mirrored twin."""

    assets = ("ETH", "USD")
    start = np.ones(2)

    def paths(self, seeds: Sequence[np.random.SeedSequence], steps: int, dt_s: float) -> Float64:
        refuse_mirrored(seeds, "stubborn")
        return np.ones((len(seeds), steps + 1, 2))


def test_a_process_that_cannot_mirror_says_so_before_anything_runs() -> None:
    run = replace(put_run(0.9), prices=Stubborn())
    assert not run.weighted
    with pytest.raises(InputError, match="no antithetic paths"):
        replace(run, antithetic=True)


@pytest.mark.parametrize("shift", [0.0, -4.0, -10.0])
def test_weighted_estimates_meet_the_closed_form(shift: float) -> None:
    debt, n = 0.9, 4_000
    table = columns(put_run(debt, shift), 5, n, size=n)
    sampling = sampling_of(table)
    assert (sampling.weights is None) == (shift == 0.0)
    for level in (0.95, 0.99):
        tail = tail_of(table["bad_debt_usd"], level, sampling=sampling)
        var, es = quantile_of(debt, level)
        # 4 standard errors instead of 2: this is one seed, and no lottery.
        for found, true in ((tail.mean, put(debt)), (tail.var, var), (tail.es, es)):
            reach = (found.high - found.low) / 2
            assert abs(found.value - true) < 2 * reach, (level, found, true)
            assert found.low < found.value < found.high


def test_a_shift_towards_losses_lowers_the_error_of_rare_ones() -> None:
    debt, n = 0.7, 4_000
    plain = columns(put_run(debt), 5, n, size=n)
    shifted = columns(put_run(debt, -10.0), 5, n, size=n)
    rare = sampling_of(shifted).weighed(shifted["bad_debt_usd"])
    assert rare.var() < plain["bad_debt_usd"].var() / 10
    assert rare.mean() == pytest.approx(put(debt), rel=0.1)
    es = [tail_of(t["bad_debt_usd"], 0.99, sampling=sampling_of(t)).es for t in (plain, shifted)]
    assert es[1].high - es[1].low < (es[0].high - es[0].low) / 2


def test_weights_of_one_change_nothing_and_the_record_names_the_estimator() -> None:
    losses = np.random.default_rng(2).exponential(1.0, 333)
    ones = Sampling(np.ones(333))
    for level in (0.5, 0.95, 0.99):
        a, b = tail_of(losses, level), tail_of(losses, level, sampling=ones)
        assert (a.mean, a.var.value, a.largest) == (b.mean, b.var.value, b.largest)
        assert (a.es.value, a.es.low, a.es.high) == (b.es.value, b.es.low, b.es.high)
    assert sampling_record(PLAIN, losses) == {
        "antithetic": False,
        "estimator": "plain mean",
        "mean_weight": None,
        "effective_paths": 333.0,
        "effective_in_tail": None,
        "warning": None,
    }
    found = sampling_record(Sampling(np.array([1.0, 1.0, 2.0]), 2), np.array([0.0, 0.0, 5.0]))
    assert found["antithetic"]
    assert found["estimator"].startswith("importance weights")
    assert found["effective_paths"] == pytest.approx(16 / 6)
    assert found["mean_weight"]["value"] == pytest.approx(4 / 3)


def test_weights_that_do_not_carry_the_figures_are_told() -> None:
    n, debt = 2_000, 0.7
    told = {}
    for shift in (-1.0, -10.0, 10.0):
        table = columns(put_run(debt, shift), 5, n, size=n)
        told[shift] = sampling_record(sampling_of(table), table["bad_debt_usd"])
    # A slight shift is good for all, a strong one for the tail only, one the wrong way for nothing.
    assert told[-1.0]["warning"] is None
    assert told[-10.0]["effective_paths"] < 100 < told[-10.0]["effective_in_tail"]
    assert "read the tail only" in told[-10.0]["warning"]
    assert told[10.0]["effective_in_tail"] < 30
    assert "change drift_shift" in told[10.0]["warning"]


def test_a_weighted_quantile_by_hand() -> None:
    losses, weights = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 1.0, 0.6, 0.2])
    # At or beyond 2 stand (0.6 + 0.2) / 4 = 0.2 of the probability, at or beyond 3 only 0.05.
    # The worst tenth is 0.2 / 4 at 3 and as much of what is at 2.
    assert upper_tail(losses, weights, 0.9, 4) == pytest.approx((2.0, 2.5))
    assert upper_tail(losses, weights, 0.96, 4) == pytest.approx((3.0, 3.0))
    # 0.95 of 20 is a rank by itself, whatever floats make of it: the 19th; the worst twentieth is the last.
    assert upper_tail(np.arange(20.0), np.ones(20), 0.95, 20) == pytest.approx((18.0, 19.0))
    # A twentieth of 30 is one path and a half.
    assert upper_tail(np.arange(30.0), np.ones(30), 0.95, 30) == pytest.approx((28.0, (29.0 + 14.0) / 1.5))
    # Where most lose nothing, only what is in the worst part counts, whatever else is equal to the quantile.
    few = np.array([*[0.0] * 99, 7.0])
    assert upper_tail(few, np.ones(100), 0.95, 100) == pytest.approx((0.0, 7.0 / 5.0))
    # Paths that do not come to the part asked for say nothing of the quantile.
    assert np.isnan(upper_tail(losses, weights / 10, 0.5, 4)).all()


def test_the_interval_of_an_expected_shortfall_holds_it() -> None:
    # Exponential losses: the quantile is -ln(1 - q), and the shortfall one more.
    rng, level, repeats = np.random.default_rng(3), 0.95, 150
    true = 1.0 - np.log(1.0 - level)
    held = 0
    for _ in range(repeats):
        es = tail_of(rng.exponential(size=640), level, resamples=200).es
        held += es.low <= true <= es.high
    assert held / repeats > 0.88
    # Resampling six paths' worth of tail would hold it in three of four samples: no upper limit is said.
    assert tail_of(rng.exponential(size=128), level).es.high == np.inf
    assert tail_of(rng.exponential(size=580), level).es.high == np.inf
    assert tail_of(rng.exponential(size=600), level).es.high < np.inf
    # Half of the paths with hardly any weight are hardly any paths.
    weights = np.tile([1.99, 0.01], 600)
    pairs = np.repeat(rng.exponential(size=600), 2)
    assert tail_of(pairs, level, sampling=Sampling(weights)).es.high < np.inf
    assert tail_of(pairs[:1_160], level, sampling=Sampling(weights[:1_160])).es.high == np.inf


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "antithetic"), [(0.0, False), (0.0, True), (-6.0, False)])
def test_intervals_hold_the_closed_form_as_often_as_the_page_says(shift: float, antithetic: bool) -> None:
    debt, n, repeats, level = 0.8, 1_000, 200, 0.95
    run = replace(put_run(debt, shift), antithetic=antithetic)
    table = columns(run, 11, n * repeats, size=20_000)
    true = np.array([put(debt), *quantile_of(debt, level)])
    held = np.zeros(3)
    for k in range(repeats):
        part = {name: values[k * n : (k + 1) * n] for name, values in table.items()}
        sampling = sampling_of(part, antithetic=antithetic)
        tail = tail_of(part["bad_debt_usd"], level, sampling=sampling, resamples=100)
        held += [f.low <= x <= f.high for f, x in zip((tail.mean, tail.var, tail.es), true, strict=True)]
    # 95 are meant; three standard errors of 200 repeats are 4.6, and resampling is a little narrow.
    assert (held / repeats > 0.89).all(), held


def test_shares_differences_and_histograms_are_weighed() -> None:
    base: dict[str, Float64] = {
        "bad_debt_usd": np.array([4.0, 0.0]),
        "liquidations": np.array([1.0, 1.0]),
        "frozen_steps": np.zeros(2),
        "log_weight": np.log(np.array([0.5, 1.5])),
    }
    other = {**base, "bad_debt_usd": np.array([2.0, 1.0])}
    sampling = sampling_of(base)
    assert shares(base, sampling)["bad_debt_usd"]["value"] == pytest.approx(0.25)
    assert figures(base, sampling)["bad_debt_usd"]["value"] == pytest.approx(1.0)
    assert "log_weight" not in figures(base, sampling)
    assert difference(base, other, "bad_debt_usd").value == pytest.approx((0.5 * 2 - 1.5) / 2)
    (effect,) = effects_of(base, {"impact": other})
    assert (effect.on, effect.off) == pytest.approx((1.0, 1.25))
    assert sum(histogram(base["bad_debt_usd"], sampling)["counts"]) == pytest.approx(2.0)


def test_a_ratio_of_means_has_the_error_that_is_not_common() -> None:
    below = np.random.default_rng(0).exponential(1.0, 400)
    exact = ratio(1.5 * below, below)
    assert exact is not None
    assert (exact.value, exact.high - exact.low) == pytest.approx((1.5, 0.0), abs=1e-12)
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        found = ratio(1.5 * below + rng.normal(0.0, 0.1, 400), below)
        assert found is not None
        held += found.low < 1.5 < found.high
    assert 0.9 < held / 200 < 0.99
    assert ratio(below, np.zeros(400)) is None


def test_a_sweep_refuses_a_shift_that_its_statistics_would_not_weigh(tmp_path: Path) -> None:
    text = (EXAMPLES / "crash.toml").read_text(encoding="utf-8")
    shutil.copy(EXAMPLES / "crash-book.toml", tmp_path)
    shutil.copy(EXAMPLES / "crash-book.csv", tmp_path)
    file = tmp_path / "shifted.toml"
    file.write_text(text.replace("correlation = 0.7", "drift_shift = -1.0"), encoding="utf-8")
    with pytest.raises(InputError, match="a sweep's statistics weigh no paths"):
        run_sweep(
            file,
            over=["step_s=60,61"],
            zipped=False,
            paths=2,
            chunk=2,
            seed=1,
            workers=1,
            out=tmp_path / "out",
            task=None,
            as_json=True,
        )
    assert not (tmp_path / "out").exists()
