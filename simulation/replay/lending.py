"""Lending models that a replay plays accounts in: how much may be borrowed, who is due, what is seized.

Two models share one seam. `LtvModel` is generic: loan-to-value limits, a liquidation threshold, a bonus and a
close factor, in exact fractions; it stands in where a protocol's own model does not exist yet. `AaveModel` is
the exact integer model of Aave V3.0 with its rounding, on reserves without interest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol, TypeAlias

from simulation.fixed_point import MAX_UINT256, RAY, WAD, ceil_div, percent_div
from simulation.protocols.aave_v3.configuration import (
    ReserveConfiguration,
    set_borrowing,
    set_using_as_collateral,
)
from simulation.protocols.aave_v3.errors import AaveRevert
from simulation.protocols.aave_v3.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v3.liquidation_logic import liquidation_quote
from simulation.protocols.aave_v3.rules import V3_0
from simulation.protocols.aave_v3.types import AaveAccount, AaveMarket, AavePosition, ReserveData
from simulation.types import Asset

BPS = 10_000
Prices: TypeAlias = Mapping[str, Fraction | None]
"""Asset to the price of one whole token in the common quote currency; None is unknown, never zero."""


@dataclass(frozen=True, slots=True)
class Market:
    """One asset of a lending market.

    Attributes
    ----------
    symbol, decimals
        Of the token.
    max_ltv_bps, liquidation_threshold_bps
        Share of the collateral's value that may be borrowed, and above which its account is due.
    liquidation_bonus_bps
        What a liquidator gets on top: 500 is 5 %.
    slippage_bps
        What selling the asset costs against its true price.
    liquidity_raw
        Most of this asset that can be borrowed, token units; None without a limit.
    """

    symbol: str
    decimals: int
    max_ltv_bps: int = 0
    liquidation_threshold_bps: int = 0
    liquidation_bonus_bps: int = 0
    slippage_bps: int = 0
    liquidity_raw: int | None = None

    @property
    def unit(self) -> int:
        """Raw units of one token."""
        return int(10**self.decimals)


@dataclass(frozen=True, slots=True)
class Account:
    """What one account has and owes, asset to token units; nothing is there with 0."""

    id: str
    collateral: Mapping[str, int]
    debt: Mapping[str, int]

    def moved(
        self, collateral: Mapping[str, int] | None = None, debt: Mapping[str, int] | None = None
    ) -> Account:
        """Return the account with amounts added (negative: taken away)."""
        return Account(self.id, _added(self.collateral, collateral), _added(self.debt, debt))

    def assets(self) -> tuple[str, ...]:
        """Return the assets that the account's health depends on, sorted."""
        return tuple(sorted({*self.collateral, *self.debt}))


def _added(held: Mapping[str, int], change: Mapping[str, int] | None) -> dict[str, int]:
    amounts = dict(held)
    for asset, amount in (change or {}).items():
        amounts[asset] = amounts.get(asset, 0) + amount
        if amounts[asset] < 0:
            raise ValueError(f"{amount} of {asset} on {held.get(asset, 0)}")
    return {asset: amount for asset, amount in sorted(amounts.items()) if amount}


@dataclass(frozen=True, slots=True)
class Quotes:
    """The prices that a protocol acts on.

    Attributes
    ----------
    collateral, debt
        What an asset counts on either side of an account.
    why
        Why an asset without a price has none, for the report.
    """

    collateral: Prices
    debt: Prices
    why: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def same(cls, prices: Prices) -> Quotes:
        """Return one price for both sides."""
        return cls(prices, prices)


@dataclass(frozen=True, slots=True)
class Seizure:
    """One liquidation: debt repaid, collateral taken, and the account after it. Token units."""

    collateral: str
    debt: str
    seized_raw: int
    repaid_raw: int
    after: Account


class LendingModel(Protocol):
    """How a lending protocol judges an account. Pure: accounts and prices in, amounts out."""

    @property
    def name(self) -> str:
        """Short name, for example ``ltv``."""
        ...

    @property
    def label(self) -> str:
        """What the model is, one line for the report."""
        ...

    @property
    def markets(self) -> Mapping[str, Market]:
        """Assets by symbol."""
        ...

    def due(self, account: Account, quotes: Quotes) -> bool | None:
        """Return whether the account may be liquidated; None when a price that it needs is unknown."""
        ...

    def borrowable(self, account: Account, asset: str, quotes: Quotes, most_raw: int | None) -> int:
        """Return how much of `asset` the account may borrow now, token units.

        `most_raw` is the liquidity; None is no limit. 0 when a price is unknown: a protocol that cannot
        price reverts.
        """
        ...

    def liquidate(
        self, account: Account, quotes: Quotes, *, collateral: str, debt: str, most_raw: int
    ) -> Seizure | None:
        """Return the largest liquidation of a pair that repays at most `most_raw`, or None."""
        ...


NO_LIMIT = 2**128 - 1
"""Token units that no market holds: what ``borrow all`` comes to where nothing bounds it."""


def value(amounts: Mapping[str, int], prices: Prices, markets: Mapping[str, Market]) -> Fraction | None:
    """Return what token amounts are worth; None when one of them has no price."""
    total = Fraction(0)
    for asset, raw in amounts.items():
        price = prices.get(asset)
        if price is None:
            return None
        total += price * raw / markets[asset].unit
    return total


def _weighted(
    account: Account, prices: Prices, markets: Mapping[str, Market], weights_bps: Mapping[str, int]
) -> Fraction | None:
    total = Fraction(0)
    for asset, raw in account.collateral.items():
        price = prices.get(asset)
        if price is None:
            return None
        total += price * raw * weights_bps[asset] / (markets[asset].unit * BPS)
    return total


@dataclass(frozen=True, slots=True)
class LtvModel:
    """The generic loan-to-value model, exact.

    An account is due when its debt exceeds its collateral at the liquidation thresholds. A liquidation repays
    at most `close_factor_bps` of one debt and takes collateral worth that and the bonus; amounts are cut to
    whole token units in the protocol's favour, as contracts do.

    Attributes
    ----------
    markets
        Assets by symbol.
    close_factor_bps
        Largest share of a debt that one liquidation repays.
    stands_for
        The protocol it stands in for; empty when the scenario asked for this model itself.
    """

    markets: Mapping[str, Market]
    close_factor_bps: int = 5_000
    stands_for: str = ""

    @property
    def name(self) -> str:
        """Short name."""
        return "ltv"

    @property
    def label(self) -> str:
        """What the model is."""
        return "generic loan-to-value model" + (f" standing in for {self.stands_for}" * bool(self.stands_for))

    def due(self, account: Account, quotes: Quotes) -> bool | None:
        """See `LendingModel.due`."""
        if not account.debt:
            return False
        owed = value(account.debt, quotes.debt, self.markets)
        thresholds = {s: m.liquidation_threshold_bps for s, m in self.markets.items()}
        limit = _weighted(account, quotes.collateral, self.markets, thresholds)
        return None if owed is None or limit is None else owed > limit

    def borrowable(self, account: Account, asset: str, quotes: Quotes, most_raw: int | None) -> int:
        """See `LendingModel.borrowable`. An asset that is priced at nothing is lent without limit."""
        most = NO_LIMIT if most_raw is None else most_raw
        owed = value(account.debt, quotes.debt, self.markets)
        weights = {s: m.max_ltv_bps for s, m in self.markets.items()}
        limit = _weighted(account, quotes.collateral, self.markets, weights)
        price = quotes.debt.get(asset)
        if owed is None or limit is None or price is None:
            return 0
        room = limit - owed
        if room < 0 or (room == 0 and price):
            return 0
        return most if price == 0 else min(most, math.floor(room * self.markets[asset].unit / price))

    def liquidate(
        self, account: Account, quotes: Quotes, *, collateral: str, debt: str, most_raw: int
    ) -> Seizure | None:
        """See `LendingModel.liquidate`."""
        collateral_price, debt_price = quotes.collateral.get(collateral), quotes.debt.get(debt)
        if not self.due(account, quotes) or not collateral_price or not debt_price:
            return None
        held, owed = account.collateral.get(collateral, 0), account.debt.get(debt, 0)
        market = self.markets[collateral]
        # Collateral units that one debt unit takes, the bonus included.
        rate = (
            debt_price
            * market.unit
            * (BPS + market.liquidation_bonus_bps)
            / (collateral_price * self.markets[debt].unit * BPS)
        )
        repaid = min(most_raw, ceil_div(owed * self.close_factor_bps, BPS))
        seized = math.floor(repaid * rate)
        if seized > held:
            seized, repaid = held, min(repaid, math.ceil(held / rate))
        if repaid <= 0 or seized <= 0:
            return None
        return Seizure(
            collateral, debt, seized, repaid, account.moved({collateral: -seized}, {debt: -repaid})
        )


@dataclass(frozen=True, slots=True)
class AaveModel:
    """Aave V3.0 to the wei: `simulation.protocols.aave_v3` on reserves without interest, fees or eMode.

    Prices are cut to the oracle's 8 decimals. An asset's price that is not positive is a revert, as in
    `AaveOracle` without a fallback.

    Attributes
    ----------
    markets
        Assets by symbol, in the order of the reserves.
    """

    markets: Mapping[str, Market]

    @property
    def name(self) -> str:
        """Short name."""
        return "aave_v3"

    @property
    def label(self) -> str:
        """What the model is."""
        return "exact model of Aave V3.0, without interest"

    def due(self, account: Account, quotes: Quotes) -> bool | None:
        """See `LendingModel.due`."""
        if not account.debt:
            return False
        try:
            data = calculate_user_account_data(self.market(account, quotes), self.account(account))
        except AaveRevert:
            return None
        return data.health_factor_wad < WAD

    def borrowable(self, account: Account, asset: str, quotes: Quotes, most_raw: int | None) -> int:
        """See `LendingModel.borrowable`; the largest amount that `validateBorrow` lets pass.

        `ValidationLogic.validateBorrow` asks that the health factor is above 1 and that
        ``(debt + amount).percentDiv(ltv) <= collateral``, both before the debt grows.
        """
        most = NO_LIMIT if most_raw is None else most_raw
        market = self.market(account, quotes)
        reserve = market.reserve_of(asset)
        if reserve is None or reserve.price_base is None:
            return 0
        try:
            data = calculate_user_account_data(market, self.account(account))
        except AaveRevert:
            return 0
        if not data.total_collateral_base or not data.ltv_bps or data.health_factor_wad <= WAD:
            return 0
        price, unit = reserve.price_base, reserve.configuration.unit

        def passes(raw: int) -> bool:
            needed = percent_div(data.total_debt_base + price * raw // unit, data.ltv_bps)
            return needed <= data.total_collateral_base

        low, high = 0, most
        if passes(high):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return low

    def liquidate(
        self, account: Account, quotes: Quotes, *, collateral: str, debt: str, most_raw: int
    ) -> Seizure | None:
        """See `LendingModel.liquidate`; what `Pool.liquidationCall` does."""
        outcome = liquidation_quote(
            self.market(account, quotes),
            self.account(account),
            debt,
            collateral,
            min(most_raw, MAX_UINT256),
        )
        if not outcome.succeeds or not outcome.debt_repaid_raw:
            return None
        seized, repaid = outcome.collateral_seized_raw, outcome.debt_repaid_raw
        return Seizure(
            collateral, debt, seized, repaid, account.moved({collateral: -seized}, {debt: -repaid})
        )

    def market(self, account: Account, quotes: Quotes) -> AaveMarket:
        """Return the pool as `account` sees it: an asset that it holds counts at the collateral's price."""
        prices = {
            symbol: (quotes.collateral if symbol in account.collateral else quotes.debt).get(symbol)
            for symbol in self.markets
        }
        return AaveMarket(
            rules=V3_0,
            block=0,
            timestamp=0,
            reserves=tuple(
                _reserve(i, market, prices[symbol]) for i, (symbol, market) in enumerate(self.markets.items())
            ),
        )

    def account(self, account: Account) -> AaveAccount:
        """Return the account as Aave stores it; at an index of 1 scaled balances are balances."""
        word = 0
        positions = []
        for i, symbol in enumerate(self.markets):
            held, owed = account.collateral.get(symbol, 0), account.debt.get(symbol, 0)
            word = set_using_as_collateral(word, i, held > 0)
            word = set_borrowing(word, i, owed > 0)
            if held or owed:
                positions.append(AavePosition(i, held, owed))
        return AaveAccount(account.id, word, 0, tuple(positions))


def _reserve(reserve_id: int, market: Market, price: Fraction | None) -> ReserveData:
    base = None if price is None else math.floor(price * 10**8)
    return ReserveData(
        # The symbol stands for the address: one name a token is all that the model needs.
        asset=Asset(market.symbol, market.symbol, market.decimals),
        id=reserve_id,
        configuration=replace(
            ReserveConfiguration.unpack(0),
            ltv_bps=market.max_ltv_bps,
            liquidation_threshold_bps=market.liquidation_threshold_bps,
            liquidation_bonus_bps=BPS + market.liquidation_bonus_bps,
            decimals=market.decimals,
            active=True,
            borrowing_enabled=True,
        ),
        a_token="",
        stable_debt_token="",
        variable_debt_token="",
        liquidity_index_ray=RAY,
        variable_borrow_index_ray=RAY,
        current_liquidity_rate_ray=0,
        current_variable_borrow_rate_ray=0,
        last_update_timestamp=0,
        normalized_income_ray=RAY,
        normalized_variable_debt_ray=RAY,
        scaled_variable_debt_raw=0,
        total_stable_debt_raw=0,
        available_liquidity_raw=NO_LIMIT,
        isolation_mode_total_debt=0,
        price_base=base if base is not None and base > 0 else None,
    )
