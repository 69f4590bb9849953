"""Which accounts of a large book may be liquidatable: a float64 screen with an error bound that holds.

The screen sorts accounts into certainly healthy, certainly liquidatable and too near to tell; only the last,
and those with something unknown, need exact integers. It never replaces the contract's own answer.

Layout. Rows are grouped by shape (number of collaterals, number of debts), so there is no padding and every
inner loop has a fixed length. Within a group each slot is one contiguous column over all its rows: amounts
(collateral amounts already multiplied by their weight) and asset numbers. Results are in the same order;
`ScreenResult` maps them back to rows of the book.

Error bound. Let u = 2**-53 and g(k) = k*u / (1 - k*u), which bounds the product of k factors (1 + d) with
abs(d) <= u. For a row with C collaterals and D debts let N and M be the exact weighted collateral value and
the exact debt value. Against the exact rationals

- an amount is off by A factors (`Rounding.amount_roundings`; 1 when `fixed_point.to_float` made it);
- a weight and a price are rounded once when they become float64, amount times weight once, and times price
  once: 4 factors more for a collateral, and the same for a debt;
- a sum of C terms adds at most C - 1 factors to each term, in whatever order it is added; all terms are
  non-negative, so relative errors do not grow by cancellation;

hence the computed n and m satisfy ``abs(n - N) <= g(C + A + 3) * N``, ``abs(m - M) <= g(D + A + 3) * M``,
and the quotient, rounded once more, ``abs(h - N/M) <= g(C + D + 2*A + 7) * N/M``. A fused multiply-add rounds
less often. A price outside [1e-100, 1e100] is unknown, and so is an amount times its weight unless it is 0:
every product stays far from infinity and from the subnormal numbers, where these factors do not hold.

A contract departs from N/M further, by integer rounding of its own (`Rounding`): weights averaged by value
and cut to a whole step s lose less than ``s / w`` of N where w is the least weight; a balance rounded to raw
units moves a value by less than r, the dearest raw unit of all assets times `Rounding.amount_units`; each
value cut to a multiple of v loses less than v; and rounding the weighted sum moves it by at most v. With
``q = r + v``, no weight above 1 and at most 1/s collaterals, the contract's numerator lies in
``[N * (1 - s/w) - (C + 2) * q, N + (C + 2) * q]`` and its denominator in ``[M - D * q, M + D * q]``; its
division at 1e18 moves the comparison with 1 by less than 1e-18 of M. Put ``e = g(C + A + 3) + s/w`` and
``f = g(D + A + 3) + 1e-18``. The account is certainly healthy when
``n * (1 - e) - (C + 2) * q >= m * (1 + f) + D * q`` and certainly liquidatable when
``n * (1 + e) + (C + 2) * q < m * (1 - f) - D * q``. Both follow from ``abs(n - m) > b * m + k * q`` with
``b = (1 + f) / (1 - e) - 1 = (e + f) / (1 - e)`` and ``k = (C + D + 2) / (1 - e)``, which is what the kernel
compares; weights above 1 scale C and D in k, and b and k are enlarged by 16u for the rounding of the
comparison itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from contracts_abi.errors import InputError
from simulation.types import Book, Float64, Int8, Int64, PositionKind

F = TypeVar("F", bound=Callable[..., Any])

UNIT_ROUNDOFF = 2.0**-53

_LEAST, _GREATEST = 1e-100, 1e100
"""Prices and weighted amounts outside are unknown; no token and no market comes near either."""

_BLOCK = 16_384
"""Rows summed at a time: two scratch columns of 128 KiB stay in the second-level cache."""


class ScreenStatus(IntEnum):
    """What the screen can say of an account."""

    HEALTHY = 0
    LIQUIDATABLE = 1
    NEAR = 2
    NO_DEBT = 3
    UNKNOWN = 4


# Kernels see plain integers.
_HEALTHY, _LIQUIDATABLE, _NEAR, _NO_DEBT, _UNKNOWN = (np.int8(status) for status in ScreenStatus)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How far amounts and a contract's health factor are from the real numbers that the screen stands for.

    Attributes
    ----------
    weight_step
        The contract averages the weights by value and rounds down to a multiple of this; 0 when it does not.
    value_step
        The contract rounds each value down to a multiple of this, in units of the prices passed to the
        screen; 0 when it does not.
    amount_units
        The contract's own balance may differ from the book's amount by this many raw units, apart from what
        `amount_roundings` covers.
    amount_roundings
        Relative error of the book's amounts, in units of 2**-53.
    """

    weight_step: float = 0.0
    value_step: float = 0.0
    amount_units: float = 0.0
    amount_roundings: int = 1

    def __post_init__(self) -> None:
        for name in ("weight_step", "value_step"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"rounding {name} {getattr(self, name)!r} is not in [0, 1)")
        for name in ("amount_units", "amount_roundings"):
            if not 0 <= getattr(self, name) < 1_000:
                raise InputError(f"rounding {name} {getattr(self, name)!r} is not in [0, 1000)")


AAVE_V3_0 = Rounding(weight_step=1e-4, value_step=1e-8, amount_units=0.5, amount_roundings=8)
"""Average threshold in whole basis points, values in base currency with eight decimals.

More room than the amounts of `simulation.protocols.aave_v3.book` need, which are the contract's own balances:
half a raw unit and a few roundings are for debts that grow by a factor on their price.
"""


def error_factor(roundings: int) -> float:
    """Return ``g(k) = k*u / (1 - k*u)``, the relative error bound of `roundings` roundings."""
    return roundings * UNIT_ROUNDOFF / (1.0 - roundings * UNIT_ROUNDOFF)


def _kernel(*, parallel: bool = False) -> Callable[[F], F]:
    """Compile without the interpreter lock and without exceptions for division by zero, keep the result."""
    return cast(
        "Callable[[F], F]", numba.njit(cache=True, nogil=True, error_model="numpy", parallel=parallel)
    )


@_kernel()
def _sum_slots(
    total: Float64,
    amount: Float64,
    asset: NDArray[Any],
    price: Float64,
    start: int,
    stride: int,
    slots: int,
    rows: int,
) -> None:
    """Fill ``total[:rows]`` with the value of `slots` columns, four, two or one at a pass."""
    if slots == 0:
        total[:rows] = 0.0
    slot = 0
    while slot < slots:
        first = slot == 0
        at = start + slot * stride
        a0, i0 = amount[at : at + rows], asset[at : at + rows]
        if slots - slot >= 4:
            at += stride
            a1, i1 = amount[at : at + rows], asset[at : at + rows]
            at += stride
            a2, i2 = amount[at : at + rows], asset[at : at + rows]
            at += stride
            a3, i3 = amount[at : at + rows], asset[at : at + rows]
            for r in range(rows):
                value = (a0[r] * price[i0[r]] + a1[r] * price[i1[r]]) + (
                    a2[r] * price[i2[r]] + a3[r] * price[i3[r]]
                )
                total[r] = value if first else total[r] + value
            slot += 4
        elif slots - slot >= 2:
            at += stride
            a1, i1 = amount[at : at + rows], asset[at : at + rows]
            for r in range(rows):
                value = a0[r] * price[i0[r]] + a1[r] * price[i1[r]]
                total[r] = value if first else total[r] + value
            slot += 2
        else:
            for r in range(rows):
                value = a0[r] * price[i0[r]]
                total[r] = value if first else total[r] + value
            slot += 1


@_kernel()
def _classify(
    collateral: Float64,
    debt: Float64,
    bound: float,
    floor: float,
    health: Float64,
    status: Int8,
) -> None:
    """Fill health factors and statuses from values. Comparisons with NaN are false, which leaves UNKNOWN."""
    for r in range(health.shape[0]):
        n, m = collateral[r], debt[r]
        gap = bound * m + floor
        over = n - m
        health[r] = np.inf if m == 0.0 else n / m
        code = _UNKNOWN
        code = _NEAR if abs(over) <= gap else code
        code = _HEALTHY if over > gap else code
        code = _LIQUIDATABLE if -over > gap else code
        status[r] = _NO_DEBT if m == 0.0 else code


def _screen_task(
    task: Int64,
    amount: Float64,
    asset: NDArray[Any],
    collateral_price: Float64,
    debt_price: Float64,
    bound: Float64,
    floor: Float64,
    health: Float64,
    status: Int8,
) -> None:
    start, stride, collaterals, debts = task[0], task[1], task[2], task[3]
    row, rows, group = task[4], task[5], task[6]
    collateral, debt = np.empty(rows), np.empty(rows)
    _sum_slots(collateral, amount, asset, collateral_price, start, stride, collaterals, rows)
    _sum_slots(debt, amount, asset, debt_price, start + collaterals * stride, stride, debts, rows)
    _classify(
        collateral, debt, bound[group], floor[group], health[row : row + rows], status[row : row + rows]
    )


_compiled_task = _kernel()(_screen_task)


@_kernel()
def _screen_serial(
    tasks: Int64,
    amount: Float64,
    asset: NDArray[Any],
    collateral_price: Float64,
    debt_price: Float64,
    bound: Float64,
    floor: Float64,
    health: Float64,
    status: Int8,
) -> None:
    for t in range(tasks.shape[0]):
        _compiled_task(tasks[t], amount, asset, collateral_price, debt_price, bound, floor, health, status)


@_kernel(parallel=True)
def _screen_parallel(
    tasks: Int64,
    amount: Float64,
    asset: NDArray[Any],
    collateral_price: Float64,
    debt_price: Float64,
    bound: Float64,
    floor: Float64,
    health: Float64,
    status: Int8,
) -> None:
    for t in numba.prange(tasks.shape[0]):
        _compiled_task(tasks[t], amount, asset, collateral_price, debt_price, bound, floor, health, status)


def _screen_plain(
    tasks: Int64,
    amount: Float64,
    asset: NDArray[Any],
    collateral_price: Float64,
    debt_price: Float64,
    bound: Float64,
    floor: Float64,
    health: Float64,
    status: Int8,
) -> None:
    """The same as the kernels in NumPy, for comparison."""
    for start, stride, collaterals, debts, row, rows, group in tasks.tolist():
        at = start + np.arange(collaterals + debts)[:, None] * stride + np.arange(rows)
        n = (amount[at[:collaterals]] * collateral_price[asset[at[:collaterals]]]).sum(axis=0)
        m = (amount[at[collaterals:]] * debt_price[asset[at[collaterals:]]]).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap, over = bound[group] * m + floor[group], n - m
            health[row : row + rows] = np.where(m == 0.0, np.inf, n / m)
        status[row : row + rows] = np.select(
            [m == 0.0, over > gap, -over > gap, np.abs(over) <= gap],
            [_NO_DEBT, _HEALTHY, _LIQUIDATABLE, _NEAR],
            _UNKNOWN,
        )


@dataclass(frozen=True, slots=True)
class ScreenResult:
    """Health of every row of a book, in the screen's own order.

    Attributes
    ----------
    book_row
        int64, shape (n,): row of the book that each entry is for.
    health
        float64, shape (n,): health factor; infinite without debt, NaN when unknown.
    status
        int8, shape (n,), values of `ScreenStatus`.
    """

    book_row: Int64
    health: Float64
    status: Int8

    def rows(self, *statuses: ScreenStatus) -> Int64:
        """Return the rows of the book with one of `statuses`, ascending."""
        found = np.zeros(len(self.status), dtype=np.bool_)
        for status in statuses:
            found |= self.status == status
        return np.sort(self.book_row[found])

    def needs_exact(self) -> Int64:
        """Return the rows that floats cannot decide: too near to the threshold, or something is unknown."""
        return self.rows(ScreenStatus.NEAR, ScreenStatus.UNKNOWN)

    def candidates(self) -> Int64:
        """Return the rows that are not certainly healthy: what exact confirmation starts from."""
        return self.rows(ScreenStatus.LIQUIDATABLE, ScreenStatus.NEAR, ScreenStatus.UNKNOWN)

    def by_row(self) -> tuple[Float64, Int8]:
        """Return health factors and statuses in the book's order."""
        health, status = np.empty_like(self.health), np.empty_like(self.status)
        health[self.book_row], status[self.book_row] = self.health, self.status
        return health, status


@dataclass(frozen=True, slots=True)
class HealthScreen:
    """The positions of a book, laid out for repeated screening at changing prices; see the module's text.

    Attributes
    ----------
    book_row
        int64, shape (n,): row of the book behind each screened row; groups of equal shape lie together.
    amount
        float64, shape (nnz,): amounts times weight, column by column within each group.
    asset
        Asset number of each amount, uint8 while they fit.
    assets
        Number of assets; prices must have this length.
    tasks
        int64, shape (t, 7): start in `amount`, stride of a column, collaterals, debts, first row, rows,
        group.
    bound, steps
        float64, shape (groups,): ``b`` and ``k`` of the module's text.
    raw_unit
        float64, shape (assets,): whole tokens by which a balance may be off, for ``r``.
    value_step
        ``v`` of the module's text.
    relative_error
        Largest relative error of a health factor against the exact quotient of the same amounts and prices.
    """

    book_row: Int64
    amount: Float64
    asset: NDArray[Any]
    assets: int
    tasks: Int64
    bound: Float64
    steps: Float64
    raw_unit: Float64
    value_step: float
    relative_error: float

    def __len__(self) -> int:
        return len(self.book_row)

    def run(
        self,
        prices: ArrayLike,
        debt_prices: ArrayLike | None = None,
        *,
        threads: int = 1,
        out: ScreenResult | None = None,
    ) -> ScreenResult:
        """Screen all rows.

        Parameters
        ----------
        prices
            Shape (assets,): price of one whole token. Whatever is not a number from 1e-100 to 1e100 is
            unknown, and so is every account with debt that holds the asset.
        debt_prices
            Prices of debts where they differ, for instance by interest since the book was read.
        threads
            1 runs without a thread pool.
        out
            A result of this screen to overwrite, so that nothing is allocated.

        Raises
        ------
        InputError
            If a price vector does not have one price for each asset, or there are not that many threads.
        """
        if out is None:
            out = self._new_result()
        arguments = self._arguments(prices, debt_prices, out)
        if threads == 1:
            _screen_serial(*arguments)
            return out
        before = numba.get_num_threads()
        if not 1 < threads <= before:
            raise InputError(f"threads {threads} is not in [1, {before}]", fix="see NUMBA_NUM_THREADS")
        numba.set_num_threads(threads)
        try:
            _screen_parallel(*arguments)
        finally:
            numba.set_num_threads(before)
        return out

    def run_plain(self, prices: ArrayLike, debt_prices: ArrayLike | None = None) -> ScreenResult:
        """Do the same as `run` in NumPy: slow, and what the kernels are compared with."""
        out = self._new_result()
        _screen_plain(*self._arguments(prices, debt_prices, out))
        return out

    def _new_result(self) -> ScreenResult:
        n = len(self)
        return ScreenResult(self.book_row, np.empty(n), np.empty(n, dtype=np.int8))

    def _arguments(
        self, prices: ArrayLike, debt_prices: ArrayLike | None, out: ScreenResult
    ) -> tuple[Any, ...]:
        collateral_price = self._prices(prices)
        debt_price = collateral_price if debt_prices is None else self._prices(debt_prices)
        unit_values = np.concatenate([self.raw_unit * collateral_price, self.raw_unit * debt_price])
        dearest_unit = float(np.nanmax(unit_values, initial=0.0))
        floor = self.steps * (self.value_step + dearest_unit)
        return (
            *(self.tasks, self.amount, self.asset, collateral_price, debt_price),
            *(self.bound, floor, out.health, out.status),
        )

    def _prices(self, prices: ArrayLike) -> Float64:
        array = np.array(prices, dtype=np.float64)
        if array.shape != (self.assets,):
            raise InputError(
                f"prices have shape {array.shape}, the book has {self.assets} assets",
                fix="pass one price an asset, NaN where it is unknown",
            )
        array[~((array >= _LEAST) & (array <= _GREATEST))] = np.nan
        return array


def build_screen(book: Book, rounding: Rounding) -> HealthScreen:
    """Lay out a book for screening.

    A row is unknown for good when its exact state is not known, when a position has a kind that is neither
    collateral nor debt, or when an amount or weight is not a finite number from zero up, or their product
    neither 0 by one of them nor from 1e-100 to 1e100.

    Parameters
    ----------
    book
        Where a protocol prices one asset differently for some accounts, that price needs an asset number of
        its own.
    rounding
        Of the protocol whose health factor is meant; the coarsest one for a book of several.

    Raises
    ------
    InputError
        If an asset number does not exist.
    """
    n, assets = len(book), len(book.assets)
    if book.asset.size and not 0 <= int(book.asset.min()) <= int(book.asset.max()) < assets:
        raise InputError(f"the book has asset numbers outside its {assets} assets")
    row = np.repeat(np.arange(n), np.diff(book.row_ptr))
    is_debt = book.kind == PositionKind.DEBT
    sound = is_debt | (book.kind == PositionKind.COLLATERAL)
    for values in (book.amount, book.weight):
        sound &= np.isfinite(values) & (values >= 0.0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        weighted = book.amount * book.weight
    in_range = (weighted >= _LEAST) & (weighted <= _GREATEST)
    sound &= in_range | (book.amount == 0.0) | (book.weight == 0.0)
    unknown = ~book.known
    unknown[row[~sound]] = True

    # An unknown row gets one debt that is not a number; nothing else of it counts.
    kept = ~unknown[row]
    lost = np.flatnonzero(unknown)
    row = np.concatenate([row[kept], lost])
    amount = np.concatenate([weighted[kept], np.full(len(lost), np.nan)])
    asset = np.concatenate([book.asset[kept], np.zeros(len(lost), dtype=book.asset.dtype)])
    is_debt = np.concatenate([is_debt[kept], np.ones(len(lost), dtype=np.bool_)])
    weight = np.concatenate([book.weight[kept], np.ones(len(lost))])

    debts = np.bincount(row[is_debt], minlength=n)
    collaterals = np.bincount(row[~is_debt], minlength=n)
    # Rows by shape and, within a shape, as in the book; positions by row, collaterals first.
    width = int(debts.max(initial=0)) + 1
    shape = collaterals * width + debts
    book_row = np.argsort(shape, kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[book_row] = np.arange(n)
    position = np.lexsort((is_debt, rank[row]))
    amount, asset, weight = amount[position], asset[position], weight[position]

    tasks: list[tuple[int, ...]] = []
    bound: list[float] = []
    steps: list[float] = []
    relative_error = 0.0
    columns = np.empty_like(amount)
    numbers = np.empty(len(asset), dtype=np.uint8 if assets <= 256 else np.uint32)
    start = 0
    shapes, first, count = np.unique(shape[book_row], return_index=True, return_counts=True)
    for group, (key, begin, rows) in enumerate(
        zip(shapes.tolist(), first.tolist(), count.tolist(), strict=True)
    ):
        n_collaterals, n_debts = divmod(key, width)
        slots = n_collaterals + n_debts
        end = start + rows * slots
        columns[start:end] = amount[start:end].reshape(rows, slots).T.ravel()
        numbers[start:end] = asset[start:end].reshape(rows, slots).T.ravel()
        weights = weight[start:end].reshape(rows, slots)
        group_bound, group_steps = _bounds(n_collaterals, n_debts, weights, rounding)
        bound.append(group_bound)
        steps.append(group_steps)
        roundings = slots + 2 * rounding.amount_roundings + 7
        relative_error = max(relative_error, error_factor(roundings))
        for at in range(0, rows, _BLOCK):
            block = min(_BLOCK, rows - at)
            tasks.append((start + at, rows, n_collaterals, n_debts, begin + at, block, group))
        start = end
    return HealthScreen(
        book_row=book_row,
        amount=columns,
        asset=numbers,
        assets=assets,
        tasks=_evenly_mixed(np.array(tasks, dtype=np.int64).reshape(-1, 7)),
        bound=np.array(bound),
        steps=np.array(steps),
        raw_unit=np.array([rounding.amount_units / 10**asset.decimals for asset in book.assets]),
        value_step=rounding.value_step,
        relative_error=relative_error,
    )


def _bounds(collaterals: int, debts: int, weights: Float64, rounding: Rounding) -> tuple[float, float]:
    """Return ``b`` and ``k`` of the module's text for rows with `weights`, shape (rows, collaterals + debts).

    A weight no larger than two rounding steps leaves nothing to rely on: everything is near then.
    """
    counting = weights[:, :collaterals]
    least = float(counting[counting > 0.0].min(initial=1.0))
    greatest = float(weights.max(initial=1.0))
    e = error_factor(collaterals + rounding.amount_roundings + 3) + rounding.weight_step / least
    f = error_factor(debts + rounding.amount_roundings + 3) + 1e-18
    if e >= 0.5:
        return np.inf, 0.0
    slack = 1.0 + 16.0 * UNIT_ROUNDOFF
    bound = (e + f) / (1.0 - e) * slack
    steps = ((collaterals + debts) * greatest + 2.0) / (1.0 - e) * slack
    return bound, steps


def _evenly_mixed(tasks: Int64) -> Int64:
    """Order tasks so that any contiguous share has about the same work, however many threads share them."""
    by_work = np.argsort(tasks[:, 5] * (tasks[:, 2] + tasks[:, 3]), kind="stable")
    golden = np.modf(np.arange(len(tasks)) * 0.6180339887498949)[0]
    return tasks[by_work[np.argsort(golden, kind="stable")]]
