"""One market: skew, funding, interest, debt and how much may be liquidated now (`PerpsMarket.sol`).

Funding is a rate that moves: each day the daily rate grows by the skew over its scale times a maximum, so
that a market that stays long gets ever dearer to be long in. What a unit of the asset has paid in all is one
number for the market, and a position pays the difference since its last change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from simulation.protocols.synthetix_perps.decimal_math import (
    UNIT,
    ceil_divide,
    div_decimal,
    is_same_side_reducing,
    mul_decimal,
    to_zero,
)
from simulation.protocols.synthetix_perps.types import (
    InterestRate,
    LiquidatedAt,
    MarketConfiguration,
    PerpsMarket,
    Position,
    SynthetixRevert,
)

DAY_S: Final = 86_400
AVERAGE_SECONDS_PER_YEAR: Final = 31_557_600


# -------------------------------------------------------------------------------------------------- funding


def proportional_elapsed(market: PerpsMarket, timestamp: int) -> int:
    """Return the days since the last funding (`proportionalElapsed`)."""
    return div_decimal(timestamp - market.last_funding_time, DAY_S)


def current_funding_velocity(market: PerpsMarket) -> int:
    """Return how fast the daily rate grows a day (`currentFundingVelocity`)."""
    scale = market.configuration.skew_scale_wad
    if scale == 0:
        return 0
    bounded = min(max(-UNIT, div_decimal(market.skew_wad, scale)), UNIT)
    return mul_decimal(bounded, market.configuration.max_funding_velocity_wad)


def current_funding_rate(market: PerpsMarket, timestamp: int) -> int:
    """Return the daily rate, positive when longs pay (`currentFundingRate`)."""
    grown = mul_decimal(current_funding_velocity(market), proportional_elapsed(market, timestamp))
    return market.last_funding_rate_wad + grown


def unrecorded_funding(market: PerpsMarket, price_wad: int, timestamp: int) -> int:
    """Return what a unit has earned since the last funding, dollars (`unrecordedFunding`).

    The mean of the rates then and now, times the days, times the price; negative while longs pay.
    """
    rates = market.last_funding_rate_wad + current_funding_rate(market, timestamp)
    average = -div_decimal(rates, 2 * UNIT)
    return mul_decimal(mul_decimal(average, proportional_elapsed(market, timestamp)), price_wad)


def calculate_next_funding(market: PerpsMarket, price_wad: int, timestamp: int) -> int:
    """Return what a unit has earned in all, dollars (`calculateNextFunding`)."""
    return market.last_funding_value_wad + unrecorded_funding(market, price_wad, timestamp)


def recompute_funding(market: PerpsMarket, price_wad: int, timestamp: int) -> PerpsMarket:
    """Return the market with funding recorded up to now (`recomputeFunding`)."""
    return replace(
        market,
        last_funding_rate_wad=current_funding_rate(market, timestamp),
        last_funding_value_wad=calculate_next_funding(market, price_wad, timestamp),
        last_funding_time=timestamp,
    )


# ------------------------------------------------------------------------------------------------- interest


def calculate_next_interest(interest: InterestRate, timestamp: int) -> int:
    """Return the interest per dollar so far (`calculateNextInterest`)."""
    elapsed = div_decimal(timestamp - interest.last_timestamp, AVERAGE_SECONDS_PER_YEAR)
    return interest.accrued_wad + mul_decimal(interest.rate_wad, elapsed)


def current_interest_rate(interest: InterestRate, utilization_wad: int) -> int:
    """Return the yearly rate at a utilisation: gradients are a percent of it (`currentInterestRate`)."""
    if utilization_wad < interest.breakpoint_wad:
        return mul_decimal(interest.low_gradient_wad, utilization_wad) * 100
    high = mul_decimal(interest.high_gradient_wad, utilization_wad - interest.breakpoint_wad) * 100
    return high + mul_decimal(interest.low_gradient_wad, interest.breakpoint_wad) * 100


def update_interest(interest: InterestRate, utilization_wad: int, timestamp: int) -> InterestRate:
    """Return the interest recorded up to now, at the rate from now on (`InterestRate.update`)."""
    if interest.low_gradient_wad == interest.breakpoint_wad == interest.high_gradient_wad == 0:
        return replace(interest, rate_wad=0)
    return replace(
        interest,
        accrued_wad=calculate_next_interest(interest, timestamp),
        rate_wad=current_interest_rate(interest, min(utilization_wad, UNIT)),
        last_timestamp=timestamp,
    )


# ------------------------------------------------------------------------------------------------ positions


def update_position_data(market: PerpsMarket, old: Position, new: Position, timestamp: int) -> PerpsMarket:
    """Return the market after a position changed; funding is recorded already (`updatePositionData`).

    A position that is closed has no price: the correction of the debt comes out the same at any, because what
    the price adds to the notional of the change it takes off the profit of the old position.
    """
    price_wad = new.latest_interaction_price_wad
    next_funding = calculate_next_funding(market, price_wad, timestamp)
    delta = new.size_wad - old.size_wad
    price_pnl = mul_decimal(old.size_wad, price_wad - old.latest_interaction_price_wad)
    funding_pnl = mul_decimal(old.size_wad, next_funding - old.latest_interaction_funding_wad)
    return replace(
        market,
        size_wad=market.size_wad + abs(new.size_wad) - abs(old.size_wad),
        skew_wad=market.skew_wad + delta,
        debt_correction_wad=market.debt_correction_wad
        + mul_decimal(next_funding, delta)
        + mul_decimal(price_wad, delta)
        + price_pnl
        + funding_pnl,
    )


def market_debt(market: PerpsMarket, price_wad: int, timestamp: int) -> int:
    """Return what liquidity providers owe all positions together, before interest (`marketDebt`)."""
    return (
        mul_decimal(market.skew_wad, price_wad)
        + mul_decimal(market.skew_wad, calculate_next_funding(market, price_wad, timestamp))
        - market.debt_correction_wad
    )


def validate_position_size(market: PerpsMarket, price_wad: int, old_wad: int, new_wad: int) -> None:
    """Revert if a position that does not shrink takes its side beyond a cap (`validatePositionSize`).

    Raises
    ------
    SynthetixRevert
        Naming the cap.
    """
    if is_same_side_reducing(old_wad, new_wad):
        return
    skew = market.skew_wad - old_wad + new_wad
    size = market.size_wad - abs(old_wad) + abs(new_wad)
    side = abs(to_zero(size + skew if new_wad > 0 else size - skew, 2))
    configuration = market.configuration
    if configuration.max_market_size_wad < side:
        raise SynthetixRevert("MaxOpenInterestReached", f"{side} of {configuration.max_market_size_wad}")
    if 0 < configuration.max_market_value_wad < mul_decimal(side, price_wad):
        raise SynthetixRevert("MaxUSDOpenInterestReached", f"{side} at {price_wad}")


# -------------------------------------------------------------------------------------- liquidation windows


def max_liquidation_amount_in_window(configuration: MarketConfiguration) -> int:
    """Return what one window can take, units of the asset (`maxLiquidationAmountInWindow`)."""
    fees = configuration.maker_fee_wad + configuration.taker_fee_wad
    a_second = mul_decimal(
        mul_decimal(fees, configuration.skew_scale_wad),
        configuration.max_liquidation_limit_accumulation_multiplier_wad,
    )
    return a_second * configuration.max_seconds_in_liquidation_window


def number_of_liquidation_windows(configuration: MarketConfiguration, size_wad: int) -> int:
    """Return how many windows a position needs (`numberOfLiquidationWindows`)."""
    return ceil_divide(abs(size_wad), max_liquidation_amount_in_window(configuration))


def current_liquidation_capacity(market: PerpsMarket, timestamp: int) -> tuple[int, int, int]:
    """Return capacity now, capacity of an unused window, and the last liquidation's time.

    The window slides: what was liquidated within its seconds is taken off (`currentLiquidationCapacity`).
    """
    most = max_liquidation_amount_in_window(market.configuration)
    if not market.liquidations:
        return most, most, 0
    start = timestamp - market.configuration.max_seconds_in_liquidation_window
    used = 0
    for record in reversed(market.liquidations):
        if record.timestamp <= start:
            break
        used += record.amount_wad
    return max(most - used, 0), most, market.liquidations[-1].timestamp


def max_liquidatable_amount(
    market: PerpsMarket, requested_wad: int, timestamp: int, *, endorsed: bool = False
) -> tuple[int, PerpsMarket]:
    """Return how much may be liquidated now, and the market with that recorded (`maxLiquidatableAmount`).

    Parameters
    ----------
    market
        Its records and skew.
    requested_wad
        The position's magnitude.
    timestamp
        Now.
    endorsed
        Whether the endorsed liquidator asks: then there is no limit.
    """
    if endorsed:
        return requested_wad, _recorded(market, requested_wad, timestamp)
    capacity, most, latest = current_liquidation_capacity(market, timestamp)
    if most == 0:
        return requested_wad, market
    amount = 0
    if capacity != 0:
        amount = min(capacity, requested_wad)
    elif market.configuration.max_liquidation_pd_wad != 0 and latest != timestamp:
        # Nearly balanced: one more window, once in a block.
        premium = div_decimal(abs(market.skew_wad), market.configuration.skew_scale_wad)
        if premium < market.configuration.max_liquidation_pd_wad:
            amount = min(most, requested_wad)
    return amount, _recorded(market, amount, timestamp) if amount else market


def _recorded(market: PerpsMarket, amount_wad: int, timestamp: int) -> PerpsMarket:
    """Return the market with a liquidation recorded (`_updateLiquidationData`)."""
    records = market.liquidations
    if records and records[-1].timestamp == timestamp:
        amount_wad += records[-1].amount_wad
        records = records[:-1]
    return replace(market, liquidations=(*records, LiquidatedAt(amount_wad, timestamp)))
