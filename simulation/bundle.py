"""One bundle over several markets: who is liquidated in which order, where all sell in the same pools.

The markets share nothing but the pools and the liquidator's own funds, so what a plan in one of them takes is
missing for the plans behind it, whichever market those are in. Profits are compared in the quote currency of
the prices given, which must be one for all markets.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, TypeVar

from oracle.types import PriceSnapshot
from simulation.amm.uniswap_v3 import PoolState, quote_exact_in
from simulation.liquidation import LiquidationModel, NoPlan, PlanSettings, plan_liquidation
from simulation.types import Asset, LiquidationPlan, Reason

K = TypeVar("K", bound=Hashable)

TOLERANCE: Final = Fraction(1, 16)
"""Where many are in line, a plan takes its turn unless another was worth this part more before."""
EXACT_UP_TO: Final = 64
"""Accounts in line up to which the order is exact; beyond, each turn would have most planned again."""


@dataclass(frozen=True, slots=True)
class MarketBook:
    """The accounts of one market that a bundle is to be made from.

    Attributes
    ----------
    model, market
        The protocol's adapter, and its market at the time of the block that the bundle is meant for.
    accounts
        Key to exact state.
    prices
        The protocol's prices, in the currency that all markets of the bundle are compared in.
    settings
        Gas, least profit and funding in this market. Own funds are those of the first market for all.
    """

    model: LiquidationModel[Any, Any]
    market: Any
    accounts: Mapping[Any, Any]
    prices: PriceSnapshot
    settings: PlanSettings


@dataclass(frozen=True, slots=True)
class _Place:
    """An account in line."""

    book: MarketBook
    key: Any
    assets: Mapping[str, Asset]


def plan_markets(
    books: Sequence[MarketBook], pools: Mapping[str, PoolState], *, most: int | None = None
) -> dict[Any, LiquidationPlan | Reason]:
    """Plan for many accounts of several markets against one set of pools, the most profitable first.

    Each plan sees the pools, and own funds, as the plans before it leave them. An account whose turn comes is
    planned again when another was planned since; it keeps its turn when it is worth as much as the next one
    was, and goes back in line otherwise. So every plan is exact for its place, and the order is that of net
    profit: exactly where up to `EXACT_UP_TO` are in line, else to `TOLERANCE`.

    Parameters
    ----------
    books
        Keys must differ over all of them.
    pools
        Pools by address, all at one block.
    most
        Plans to make at most; the accounts behind them get `Reason.LIMIT`.

    Returns
    -------
    dict
        Key to plan or reason: plans in the order in which they are to be executed, then those without one in
        the order given.
    """
    places = [_Place(b, key, _assets(b)) for b in books for key in b.accounts]
    means = _Means(pools, books[0].settings.inventory_raw if books else None)
    plans: dict[Any, LiquidationPlan | Reason] = {}
    refused: dict[Any, Reason] = {}
    # Value negated (a heap gives the least first), place, number of plans it was worked out behind.
    line: list[tuple[Fraction, int, int, LiquidationPlan]] = []

    def planned(place: _Place) -> LiquidationPlan | None:
        found = means.plan(place)
        if isinstance(found, NoPlan):
            refused[place.key] = found.reason
            return None
        return found

    for i, place in enumerate(places):
        if (plan := planned(place)) is not None:
            heapq.heappush(line, (-_value(place, plan), i, 0, plan))
    slack = 1 + (TOLERANCE if len(line) > EXACT_UP_TO else 0)
    while line and (most is None or len(plans) < most):
        _, i, behind, found = heapq.heappop(line)
        place, again = places[i], found
        if behind < len(plans):
            fresh = planned(place)
            if fresh is None:
                continue
            again = fresh
            value = _value(place, again)
            if line and value * slack < -line[0][0]:
                heapq.heappush(line, (-value, i, len(plans), again))
                continue
        plans[place.key] = again
        means = means.after(again)
    refused |= {places[i].key: Reason.LIMIT for _, i, _, _ in line}
    return plans | {place.key: refused[place.key] for place in places if place.key in refused}


def _assets(book: MarketBook) -> dict[str, Asset]:
    return {asset.address: asset for asset in book.model.assets(book.market)}


def _value(place: _Place, plan: LiquidationPlan) -> Fraction:
    """Return the net profit in the currency of the prices."""
    asset = place.assets[plan.debt_asset]
    price_e8 = place.book.prices.price_e8(asset.symbol) or 0
    return Fraction(plan.net_profit_raw * price_e8, 10 ** (asset.decimals + 8))


@dataclass(frozen=True, slots=True)
class _Means:
    """What a plan uses up, and the next one finds changed."""

    pools: Mapping[str, PoolState]
    inventory_raw: Mapping[str, int] | None

    def plan(self, place: _Place) -> LiquidationPlan | NoPlan:
        book = place.book
        settings = replace(book.settings, inventory_raw=self.inventory_raw)
        return plan_liquidation(
            book.model, book.market, book.accounts[place.key], self.pools, book.prices, settings
        )

    def after(self, plan: LiquidationPlan) -> _Means:
        if not plan.from_inventory:
            return replace(self, pools=quote_exact_in(self.pools, plan.path, plan.seized_raw)[1])
        if self.inventory_raw is None:
            return self
        left_raw = self.inventory_raw[plan.debt_asset] - plan.debt_to_cover_raw
        return replace(self, inventory_raw={**self.inventory_raw, plan.debt_asset: left_raw})
