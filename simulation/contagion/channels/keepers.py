"""Keepers: they find accounts below 1, liquidate what pays, and sell what they seized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.scan import Scanner
from simulation.contagion.settle import (
    EVENT_FIELDS,
    Keepers,
    Layout,
    loss_after,
    settle_paths,
)
from simulation.contagion.state import Total
from simulation.contagion.storefront import buy_collateral_paths
from simulation.contagion.world import COMPOUND_V3, World
from simulation.types import Float64, Int64

EVENTS_A_STEP: Final = 100_000
"""Most liquidations of one step that are recorded."""


class KeeperSpec(StrictModel):
    """One keeper.

    Attributes
    ----------
    name
        For reports.
    funding
        ``flash``: borrows what it repays and sells all in the same block. ``inventory``: repays from its own
        funds and sells over time.
    capital_usd
        Own funds of an inventory keeper: what it repays, what buying that loses to depth, gas and bids come
        out of them, and what its sales bring goes there.
    latency_steps
        Steps between an account's fall below 1 and the keeper's transaction.
    min_profit_usd
        Least profit after gas that it acts for.
    bid
        Part of its profit that it pays for its place in the block, in [0, 1].
    sell_per_step
        Part of its unsold collateral that an inventory keeper sells in each step.
    """

    name: str = "keeper"
    funding: Literal["flash", "inventory"] = "flash"
    capital_usd: Annotated[float, Field(ge=0)] = 0.0
    latency_steps: Annotated[int, Field(ge=0)] = 0
    min_profit_usd: float = 0.0
    bid: Annotated[float, Field(ge=0, le=1)] = 0.5
    sell_per_step: Annotated[float, Field(gt=0, le=1)] = 0.1


@dataclass(slots=True)
class KeepersMemo:
    """What the channel keeps: buffers and constants of the kernels.

    Attributes
    ----------
    scanner, layout, keepers
        See the classes.
    sell
        Part of the unsold that each keeper sells in a step.
    seen
        Prices at which what keepers hold has been counted, shape (P, A).
    gained
        US dollars that what inventory keepers seized has brought them since, shape (P,).
    penalty, base, target
        See `buy_collateral_paths`.
    events, event_path
        Buffers of the record.
    """

    scanner: Scanner
    layout: Layout
    keepers: Keepers
    sell: Float64
    seen: Float64
    gained: Float64
    penalty: Float64
    base: Int64
    target: Float64
    events: Float64
    event_path: Int64


@channels.register("keepers")
class KeepersChannel(Channel):
    """Several keepers, ordered by what they bid.

    Off, nobody liquidates.

    Attributes
    ----------
    keepers
        Who they are; one with flash loans and no latency by default.
    rounds
        Liquidations of one account in one step. More than one clears a step further; the block's room holds
        for all of them together.
    prune
        Whether accounts that cannot be below 1 are passed over; the result is the same.
    """

    kind: ClassVar[Literal["keepers"]] = "keepers"
    order: ClassVar[int] = 60
    always: ClassVar[bool] = True

    keepers: Annotated[tuple[KeeperSpec, ...], Field(min_length=1)] = (KeeperSpec(),)
    rounds: Annotated[int, Field(ge=1, le=64)] = 1
    prune: bool = True

    def check(self, world: World) -> None:
        """Refuse an inventory keeper without funds."""
        for keeper in self.keepers:
            if keeper.funding == "inventory" and keeper.capital_usd <= 0.0:
                raise InputError(
                    f"channels.keepers: {keeper.name} has inventory funding and capital_usd = "
                    f"{keeper.capital_usd:g}",
                    fix="give it capital, or funding = 'flash'",
                )

    def prepare(self, batch: Batch) -> KeepersMemo:
        """Return buffers and constants; funds are handed out."""
        world, who = batch.world, self.ordered()
        batch.state.inventory[:] = [k.capital_usd for k in who]
        limit = EVENTS_A_STEP if batch.recording else 0
        return KeepersMemo(
            scanner=Scanner(world, batch.state.paths, prune=self.prune),
            layout=layout_of(world),
            keepers=Keepers(
                np.array([k.funding == "flash" for k in who], dtype=np.int64),
                np.array([k.latency_steps for k in who], dtype=np.int64),
                np.array([k.min_profit_usd for k in who]),
                np.array([k.bid for k in who]),
            ),
            sell=np.array([k.sell_per_step for k in who]),
            seen=batch.state.market.copy(),
            gained=np.zeros(batch.state.paths),
            penalty=_penalties(world),
            base=_bases(world),
            target=_targets(world),
            events=np.zeros((limit, len(EVENT_FIELDS))),
            event_path=np.zeros(limit, dtype=np.int64),
        )

    def ordered(self) -> tuple[KeeperSpec, ...]:
        """Return the keepers, the highest bid first."""
        return tuple(sorted(self.keepers, key=lambda k: -k.bid))

    def act(self, batch: Batch, memo: KeepersMemo) -> None:
        """Sell what is left from before, then find and liquidate."""
        state, world = batch.state, batch.world
        room = batch.room.copy()
        memo.gained += held_gain(batch, memo)
        memo.seen = state.market.copy()
        self._sell(batch, memo)
        # Whoever comes later in the step, in a later round or at a store front, trades after all of these,
        # and everybody after owners and arbitrageurs who have traded in it already.
        sold_usd, bought_usd = traded_before(state.order_flow)
        goes_on = np.ones(state.paths, dtype=np.bool_)
        for _ in range(self.rounds):
            memo.scanner.scan(state, 1.0)
            # A path on which the last round did nothing is done, whatever the others of the batch do.
            memo.scanner.count[~goes_on] = 0
            if not memo.scanner.count.any():
                break
            before = state.totals[:, :, Total.LIQUIDATIONS].sum(axis=1)
            recorded = settle_paths(
                batch.step,
                memo.scanner.found,
                memo.scanner.health,
                memo.scanner.count,
                memo.layout,
                world.rules,
                memo.keepers,
                batch.ask_depth(),
                batch.gas_usd,
                room,
                state.paused_until,
                state.trusted,
                state.coll,
                state.debt,
                state.supply_index,
                state.borrow_index,
                state.oracle,
                state.market,
                state.cash,
                state.reserves,
                state.deficit,
                state.idle,
                state.borrowed,
                state.supplied,
                state.below_since,
                state.below_last,
                state.inventory,
                state.unsold,
                state.order_flow,
                state.sold,
                state.bought,
                state.totals,
                sold_usd,
                bought_usd,
                state.anchor.dirty,
                state.anchor.dirty_list,
                state.anchor.dirty_count,
                memo.events,
                memo.event_path,
            )
            if recorded:
                self._record(batch, memo, recorded)
            done = state.totals[:, :, Total.LIQUIDATIONS].sum(axis=1) - before
            goes_on &= done > 0.0
            room -= done.astype(np.int64)
        if (memo.base >= 0).any():
            self._buy_collateral(batch, memo, room, sold_usd, bought_usd)

    def _sell(self, batch: Batch, memo: KeepersMemo) -> None:
        """Sell a part of what keepers hold.

        All sell into one market: what that loses to its depth each bears by his share.
        """
        state = batch.state
        if not state.unsold.any():
            return
        tokens = state.unsold * memo.sell[None, :, None]
        state.unsold -= tokens
        usd = tokens * state.market[:, None, :]
        total, depth = usd.sum(axis=1), batch.ask_depth()
        kept = np.ones_like(total)
        for p, a in zip(*np.nonzero(total), strict=True):
            net = -state.order_flow[p, a]
            kept[p, a] -= loss_after(net, total[p, a], depth.size[p, a], depth.lost[p, a]) / total[p, a]
        state.sold += tokens.sum(axis=1)
        state.order_flow -= total
        state.inventory += (usd * kept[:, None, :]).sum(axis=2)
        memo.gained -= (total * (1.0 - kept)).sum(axis=1)

    def _buy_collateral(
        self, batch: Batch, memo: KeepersMemo, room: Int64, sold_usd: Float64, bought_usd: Float64
    ) -> None:
        state = batch.state
        buy_collateral_paths(
            memo.layout,
            batch.world.rules,
            memo.keepers,
            memo.penalty,
            memo.base,
            memo.target,
            batch.gas_usd,
            room,
            batch.ask_depth(),
            state.trusted,
            state.oracle,
            state.market,
            state.cash,
            state.reserves,
            state.inventory,
            state.unsold,
            state.order_flow,
            state.sold,
            state.bought,
            state.totals,
            sold_usd,
            bought_usd,
        )

    def columns(self, batch: Batch, memo: KeepersMemo) -> dict[str, Float64]:
        """Return what inventory keepers have gained since they liquidated, US dollars.

        ``inventory_gain_usd``: what the price of all that they seized has done from the liquidation until it
        was sold, or until the end, less what its sales lost to depth. Their funds and what they hold at the
        market's prices are what they began with, the profit booked when they liquidated, and this.
        """
        return {"inventory_gain_usd": memo.gained + held_gain(batch, memo)}

    def column_names(self, world: World) -> tuple[str, ...]:
        """See `Channel.column_names`."""
        return ("inventory_gain_usd",)

    def _record(self, batch: Batch, memo: KeepersMemo, recorded: int) -> None:
        columns = {name: memo.events[:recorded, k].copy() for k, name in enumerate(EVENT_FIELDS)}
        batch.events.append({"step": batch.step, "path": memo.event_path[:recorded].copy(), **columns})


def held_gain(batch: Batch, memo: KeepersMemo) -> Float64:
    """Return what prices have done to what keepers hold since it was counted, US dollars, shape (P,)."""
    state = batch.state
    return np.asarray((state.unsold.sum(axis=1) * (state.market - memo.seen)).sum(axis=1))


def traded_before(order_flow: Float64) -> tuple[Float64, Float64]:
    """Return US dollars sold and bought of each token in the step so far, as `settle_paths` counts them."""
    return np.maximum(-order_flow, 0.0), np.maximum(order_flow, 0.0)


def layout_of(world: World) -> Layout:
    """Return what the kernels need of a world."""
    return Layout(
        world.coll_at,
        world.debt_at,
        world.bonus,
        world.row_venue,
        world.venue_ptr,
        world.reserves.protocol_fee,
        len(world.tokens),
    )


def _penalties(world: World) -> Float64:
    """Return 1 less the liquidation factor of each reserve, which only Compound III asks for.

    A policy may have changed that of the accounts' collateral; the book's stands where nobody has any.
    """
    out = np.zeros(len(world.cash))
    for v, venue in enumerate(world.book.lending):
        for reserve in venue.reserves:
            at = v * len(world.tokens) + world.token(reserve.token)
            bonus = reserve.liquidation_bonus_bps / 1e4
            out[at] = bonus / (1.0 + bonus)
    held = (world.coll > 0.0) & (world.rules.kind == COMPOUND_V3)[world.row_venue][:, None]
    out[world.coll_at[held]] = world.bonus[held]
    return out


def _bases(world: World) -> Int64:
    """Return the base token's reserve of Compound III venues: their last one."""
    out = np.full(len(world.venues), -1, dtype=np.int64)
    for v, venue in enumerate(world.book.lending):
        if world.rules.kind[v] == COMPOUND_V3:
            out[v] = v * len(world.tokens) + world.token(venue.reserves[-1].token)
    return out


def _targets(world: World) -> Float64:
    """Return the reserves from which on nothing is for sale: the book's, without end where it has none."""
    wanted = [venue.target_reserves for venue in world.book.lending]
    return np.array([np.inf if target is None else target for target in wanted])
