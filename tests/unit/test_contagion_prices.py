"""Price processes: moments against closed forms, draws that depend on the seed alone, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.prices import PriceProcess, build, price_processes, read_spec
from simulation.contagion.prices.fields import cholesky
from simulation.contagion.prices.streams import antithetic_pairs, is_mirrored, mirrored, path_seeds, stream

ASSETS = ("WETH", "WBTC", "LINK")
START = (2_000.0, 40_000.0, 15.0)
DAY = 86_400.0

PAIRS = {"WETH/WBTC": 0.7, "WETH/LINK": 0.5, "LINK/WBTC": 0.4}
GBM: dict[str, Any] = {
    "process": "gbm",
    "volatility": {"WETH": 0.8, "WBTC": 0.6, "LINK": 1.1},
    "drift": {"WETH": 0.3},
    "correlation": PAIRS,
}
MERTON: dict[str, Any] = {
    **GBM,
    "process": "merton",
    "intensity": {"WETH": 30.0, "LINK": 60.0},
    "jump_mean": -0.03,
    "jump_deviation": {"WETH": 0.04, "WBTC": 0.02, "LINK": 0.05},
    "common_intensity": 15.0,
}


def process(table: dict[str, Any]) -> PriceProcess:
    return build(table, ASSETS, START)


def within(found: Any, wanted: Any, error: Any, deviations: float = 4.0) -> None:
    """Hold a figure of a sample to what it should be, by its own sampling error; the seeds are fixed."""
    off = np.abs(np.asarray(found) - np.asarray(wanted)) / np.asarray(error)
    assert (off < deviations).all(), off


# ------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("table", [GBM, MERTON], ids=lambda t: t["process"])
def test_moments_are_those_of_the_formula(table: dict[str, Any]) -> None:
    paths, steps, drawn = 10_000, 5, process(table)
    prices = drawn.paths(path_seeds(1, 0, paths), steps, 7 * DAY)
    years = steps * 7 / 365
    drift = np.array([0.3, 0.0, 0.0])
    mean_ratio = prices[:, -1] / START
    within(mean_ratio.mean(axis=0), np.exp(drift * years), mean_ratio.std(axis=0) / np.sqrt(paths))

    sigma = np.array([0.8, 0.6, 1.1])
    rate, m, d = np.zeros(3), np.zeros(3), np.zeros(3)
    common = 0.0
    if table is MERTON:
        rate, m, d, common = np.array([30.0, 0, 60]), np.full(3, -0.03), np.array([0.04, 0.02, 0.05]), 15.0
    logs = np.log(mean_ratio)
    variance = (sigma**2 + (rate + common) * (m**2 + d**2)) * years
    # The fourth cumulant of a compound Poisson sum is its rate times the fourth moment of a jump.
    fourth = (rate + common) * (m**4 + 6 * m**2 * d**2 + 3 * d**4) * years
    within(logs.var(axis=0), variance, np.sqrt((2 * variance**2 + fourth) / paths))
    covariance = 0.7 * 0.8 * 0.6 * years + common * m[0] * m[1] * years
    products = (logs[:, 0] - logs[:, 0].mean()) * (logs[:, 1] - logs[:, 1].mean())
    within(products.mean(), covariance, products.std() / np.sqrt(paths))


def test_no_jump_is_a_diffusion() -> None:
    still = {**MERTON, "intensity": 0.0, "common_intensity": 0.0}
    seeds = path_seeds(3, 0, 4)
    assert (process(still).paths(seeds, 9, DAY) == process(GBM).paths(seeds, 9, DAY)).all()


def test_jumps_are_paid_for_in_the_drift() -> None:
    table = {**MERTON, "volatility": 0.0, "drift": 0.5, "jump_mean": -0.1, "jump_deviation": 0.3}
    ratio = process(table).paths(path_seeds(2, 0, 10_000), 2, 20 * DAY)[:, -1] / START
    within(ratio.mean(axis=0), np.exp(0.5 * 40 / 365), ratio.std(axis=0) / 100)


def test_jumps_are_mirrored_around_their_mean() -> None:
    seeds = path_seeds(7, 0, 5)
    drawn = process({**MERTON, "jump_mean": 0.0})
    up, down = (np.log(drawn.paths(s, 30, DAY)) for s in (seeds, [mirrored(s) for s in seeds]))
    middle = (up + down) / 2
    np.testing.assert_allclose(middle, np.broadcast_to(middle[0], middle.shape), rtol=0, atol=1e-10)


def test_jumps_come_at_times_and_not_at_steps() -> None:
    jumps = build(
        {"process": "merton", "volatility": 0.0, "intensity": 200.0, "jump_mean": 0.0, "jump_deviation": 0.1},
        ASSETS,
        START,
    )
    seeds = path_seeds(4, 0, 20)
    coarse, fine = jumps.paths(seeds, 10, DAY), jumps.paths(seeds, 240, DAY / 24)
    np.testing.assert_allclose(coarse, fine[:, ::24], rtol=1e-12)
    assert not np.allclose(coarse[:, 0], coarse[:, -1])


# ------------------------------------------------------------------------------- importance, antithetic paths


@pytest.mark.parametrize("table", [GBM, MERTON], ids=lambda t: t["process"])
def test_weights_average_to_one_and_take_the_shift_out(table: dict[str, Any]) -> None:
    shifted: Any = process({**table, "drift_shift": {"WETH": -6.0, "LINK": 1.0}})
    seeds = path_seeds(5, 0, 10_000)
    weights = np.exp(shifted.log_weights(seeds, 2, DAY))
    within(weights.mean(), 1.0, weights.std() / np.sqrt(len(seeds)))
    prices = shifted.paths(seeds, 2, DAY)[:, -1]
    for a, drift in enumerate((0.3, 0.0, 0.0)):
        weighted = weights * prices[:, a]
        wanted = START[a] * np.exp(drift * 2 / 365)
        within(weighted.mean(), wanted, weighted.std() / np.sqrt(len(seeds)))
    # And the shift was there: two days of -6 a year are three per cent.
    within(prices[:, 0].mean(), START[0] * np.exp(-5.7 * 2 / 365), prices[:, 0].std() / 100)


def test_a_shift_finds_a_rare_fall_with_less_error() -> None:
    seeds = path_seeds(6, 0, 4_000)
    one = {"process": "gbm", "volatility": 0.8}
    shifted: Any = build({**one, "drift_shift": -55.0}, ["WETH"], [1.0])
    low = 0.86  # 3.6 deviations of a day
    hit = (shifted.paths(seeds, 1, DAY)[:, 1, 0] < low) * np.exp(shifted.log_weights(seeds, 1, DAY))
    from scipy.special import ndtr

    s = 0.8 / np.sqrt(365)
    wanted = float(ndtr((np.log(low) + s * s / 2) / s))
    within(hit.mean(), wanted, hit.std() / np.sqrt(len(seeds)))
    assert hit.std() / np.sqrt(len(seeds)) < 0.1 * np.sqrt(wanted / len(seeds))


def test_without_a_shift_every_weight_is_one() -> None:
    plain: Any = process(GBM)
    assert (plain.log_weights(path_seeds(1, 0, 3), 5, DAY) == 0).all()


@pytest.mark.parametrize("table", [GBM, MERTON], ids=lambda t: t["process"])
def test_a_mirrored_path_has_the_opposite_draws(table: dict[str, Any]) -> None:
    drawn = process(table)
    up = np.log(drawn.paths(path_seeds(7, 0, 5), 30, DAY))
    down = np.log(drawn.paths([mirrored(s) for s in path_seeds(7, 0, 5)], 30, DAY))
    assert not np.allclose(up, down)
    # The mean of a pair is what is left without any draw: for a diffusion the same line on every path.
    middle = (up + down) / 2
    if table is GBM:
        line = np.log(START) + np.arange(31)[:, None] / 365 * (
            np.array([0.3, 0, 0]) - np.array([0.8, 0.6, 1.1]) ** 2 / 2
        )
        np.testing.assert_allclose(middle, np.broadcast_to(line, middle.shape), rtol=0, atol=1e-10)


def test_antithetic_pairs_make_the_mean_surer() -> None:
    drawn = process(GBM)
    pairs = path_seeds(9, 0, 4_000, antithetic=True)
    prices = drawn.paths(pairs, 1, DAY)[:, -1, 0]
    means = (prices[::2] + prices[1::2]) / 2
    within(means.mean(), START[0] * np.exp(0.3 / 365), means.std() / np.sqrt(len(means)))
    assert means.std() < 0.1 * prices.std()


def test_the_seeds_of_a_run() -> None:
    plain = path_seeds(1, 3, 4)
    assert [s.spawn_key for s in plain] == [(3,), (4,), (5,), (6,)]
    pairs = path_seeds(1, 2, 4, antithetic=True)
    assert [is_mirrored(s) for s in pairs] == [False, True, False, True]
    assert [s.spawn_key for s in antithetic_pairs(path_seeds(1, 1, 2))] == [s.spawn_key for s in pairs]
    odd = path_seeds(1, 3, 2, antithetic=True)
    assert [s.spawn_key for s in odd] == [s.spawn_key for s in pairs[1:3]]
    assert mirrored(mirrored(plain[0])).spawn_key == plain[0].spawn_key


# ------------------------------------------------------------------------------------- what a path depends on


@pytest.mark.parametrize("table", [GBM, MERTON], ids=lambda t: t["process"])
def test_batches_change_no_bit(table: dict[str, Any]) -> None:
    drawn = process({**table, "drift_shift": -1.0})
    seeds = path_seeds(11, 0, 7, antithetic=True)
    whole = drawn.paths(seeds, 50, 60.0)
    parts = [drawn.paths(seeds[i:j], 50, 60.0) for i, j in ((0, 1), (1, 4), (4, 7))]
    assert (np.concatenate(parts) == whole).all()
    weights: Any = drawn
    one_by_one = [weights.log_weights([s], 50, 60.0)[0] for s in seeds]
    assert (weights.log_weights(seeds, 50, 60.0) == one_by_one).all()


@pytest.mark.parametrize("table", [GBM, MERTON], ids=lambda t: t["process"])
def test_a_shorter_path_is_the_head_of_a_longer_one(table: dict[str, Any]) -> None:
    drawn, seeds = process(table), path_seeds(12, 0, 3)
    assert (drawn.paths(seeds, 20, 60.0) == drawn.paths(seeds, 90, 60.0)[:, :21]).all()


@pytest.mark.parametrize("table", [GBM, MERTON], ids=lambda t: t["process"])
def test_other_assets_redraw_nothing(table: dict[str, Any]) -> None:
    seeds = path_seeds(13, 0, 3)
    alone = {**table, "correlation": 0.0, "volatility": 0.8, "jump_deviation": 0.1, "intensity": 30.0}
    if table is GBM:
        del alone["jump_deviation"], alone["intensity"]
    alone["drift"] = 0.1
    other = {**alone, "volatility": {"WETH": 0.8, "WBTC": 0.1, "LINK": 2.0}}
    one = build(alone, ["WETH"], [START[0]]).paths(seeds, 40, DAY)[:, :, 0]
    assert (process(alone).paths(seeds, 40, DAY)[:, :, 0] == one).all()
    assert (process(other).paths(seeds, 40, DAY)[:, :, 0] == one).all()
    without = {**other, "volatility": {"WETH": 0.8, "LINK": 2.0}}
    turned = build(without, ["LINK", "WETH"], [15.0, START[0]])
    assert (turned.paths(seeds, 40, DAY)[:, :, 1] == one).all()


def test_streams_differ_by_purpose_and_asset() -> None:
    seed = path_seeds(1, 0, 1)[0]
    draws = {stream(seed, p, a).random() for p in ("normal", "jump") for a in ("WETH", "WBTC", "")}
    assert len(draws) == 6


def test_column_zero_is_the_start_price() -> None:
    assert (process(MERTON).paths(path_seeds(1, 0, 2), 3, DAY)[:, 0] == START).all()


# ---------------------------------------------------------------------------------------------- correlations


@pytest.mark.parametrize("rho", [-0.2, 0.0, 0.5, 1.0])
def test_the_factor_is_a_root(rho: float) -> None:
    matrix = np.full((4, 4), rho)
    np.fill_diagonal(matrix, 1.0)
    factor = cholesky(matrix, "abcd")
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-12)
    assert (np.triu(factor, 1) == 0).all()


def test_assets_of_correlation_one_move_together() -> None:
    paths = build({"process": "gbm", "volatility": 0.5, "correlation": 1.0}, ASSETS, [1.0] * 3).paths(
        path_seeds(1, 0, 2), 9, DAY
    )
    assert (paths[:, :, 0] == paths[:, :, 1]).all()


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({}, "process is missing; known: "),
        ({**GBM, "process": "gmb"}, "unknown price process 'gmb'; did you mean 'gbm'?"),
        ({**GBM, "volatilty": 1}, "unknown key 'volatilty'; did you mean 'volatility'"),
        ({"process": "gbm"}, "volatility: is missing"),
        ({**GBM, "volatility": {"WETH": 0.8}}, "volatility has no value for WBTC; add WBTC"),
        ({**GBM, "drift": {"ETH": 0.8}}, "unknown asset of drift 'ETH'; did you mean 'WETH'?"),
        ({**GBM, "volatility": -0.1}, "volatility of WETH is -0.1; it must be 0 or more"),
        ({**GBM, "correlation": 1.5}, "correlation of WETH/WBTC is 1.5; use a value in [-1, 1]"),
        ({**GBM, "correlation": -0.9}, "correlation of LINK with the assets before it cannot be"),
        ({**GBM, "correlation": {"WETH": 0.1}}, "correlation of 'WETH' is not of a pair"),
        ({**GBM, "correlation": {"WETH/WBTC": 0.1, "WBTC/WETH": 0.2}}, "'WBTC/WETH' is given twice"),
        ({**GBM, "correlation": {"WETH/WBT": 0.1}}, "did you mean 'WBTC' or 'WETH'?"),
        ({**GBM, "correlation": {"WETH/WBTC": 1.0, "WETH/LINK": 0.5}}, "contradicts a correlation of 1"),
        ({**GBM, "volatility": 0.0, "drift_shift": -1.0}, "volatility of WETH is 0; it must be positive"),
        ({**GBM, "correlation": 1.0, "drift_shift": -1.0}, "a drift_shift with assets of correlation 1"),
        ({**MERTON, "intensity": -1.0}, "intensity of WETH is -1; it must be 0 or more"),
        (
            {**MERTON, "common_intensity": -1.0},
            "common_intensity: Input should be greater than or equal to 0",
        ),
    ],
)
def test_a_wrong_table_is_one_line(table: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as refused:
        process(table)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("assets", "start", "line"),
    [
        ((), (), "a price process without an asset"),
        (("A", "A"), (1.0, 1.0), "asset A is there twice"),
        (("A", "B"), (1.0,), "start has the shape (1,), not (2,)"),
        (("A", "B"), (1.0, 0.0), "start of B is 0; it must be positive"),
        (("A",), (float("nan"),), "start has a value that is not finite"),
    ],
)
def test_wrong_assets_are_told(assets: tuple[str, ...], start: tuple[float, ...], line: str) -> None:
    with pytest.raises(InputError) as refused:
        build({"process": "gbm", "volatility": 1.0}, assets, start)
    assert line in str(refused.value)


@pytest.mark.parametrize(("steps", "dt"), [(0, 60.0), (1, 0.0), (1, float("inf"))])
def test_steps_need_time(steps: int, dt: float) -> None:
    with pytest.raises(InputError, match=r"steps is 0|dt_s is"):
        process(GBM).paths(path_seeds(1, 0, 1), steps, dt)


def test_a_table_is_read_once() -> None:
    spec = read_spec(GBM)
    assert read_spec(spec) is spec
    with pytest.raises(InputError, match="are not a table"):
        read_spec("gbm")
    with pytest.raises(UnknownNameError):
        price_processes.get("nothing")
