"""States of a Synthetix V3 perps market: parameters, positions, accounts. All amounts are at 1e18."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from contracts_abi.errors import CallReverted, DataError, InputError

SNX_USD: Final = 0
"""Collateral id of the market's own dollar."""


class SynthetixRevert(CallReverted):
    """The model's statement that the contract reverts here.

    Attributes
    ----------
    name
        Of the contract's custom error.
    """

    def __init__(self, name: str, detail: str = "") -> None:
        super().__init__(f"Synthetix perps reverts with {name}{f': {detail}' if detail else ''}")
        self.name = name


class PriceUnknown(DataError):
    """A price that the account needs is missing: nothing can be said of its margin."""


@dataclass(frozen=True, slots=True)
class MarketConfiguration:
    """Parameters of one market (`PerpsMarketConfiguration.Data`).

    Attributes
    ----------
    maker_fee_wad, taker_fee_wad
        Share of the notional for what narrows, and for what widens the skew.
    skew_scale_wad
        Skew, in units of the asset, at which the price is 100 % off; 0 for no premium and no funding.
    max_funding_velocity_wad
        How fast the daily funding rate may grow a day.
    initial_margin_ratio_wad, minimum_initial_margin_ratio_wad
        Initial margin ratio a unit of ``|size| / skew scale``, and what is added to it.
    maintenance_margin_scalar_wad
        Maintenance ratio over initial ratio.
    minimum_position_margin_wad
        Dollars added to both requirements of every position.
    flag_reward_ratio_wad
        Share of the notional for who flags.
    max_liquidation_limit_accumulation_multiplier_wad, max_seconds_in_liquidation_window
        What a window can take, and how long it is; see `max_liquidation_amount_in_window`.
    max_liquidation_pd_wad
        Below this ``|skew| / skew scale`` a window that is used up gets one more, once a second; 0 for never.
    locked_oi_ratio_wad
        Share of the notional that liquidity providers lock up, and that interest is charged on.
    max_market_size_wad, max_market_value_wad
        Caps of one side's open interest, in units of the asset and in dollars; the latter 0 for none.
    endorsed_liquidator
        Who may liquidate beyond the window, without a flagging reward; empty for nobody.
    """

    maker_fee_wad: int
    taker_fee_wad: int
    skew_scale_wad: int
    max_funding_velocity_wad: int
    initial_margin_ratio_wad: int
    minimum_initial_margin_ratio_wad: int
    maintenance_margin_scalar_wad: int
    minimum_position_margin_wad: int
    flag_reward_ratio_wad: int
    max_liquidation_limit_accumulation_multiplier_wad: int
    max_seconds_in_liquidation_window: int
    max_liquidation_pd_wad: int = 0
    locked_oi_ratio_wad: int = 0
    max_market_size_wad: int = 2**127
    max_market_value_wad: int = 0
    endorsed_liquidator: str = ""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int) and value < 0:
                raise InputError(f"{name} {value} is negative", fix="give 0 or more")


@dataclass(frozen=True, slots=True)
class LiquidatedAt:
    """What was liquidated in one second (`Liquidation.Data`)."""

    amount_wad: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class PerpsMarket:
    """One market (`PerpsMarket.Data`), without its positions: those are with the accounts.

    Attributes
    ----------
    id
        Not 0.
    configuration
        Parameters.
    skew_wad, size_wad
        Sum of all sizes, signed, and of their magnitudes.
    last_funding_rate_wad, last_funding_value_wad, last_funding_time
        Daily rate, sum of funding a unit of the asset in dollars, and the time of both.
    debt_correction_wad
        What the sum of all positions' entries takes off the market's debt (`debtCorrectionAccumulator`).
    liquidations
        Oldest first.
    """

    id: int
    configuration: MarketConfiguration
    skew_wad: int = 0
    size_wad: int = 0
    last_funding_rate_wad: int = 0
    last_funding_value_wad: int = 0
    last_funding_time: int = 0
    debt_correction_wad: int = 0
    liquidations: tuple[LiquidatedAt, ...] = ()


@dataclass(frozen=True, slots=True)
class Position:
    """One account's position in one market (`Position.Data`).

    Attributes
    ----------
    market_id
        Which.
    size_wad
        Units of the asset, negative for a short.
    latest_interaction_price_wad, latest_interaction_funding_wad, latest_interest_accrued_wad
        Price, funding value and interest of the last change: profit is counted from there.
    """

    market_id: int
    size_wad: int
    latest_interaction_price_wad: int
    latest_interaction_funding_wad: int = 0
    latest_interest_accrued_wad: int = 0


@dataclass(frozen=True, slots=True)
class CollateralType:
    """A synth that margin may be in.

    Attributes
    ----------
    price_wad
        What the spot market's price is for selling it; None when unknown.
    skew_scale_wad
        The spot market's skew scale; 0 for no discount.
    discount_scalar_wad, lower_limit_discount_wad, upper_limit_discount_wad
        Discount a unit of ``amount / skew scale``, and its bounds.
    """

    price_wad: int | None
    skew_scale_wad: int = 0
    discount_scalar_wad: int = 0
    lower_limit_discount_wad: int = 0
    upper_limit_discount_wad: int = 0


@dataclass(frozen=True, slots=True)
class KeeperGuards:
    """What bounds a keeper's reward (`GlobalPerpsMarketConfiguration.Data`).

    Attributes
    ----------
    min_keeper_reward_wad, max_keeper_reward_wad
        Dollars: over the cost at least, and at most in all.
    min_keeper_profit_ratio_wad
        Share of the cost that is at least the profit.
    max_keeper_scaling_ratio_wad
        Share of the account's collateral that the reward may at most be, while there is collateral.
    collateral_liquidate_reward_ratio_wad
        Share of the collateral that is at least the flagging reward.
    """

    min_keeper_reward_wad: int
    max_keeper_reward_wad: int
    min_keeper_profit_ratio_wad: int
    max_keeper_scaling_ratio_wad: int
    collateral_liquidate_reward_ratio_wad: int = 0


@dataclass(frozen=True, slots=True)
class KeeperCosts:
    """What a keeper's transactions cost, dollars.

    The contracts ask an oracle node that knows the gas price and how many feeds have to be updated; here the
    cost of a flag is linear in that number.

    Attributes
    ----------
    settlement_wad, flag_wad, liquidate_wad
        Of settling an order, of flagging without any feed, of one liquidation.
    flag_per_feed_wad
        For each market with a position and each synth.
    """

    settlement_wad: int = 0
    flag_wad: int = 0
    liquidate_wad: int = 0
    flag_per_feed_wad: int = 0


@dataclass(frozen=True, slots=True)
class InterestRate:
    """Interest on locked open interest, one for all markets (`InterestRate.Data` and its parameters).

    Attributes
    ----------
    accrued_wad, rate_wad, last_timestamp
        Per dollar so far, a year of 365.25 days, and since when.
    low_gradient_wad, breakpoint_wad, high_gradient_wad
        Rate a percent of utilisation below the breakpoint, the breakpoint, and above it.
    """

    accrued_wad: int = 0
    rate_wad: int = 0
    last_timestamp: int = 0
    low_gradient_wad: int = 0
    breakpoint_wad: int = 0
    high_gradient_wad: int = 0


@dataclass(frozen=True, slots=True)
class PerpsAccount:
    """One account (`PerpsAccount.Data`) with its positions.

    Attributes
    ----------
    account
        Whose.
    collateral_wad
        Amount by collateral id; `SNX_USD` counts one dollar. Zeros may be left out.
    positions
        By market, in the order they were opened; none of size 0.
    debt_wad
        Dollars lost beyond the `SNX_USD` margin.
    flagged
        Whether the account is in liquidation already: then anybody may go on with it.
    """

    account: str
    collateral_wad: Mapping[int, int] = field(default_factory=dict)
    positions: tuple[Position, ...] = ()
    debt_wad: int = 0
    flagged: bool = False

    def position(self, market_id: int) -> Position:
        """Return the position in a market, of size 0 when there is none."""
        return next((p for p in self.positions if p.market_id == market_id), Position(market_id, 0, 0))

    def with_position(self, position: Position) -> PerpsAccount:
        """Return the account with a position replaced, opened or, at size 0, closed."""
        if position.size_wad == 0:
            kept = tuple(p for p in self.positions if p.market_id != position.market_id)
        elif any(p.market_id == position.market_id for p in self.positions):
            kept = tuple(position if p.market_id == position.market_id else p for p in self.positions)
        else:
            kept = (*self.positions, position)
        return replace(self, positions=kept)

    def with_collateral(self, collateral_id: int, delta_wad: int) -> PerpsAccount:
        """Return the account with an amount of collateral added or, when negative, taken.

        Raises
        ------
        InputError
            If more is taken than there is.
        """
        left = self.collateral_wad.get(collateral_id, 0) + delta_wad
        if left < 0:
            raise InputError(
                f"{-delta_wad} of collateral {collateral_id} taken from {self.account}, which has "
                f"{left - delta_wad}",
                fix="take what is there",
            )
        amounts = {**self.collateral_wad, collateral_id: left}
        return replace(self, collateral_wad={i: a for i, a in amounts.items() if a})


@dataclass(frozen=True, slots=True)
class PerpsVenue:
    """All markets at one time, with the index prices that margin is counted at.

    Attributes
    ----------
    timestamp
        Unix seconds.
    markets
        By id.
    prices_wad
        Index price by market id; one that is missing is unknown.
    guards, costs
        Rewards and costs of keepers.
    collaterals
        Synths by id, without `SNX_USD`.
    interest
        On locked open interest.
    utilization_wad
        Share of the liquidity providers' collateral that is locked, for the next interest rate: their vaults
        are not modelled here, and neither is the limit they set to new positions.
    """

    timestamp: int
    markets: Mapping[int, PerpsMarket]
    prices_wad: Mapping[int, int]
    guards: KeeperGuards
    costs: KeeperCosts = KeeperCosts()
    collaterals: Mapping[int, CollateralType] = field(default_factory=dict)
    interest: InterestRate = InterestRate()
    utilization_wad: int = 0

    def price(self, market_id: int) -> int:
        """Return an index price.

        Raises
        ------
        PriceUnknown
            Without one.
        """
        price_wad = self.prices_wad.get(market_id)
        if price_wad is None:
            raise PriceUnknown(f"no price of market {market_id}", fix="give it in prices_wad")
        return price_wad

    def with_market(self, market: PerpsMarket) -> PerpsVenue:
        """Return the venue with one market replaced."""
        return replace(self, markets={**self.markets, market.id: market})
