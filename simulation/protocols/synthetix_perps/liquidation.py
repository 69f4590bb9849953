"""Flag and liquidate (`LiquidationModule.sol`).

All collateral goes when an account is flagged, before anything is known of what closing its positions brings;
its debt is forgiven at the same moment. The positions then belong to the liquidity providers in all but name:
they are closed at the index price, window by window, whoever calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulation.protocols.synthetix_perps.decimal_math import mul_decimal
from simulation.protocols.synthetix_perps.perps_account import (
    flag_keeper_cost,
    keeper_reward,
    liquidation_test,
    margin_liquidation_test,
    total_collateral_value,
)
from simulation.protocols.synthetix_perps.perps_market import (
    max_liquidatable_amount,
    recompute_funding,
    update_interest,
    update_position_data,
)
from simulation.protocols.synthetix_perps.types import PerpsAccount, PerpsVenue, Position, SynthetixRevert


@dataclass(frozen=True, slots=True)
class Liquidated:
    """What one call did, dollars and units at 1e18.

    Attributes
    ----------
    flagged_now
        Whether this call flagged the account.
    seized_collateral_wad
        Amounts by collateral id that went to the liquidity providers.
    seized_value_wad
        Their value, without discount.
    debt_forgiven_wad
        The account's debt, which nobody pays any more.
    keeper_reward_wad
        What the caller got, from the liquidity providers.
    closed_wad
        Magnitude closed, by market id.
    realised_pnl_wad
        Profit, before interest, of the positions that were touched, whole: what is left of one starts anew at
        this price. The account is neither paid it nor charged it.
    finished
        Whether no position is left.
    """

    flagged_now: bool
    seized_collateral_wad: Mapping[int, int]
    seized_value_wad: int
    debt_forgiven_wad: int
    keeper_reward_wad: int
    closed_wad: Mapping[int, int]
    realised_pnl_wad: int
    finished: bool

    @property
    def providers_gain_wad(self) -> int:
        """What the liquidity providers have more than the books said before; negative is their loss.

        Collateral comes in and the reward goes out; an unpaid profit is theirs, and an unpaid loss or a debt
        that stood in the books as owed to them is not collected any more.
        """
        return self.seized_value_wad - self.keeper_reward_wad - self.debt_forgiven_wad + self.realised_pnl_wad


def _close(
    venue: PerpsVenue, account: PerpsAccount, position: Position, liquidator: str
) -> tuple[PerpsVenue, PerpsAccount, int, int]:
    """Close what the window allows of one position; returns amount and profit too (`liquidatePosition`)."""
    price_wad = venue.price(position.market_id)
    market = recompute_funding(venue.markets[position.market_id], price_wad, venue.timestamp)
    endorsed = bool(liquidator) and liquidator == market.configuration.endorsed_liquidator
    size = abs(position.size_wad)
    amount, market = max_liquidatable_amount(market, size, venue.timestamp, endorsed=endorsed)
    venue = venue.with_market(market)
    if amount == 0:
        return venue, account, 0, 0
    left = size - amount if position.size_wad > 0 else amount - size
    interest = update_interest(venue.interest, venue.utilization_wad, venue.timestamp)
    new = Position(position.market_id, 0, 0)
    if left != 0:
        new = Position(
            position.market_id, left, price_wad, market.last_funding_value_wad, interest.accrued_wad
        )
    funding = market.last_funding_value_wad - position.latest_interaction_funding_wad
    # The whole position is marked to the price, also where only a part is closed.
    pnl = mul_decimal(position.size_wad, price_wad - position.latest_interaction_price_wad)
    pnl += mul_decimal(position.size_wad, funding)
    market = update_position_data(market, position, new, venue.timestamp)
    venue = replace(venue.with_market(market), interest=interest)
    return venue, account.with_position(new), amount, pnl


def _liquidate_account(
    venue: PerpsVenue,
    account: PerpsAccount,
    liquidator: str,
    *,
    flag_cost_wad: int,
    collateral_value_wad: int,
    flagged_now: bool,
) -> tuple[PerpsVenue, PerpsAccount, int, dict[int, int], int]:
    """Close what may be closed of all positions; returns reward, amounts and profit (`_liquidateAccount`)."""
    reward_wad = profit = 0
    closed: dict[int, int] = {}
    endorsed_last = False
    for position in account.positions:
        configuration = venue.markets[position.market_id].configuration
        endorsed_last = bool(liquidator) and liquidator == configuration.endorsed_liquidator
        notional = mul_decimal(abs(position.size_wad), venue.price(position.market_id))
        venue, account, amount, pnl = _close(venue, account, position, liquidator)
        if not endorsed_last:
            reward_wad += mul_decimal(notional, configuration.flag_reward_ratio_wad)
        if amount:
            closed[position.market_id] = amount
            profit += pnl
    if not endorsed_last:
        ratio = venue.guards.collateral_liquidate_reward_ratio_wad
        reward_wad = max(mul_decimal(collateral_value_wad, ratio), reward_wad)
    paid = 0
    if flagged_now or closed:
        earned = reward_wad if flagged_now else 0
        cost = venue.costs.liquidate_wad + flag_cost_wad
        if earned + cost != 0:
            paid = keeper_reward(venue.guards, earned, cost, collateral_value_wad)
    return venue, account, paid, closed, profit


def liquidate(
    venue: PerpsVenue, account: PerpsAccount, *, liquidator: str = ""
) -> tuple[PerpsVenue, PerpsAccount, Liquidated]:
    """Return venue and account after a call, which flags an account that is not flagged yet (`liquidate`).

    Parameters
    ----------
    venue, account
        Before it.
    liquidator
        Who calls; matters for the endorsed one.

    Raises
    ------
    SynthetixRevert
        If the account is not flagged and may not be.
    PriceUnknown
        If a price is missing.
    """
    flagged_now = not account.flagged
    cost = value = forgiven = 0
    seized: dict[int, int] = {}
    if flagged_now:
        if not liquidation_test(venue, account).eligible:
            raise SynthetixRevert("NotEligibleForLiquidation", account.account)
        cost = flag_keeper_cost(venue, account)
        value = total_collateral_value(venue, account, discounted=False)
        seized, forgiven = dict(account.collateral_wad), account.debt_wad
        account = replace(account, collateral_wad={}, debt_wad=0, flagged=True)
    venue, account, paid, closed, profit = _liquidate_account(
        venue,
        account,
        liquidator,
        flag_cost_wad=cost,
        collateral_value_wad=value,
        flagged_now=flagged_now,
    )
    finished = not account.positions
    if finished and (flagged_now or closed):
        account = replace(account, flagged=False)
    return (
        venue,
        account,
        Liquidated(flagged_now, seized, value, forgiven, paid, closed, profit, finished),
    )


def liquidate_margin_only(
    venue: PerpsVenue, account: PerpsAccount, *, liquidator: str = ""
) -> tuple[PerpsVenue, PerpsAccount, Liquidated]:
    """Return venue and account after the collateral of an indebted account without positions is seized.

    Raises
    ------
    SynthetixRevert
        If there are positions, or the margin suffices (`liquidateMarginOnly`).
    """
    if account.positions:
        raise SynthetixRevert("AccountHasOpenPositions", account.account)
    if not margin_liquidation_test(venue, account)[0]:
        raise SynthetixRevert("NotEligibleForMarginLiquidation", account.account)
    cost = flag_keeper_cost(venue, account)
    value = total_collateral_value(venue, account, discounted=False)
    seized, forgiven = dict(account.collateral_wad), account.debt_wad
    account = replace(account, collateral_wad={}, debt_wad=0)
    venue, account, paid, closed, profit = _liquidate_account(
        venue, account, liquidator, flag_cost_wad=cost, collateral_value_wad=value, flagged_now=True
    )
    return venue, account, Liquidated(True, seized, value, forgiven, paid, closed, profit, True)
