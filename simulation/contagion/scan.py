"""Which accounts are below a health factor, without looking at every one: an exact shortcut.

Sort the accounts of a venue by health factor at some moment, the anchor. Let ``r`` be the least growth of any
collateral's price (times its index) since then, divided by the greatest growth of any debt's. The health
factor is a ratio of sums of non-negative terms, so it is now at least ``r`` times what it was: only accounts
whose health factor at the anchor was below ``threshold / r`` need to be looked at, and they stand first. That
is true of every account whose amounts have not changed; those that did change are kept in a list and always
looked at. When more than a fiftieth of a venue's accounts has come near since the anchor, the order is made
anew. The result is the same as that of a full scan, account for account; a test compares them.

Aave V2 and V3.0 round an account's average threshold down to whole basis points before they take it times the
collateral (`GenericLogic.calculateUserAccountData`): with several collaterals the health factor is by up to
one basis point of the threshold lower. `Scanner` looks that much further there, and sorts out afterwards.

`scan_plain` is the twin without compiler and shortcut.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np

from simulation.contagion.state import State
from simulation.contagion.world import AAVE_V2, AAVE_V3, BPS, World
from simulation.types import Bool, Float64, Int32, Int64

SLACK: Final = 1.0 - 1e-9
"""Sums and products are rounded: the bound is taken a little wider than the last bits of either."""
NEAR: Final = 0.02
"""Part of a venue's accounts that may come near before the order is made anew: with a larger one more is
looked at in vain, with a smaller one more is sorted."""
SAMPLE: Final = 1_500
"""About how many accounts the cut between the near ones and all others is guessed from."""


@numba.njit(cache=True, inline="always", error_model="numpy")
def row_values(
    i: int,
    coll: Float64,
    debt: Float64,
    coll_at: Int32,
    debt_at: Int32,
    lt: Float64,
    coll_price: Float64,
    debt_price: Float64,
) -> tuple[float, float]:
    """Return weighted collateral and debt of row `i` in US dollars, given price times index by reserve."""
    have = 0.0
    for k in range(coll.shape[1]):
        have += coll[i, k] * lt[i, k] * coll_price[coll_at[i, k]]
    owe = 0.0
    for k in range(debt.shape[1]):
        owe += debt[i, k] * debt_price[debt_at[i, k]]
    return have, owe


@numba.njit(cache=True, error_model="numpy")
def worst_values(
    i: int,
    coll: Float64,
    debt: Float64,
    coll_at: Int32,
    debt_at: Int32,
    lt: Float64,
    coll_price: Float64,
    debt_price: Float64,
    shocks: Float64,
) -> tuple[float, float]:
    """Return what `row_values` returns in the scenario in which the ratio of both is least.

    `shocks` are factors of all prices by scenario, shape (S, R); without any it is `row_values`. It stands
    apart so that the loop over plain rows stays one that compilers know to unroll.
    """
    if shocks.shape[0] == 0:
        return row_values(i, coll, debt, coll_at, debt_at, lt, coll_price, debt_price)
    worst_have, worst_owe, worst = 0.0, 0.0, np.inf
    for s in range(shocks.shape[0]):
        have, owe = 0.0, 0.0
        for k in range(coll.shape[1]):
            r = coll_at[i, k]
            have += coll[i, k] * lt[i, k] * coll_price[r] * shocks[s, r]
        for k in range(debt.shape[1]):
            r = debt_at[i, k]
            owe += debt[i, k] * debt_price[r] * shocks[s, r]
        ratio = have / owe if owe > 0.0 else np.inf
        if ratio < worst or s == 0:
            worst_have, worst_owe, worst = have, owe, ratio
    return worst_have, worst_owe


@numba.njit(cache=True, error_model="numpy")
def health_factors(
    first: int,
    last: int,
    coll: Float64,
    debt: Float64,
    coll_at: Int32,
    debt_at: Int32,
    lt: Float64,
    coll_price: Float64,
    debt_price: Float64,
    shocks: Float64,
    out: Float64,
) -> None:
    """Fill ``out[first:last]`` with health factors; infinite without debt."""
    if shocks.shape[0] == 0:
        for i in range(first, last):
            have, owe = row_values(i, coll, debt, coll_at, debt_at, lt, coll_price, debt_price)
            out[i] = have / owe if owe > 0.0 else np.inf
        return
    for i in range(first, last):
        have, owe = worst_values(i, coll, debt, coll_at, debt_at, lt, coll_price, debt_price, shocks)
        out[i] = have / owe if owe > 0.0 else np.inf


@numba.njit(cache=True, inline="always", error_model="numpy")
def _ratio(
    reserves: int,
    offset: int,
    used: Bool,
    coll_now: Float64,
    debt_now: Float64,
    coll_then: Float64,
    debt_then: Float64,
) -> float:
    """Return a lower bound of how health factors have changed since the anchor."""
    least, most = np.inf, 0.0
    for r in range(offset, offset + reserves):
        if used[0, r] and coll_then[r] > 0.0:
            least = min(least, coll_now[r] / coll_then[r])
        if used[1, r]:
            if debt_then[r] > 0.0:
                most = max(most, debt_now[r] / debt_then[r])
            elif debt_now[r] > 0.0:
                most = np.inf
    if most == 0.0:
        return np.inf
    return least / most


@numba.njit(cache=True)
def nearest_rows(health: Float64, threshold: float) -> Int64:
    """Return the rows that may come near before the order is made anew, by rising health factor.

    Those are the ones below `threshold`, a part `NEAR` of all, and one more: as soon as that one is near, the
    order is stale. To sort them costs a tenth of what it costs to sort all.
    """
    size, then = len(health), 0
    for i in range(size):
        then += health[i] < threshold / SLACK
    most = then + int(NEAR * size) + 1
    if most >= size:
        return np.argsort(health, kind="mergesort")
    # A cut guessed from a sample, a little wide, spares the search for the exact one.
    sample = np.sort(health[:: max(size // SAMPLE, 1)])
    guess = sample[min(int(1.3 * most / size * len(sample)) + 3, len(sample) - 1)]
    rows, n = np.empty(2 * most, dtype=np.int64), 0
    for i in range(size):
        if health[i] <= guess:
            if n == len(rows):
                n += 1
                break
            rows[n] = i
            n += 1
    if most <= n <= len(rows):
        rows = rows[:n]
    else:
        rows = np.flatnonzero(health <= np.partition(health, most - 1)[most - 1])
    return rows[np.argsort(health[rows], kind="mergesort")]


@numba.njit(cache=True, error_model="numpy")
def scan_paths(
    coll: Float64,
    debt: Float64,
    coll_at: Int32,
    debt_at: Int32,
    lt: Float64,
    used: Bool,
    venue_ptr: Int64,
    tokens: int,
    coll_price: Float64,
    debt_price: Float64,
    shocks: Float64,
    threshold: float,
    anchor_coll: Float64,
    anchor_debt: Float64,
    order: Int32,
    health: Float64,
    dirty: Bool,
    dirty_list: Int32,
    dirty_count: Int64,
    sorted_rows: Int64,
    prune: bool,
    found: Int32,
    found_health: Float64,
    count: Int64,
    scratch: Float64,
) -> int:
    """Find the rows of every path whose health factor is below `threshold`; return how many were looked at.

    Parameters
    ----------
    coll, debt
        Scaled amounts, shapes (P, N, C) and (P, N, D).
    coll_at, debt_at, lt
        Reserve of each slot and thresholds, see `World`.
    used
        Which reserves occur as collateral (row 0) and as debt (row 1), shape (2, R).
    venue_ptr, tokens
        Rows of each venue, and the number of tokens.
    coll_price, debt_price
        Price times index now, shape (P, R).
    shocks
        Factors of the prices by scenario, shape (S, R); no rows where health factors are plain.
    threshold
        Rows with a health factor strictly below are found.
    anchor_coll, anchor_debt, order, health, dirty, dirty_list, dirty_count, sorted_rows
        See `simulation.contagion.state.Anchor`; changed in place.
    prune
        False looks at every row.
    found, found_health, count
        Filled: rows in rising order of their number, shape (P, N), their health factors, and how many.
    scratch
        Shape (N,), overwritten.
    """
    paths, venues, looked = coll.shape[0], len(venue_ptr) - 1, 0
    plain = shocks.shape[0] == 0
    for p in range(paths):
        # A view is taken once a path: in a loop over rows it costs several times what the row does.
        has, owes, now_coll, now_debt = coll[p], debt[p], coll_price[p], debt_price[p]
        n = 0
        for v in range(venues):
            first, last = venue_ptr[v], venue_ptr[v + 1]
            if first == last:
                continue
            size, begin = last - first, n
            near_now, ratio = size, 0.0
            if prune and sorted_rows[p, v] > 0:
                ratio = _ratio(tokens, v * tokens, used, now_coll, now_debt, anchor_coll[p], anchor_debt[p])
                known = health[p, first : first + sorted_rows[p, v]]
                if ratio > 0.0:
                    near_now = np.searchsorted(known, threshold / (ratio * SLACK))
                    if near_now == len(known):
                        # Others may be near as well, of which the order does not tell.
                        near_now = size
            stale = True
            if prune and sorted_rows[p, v] > 0:
                then = np.searchsorted(known, threshold / SLACK)
                stale = near_now > then + NEAR * size or dirty_count[p, v] > NEAR * size
            if prune and stale:
                health_factors(
                    first,
                    last,
                    has,
                    owes,
                    coll_at,
                    debt_at,
                    lt,
                    now_coll,
                    now_debt,
                    shocks,
                    scratch,
                )
                nearest = nearest_rows(scratch[first:last], threshold)
                for k in range(len(nearest)):
                    row = first + nearest[k]
                    order[p, first + k] = row
                    health[p, first + k] = scratch[row]
                dirty[p, first:last] = False
                dirty_count[p, v] = 0
                for r in range(v * tokens, (v + 1) * tokens):
                    anchor_coll[p, r] = coll_price[p, r]
                    anchor_debt[p, r] = debt_price[p, r]
                sorted_rows[p, v] = len(nearest)
                looked += size
                for k in range(len(nearest)):
                    if health[p, first + k] < threshold:
                        found[p, n] = order[p, first + k]
                        found_health[p, n] = health[p, first + k]
                        n += 1
                    else:
                        break
                _sort_found(found[p], found_health[p], begin, n)
                continue
            if not prune or near_now > size // 2:
                looked += size
                if plain:
                    for i in range(first, last):
                        have, owe = row_values(i, has, owes, coll_at, debt_at, lt, now_coll, now_debt)
                        if have < threshold * owe:
                            found[p, n] = i
                            found_health[p, n] = have / owe
                            n += 1
                    continue
                for i in range(first, last):
                    have, owe = worst_values(i, has, owes, coll_at, debt_at, lt, now_coll, now_debt, shocks)
                    if have < threshold * owe:
                        found[p, n] = i
                        found_health[p, n] = have / owe
                        n += 1
                continue
            looked += near_now + dirty_count[p, v]
            for k in range(first, first + near_now):
                i = order[p, k]
                if dirty[p, i]:
                    continue
                if plain:
                    have, owe = row_values(i, has, owes, coll_at, debt_at, lt, now_coll, now_debt)
                else:
                    have, owe = worst_values(i, has, owes, coll_at, debt_at, lt, now_coll, now_debt, shocks)
                if have < threshold * owe:
                    found[p, n] = i
                    found_health[p, n] = have / owe
                    n += 1
            for k in range(first, first + dirty_count[p, v]):
                i = dirty_list[p, k]
                if plain:
                    have, owe = row_values(i, has, owes, coll_at, debt_at, lt, now_coll, now_debt)
                else:
                    have, owe = worst_values(i, has, owes, coll_at, debt_at, lt, now_coll, now_debt, shocks)
                if have < threshold * owe:
                    found[p, n] = i
                    found_health[p, n] = have / owe
                    n += 1
            _sort_found(found[p], found_health[p], begin, n)
        count[p] = n
    return looked


@numba.njit(cache=True)
def _sort_found(found: Int32, found_health: Float64, begin: int, end: int) -> None:
    if end - begin < 2:
        return
    by = np.argsort(found[begin:end], kind="mergesort")
    found[begin:end] = found[begin:end][by]
    found_health[begin:end] = found_health[begin:end][by]


@numba.njit(cache=True)
def touch(p: int, v: int, i: int, first: int, dirty: Bool, dirty_list: Int32, dirty_count: Int64) -> None:
    """Note that the amounts of row `i` of venue `v` have changed on path `p`."""
    if not dirty[p, i]:
        dirty[p, i] = True
        dirty_list[p, first + dirty_count[p, v]] = i
        dirty_count[p, v] += 1


@numba.njit(cache=True, error_model="numpy")
def average_in_basis_points(
    coll: Float64, coll_at: Int32, lt: Float64, coll_price: Float64, health: float
) -> float:
    """Return a row's health factor with its average threshold rounded down; see the module."""
    value, weighted = 0.0, 0.0
    for k in range(len(coll)):
        x = coll[k] * coll_price[coll_at[k]]
        value += x
        weighted += x * lt[k]
    if weighted <= 0.0:
        return health
    exact = weighted / value * BPS
    # Where all thresholds are the same the average is whole, whatever its last bits are.
    return health * np.floor(exact + 1e-6) / exact  # type: ignore[no-any-return]


@numba.njit(cache=True, error_model="numpy")
def sort_out(
    threshold: float,
    rounds: Bool,
    row_venue: Int32,
    coll: Float64,
    coll_at: Int32,
    lt: Float64,
    coll_price: Float64,
    found: Int32,
    found_health: Float64,
    count: Int64,
) -> None:
    """Keep the rows below `threshold`, with the averages of the venues that round them; see `scan_paths`."""
    for p in range(coll.shape[0]):
        n = 0
        for k in range(count[p]):
            i, h = found[p, k], found_health[p, k]
            if rounds[row_venue[i]]:
                h = average_in_basis_points(coll[p, i], coll_at[i], lt[i], coll_price[p], h)
            if h < threshold:
                found[p, n], found_health[p, n] = i, h
                n += 1
        count[p] = n


class Scanner:
    """The buffers of a scan, kept from step to step.

    Parameters
    ----------
    world
        Whose rows are scanned.
    paths
        Size of the batch.
    prune
        False looks at every row in every step.

    Attributes
    ----------
    found, health, count
        Rows found on each path, shape (P, N), their health factors, and how many, shape (P,).
    looked
        Rows looked at in the last scan, over all paths.
    """

    def __init__(self, world: World, paths: int, *, prune: bool = True) -> None:
        self._world = world
        self._prune = prune
        self._used = np.zeros((2, len(world.cash)), dtype=np.bool_)
        # Borrowers' reactions may add to a slot that is there, never open one, so what occurs is known.
        self._used[0, world.coll_at.ravel()] = True
        self._used[1, world.debt_at.ravel()] = True
        self.found = np.zeros((paths, world.rows), dtype=np.int32)
        self.health = np.zeros((paths, world.rows))
        self.count = np.zeros(paths, dtype=np.int64)
        self._scratch = np.zeros(world.rows)
        self._rounds, self._further = _rounding(world)
        self.looked = 0

    def scan(self, state: State, threshold: float) -> None:
        """Find the rows below `threshold` on every path; see `scan_paths`."""
        w, a = self._world, state.anchor
        self.looked = scan_paths(
            state.coll,
            state.debt,
            w.coll_at,
            w.debt_at,
            w.lt,
            self._used,
            w.venue_ptr,
            len(w.tokens),
            state.oracle * state.supply_index,
            state.oracle * state.borrow_index,
            w.shocks,
            threshold * self._further,
            a.coll_price,
            a.debt_price,
            a.order,
            a.health,
            a.dirty,
            a.dirty_list,
            a.dirty_count,
            a.sorted_rows,
            self._prune,
            self.found,
            self.health,
            self.count,
            self._scratch,
        )
        if self._further > 1.0:
            sort_out(
                threshold,
                self._rounds,
                w.row_venue,
                state.coll,
                w.coll_at,
                w.lt,
                state.oracle * state.supply_index,
                self.found,
                self.health,
                self.count,
            )


def _rounding(world: World) -> tuple[Bool, float]:
    """Return which venues round average thresholds, and how much further one has to look for that."""
    rounds = np.isin(world.rules.kind, (AAVE_V2, AAVE_V3))
    several = rounds[world.row_venue] & ((world.coll > 0.0).sum(axis=1) > 1)
    if len(world.shocks) or not several.any():
        return np.zeros_like(rounds), 1.0
    used = world.lt[several]
    # By one basis point of the least threshold, and what floats need.
    return rounds, 1.0 / (1.0 - min(1.0 / BPS / float(used[used > 0.0].min()), 0.5)) / SLACK


def scan_plain(world: World, state: State, threshold: float) -> list[list[int]]:
    """Return the rows below `threshold` of every path, in NumPy and without a shortcut."""
    found = []
    rounds = np.isin(world.rules.kind, (AAVE_V2, AAVE_V3))[world.row_venue] & (len(world.shocks) == 0)
    scenarios = world.shocks if len(world.shocks) else np.ones((1, len(world.cash)))
    for p in range(state.paths):
        below = np.zeros(world.rows, dtype=np.bool_)
        for factor in scenarios:
            price = state.oracle[p] * factor
            value = state.coll[p] * (price * state.supply_index[p])[world.coll_at]
            have, whole = (value * world.lt).sum(axis=1), value.sum(axis=1)
            average = np.divide(have, whole, out=np.zeros_like(have), where=whole > 0.0)
            have = np.where(rounds, np.floor(average * BPS + 1e-6) / BPS * whole, have)
            owe = (state.debt[p] * (price * state.borrow_index[p])[world.debt_at]).sum(axis=1)
            below |= have < threshold * owe
        found.append(np.flatnonzero(below).tolist())
    return found
