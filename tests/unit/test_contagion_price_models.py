"""Price processes with a history, a peg or heavy tails: against closed forms, `arch` and the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arch import arch_model
from scipy.stats import kendalltau, kstest, norm, t

from contracts_abi.errors import InputError
from simulation.contagion.prices import (
    PriceProcess,
    PriceSpec,
    WeightedProcess,
    build,
    price_processes,
    read_spec,
)
from simulation.contagion.prices.bootstrap import BlockBootstrap
from simulation.contagion.prices.garch_t import GarchT, fitted
from simulation.contagion.prices.history import PriceTable, read_table
from simulation.contagion.prices.replay import Replay
from simulation.contagion.prices.shocks import Shock, ShockSpec, shocks_of, with_shocks
from simulation.contagion.prices.streams import mirrored, path_seeds

DAY = 86_400.0
HOUR = 3_600.0
RNG = np.random.default_rng(20)
RETURNS = RNG.standard_t(4, (500, 2)) * 0.01
"""A history of two assets; no row is there twice."""

GARCH: dict[str, Any] = {
    "process": "garch-t",
    "volatility": 0.8,
    "alpha": 0.1,
    "beta": 0.85,
    "degrees": 6.0,
    "correlation": 0.6,
}
OU: dict[str, Any] = {"process": "ou", "volatility": 0.1, "half_life_days": 3.0, "correlation": 0.3}
COPULA: dict[str, Any] = {"process": "t-copula", "degrees": 4.0, "correlation": 0.5, "volatility": 0.8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a table of prices, hourly, its rows newest first."""
    prices = 100 * np.exp(np.concatenate([np.zeros((1, 2)), np.cumsum(RETURNS, axis=0)]))
    frame = pd.DataFrame(
        {"time": 1_700_000_000 + 3_600 * np.arange(501), "A": prices[:, 0], "B": prices[:, 1]}
    )
    frame[::-1].to_csv(tmp_path / "prices.csv", index=False, float_format="%.17g")
    frame.to_parquet(tmp_path / "prices.parquet")
    return tmp_path


def every(folder: Path) -> dict[str, PriceProcess]:
    """Return one process of each kind, of the assets A and B."""
    file = "prices.csv"
    tables: dict[str, dict[str, Any]] = {
        "gbm": {"volatility": 0.8},
        "merton": {"volatility": 0.8, "intensity": 90.0, "jump_mean": -0.1, "jump_deviation": 0.1},
        "garch-t": {**GARCH, "period_s": 2 * HOUR},
        "ou": OU,
        "t-copula": COPULA,
        "bootstrap": {"file": file, "period_s": HOUR, "block": 12.0},
        "replay": {"file": file},
        "bridge": {"points": {"A": [[0, 100], [7 * HOUR, 80], [20 * HOUR, 90]]}, "volatility": 0.8},
        "composite": {
            "parts": [
                {"assets": ["B"], "prices": {"process": "gbm", "volatility": 0.5}},
                {"assets": ["A"], "relative_to": "B", "prices": OU},
            ]
        },
    }
    assert set(tables) == set(price_processes)
    return {
        kind: build({**table, "process": kind}, ["A", "B"], [100.0, 100.0], folder)
        for kind, table in tables.items()
    }


KINDS = tuple(price_processes)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_lengths_change_no_bit(kind: str, folder: Path) -> None:
    drawn = every(folder)[kind]
    seeds = path_seeds(1, 0, 70)
    whole = drawn.paths(seeds, 31, HOUR)
    assert whole.shape == (70, 32, 2)
    assert whole.dtype == np.float64
    assert (whole[:, 0] == 100).all()
    assert (whole[:, 0] == drawn.start).all()
    assert (whole > 0).all()
    parts = [drawn.paths(seeds[i:j], 31, HOUR) for i, j in ((0, 1), (1, 66), (66, 70))]
    assert (np.concatenate(parts) == whole).all()
    if kind != "bootstrap":
        assert (drawn.paths(seeds[:2], 11, HOUR) == whole[:2, :12]).all()
    assert kind == "replay" or not (whole[0] == whole[1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirrored_seed_is_mirrored_or_refused(kind: str, folder: Path) -> None:
    drawn = every(folder)[kind]
    seeds = path_seeds(1, 0, 3)
    if kind in ("bootstrap", "replay"):
        with pytest.raises(InputError, match=f"process '{kind}' has no antithetic paths"):
            drawn.paths([mirrored(s) for s in seeds], 5, HOUR)
        return
    up, down = (np.log(drawn.paths(s, 9, HOUR)) for s in (seeds, [mirrored(s) for s in seeds]))
    if kind != "merton":  # whose jumps have a mean, at times of their own
        middle = (up + down) / 2
        np.testing.assert_allclose(middle, np.broadcast_to(middle[0], middle.shape), atol=1e-12)
    assert not np.allclose(up, down)


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_is_what_its_interface_says(kind: str, folder: Path) -> None:
    drawn = every(folder)[kind]
    assert isinstance(drawn, PriceProcess)
    assert isinstance(drawn, WeightedProcess) == (kind in ("gbm", "merton", "composite"))
    assert issubclass(price_processes.get(kind), PriceSpec)
    assert drawn.assets == ("A", "B")


def test_a_table_is_rebuilt_from_what_it_says_of_itself() -> None:
    table = {
        "process": "composite",
        "parts": [{"assets": ["A"], "prices": GARCH}, {"assets": ["B"], "prices": COPULA}],
    }
    spec = read_spec(table)
    assert read_spec(spec.model_dump(mode="json")) == spec


# ---------------------------------------------------------------------------------------------------- GARCH


def test_variances_are_those_of_arch() -> None:
    """Filter the same returns by `arch` at the same parameters: the recursion is one and the same."""
    drawn = build({**GARCH, "log_drift": 0.4}, ["A"], [1.0])
    assert isinstance(drawn, GarchT)
    returns = np.diff(np.log(drawn.paths(path_seeds(2, 0, 1), 400, DAY)[0, :, 0]))
    scaled = 100 * returns
    model = arch_model(scaled, mean="Constant", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    mu, omega = float(drawn.mu[0]), float(drawn.omega[0])
    # arch starts from a backcast; the effect of it dies out by beta, so the tail of the series is compared.
    fixed = model.fix([100 * mu, 1e4 * omega, 0.1, 0.85, 6.0])
    theirs = (fixed.conditional_volatility / 100) ** 2
    variance = np.empty(400)
    v = float(drawn.start_variance[0])
    for i, r in enumerate(returns):
        variance[i] = v
        v = omega + 0.1 * (r - mu) ** 2 + 0.85 * v
    np.testing.assert_allclose(variance[250:], theirs[250:], rtol=1e-7)
    squares = ((returns - mu) ** 2 / variance)[None, None]
    np.testing.assert_allclose(drawn.variances(squares)[0, 0], variance, rtol=1e-9)


@pytest.mark.parametrize("each", [1, 3])
def test_clustering_changes_the_variance_of_the_same_draws(each: int) -> None:
    seeds = path_seeds(2, 0, 2)
    still = build({**GARCH, "alpha": 0.0, "beta": 0.0}, ["A", "B"], [1.0, 1.0])
    moving = build({**GARCH, "log_drift": 0.4}, ["A", "B"], [1.0, 1.0])
    draws, found = (
        np.diff(np.log(p.paths(seeds, 30 * each, DAY / each)[:, ::each]), axis=1) for p in (still, moving)
    )
    variance, long_run = np.full((2, 2), 0.64 / 365), 0.64 / 365
    for day, draw in enumerate(np.moveaxis(draws, 1, 0)):
        e = draw / np.sqrt(long_run)
        np.testing.assert_allclose(found[:, day], 0.4 / 365 + np.sqrt(variance) * e, rtol=1e-9, atol=1e-13)
        variance = 0.05 * long_run + 0.1 * variance * e**2 + 0.85 * variance


def test_a_simulated_history_is_fitted_back() -> None:
    drawn = build(GARCH, ["A", "B"], [1.0, 1.0])
    assert isinstance(drawn, GarchT)
    returns = np.diff(np.log(drawn.paths(path_seeds(3, 0, 1), 6_000, DAY)[0]), axis=0)
    found = fitted(["A", "B"], np.ones(2), returns, DAY)
    # Asymptotic errors at 6,000 rows are about 0.012, 0.018 and 0.5; three of them.
    np.testing.assert_allclose(found.alpha, 0.1, atol=0.036)
    np.testing.assert_allclose(found.beta, 0.85, atol=0.054)
    np.testing.assert_allclose(found.degrees, 6.0, atol=1.5)
    assert found.correlation[0, 1] == pytest.approx(0.6, abs=0.05)
    long_run = found.omega / (1 - found.alpha - found.beta) * 365
    np.testing.assert_allclose(long_run, 0.64, rtol=0.25)


def test_a_period_is_students_t_however_many_steps_it_has() -> None:
    drawn = build(GARCH, ["A", "B"], [1.0, 1.0])
    logs = np.log(drawn.paths(path_seeds(4, 0, 4_000), 4, DAY / 4))
    unit = 0.8 / np.sqrt(365) * np.sqrt(4 / 6)
    assert kstest(logs[:, 4, 0] / unit, t(6).cdf).pvalue > 0.01
    # Within the period steps share a volatility: large steps come together.
    first, last = logs[:, 1, 0], logs[:, 4, 0] - logs[:, 3, 0]
    assert np.corrcoef(first**2, last**2)[0, 1] > 0.1
    assert abs(np.corrcoef(first, last)[0, 1]) < 0.07


def test_heavy_days_are_common_or_not() -> None:
    correlations = []
    for joint in (True, False):
        drawn = build({**GARCH, "correlation": 0.0, "joint_tails": joint}, ["A", "B"], [1.0, 1.0])
        logs = np.log(drawn.paths(path_seeds(5, 0, 4_000), 1, DAY))[:, 1]
        correlations.append(np.corrcoef(np.abs(logs), rowvar=False)[0, 1])
    assert correlations[0] > 0.15
    assert abs(correlations[1]) < 4 / np.sqrt(4_000)


def test_variance_keeps_to_its_long_run_and_begins_at_its_start() -> None:
    drawn = build({**GARCH, "start_volatility": {"A": 2.0}, "degrees": 12.0}, ["A", "B"], [1.0, 1.0])
    moves = np.diff(np.log(drawn.paths(path_seeds(6, 0, 8_000), 120, DAY)), axis=1)
    yearly = (moves**2).mean(axis=0) * 365
    decay = 0.95 ** np.arange(120)
    np.testing.assert_allclose(yearly[:, 0], 0.64 + (4 - 0.64) * decay, rtol=0.12)
    np.testing.assert_allclose(yearly[:, 1], 0.64, rtol=0.12)


# ------------------------------------------------------------------------------------------------------- peg


def test_a_peg_draws_back_as_the_formula_says() -> None:
    table = {**OU, "peg": {"A": 1.0, "B": 2.0}}
    drawn = build(table, ["A", "B"], [0.9, 2.0])
    logs = np.log(drawn.paths(path_seeds(7, 0, 8_000), 6, DAY))
    speed = np.log(2) * 365 / 3
    for step in (3, 6):
        mean = np.log(0.9) * 0.5 ** (step / 3)
        variance = 0.01 * (1 - 0.25 ** (step / 3)) / (2 * speed)
        assert logs[:, step, 0].mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / 8_000))
        assert logs[:, step, 0].var() == pytest.approx(variance, rel=4 * np.sqrt(2 / 8_000))
        assert logs[:, step, 1].mean() == pytest.approx(np.log(2), abs=4 * np.sqrt(variance / 8_000))
    rho = np.corrcoef(logs[:, 6], rowvar=False)[0, 1]
    assert rho == pytest.approx(0.3, abs=4 * (1 - 0.09) / np.sqrt(8_000))


# ---------------------------------------------------------------------------------------------------- copula


def steps_of(table: dict[str, Any], rows: int, seed: int) -> Any:
    drawn = build(table, ["A", "B"], [1.0, 1.0])
    return np.diff(np.log(drawn.paths(path_seeds(seed, 0, 1), rows, DAY)[0]), axis=0)


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.7])
def test_kendalls_tau_is_that_of_the_copula(rho: float) -> None:
    rows = 8_000
    moves = steps_of({**COPULA, "correlation": rho, "marginal_degrees": {"B": 3.0}}, rows, 8)
    found = kendalltau(moves[:, 0], moves[:, 1]).statistic
    # The error of tau is at most sqrt(2 (1 - tau**2) / n), whatever the copula.
    tau = 2 / np.pi * np.arcsin(rho)
    assert found == pytest.approx(tau, abs=3 * np.sqrt(2 * (1 - tau**2) / rows))


def test_marginals_are_their_own() -> None:
    moves = steps_of({**COPULA, "marginal_degrees": {"B": 3.0}}, 8_000, 9)
    day = 0.8 / np.sqrt(365)
    assert kstest(moves[:, 0], norm(0, day).cdf).pvalue > 0.01
    assert kstest(moves[:, 1], t(3, scale=day / np.sqrt(3)).cdf).pvalue > 0.01
    same = steps_of({**COPULA, "marginal_degrees": 4.0}, 8_000, 9)
    assert kstest(same[:, 1], t(4, scale=day / np.sqrt(2)).cdf).pvalue > 0.01


def test_extremes_come_together() -> None:
    rows = 40_000
    bound, loose = (
        (np.argsort(np.argsort(steps_of({**COPULA, "degrees": n}, rows, 10), axis=0), axis=0) < rows / 100)
        for n in (3.0, 1_000.0)
    )
    # Tail dependence of 3 degrees at 0.5 is 0.31; of a normal, at the first percentile, 0.13 and falling.
    limit = 2 * t.cdf(-np.sqrt(4 * 0.5 / 1.5), 4)
    assert bound.all(axis=1).sum() / (rows / 100) == pytest.approx(limit, abs=0.09)
    assert loose.all(axis=1).sum() < 0.6 * bound.all(axis=1).sum()


def test_past_returns_as_marginals(folder: Path) -> None:
    table = {**COPULA, "volatility": None, "file": "prices.csv", "period_s": HOUR}
    drawn = build({k: v for k, v in table.items() if v is not None}, ["A", "B"], [1.0, 1.0], folder)
    moves = np.diff(np.log(drawn.paths(path_seeds(11, 0, 1), 8_000, HOUR)[0]), axis=0)
    for a in (0, 1):
        assert moves[:, a].min() >= RETURNS[:, a].min() - 1e-12
        assert moves[:, a].max() <= RETURNS[:, a].max() + 1e-12
        levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
        # Probability, not quantile: its error is known whatever the density.
        found = (moves[:, a][:, None] <= np.quantile(RETURNS[:, a], levels)).mean(axis=0)
        np.testing.assert_allclose(found, levels, atol=0.02)
    with pytest.raises(InputError, match="a step of 60 s, and a history with a return each 3600 s"):
        drawn.paths(path_seeds(1, 0, 1), 1, 60.0)


# ------------------------------------------------------------------------------------------------- bootstrap


def rows_of(path: Any) -> Any:
    """Return which rows of the history a path's steps are: returns of both assets have to be of one row."""
    moves = np.diff(np.log(path), axis=0)
    off = np.abs(moves[:, None] - RETURNS[None]).max(axis=2)
    assert (off.min(axis=1) < 1e-12).all(), "assets of one step from one row"
    return off.argmin(axis=1)


def test_fixed_blocks_are_whole() -> None:
    drawn = BlockBootstrap(("A", "B"), np.ones(2), RETURNS, HOUR, 20.0, "fixed")
    rows = rows_of(drawn.paths(path_seeds(12, 0, 1), 210, HOUR)[0])
    blocks = rows[:200].reshape(10, 20)
    assert (blocks == blocks[:, :1] + np.arange(20)).all()
    assert len(set(blocks[:, 0])) > 5
    assert (np.diff(rows[200:]) == 1).all()
    starts = [drawn.rows(seed, 1)[0] for seed in path_seeds(16, 0, 6_000)]
    assert set(starts) == set(range(481)), "each block that fits, the first and the last too"


def test_stationary_blocks_have_their_mean_length_and_go_round() -> None:
    drawn = BlockBootstrap(("A", "B"), np.ones(2), RETURNS, HOUR, 8.0)
    rows = drawn.rows(path_seeds(13, 0, 1)[0], 40_000)
    assert (rows_of(drawn.paths(path_seeds(13, 0, 1), 300, HOUR)[0]) == rows[:300]).all()
    goes_on = np.diff(rows) % 500 == 1
    assert 1 - goes_on.mean() == pytest.approx(1 / 8, abs=4 * np.sqrt(0.11 / 40_000))
    counts = np.bincount(rows, minlength=500)
    assert counts.min() > 0, "every row, the first and the last ones too"
    assert ((rows[:-1] == 499) & (rows[1:] == 0)).any()


@pytest.mark.parametrize(
    ("block", "scheme", "line"),
    [
        (0.5, "stationary", "block is 0.5; use 1 to 500"),
        (501.0, "fixed", "block is 501; use 1 to 500"),
        (2.5, "fixed", "block is 2.5; fixed blocks have a whole number"),
        (2.0, "circular", "scheme is 'circular'"),
    ],
)
def test_a_block_fits_the_history(block: float, scheme: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        BlockBootstrap(("A", "B"), np.ones(2), RETURNS, HOUR, block, scheme)


# ---------------------------------------------------------------------------------------------------- replay

TABLE = PriceTable(("A", "B"), np.array([0.0, 100.0, 300.0]), np.array([[4.0, 1.0], [16.0, 3.0], [8.0, 7.0]]))


@pytest.mark.parametrize(
    ("between", "wanted"),
    [
        ("previous", [[4, 1], [4, 1], [16, 3], [16, 3], [16, 3], [16, 3], [8, 7]]),
        ("linear", [[4, 1], [10, 2], [16, 3], [14, 4], [12, 5], [10, 6], [8, 7]]),
    ],
)
def test_a_replay_is_the_record(between: Any, wanted: list[list[float]]) -> None:
    drawn = Replay(TABLE, 0.0, between, np.ones(2))
    assert (drawn.paths(path_seeds(1, 0, 2), 6, 50.0) == np.array(wanted, dtype=float)).all()
    late = Replay(TABLE, 50.0, between, np.ones(2))
    assert (late.paths(path_seeds(1, 0, 1), 5, 50.0)[0] == np.array(wanted[1:], dtype=float)).all()


def test_between_rows_on_the_line_of_logarithms() -> None:
    drawn = Replay(TABLE, 0.0, "log-linear", np.ones(2)).paths(path_seeds(1, 0, 1), 3, 100.0)[0]
    np.testing.assert_allclose(drawn[:, 0], [4, 16, 16 * 0.5**0.5, 8], rtol=1e-15)
    assert (drawn[[0, 1, 3]] == TABLE.prices).all()


def test_a_replay_starts_at_the_books_prices_or_says_why_not(folder: Path) -> None:
    table = {"process": "replay", "file": "prices.parquet", "from_s": 1_700_003_600}
    with pytest.raises(InputError, match=r"A is 200 in the book and .* in the record .* set rebase = true"):
        build(table, ["A", "B"], [200.0, 50.0], folder)
    drawn = build({**table, "rebase": True}, ["A", "B"], [200.0, 50.0], folder)
    path = drawn.paths(path_seeds(1, 0, 1), 499, HOUR)[0]
    np.testing.assert_allclose(path[0], [200, 50], rtol=1e-15)
    np.testing.assert_allclose(np.diff(np.log(path), axis=0), RETURNS[1:], atol=1e-13)
    with pytest.raises(InputError, match="the record at 1701800000; use fewer steps"):
        drawn.paths(path_seeds(1, 0, 1), 500, HOUR)


# ---------------------------------------------------------------------------------------------------- tables


def test_files_are_read_alike(folder: Path) -> None:
    one, two = (
        read_table(folder / "prices.csv", ["B", "A"]),
        read_table(folder / "prices.parquet", ["B", "A"]),
    )
    assert (one.times == two.times).all()
    np.testing.assert_allclose(one.prices, two.prices, rtol=1e-15)
    np.testing.assert_allclose(one.log_returns(HOUR), RETURNS[:, ::-1], atol=1e-13)
    stamps = pd.DataFrame({"time": ["2020-03-12T00:00:00Z", "2020-03-12T01:00:00Z"], "A": [1.0, 2.0]})
    stamps.to_csv(folder / "stamps.csv", index=False)
    assert read_table(folder / "stamps.csv", ["A"]).times.tolist() == [1_583_971_200.0, 1_583_974_800.0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("time,B\n0,1\n1,2\n", "unknown column of .* 'A'"),
        ("time,A\n0,1\n0,2\n", "time 0 is not after 0; sort the rows"),
        ("time,A\n0,1\n1,-2\n", "price of A at 1 is -2"),
        ("time,A\n0,1\n1,\n", "price of A at 1 is nan"),
        ("time,A\n0,1\n", "prices of shape"),
        ("time,A\n0,1\n1,x\n", "times are unix seconds or ISO 8601, prices numbers"),
        ("time,A\nyesterday,1\ntoday,2\n", "times are unix seconds or ISO 8601, prices numbers"),
        ("", "give a CSV or Parquet file"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=line) as refused:
        read_table(tmp_path / "t.csv", ["A"])
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_gap_are_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv"):
        read_table(folder / "nothing.csv", ["A"])
    with pytest.raises(InputError, match="rows at 100 and 300 are not 100 s apart"):
        TABLE.log_returns(100.0)


# ------------------------------------------------------------------------------------------ composite, shocks


def test_a_relative_price_is_a_multiple_of_its_base() -> None:
    table = {
        "process": "composite",
        "parts": [
            {"assets": ["WETH", "WBTC"], "prices": {"process": "gbm", "volatility": 0.8, "correlation": 0.9}},
            {"assets": ["wstETH"], "relative_to": "WETH", "prices": {**OU, "peg": 1.05}},
            {"assets": ["USDC"], "prices": {**OU, "volatility": 0.0}},
        ],
    }
    assets, start = (
        ["USDC", "wstETH", "WETH", "WBTC"],
        [0.9, 1_990.9, 1_899.0, 40_000.0],
    )  # (1990.9 / 1899) * 1899 is not 1990.9
    paths = build(table, assets, start).paths(path_seeds(14, 0, 400), 60, DAY)
    assert (paths[:, 0] == start).all()
    ratio = paths[:, -1, 1] / paths[:, -1, 2]
    assert np.log(ratio / 1.05).std() == pytest.approx(0.1 / np.sqrt(2 * np.log(2) * 365 / 3), rel=0.15)
    assert paths[:, -1, 2].std() > 300
    np.testing.assert_allclose(paths[:, 3, 0], np.exp(np.log(0.9) / 2), rtol=1e-12)
    moves = np.diff(np.log(paths), axis=1)
    assert abs(np.corrcoef(moves[:, :, 2].ravel(), np.log(ratio.repeat(60)))[0, 1]) < 0.1


def test_weights_of_parts_add_up() -> None:
    shifted = {"process": "gbm", "volatility": 0.8, "drift_shift": -1.0}
    table = {
        "process": "composite",
        "parts": [{"assets": ["A"], "prices": shifted}, {"assets": ["B"], "prices": OU}],
    }
    drawn = build(table, ["A", "B"], [1.0, 1.0])
    assert isinstance(drawn, WeightedProcess)
    seeds = path_seeds(15, 0, 2_000)
    weights = np.exp(drawn.log_weights(seeds, 3, 20 * DAY))
    assert weights.mean() == pytest.approx(1.0, abs=4 * weights.std() / np.sqrt(2_000))
    assert weights.std() > 0.1
    # The weights are of the draws of the paths, else they would not take the shift out.
    weighted = weights * drawn.paths(seeds, 3, 20 * DAY)[:, -1, 0]
    assert weighted.mean() == pytest.approx(1.0, abs=4 * weighted.std() / np.sqrt(2_000))


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ([{"assets": ["A"], "prices": OU}], "asset B is in no part"),
        ([{"assets": ["A", "B"], "prices": OU}, {"assets": ["A"], "prices": OU}], "asset A is in two parts"),
        ([{"assets": ["A", "C"], "prices": OU}], "unknown asset of a part 'C'"),
        (
            [{"assets": ["A"], "relative_to": "B", "prices": OU}, {"assets": ["B"], "prices": OU}],
            "relative to B",
        ),
        ([{"assets": ["A"], "prices": {**OU, "process": "uo"}}], "unknown price process 'uo'"),
        ([{"assets": ["A"], "prices": {"volatility": 1}}], "process is missing"),
    ],
)
def test_parts_have_every_asset_once(parts: list[dict[str, Any]], line: str) -> None:
    with pytest.raises(InputError, match=line):
        build({"process": "composite", "parts": parts}, ["A", "B"], [1.0, 1.0])


def test_shocks_displace_prices_from_their_step_on() -> None:
    prices = np.ones((2, 5, 3))
    rows = [ShockSpec(asset="B", step=2, log_jump=-0.5), ShockSpec(asset="B", step=4, log_jump=0.25)]
    shocked = with_shocks(prices, shocks_of(rows, ["A", "B", "C"]))
    assert (prices == 1).all()
    assert (shocked[:, :, [0, 2]] == 1).all()
    np.testing.assert_allclose(shocked[0, :, 1], np.exp([0, 0, -0.5, -0.5, -0.25]), rtol=1e-15)
    for shock, line in ((Shock(0, 5, 0.1), "at step 5; use 1 to 4"), (Shock(3, 1, 0.1), "use 0 to 2")):
        with pytest.raises(InputError, match=line):
            with_shocks(prices, [shock])
    with pytest.raises(InputError, match="unknown asset of a shock 'Z'"):
        shocks_of([ShockSpec(asset="Z", step=1, log_jump=0.1)], ["A"])


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({**GARCH, "alpha": 0.2}, r"alpha \+ beta of A is 1.05"),
        ({**GARCH, "degrees": 2.0}, "degrees of A is 2; it must be more than 2"),
        ({k: v for k, v in GARCH.items() if k != "beta"}, "beta is missing; give it, or a file"),
        ({**GARCH, "file": "x.csv"}, "volatility and file"),
        ({**OU, "half_life_days": 0.0}, "half_life_days of A is 0"),
        ({**OU, "peg": -1.0}, "peg of A is -1"),
        ({**COPULA, "degrees": 0.0}, "degrees: Input should be greater than 0"),
        ({**COPULA, "file": "x.csv"}, "exactly one of volatility and file"),
        ({**COPULA, "period_s": 60.0}, "file and period_s belong together"),
        ({**COPULA, "marginal_degrees": 2.0}, "marginal_degrees is 2"),
    ],
)
def test_wrong_parameters_are_told(table: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as refused:
        build(table, ["A", "B"], [1.0, 1.0])
    assert "\n" not in str(refused.value)


def test_a_period_has_whole_steps() -> None:
    drawn = build(GARCH, ["A"], [1.0])
    with pytest.raises(InputError, match="no whole number of steps of 7 s"):
        drawn.paths(path_seeds(1, 0, 1), 1, 7.0)
