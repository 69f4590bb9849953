"""What changes while paths run: one array for each quantity, the first axis is the path.

Paths of a batch go through each step together, so that Python's share of a step is divided among them; no
quantity of a path ever depends on another path, so results do not depend on the batch.

Amounts of accounts and suppliers are scaled: what stands in the array, times the reserve's index, is tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from simulation.contagion.draws import path_keys
from simulation.contagion.world import World
from simulation.types import Bool, Float64, Int32, Int64


class Total(IntEnum):
    """What is added up over a path for each venue, US dollars at the market's prices unless it is a count.

    `BONUS` alone is at the prices that the venue believes: what it grants above the debt repaid.
    """

    LIQUIDATIONS = 0
    REPAID = 1
    SEIZED = 2
    BONUS = 3
    FEES = 4
    GAS = 5
    KEEPER_PROFIT = 6
    TOXIC = 7
    WRITTEN_OFF = 8
    UNPROFITABLE = 9
    STUCK = 10
    FAILED_TXS = 11
    HALTED = 12
    FROM_RESERVES = 13
    FROM_BACKSTOP = 14
    FROM_SUPPLIERS = 15
    WITHDRAWN = 16
    UNFILLED = 17
    DELEVERAGED = 18
    BIDS = 19


TOTALS = len(Total)


@dataclass(slots=True)
class Anchor:
    """The order in which accounts come near to liquidation, as of some moment of each path.

    Attributes
    ----------
    coll_price, debt_price
        Price times index of each reserve at that moment, shape (P, R).
    order
        Rows of each venue by rising health factor then, those that may come near; shape (P, N).
    health
        Their health factors in that order, shape (P, N).
    dirty
        Rows whose amounts changed since, shape (P, N): the order says nothing of them.
    dirty_list, dirty_count
        The same as a list, shapes (P, N) and (P, V).
    sorted_rows
        How many of a venue's rows the order has, 0 where it has not been made, shape (P, V). None that it
        has not was nearer than the last one that it has.
    """

    coll_price: Float64
    debt_price: Float64
    order: Int32
    health: Float64
    dirty: Bool
    dirty_list: Int32
    dirty_count: Int64
    sorted_rows: Int64


@dataclass(slots=True)
class State:
    """All paths of a batch at one step.

    Attributes
    ----------
    keys
        Keys of the paths' draws, shape (P,).
    exogenous
        Prices without our world's own trades, shape (P, A).
    displaced
        What trades have moved the logarithm of the price by and has not recovered, shape (P, A).
    market
        ``exogenous * exp(displaced)``, times what channels say of staked tokens and stables, shape (P, A).
    peg
        Factor that stands between a backed token and what backs it; 1 when whole, shape (P, A).
    oracle
        What each venue believes, shape (P, R).
    trusted
        Whether liquidations and purchases at a store front may act on it, shape (P, R).
    supply_index, borrow_index
        Shape (P, R), 1 at the start.
    coll, debt
        Scaled amounts of the accounts, shapes (P, N, C) and (P, N, D).
    idle, outside_debt
        Scaled amounts of others, shape (P, R).
    reserves, deficit, cash
        Tokens, shape (P, R). A deficit is a debt written off and not yet covered by anybody.
    borrowed
        Scaled debts of the accounts, kept as they change, shape (P, R).
    supplied
        Scaled collateral of the accounts, shape (P, R).
    below_since, below_last
        Step in which an account came below 1, and the last one in which it was, shape (P, N).
    base_fee
        Wei a unit of gas costs, shape (P,).
    inventory
        US dollars that each keeper has free, shape (P, H).
    unsold
        Tokens that keepers have seized and not sold, shape (P, H, A).
    order_flow
        US dollars bought less sold in this step, shape (P, A).
    sold, bought
        Tokens that left the world to the market and came from it, shape (P, A): the other side of every
        physical flow.
    totals
        See `Total`, shape (P, V, TOTALS).
    paused_until
        Step up to which a venue's liquidations are paused, shape (P, V).
    anchor
        See `Anchor`.
    """

    keys: NDArray[np.uint64]
    exogenous: Float64
    displaced: Float64
    market: Float64
    peg: Float64
    oracle: Float64
    trusted: Bool
    supply_index: Float64
    borrow_index: Float64
    coll: Float64
    debt: Float64
    idle: Float64
    outside_debt: Float64
    reserves: Float64
    deficit: Float64
    cash: Float64
    borrowed: Float64
    supplied: Float64
    below_since: Int32
    below_last: Int32
    base_fee: Float64
    inventory: Float64
    unsold: Float64
    order_flow: Float64
    sold: Float64
    bought: Float64
    totals: Float64
    paused_until: Int64
    anchor: Anchor

    @property
    def paths(self) -> int:
        """Number of paths of the batch."""
        return len(self.keys)


def fresh_state(
    world: World, seeds: list[np.random.SeedSequence], *, base_fee_wei: float, inventory_usd: Float64
) -> State:
    """Return the state of a batch before the first step; `anchor` is set by the first scan."""
    paths, rows, reserves = len(seeds), world.rows, len(world.cash)
    venues, tokens = len(world.venues), len(world.tokens)

    def each(values: Float64) -> Float64:
        return np.repeat(values[None], paths, axis=0)

    oracle = np.tile(world.price, venues)
    borrowed, supplied = np.zeros(reserves), np.zeros(reserves)
    np.add.at(borrowed, world.debt_at.ravel(), world.debt.ravel())
    np.add.at(supplied, world.coll_at.ravel(), world.coll.ravel())
    return State(
        keys=path_keys(seeds),
        exogenous=each(world.price),
        displaced=np.zeros((paths, tokens)),
        market=each(world.price),
        peg=np.ones((paths, tokens)),
        oracle=each(oracle),
        trusted=np.ones((paths, reserves), dtype=np.bool_),
        supply_index=np.ones((paths, reserves)),
        borrow_index=np.ones((paths, reserves)),
        coll=each(world.coll),
        debt=each(world.debt),
        idle=each(world.reserves.idle),
        outside_debt=each(world.reserves.outside_debt),
        reserves=each(world.reserves.reserves),
        deficit=np.zeros((paths, reserves)),
        cash=each(world.cash),
        borrowed=each(borrowed),
        supplied=each(supplied),
        below_since=np.full((paths, rows), -2, dtype=np.int32),
        below_last=np.full((paths, rows), -2, dtype=np.int32),
        base_fee=np.full(paths, base_fee_wei),
        inventory=each(inventory_usd),
        unsold=np.zeros((paths, len(inventory_usd), tokens)),
        order_flow=np.zeros((paths, tokens)),
        sold=np.zeros((paths, tokens)),
        bought=np.zeros((paths, tokens)),
        totals=np.zeros((paths, venues, TOTALS)),
        paused_until=np.full((paths, venues), -1, dtype=np.int64),
        anchor=Anchor(
            coll_price=np.zeros((paths, reserves)),
            debt_price=np.zeros((paths, reserves)),
            order=np.zeros((paths, rows), dtype=np.int32),
            health=np.zeros((paths, rows)),
            dirty=np.zeros((paths, rows), dtype=np.bool_),
            dirty_list=np.zeros((paths, rows), dtype=np.int32),
            dirty_count=np.zeros((paths, venues), dtype=np.int64),
            sorted_rows=np.zeros((paths, venues), dtype=np.int64),
        ),
    )


def utilisation(state: State) -> Float64:
    """Return borrowed over supplied of every reserve, shape (P, R); 0 where nothing is lent."""
    debt = (state.borrowed + state.outside_debt) * state.borrow_index
    total = state.cash + debt
    return np.divide(debt, total, out=np.zeros_like(debt), where=total > 0.0)


def imbalance(state: State, size: Float64) -> Float64:
    """Return what each pool's books are off by, as a part of its size, shape (P, R).

    `size` is what each pool held at the start, shape (R,): a pool that has been emptied is not judged by the
    rounding of what went through it.

    Cash, debts and deficits are what a pool has; collateral, other suppliers' claims and its own reserves are
    what it owes. Both sides are equal at every step.
    """
    has = state.cash + (state.borrowed + state.outside_debt) * state.borrow_index + state.deficit
    owes = (state.supplied + state.idle) * state.supply_index + state.reserves
    return np.asarray(np.abs(has - owes) / np.maximum(np.maximum(has, owes), np.maximum(size, 1.0)))
