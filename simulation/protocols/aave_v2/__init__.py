"""Aave V2's rules, exact, for history: interest, rate curve, health factor and liquidations.

A port of the contracts' libraries under their own names. Packed words, half-up rounding and linear interest
are V3's and are used from there; `math_utils` and `collateral_manager` say what differs.
"""

from __future__ import annotations

from simulation.protocols.aave_v2.book import ROUNDING, book_of_accounts
from simulation.protocols.aave_v2.collateral_manager import liquidation_quote
from simulation.protocols.aave_v2.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v2.interest_rate_strategy import (
    InterestRateStrategy,
    Rates,
    calculate_interest_rates,
)
from simulation.protocols.aave_v2.model import AaveV2
from simulation.protocols.aave_v2.reserve_logic import update_interest_rates, update_state
from simulation.protocols.aave_v2.types import (
    AaveV2Account,
    AaveV2AccountData,
    AaveV2Liquidation,
    AaveV2Market,
    AaveV2Position,
    AaveV2Reserve,
)

__all__ = [
    "ROUNDING",
    "AaveV2",
    "AaveV2Account",
    "AaveV2AccountData",
    "AaveV2Liquidation",
    "AaveV2Market",
    "AaveV2Position",
    "AaveV2Reserve",
    "InterestRateStrategy",
    "Rates",
    "book_of_accounts",
    "calculate_interest_rates",
    "calculate_user_account_data",
    "liquidation_quote",
    "update_interest_rates",
    "update_state",
]
