"""Model against bytecode: one scenario run both ways, and a cause with a bound for every difference.

Causes are a closed list. What none of them bounds is unexplained, and makes the verification fail.

``rounding``
    The model is float64, the contracts round to token units: the debt repaid is off by at most `UNITS` units
    and a part `RELATIVE`, the collateral by what that is worth at the venue's prices and as much again.
``tick``
    Prices have eight decimals in both. Where an earlier rounding moved the market by less than a tick, a
    price may be the next tick: amounts are off by at most that tick's part of each of the two prices.
``interest``
    Contracts compound by polynomials of the rate and update a rate when a reserve is touched, the model by
    the exponential at every step. Amounts are off by at most the distance of the indices of the two reserves,
    which was measured in the run.
``edge``
    The health factor is within `EDGE` of 1, and the two sides fall on different sides of it; or two profits
    are within a part `EDGE` of each other and change places in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    chain_results, chain = run_on_chain(run, seed, path, make_evm)
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
    carried = [e for e in chain.chain_events if e.done.revert is None]
    for event in carried:
        waiting.setdefault(_key(event), []).append(event)
    out = []
    for mine in model:
        theirs = waiting.get(_key(mine), [])
        out.append(_judge(run, mine, theirs.pop(0) if theirs else None, chain, prices, indices))
    for left in waiting.values():
        out.extend(_alone(run, event) for event in left)
    return sorted(out, key=lambda d: d.step)


def _key(event: Any) -> tuple[int, int, int, int]:
    return event.step, event.row, event.debt_reserve, event.collateral_reserve


def _judge(
    run: Run,
    mine: ModelEvent,
    theirs: ChainEvent | None,
    chain: OnChainKeepers,
    prices: list[Float64],
    indices: list[tuple[Float64, Float64]],
) -> Difference:
    if theirs is None:
        cause = "edge" if abs(mine.health_factor - 1.0) <= EDGE else "unexplained"
        return _difference(run, mine, mine, None, cause, abs(mine.health_factor - 1.0), EDGE)
    repaid, taken = theirs.done.repaid_raw, theirs.done.taken_raw
    price = prices[mine.step - 1]
    rb, ra = mine.debt_reserve, mine.collateral_reserve
    decimals = [t.decimals for t in run.world.book.tokens]
    unit_debt = 10.0 ** -decimals[rb % len(decimals)] * price[rb]
    unit_coll = 10.0 ** -decimals[ra % len(decimals)] * price[ra]
    gap_debt, gap_coll = abs(mine.repaid_raw - repaid), abs(mine.taken_raw - taken)
    if gap_debt == 0.0 and gap_coll == 0.0:
        return _difference(run, mine, mine, theirs, "equal", 0.0, 0.0)
    # Units of one side are worth so many of the other: an account's debt in units may bound its collateral.
    units = UNITS * max(unit_debt, unit_coll)
    room_debt = units / unit_debt + RELATIVE * repaid
    room_coll = 2.0 * units / unit_coll + RELATIVE * taken
    gap = max(gap_debt / max(repaid, 1), gap_coll / max(taken, 1))
    tick = 1e-8 / price[rb] + 1e-8 / price[ra]
    apart = _index_gap(chain, indices, mine.step, rb, ra)
    for cause, part in (("rounding", 0.0), ("tick", tick), ("interest", apart + tick)):
        if gap_debt <= room_debt + part * repaid and gap_coll <= room_coll + part * taken:
            bound = max(room_debt / max(repaid, 1), room_coll / max(taken, 1)) + part
            return _difference(run, mine, mine, theirs, cause, gap, bound)
    return _difference(run, mine, mine, theirs, "unexplained", gap, tick + apart)


def _index_gap(
    chain: OnChainKeepers, indices: list[tuple[Float64, Float64]], step: int, rb: int, ra: int
) -> float:
    """Return how far the indices of the two reserves are apart in that step, as a part."""
    if not chain.indices:
        return 0.0
    ours, theirs = indices[step - 1], chain.indices[step - 1]
    supply = abs(ours[0][ra] / theirs[0][ra] - 1.0)
    borrow = abs(ours[1][rb] / theirs[1][rb] - 1.0)
    return float(supply + borrow) * 2.0


def _alone(run: Run, event: ChainEvent) -> Difference:
    """Return a liquidation that only the contracts carried out."""
    near = abs(event.wanted.profit) <= EDGE
    return _difference(run, event, None, event, "edge" if near else "unexplained", np.inf, EDGE)


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
