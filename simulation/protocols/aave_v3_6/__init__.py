"""Aave V3.6, exact: a port of the contracts' libraries under their own names, one module a library.

What has not changed since revision 1 is imported from `simulation.protocols.aave_v3`: accounts, the packed
words, linear interest, where a market's parts are. What has changed stands here, so that the versions can be
held side by side.
"""

from __future__ import annotations

from simulation.protocols.aave_v3_6.adapter import AaveV36
from simulation.protocols.aave_v3_6.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v3_6.liquidation_logic import liquidation_quote, max_liquidatable
from simulation.protocols.aave_v3_6.reserve_logic import accrue, project
from simulation.protocols.aave_v3_6.types import (
    AaveMarket,
    EModeCategory,
    LiquidationOutcome,
    ReserveData,
    UserAccountData,
)

__all__ = [
    "AaveMarket",
    "AaveV36",
    "EModeCategory",
    "LiquidationOutcome",
    "ReserveData",
    "UserAccountData",
    "accrue",
    "calculate_user_account_data",
    "liquidation_quote",
    "max_liquidatable",
    "project",
]
