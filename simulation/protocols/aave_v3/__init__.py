"""Aave V3, exact: a port of the contracts' libraries under their own names, one module a library.

`types` holds the states, `liquidation_logic.liquidation_quote` is the model of a liquidation,
`reserve_logic.project` takes a market to the next block's time.
"""

from __future__ import annotations

from simulation.protocols.aave_v3.adapter import AaveV3
from simulation.protocols.aave_v3.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v3.layout import AaveLayout, ReserveLayout, discover_layout, run_stages
from simulation.protocols.aave_v3.liquidation_logic import (
    close_factor,
    liquidation_quote,
    liquidator_configuration_after,
    max_liquidatable,
)
from simulation.protocols.aave_v3.reserve_logic import accrue, project
from simulation.protocols.aave_v3.rules import V3_0
from simulation.protocols.aave_v3.types import (
    AaveAccount,
    AaveMarket,
    AavePosition,
    EModeCategory,
    LiquidationOutcome,
    ReserveData,
    Rules,
    UserAccountData,
)

__all__ = [
    "V3_0",
    "AaveAccount",
    "AaveLayout",
    "AaveMarket",
    "AavePosition",
    "AaveV3",
    "EModeCategory",
    "LiquidationOutcome",
    "ReserveData",
    "ReserveLayout",
    "Rules",
    "UserAccountData",
    "accrue",
    "calculate_user_account_data",
    "close_factor",
    "discover_layout",
    "liquidation_quote",
    "liquidator_configuration_after",
    "max_liquidatable",
    "project",
    "run_stages",
]
