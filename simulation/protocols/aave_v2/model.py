"""Aave V2 as the rest of the program finds it by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from simulation.protocols.aave_v2.book import book_of_accounts
from simulation.protocols.aave_v2.collateral_manager import HEALTH_FACTOR_LIQUIDATION_THRESHOLD_WAD
from simulation.protocols.aave_v2.errors import AaveV2Revert
from simulation.protocols.aave_v2.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v2.types import AaveV2Account, AaveV2Market
from simulation.protocols.models import Founded, protocol_models
from simulation.types import Book, MarginStatus


@protocol_models.register("aave-v2")
@dataclass(frozen=True, slots=True)
class AaveV2:
    """Aave V2's interest, health and liquidations, for history: no keeper runs on it.

    Attributes
    ----------
    kind, founded, source
        Its name, what it was held against, and where the rules were read.
    """

    kind: ClassVar[Literal["aave-v2"]] = "aave-v2"
    founded: ClassVar[Founded] = Founded.EXECUTED
    source: ClassVar[str] = "aave/protocol-v2 at ce53c4a8, contracts/protocol; npm @aave/protocol-v2 1.0.1"

    def status(self, market: AaveV2Market, account: AaveV2Account) -> MarginStatus:
        """Return whether the account may be liquidated; `UNKNOWN` where the contract could not say."""
        try:
            data = calculate_user_account_data(market, account)
        except AaveV2Revert:
            return MarginStatus.UNKNOWN
        if data.total_debt_wei == 0:
            return MarginStatus.NO_DEBT
        below = data.health_factor_wad < HEALTH_FACTOR_LIQUIDATION_THRESHOLD_WAD
        return MarginStatus.LIQUIDATABLE if below else MarginStatus.HEALTHY

    def columns(self, market: AaveV2Market, accounts: Sequence[AaveV2Account | None]) -> Book:
        """Return the accounts as float columns; see `book_of_accounts`."""
        return book_of_accounts(self.kind, market, accounts)
