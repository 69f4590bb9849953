"""Measure the health screen: against SciPy's sparse product, and against exact integers one by one.

Every figure is a ratio within one run: the contestants take turns, each turn lasts a fraction of a second,
and the table shows the median of the ratios of all turns with their range. During the turns with several
threads the share of the machine that other processes left free is measured as well.

Two sparse matrices are raced: rows in the order of the book, as a user would build it, and rows sorted by
shape, which spares SciPy's inner loop its branch misses; that one shows what the layout gives beyond sorting.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from _common import Headline, Report, Summary, parser, race, ratios, run, table
from rich.table import Table
from scipy.sparse import csr_array

from simulation.fixed_point import WAD, percent_mul, wad_div
from simulation.screen import AAVE_V3_0, HealthScreen, ScreenStatus, build_screen
from simulation.types import Asset, Book, Float64, PositionKind

ASSETS = 40
MAX_COLLATERALS, MAX_DEBTS = 8, 4
UNIT = 10**18

CSR, SORTED, SCREEN, EXACT = "SciPy CSR", "SciPy CSR, rows sorted", "screen", "exact integers"


class NotNone:
    """Stands for the exact states of a synthetic book: as many as asked for, none of them missing."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return index


def synthetic_book(accounts: int, rng: np.random.Generator) -> Book:
    """Return accounts with 1 to 8 collaterals and 1 to 4 debts over 40 assets, most of them healthy."""
    collaterals = rng.integers(1, MAX_COLLATERALS + 1, accounts)
    debts = rng.integers(1, MAX_DEBTS + 1, accounts)
    row_ptr = np.concatenate([[0], np.cumsum(collaterals + debts)])
    nnz = int(row_ptr[-1])
    row = np.repeat(np.arange(accounts), collaterals + debts)
    is_debt = np.arange(nnz) - row_ptr[row] >= collaterals[row]
    amount = rng.lognormal(8.0, 1.0, nnz) / np.where(is_debt, 2.5 * debts[row], collaterals[row])
    weight = np.where(is_debt, 1.0, rng.integers(7_000, 9_000, nnz) / 10_000)
    return Book(
        accounts=NotNone(accounts),  # type: ignore[arg-type] # only its length is looked at
        protocols=("synthetic",),
        assets=tuple(Asset(f"A{i}", "", 18) for i in range(ASSETS)),
        protocol=np.zeros(accounts, dtype=np.int32),
        row_ptr=row_ptr.astype(np.int64),
        asset=rng.integers(0, ASSETS, nnz).astype(np.int32),
        kind=np.where(is_debt, PositionKind.DEBT, PositionKind.COLLATERAL).astype(np.int8),
        amount=amount,
        weight=weight,
        block=0,
        timestamp=0,
        exact=NotNone(accounts),  # type: ignore[arg-type] # as above
        known=np.ones(accounts, dtype=np.bool_),
    )


def matrices(book: Book, order: np.ndarray[Any, Any] | None = None) -> tuple[Any, Any]:
    """Return collaterals (weighted) and debts as accounts x assets matrices, rows in `order`."""
    row = np.repeat(np.arange(len(book)), np.diff(book.row_ptr))
    pair = []
    for kind in (PositionKind.COLLATERAL, PositionKind.DEBT):
        chosen = book.kind == kind
        counts = np.bincount(row[chosen], minlength=len(book))
        pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        data = book.amount[chosen] * book.weight[chosen]
        matrix = csr_array((data, book.asset[chosen], pointers), shape=(len(book), ASSETS))
        pair.append(matrix if order is None else matrix[order])
    return pair[0], pair[1]


def exact_accounts(book: Book) -> list[tuple[list[tuple[int, int, int]], list[tuple[int, int]]]]:
    """Return each account in integers: (asset, raw, threshold) of collaterals, (asset, raw) of debts."""
    accounts = []
    raw = [int(a * UNIT) for a in book.amount.tolist()]
    bps = np.rint(book.weight * 10_000).astype(int).tolist()
    asset, kind, pointers = book.asset.tolist(), book.kind.tolist(), book.row_ptr.tolist()
    for start, end in itertools.pairwise(pointers):
        held = [(asset[p], raw[p], bps[p]) for p in range(start, end) if kind[p] == PositionKind.COLLATERAL]
        owed = [(asset[p], raw[p]) for p in range(start, end) if kind[p] == PositionKind.DEBT]
        accounts.append((held, owed))
    return accounts


def exact_health_factors(accounts: list[Any], prices_e8: list[int]) -> list[int]:
    """Return health factors at 1e18 as Aave V3.0 computes them, with nothing else in the loop."""
    factors = []
    for held, owed in accounts:
        total = weighted = debt = 0
        for asset, raw, threshold_bps in held:
            value = raw * prices_e8[asset] // UNIT
            total += value
            weighted += value * threshold_bps
        for asset, raw in owed:
            debt += raw * prices_e8[asset] // UNIT
        factors.append(wad_div(percent_mul(total, weighted // total), debt))
    return factors


def check(screen: HealthScreen, prices: Float64, collateral: Any, debt: Any) -> None:
    """Fail loudly unless screen and sparse product agree: a fast wrong answer is not a result."""
    health, _ = screen.run(prices).by_row()
    np.testing.assert_allclose(health, (collateral @ prices) / (debt @ prices), rtol=1e-13)


def measure(accounts: int, exact: int, threads: int, turns: int, seconds: float, seed: int) -> Report:
    """Run the races and return everything that the report shows."""
    rng = np.random.default_rng(seed)
    book = synthetic_book(accounts, rng)
    prices_e8 = rng.integers(10**6, 10**12, ASSETS).tolist()
    # Prices of one order of magnitude keep health factors near 1, as in a real book.
    prices_e8 = [10**8 + p // 10**4 for p in prices_e8]
    prices = np.array(prices_e8) / 10**8

    start = time.perf_counter()
    screen = build_screen(book, AAVE_V3_0)
    build_s = time.perf_counter() - start
    as_is, sorted_ = matrices(book), matrices(book, screen.book_row)
    check(screen, prices, *as_is)
    out, out_parallel = screen.run(prices), screen.run(prices)
    contestants: dict[str, Callable[[], object]] = {
        CSR: lambda: (as_is[0] @ prices) / (as_is[1] @ prices),
        SORTED: lambda: (sorted_[0] @ prices) / (sorted_[1] @ prices),
        SCREEN: lambda: screen.run(prices, out=out),
    }
    parallel = f"{SCREEN}, {threads} threads"
    if threads > 1:
        contestants[parallel] = lambda: screen.run(prices, threads=threads, out=out_parallel)
    taken, free = race(contestants, turns, seconds)
    milliseconds = {name: Summary.of(times).scaled(1e3) for name, times in taken.items()}
    against = {
        (name, baseline): ratios(taken[baseline], taken[name])
        for name in list(contestants)[2:]
        for baseline in (CSR, SORTED)
    }
    bytes_per_second = (screen.amount.nbytes + screen.asset.nbytes + 9 * accounts) / statistics.median(
        taken[SCREEN]
    )
    figures: dict[str, Any] = {
        "accounts": accounts,
        "positions": int(book.row_ptr[-1]),
        "seed": seed,
        "turns": turns,
        "cores": os.cpu_count(),
        "threads": threads,
        "build_seconds": build_s,
        "relative_error": screen.relative_error,
        "statuses": {s.name.lower(): int((out.status == s).sum()) for s in ScreenStatus},
        "milliseconds": {name: asdict(summary) for name, summary in milliseconds.items()},
        "bytes_per_second": bytes_per_second,
        "ratios": {f"{name} against {base}": asdict(ratio) for (name, base), ratio in against.items()},
    }
    headlines = [
        Headline(
            f"health screen of {accounts:,} accounts against SciPy CSR, one thread",
            against[SCREEN, CSR],
            "x",
            at_least=1.4,
        )
    ]
    notes = [
        f"statuses {figures['statuses']}; layout built in {build_s:.2f} s; "
        f"one thread reads {bytes_per_second / 1e9:.1f} GB/s"
    ]
    if threads > 1:
        idle = Summary.of(free[parallel]) if free[parallel] else None
        if idle is not None:
            figures["free_cores"] = asdict(idle)
            notes.append(f"free cores during the turns with {threads} threads: {idle.text(1)}")
            each = [c / p / f for c, p, f in zip(taken[CSR], taken[parallel], free[parallel], strict=True)]
            headlines.append(
                Headline(
                    f"the same on {threads} threads, by each core that was free",
                    Summary.of(each),
                    "x",
                    at_least=1,
                    note=f"{against[parallel, CSR].text()} x with {idle.text(1)} free cores",
                )
            )
    exactly, near, shown = measure_exact(exact, prices_e8, turns, seconds, rng)
    figures["exact"] = {"accounts": exact, "near": near, **exactly}
    headlines.append(
        Headline(
            f"screen of {exact:,} accounts against exact Python integers, one by one",
            Summary(**exactly["ratio"]),
            "x",
            at_least=100,
            note=f"{near} of them need exact integers afterwards",
        )
    )
    raced = table(
        f"{accounts:,} accounts, {figures['positions']:,} positions", "", "ms", f"x {CSR}", "x sorted"
    )
    for name, summary in milliseconds.items():
        rows = [against[name, b].text(2) if (name, b) in against else "" for b in (CSR, SORTED)]
        raced.add_row(name, summary.text(2), *rows)
    return Report(tuple(headlines), figures, (raced, shown, *notes))


def measure_exact(
    accounts: int, prices_e8: list[int], turns: int, seconds: float, rng: np.random.Generator
) -> tuple[dict[str, Any], int, Table]:
    """Race the screen against exact integers; returns figures, accounts near the threshold, and a table."""
    prices = np.array(prices_e8) / 10**8
    book = synthetic_book(accounts, rng)
    screen = build_screen(book, AAVE_V3_0)
    integers = exact_accounts(book)
    out = screen.run(prices)
    factors = exact_health_factors(integers, prices_e8)
    health, status = out.by_row()
    wrong = [
        i
        for i, factor in enumerate(factors)
        if (status[i] == ScreenStatus.HEALTHY and factor < WAD)
        or (status[i] == ScreenStatus.LIQUIDATABLE and factor >= WAD)
    ]
    if wrong:
        raise SystemExit(f"the screen is certain and wrong for account {wrong[0]}: {health[wrong[0]]}")
    taken, _ = race(
        {
            EXACT: lambda: exact_health_factors(integers, prices_e8),
            SCREEN: lambda: screen.run(prices, out=out),
        },
        turns,
        seconds,
    )
    ratio = ratios(taken[EXACT], taken[SCREEN])
    milliseconds = {name: Summary.of(times).scaled(1e3) for name, times in taken.items()}
    shown = table(f"{accounts:,} accounts against exact integers, one by one", "", "ms", "ratio")
    for name, summary in milliseconds.items():
        shown.add_row(name, summary.text(3), f"{ratio.text(0)} x" if name == SCREEN else "")
    figures = {
        "milliseconds": {name: asdict(summary) for name, summary in milliseconds.items()},
        "ratio": asdict(ratio),
    }
    return figures, int((status == ScreenStatus.NEAR).sum()), shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--accounts", type=int, default=1_000_000, help="size of the large book")
    options.add_argument("--exact", type=int, default=100_000, help="accounts raced against exact integers")
    options.add_argument("--threads", type=int, default=4)
    options.add_argument("--seconds", type=float, default=0.3, help="length of one turn")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    given.threads = min(given.threads, numba.get_num_threads())
    if given.quick:
        given.accounts, given.exact, given.turns, given.seconds = 2_000, 500, 1, 0.0
    run(
        "screen",
        lambda: measure(given.accounts, given.exact, given.threads, given.turns, given.seconds, given.seed),
        given.json,
    )


if __name__ == "__main__":
    main()
