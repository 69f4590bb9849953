"""Liquidations of one step: which pay, in which order, what they move.

Float columns of the protocols' rules; the exact integer models in `simulation.protocols` and the bytecode are
what they are held against. Amounts are whole tokens, values US dollars. Everything here is compiled, and runs
as plain Python too (``.py_func``).

A liquidator repays ``r`` of debt token ``b`` and receives ``r * o_b / o_a * (1 + bonus)`` of collateral ``a``
at the prices ``o`` that the venue believes, sells it at the market's price and buys the debt back there. Both
trades lose to the market's depth. With ``x`` the US dollars sold less bought of a token in the step already,
by whomever, and ``L`` what `loss` says of as much sold from rest, even in its argument:

    profit = s * m_a - r * m_b - (L_a(x_a + s * m_a) - L_a(x_a)) - (L_b(x_b - r * m_b) - L_b(x_b)) - gas

Of the sizes 1, 1/2, 1/4 … 1/16 of what the rules allow, and the one that leaves as little debt as they allow,
the one with the most profit is taken, over all pairs. Liquidations are carried out in falling order of the
profit that they would have made alone, as a priority-fee auction orders them, while the block has room.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numba
import numpy as np

from simulation.contagion.scan import touch
from simulation.contagion.state import Total
from simulation.contagion.world import COMPOUND_V3, VenueRules
from simulation.types import Bool, Float64, Int32, Int64

HALVINGS: Final = 5
"""Sizes tried of each pair."""
ROOM: Final = 1.0 + 1e-6
"""What the size that leaves as little as the rules allow leaves of it: no rounding refuses it then, neither
that of floats here nor that of token units in a contract."""

_LIQUIDATIONS, _REPAID, _SEIZED, _BONUS = map(
    int, (Total.LIQUIDATIONS, Total.REPAID, Total.SEIZED, Total.BONUS)
)
_FEES, _GAS, _PROFIT, _TOXIC = map(int, (Total.FEES, Total.GAS, Total.KEEPER_PROFIT, Total.TOXIC))
_BIDS = int(Total.BIDS)
_WRITTEN_OFF, _UNPROFITABLE, _STUCK = map(int, (Total.WRITTEN_OFF, Total.UNPROFITABLE, Total.STUCK))
_FAILED, _HALTED = int(Total.FAILED_TXS), int(Total.HALTED)
_SUPPLIERS, _FROM_RESERVES = int(Total.FROM_SUPPLIERS), int(Total.FROM_RESERVES)

EVENT_FIELDS: Final = (
    "row",
    "debt_reserve",
    "collateral_reserve",
    "keeper",
    "health_factor",
    "repaid",
    "seized",
    "fee",
    "profit_usd",
    "written_off_usd",
)
"""Columns of the record of liquidations."""


@numba.njit(cache=True, inline="always")
def loss(x: float, size: Float64, lost: Float64) -> float:
    """Return US dollars that trades worth `x` lose to the market's depth, by linear interpolation.

    Beyond the last point of the table nothing more is paid for.
    """
    if x <= 0.0:
        return 0.0
    last = len(size) - 1
    if lost[last] == 0.0 and x < size[last]:
        # Losses never fall with size.
        return 0.0
    if x >= size[last]:
        return lost[last] + (x - size[last])  # type: ignore[no-any-return]
    k = np.searchsorted(size, x)
    low_x = size[k - 1] if k > 0 else 0.0
    low_y = lost[k - 1] if k > 0 else 0.0
    return low_y + (lost[k] - low_y) * (x - low_x) / (size[k] - low_x)  # type: ignore[no-any-return]


@numba.njit(cache=True, inline="always")
def loss_after(net: float, x: float, size: Float64, lost: Float64) -> float:
    """Return US dollars that a trade loses where the market was displaced in the same step already.

    What is lost is counted from the market's price at the step's start. Who sells into what others bought
    gets more than that, and so does who buys what others sold pay less: the result is then negative. Coming
    back to where the market was costs what going there brought, so that nobody gains by going round.

    Parameters
    ----------
    net
        US dollars sold less bought in the step so far.
    x
        US dollars sold, negative when bought.
    size, lost
        See `Depth`; what purchases lose is taken to be what sales of the same size lose.
    """
    return loss(abs(net + x), size, lost) - loss(abs(net), size, lost)


@numba.njit(cache=True, inline="always")
def bonus_now(own: float, hf: float, ltv: float, cap: float, slope: float, solvent: int) -> float:
    """Return the bonus that a venue pays: the reserve's own, under the venue's policy."""
    b = own
    if slope > 0.0:
        b = min(b, slope * max(1.0 - hf, 0.0))
    b = min(b, cap)
    if solvent and ltv > 0.0:
        b = min(b, max(1.0 / ltv - 1.0, 0.0))
    return b


@numba.njit(cache=True)
def repay_limit(
    debt: float,
    debt_usd: float,
    coll_usd: float,
    total_debt_usd: float,
    hf: float,
    close_factor: float,
    full_below: float,
    whole_position: int,
    min_full: float,
) -> float:
    """Return the most of one token's debt that one liquidation may repay, whole tokens.

    Aave V2 `LendingPoolCollateralManager.liquidationCall`, Aave V3 and V3.6
    `LiquidationLogic.executeLiquidationCall`; Morpho Blue and Compound III have no limit.
    """
    if hf <= full_below:
        return debt
    if whole_position:
        if coll_usd < min_full or debt_usd < min_full:
            return debt
        half = total_debt_usd * close_factor
        return debt if debt_usd <= half else debt * half / debt_usd
    return debt * close_factor


@numba.njit(cache=True)
def seize(
    repay: float,
    debt: float,
    coll: float,
    price_debt: float,
    price_coll: float,
    bonus: float,
    leftover: float,
) -> tuple[float, float]:
    """Return debt repaid and collateral taken for an offer, both zero when the rules refuse it.

    `leftover` is what a partial liquidation has to leave on both sides, US dollars.
    """
    taken = repay * price_debt / price_coll * (1.0 + bonus)
    if taken >= coll:
        taken = coll
        repay = min(repay, coll * price_coll / (price_debt * (1.0 + bonus)))
    partial = leftover > 0.0 and repay < debt and taken < coll
    if partial and min((debt - repay) * price_debt, (coll - taken) * price_coll) < leftover:
        return 0.0, 0.0
    return repay, taken


@numba.njit(cache=True)
def trade(
    repay: float,
    got: float,
    a: int,
    b: int,
    market: Float64,
    net_a: float,
    net_b: float,
    before_a: float,
    before_b: float,
    size: Float64,
    lost: Float64,
) -> tuple[float, float]:
    """Return what selling `got` of token `a` at once brings and buying `repay` of `b` costs, US dollars.

    `loss_after`, of which what belongs to the market and not to the trade is given, as many trades are asked
    about in the same one. Where both are one token it is bought first and then sold into the same market, so
    that together only the difference loses to depth, and own funds pay what buying loses.

    Parameters
    ----------
    net_a, net_b
        US dollars sold less bought of each token in the step so far.
    before_a, before_b
        `loss` of as much.
    """
    revenue, cost = got * market[a], repay * market[b]
    if a == b:
        net_a = net_b - cost
        before_a = loss(abs(net_a), size[a], lost[a])
    revenue -= loss(abs(net_a + revenue), size[a], lost[a]) - before_a
    cost += loss(abs(net_b - cost), size[b], lost[b]) - before_b
    return revenue, cost


@numba.njit(cache=True)
def outlay(revenue: float, cost: float, gas_usd: float, bid: float) -> float:
    """Return US dollars that a keeper pays before it has sold anything: the debt, gas, and its bid."""
    return cost + gas_usd + bid * max(revenue - cost - gas_usd, 0.0)


@numba.njit(cache=True)
def affordable(
    most: float,
    owed: float,
    held: float,
    price_debt: float,
    price_coll: float,
    bonus: float,
    fee_rate: float,
    a: int,
    b: int,
    market: Float64,
    net_a: float,
    net_b: float,
    before_a: float,
    before_b: float,
    size: Float64,
    lost: Float64,
    capital: float,
    gas_usd: float,
    bid: float,
) -> float:
    """Return the largest offer, at most `most`, whose `outlay` own funds pay; see `seize`, `trade`.

    The outlay rises with the offer, along a line that bends little: false position finds where it is all of
    the funds (Illinois variant, Dowell and Jarratt 1971, recalled), to a part of 1e-13 and from below.
    """
    if capital <= gas_usd:
        return 0.0
    low, high, offer = 0.0, most, most
    below, above, side = gas_usd - capital, 0.0, 0
    for _ in range(200):
        repaid, taken = seize(offer, owed, held, price_debt, price_coll, bonus, 0.0)
        got = taken - (taken - taken / (1.0 + bonus)) * fee_rate
        revenue, cost = trade(repaid, got, a, b, market, net_a, net_b, before_a, before_b, size, lost)
        short = outlay(revenue, cost, gas_usd, bid) - capital
        if short <= 0.0:
            low = offer
            if low == most or short >= -1e-13 * capital:
                break
            below = short + 5e-14 * capital
            above *= 0.5 if side < 0 else 1.0
            side = -1
        else:
            high, above = offer, short + 5e-14 * capital
            below *= 0.5 if side > 0 else 1.0
            side = 1
        if high - low <= 1e-15 * high:
            break
        offer = (low * above - high * below) / (above - below)
        if not low < offer < high:
            offer = 0.5 * (low + high)
    return low


class Layout(NamedTuple):
    """What the kernels need of a `World`: see there.

    Attributes
    ----------
    coll_at, debt_at, bonus, row_venue, venue_ptr, fee_rate
        As in `World` and its reserves.
    tokens
        Number of tokens.
    """

    coll_at: Int32
    debt_at: Int32
    bonus: Float64
    row_venue: Int32
    venue_ptr: Int64
    fee_rate: Float64
    tokens: int


class Keepers(NamedTuple):
    """Who liquidates, the one whose bid is first served standing first; arrays of shape (H,).

    Attributes
    ----------
    flash
        1 where flash loans pay, so that own funds do not bound a liquidation and all is sold at once. The
        others pay the purchase of the debt, gas and bids out of their own funds, and keep what they seize.
    latency
        Steps from the one in which an account falls below 1 to the first in which the keeper acts.
    min_profit
        US dollars after gas.
    bid
        Part of the profit that is paid for the place in the block.
    """

    flash: Int64
    latency: Int64
    min_profit: Float64
    bid: Float64


class Depth(NamedTuple):
    """What trades lose to the market's depth, on each path.

    Attributes
    ----------
    size
        US dollars traded in a step, rising, shape (P, A, K).
    lost
        US dollars lost at that size, shape (P, A, K).
    """

    size: Float64
    lost: Float64


class Choice(NamedTuple):
    """The best liquidation of an account; `debt_slot` is -1 when there is none.

    Attributes
    ----------
    debt_slot, coll_slot
        The pair.
    repaid, taken, fee
        Whole tokens: debt repaid, collateral taken from the account, and the protocol's part of it.
    bonus
        That the venue pays.
    profit
        US dollars, before gas, with the collateral sold at once.
    largest
        Whether it repays all that the rules allow.
    cost
        US dollars that buying the debt costs.
    """

    debt_slot: int
    coll_slot: int
    repaid: float
    taken: float
    fee: float
    bonus: float
    profit: float
    largest: bool
    cost: float


@numba.njit(cache=True)
def account_values(
    i: int,
    layout: Layout,
    coll: Float64,
    debt: Float64,
    supply_index: Float64,
    borrow_index: Float64,
    price: Float64,
) -> tuple[float, float]:
    """Return the value of all collateral and of all debt of row `i` at the prices of its venue's reserves."""
    have, owe = 0.0, 0.0
    for k in range(coll.shape[1]):
        r = layout.coll_at[i, k]
        have += coll[i, k] * supply_index[r] * price[r]
    for k in range(debt.shape[1]):
        r = layout.debt_at[i, k]
        owe += debt[i, k] * borrow_index[r] * price[r]
    return have, owe


@numba.njit(cache=True)
def best_liquidation(
    i: int,
    hf: float,
    layout: Layout,
    rules: VenueRules,
    coll: Float64,
    debt: Float64,
    supply_index: Float64,
    borrow_index: Float64,
    oracle: Float64,
    market: Float64,
    cash: Float64,
    sold: Float64,
    bought: Float64,
    size: Float64,
    lost: Float64,
    capital: float,
    gas_usd: float = 0.0,
    bid: float = 0.0,
) -> Choice:
    """Return the most profitable liquidation of row `i` of one path.

    Parameters
    ----------
    i, hf
        The row, and its health factor.
    layout, rules
        See the classes.
    coll, debt, supply_index, borrow_index, oracle, cash
        Of one path, see `State`.
    market
        Market prices, shape (A,).
    sold, bought
        US dollars that were sold and bought of each token in this step, by whomever, shape (A,).
    size, lost
        See `Depth`, of one path.
    capital
        US dollars of own funds, which pay for the debt, gas and the bid; infinite with a flash loan.
    gas_usd, bid
        What a liquidation's gas costs, and the part of the profit that is bid; they bound nothing but what
        own funds can pay.
    """
    v = layout.row_venue[i]
    offset = v * layout.tokens
    have, owe = account_values(i, layout, coll, debt, supply_index, borrow_index, oracle)
    ltv = owe / have if have > 0.0 else np.inf
    best = Choice(-1, -1, 0.0, 0.0, 0.0, 0.0, -np.inf, False, 0.0)
    for d in range(debt.shape[1]):
        rb = layout.debt_at[i, d]
        b = rb - offset
        owed = debt[i, d] * borrow_index[rb]
        if owed <= 0.0 or oracle[rb] <= 0.0:
            continue
        net_b = sold[b] - bought[b]
        before_b = loss(abs(net_b), size[b], lost[b])
        for c in range(coll.shape[1]):
            ra = layout.coll_at[i, c]
            a = ra - offset
            held = coll[i, c] * supply_index[ra]
            if held <= 0.0 or oracle[ra] <= 0.0:
                continue
            net_a = sold[a] - bought[a]
            before_a = loss(abs(net_a), size[a], lost[a])
            bonus = bonus_now(
                layout.bonus[i, c], hf, ltv, rules.bonus_cap[v], rules.bonus_slope[v], rules.solvent_bonus[v]
            )
            most = repay_limit(
                owed,
                owed * oracle[rb],
                held * oracle[ra],
                owe,
                hf,
                rules.close_factor[v],
                rules.full_below[v],
                rules.whole_position[v],
                rules.min_full[v],
            )
            if capital < np.inf:
                most = affordable(
                    most,
                    owed,
                    held,
                    oracle[rb],
                    oracle[ra],
                    bonus,
                    layout.fee_rate[ra],
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
                    bid,
                )
            for h in range(HALVINGS + 1):
                offer = most * 0.5**h
                if h == HALVINGS:
                    offer = min(most, owed - ROOM * rules.min_leftover[v] / oracle[rb])
                if offer <= 0.0 or (h == HALVINGS and rules.min_leftover[v] == 0.0):
                    continue
                repaid, taken = seize(offer, owed, held, oracle[rb], oracle[ra], bonus, rules.min_leftover[v])
                fee = (taken - taken / (1.0 + bonus)) * layout.fee_rate[ra]
                if repaid <= 0.0 or taken - fee > cash[ra]:
                    # Refused, or the pool has lent the collateral out and cannot pay it.
                    continue
                revenue, cost = trade(
                    repaid, taken - fee, a, b, market, net_a, net_b, before_a, before_b, size, lost
                )
                if revenue - cost > best.profit:
                    best = Choice(d, c, repaid, taken, fee, bonus, revenue - cost, h == 0, cost)
    return best


@numba.njit(cache=True)
def settle_paths(
    step: int,
    found: Int32,
    found_health: Float64,
    count: Int64,
    layout: Layout,
    rules: VenueRules,
    keepers: Keepers,
    depth: Depth,
    gas_usd: Float64,
    room: Int64,
    paused_until: Int64,
    trusted: Bool,
    coll: Float64,
    debt: Float64,
    supply_index: Float64,
    borrow_index: Float64,
    oracle: Float64,
    market: Float64,
    cash: Float64,
    reserves: Float64,
    deficit: Float64,
    idle: Float64,
    borrowed: Float64,
    supplied: Float64,
    below_since: Int32,
    below_last: Int32,
    inventory: Float64,
    unsold: Float64,
    order_flow: Float64,
    sold_tokens: Float64,
    bought_tokens: Float64,
    totals: Float64,
    sold_usd: Float64,
    bought_usd: Float64,
    dirty: Bool,
    dirty_list: Int32,
    dirty_count: Int64,
    events: Float64,
    event_path: Int64,
) -> int:
    """Carry out one step's liquidations on every path; return the number of events recorded.

    Parameters
    ----------
    step
        Number of the step.
    found, found_health, count
        Rows below 1, from `Scanner.scan`.
    layout, rules, keepers, depth
        See the classes.
    gas_usd, room
        What one liquidation's gas costs, and how many fit into the step, shape (P,).
    paused_until, trusted
        See `State`.
    sold_usd, bought_usd
        US dollars that were sold and bought of each token in the step so far, shape (P, A): added to. Only
        their difference counts.
    coll, debt, supply_index, …, dirty_count
        Arrays of `State` and `Anchor`, changed in place.
    events, event_path
        Filled with `EVENT_FIELDS` and the path of each liquidation while there is room.
    """
    recorded, paths = 0, coll.shape[0]
    for p in range(paths):
        n = count[p]
        if n == 0:
            continue
        sold, bought = sold_usd[p], bought_usd[p]
        first_profit = np.empty(n)
        for k in range(n):
            i = found[p, k]
            v = layout.row_venue[i]
            if below_last[p, i] < step - 1:
                below_since[p, i] = step
            below_last[p, i] = step
            first_profit[k] = -np.inf
            if paused_until[p, v] >= step or step - below_since[p, i] < rules.delay_steps[v]:
                continue
            if not _trusted(i, layout, coll[p], debt[p], trusted[p]):
                continue
            if rules.kind[v] == COMPOUND_V3:
                # Absorbing earns nothing by itself: who does it wants the collateral at its discount.
                prize = _discount(i, layout, rules.storefront[v], coll[p], supply_index[p], oracle[p])
                if prize > gas_usd[p]:
                    first_profit[k] = prize
                else:
                    totals[p, v, _UNPROFITABLE] += 1.0
                continue
            have, owe = account_values(
                i, layout, coll[p], debt[p], supply_index[p], borrow_index[p], oracle[p]
            )
            if have <= 0.0:
                # Nothing is left to take: a debt that stands for ever (Aave V2, V3.0).
                continue
            if rules.halt_toxic[v] == 1 and owe * (1.0 + _row_bonus(i, layout, coll[p])) > have:
                totals[p, v, _HALTED] += 1.0
                continue
            first_profit[k] = best_liquidation(
                i,
                found_health[p, k],
                layout,
                rules,
                coll[p],
                debt[p],
                supply_index[p],
                borrow_index[p],
                oracle[p],
                market[p],
                cash[p],
                sold,
                bought,
                depth.size[p],
                depth.lost[p],
                np.inf,
                gas_usd[p],
                0.0,
            ).profit
            if first_profit[k] == -np.inf:
                # The rules refuse every size, or the pool cannot pay the collateral out.
                totals[p, v, _STUCK] += 1.0
        used = 0
        for k in np.argsort(-first_profit, kind="mergesort"):
            if first_profit[k] == -np.inf:
                break
            i = found[p, k]
            v = layout.row_venue[i]
            if used >= room[p]:
                totals[p, v, _UNPROFITABLE] += 1.0
                continue
            # The highest bid comes first; whom it does not pay enough leaves it to the next.
            keeper, rivals, asked, possible = -1, 0, False, False
            choice = Choice(-1, -1, 0.0, 0.0, 0.0, 0.0, -np.inf, False, 0.0)
            for h in range(len(keepers.flash)):
                funded = keepers.flash[h] == 1 or inventory[p, h] > gas_usd[p]
                if not funded or step - below_since[p, i] < keepers.latency[h]:
                    continue
                if keeper >= 0:
                    rivals += choice.profit - gas_usd[p] >= keepers.min_profit[h]
                    continue
                if rules.kind[v] == COMPOUND_V3:
                    keeper = h
                    break
                asked = True
                choice = best_liquidation(
                    i,
                    found_health[p, k],
                    layout,
                    rules,
                    coll[p],
                    debt[p],
                    supply_index[p],
                    borrow_index[p],
                    oracle[p],
                    market[p],
                    cash[p],
                    sold,
                    bought,
                    depth.size[p],
                    depth.lost[p],
                    np.inf if keepers.flash[h] == 1 else inventory[p, h],
                    gas_usd[p],
                    keepers.bid[h],
                )
                if choice.debt_slot >= 0:
                    possible = True
                    if choice.profit - gas_usd[p] >= keepers.min_profit[h]:
                        keeper = h
            if keeper < 0:
                if asked:
                    totals[p, v, _UNPROFITABLE if possible else _STUCK] += 1.0
                continue
            if rules.kind[v] == COMPOUND_V3:
                written = _absorb(
                    p,
                    i,
                    layout,
                    coll,
                    debt,
                    supply_index,
                    borrow_index,
                    oracle,
                    market,
                    reserves,
                    idle,
                    borrowed,
                    supplied,
                )
                totals[p, v, _LIQUIDATIONS] += 1.0
                totals[p, v, _WRITTEN_OFF] += written
                totals[p, v, _GAS] += gas_usd[p]
                totals[p, v, _PROFIT] -= gas_usd[p]
                if keepers.flash[keeper] == 0:
                    inventory[p, keeper] -= gas_usd[p]
                used += 1
                touch(p, v, i, layout.venue_ptr[v], dirty, dirty_list, dirty_count)
                if recorded < len(event_path):
                    event_path[recorded] = p
                    events[recorded] = np.array(
                        [i, -1.0, -1.0, keeper, found_health[p, k], 0.0, 0.0, 0.0, 0.0, written]
                    )
                    recorded += 1
                continue
            used += 1
            totals[p, v, _FAILED] += rivals
            written = carry_out(
                p,
                i,
                keeper,
                choice,
                layout,
                rules,
                keepers,
                gas_usd[p],
                coll,
                debt,
                supply_index,
                borrow_index,
                oracle,
                market,
                cash,
                reserves,
                deficit,
                borrowed,
                supplied,
                idle,
                inventory,
                unsold,
                order_flow,
                sold_tokens,
                bought_tokens,
                totals,
                sold,
                bought,
            )
            touch(p, v, i, layout.venue_ptr[v], dirty, dirty_list, dirty_count)
            if recorded < len(event_path):
                event_path[recorded] = p
                events[recorded, 0] = i
                events[recorded, 1] = layout.debt_at[i, choice.debt_slot]
                events[recorded, 2] = layout.coll_at[i, choice.coll_slot]
                events[recorded, 3] = keeper
                events[recorded, 4] = found_health[p, k]
                events[recorded, 5] = choice.repaid
                events[recorded, 6] = choice.taken
                events[recorded, 7] = choice.fee
                events[recorded, 8] = choice.profit - gas_usd[p]
                events[recorded, 9] = written
                recorded += 1
    return recorded


@numba.njit(cache=True)
def _trusted(i: int, layout: Layout, coll: Float64, debt: Float64, trusted: Bool) -> bool:
    sound = True
    for k in range(coll.shape[1]):
        sound &= coll[i, k] == 0.0 or trusted[layout.coll_at[i, k]]
    for k in range(debt.shape[1]):
        sound &= debt[i, k] == 0.0 or trusted[layout.debt_at[i, k]]
    return sound


@numba.njit(cache=True)
def _discount(
    i: int, layout: Layout, storefront: float, coll: Float64, supply_index: Float64, oracle: Float64
) -> float:
    """Return US dollars that buyers of all collateral of row `i` save once it is absorbed (Compound III)."""
    saved = 0.0
    for k in range(coll.shape[1]):
        r = layout.coll_at[i, k]
        saved += coll[i, k] * supply_index[r] * oracle[r] * layout.bonus[i, k] * storefront
    return saved


@numba.njit(cache=True)
def _row_bonus(i: int, layout: Layout, coll: Float64) -> float:
    """Return the largest bonus among what row `i` has as collateral."""
    most = 0.0
    for k in range(coll.shape[1]):
        if coll[i, k] > 0.0:
            most = max(most, layout.bonus[i, k])
    return most


@numba.njit(cache=True)
def purse(funds: float, spent: float) -> float:
    """Return what is left of own funds: spent but for a rounding's rest they are empty.

    Such a rest would buy nobody anything but a place before others.
    """
    left = funds - spent
    return left if left > 1e-12 * spent else 0.0


@numba.njit(cache=True)
def carry_out(
    p: int,
    i: int,
    keeper: int,
    choice: Choice,
    layout: Layout,
    rules: VenueRules,
    keepers: Keepers,
    gas_usd: float,
    coll: Float64,
    debt: Float64,
    supply_index: Float64,
    borrow_index: Float64,
    oracle: Float64,
    market: Float64,
    cash: Float64,
    reserves: Float64,
    deficit: Float64,
    borrowed: Float64,
    supplied: Float64,
    idle: Float64,
    inventory: Float64,
    unsold: Float64,
    order_flow: Float64,
    sold_tokens: Float64,
    bought_tokens: Float64,
    totals: Float64,
    sold: Float64,
    bought: Float64,
) -> float:
    """Book one liquidation; return US dollars of debt that nothing stands behind any more."""
    v = layout.row_venue[i]
    offset = v * layout.tokens
    d, c = choice.debt_slot, choice.coll_slot
    ra, rb = layout.coll_at[i, c], layout.debt_at[i, d]
    a, b = ra - offset, rb - offset
    got = choice.taken - choice.fee
    # The account's slots: what is taken whole becomes 0 and not a rounding's rest.
    before_c, before_d = coll[p, i, c], debt[p, i, d]
    left_c = before_c - choice.taken / supply_index[p, ra]
    left_d = before_d - choice.repaid / borrow_index[p, rb]
    coll[p, i, c] = left_c if left_c > 1e-15 * before_c else 0.0
    debt[p, i, d] = left_d if left_d > 1e-15 * before_d else 0.0
    supplied[p, ra] += coll[p, i, c] - before_c
    borrowed[p, rb] += debt[p, i, d] - before_d
    # The pool: debt comes in, collateral goes out, the fee stays as the protocol's claim.
    cash[p, rb] += choice.repaid
    cash[p, ra] -= got
    reserves[p, ra] += choice.fee
    bought_tokens[p, b] += choice.repaid
    # The market.
    paid, gets = choice.repaid * market[p, b], got * market[p, a]
    bought[b] += paid
    order_flow[p, b] += paid
    bid = max(choice.profit - gas_usd, 0.0) * keepers.bid[keeper]
    gain = choice.profit - gas_usd - bid
    if keepers.flash[keeper] == 1:
        sold[a] += gets
        order_flow[p, a] -= gets
        sold_tokens[p, a] += got
    else:
        inventory[p, keeper] = purse(inventory[p, keeper], choice.cost + gas_usd + bid)
        unsold[p, keeper, a] += got
        # What is kept is worth what the market says, until it is sold.
        gain = gets - choice.cost - gas_usd - bid
    have, owe = 0.0, 0.0
    have, owe = account_values(i, layout, coll[p], debt[p], supply_index[p], borrow_index[p], oracle[p])
    seized_usd = choice.taken * oracle[p, ra]
    repaid_usd = choice.repaid * oracle[p, rb]
    if have + seized_usd > 0.0 and (owe + repaid_usd) * (1.0 + choice.bonus) > have + seized_usd:
        totals[p, v, _TOXIC] += 1.0
    totals[p, v, _LIQUIDATIONS] += 1.0
    totals[p, v, _REPAID] += paid
    totals[p, v, _SEIZED] += choice.taken * market[p, a]
    totals[p, v, _BONUS] += seized_usd - repaid_usd
    totals[p, v, _FEES] += choice.fee * market[p, a]
    totals[p, v, _GAS] += gas_usd
    totals[p, v, _BIDS] += bid
    totals[p, v, _PROFIT] += gain
    if have > 0.0 or owe <= 0.0:
        return 0.0
    return _left_behind(
        p,
        i,
        layout,
        rules,
        debt,
        borrow_index,
        supply_index,
        market,
        deficit,
        borrowed,
        supplied,
        idle,
        reserves,
        totals,
    )


@numba.njit(cache=True)
def _left_behind(
    p: int,
    i: int,
    layout: Layout,
    rules: VenueRules,
    debt: Float64,
    borrow_index: Float64,
    supply_index: Float64,
    market: Float64,
    deficit: Float64,
    borrowed: Float64,
    supplied: Float64,
    idle: Float64,
    reserves: Float64,
    totals: Float64,
) -> float:
    """Book the debts of an account that has no collateral left, as its venue does; return their worth.

    Aave V2 and V3.0 leave them standing, Aave V3.3+ burns them and remembers a deficit, Morpho Blue takes
    them off all suppliers at once.
    """
    v = layout.row_venue[i]
    offset = v * layout.tokens
    worth = 0.0
    for k in range(debt.shape[2]):
        r = layout.debt_at[i, k]
        owed = debt[p, i, k] * borrow_index[p, r]
        if owed <= 0.0:
            continue
        worth += owed * market[p, r - offset]
        if rules.write_off[v] == 1 or rules.socialise[v] == 1:
            borrowed[p, r] -= debt[p, i, k]
            debt[p, i, k] = 0.0
        if rules.write_off[v] == 1:
            deficit[p, r] += owed
        elif rules.socialise[v] == 1:
            claims = (supplied[p, r] + idle[p, r]) * supply_index[p, r]
            cut = min(owed, claims)
            if claims > 0.0:
                supply_index[p, r] *= 1.0 - cut / claims
            deficit[p, r] += owed - cut
            totals[p, v, _SUPPLIERS] += cut * market[p, r - offset]
    if rules.write_off[v] == 1 or rules.socialise[v] == 1:
        totals[p, v, _WRITTEN_OFF] += worth
    return worth


@numba.njit(cache=True)
def _absorb(
    p: int,
    i: int,
    layout: Layout,
    coll: Float64,
    debt: Float64,
    supply_index: Float64,
    borrow_index: Float64,
    oracle: Float64,
    market: Float64,
    reserves: Float64,
    idle: Float64,
    borrowed: Float64,
    supplied: Float64,
) -> float:
    """Let the protocol take an account over (Comet `absorbInternal`); return its loss at market prices.

    All collateral becomes the protocol's, all debt is paid from its reserves, and what the collateral is
    worth after the liquidation penalty beyond the debt is credited as supply. Reserves may become negative:
    that is how Compound III shows a loss.
    """
    v = layout.row_venue[i]
    offset = v * layout.tokens
    credit, worth = 0.0, 0.0
    for k in range(coll.shape[2]):
        r = layout.coll_at[i, k]
        held = coll[p, i, k] * supply_index[p, r]
        if held <= 0.0:
            continue
        credit += held * oracle[p, r] * (1.0 - layout.bonus[i, k])
        worth += held * market[p, r - offset]
        supplied[p, r] -= coll[p, i, k]
        reserves[p, r] += held
        coll[p, i, k] = 0.0
    base, owed_usd, owed_market = -1, 0.0, 0.0
    for k in range(debt.shape[2]):
        r = layout.debt_at[i, k]
        owed = debt[p, i, k] * borrow_index[p, r]
        if owed <= 0.0:
            continue
        base = r
        owed_usd += owed * oracle[p, r]
        owed_market += owed * market[p, r - offset]
        borrowed[p, r] -= debt[p, i, k]
        reserves[p, r] -= owed
        debt[p, i, k] = 0.0
    if base >= 0 and credit > owed_usd:
        extra = (credit - owed_usd) / oracle[p, base]
        idle[p, base] += extra / supply_index[p, base]
        reserves[p, base] -= extra
    return max(owed_market - worth, 0.0)
