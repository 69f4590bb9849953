"""Worst loss of every account over every scenario: sparse positions times a grid, without the product.

The grid has one row for each unique instrument, whoever holds it. Accounts times scenarios would be a matrix
of billions; here only the running worst of each account is kept. Scenarios are taken in tiles, and some
accounts at a time go through all of them, so that both the tile and the positions come from the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from contracts_abi.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_CHUNK: Final = 256
"""Accounts that go through all tiles before the next ones come; their positions stay in the second cache."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Positions of many accounts in compressed rows.

    Attributes
    ----------
    start
        int64, shape (accounts + 1,): account ``a`` has the positions ``start[a]:start[a + 1]``.
    instrument
        int32, shape (positions,): row of the grid.
    quantity
        float64, shape (positions,), signed.
    """

    start: Int64
    instrument: Int32
    quantity: Float64

    def __post_init__(self) -> None:
        if len(self.start) < 1 or self.start[0] != 0 or self.start[-1] != len(self.instrument):
            raise InputError("start must begin with 0 and end with the number of positions")
        if (np.diff(self.start) < 0).any():
            raise InputError("start must not fall")
        if len(self.quantity) != len(self.instrument):
            raise InputError(
                f"{len(self.quantity)} quantities for {len(self.instrument)} positions",
                fix="give one for each",
            )

    def __len__(self) -> int:
        return len(self.start) - 1


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst scenario of each account.

    Attributes
    ----------
    profit
        float64, shape (accounts,): the lowest profit; NaN where an instrument's value is none, 0 for an
        account without positions.
    scenario
        int32, shape (accounts,): which one it was, the first of equals; -1 where there is none.
    """

    profit: Float64
    scenario: Int32


def holders(holdings: Holdings, instruments: NDArray[np.bool_]) -> Int64:
    """Return the accounts that hold any of some instruments: who has to be computed again when they move.

    Parameters
    ----------
    instruments
        bool, shape (instruments,).
    """
    found = np.empty(len(holdings), dtype=np.int64)
    return found[: _holders(holdings.start, holdings.instrument, instruments, found)]


def worst_of(
    holdings: Holdings,
    grid: Float64,
    *,
    threads: int = 1,
    accounts: Int64 | None = None,
    known: Worst | None = None,
) -> Worst:
    """Return the lowest profit of each account over all scenarios.

    Parameters
    ----------
    holdings
        Who holds how much of what.
    grid
        Profit of one unit of each instrument in each scenario, weights included, shape (instruments,
        scenarios).
    threads
        How many share the accounts.
    accounts
        Whom to compute; all without it.
    known
        What stands for the others; needed with `accounts`.

    Raises
    ------
    InputError
        If a position names an instrument that the grid has not, or the grid has no scenario.
    """
    table = np.ascontiguousarray(grid, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise InputError(f"grid has shape {table.shape}", fix="give instruments by scenarios, at least one")
    if len(holdings.instrument) and not 0 <= holdings.instrument.min() <= holdings.instrument.max() < len(
        table
    ):
        raise InputError(
            f"a position names instrument {int(holdings.instrument.max())}, the grid has {len(table)}"
        )
    if (accounts is None) != (known is None):
        raise InputError("accounts and known go together", fix="give both, or none")
    if known is None or accounts is None:
        rows = np.arange(len(holdings))
        profit, scenario = np.full(len(holdings), np.inf), np.full(len(holdings), -1, dtype=np.int32)
    else:
        rows, profit, scenario = accounts, known.profit.copy(), known.scenario.copy()
        profit[rows], scenario[rows] = np.inf, -1
    chosen = _worst_threads if threads > 1 else _worst
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        chosen(rows, holdings.start, holdings.instrument, holdings.quantity, _tiled(table), profit, scenario)
    finally:
        numba.set_num_threads(before)
    none = np.diff(holdings.start) == 0
    profit[none], scenario[none] = 0.0, -1
    return Worst(profit, scenario)


def _kernel(*, parallel: bool = False, flags: frozenset[str] = frozenset({"contract"})) -> Callable[[F], F]:
    return cast(
        "Callable[[F], F]",
        numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=set(flags), parallel=parallel),
    )


_LANES: Final = 256
"""Scenarios at a time: wide enough to hide the cost of a position, and a tile stays in the second cache."""


def _tiled(grid: Float64) -> Float64:
    """Return the grid as tiles, shape (tiles, instruments, lanes); the last scenario fills the last tile."""
    instruments, scenarios = grid.shape
    tiles = -(-scenarios // _LANES)
    padded = np.concatenate([grid, np.repeat(grid[:, -1:], tiles * _LANES - scenarios, axis=1)], axis=1)
    return np.ascontiguousarray(padded.reshape(instruments, tiles, _LANES).transpose(1, 0, 2))


@_kernel()
def _holders(start: Int64, instrument: Int32, wanted: NDArray[np.bool_], found: Int64) -> int:
    count = 0
    for account in range(len(start) - 1):
        for at in range(start[account], start[account + 1]):
            if wanted[instrument[at]]:
                found[count] = account
                count += 1
                break
    return count


@_kernel(flags=frozenset({"nnan", "nsz"}))
def _lowest(total: Float64) -> float:
    low: float = total[0]
    for j in range(_LANES):
        low = total[j] if total[j] < low else low
    return low


@_kernel(flags=frozenset({"reassoc"}))
def _differences(total: Float64) -> float:
    """Return 0 where every number is finite, and no number otherwise."""
    check = 0.0
    for j in range(_LANES):
        check += total[j] - total[j]
    return check


@_kernel()
def _accounts(
    rows: Int64,
    first: int,
    last: int,
    tile: int,
    start: Int64,
    instrument: Int32,
    quantity: Float64,
    tiles: Float64,
    profit: Float64,
    scenario: Int32,
) -> None:
    """Take the accounts ``rows[first:last]`` through one tile."""
    grid = tiles[tile]
    total = np.empty(_LANES)
    for place in range(first, last):
        account = rows[place]
        at, stop = start[account], start[account + 1]
        # The first four write the sum, so that nothing has to be cleared.
        if at + 4 <= stop:
            q0, q1, q2, q3 = quantity[at], quantity[at + 1], quantity[at + 2], quantity[at + 3]
            g0, g1 = grid[instrument[at]], grid[instrument[at + 1]]
            g2, g3 = grid[instrument[at + 2]], grid[instrument[at + 3]]
            for j in range(_LANES):
                total[j] = (q0 * g0[j] + q1 * g1[j]) + (q2 * g2[j] + q3 * g3[j])
            at += 4
        else:
            for j in range(_LANES):
                total[j] = 0.0
        # Four positions at a time: one load and one store of the sum for four of the grid.
        while at + 4 <= stop:
            q0, q1, q2, q3 = quantity[at], quantity[at + 1], quantity[at + 2], quantity[at + 3]
            g0, g1 = grid[instrument[at]], grid[instrument[at + 1]]
            g2, g3 = grid[instrument[at + 2]], grid[instrument[at + 3]]
            for j in range(_LANES):
                total[j] += (q0 * g0[j] + q1 * g1[j]) + (q2 * g2[j] + q3 * g3[j])
            at += 4
        while at < stop:
            q0 = quantity[at]
            g0 = grid[instrument[at]]
            for j in range(_LANES):
                total[j] += q0 * g0[j]
            at += 1
        low = _lowest(total)
        # Infinite or no number, as one that is no number compares with nothing.
        if _differences(total) != 0.0:
            profit[account], scenario[account] = np.nan, -1
        elif low < profit[account]:
            profit[account] = low
            for j in range(_LANES):
                if total[j] == low:
                    scenario[account] = tile * _LANES + j
                    break


@_kernel()
def _worst(
    rows: Int64,
    start: Int64,
    instrument: Int32,
    quantity: Float64,
    tiles: Float64,
    profit: Float64,
    scenario: Int32,
) -> None:
    accounts = len(rows)
    for first in range(0, accounts, _CHUNK):
        last = min(first + _CHUNK, accounts)
        for tile in range(len(tiles)):
            _accounts(rows, first, last, tile, start, instrument, quantity, tiles, profit, scenario)


@_kernel(parallel=True)
def _worst_threads(
    rows: Int64,
    start: Int64,
    instrument: Int32,
    quantity: Float64,
    tiles: Float64,
    profit: Float64,
    scenario: Int32,
) -> None:
    accounts = len(rows)
    for part in numba.prange((accounts + _CHUNK - 1) // _CHUNK):
        first, last = part * _CHUNK, min((part + 1) * _CHUNK, accounts)
        for tile in range(len(tiles)):
            _accounts(rows, first, last, tile, start, instrument, quantity, tiles, profit, scenario)
