"""The keepers of a scenario, liquidating in an EVM: the same decisions, the contracts' own amounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.book.types import raw_units
from simulation.chain.evm import Evm
from simulation.chain.fidelity.pools import (
    Liquidated,
    Pool,
    Size,
    account_address,
    open_pools,
    require_supported,
)
from simulation.contagion.batch import Batch, unlimited_depth
from simulation.contagion.channels.keepers import KeepersChannel, KeepersMemo, traded_before
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.scan import touch
from simulation.contagion.settle import Choice, Depth, best_liquidation, carry_out
from simulation.contagion.world import MORPHO_BLUE, World
from simulation.types import Float64

GENESIS: Final = 1_700_000_000
LOOK: Final = 1.0 + 1e-6
"""Accounts below this by our mirror are put to the contract, which alone decides."""
ROUNDED_UNITS: Final = 3
"""Token units that one liquidation's roundings may move between an account and the pool."""
ALLOWED: Final = ("oracle", "interest", "gas", "keepers", "impact", "breaker", "pegs", "losses")
"""Channels that change no account and no pool by themselves, of which the bytecode would not know. Losses are
the contracts' own there: the channel does not act."""


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """A liquidation that the contracts carried out, or refused.

    Attributes
    ----------
    step, row
        When, and which account.
    debt_reserve, collateral_reserve
        The pair, see `World`.
    health_factor
        By our mirror of the contract's amounts.
    wanted
        What the model would have done with the same state.
    done
        What the contract did.
    """

    step: int
    row: int
    debt_reserve: int
    collateral_reserve: int
    health_factor: float
    wanted: Choice
    done: Liquidated


@dataclass(slots=True)
class OnChainKeepers:
    """Stands where the keepers' channel stands; see `KeepersChannel` for who acts when.

    Attributes
    ----------
    own
        The scenario's keepers.
    make_evm
        Returns a new EVM at a time.
    interest
        Whether the contracts accrue.
    chain_events, indices
        Filled: all liquidations, and the indices of every step.
    depth
        What trades lose in the step that is under way.
    """

    kind: ClassVar[str] = "keepers"
    order: ClassVar[int] = KeepersChannel.order
    always: ClassVar[bool] = True
    on: ClassVar[bool] = True

    own: KeepersChannel
    make_evm: Callable[[int], Evm]
    interest: bool
    chain_events: list[ChainEvent] = field(default_factory=list)
    indices: list[tuple[Float64, Float64]] = field(default_factory=list)
    depth: Depth = field(default_factory=lambda: unlimited_depth(1, 1))

    @property
    def keepers(self) -> Any:
        """The scenario's keepers, for the engine."""
        return self.own.keepers

    def check(self, world: World) -> None:
        """See `Channel.check`."""
        self.own.check(world)
        if (world.rules.kind == MORPHO_BLUE).any() and self.interest:
            raise InputError(
                "Morpho Blue accrues by its own adaptive curve, which the book's curve is not",
                fix="[channels.interest] on = false, or --fidelity model",
            )
        if self.own.rounds > 1 or any(k.funding == "inventory" for k in self.own.keepers):
            raise InputError(
                "keepers with inventory, or several rounds a step, run at --fidelity model only",
                fix="flash funding and rounds = 1",
            )

    def columns(self, batch: Batch, memo: Any) -> dict[str, Float64]:
        """See `Channel.columns`."""
        return {}

    def prepare(self, batch: Batch) -> Any:
        """Deploy the venues and open the accounts."""
        if batch.state.paths != 1:
            raise InputError("bytecode runs one path at a time", fix="paths = 1 with --fidelity revm")
        memo = self.own.prepare(batch)
        evm = self.make_evm(GENESIS)
        pools = open_pools(evm, batch.world, interest=self.interest)
        start = evm.timestamp()
        return {"memo": memo, "evm": evm, "pools": pools, "start": start}

    def act(self, batch: Batch, memo: dict[str, Any]) -> None:
        """Set the clock and the prices, ask the contracts, liquidate, and mirror what they say."""
        state, world = batch.state, batch.world
        pools: dict[str, Pool] = memo["pools"]
        own: KeepersMemo = memo["memo"]
        memo["evm"].warp(memo["start"] + round(batch.step * batch.dt_s))
        tokens = len(world.tokens)
        for v, name in enumerate(world.venues):
            prices = {t: round(state.oracle[0, v * tokens + a] * 1e8) for a, t in enumerate(world.tokens)}
            pools[name].set_prices(prices)
        self._mirror_indices(batch, pools)
        own.scanner.scan(state, LOOK)
        rows = own.scanner.found[0, : own.scanner.count[0]]
        addresses = {int(i): account_address(world.book.wallets[world.row_wallet[i]]) for i in rows}
        below = [
            k
            for k, i in enumerate(rows)
            if pools[world.venues[world.row_venue[i]]].liquidatable(addresses[int(i)])
        ]
        self._settle(batch, own, pools, rows, own.scanner.health[0], below, addresses)

    def _mirror_indices(self, batch: Batch, pools: dict[str, Pool]) -> None:
        state, world = batch.state, batch.world
        if not self.interest:
            return
        before = _owed_less_claims(batch)
        for v, name in enumerate(world.venues):
            for symbol, (supply, borrow) in pools[name].indices().items():
                at = v * len(world.tokens) + world.token(symbol)
                state.supply_index[0, at], state.borrow_index[0, at] = supply, borrow
        # What borrowers owe more than suppliers have earned is what the contract keeps for its treasury.
        state.reserves += _owed_less_claims(batch) - before
        self.indices.append((state.supply_index[0].copy(), state.borrow_index[0].copy()))

    def _settle(
        self,
        batch: Batch,
        own: KeepersMemo,
        pools: dict[str, Pool],
        rows: Any,
        health: Float64,
        below: list[int],
        addresses: dict[int, str],
    ) -> None:
        """Order and choose as `settle_paths` does, and let the contract carry it out."""
        state = batch.state
        if not below:
            return
        self.depth = batch.ask_depth()
        sold, bought = traded_before(state.order_flow[0])
        ranked = []
        for k in below:
            i = int(rows[k])
            if state.below_last[0, i] < batch.step - 1:
                state.below_since[0, i] = batch.step
            state.below_last[0, i] = batch.step
            if self._may(batch, i):
                choice = self._choose(batch, own, i, health[k], sold, bought)
                if choice.profit > -np.inf:
                    ranked.append((-choice.profit, k))
        used = 0
        for _, k in sorted(ranked):
            i = int(rows[k])
            if used >= batch.room[0]:
                continue
            ready = batch.step - state.below_since[0, i] >= own.keepers.latency
            choice = self._choose(batch, own, i, health[k], sold, bought)
            willing = ready & (choice.profit - batch.gas_usd[0] >= own.keepers.min_profit)
            if choice.debt_slot < 0 or not willing.any():
                continue
            keeper = int(np.flatnonzero(willing)[0])
            used += 1
            self._carry_out(batch, own, pools, i, health[k], keeper, choice, addresses[i], sold, bought)

    def _may(self, batch: Batch, i: int) -> bool:
        state, world = batch.state, batch.world
        v = int(world.row_venue[i])
        rules = world.rules
        if state.paused_until[0, v] >= batch.step:
            return False
        if batch.step - state.below_since[0, i] < rules.delay_steps[v]:
            return False
        used = [*world.coll_at[i][state.coll[0, i] > 0.0], *world.debt_at[i][state.debt[0, i] > 0.0]]
        if not state.trusted[0, used].all():
            return False
        if not rules.halt_toxic[v]:
            return True
        have = float((state.coll[0, i] * (state.supply_index * state.oracle)[0, world.coll_at[i]]).sum())
        owe = float((state.debt[0, i] * (state.borrow_index * state.oracle)[0, world.debt_at[i]]).sum())
        most = float(world.bonus[i][state.coll[0, i] > 0.0].max(initial=0.0))
        return not owe * (1.0 + most) > have

    def _choose(
        self, batch: Batch, own: KeepersMemo, i: int, health: float, sold: Float64, bought: Float64
    ) -> Choice:
        state = batch.state
        return best_liquidation(
            i,
            health,
            own.layout,
            batch.world.rules,
            state.coll[0],
            state.debt[0],
            state.supply_index[0],
            state.borrow_index[0],
            state.oracle[0],
            state.market[0],
            state.cash[0],
            sold,
            bought,
            self.depth.size[0],
            self.depth.lost[0],
            np.inf,
        )

    def _carry_out(
        self,
        batch: Batch,
        own: KeepersMemo,
        pools: dict[str, Pool],
        i: int,
        health: float,
        keeper: int,
        choice: Choice,
        address: str,
        sold: Float64,
        bought: Float64,
    ) -> None:
        state, world = batch.state, batch.world
        v, tokens = int(world.row_venue[i]), len(world.tokens)
        pool = pools[world.venues[v]]
        ra = int(world.coll_at[i, choice.coll_slot])
        rb = int(world.debt_at[i, choice.debt_slot])
        debt, collateral = world.book.tokens[rb % tokens], world.book.tokens[ra % tokens]
        held = state.coll[0, i, choice.coll_slot] * state.supply_index[0, ra]
        done = pool.liquidate(
            address,
            debt.symbol,
            collateral.symbol,
            raw_units(choice.repaid, debt.decimals),
            raw_units(choice.taken, collateral.decimals),
            _size(choice, held),
        )
        self.chain_events.append(ChainEvent(batch.step, i, rb, ra, health, choice, done))
        if done.revert is not None:
            return
        # What the contract left nothing of is gone here too, to the last bit: bad debts are booked by that.
        emptied = pool.amounts_raw(address, collateral.symbol)[0] == 0
        actual = choice._replace(
            repaid=done.repaid_raw / 10**debt.decimals,
            taken=held if emptied else done.taken_raw / 10**collateral.decimals,
            fee=(done.taken_raw - done.received_raw) / 10**collateral.decimals,
        )
        carry_out(
            0,
            i,
            keeper,
            actual,
            own.layout,
            world.rules,
            own.keepers,
            batch.gas_usd[0],
            state.coll,
            state.debt,
            state.supply_index,
            state.borrow_index,
            state.oracle,
            state.market,
            state.cash,
            state.reserves,
            state.deficit,
            state.borrowed,
            state.supplied,
            state.idle,
            state.inventory,
            state.unsold,
            state.order_flow,
            state.sold,
            state.bought,
            state.totals,
            sold,
            bought,
        )
        self._mirror(batch, pool, i, address)
        touch(
            0,
            v,
            i,
            int(world.venue_ptr[v]),
            state.anchor.dirty,
            state.anchor.dirty_list,
            state.anchor.dirty_count,
        )

    def _mirror(self, batch: Batch, pool: Pool, i: int, address: str) -> None:
        """Take the account's amounts from the contract, and keep the pool's books equal to it.

        What contracts round, they round for the pool: so many units go to its reserves. More is no rounding,
        and the engine's check of the books finds it.
        """
        state, world = batch.state, batch.world
        tokens = len(world.tokens)
        for at, amounts, index, side, total, sign in (
            (world.coll_at, state.coll, state.supply_index, 0, state.supplied, -1.0),
            (world.debt_at, state.debt, state.borrow_index, 1, state.borrowed, 1.0),
        ):
            for k in range(at.shape[1]):
                if world_amount(world, side, i, k) <= 0.0:
                    continue
                r = int(at[i, k])
                token = world.book.tokens[r % tokens]
                raw = pool.amounts_raw(address, token.symbol)[side]
                now = raw / 10**token.decimals / index[0, r]
                gap = now - amounts[0, i, k]
                total[0, r] += gap
                amounts[0, i, k] = now
                if abs(gap) * index[0, r] * 10**token.decimals <= ROUNDED_UNITS + 1e-12 * raw:
                    state.reserves[0, r] += sign * gap * index[0, r]


def _owed_less_claims(batch: Batch) -> Float64:
    state = batch.state
    owed = (state.borrowed + state.outside_debt) * state.borrow_index
    return np.asarray(owed - (state.supplied + state.idle) * state.supply_index)


def _size(choice: Choice, held: float) -> Size:
    if choice.taken >= held:
        return Size.ALL_COLLATERAL
    return Size.ALL_DEBT if choice.largest else Size.AMOUNT


def world_amount(world: World, side: int, i: int, k: int) -> float:
    """Return what a slot held at the start."""
    return float((world.coll if side == 0 else world.debt)[i, k])


def on_chain(run: Run, make_evm: Callable[[int], Evm]) -> tuple[Run, OnChainKeepers]:
    """Return a run with the venues' own bytecode instead of our rules, and the keepers that call it.

    Nothing is compiled, deployed or run for it, so a scenario is refused before anybody waits.

    Raises
    ------
    InputError
        If the scenario has what the bytecode cannot follow.
    """
    for venue in run.world.book.lending:
        require_supported(venue)
    acting = run.on()
    for channel in acting:
        if channel.kind not in ALLOWED:
            raise InputError(
                f"channel {channel.kind} changes accounts behind the contracts' back",
                fix=f"[channels.{channel.kind}] on = false, or --fidelity model",
            )
    keepers = [channel for channel in acting if isinstance(channel, KeepersChannel)]
    if not keepers:
        raise InputError("nobody liquidates in this scenario", fix="switch [channels.keepers] on")
    interest = any(channel.kind == "interest" for channel in acting)
    chain = OnChainKeepers(keepers[0], make_evm, interest)
    others = tuple(c for c in run.channels if c.kind not in ("keepers", "interest", "losses"))
    stands_in: Any = chain  # it is no strict model of settings, and does what one does
    return replace(run, channels=(*others, stands_in)), chain


def run_on_chain(
    run: Run, seed: int, path: int, make_evm: Callable[[int], Evm]
) -> tuple[PathResults, OnChainKeepers]:
    """Run one path with the venues' own bytecode.

    Returns the engine's results, whose books follow the contracts, and the `OnChainKeepers` with all events.

    Raises
    ------
    InputError
        See `on_chain`.
    """
    changed, chain = on_chain(run, make_evm)
    return run_paths(changed, seed, path, 1, record=True), chain
