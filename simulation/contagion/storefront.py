"""The store front of Compound III: what it has absorbed is for sale, at a discount, while it needs reserves.

Comet `buyCollateral` and `quoteCollateral`: collateral goes at the oracle's price less
``storeFrontPriceFactor * (1 - liquidationFactor)`` of it, for base tokens, while the market's own reserves
are below `targetReserves`. `simulation.protocols.compound_v3.comet` has it in integers. Compiled, and plain
Python too (``.py_func``); a purchase is settled as `simulation.contagion.settle` settles a liquidation.
"""

from __future__ import annotations

import numba
import numpy as np

from simulation.contagion.settle import HALVINGS, Depth, Keepers, Layout, affordable, loss, purse, trade
from simulation.contagion.state import Total
from simulation.contagion.world import VenueRules
from simulation.types import Bool, Float64, Int64

_REPAID, _SEIZED, _GAS, _PROFIT = map(int, (Total.REPAID, Total.SEIZED, Total.GAS, Total.KEEPER_PROFIT))


@numba.njit(cache=True)
def best_purchase(
    a: int,
    rb: int,
    held: float,
    discount: float,
    layout: Layout,
    oracle: Float64,
    market: Float64,
    sold: Float64,
    bought: Float64,
    size: Float64,
    lost: Float64,
    offset: int,
    capital: float,
    gas_usd: float,
) -> tuple[float, float, float, float]:
    """Return the most profitable purchase at a Compound III store front (Comet `quoteCollateral`).

    A purchase is a liquidation with the bonus ``1 / (1 - discount) - 1`` of which the protocol takes nothing.

    Parameters
    ----------
    a, rb, held
        Token that is for sale, the base token's reserve, and how many whole tokens there are.
    discount
        On the price that the venue believes.
    offset
        The venue's first reserve.
    layout, oracle, market, sold, bought, size, lost, capital, gas_usd
        See `best_liquidation`.

    Returns
    -------
    tuple of float
        Tokens bought, base tokens paid, profit before gas as if all were sold at once, and what buying the
        base tokens costs; no tokens where no size earns anything.
    """
    b = rb - offset
    ra = offset + a
    net_a, net_b = sold[a] - bought[a], sold[b] - bought[b]
    before_a = loss(abs(net_a), size[a], lost[a])
    before_b = loss(abs(net_b), size[b], lost[b])
    whole = held * oracle[ra] * (1.0 - discount) / oracle[rb]
    most = 1.0
    if capital < np.inf:
        bonus = 1.0 / (1.0 - discount) - 1.0
        most = (
            affordable(
                whole,
                np.inf,
                held,
                oracle[rb],
                oracle[ra],
                bonus,
                0.0,
                a,
                b,
                market,
                net_a,
                net_b,
                before_a,
                before_b,
                size,
                lost,
                capital,
                gas_usd,
                0.0,
            )
            / whole
        )
    best, best_pay, best_profit, best_cost = 0.0, 0.0, 0.0, 0.0
    for h in range(HALVINGS):
        got, pay = held * most * 0.5**h, whole * most * 0.5**h
        revenue, cost = trade(pay, got, a, b, market, net_a, net_b, before_a, before_b, size, lost)
        if revenue - cost > best_profit:
            best, best_pay, best_profit, best_cost = got, pay, revenue - cost, cost
    return best, best_pay, best_profit, best_cost


@numba.njit(cache=True)
def buy_collateral_paths(
    layout: Layout,
    rules: VenueRules,
    keepers: Keepers,
    penalty: Float64,
    base: Int64,
    target: Float64,
    gas_usd: Float64,
    room: Int64,
    depth: Depth,
    trusted: Bool,
    oracle: Float64,
    market: Float64,
    cash: Float64,
    reserves: Float64,
    inventory: Float64,
    unsold: Float64,
    order_flow: Float64,
    sold_tokens: Float64,
    bought_tokens: Float64,
    totals: Float64,
    sold_usd: Float64,
    bought_usd: Float64,
) -> None:
    """Let keepers buy what Compound III venues have absorbed, where that pays (Comet `buyCollateral`).

    One purchase of each token and venue a step, the most profitable first, each a transaction that takes a
    place in the block like a liquidation. Who buys is decided as there, but that latency does not count and
    nothing is bid: whoever absorbs pays gas and earns nothing by that alone. The contract sells while its
    reserves are below their target and asks before each sale, so that the last may take them beyond it. A
    price that guards keep liquidations from acting on sells nothing either.

    Parameters
    ----------
    penalty
        Liquidation penalty of each reserve, shape (R,); the buyer's discount is `rules.storefront` of it.
    base
        Reserve of each venue's base token, -1 for other protocols, shape (V,).
    target
        Base tokens of reserves from which on nothing is for sale, shape (V,).
    room
        How many transactions the block still takes, shape (P,).
    keepers, gas_usd, depth, trusted, inventory, unsold, sold_usd, bought_usd
        See `settle_paths`.
    """
    places = len(base) * layout.tokens
    for p in range(oracle.shape[0]):
        sold, bought = sold_usd[p], bought_usd[p]
        first = np.full(places, -np.inf)
        for k in range(places):
            v, a = k // layout.tokens, k % layout.tokens
            held = _for_sale(v, a, base[v], target[v], layout, trusted[p], oracle[p], cash[p], reserves[p])
            if held > 0.0:
                first[k] = best_purchase(
                    a,
                    base[v],
                    held,
                    rules.storefront[v] * penalty[k],
                    layout,
                    oracle[p],
                    market[p],
                    sold,
                    bought,
                    depth.size[p],
                    depth.lost[p],
                    v * layout.tokens,
                    np.inf,
                    gas_usd[p],
                )[2]
        used = 0
        for k in np.argsort(-first, kind="mergesort"):
            if first[k] == -np.inf or used >= room[p]:
                break
            v, a = k // layout.tokens, k % layout.tokens
            b = base[v] - v * layout.tokens
            # What was sold before may have filled the reserves.
            held = _for_sale(v, a, base[v], target[v], layout, trusted[p], oracle[p], cash[p], reserves[p])
            if held <= 0.0:
                continue
            for h in range(len(keepers.flash)):
                flash = keepers.flash[h] == 1
                if not flash and inventory[p, h] <= gas_usd[p]:
                    continue
                got, pay, profit, cost = best_purchase(
                    a,
                    base[v],
                    held,
                    rules.storefront[v] * penalty[k],
                    layout,
                    oracle[p],
                    market[p],
                    sold,
                    bought,
                    depth.size[p],
                    depth.lost[p],
                    v * layout.tokens,
                    np.inf if flash else inventory[p, h],
                    gas_usd[p],
                )
                if got <= 0.0 or profit <= gas_usd[p] or profit - gas_usd[p] < keepers.min_profit[h]:
                    continue
                gain = profit - gas_usd[p]
                gets, paid = got * market[p, a], pay * market[p, b]
                cash[p, k] -= got
                reserves[p, k] -= got
                cash[p, base[v]] += pay
                reserves[p, base[v]] += pay
                bought[b] += paid
                order_flow[p, b] += paid
                bought_tokens[p, b] += pay
                if flash:
                    sold[a] += gets
                    order_flow[p, a] -= gets
                    sold_tokens[p, a] += got
                else:
                    inventory[p, h] = purse(inventory[p, h], cost + gas_usd[p])
                    unsold[p, h, a] += got
                    gain = gets - cost - gas_usd[p]
                totals[p, v, _PROFIT] += gain
                totals[p, v, _GAS] += gas_usd[p]
                totals[p, v, _SEIZED] += gets
                totals[p, v, _REPAID] += paid
                used += 1
                break


@numba.njit(cache=True)
def _for_sale(
    v: int,
    a: int,
    base: int,
    target: float,
    layout: Layout,
    trusted: Bool,
    oracle: Float64,
    cash: Float64,
    reserves: Float64,
) -> float:
    """Return tokens `a` that venue `v` sells at its store front, none where its reserves are full."""
    r = v * layout.tokens + a
    if base < 0 or r == base or oracle[r] <= 0.0 or oracle[base] <= 0.0 or reserves[base] >= target:
        return 0.0
    if not (trusted[r] and trusted[base]):
        return 0.0
    return float(max(min(reserves[r], cash[r]), 0.0))
