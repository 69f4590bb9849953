"""Statistics of a sweep, held against values computed by hand and against coverage that was promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from contracts_abi.errors import InputError
from simulation.backtest import store
from simulation.backtest.parts import encode_part, part_table
from simulation.backtest.plan import make_plan
from simulation.backtest.summary import Statistics, batch_means, quantile, summaries


def kept(folder: Path, columns: dict[str, Any], *, rows: int, own_paths: list[int] | None = None) -> Path:
    """Make a sweep of two points whose second has all numbers doubled."""
    plan = make_plan({"k": 1.0}, ["k=1,2"], task="model:run", paths=rows, chunk=3, seed=1)
    with store.opened(folder, plan):
        for index in range(plan.tasks):
            task = plan.task_at(index)
            paths = np.array(own_paths if own_paths is not None else range(rows))
            here = (paths >= task.first_path) & (paths < task.stop_path)
            made: dict[str, Any] = {
                name: np.asarray(values)[here] * (task.parameters["k"] if name == "loss" else 1)
                if np.asarray(values).dtype.kind != "U"
                else list(np.asarray(values)[here])
                for name, values in columns.items()
            }
            if own_paths is not None:
                made["path"] = paths[here]
            data, _ = encode_part(task, part_table(task, made))
            store.commit(folder, index, store.write_aside(folder, index, data, 1))
    return folder


def test_figures_by_hand(tmp_path: Path) -> None:
    folder = kept(
        tmp_path / "s",
        {
            "loss": [1.0, 3.0, 2.0, 6.0, 4.0, 8.0, np.nan, 5.0],
            "hit": [True] * 6 + [False] * 2,
            "cause": ["a"] * 8,
        },
        rows=8,
    )
    found = list(summaries(folder, batches=4, quantiles=(0.5,)))
    assert [(one.point, one.column) for one in found] == [(0, "loss"), (0, "hit"), (1, "loss"), (1, "hit")]
    loss = found[0]
    assert (loss.rows, loss.unknown, loss.min, loss.max) == (7, 1, 1.0, 8.0)
    assert loss.mean == pytest.approx(29 / 7)
    # Batches of two paths: means 2, 4, 6 and 5, the last of one value.
    weights, means = np.array([2, 2, 2, 1]) / 7, np.array([2, 4, 6, 5.0])
    error = np.sqrt((weights * (means - 29 / 7) ** 2).sum() / 3)
    assert loss.standard_error == pytest.approx(error)
    assert loss.high - loss.mean == pytest.approx(error * stats.t.ppf(0.975, 3))
    assert loss.quantiles[0].value == 4.0  # the fourth of seven
    assert found[2].mean == pytest.approx(2 * 29 / 7)
    assert found[2].parameters == {"k": 2.0}
    assert found[1].mean == 0.75


def test_several_rows_per_path_fall_into_the_batch_of_their_path(tmp_path: Path) -> None:
    folder = kept(tmp_path / "s", {"loss": [1.0, 1.0, 1.0, 5.0]}, rows=6, own_paths=[0, 1, 2, 5])
    (loss, _) = summaries(folder, batches=2)
    assert (loss.rows, loss.mean) == (4, 2.0)
    # Three rows of mean 1 and one of 5: sqrt(3/4 * 1 + 1/4 * 9).
    assert loss.standard_error == pytest.approx(np.sqrt(3.0))


def test_nothing_known_is_not_zero(tmp_path: Path) -> None:
    (one, *_) = summaries(kept(tmp_path / "s", {"loss": [np.nan] * 4}, rows=4))
    assert (one.rows, one.unknown) == (0, 4)
    record = json.loads(json.dumps(one.record(), allow_nan=False))
    assert record["mean"] is record["max"] is record["quantiles"][0]["value"] is None


def test_one_batch_has_no_error() -> None:
    mean, *rest = batch_means(np.array([1.0, 3.0]), np.array([0, 0]), 5)
    assert mean == 2.0
    assert np.isnan(rest).all()


def test_equal_batches_give_the_textbooks_formula() -> None:
    values = np.random.default_rng(1).normal(size=100)
    _, error, _, _ = batch_means(values, np.repeat(np.arange(20), 5), 20)
    assert error == pytest.approx(values.reshape(20, 5).mean(axis=1).std(ddof=1) / np.sqrt(20))


def test_pairs_of_opposites_are_seen_through() -> None:
    # Antithetic pairs cancel: their true error is 0, and rows taken for independent would say 0.1.
    half = np.random.default_rng(1).normal(size=50)
    values = np.stack([half, -half], axis=1).ravel()
    _, error, _, _ = batch_means(values, np.repeat(np.arange(10), 10), 10)
    assert error < 1e-12


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [
        (20, 0.95, 19),
        (20, 0.05, 1),
        (1, 0.5, 1),
        (7, 0.5, 4),
        (100, 0.99, 99),
        (10, 0.001, 1),
        (3, 0.999, 3),
        (100, 0.07, 7),
    ],
)
def test_a_quantile_is_one_of_the_values(n: int, level: float, rank: int) -> None:
    assert quantile(np.arange(1.0, n + 1), level).value == rank


def test_limits_of_quantiles_are_infinite_where_rows_are_few() -> None:
    few = quantile(np.arange(20.0), 0.99)
    assert (few.low > 0, few.high) == (True, np.inf)
    assert quantile(np.array([]), 0.5).low == -np.inf


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_limits_hold_the_true_quantile_as_often_as_promised(level: float) -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(1_000):
        found = quantile(np.sort(rng.uniform(size=60)), level)
        held += found.low <= level <= found.high
    # At least 95 %; three standard errors of 1,000 trials are 2 %. Never more than the ranks allow.
    assert 0.93 <= held / 1_000 <= 0.995


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batches": 1}, "batches: must be at least 2, got 1"),
        ({"quantiles": (0.5, 1.0)}, "quantiles: must be between 0 and 1, got 1.0"),
        ({"columns": ["cause"]}, "column 'cause': is text; name columns of numbers"),
        ({"columns": ["los"]}, "no column 'los'; there are point, path, loss, cause"),
    ],
)
def test_what_cannot_be_summarised_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    folder = kept(tmp_path / "s", {"loss": [1.0] * 4, "cause": ["a"] * 4}, rows=4)
    with pytest.raises(InputError) as refused:
        list[Statistics](summaries(folder, **options))
    assert str(refused.value) == says
