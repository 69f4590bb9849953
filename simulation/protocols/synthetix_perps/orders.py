"""What an order costs and how it is settled (`AsyncOrder.sol`, `AsyncOrderSettlementPythModule.sol`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulation.protocols.synthetix_perps.decimal_math import (
    UNIT,
    div_decimal,
    is_same_side_reducing,
    mul_decimal,
    same_side,
)
from simulation.protocols.synthetix_perps.perps_account import (
    charge,
    keeper_rewards_and_windows,
    liquidation_test,
    position_pnl,
    possible_liquidation_reward,
    required_margins,
)
from simulation.protocols.synthetix_perps.perps_market import (
    number_of_liquidation_windows,
    recompute_funding,
    update_interest,
    update_position_data,
    validate_position_size,
)
from simulation.protocols.synthetix_perps.types import (
    PerpsAccount,
    PerpsVenue,
    Position,
    SynthetixRevert,
)


def fill_price(skew_wad: int, skew_scale_wad: int, size_wad: int, price_wad: int) -> int:
    """Return what an order is filled at: the mean of the prices before and after it (`calculateFillPrice`).

    Each is the index price and a premium, or discount, of the skew over its scale.
    """
    if skew_scale_wad == 0:
        return price_wad
    before = div_decimal(skew_wad, skew_scale_wad)
    after = div_decimal(skew_wad + size_wad, skew_scale_wad)
    total = 2 * price_wad + mul_decimal(price_wad, before) + mul_decimal(price_wad, after)
    if total < 0:
        raise SynthetixRevert("OverflowInt256ToUint256", "the discount is more than the price")
    return div_decimal(total, 2 * UNIT)


def order_fee(size_wad: int, fill_price_wad: int, skew_wad: int, maker_wad: int, taker_wad: int) -> int:
    """Return an order's fee, dollars (`calculateOrderFee`).

    Parameters
    ----------
    size_wad, fill_price_wad
        Of the order.
    skew_wad
        Before it.
    maker_wad, taker_wad
        Rates. An order through balance pays the maker's up to it and the taker's beyond.
    """
    if same_side(skew_wad + size_wad, skew_wad):
        notional = mul_decimal(size_wad, fill_price_wad)
        return abs(mul_decimal(notional, taker_wad if same_side(notional, skew_wad) else maker_wad))
    made = mul_decimal(mul_decimal(abs(skew_wad), fill_price_wad), maker_wad)
    taken = mul_decimal(mul_decimal(abs(skew_wad + size_wad), fill_price_wad), taker_wad)
    return taken + made


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settled order did, dollars.

    Attributes
    ----------
    fill_price_wad
        What it was filled at.
    order_fee_wad, settlement_reward_wad
        Its fee, and what the keeper who settled it got.
    pnl_wad
        Profit of the old position at the fill price, now realised.
    charged_wad
        That less both, which the account's margin moved by.
    """

    fill_price_wad: int
    order_fee_wad: int
    settlement_reward_wad: int
    pnl_wad: int
    charged_wad: int


def _required_margin(
    venue: PerpsVenue, account: PerpsAccount, old: Position, size_wad: int, fill_wad: int, initial_wad: int
) -> int:
    """Return the margin that the account needs with the new position (`getRequiredMarginWithNewPosition`)."""
    if is_same_side_reducing(old.size_wad, size_wad):
        return 0
    configuration = venue.markets[old.market_id].configuration
    price_wad = venue.price(old.market_id)
    needed = (
        initial_wad
        + required_margins(configuration, size_wad, price_wad)[0]
        - required_margins(configuration, old.size_wad, price_wad)[0]
    )
    flag = mul_decimal(mul_decimal(abs(size_wad), fill_wad), configuration.flag_reward_ratio_wad)
    reward, windows = keeper_rewards_and_windows(
        venue, account, skip_market=old.market_id, new_flag_reward_wad=flag
    )
    windows = max(windows, number_of_liquidation_windows(configuration, size_wad))
    return needed + possible_liquidation_reward(venue, account, reward, windows)


def settle_order(
    venue: PerpsVenue,
    account: PerpsAccount,
    market_id: int,
    size_wad: int,
    *,
    price_wad: int | None = None,
    settlement_reward_wad: int = 0,
    acceptable_price_wad: int | None = None,
) -> tuple[PerpsVenue, PerpsAccount, Settled]:
    """Return venue and account after an order, and what it did (`validateRequest`, `_settleOrder`).

    Left out: the delay between commitment and settlement, referrers, and the liquidity providers' credit.

    Parameters
    ----------
    venue, account
        Before it.
    market_id, size_wad
        What to trade, negative to sell.
    price_wad
        The price delivered for the time of the order; the index price without it.
    settlement_reward_wad
        Of the settlement strategy, on top of the keeper's cost.
    acceptable_price_wad
        Worst fill price; not checked without it.

    Raises
    ------
    SynthetixRevert
        As the contracts do.
    PriceUnknown
        If a price is missing.
    """
    if size_wad == 0:
        raise SynthetixRevert("ZeroSizeOrder")
    test = liquidation_test(venue, account)
    if account.flagged or test.eligible:
        raise SynthetixRevert("AccountLiquidatable", account.account)
    price_wad = venue.price(market_id) if price_wad is None else price_wad
    market = recompute_funding(venue.markets[market_id], price_wad, venue.timestamp)
    venue = venue.with_market(market)
    configuration = market.configuration
    fill_wad = fill_price(market.skew_wad, configuration.skew_scale_wad, size_wad, price_wad)
    fee_wad = order_fee(
        size_wad, fill_wad, market.skew_wad, configuration.maker_fee_wad, configuration.taker_fee_wad
    )
    reward_wad = venue.costs.settlement_wad + settlement_reward_wad
    fees_wad = fee_wad + reward_wad
    old = account.position(market_id)
    new_size_wad = old.size_wad + size_wad

    margin_wad = test.available_margin_wad + min(mul_decimal(size_wad, price_wad - fill_wad), 0)
    if margin_wad < fees_wad:
        raise SynthetixRevert("InsufficientMargin", f"{margin_wad} for fees of {fees_wad}")
    validate_position_size(market, price_wad, old.size_wad, new_size_wad)
    needed = _required_margin(venue, account, old, new_size_wad, fill_wad, test.initial_margin_wad) + fees_wad
    if margin_wad < needed:
        raise SynthetixRevert("InsufficientMargin", f"{margin_wad} of {needed}")
    if acceptable_price_wad is not None and (
        fill_wad > acceptable_price_wad if size_wad > 0 else fill_wad < acceptable_price_wad
    ):
        raise SynthetixRevert("AcceptablePriceExceeded", f"{fill_wad}, not {acceptable_price_wad}")

    pnl_wad = position_pnl(venue, old, fill_wad).total_wad
    charged_wad = pnl_wad - fees_wad
    interest = update_interest(venue.interest, venue.utilization_wad, venue.timestamp)
    new = Position(market_id, new_size_wad, fill_wad, market.last_funding_value_wad, interest.accrued_wad)
    market = update_position_data(market, old, new, venue.timestamp)
    return (
        replace(venue.with_market(market), interest=interest),
        charge(account, charged_wad).with_position(new),
        Settled(fill_wad, fee_wad, reward_wad, pnl_wad, charged_wad),
    )
