"""What holds on every path: tokens are counted, batches change nothing, channels change no others' draws."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from simulation.contagion.batch import Batch
from simulation.contagion.draws import path_keys, uniform, uniforms
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.impact import impact_models
from simulation.contagion.metrics import path_columns
from simulation.contagion.prices.streams import path_seeds
from simulation.contagion.state import Total, imbalance
from tests.contagion_books import EVERYTHING, moving_run, several_venues

STEPS = 24
BOOK = several_venues(60, seed=3)
EACH_MODEL: dict[str, dict[str, Any]] = {
    "linear": {"per_dollar": 3e-8, "half_life_s": 1_800.0},
    "square-root": {"volatility": 0.03, "volume_tokens": 1e5},
    "depth": {"depth_tokens": 2e4, "half_life_s": 600.0},
    "cont-schaanning": {"depth_usd": 4e7, "floor_price": 100.0},
    "cpmm": {"tokens": 1e4, "cash": 2e7},
    "table": {"size": (100.0, 1_000.0, 10_000.0), "slippage": (0.001, 0.02, 0.3)},
}


@pytest.fixture(scope="module")
def everything() -> Run:
    return moving_run(BOOK, EVERYTHING, steps=STEPS)


@pytest.fixture(scope="module")
def whole(everything: Run) -> PathResults:
    return run_paths(everything, 11, 0, 12)


def arrays(results: PathResults) -> dict[str, Any]:
    """Return all figures of paths by name."""
    out = {f.name: getattr(results, f.name) for f in fields(results)}
    return {k: v for k, v in out.items() if isinstance(v, np.ndarray)} | results.extra


def test_everything_happens_in_these_runs(whole: PathResults) -> None:
    totals = whole.totals.sum(axis=0)
    for v, venue in enumerate(whole.world.venues):
        assert totals[v, Total.LIQUIDATIONS] > 0, venue
    for what in (Total.FEES, Total.GAS, Total.TOXIC, Total.UNPROFITABLE, Total.FAILED_TXS, Total.WITHDRAWN):
        assert totals[:, what].sum() > 0, what.name
    for what in (Total.WRITTEN_OFF, Total.FROM_RESERVES, Total.FROM_BACKSTOP, Total.FROM_SUPPLIERS):
        assert totals[:, what].sum() > 0, what.name
    assert totals[:, Total.DELEVERAGED].sum() > 0
    assert (whole.extra["perps.liquidations"] > 0).all()
    assert (whole.extra["options.hedged_usd"] > 0).all()


def test_pools_balance_and_tokens_are_counted_after_every_step(everything: Run) -> None:
    first: dict[str, Any] = {}
    steps = []

    def count(batch: Batch) -> Any:
        state, world = batch.state, batch.world
        pools = state.cash.reshape(state.paths, len(world.venues), len(world.tokens)).sum(axis=1)
        return pools + state.unsold.sum(axis=1) + state.sold - state.bought

    def watch(batch: Batch) -> None:
        state = batch.state
        size = ((state.supplied + state.idle) * state.supply_index + state.reserves)[0]
        first.setdefault("size", size)
        assert imbalance(state, first["size"]).max() <= 1e-9
        now = count(batch)
        counted = first.setdefault("count", now)
        turned = np.maximum(counted, state.sold + state.bought)
        assert (np.abs(now - counted) <= 1e-9 * np.maximum(turned, 1.0)).all()
        # What the running sums say is what the accounts have.
        for at, amounts, kept in (
            (batch.world.coll_at, state.coll, state.supplied),
            (batch.world.debt_at, state.debt, state.borrowed),
        ):
            for p in range(state.paths):
                summed = np.zeros(kept.shape[1])
                np.add.at(summed, at.ravel(), amounts[p].ravel())
                np.testing.assert_allclose(summed, kept[p], rtol=1e-9, atol=1e-9)
        for name in ("coll", "debt", "cash", "idle", "unsold"):
            assert getattr(state, name).min() >= -1e-9, name
        for name in ("coll", "debt", "cash", "market", "oracle", "order_flow", "reserves", "totals"):
            assert np.isfinite(getattr(state, name)).all(), name
        steps.append(batch.step)

    run_paths(everything, 11, 0, 3, watch=watch)
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("sizes", [(1,) * 12, (5, 7), (11, 1)])
def test_no_figure_of_a_path_depends_on_its_batch(
    everything: Run, whole: PathResults, sizes: tuple[int, ...]
) -> None:
    first = 0
    for size in sizes:
        part = arrays(run_paths(everything, 11, first, size))
        for name, values in arrays(whole).items():
            assert values[first : first + size].tobytes() == part[name].tobytes(), (name, first)
        first += size


@pytest.mark.parametrize("model", EACH_MODEL)
def test_no_market_model_lets_one_path_touch_another(model: str) -> None:
    settings = {
        "keepers": {},
        "impact": {"tokens": {"ETH": {"model": model, **EACH_MODEL[model]}}},
    }
    run = moving_run(BOOK, settings, steps=12, fall=0.05)
    together = arrays(run_paths(run, 2, 0, 6))
    moved = together["price"][:, 0] != together["exogenous"][:, 0]
    assert moved.any()
    for p in range(6):
        alone = arrays(run_paths(run, 2, p, 1))
        for name, values in together.items():
            assert values[p : p + 1].tobytes() == alone[name].tobytes(), (name, p)


def test_every_book_model_is_among_them() -> None:
    # A pool with ticks is read from a chain; its own tests have one.
    assert set(EACH_MODEL) == set(impact_models) - {"uniswap-v3"}


@pytest.mark.parametrize("kind", EVERYTHING)
def test_without_a_channel_prices_from_outside_and_draws_are_the_same(
    everything: Run, whole: PathResults, kind: str
) -> None:
    settings = EVERYTHING | {kind: EVERYTHING[kind] | {"on": False}}
    off = run_paths(moving_run(BOOK, settings, steps=STEPS), 11, 0, 12)
    assert off.exogenous.tobytes() == whole.exogenous.tobytes()
    assert arrays(off)["totals"].tobytes() != arrays(whole)["totals"].tobytes(), "the channel does something"
    absent = {k: v for k, v in EVERYTHING.items() if k != kind}
    never = run_paths(moving_run(BOOK, absent, steps=STEPS), 11, 0, 12)
    for name, values in arrays(never).items():
        assert values.tobytes() == arrays(off)[name].tobytes(), name
    # Beside that, a channel that is off has its columns, and nobody knows their figures.
    assert all(np.isnan(off.extra[name]).all() for name in off.extra.keys() - never.extra.keys())


def test_a_draw_is_the_same_one_by_one_and_all_at_once() -> None:
    keys = path_keys(path_seeds(5, 3, 4))
    table = uniforms(keys, 2, 17, 9)
    for p, key in enumerate(keys):
        for entity in range(9):
            assert uniform(key, 2, 17, entity) == table[p, entity]
            with np.errstate(over="ignore"):
                assert uniform.py_func(key, 2, 17, np.uint64(entity)) == table[p, entity]


def test_draws_are_uniform_and_have_nothing_to_do_with_each_other() -> None:
    keys = path_keys(path_seeds(1, 0, 40))
    x = np.stack([uniforms(keys, c, s, 50) for c in range(4) for s in range(50)])
    n = x.size
    assert (x >= 0.0).all()
    assert (x < 1.0).all()
    counts = np.histogram(x, bins=100, range=(0.0, 1.0))[0]
    # Chi-square with 99 degrees of freedom: mean 99, deviation 14.
    assert ((counts - n / 100) ** 2 / (n / 100)).sum() < 99 + 5 * 14.1
    y = (x - 0.5) * np.sqrt(12.0)
    for a, b in ((y[:-1], y[1:]), (y[:, :-1], y[:, 1:]), (y[..., :-1], y[..., 1:])):
        assert abs(float((a * b).mean())) < 5.0 / np.sqrt(a.size)
    assert len(np.unique(x)) == n


def test_columns_of_a_path_depend_on_its_number_and_seed_only(everything: Run, whole: PathResults) -> None:
    table = path_columns(whole, everything.dt_s)
    part = path_columns(run_paths(everything, 11, 7, 3), everything.dt_s)
    assert set(part) == set(table)
    for name, values in table.items():
        assert values[7:10].tobytes() == part[name].tobytes(), name
    other = path_columns(run_paths(everything, 12, 7, 3), everything.dt_s)
    assert other["price.ETH"].tobytes() != part["price.ETH"].tobytes()
