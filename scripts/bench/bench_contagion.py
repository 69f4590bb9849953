"""Measure the contagion engine: its step against NumPy's, pruning, a sweep, real bytecode, and memory.

Contestants take turns within one run and have to come to the same results before a figure counts.
Account-steps are accounts times steps times paths, whatever was pruned. They count model work: rows of floats
under a protocol's rules, screened at every step. A call of real bytecode does other work, and is measured
against the rate of the EVM itself instead.

The memory that a step has to read bounds how fast a full scan can be: a triad over arrays that no cache holds
is measured in the same turns, and the share of its bandwidth that the rows of the book take is shown.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
from _common import Headline, Report, Summary, busy_jiffies, parser, race, ratios, run, table
from bench_sweep import own_cpu
from rich.table import Table

from contracts_abi import aave_v3
from keeper.commands.simulate import TASK
from keeper.sweeps.run import sweep
from simulation.backtest.plan import make_plan
from simulation.book.dump import save_book
from simulation.book.generate import BookSpec, generate
from simulation.book.types import LendingColumns, LendingVenue, RateCurve, Reserve, SharedBook, Side, Token
from simulation.chain.evm import ZERO_ADDRESS
from simulation.chain.fidelity.pools import account_address, open_pools
from simulation.chain.revm import GAS_LIMIT, RevmEvm
from simulation.contagion.batch import YEAR_S
from simulation.contagion.channels import channels
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.scenario import build_scenario, full_table
from simulation.contagion.settle import HALVINGS
from simulation.contagion.state import Total
from simulation.contagion.sweep import FOLDER
from simulation.contagion.world import BPS, World, build_world
from simulation.types import Float64, Int64

ENGINE, LAZY = "engine, every row looked at", "engine as it runs, pruned"
DENSE, GATHER = "NumPy, matrix times vector", "NumPy, gathers of slots"
FULL, PRUNED = "every row", "pruned"

PRICES: Final = np.array([2_000.0, 60_000.0, 15.0, 150.0, 30.0, 5.0, 1.0, 1.0])
THRESHOLDS: Final = np.array([0.83, 0.78, 0.7, 0.7, 0.65, 0.6, 0.77, 0.75])
BONUS_BPS: Final = (500, 550, 700, 750, 800, 1_000, 450, 470)
VOLATILITY: Final = np.array([1.0] * 6 + [0.02] * 2) * 0.0025
"""Of a step, as in a crash; a calm path has 0.3 times these returns."""
DRIFT: Final = np.array([-1.0] * 6 + [0.0] * 2) * 0.0003
PER_DOLLAR: Final = 1e-10
CURVE: Final = RateCurve(0.8, 0.0, 0.04, 0.75)
DT_S: Final = 60.0
SLOTS: Final = 2


# ------------------------------------------------------------------------------------------- book and prices


def wide_book(accounts: int, seed: int) -> SharedBook:
    """Return accounts in one pool of eight tokens, one or two collaterals and one or two debts each."""
    rng = np.random.default_rng(seed)
    tokens = len(PRICES)
    chosen = rng.permuted(np.tile(np.arange(tokens, dtype=np.int32), (accounts, 1)), axis=1)
    held_in, owed_in = chosen[:, :SLOTS], chosen[:, SLOTS : 2 * SLOTS]

    def shares() -> Float64:
        first = np.where(rng.random(accounts) < 0.5, 1.0, rng.uniform(0.2, 0.8, accounts))
        return np.stack([first, 1.0 - first], axis=1)

    held, owed = shares(), shares()
    debt_usd = rng.lognormal(8.5, 1.2, accounts)
    health = 1.0 + rng.gamma(2.0, 0.175, accounts)
    size = debt_usd * health / (held * THRESHOLDS[held_in]).sum(axis=1)
    held *= size[:, None] / PRICES[held_in]
    owed *= debt_usd[:, None] / PRICES[owed_in]
    amount, token = np.concatenate([held.ravel(), owed.ravel()]), np.concatenate([held_in, owed_in]).ravel()
    side = np.repeat(np.array([Side.COLLATERAL, Side.DEBT], dtype=np.int8), accounts * SLOTS)
    wallet = np.tile(np.repeat(np.arange(accounts, dtype=np.int32), SLOTS), 2)
    there = amount > 0.0
    lent = np.bincount(owed_in.ravel(), owed.ravel(), tokens)
    symbols = [f"T{i}" for i in range(tokens)]
    reserves = tuple(
        Reserve(
            symbol,
            round(THRESHOLDS[i] * BPS) - 300,
            round(THRESHOLDS[i] * BPS),
            BONUS_BPS[i],
            CURVE,
            reserve_factor_bps=1_000,
            idle_supply=float(lent[i] * 1.5),
        )
        for i, symbol in enumerate(symbols)
    )
    return SharedBook(
        tokens=tuple(Token(s, 18, float(p)) for s, p in zip(symbols, PRICES, strict=True)),
        lending=(LendingVenue("pool", "aave-v3", reserves),),
        wallets=tuple(f"w{i}" for i in range(accounts)),
        positions=LendingColumns(
            wallet=wallet[there],
            venue=np.zeros(there.sum(), dtype=np.int32),
            token=token[there],
            side=side[there],
            amount=amount[there],
            emode=np.zeros(there.sum(), dtype=np.int32),
        ),
    )


@dataclass(frozen=True, slots=True)
class Given:
    """Prices that were drawn before, shape (paths, steps + 1, tokens)."""

    assets: tuple[str, ...]
    prices: Float64

    def paths(self, seeds: Sequence[Any], steps: int, dt_s: float) -> Float64:
        """Return them; see `PriceProcess`."""
        return self.prices[: len(seeds), : steps + 1]


def drawn(paths: int, steps: int, part: float, seed: int) -> Float64:
    """Return paths whose log returns are `part` of a crash's, with a common factor."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(paths, steps, 1))
    own = rng.normal(size=(paths, steps, len(PRICES)))
    moves = DRIFT + VOLATILITY * (np.sqrt(0.7) * common + np.sqrt(0.3) * own)
    logs = np.concatenate([np.zeros((paths, 1, len(PRICES))), np.cumsum(part * moves, axis=1)], axis=1)
    return PRICES * np.exp(logs)


def engine_run(world: World, prices: Float64, *, prune: bool) -> PathResults:
    """Run the engine over prices: interest, keepers, impact."""
    impact = {t: {"model": "linear", "per_dollar": PER_DOLLAR} for t in world.tokens}
    acting: list[dict[str, Any]] = [
        {"kind": "interest"},
        {"kind": "keepers", "prune": prune},
        {"kind": "impact", "tokens": impact},
    ]
    planned = Run(
        world=world,
        prices=Given(world.tokens, prices),
        channels=tuple(channels.build(one) for one in acting),
        steps=prices.shape[1] - 1,
        dt_s=DT_S,
    )
    return run_paths(planned, 1, 0, len(prices))


# --------------------------------------------------------------------------------------------- the NumPy form


@dataclass(frozen=True, slots=True)
class Came:
    """What a path came to: liquidations, US dollars repaid and seized, bad debt, prices at the end."""

    liquidations: int
    repaid: float
    seized: float
    bad: float
    prices: Float64


class NumpyForm:
    """The same step in NumPy, for one path at a time.

    All liquidations of a step are chosen at once, where the engine goes from one to the next, and only what
    is nearly a tie is looked at again. That is less work, and the same amounts as long as a step trades less
    of each token than the first point of the table that the engine's keepers read losses from: up to there
    losses are in proportion.

    Parameters
    ----------
    world
        One venue of Aave V3, without fees.
    dense
        Screen by two products of a matrix and a vector; otherwise by gathers over the slots.
    """

    def __init__(self, world: World, *, dense: bool) -> None:
        self.w, self.dense = world, dense
        rows, tokens = world.rows, len(world.tokens)
        self.coll, self.debt = world.coll.copy(), world.debt.copy()
        self.at_c, self.at_d = world.coll_at.astype(np.intp), world.debt_at.astype(np.intp)
        self.every = np.arange(rows)
        self.weighted, self.owed = np.zeros((rows, tokens)), np.zeros((rows, tokens))
        for k in range(world.coll.shape[1]):
            self.weighted[self.every, self.at_c[:, k]] += self.coll[:, k] * world.lt[:, k]
        for k in range(world.debt.shape[1]):
            self.owed[self.every, self.at_d[:, k]] += self.debt[:, k]
        # Slots stand in columns of their own: NumPy runs over one at a time.
        self.c_at = [np.ascontiguousarray(self.at_c[:, k]) for k in range(SLOTS)]
        self.d_at = [np.ascontiguousarray(self.at_d[:, k]) for k in range(SLOTS)]
        self.c_by = [np.ascontiguousarray(self.coll[:, k] * world.lt[:, k]) for k in range(SLOTS)]
        self.d_by = [np.ascontiguousarray(self.debt[:, k]) for k in range(SLOTS)]
        self.have, self.owe, self.buffer = np.empty(rows), np.empty(rows), np.empty(rows)
        used = world.lt[world.coll > 0.0]
        self.further = 1.0 / (1.0 - 1.0 / BPS / float(used.min())) / (1.0 - 1e-9)
        self.borrowed = np.bincount(self.at_d.ravel(), self.debt.ravel(), tokens)
        self.supplied = np.bincount(self.at_c.ravel(), self.coll.ravel(), tokens)
        self.cash = world.cash.copy()
        self.si, self.bi = np.ones(tokens), np.ones(tokens)
        self.liquidations, self.repaid, self.seized = 0, 0.0, 0.0

    def over(self, exogenous: Float64) -> Came:
        """Run one path, shape (steps + 1, tokens)."""
        displaced = np.zeros(exogenous.shape[1])
        price = exogenous[0]
        for outside in exogenous[1:]:
            price = outside * np.exp(displaced)
            self.accrue()
            flow = self.liquidate(price)
            displaced += PER_DOLLAR * flow
            price = outside * np.exp(displaced)
        have = (self.coll * (price * self.si)[self.at_c]).sum(axis=1)
        owe = (self.debt * (price * self.bi)[self.at_d]).sum(axis=1)
        bad = float(np.maximum(owe - have, 0.0).sum())
        return Came(self.liquidations, self.repaid, self.seized, bad, price)

    def accrue(self) -> None:
        """Let interest of one step accrue."""
        r = self.w.reserves
        debt = self.borrowed * self.bi
        u = debt / (self.cash + debt)
        rate = r.base + r.slope1 * np.minimum(u, r.optimal) / r.optimal
        rate += r.slope2 * np.maximum(u - r.optimal, 0.0) / (1.0 - r.optimal)
        grown = np.exp(rate * (DT_S / YEAR_S))
        claims = (self.supplied + r.idle) * self.si
        self.bi *= grown
        self.si *= 1.0 + debt * (grown - 1.0) * (1.0 - r.reserve_factor) / claims

    def screened(self, coll_price: Float64, debt_price: Float64) -> Int64:
        """Return the rows that may be below 1."""
        have, owe, buffer = self.have, self.owe, self.buffer
        if self.dense:
            np.dot(self.weighted, coll_price, out=have)
            np.dot(self.owed, debt_price, out=owe)
        else:
            for out, by, at, price in (
                (have, self.c_by, self.c_at, coll_price),
                (owe, self.d_by, self.d_at, debt_price),
            ):
                np.take(price, at[0], out=out, mode="clip")
                out *= by[0]
                for k in range(1, SLOTS):
                    np.take(price, at[k], out=buffer, mode="clip")
                    np.multiply(buffer, by[k], out=buffer)
                    np.add(out, buffer, out=out)
        owe *= self.further
        return np.flatnonzero(have < owe)

    def liquidate(self, price: Float64) -> Float64:
        """Liquidate what is below 1 and pays; return US dollars bought less sold of each token."""
        w, flow = self.w, np.zeros(len(price))
        pc, pd = price * self.si, price * self.bi
        rows = self.screened(pc, pd)
        if not len(rows):
            return flow
        at_c, at_d = self.at_c[rows], self.at_d[rows]
        worth, due = self.coll[rows] * pc[at_c], self.debt[rows] * pd[at_d]
        value, owe = worth.sum(axis=1), due.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            average = (worth * w.lt[rows]).sum(axis=1) / value * BPS
            health = value * np.floor(average + 1e-6) / BPS / owe
        chosen = (health < 1.0) & (value > 0.0)
        rows, at_c, at_d, health = rows[chosen], at_c[chosen], at_d[chosen], health[chosen]
        if not len(rows):
            return flow
        # All pairs and sizes of all rows: shape (rows, debts, collaterals, sizes).
        held = (self.coll[rows] * self.si[at_c])[:, None, :, None]
        owed = (self.debt[rows] * self.bi[at_d])[:, :, None, None]
        pa, pb = price[at_c][:, None, :, None], price[at_d][:, :, None, None]
        grossed = (1.0 + w.bonus[rows])[:, None, :, None]
        most = np.where(health[:, None, None, None] <= 0.95, owed, owed * 0.5)
        offer = most * 0.5 ** np.arange(HALVINGS)
        taken = np.minimum(offer * pb / pa * grossed, held)
        with np.errstate(divide="ignore"):
            repaid = np.where(taken >= held, np.minimum(offer, held * pa / (pb * grossed)), offer)
        gets, pays = taken * pa, repaid * pb
        slope = self.lost_part(price)
        lost_a, lost_b = slope[at_c][:, None, :, None] * gets, slope[at_d][:, :, None, None] * pays
        profit = np.where((held > 0.0) & (owed > 0.0), gets - pays - lost_a - lost_b, -np.inf)
        shape = profit.shape[1:]
        lost = np.broadcast_to(lost_a + lost_b, profit.shape).reshape(len(rows), -1)
        profit = profit.reshape(len(rows), -1)
        best = profit.argmax(axis=1)
        self.decide_ties(
            best, profit, lost, shape, slope, at_c, at_d, gets, np.broadcast_to(pays, gets.shape)
        )
        paying = profit[np.arange(len(rows)), best] >= 0.0
        pick = best[paying]
        rows, at_c, at_d = rows[paying], at_c[paying], at_d[paying]
        repaid = repaid.reshape(len(paying), -1)[paying, pick]
        taken = np.broadcast_to(taken, (len(paying), *shape)).reshape(len(paying), -1)[paying, pick]
        d, c, _ = np.unravel_index(pick, shape)
        each = np.arange(len(rows))
        ra, rb = at_c[each, c], at_d[each, d]
        self.book(rows, c, d, ra, rb, taken / self.si[ra], repaid / self.bi[rb])
        np.add.at(self.cash, rb, repaid)
        np.add.at(self.cash, ra, -taken)
        if (self.cash < 0.0).any():
            raise SystemExit("a pool ran out of cash: the two forms part there")
        bought, sold = repaid * price[rb], taken * price[ra]
        self.liquidations += len(rows)
        self.repaid += bought.sum()
        self.seized += sold.sum()
        flow += np.bincount(rb, bought, len(price)) - np.bincount(ra, sold, len(price))
        return flow

    def decide_ties(
        self,
        best: Int64,
        profit: Float64,
        lost: Float64,
        shape: tuple[int, ...],
        slope: Float64,
        at_c: Int64,
        at_d: Int64,
        gets: Float64,
        pays: Float64,
    ) -> None:
        """Choose anew where what others have traded in the step may change which pair pays most.

        Each trade loses by how far it takes a token's net flow from where the step began, so a choice between
        two pairs that pay nearly the same depends on who came before, the most profitable first.
        """
        rows, pair = np.arange(len(best)), np.arange(profit.shape[1]) // shape[2]
        least = (profit - 2.0 * lost)[rows, best]
        near = ((profit + 2.0 * lost > least[:, None]) & (pair != pair[best][:, None])).any(axis=1)
        if not near.any():
            return
        flat_gets, flat_pays = gets.reshape(len(best), -1), pays.reshape(len(best), -1)
        order = np.argsort(-profit[rows, best], kind="stable")
        for place in np.flatnonzero(near[order]):
            before, i = order[:place], order[place]
            d, c, _ = np.unravel_index(best[before], shape)
            sold = np.bincount(at_c[before, c], flat_gets[before, best[before]], len(slope))
            net = sold - np.bincount(at_d[before, d], flat_pays[before, best[before]], len(slope))
            out, back = at_c[i][None, :, None], at_d[i][:, None, None]
            lost_out = slope[out] * (np.abs(net[out] + gets[i]) - np.abs(net[out]))
            lost_back = slope[back] * (np.abs(net[back] - pays[i]) - np.abs(net[back]))
            anew = (gets[i] - pays[i] - lost_out - lost_back).ravel()
            best[i] = np.where(np.isfinite(profit[i]), anew, -np.inf).argmax()

    def lost_part(self, price: Float64) -> Float64:
        """Return the part of a small trade that is lost to exponential impact, by token."""
        # The table begins at a ten-thousandth of eight times what halves the price; see `ImpactChannel`.
        first = 1e-4 * 8.0 * np.log(2.0) / PER_DOLLAR * price / self.w.price
        return np.asarray(1.0 + np.expm1(-PER_DOLLAR * first) / (PER_DOLLAR * first))

    def book(
        self, rows: Int64, c: Int64, d: Int64, ra: Int64, rb: Int64, less_c: Float64, less_d: Float64
    ) -> None:
        """Take scaled amounts off the rows, and off all that is kept of them."""
        before_c, before_d = self.coll[rows, c], self.debt[rows, d]
        now_c, now_d = before_c - less_c, before_d - less_d
        now_c[now_c <= 1e-15 * before_c] = 0.0
        now_d[now_d <= 1e-15 * before_d] = 0.0
        self.coll[rows, c], self.debt[rows, d] = now_c, now_d
        np.add.at(self.supplied, ra, now_c - before_c)
        np.add.at(self.borrowed, rb, now_d - before_d)
        if self.dense:
            self.weighted[rows, ra] = now_c * self.w.lt[rows, c]
            self.owed[rows, rb] = now_d
            return
        for k in range(SLOTS):
            mine = c == k
            self.c_by[k][rows[mine]] = now_c[mine] * self.w.lt[rows[mine], k]
            mine = d == k
            self.d_by[k][rows[mine]] = now_d[mine]


def numpy_run(world: World, prices: Float64, *, dense: bool) -> list[Came]:
    """Run every path in NumPy."""
    return [NumpyForm(world, dense=dense).over(path) for path in prices]


def require_same(engine: PathResults, other: Sequence[Came], within: float) -> float:
    """Return the largest relative difference of any path's figures, or stop."""
    worst = 0.0
    for p, came in enumerate(other):
        total = engine.totals[p, 0]
        if int(total[Total.LIQUIDATIONS]) != came.liquidations:
            raise SystemExit(f"path {p}: {int(total[Total.LIQUIDATIONS])} and {came.liquidations}")
        for mine, theirs in (
            (total[Total.REPAID], came.repaid),
            (total[Total.SEIZED], came.seized),
            (engine.shortfall[p, 0], came.bad),
            *zip(engine.price[p], came.prices, strict=True),
        ):
            worst = max(worst, abs(mine - theirs) / max(abs(theirs), 1.0))
    if worst > within:
        raise SystemExit(f"NumPy and the engine are {worst:.1e} apart")
    return worst


@numba.njit
def _triad(a: Float64, b: Float64, c: Float64) -> None:
    for i in range(len(a)):
        a[i] = b[i] + 3.0 * c[i]


def row_bytes(world: World) -> int:
    """Return the bytes that a full scan reads of one row."""
    slots = (world.coll, world.debt, world.coll_at, world.debt_at, world.lt)
    return sum(array.itemsize * array.shape[1] for array in slots)


def step_race(
    world: World, paths: int, steps: int, turns: int, seconds: float, figures: dict[str, Any]
) -> tuple[list[Headline], Table]:
    """Race the engine's step against NumPy's on crashing paths."""
    prices = drawn(paths, steps, 1.0, 2)
    done = engine_run(world, prices, prune=False)
    if not same_to_the_bit(done, engine_run(world, prices, prune=True)):
        raise SystemExit("a pruned run has other results than a full one")
    if not (done.totals[:, 0, Total.LIQUIDATIONS] > 0).all():
        raise SystemExit("a path without a liquidation")
    apart = max(require_same(done, numpy_run(world, prices, dense=dense), 1e-9) for dense in (True, False))
    a, b, c = (np.ones(1_000_000 if seconds == 0 else 8_000_000) for _ in range(3))
    taken, free = race(
        {
            ENGINE: lambda: engine_run(world, prices, prune=False),
            LAZY: lambda: engine_run(world, prices, prune=True),
            DENSE: lambda: numpy_run(world, prices, dense=True),
            GATHER: lambda: numpy_run(world, prices, dense=False),
            "triad": lambda: _triad(a, b, c),
        },
        turns,
        seconds,
    )
    work, names = world.rows * steps * paths, (ENGINE, LAZY, DENSE, GATHER)
    rates = {name: Summary.of([work / s / 1e6 for s in taken[name]]) for name in names}
    triad = Summary.of([3 * a.nbytes / s / 1e9 for s in taken["triad"]])
    share = Summary.of(
        [
            work * row_bytes(world) / mine / (3 * a.nbytes / limit)
            for mine, limit in zip(taken[ENGINE], taken["triad"], strict=True)
        ]
    )
    faster = min((DENSE, GATHER), key=lambda name: -rates[name].median)
    against = {name: ratios(taken[faster], taken[name]) for name in (ENGINE, LAZY)}
    liquidated = int(done.totals[:, 0, Total.LIQUIDATIONS].sum())
    figures["step"] = {
        "accounts": world.rows,
        "paths": paths,
        "steps": steps,
        "liquidations": liquidated,
        "largest_difference": apart,
        "million_account_steps_a_second": {name: asdict(rate) for name, rate in rates.items()},
        "faster_numpy": faster,
        "ratios": {name: asdict(ratio) for name, ratio in against.items()},
        "triad_gb_a_second": asdict(triad),
        "row_bytes": row_bytes(world),
        "share_of_triad": asdict(share),
        "free_cores": {name: Summary.of(values).median for name, values in free.items() if values},
    }
    shown = table(
        f"{world.rows:,} accounts, 8 tokens, {paths} paths of {steps} steps, {liquidated:,} liquidations",
        "",
        "M account-steps/s",
    )
    for name, rate in rates.items():
        shown.add_row(name, rate.text())
    shown.add_row(f"triad {triad.text()} GB/s; the rows' share of it", share.text(2))
    return [
        Headline(
            f"contagion step on one thread, {world.rows:,} accounts x 8 tokens, no pruning",
            rates[ENGINE],
            "M account-steps/s",
            at_least=100.0,
            note=f"{liquidated:,} liquidations; {share.text(2)} of a triad's bandwidth; aim 150",
        ),
        *(
            Headline(
                f"{name}, against NumPy's best form of the step",
                against[name],
                "x",
                at_least=3.0,
                note=f"{faster}, {rates[faster].text()} M/s; same liquidations, amounts within {apart:.0e}",
            )
            for name in (LAZY, ENGINE)
        ),
    ], shown


# ---------------------------------------------------------------------------------------------------- pruning


def same_to_the_bit(one: PathResults, other: PathResults) -> bool:
    """Return whether all arrays of two results are equal."""
    arrays = [f.name for f in fields(one) if isinstance(getattr(one, f.name), np.ndarray)]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


def pruning_race(
    world: World, paths: int, steps: int, turns: int, seconds: float, figures: dict[str, Any]
) -> tuple[list[Headline], Table]:
    """Race the pruned scan against the full one, on calm and on crashing paths."""
    shown = table(f"{world.rows:,} accounts, {paths} paths of {steps} steps", "", "full", "pruned", "ratio")
    headlines, figures["pruning"] = [], {}
    for name, part, least in (("calm", 0.3, 4.0), ("crash", 1.0, 1.0)):
        prices = drawn(paths, steps, part, 3)
        both = [engine_run(world, prices, prune=prune) for prune in (False, True)]
        if not same_to_the_bit(*both):
            raise SystemExit(f"{name}: a pruned run has other results than a full one")
        taken, _ = race(
            {
                FULL: partial(engine_run, world, prices, prune=False),
                PRUNED: partial(engine_run, world, prices, prune=True),
            },
            turns,
            seconds,
        )
        ratio = ratios(taken[FULL], taken[PRUNED])
        work = world.rows * steps * paths / 1e6
        full, pruned = (Summary.of([work / s for s in taken[key]]) for key in (FULL, PRUNED))
        shown.add_row(f"{name}, M account-steps/s", full.text(), pruned.text(), ratio.text())
        liquidated = int(both[0].totals[:, 0, Total.LIQUIDATIONS].sum())
        figures["pruning"][name] = {
            "ratio": asdict(ratio),
            "pruned_million_account_steps_a_second": asdict(pruned),
            "full_million_account_steps_a_second": asdict(full),
            "liquidations": liquidated,
        }
        headlines.append(
            Headline(
                f"exact pruning on {'calm' if name == 'calm' else 'crashing'} paths, against every row",
                ratio,
                "x",
                at_least=least,
                note=f"{liquidated:,} liquidations, results equal to the bit; {pruned.text()} M "
                "account-steps/s with what is passed over",
            )
        )
    return headlines, shown


# ------------------------------------------------------------------------------------------------------ sweep


def scenario_table(folder: Path, accounts: int, steps: int) -> dict[str, Any]:
    """Write a generated book, and return a scenario over it with every key."""
    save_book(generate(BookSpec(accounts=accounts), 1), folder / "book.toml")
    impact = {t: {"model": "linear", "per_dollar": 2e-9, "half_life_s": 3600.0} for t in ("WETH", "WBTC")}
    own = {
        "name": "benchmark",
        "book": "book.toml",
        "steps": steps,
        "step_s": 60,
        "prices": {
            "process": "merton",
            "volatility": {"WETH": 0.9, "WBTC": 0.7, "LINK": 1.2, "AAVE": 1.2},
            "correlation": 0.7,
            "intensity": 40.0,
            "common_intensity": 1500.0,
            "jump_mean": -0.03,
            "jump_deviation": 0.03,
        },
        "channels": {"gas": {}, "impact": {"tokens": impact}},
    }
    scenario = build_scenario(own, folder)
    acting = [channel.kind for channel in scenario.run.on()]
    if acting != ["oracle", "interest", "gas", "keepers", "losses", "impact"]:
        raise SystemExit(f"other channels act: {acting}")
    return {**full_table(scenario), FOLDER: str(folder)}


def sweep_once(table_: dict[str, Any], paths: int, workers: int) -> tuple[float, float, str]:
    """Run a sweep into a folder that goes afterwards; returns start and work seconds and the digest."""
    plan = make_plan(table_, task=TASK, paths=paths, seed=1, chunk=64)
    with tempfile.TemporaryDirectory(prefix="marginline-bench-contagion-") as out:
        outcome = sweep(plan, folder=Path(out), workers=workers)
        return outcome.start_s, outcome.work_s, outcome.require_whole().sha256


def sweep_turns(
    accounts: int, steps: int, paths: int, workers: int, turns: int, figures: dict[str, Any]
) -> list[Headline]:
    """Run a sweep of whole scenarios, and say how long it took and how much of the machine was free."""
    walls, idles, cpus, digests, starts = [], [], [], set(), []
    with tempfile.TemporaryDirectory(prefix="marginline-bench-book-") as folder:
        given = scenario_table(Path(folder), accounts, steps)
        for _ in range(turns):
            busy, cpu, begun = busy_jiffies(), own_cpu(), time.perf_counter()
            start_s, _, digest = sweep_once(given, paths, workers)
            walls.append(time.perf_counter() - begun)
            cpus.append(own_cpu() - cpu)
            starts.append(start_s)
            digests.add(digest)
            after = busy_jiffies()
            if busy is not None and after is not None:
                others = (after - busy) / os.sysconf("SC_CLK_TCK") - cpus[-1]
                idles.append((os.cpu_count() or 1) - max(0.0, others / walls[-1]))
    if len(digests) != 1:
        raise SystemExit("the same sweep came to different results")
    work = accounts * steps * paths
    wall, rate = Summary.of(walls), Summary.of([work / s / 1e6 for s in walls])
    idle = Summary.of(idles) if idles else None
    figures["sweep"] = {
        "accounts": accounts,
        "steps": steps,
        "paths": paths,
        "workers": workers,
        "wall_s": asdict(wall),
        "cpu_s": asdict(Summary.of(cpus)),
        "start_s": asdict(Summary.of(starts)),
        "idle_cores": None if idle is None else asdict(idle),
        "million_account_steps_a_second": asdict(rate),
        "sha256": digests.pop(),
    }
    free = "" if idle is None else f"; {idle.text(1)} of {os.cpu_count()} cores were free"
    return [
        Headline(
            f"{paths:,} paths x {steps:,} steps x {accounts:,} accounts, {workers} workers, start to finish",
            wall,
            "s",
            at_most=90.0,
            note=f"{rate.text()} M account-steps/s, {Summary.of(cpus).text()} s of processors{free}; aim 60",
        )
    ]


# --------------------------------------------------------------------------------------------------- bytecode


class Heard(RevmEvm):
    """An EVM that remembers what it was asked."""

    asked: list[tuple[str, bytes]]

    def call(
        self, to: str, data: bytes, sender: str = ZERO_ADDRESS, gas: int | None = None, value: int = 0
    ) -> bytes:
        """See `RevmEvm.call`."""
        self.asked.append((to, data))
        return super().call(to, data, sender, gas, value)


def bytecode_race(accounts: int, turns: int, seconds: float, figures: dict[str, Any]) -> list[Headline]:
    """Race the reads of the bytecode fidelity against the EVM's own calls with the same calldata."""
    rng = np.random.default_rng(4)
    book = wide_book(accounts, int(rng.integers(100)))
    world = build_world(book)
    pools: dict[str, Any] = {}
    evms: dict[str, RevmEvm] = {}
    for name, kind in (("plain", RevmEvm), ("heard", Heard)):
        evm = kind(timestamp=1_700_000_000)
        if isinstance(evm, Heard):
            evm.asked = []
        evms[name], pools[name] = evm, open_pools(evm, world, interest=True)["pool"]
    addresses = [account_address(wallet) for wallet in book.wallets]
    symbols = [
        [world.tokens[r] for r in {*world.coll_at[i].tolist(), *world.debt_at[i].tolist()}]
        for i in range(world.rows)
    ]
    prices = {t.symbol: round(t.price * 1e8) for t in book.tokens}

    def step(pool: Any) -> list[Any]:
        """Do what a step does with every account near 1: prices, indices, health, amounts."""
        pool.set_prices(prices)
        said: list[Any] = [pool.indices()]
        for address, own in zip(addresses, symbols, strict=True):
            said.append(pool.liquidatable(address))
            said.extend(pool.amounts_raw(address, symbol) for symbol in own)
        return said

    heard = evms["heard"]
    assert isinstance(heard, Heard)
    heard.asked.clear()
    if step(pools["heard"]) != step(pools["plain"]):
        raise SystemExit("two EVMs say different things")
    asked = list(heard.asked)
    raw = evms["plain"]._evm

    def plain() -> None:
        call = raw.message_call
        for to, data in asked:
            call(ZERO_ADDRESS, to, data, 0, GAS_LIMIT)

    taken, _ = race({"raw": plain, "fidelity": lambda: step(pools["plain"])}, turns, seconds)
    share = ratios(taken["raw"], taken["fidelity"])
    rate = Summary.of([len(asked) / s for s in taken["fidelity"]])
    raw_rate = Summary.of([len(asked) / s for s in taken["raw"]])
    accounts_read = sum(data[:4] == aave_v3.GET_USER_ACCOUNT_DATA.selector for _, data in asked)
    figures["bytecode"] = {
        "calls": len(asked),
        "account_reads": accounts_read,
        "share_of_raw": asdict(share),
        "calls_a_second": asdict(rate),
        "raw_calls_a_second": asdict(raw_rate),
    }
    return [
        Headline(
            "reads of real bytecode in process, share of the raw pyrevm call rate",
            share,
            "of 1",
            at_least=0.6,
            note=f"{rate.text()} calls/s decoded, {raw_rate.text()} raw; {accounts_read} getUserAccountData, "
            f"{len(asked) - accounts_read} balances and indices",
        )
    ]


# ----------------------------------------------------------------------------------------------------- memory


def peak_megabytes(accounts: int, steps: int, paths: int) -> dict[str, float]:
    """Run a sweep in a process of its own; returns its peak and its workers'."""
    command = [sys.executable, __file__, "--peak", str(accounts), str(steps), str(paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


def say_peak(accounts: int, steps: int, paths: int) -> None:
    """Run a sweep with one worker and print the peaks of resident memory in megabytes."""
    with tempfile.TemporaryDirectory(prefix="marginline-bench-book-") as folder:
        sweep_once(scenario_table(Path(folder), accounts, steps), paths, 1)
    peaks = {
        name: resource.getrusage(who).ru_maxrss / 1024
        for name, who in (("coordinator", resource.RUSAGE_SELF), ("worker", resource.RUSAGE_CHILDREN))
    }
    print(json.dumps(peaks))


def memory_growth(
    accounts: int, steps: int, counts: tuple[int, int], turns: int, figures: dict[str, Any]
) -> list[Headline]:
    """Compare the peaks of sweeps that differ in the number of paths only."""
    seen: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for _ in range(turns):
        for count in counts:
            seen[count].append(peak_megabytes(accounts, steps, count))
    few, many = (seen[count] for count in counts)
    growth = Summary.of(
        [max(m[k] / f[k] for k in ("coordinator", "worker")) for f, m in zip(few, many, strict=True)]
    )
    worker = Summary.of([one["worker"] for one in many])
    figures["memory"] = {"peak_mb": {str(k): v for k, v in seen.items()}, "growth": asdict(growth)}
    return [
        Headline(
            f"peak memory of a sweep of {counts[1]:,} paths, against {counts[0]:,}",
            growth,
            "x",
            at_most=1.1,
            note=f"the larger of worker ({worker.text()} MB) and coordinator; 64 paths of {accounts:,} "
            "accounts at a time",
        )
    ]


# ------------------------------------------------------------------------------------------------------- main

PARTS: Final = ("step", "pruning", "bytecode", "sweep", "memory")


def measure(parts: Sequence[str], turns: int, *, quick: bool) -> Report:
    """Measure the parts that are asked for."""
    figures: dict[str, Any] = {}
    headlines: list[Headline] = []
    tables: list[Table | str] = []
    seconds = 0.0 if quick else 0.3
    if "step" in parts or "pruning" in parts:
        world = build_world(wide_book(4_000 if quick else 100_000, 1))
        runs: tuple[tuple[str, Callable[..., tuple[list[Headline], Table]], int, int], ...] = (
            ("step", step_race, 2 if quick else 32, 60 if quick else 200),
            ("pruning", pruning_race, 2 if quick else 16, 60 if quick else 200),
        )
        for name, work, paths, steps in runs:
            if name in parts:
                lines, shown = work(world, paths, steps, turns, seconds, figures)
                headlines += lines
                tables.append(shown)
    if "bytecode" in parts:
        headlines += bytecode_race(5 if quick else 100, turns, seconds, figures)
    if "sweep" in parts:
        size = (100, 10, 20, 1) if quick else (10_000, 1_440, 1_000, 4)
        headlines += sweep_turns(*size, min(turns, 3), figures)
    if "memory" in parts:
        counts = (64, 192) if quick else (1_000, 4_000)
        headlines += memory_growth(*((50, 3) if quick else (2_000, 30)), counts, min(turns, 3), figures)
    return Report(tuple(headlines), figures, tuple(tables))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    options.add_argument("--peak", nargs=3, type=int, metavar="N", help="accounts, steps, paths: peaks only")
    given = options.parse_args(arguments)
    if given.peak is not None:
        say_peak(*given.peak)
        return
    if given.quick:
        given.turns = 1
    run("contagion", lambda: measure(given.parts, given.turns, quick=given.quick), given.json)


if __name__ == "__main__":
    main()
