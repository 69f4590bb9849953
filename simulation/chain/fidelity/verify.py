"""Model against bytecode: one scenario run both ways, and a cause with a bound for every difference.

Causes are a closed list. What none of them bounds is unexplained, and makes the verification fail.

``rounding``
    The model is float64, the contracts round to token units: the debt repaid is off by at most `UNITS` units
    of the collateral or of one of the account's debts, and a part `RELATIVE` of what moved; the collateral by
    that and as much again. An account that was liquidated before brings along what those liquidations were
    allowed to be off by.
``tick``
    Prices have eight decimals in both. Where an earlier rounding moved the market by less than a tick, a
    price may be the next tick: amounts are off by at most that tick's part of each of the two prices.
``interest``
    Contracts compound by polynomials of the rate and update a rate when a reserve is touched, the model by
    the exponential at every step. Amounts are off by at most the largest distance of the supply indices of
    the account's collaterals and that of the borrow indices of its debts, which were measured in the run.
``edge``
    The health factor is so near to 1 that all of the above together, and `EDGE` of float arithmetic, may
    put it on the other side. What follows from an edge in later steps is not explained by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from simulation.chain.evm import Evm
from simulation.chain.fidelity.keepers import ChainEvent, OnChainKeepers, run_on_chain
from simulation.contagion.batch import Batch
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.types import Float64

UNITS: Final = 3
RELATIVE: Final = 1e-12
EDGE: Final = 1e-9
CAUSES: Final = ("equal", "rounding", "tick", "interest", "edge", "unexplained")


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A liquidation of the vector model: amounts in token units, not whole."""

    step: int
    row: int
    debt_reserve: int
    collateral_reserve: int
    health_factor: float
    repaid_raw: float
    taken_raw: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One liquidation, both ways.

    Attributes
    ----------
    step, account, venue, debt, collateral
        Which.
    model_repaid_raw, chain_repaid_raw, model_taken_raw, chain_taken_raw
        Amounts in token units; NaN on the side that has no such liquidation.
    cause
        One of `CAUSES`.
    bound
        How far the cause lets the two be apart, as a part of the amount; `gap` is how far they are.
    """

    step: int
    account: str
    venue: str
    debt: str
    collateral: str
    model_repaid_raw: float
    chain_repaid_raw: float
    model_taken_raw: float
    chain_taken_raw: float
    cause: str
    gap: float
    bound: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What came out of a scenario run both ways.

    Attributes
    ----------
    differences
        Every liquidation, in order.
    model, chain
        Results of the two runs.
    counts
        How many liquidations each cause explains.
    """

    differences: tuple[Difference, ...]
    model: PathResults
    chain: PathResults

    @property
    def counts(self) -> Mapping[str, int]:
        """How many liquidations each cause explains."""
        return {c: sum(d.cause == c for d in self.differences) for c in CAUSES}

    @property
    def explained(self) -> bool:
        """Whether nothing is unexplained."""
        return all(d.cause != "unexplained" for d in self.differences)

    @property
    def largest(self) -> Mapping[str, tuple[float, float]]:
        """By cause: the largest gap, and the bound that it was held against."""
        out = {}
        for cause in CAUSES:
            found = [d for d in self.differences if d.cause == cause]
            if found:
                worst = max(found, key=lambda d: d.gap)
                out[cause] = (worst.gap, worst.bound)
        return out


def verify(run: Run, seed: int, path: int, make_evm: Callable[[int], Evm]) -> Verification:
    """Run one path with the model and with bytecode, and compare liquidation by liquidation.

    Raises
    ------
    InputError
        If the scenario has what the bytecode cannot follow.
    """
    return against(run, seed, path, *run_on_chain(run, seed, path, make_evm))


def against(
    run: Run, seed: int, path: int, chain_results: PathResults, chain: OnChainKeepers
) -> Verification:
    """Run one path with the model, and compare it with what contracts have done."""
    prices: list[Float64] = []
    indices: list[tuple[Float64, Float64]] = []

    def watch(batch: Batch) -> None:
        prices.append(batch.state.oracle[0].copy())
        indices.append((batch.state.supply_index[0].copy(), batch.state.borrow_index[0].copy()))

    alone = replace(run, channels=tuple(c for c in run.channels if c.kind != "losses"))
    model_results = run_paths(alone, seed, path, 1, record=True, watch=watch)
    found = _compare(run, model_events(model_results), chain, prices, indices)
    return Verification(tuple(found), model_results, chain_results)


def model_events(results: PathResults) -> list[ModelEvent]:
    """Return the liquidations of a recorded path in order."""
    world = results.world
    decimals = [t.decimals for t in world.book.tokens]
    out = []
    for entry in results.events:
        for k, row in enumerate(entry["row"]):
            rb, ra = int(entry["debt_reserve"][k]), int(entry["collateral_reserve"][k])
            out.append(
                ModelEvent(
                    int(entry["step"]),
                    int(row),
                    rb,
                    ra,
                    float(entry["health_factor"][k]),
                    float(entry["repaid"][k]) * 10.0 ** decimals[rb % len(decimals)],
                    float(entry["seized"][k]) * 10.0 ** decimals[ra % len(decimals)],
                )
            )
    return out


def _compare(
    run: Run,
    model: list[ModelEvent],
    chain: OnChainKeepers,
    prices: list[Float64],
    indices: list[tuple[Float64, Float64]],
) -> list[Difference]:
    """Pair liquidations of the same account and pair in the same step, and name each pair's cause."""
    waiting: dict[tuple[int, int, int, int], list[ChainEvent]] = {}
    for event in chain.chain_events:
        if event.done.revert is None:
            waiting.setdefault(_key(event), []).append(event)
    judge = _Judge(run, chain, prices, indices)
    out = []
    for mine in model:
        theirs = waiting.get(_key(mine))
        out.append(judge.pair(mine, theirs.pop(0)) if theirs else judge.alone(mine, mine, None))
    for left in waiting.values():
        out.extend(judge.alone(event, None, event) for event in left)
    return sorted(out, key=lambda d: d.step)


def _key(event: Any) -> tuple[int, int, int, int]:
    return event.step, event.row, event.debt_reserve, event.collateral_reserve


@dataclass(slots=True)
class _Judge:
    """Names causes, in the order of the steps.

    Attributes
    ----------
    run, chain
        What was run, and what the contracts did.
    prices, indices
        What venues believed and the indices of the model after each step.
    carried
        By account: US dollars that its liquidations so far were allowed to be off by.
    """

    run: Run
    chain: OnChainKeepers
    prices: list[Float64]
    indices: list[tuple[Float64, Float64]]
    carried: dict[int, float] = field(default_factory=dict)

    def pair(self, mine: ModelEvent, theirs: ChainEvent) -> Difference:
        """Return the cause of what a liquidation of both sides differs by."""
        repaid, taken = theirs.done.repaid_raw, theirs.done.taken_raw
        unit_debt, unit_coll = self._units(mine)
        worth_debt, worth_coll = repaid * unit_debt, taken * unit_coll
        gap_debt = abs(mine.repaid_raw - repaid) * unit_debt
        gap_coll = abs(mine.taken_raw - taken) * unit_coll
        gap = max(gap_debt / worth_debt, gap_coll / worth_coll)
        tick = self._tick(mine.step, [mine.debt_reserve, mine.collateral_reserve])
        before = self.carried.get(mine.row, 0.0)
        if gap == 0.0:
            return _difference(self.run, mine, mine, theirs, "equal", 0.0, 0.0)
        # Units of one side are worth so many of the other: a debt in units may bound the collateral.
        # Half of a position is half of all its debts, in the units of each.
        owing = self.run.world.debt_at[mine.row][self.run.world.debt[mine.row] > 0.0]
        least = before + UNITS * max(unit_coll, *(self._unit(mine.step, int(r)) for r in owing))
        bound = 0.0
        for cause, part in (("rounding", 0.0), ("tick", tick), ("interest", tick + self._apart(mine))):
            room = least + (RELATIVE + part) * max(worth_debt, worth_coll)
            bound = max(room / worth_debt, 2.0 * room / worth_coll)
            if gap_debt <= room and gap_coll <= 2.0 * room:
                self.carried[mine.row] = room
                return _difference(self.run, mine, mine, theirs, cause, gap, bound)
        return _difference(self.run, mine, mine, theirs, "unexplained", gap, bound)

    def alone(self, event: Any, mine: ModelEvent | None, theirs: ChainEvent | None) -> Difference:
        """Return the cause of a liquidation that only one side carried out."""
        world = self.run.world
        used = [
            *world.coll_at[event.row][world.coll[event.row] > 0.0],
            *world.debt_at[event.row][world.debt[event.row] > 0.0],
        ]
        units = self._units(event)
        # The account owes at least what was repaid.
        owed = mine.repaid_raw * units[0] if mine else theirs.done.repaid_raw * units[0] if theirs else 0.0
        bound = (
            EDGE + self._tick(event.step, used) + self._apart(event) + self.carried.get(event.row, 0.0) / owed
        )
        gap = abs(event.health_factor - 1.0)
        return _difference(
            self.run, event, mine, theirs, "edge" if gap <= bound else "unexplained", gap, bound
        )

    def _units(self, event: Any) -> tuple[float, float]:
        """Return what a unit of the debt and one of the collateral are worth, US dollars."""
        return self._unit(event.step, event.debt_reserve), self._unit(event.step, event.collateral_reserve)

    def _unit(self, step: int, reserve: int) -> float:
        tokens = self.run.world.book.tokens
        return float(10.0 ** -tokens[reserve % len(tokens)].decimals * self.prices[step - 1][reserve])

    def _tick(self, step: int, reserves: list[int]) -> float:
        """Return what a tick of each of these prices is a part of it, added up."""
        return float(sum(1e-8 / self.prices[step - 1][r] for r in set(reserves)))

    def _apart(self, event: Any) -> float:
        """Return how far the indices of the account's reserves are apart in a step, as a part."""
        if not self.chain.indices:
            return 0.0
        world, row = self.run.world, event.row
        ours, theirs = self.indices[event.step - 1], self.chain.indices[event.step - 1]
        supply = np.abs(ours[0] / theirs[0] - 1.0)[world.coll_at[row]]
        borrow = np.abs(ours[1] / theirs[1] - 1.0)[world.debt_at[row]]
        return float(supply.max() + borrow.max())


def _difference(
    run: Run,
    event: Any,
    mine: ModelEvent | None,
    theirs: ChainEvent | None,
    cause: str,
    gap: float,
    bound: float,
) -> Difference:
    world = run.world
    tokens = len(world.tokens)
    return Difference(
        step=event.step,
        account=world.book.wallets[int(world.row_wallet[event.row])],
        venue=world.venues[int(world.row_venue[event.row])],
        debt=world.tokens[event.debt_reserve % tokens],
        collateral=world.tokens[event.collateral_reserve % tokens],
        model_repaid_raw=np.nan if mine is None else mine.repaid_raw,
        chain_repaid_raw=np.nan if theirs is None else float(theirs.done.repaid_raw),
        model_taken_raw=np.nan if mine is None else mine.taken_raw,
        chain_taken_raw=np.nan if theirs is None else float(theirs.done.taken_raw),
        cause=cause,
        gap=float(gap),
        bound=float(bound),
    )
