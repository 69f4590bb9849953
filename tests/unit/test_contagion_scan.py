"""Looking at the near accounts only finds what looking at all of them finds, whatever happened before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.contagion.prices.streams import path_seeds
from simulation.contagion.scan import Scanner, average_in_basis_points, row_values, scan_plain, touch
from simulation.contagion.state import State, fresh_state
from simulation.contagion.world import World, build_world
from tests.contagion_books import several_venues

PATHS = 3


def walked(world: World, state: State, rng: np.random.Generator, size: float) -> None:
    """Move prices and indices, and let some accounts be liquidated, repay, or add."""
    paths, reserves = state.oracle.shape
    state.oracle *= np.exp(rng.normal(0.0, size, (paths, reserves)))
    state.supply_index *= 1.0 + rng.uniform(0.0, 1e-4, (paths, reserves))
    state.borrow_index *= 1.0 + rng.uniform(0.0, 2e-4, (paths, reserves))
    for p in range(paths):
        for i in rng.choice(world.rows, rng.integers(0, 6), replace=False):
            state.coll[p, i] *= rng.choice([0.0, 0.5, 1.3])
            state.debt[p, i] *= rng.choice([0.0, 0.6, 1.2])
            v = int(world.row_venue[i])
            a = state.anchor
            touch(p, v, int(i), int(world.venue_ptr[v]), a.dirty, a.dirty_list, a.dirty_count)


@pytest.mark.parametrize("scenarios", [0, 3])
@pytest.mark.parametrize("threshold", [1.0, 1.1])
@pytest.mark.parametrize("size", [1e-4, 2e-3, 0.05])
def test_pruned_is_full_is_plain(size: float, threshold: float, scenarios: int) -> None:
    rng = np.random.default_rng([7, scenarios])
    world = build_world(several_venues(120, seed=5, near=0.1))
    shocks = 1.0 + rng.uniform(-0.1, 0.05, (scenarios, len(world.cash)))
    world = replace(world, shocks=shocks)
    state = fresh_state(world, path_seeds(1, 0, PATHS), base_fee_wei=0.0, inventory_usd=np.zeros(1))
    pruned, full = Scanner(world, PATHS), Scanner(world, PATHS, prune=False)
    looked = 0
    for step in range(40):
        walked(world, state, rng, size)
        if step == 20:
            state.oracle[:, 0] = 0.0
        if step == 22:
            state.oracle[:, 0] = 2_000.0
        pruned.scan(state, threshold)
        looked += pruned.looked
        full.scan(state, threshold)
        plain = scan_plain(world, state, threshold)
        for p in range(PATHS):
            n = full.count[p]
            assert full.found[p, :n].tolist() == plain[p], step
            assert pruned.count[p] == n
            assert pruned.found[p, :n].tolist() == plain[p], step
            np.testing.assert_array_equal(pruned.health[p, :n], full.health[p, :n])
    if size < 1e-3 and threshold == 1.0:
        assert looked < 0.5 * 40 * PATHS * world.rows


def test_two_readers_of_one_order_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(1)
    world = build_world(several_venues(60, seed=6))
    state = fresh_state(world, path_seeds(1, 0, PATHS), base_fee_wei=0.0, inventory_usd=np.zeros(1))
    near, below = Scanner(world, PATHS), Scanner(world, PATHS)
    for _ in range(30):
        walked(world, state, rng, 0.01)
        for scanner, threshold in ((near, 1.2), (below, 1.0)):
            scanner.scan(state, threshold)
            plain = scan_plain(world, state, threshold)
            assert [s[: scanner.count[p]].tolist() for p, s in enumerate(scanner.found)] == plain


def test_kernels_say_the_same_as_plain_python() -> None:
    world = build_world(several_venues(20, seed=2))
    price = np.tile(world.price, len(world.venues))
    for i in range(world.rows):
        args = (i, world.coll, world.debt, world.coll_at, world.debt_at, world.lt, price, price)
        assert row_values.py_func(*args) == pytest.approx(
            (
                (world.coll[i] * world.lt[i] * price[world.coll_at[i]]).sum(),
                (world.debt[i] * price[world.debt_at[i]]).sum(),
            ),
            rel=1e-15,
        )
        one = (world.coll[i], world.coll_at[i], world.lt[i], price, 0.9)
        assert average_in_basis_points(*one) == average_in_basis_points.py_func(*one)


def test_averages_of_thresholds_are_whole_basis_points() -> None:
    at, price = np.zeros(2, dtype=np.int32), np.ones(1)
    # 1 at 0.8 and 2 at 0.75: 0.76667 on average, of which 0.7666 counts.
    h = average_in_basis_points(np.array([1.0, 2.0]), at, np.array([0.8, 0.75]), price, 1.0)
    assert h == pytest.approx(0.7666 / (2.3 / 3.0), rel=1e-14)
    for lt in np.arange(1, 10_001) / 1e4:
        same = average_in_basis_points(np.array([0.3, 0.4]), at, np.array([lt, lt]), price, 1.0)
        assert same == pytest.approx(1.0, rel=1e-12)
