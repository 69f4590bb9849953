"""Aave V3 as the rest of the program sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Call
from contracts_abi.errors import DataError
from contracts_abi.lens import LensRows
from simulation.protocols import protocols
from simulation.protocols.aave_v3.book import book_of_rows
from simulation.protocols.aave_v3.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v3.layout import (
    AaveLayout,
    Answers,
    Reads,
    ReserveLayout,
    answer_all,
    optional_address,
)
from simulation.protocols.aave_v3.liquidation_logic import liquidation_quote, max_liquidatable
from simulation.protocols.aave_v3.pool_adapter import PoolAdapter
from simulation.protocols.aave_v3.reserve_logic import accrue, project
from simulation.protocols.aave_v3.rules import V3_0
from simulation.protocols.aave_v3.types import AaveAccount, AaveMarket, EModeCategory, ReserveData, Rules
from simulation.screen import AAVE_V3_0, Rounding
from simulation.types import Book


@protocols.register("aave-v3")
@dataclass(frozen=True, slots=True)
class AaveV3(PoolAdapter[AaveMarket]):
    """The adapter of one Aave V3 market (`simulation.interfaces.ProtocolAdapter`).

    Attributes
    ----------
    rules
        Version of its contracts.
    """

    kind: ClassVar[Literal["aave-v3"]] = "aave-v3"

    rules: Rules = V3_0

    user_account_data = staticmethod(calculate_user_account_data)
    project = staticmethod(project)
    liquidation_quote = staticmethod(liquidation_quote)
    max_liquidatable = staticmethod(max_liquidatable)

    @staticmethod
    def amount_reads(layout: AaveLayout, reserve: ReserveLayout) -> dict[str, Call[Any]]:
        """Return the reads of debts and liquidity."""
        symbol, address = reserve.asset.symbol, reserve.asset.address
        return {
            "scaled_variable_debt_raw": abi.SCALED_TOTAL_SUPPLY.call(
                reserve.variable_debt_token, label=f"{symbol} variable debt"
            ),
            "total_stable_debt_raw": abi.TOTAL_SUPPLY.call(
                reserve.stable_debt_token, label=f"{symbol} stable debt"
            ),
            "available_liquidity_raw": abi.BALANCE_OF.call(
                address, reserve.a_token, label=f"{symbol} liquidity"
            ),
        }

    @staticmethod
    def e_mode_reads(layout: AaveLayout, category: int, price_source: str) -> Reads:
        """Return the reads of a category's parameters and of its own price."""
        source = price_source or layout.pool
        return [
            abi.GET_EMODE_CATEGORY_DATA.call(layout.pool, category, label=f"eMode {category}"),
            abi.GET_ASSET_PRICE.call(layout.oracle, source, label=f"eMode {category} price"),
        ]

    def decode_reserve(self, reserve: ReserveLayout, timestamp: int, **fields: Any) -> ReserveData:
        """Return the reserve at `timestamp`."""
        return accrue(ReserveData(stable_debt_token=reserve.stable_debt_token, **fields), timestamp)

    def decode_e_mode(
        self, category: int, source: str, calls: Sequence[Call[Any]], results: Answers
    ) -> EModeCategory:
        """Return the category; raises `DataError` when it has another price source than the layout says."""
        ((ltv_bps, threshold_bps, bonus_bps, price_source, label),) = answer_all(calls[:1], results[:1])
        if optional_address(price_source) != source:
            raise DataError(
                f"the price source of eMode category {category} is {price_source}, "
                f"expected {source or 'none'}",
                fix="discover the market's layout again",
            )
        price = results[1] if source else None
        return EModeCategory(
            id=category,
            ltv_bps=ltv_bps,
            liquidation_threshold_bps=threshold_bps,
            liquidation_bonus_bps=bonus_bps,
            price_source=source,
            price_base=None if price is None else calls[1].decode(price),
            label=label,
        )

    def market(self, **fields: Any) -> AaveMarket:
        """Return the market under this version's rules."""
        return AaveMarket(rules=self.rules, **fields)

    def book_of_rows(self, market: AaveMarket, accounts: Sequence[str], rows: LensRows) -> Book:
        """See `book.book_of_rows`."""
        return book_of_rows(self.name, market, accounts, rows, account_data=self.account_data)

    def needed_prices(self, market: AaveMarket, account: AaveAccount) -> set[str]:
        """Return the symbols of the account's assets, and its category's key where that has its own price."""
        needed = PoolAdapter.needed_prices(self, market, account)
        e_mode = market.e_mode_categories.get(account.e_mode_category)
        return needed | {e_mode.price_key} if e_mode is not None and e_mode.price_source else needed

    def screen_rounding(self, market: AaveMarket) -> Rounding:
        """Return how the contract's health factor differs from that of real numbers."""
        return replace(AAVE_V3_0, value_step=10.0**-market.base_decimals)

    def flash_loan_premium(self, market: AaveMarket, amount_raw: int) -> int:
        """Return the premium of a flash loan, in token units (`executeFlashLoanSimple`)."""
        return market.rules.flash_premium(amount_raw, market.flash_loan_premium_bps)

    def flash_loan_limit(self, market: AaveMarket, asset: str) -> int:
        """Return the most that a flash loan can be of a token (`validateFlashloanSimple`), 0 for none."""
        reserve = market.reserve_of(asset)
        if reserve is None:
            return 0
        configuration = reserve.configuration
        lends = configuration.flash_loan_enabled and configuration.active and not configuration.paused
        return reserve.available_liquidity_raw if lends else 0
