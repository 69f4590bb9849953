"""Morpho Blue, exact: a model of the contract from its formulas, under its own names, one module a library.

`types` holds the states, `morpho` the contract's calls as functions on them, `irm` the interest rate models.
"""

from __future__ import annotations

from simulation.protocols.morpho_blue.adapter import MorphoBlue
from simulation.protocols.morpho_blue.irm import AdaptiveCurveIrm, FixedRateIrm, UtilizationIrm
from simulation.protocols.morpho_blue.layout import IrmKind, MorphoLayout, discover_layout
from simulation.protocols.morpho_blue.morpho import (
    accrue,
    accrue_interest,
    borrow,
    is_healthy,
    liquidate,
    liquidation_incentive_factor,
    liquidation_quote,
    project,
    repay,
    supply,
    supply_collateral,
    withdraw,
    withdraw_collateral,
)
from simulation.protocols.morpho_blue.types import (
    LiquidationOutcome,
    MarketParams,
    MarketState,
    MorphoAccount,
    MorphoMarket,
    Outcome,
)

__all__ = [
    "AdaptiveCurveIrm",
    "FixedRateIrm",
    "IrmKind",
    "LiquidationOutcome",
    "MarketParams",
    "MarketState",
    "MorphoAccount",
    "MorphoBlue",
    "MorphoLayout",
    "MorphoMarket",
    "Outcome",
    "UtilizationIrm",
    "accrue",
    "accrue_interest",
    "borrow",
    "discover_layout",
    "is_healthy",
    "liquidate",
    "liquidation_incentive_factor",
    "liquidation_quote",
    "project",
    "repay",
    "supply",
    "supply_collateral",
    "withdraw",
    "withdraw_collateral",
]
