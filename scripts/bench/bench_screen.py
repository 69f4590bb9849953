"""Measure the health screen: against SciPy's sparse product, and against exact integers one by one.

Every figure is a ratio within one run: the contestants take turns, each turn lasts a fraction of a second,
and the table shows the median of the ratios of all turns with their range. During the turns with several
threads the share of the machine that other processes left free is measured as well.

Two sparse matrices are raced: rows in the order of the book, as a user would build it, and rows sorted by
shape, which spares SciPy's inner loop its branch misses; that one shows what the layout gives beyond sorting.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_array

from simulation.fixed_point import WAD, percent_mul, wad_div
from simulation.screen import AAVE_V3_0, HealthScreen, ScreenStatus, build_screen
from simulation.types import Asset, Book, Float64, PositionKind

ASSETS = 40
MAX_COLLATERALS, MAX_DEBTS = 8, 4
UNIT = 10**18


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


def busy_jiffies() -> int | None:
    """Return the machine's busy time so far in clock ticks, None where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    ticks = [int(f) for f in fields]
    return sum(ticks[:8]) - ticks[3] - ticks[4]


def turn(work: Callable[[], object], seconds: float) -> tuple[float, float | None]:
    """Run `work` for about `seconds`; returns seconds per run and the cores that others left free."""
    busy, cpu, start = busy_jiffies(), time.process_time(), time.perf_counter()
    runs = 0
    while True:
        work()
        runs += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            break
    after = busy_jiffies()
    free = None
    if busy is not None and after is not None:
        others = (after - busy) / os.sysconf("SC_CLK_TCK") - (time.process_time() - cpu)
        free = (os.cpu_count() or 1) - max(0.0, others / elapsed)
    return elapsed / runs, free


def race(
    contestants: Mapping[str, Callable[[], object]], turns: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Let the contestants take turns; returns seconds per run and free cores, by contestant and turn."""
    for work in contestants.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    free: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, work in contestants.items():
            each, cores = turn(work, seconds)
            taken[name].append(each)
            if cores is not None:
                free[name].append(cores)
    return taken, free


def summary(values: list[float]) -> dict[str, float]:
    """Return median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(taken: Mapping[str, list[float]], baseline: str, name: str) -> dict[str, float]:
    """Return how many times faster `name` was than `baseline`, turn by turn."""
    return summary([b / t for b, t in zip(taken[baseline], taken[name], strict=True)])


def check(screen: HealthScreen, prices: Float64, collateral: Any, debt: Any) -> None:
    """Fail loudly unless screen and sparse product agree: a fast wrong answer is not a result."""
    health, _ = screen.run(prices).by_row()
    np.testing.assert_allclose(health, (collateral @ prices) / (debt @ prices), rtol=1e-13)


def measure(accounts: int, exact: int, threads: int, turns: int, seconds: float, seed: int) -> dict[str, Any]:
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
        "SciPy CSR": lambda: (as_is[0] @ prices) / (as_is[1] @ prices),
        "SciPy CSR, rows sorted": lambda: (sorted_[0] @ prices) / (sorted_[1] @ prices),
        "screen": lambda: screen.run(prices, out=out),
    }
    parallel = f"screen, {threads} threads"
    if threads > 1:
        contestants[parallel] = lambda: screen.run(prices, threads=threads, out=out_parallel)
    taken, free = race(contestants, turns, seconds)
    result: dict[str, Any] = {
        "accounts": accounts,
        "positions": int(book.row_ptr[-1]),
        "seed": seed,
        "turns": turns,
        "cores": os.cpu_count(),
        "threads": threads,
        "build_seconds": build_s,
        "relative_error": screen.relative_error,
        "statuses": {s.name.lower(): int((out.status == s).sum()) for s in ScreenStatus},
        "milliseconds": {name: summary([1e3 * t for t in times]) for name, times in taken.items()},
        "bytes_per_second": (screen.amount.nbytes + screen.asset.nbytes + 9 * accounts)
        / statistics.median(taken["screen"]),
        "ratios": {
            f"{name} against {baseline}": ratios(taken, baseline, name)
            for name in list(contestants)[2:]
            for baseline in list(contestants)[:2]
        },
    }
    if threads > 1 and free[parallel]:
        result["free_cores"] = summary(free[parallel])

    small = synthetic_book(exact, rng)
    small_screen = build_screen(small, AAVE_V3_0)
    integers = exact_accounts(small)
    small_out = small_screen.run(prices)
    factors = exact_health_factors(integers, prices_e8)
    health, status = small_out.by_row()
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
            "exact integers": lambda: exact_health_factors(integers, prices_e8),
            "screen": lambda: small_screen.run(prices, out=small_out),
        },
        turns,
        seconds,
    )
    result["exact"] = {
        "accounts": exact,
        "milliseconds": {name: summary([1e3 * t for t in times]) for name, times in taken.items()},
        "ratio": ratios(taken, "exact integers", "screen"),
        "near": int((status == ScreenStatus.NEAR).sum()),
    }
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print the result as tables."""

    def cells(values: Mapping[str, float], digits: int) -> str:
        return f"{values['median']:.{digits}f} ({values['min']:.{digits}f}-{values['max']:.{digits}f})"

    console = Console(width=max(100, Console().width))
    table = Table(title=f"{result['accounts']:,} accounts, {result['positions']:,} positions")
    for column in ("", "ms", "x SciPy CSR", "x CSR, rows sorted"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, values in result["milliseconds"].items():
        against = [
            result["ratios"].get(f"{name} against {baseline}")
            for baseline in ("SciPy CSR", "SciPy CSR, rows sorted")
        ]
        table.add_row(name, cells(values, 2), *(cells(a, 2) if a else "" for a in against))
    console.print(table)
    exact = result["exact"]
    table = Table(title=f"{exact['accounts']:,} accounts against exact integers, one by one")
    for column in ("", "ms", "ratio"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, values in exact["milliseconds"].items():
        table.add_row(name, cells(values, 3), f"{cells(exact['ratio'], 0)} x" if name == "screen" else "")
    console.print(table)
    console.print(
        f"statuses {result['statuses']}; {exact['near']} of {exact['accounts']:,} need exact integers; "
        f"layout built in {result['build_seconds']:.2f} s; "
        f"one thread reads {result['bytes_per_second'] / 1e9:.1f} GB/s"
    )
    if "free_cores" in result:
        console.print(
            f"free cores during the turns with {result['threads']} threads: "
            f"{cells(result['free_cores'], 1)} of {result['cores']}"
        )


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=1_000_000, help="size of the large book")
    parser.add_argument("--exact", type=int, default=100_000, help="accounts raced against exact integers")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    result = measure(
        arguments.accounts,
        arguments.exact,
        arguments.threads,
        arguments.turns,
        arguments.seconds,
        arguments.seed,
    )
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
