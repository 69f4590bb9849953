"""Measure the margin kernels: option grid, worst-of, tail, and what moves when one underlying moves.

Baselines are what a user would write: NumPy with SciPy's normal distribution, SciPy's sparse product and a
minimum, BLAS and a partition. Contestants take turns within one run, on one thread unless said otherwise, and
results are compared before anything is timed. The share of the machine's multiply-add peak comes from a loop
of nothing else that takes its turn in the same run; the operations of a price are counted by hand.
"""

from __future__ import annotations

import os

# Before NumPy is imported: a second pool of threads would spoil the race.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from _common import Headline, Report, Summary, parser, race, ratios, run, table
from scipy.sparse import csr_array
from scipy.special import ndtr

from simulation.margin.tail import tail
from simulation.margin.worst_of import Holdings, holders, worst_of
from simulation.pricing.grid import OptionGrid, option_grid

OPTIONS = 200
FUSED_PER_PRICE = 62
"""Multiply-adds of one price, by hand: 13 of the exponential, 28 of the rationals; no divisions."""

NUMPY, OURS, PEAK = "NumPy and ndtr", "grid", "multiply-add peak"
SPARSE, FUSED, THREADS = "NumPy, SciPy CSR, minimum", "grid and worst-of", "the same, 4 threads"


@numba.njit(cache=True, fastmath={"contract"})
def multiply_adds(rounds: int) -> float:
    """Do 256 independent multiply-adds a round; returns something that depends on all of them."""
    values = np.ones(256)
    for _ in range(rounds):
        for j in range(256):
            x = values[j]
            for _ in range(16):
                x = x * 0.999999 + 1e-6
            values[j] = x
    return values.sum()


def made_options(rng: np.random.Generator, scenarios: int) -> OptionGrid:
    """Return 200 options over some expiries in scenarios from a half to double."""
    forward = rng.uniform(1_500, 2_500, OPTIONS)
    return option_grid(
        forward,
        forward * np.exp(rng.normal(0, 0.3, OPTIONS)),
        rng.uniform(0.3, 1.5, OPTIONS),
        rng.choice([1, 7, 30, 60, 90, 180, 365], OPTIONS) / 365,
        rng.random(OPTIONS) < 0.5,
        rng.uniform(0.5, 2, scenarios),
        rng.uniform(0.5, 1.8, scenarios),
    )


def numpy_prices(grid: OptionGrid) -> np.ndarray[Any, Any]:
    """Price the same grid the way a user would."""
    f = grid.forward[:, None] * grid.shock
    v = np.maximum(grid.volatility[:, None] * grid.multiplier[0] * grid.root_years[:, None], 1e-18)
    d1 = np.log(f / grid.strike[:, None]) / v + v / 2
    call = f * ndtr(d1) - grid.strike[:, None] * ndtr(d1 - v)
    return np.where(grid.call[:, None], call, call - f + grid.strike[:, None])


def made_holdings(rng: np.random.Generator, accounts: int, positions: int, instruments: int) -> Holdings:
    """Return accounts of so many positions each."""
    count = accounts * positions
    return Holdings(
        np.arange(accounts + 1) * positions,
        rng.integers(0, instruments, count).astype(np.int32),
        rng.normal(0, 1, count),
    )


def measure_grid(scenarios: int, turns: int, seconds: float, rng: np.random.Generator) -> dict[str, Any]:
    """Race the option grid against NumPy, and against the peak."""
    grid = made_options(rng, scenarios)
    out = np.empty((OPTIONS, scenarios))
    error = float(np.max(np.abs(grid.prices(out) - numpy_prices(grid)) / grid.forward[:, None]))
    if error > 5e-15:
        raise SystemExit(f"the grid is {error:.1e} of the forward from NumPy's prices")
    rounds = 200
    taken, _ = race(
        {
            NUMPY: lambda: numpy_prices(grid),
            OURS: lambda: grid.prices(out),
            PEAK: lambda: multiply_adds(rounds),
        },
        turns,
        seconds,
    )
    peak = [rounds * 256 * 16 / t for t in taken[PEAK]]
    rate = [OPTIONS * scenarios / t for t in taken[OURS]]
    return {
        "ratio": ratios(taken[NUMPY], taken[OURS]),
        "million_a_second": Summary.of(rate).scaled(1e-6),
        "share_of_peak": Summary.of([r * FUSED_PER_PRICE / p * 100 for r, p in zip(rate, peak, strict=True)]),
        "error_of_forward": error,
    }


def measure_worst(
    accounts: int, positions: int, scenarios: int, turns: int, seconds: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Race pricing and worst-of from end to end against NumPy and SciPy."""
    grid = made_options(rng, scenarios)
    holdings = made_holdings(rng, accounts, positions, OPTIONS)
    sparse = csr_array((holdings.quantity, holdings.instrument, holdings.start), shape=(accounts, OPTIONS))
    out = np.empty((OPTIONS, scenarios))
    # In slices: the product of all accounts at once would not fit a small machine's memory.
    step = 10_000

    def by_scipy() -> np.ndarray[Any, Any]:
        prices = numpy_prices(grid)
        return np.concatenate([(sparse[i : i + step] @ prices).min(axis=1) for i in range(0, accounts, step)])

    want, found = by_scipy(), worst_of(holdings, grid.prices(out)).profit
    if not np.allclose(want, found, rtol=1e-9, atol=1e-6):
        raise SystemExit("worst-of differs from SciPy's product")
    taken, _ = race(
        {
            SPARSE: by_scipy,
            FUSED: lambda: worst_of(holdings, grid.prices(out)),
            THREADS: lambda: worst_of(holdings, grid.prices(out), threads=4),
        },
        turns,
        seconds,
    )
    each = accounts * positions * scenarios
    return {
        "ratio": ratios(taken[SPARSE], taken[FUSED]),
        "ratio_threads": ratios(taken[SPARSE], taken[THREADS]),
        "billion_a_second": Summary.of([each / t / 1e9 for t in taken[FUSED]]),
    }


def measure_moved(
    accounts: int, scenarios: int, turns: int, seconds: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Race what one underlying of twenty moves against computing everybody again.

    An account holds ten positions of one or two underlyings, as most do: a tenth of them holds the one.
    """
    underlyings, each, positions = 20, 10, 10
    own = np.sort(rng.integers(0, underlyings, (accounts, 2)), axis=1)
    chosen = np.where(rng.random((accounts, positions)) < 0.5, own[:, :1], own[:, 1:])
    instrument = (chosen * each + rng.integers(0, each, (accounts, positions))).astype(np.int32).ravel()
    holdings = Holdings(
        np.arange(accounts + 1) * positions, instrument, rng.normal(0, 1, accounts * positions)
    )
    grid = rng.normal(0, 100, (underlyings * each, scenarios))
    known = worst_of(holdings, grid)
    moved = np.arange(underlyings * each) // each == 3
    after = grid.copy()
    after[moved] = rng.normal(0, 100, (each, scenarios))

    def incremental() -> Any:
        return worst_of(holdings, after, accounts=holders(holdings, moved), known=known)

    if not np.array_equal(incremental().profit, worst_of(holdings, after).profit):
        raise SystemExit("what moved differs from computing everybody again")
    taken, _ = race({"all": lambda: worst_of(holdings, after), "moved": incremental}, turns, seconds)
    return {
        "ratio": ratios(taken["all"], taken["moved"]),
        "holders": len(holders(holdings, moved)) / accounts,
    }


def measure_tail(
    count: int, portfolios: int, turns: int, seconds: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Race the tail against BLAS and a partition; the baseline takes some portfolios at a time."""
    returns = rng.standard_t(4, (count, 50)) * 0.01
    weights = rng.normal(0, 1, (portfolios, 50))
    least = int(count * 0.01 + 1e-9) + 1
    step = 20

    def by_blas() -> np.ndarray[Any, Any]:
        out = []
        for first in range(0, portfolios, step):
            profits = returns @ weights[first : first + step].T
            out.append(-np.partition(profits, least - 1, axis=0)[least - 1])
        return np.concatenate(out)

    want, found = by_blas(), tail(returns, weights, 0.99).value_at_risk
    if not np.allclose(want, found, rtol=1e-13, atol=0):
        raise SystemExit("the value at risk differs from that of the whole product")
    taken, _ = race({"blas": by_blas, "tail": lambda: tail(returns, weights, 0.99)}, min(turns, 3), seconds)
    return {
        "ratio": ratios(taken["blas"], taken["tail"]),
        "seconds_per_1000": Summary.of([t / portfolios * 1_000 for t in taken["tail"]]),
        "equal_bits": bool(np.array_equal(want, found)),
        "scenarios": count,
        "portfolios": portfolios,
    }


def measure(given: Any) -> Report:
    """Race all kernels."""
    rng = np.random.default_rng(given.seed)
    grid = measure_grid(given.scenarios, given.turns, given.seconds, rng)
    worst = measure_worst(given.accounts, 20, given.scenarios, min(given.turns, 5), given.seconds, rng)
    moved = measure_moved(given.accounts, 125, given.turns, given.seconds, rng)
    low = measure_tail(given.draws, given.portfolios, given.turns, given.seconds, rng)
    size = f"{given.accounts:,} accounts x 20 positions x {given.scenarios:,} scenarios"
    shown = table("margin kernels", "", "ratio", "rate")
    shown.add_row("option grid", grid["ratio"].text(), f"{grid['million_a_second'].text()} M prices / s")
    shown.add_row(
        "worst-of", worst["ratio"].text(), f"{worst['billion_a_second'].text()} G positions x s / s"
    )
    shown.add_row("tail", low["ratio"].text(), f"{low['seconds_per_1000'].text()} s per 1,000 portfolios")
    figures = {
        name: {k: asdict(v) if isinstance(v, Summary) else v for k, v in part.items()}
        for name, part in (("grid", grid), ("worst", worst), ("moved", moved), ("tail", low))
    }
    return Report(
        (
            Headline(
                f"{OPTIONS} options x {given.scenarios:,} scenarios, against {NUMPY}",
                grid["ratio"],
                "x",
                at_least=5,
                note=f"{grid['million_a_second'].text()} million prices a second",
            ),
            Headline("its share of the multiply-add peak", grid["share_of_peak"], "%", at_least=20),
            Headline(f"{size}, against {SPARSE}", worst["ratio"], "x", at_least=1.9),
            Headline("the same on 4 threads", worst["ratio_threads"], "x", note="the baseline has one"),
            Headline(
                "one underlying of twenty moves, against computing everybody again",
                moved["ratio"],
                "x",
                at_least=5,
                note=f"{moved['holders']:.1%} of the accounts hold it",
            ),
            Headline(
                f"VaR and ES of {low['portfolios']:,} portfolios, {low['scenarios']:,} scenarios, 50 assets, "
                "against BLAS and a partition",
                low["ratio"],
                "x",
                at_least=8,
                note=f"value at risk equal {'bit by bit' if low['equal_bits'] else 'to 1e-13'}",
            ),
        ),
        figures,
        (shown,),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--accounts", type=int, default=100_000)
    options.add_argument("--scenarios", type=int, default=1_000)
    options.add_argument("--draws", type=int, default=1_000_000, help="scenarios of the tail")
    options.add_argument("--portfolios", type=int, default=1_000, help="portfolios of the tail")
    options.add_argument("--seconds", type=float, default=0.3, help="length of one turn")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    if given.quick:
        given.accounts, given.scenarios, given.draws, given.portfolios = 500, 100, 20_000, 20
        given.turns, given.seconds = 1, 0.0
    run("margin", lambda: measure(given), given.json)


if __name__ == "__main__":
    main()
