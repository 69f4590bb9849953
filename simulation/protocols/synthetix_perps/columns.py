"""Accounts and markets as float columns, and the test for liquidation on them.

`Columns.gaps` is the float twin of `perps_account.liquidation_test`: margin that is there less what is
required and less the keepers' reward, negative when an account may be flagged. Prices may be others than the
exact state had; time, funding and interest stand where they were.

Error bound. Let u = 2**-53 and n be the number of an account's positions. Every term of the gap is made of
at most 24 rounded operations and inputs, sums add one a position, and no operation cancels more than what
`Columns.bounds` adds up in S: the magnitudes of margin, of size times price, entry and funding, of interest,
of requirement and reward. That gives ``(32 + n) * u * S``. The contracts cut every product at 1e-18: cut
ratios weigh with the notional, cut funding and interest with the size or the notional, cut dollars with one;
T counts them. Hence ``abs(gap - exact gap) <= (32 + n) * u * S + 1e-18 * T``, and outside of that bound the
twin says of every account what the integers say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulation.fixed_point import WAD
from simulation.protocols.synthetix_perps.decimal_math import UNIT, div_decimal, mul_decimal
from simulation.protocols.synthetix_perps.perps_account import (
    flag_keeper_cost,
    keeper_reward,
    total_collateral_value,
)
from simulation.protocols.synthetix_perps.perps_market import (
    calculate_next_interest,
    current_funding_rate,
    number_of_liquidation_windows,
    proportional_elapsed,
)
from simulation.protocols.synthetix_perps.types import PerpsAccount, PerpsMarket, PerpsVenue, PriceUnknown
from simulation.types import Float64, Int32, Int64

_UNIT_ROUNDOFF: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class MarketColumns:
    """Parameters and state of each market, float64, shape (markets,).

    Attributes
    ----------
    ids
        Market ids; `Columns.market` indexes them.
    skew, skew_scale
        Units of the asset; a scale of 0 is infinite here, so that nothing is ever divided by 0.
    maker_fee, taker_fee
        Rates.
    initial_ratio, minimum_initial_ratio, maintenance_scalar, minimum_margin, flag_ratio, locked_ratio
        As of `MarketConfiguration`.
    funding_value, funding_drift
        Funding a unit is ``funding_value + funding_drift * price`` at the exact state's time.
    """

    ids: tuple[int, ...]
    skew: Float64
    skew_scale: Float64
    maker_fee: Float64
    taker_fee: Float64
    initial_ratio: Float64
    minimum_initial_ratio: Float64
    maintenance_scalar: Float64
    minimum_margin: Float64
    flag_ratio: Float64
    locked_ratio: Float64
    funding_value: Float64
    funding_drift: Float64


@dataclass(frozen=True, slots=True)
class Columns:
    """Accounts in compressed rows over their positions.

    Attributes
    ----------
    accounts
        Names, shape (accounts,).
    row_ptr
        int64, shape (accounts + 1,): account ``a`` has the positions ``row_ptr[a]:row_ptr[a + 1]``.
    market
        int32, shape (positions,): place in `markets`.
    size, entry, funding, interest
        float64, shape (positions,): units, price and funding value of the last change, and the interest per
        dollar since then.
    margin, collateral
        float64, shape (accounts,): discounted collateral less debt, and collateral without discount. NaN
        where a synth's price is unknown.
    cost, least_reward, most_reward, later_reward
        float64, shape (accounts,): of the first transaction, bounds of its reward, and all later windows'
        rewards. Windows depend on sizes alone and are counted in integers.
    collateral_reward
        float64, shape (accounts,): least flagging reward by collateral.
    markets
        The markets.
    """

    accounts: tuple[str, ...]
    row_ptr: Int64
    market: Int32
    size: Float64
    entry: Float64
    funding: Float64
    interest: Float64
    margin: Float64
    collateral: Float64
    cost: Float64
    least_reward: Float64
    most_reward: Float64
    later_reward: Float64
    collateral_reward: Float64
    markets: MarketColumns

    def _sums(self, values: Float64) -> Float64:
        """Return sums over each account's positions, 0 for one without."""
        owner = np.repeat(np.arange(len(self.accounts)), np.diff(self.row_ptr))
        sums = np.bincount(owner, weights=values, minlength=len(self.accounts))
        return sums.astype(np.float64)

    def requirements(self, prices: Float64) -> Float64:
        """Return each position's maintenance requirement, dollars."""
        m, i = self.markets, self.market
        size = np.abs(self.size)
        ratio = size / m.skew_scale[i] * m.initial_ratio[i] + m.minimum_initial_ratio[i]
        return size * prices[i] * ratio * m.maintenance_scalar[i] + m.minimum_margin[i]

    def gaps(self, prices: Float64) -> Float64:
        """Return margin less requirement and reward; negative is liquidatable, NaN is unknown.

        Parameters
        ----------
        prices
            float64, shape (markets,), dollars; NaN for an unknown one.
        """
        m, i = self.markets, self.market
        price, size = prices[i], np.abs(self.size)
        notional = size * price
        profit = self.size * (price - self.entry)
        profit += self.size * (m.funding_value[i] + m.funding_drift[i] * price - self.funding)
        profit -= notional * m.locked_ratio[i] * self.interest
        flag = np.maximum(self._sums(notional * m.flag_ratio[i]), self.collateral_reward)
        first = np.minimum(np.maximum(self.least_reward, flag + self.cost), self.most_reward)
        opened = np.diff(self.row_ptr) > 0
        reward = np.where(opened, first + self.later_reward, 0.0)
        return self.margin + self._sums(profit) - self._sums(self.requirements(prices)) - reward

    def bounds(self, prices: Float64) -> Float64:
        """Return how far `gaps` may be from the exact gap, dollars; see the module's text."""
        m, i = self.markets, self.market
        price, size = prices[i], np.abs(self.size)
        notional = size * price
        funding = np.abs(m.funding_value[i]) + np.abs(m.funding_drift[i] * price) + np.abs(self.funding)
        magnitude = notional + size * self.entry + size * funding
        magnitude += notional * (m.locked_ratio[i] * self.interest + m.flag_ratio[i])
        magnitude += self.requirements(prices)
        total = self._sums(magnitude) + np.abs(self.margin) + self.collateral_reward
        total += np.where(np.diff(self.row_ptr) > 0, self.cost + self.least_reward + self.later_reward, 0.0)
        total += np.where(np.isfinite(self.most_reward), self.most_reward, 0.0)
        weight = (m.initial_ratio[i] + 1.0) * m.maintenance_scalar[i]
        cut = notional * (weight + self.interest + 4.0) + 4.0 * size + 16.0
        return (32.0 + np.diff(self.row_ptr)) * _UNIT_ROUNDOFF * total + 1e-18 * (self._sums(cut) + 16.0)


def _floats(values: Sequence[int]) -> Float64:
    return np.array([value / WAD for value in values], dtype=np.float64)


def _market_columns(venue: PerpsVenue) -> MarketColumns:
    markets = list(venue.markets.values())
    configurations = [market.configuration for market in markets]
    scales = _floats([c.skew_scale_wad for c in configurations])
    scales[scales == 0] = np.inf

    def drift(market: PerpsMarket) -> int:
        rates = market.last_funding_rate_wad + current_funding_rate(market, venue.timestamp)
        average = -div_decimal(rates, 2 * UNIT)
        return mul_decimal(average, proportional_elapsed(market, venue.timestamp))

    return MarketColumns(
        ids=tuple(market.id for market in markets),
        skew=_floats([market.skew_wad for market in markets]),
        skew_scale=scales,
        maker_fee=_floats([c.maker_fee_wad for c in configurations]),
        taker_fee=_floats([c.taker_fee_wad for c in configurations]),
        initial_ratio=_floats([c.initial_margin_ratio_wad for c in configurations]),
        minimum_initial_ratio=_floats([c.minimum_initial_margin_ratio_wad for c in configurations]),
        maintenance_scalar=_floats([c.maintenance_margin_scalar_wad for c in configurations]),
        minimum_margin=_floats([c.minimum_position_margin_wad for c in configurations]),
        flag_ratio=_floats([c.flag_reward_ratio_wad for c in configurations]),
        locked_ratio=_floats([c.locked_oi_ratio_wad for c in configurations]),
        funding_value=_floats([market.last_funding_value_wad for market in markets]),
        funding_drift=_floats([drift(market) for market in markets]),
    )


def columns_of(venue: PerpsVenue, accounts: Sequence[PerpsAccount]) -> Columns:
    """Return accounts and markets as columns, each value the exact one correctly rounded."""
    place = {market_id: i for i, market_id in enumerate(venue.markets)}
    accrued = calculate_next_interest(venue.interest, venue.timestamp)
    positions = [position for account in accounts for position in account.positions]
    a_later_window = keeper_reward(venue.guards, 0, venue.costs.liquidate_wad, 0)
    margin, collateral, later, cost = [], [], [], []
    for account in accounts:
        try:
            value = total_collateral_value(venue, account, discounted=False)
            margin.append((total_collateral_value(venue, account, discounted=True) - account.debt_wad) / WAD)
            collateral.append(value / WAD)
        except PriceUnknown:
            margin.append(np.nan)
            collateral.append(np.nan)
        windows = max(
            (
                number_of_liquidation_windows(venue.markets[p.market_id].configuration, p.size_wad)
                for p in account.positions
            ),
            default=0,
        )
        later.append(max(windows - 1, 0) * a_later_window)
        cost.append(flag_keeper_cost(venue, account) + venue.costs.liquidate_wad)
    guards = venue.guards
    values = np.array(collateral, dtype=np.float64)
    most = np.minimum(
        np.where(values == 0, np.inf, values * (guards.max_keeper_scaling_ratio_wad / WAD)),
        guards.max_keeper_reward_wad / WAD,
    )
    least = [keeper_least(guards.min_keeper_reward_wad, guards.min_keeper_profit_ratio_wad, c) for c in cost]
    return Columns(
        accounts=tuple(account.account for account in accounts),
        row_ptr=np.cumsum([0, *(len(account.positions) for account in accounts)], dtype=np.int64),
        market=np.array([place[p.market_id] for p in positions], dtype=np.int32),
        size=_floats([p.size_wad for p in positions]),
        entry=_floats([p.latest_interaction_price_wad for p in positions]),
        funding=_floats([p.latest_interaction_funding_wad for p in positions]),
        interest=_floats([accrued - p.latest_interest_accrued_wad for p in positions]),
        margin=np.array(margin, dtype=np.float64),
        collateral=values,
        cost=_floats(cost),
        least_reward=_floats(least),
        most_reward=most,
        later_reward=_floats(later),
        collateral_reward=values * (guards.collateral_liquidate_reward_ratio_wad / WAD),
        markets=_market_columns(venue),
    )


def keeper_least(min_reward_wad: int, min_profit_ratio_wad: int, cost_wad: int) -> int:
    """Return the least reward for a transaction of this cost (`minimumKeeperRewardCap`)."""
    return max(cost_wad + min_reward_wad, mul_decimal(cost_wad, min_profit_ratio_wad + UNIT))
