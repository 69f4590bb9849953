"""An account's margin and what it takes to be liquidated (`PerpsAccount.sol`, `Position.sol`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulation.protocols.synthetix_perps.decimal_math import UNIT, div_decimal, mul_decimal
from simulation.protocols.synthetix_perps.perps_market import (
    calculate_next_funding,
    calculate_next_interest,
    number_of_liquidation_windows,
)
from simulation.protocols.synthetix_perps.types import (
    SNX_USD,
    CollateralType,
    KeeperGuards,
    MarketConfiguration,
    PerpsAccount,
    PerpsVenue,
    Position,
    PriceUnknown,
)


@dataclass(frozen=True, slots=True)
class PositionPnl:
    """Profit of a position since its last change, dollars (`Position.getPnl`).

    Attributes
    ----------
    total_wad
        Price and funding less interest.
    price_wad, funding_wad, interest_wad
        Its parts.
    """

    total_wad: int
    price_wad: int
    funding_wad: int
    interest_wad: int


def position_pnl(venue: PerpsVenue, position: Position, price_wad: int) -> PositionPnl:
    """Return a position's profit at a price."""
    market = venue.markets[position.market_id]
    next_funding = calculate_next_funding(market, price_wad, venue.timestamp)
    funding = mul_decimal(position.size_wad, next_funding - position.latest_interaction_funding_wad)
    by_price = mul_decimal(position.size_wad, price_wad - position.latest_interaction_price_wad)
    accrued = calculate_next_interest(venue.interest, venue.timestamp)
    locked = mul_decimal(
        mul_decimal(abs(position.size_wad), price_wad), market.configuration.locked_oi_ratio_wad
    )
    interest = mul_decimal(locked, accrued - position.latest_interest_accrued_wad)
    return PositionPnl(by_price + funding - interest, by_price, funding, interest)


def collateral_value(kind: CollateralType, amount_wad: int, *, discounted: bool) -> int:
    """Return the dollars that a synth counts (`PerpsCollateralConfiguration.valueInUsd`).

    Raises
    ------
    PriceUnknown
        Without its price.
    """
    if kind.price_wad is None:
        raise PriceUnknown("no price of a collateral", fix="give its price_wad")
    discount = 0
    if discounted and kind.skew_scale_wad != 0:
        impact = mul_decimal(div_decimal(amount_wad, kind.skew_scale_wad), kind.discount_scalar_wad)
        discount = min(max(impact, kind.lower_limit_discount_wad), kind.upper_limit_discount_wad)
    return mul_decimal(mul_decimal(amount_wad, kind.price_wad), UNIT - discount)


def total_collateral_value(venue: PerpsVenue, account: PerpsAccount, *, discounted: bool) -> int:
    """Return the dollars that all collateral counts (`getTotalCollateralValue`)."""
    total = 0
    for collateral_id, amount_wad in account.collateral_wad.items():
        if collateral_id == SNX_USD:
            total += amount_wad
        elif amount_wad:
            kind = venue.collaterals.get(collateral_id, CollateralType(None))
            total += collateral_value(kind, amount_wad, discounted=discounted)
    return total


def available_margin(venue: PerpsVenue, account: PerpsAccount) -> int:
    """Return discounted collateral, profit and loss, less debt, dollars (`getAvailableMargin`)."""
    profit = sum(position_pnl(venue, p, venue.price(p.market_id)).total_wad for p in account.positions)
    return total_collateral_value(venue, account, discounted=True) + profit - account.debt_wad


def required_margins(configuration: MarketConfiguration, size_wad: int, price_wad: int) -> tuple[int, int]:
    """Return initial and maintenance requirement of one position, dollars (`calculateRequiredMargins`)."""
    if size_wad == 0:
        return 0, 0
    size = abs(size_wad)
    scale = configuration.skew_scale_wad
    impact = div_decimal(size, scale) if scale else 0
    initial_ratio = (
        mul_decimal(impact, configuration.initial_margin_ratio_wad)
        + configuration.minimum_initial_margin_ratio_wad
    )
    maintenance_ratio = mul_decimal(initial_ratio, configuration.maintenance_margin_scalar_wad)
    notional = mul_decimal(size, price_wad)
    least = configuration.minimum_position_margin_wad
    return mul_decimal(notional, initial_ratio) + least, mul_decimal(notional, maintenance_ratio) + least


# -------------------------------------------------------------------------------------------------- rewards


def keeper_reward(guards: KeeperGuards, reward_wad: int, cost_wad: int, margin_wad: int) -> int:
    """Return a keeper's reward within its bounds, dollars (`keeperReward`).

    Parameters
    ----------
    guards
        The bounds.
    reward_wad, cost_wad
        What the keeper has earned, and what the transaction costs.
    margin_wad
        Value of the account's collateral; 0 leaves only the fixed upper bound.
    """
    least = max(
        cost_wad + guards.min_keeper_reward_wad,
        mul_decimal(cost_wad, guards.min_keeper_profit_ratio_wad + UNIT),
    )
    most = guards.max_keeper_reward_wad
    if margin_wad != 0:
        most = min(mul_decimal(margin_wad, guards.max_keeper_scaling_ratio_wad), most)
    return min(max(least, reward_wad + cost_wad), most)


def flag_keeper_cost(venue: PerpsVenue, account: PerpsAccount) -> int:
    """Return what flagging costs: a feed for each position and each synth (`getFlagKeeperCosts`)."""
    synths = sum(1 for i, amount in account.collateral_wad.items() if i != SNX_USD and amount)
    return venue.costs.flag_wad + (synths + len(account.positions)) * venue.costs.flag_per_feed_wad


def keeper_rewards_and_windows(
    venue: PerpsVenue, account: PerpsAccount, *, skip_market: int = 0, new_flag_reward_wad: int = 0
) -> tuple[int, int]:
    """Return flagging rewards of all positions, and windows of the largest (`getKeeperRewardsAndCosts`)."""
    flag, windows = new_flag_reward_wad, 0
    for position in account.positions:
        if position.market_id == skip_market:
            continue
        configuration = venue.markets[position.market_id].configuration
        windows = max(windows, number_of_liquidation_windows(configuration, position.size_wad))
        notional = mul_decimal(abs(position.size_wad), venue.price(position.market_id))
        flag += mul_decimal(notional, configuration.flag_reward_ratio_wad)
    value = total_collateral_value(venue, account, discounted=False)
    return max(flag, mul_decimal(value, venue.guards.collateral_liquidate_reward_ratio_wad)), windows


def possible_liquidation_reward(
    venue: PerpsVenue, account: PerpsAccount, reward_wad: int, windows: int
) -> int:
    """Return what all keepers together will get: flag and first window, then window by window."""
    first = keeper_reward(
        venue.guards,
        reward_wad,
        flag_keeper_cost(venue, account) + venue.costs.liquidate_wad,
        total_collateral_value(venue, account, discounted=False),
    )
    if windows == 0:
        return first
    return first + keeper_reward(venue.guards, 0, venue.costs.liquidate_wad, 0) * (windows - 1)


# ------------------------------------------------------------------------------------------------ the test


@dataclass(frozen=True, slots=True)
class LiquidationTest:
    """Whether an account may be flagged, and by how much (`isEligibleForLiquidation`).

    Attributes
    ----------
    eligible
        Whether what is required is strictly more than what is there.
    available_margin_wad
        What is there.
    initial_margin_wad, maintenance_margin_wad
        Sums over positions, without the reward.
    liquidation_reward_wad
        What keepers would get, which the account has to keep ready.
    """

    eligible: bool
    available_margin_wad: int
    initial_margin_wad: int
    maintenance_margin_wad: int
    liquidation_reward_wad: int


def liquidation_test(venue: PerpsVenue, account: PerpsAccount) -> LiquidationTest:
    """Return whether positions of an account may be liquidated.

    Raises
    ------
    PriceUnknown
        If a price is missing.
    """
    available = available_margin(venue, account)
    if not account.positions:
        return LiquidationTest(available < 0, available, 0, 0, 0)
    initial = maintenance = 0
    for position in account.positions:
        configuration = venue.markets[position.market_id].configuration
        price_wad = venue.price(position.market_id)
        of_position = required_margins(configuration, position.size_wad, price_wad)
        initial, maintenance = initial + of_position[0], maintenance + of_position[1]
    reward = possible_liquidation_reward(venue, account, *keeper_rewards_and_windows(venue, account))
    return LiquidationTest(maintenance + reward > available, available, initial, maintenance, reward)


def margin_liquidation_test(venue: PerpsVenue, account: PerpsAccount) -> tuple[bool, int]:
    """Return whether an account without positions may be liquidated for its debt, and its margin after.

    The reward comes off the margin first (`isEligibleForMarginLiquidation`).
    """
    value = total_collateral_value(venue, account, discounted=False)
    reward = keeper_reward(
        venue.guards,
        mul_decimal(value, venue.guards.collateral_liquidate_reward_ratio_wad),
        flag_keeper_cost(venue, account) + venue.costs.liquidate_wad,
        value,
    )
    left = available_margin(venue, account) - reward
    return left < 0 and account.debt_wad > 0, left


def withdrawable_margin(venue: PerpsVenue, account: PerpsAccount) -> int:
    """Return what may be taken out, dollars; negative when margin is short (`getWithdrawableMargin`)."""
    if account.debt_wad > 0:
        return 0
    if not account.positions:
        return total_collateral_value(venue, account, discounted=False)
    test = liquidation_test(venue, account)
    return test.available_margin_wad - test.initial_margin_wad - test.liquidation_reward_wad


def charge(account: PerpsAccount, amount_wad: int) -> PerpsAccount:
    """Return the account after a profit or, when negative, a loss (`charge`).

    A profit pays debt first. A loss takes the market's dollar first, and what is left becomes debt: other
    collateral is not touched.
    """
    if amount_wad > 0:
        left = account.debt_wad - amount_wad
        if left > 0:
            return replace(account, debt_wad=left)
        return replace(account.with_collateral(SNX_USD, -left), debt_wad=0)
    credit = account.collateral_wad.get(SNX_USD, 0)
    if credit + amount_wad > 0:
        return account.with_collateral(SNX_USD, amount_wad)
    debt = account.debt_wad - (credit + amount_wad)
    return replace(account.with_collateral(SNX_USD, -credit), debt_wad=debt)
