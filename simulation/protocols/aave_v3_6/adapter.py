"""Aave V3.6 as the rest of the program sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

from contracts_abi import aave_v3 as abi
from contracts_abi import aave_v3_6 as abi_3_6
from contracts_abi.calls import Call
from contracts_abi.lens import LensRows
from simulation.protocols import protocols
from simulation.protocols.aave_v3.layout import AaveLayout, Answers, Reads, ReserveLayout, answer_all
from simulation.protocols.aave_v3.pool_adapter import PoolAdapter
from simulation.protocols.aave_v3_6.book import book_of_rows
from simulation.protocols.aave_v3_6.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v3_6.liquidation_logic import liquidation_quote, max_liquidatable
from simulation.protocols.aave_v3_6.math_utils import percent_mul_ceil
from simulation.protocols.aave_v3_6.reserve_logic import accrue, project
from simulation.protocols.aave_v3_6.token_math import get_a_token_balance
from simulation.protocols.aave_v3_6.types import AaveMarket, EModeCategory, ReserveData
from simulation.screen import Rounding
from simulation.types import Book

SCREEN_ROUNDING: Final = Rounding(value_step=1e-8, amount_units=0.5, amount_roundings=8)
"""Values are in base currency with eight decimals, those of debts rounded up. Thresholds are not averaged:
what they leave is summed in basis points, divided by the debt half up at 1e18, and only then cut."""


@protocols.register("aave-v3.6")
@dataclass(frozen=True, slots=True)
class AaveV36(PoolAdapter[AaveMarket]):
    """The adapter of one Aave V3.6 market (`simulation.interfaces.ProtocolAdapter`).

    Attributes
    ----------
    kind
        Its name; the fields are those of `PoolAdapter`.
    """

    kind: ClassVar[Literal["aave-v3.6"]] = "aave-v3.6"

    user_account_data = staticmethod(calculate_user_account_data)
    project = staticmethod(project)
    liquidation_quote = staticmethod(liquidation_quote)
    max_liquidatable = staticmethod(max_liquidatable)

    @staticmethod
    def amount_reads(layout: AaveLayout, reserve: ReserveLayout) -> dict[str, Call[Any]]:
        """Return the reads of supply, liquidity, deficit and grace period."""
        pool, symbol, address = layout.pool, reserve.asset.symbol, reserve.asset.address
        return {
            "scaled_a_token_supply_raw": abi.SCALED_TOTAL_SUPPLY.call(
                reserve.a_token, label=f"{symbol} supply"
            ),
            "virtual_underlying_balance_raw": abi_3_6.GET_VIRTUAL_UNDERLYING_BALANCE.call(
                pool, address, label=f"{symbol} virtual balance"
            ),
            "token_balance_raw": abi.BALANCE_OF.call(address, reserve.a_token, label=f"{symbol} liquidity"),
            "deficit_raw": abi_3_6.GET_RESERVE_DEFICIT.call(pool, address, label=f"{symbol} deficit"),
            "liquidation_grace_period_until": abi_3_6.GET_LIQUIDATION_GRACE_PERIOD.call(
                pool, address, label=f"{symbol} grace period"
            ),
        }

    @staticmethod
    def e_mode_reads(layout: AaveLayout, category: int, price_source: str) -> Reads:
        """Return the reads of a category's parameters, bitmaps and label; it has no price of its own."""
        return [
            fn.call(layout.pool, category, label=f"eMode {category}: {fn.name}")
            for fn in (
                abi_3_6.GET_EMODE_CATEGORY_COLLATERAL_CONFIG,
                abi_3_6.GET_EMODE_CATEGORY_COLLATERAL_BITMAP,
                abi_3_6.GET_EMODE_CATEGORY_BORROWABLE_BITMAP,
                abi_3_6.GET_EMODE_CATEGORY_LTVZERO_BITMAP,
                abi_3_6.GET_EMODE_CATEGORY_LABEL,
            )
        ]

    def decode_reserve(self, reserve: ReserveLayout, timestamp: int, **fields: Any) -> ReserveData:
        """Return the reserve at `timestamp`."""
        return accrue(ReserveData(**fields), timestamp)

    def decode_e_mode(
        self, category: int, source: str, calls: Sequence[Call[Any]], results: Answers
    ) -> EModeCategory:
        """Return the category."""
        bps, *rest = answer_all(calls, results)
        return EModeCategory(category, *bps, *rest)

    def market(self, **fields: Any) -> AaveMarket:
        """Return the market."""
        return AaveMarket(**fields)

    def book_of_rows(self, market: AaveMarket, accounts: Sequence[str], rows: LensRows) -> Book:
        """See `book.book_of_rows`."""
        return book_of_rows(self.name, market, accounts, rows, account_data=self.account_data)

    def screen_rounding(self, market: AaveMarket) -> Rounding:
        """Return how the contract's health factor differs from that of real numbers."""
        return replace(SCREEN_ROUNDING, value_step=10.0**-market.base_decimals)

    def flash_loan_premium(self, market: AaveMarket, amount_raw: int) -> int:
        """Return the premium of a flash loan, in token units, rounded up (`executeFlashLoanSimple`)."""
        return percent_mul_ceil(amount_raw, market.flash_loan_premium_bps)

    def flash_loan_limit(self, market: AaveMarket, asset: str) -> int:
        """Return the most that a flash loan can be of a token, 0 for none.

        No more than the aTokens are worth (`validateFlashloanSimple`), than the pool accounts for
        (`executeFlashLoanSimple`) and than is there.
        """
        reserve = market.reserve_of(asset)
        if reserve is None:
            return 0
        configuration = reserve.configuration
        if not configuration.flash_loan_enabled or not configuration.active or configuration.paused:
            return 0
        supply_raw = get_a_token_balance(reserve.scaled_a_token_supply_raw, reserve.normalized_income_ray)
        return min(supply_raw, reserve.virtual_underlying_balance_raw, reserve.token_balance_raw)
