"""Compound III (Comet), exact: a model of the contract from its formulas, under its own names.

`types` holds the states, `comet` the contract's functions on them, `comet_math` their roundings.
"""

from __future__ import annotations

from simulation.protocols.compound_v3.adapter import CompoundV3
from simulation.protocols.compound_v3.comet import (
    absorb,
    accrue,
    accrue_account,
    buy_collateral,
    get_collateral_reserves,
    get_reserves,
    get_utilization,
    is_borrow_collateralized,
    is_liquidatable,
    project,
    quote_collateral,
    supply,
    withdraw,
    withdraw_reserves,
)
from simulation.protocols.compound_v3.layout import CometLayout, discover_layout
from simulation.protocols.compound_v3.types import (
    AbsorbOutcome,
    Absorption,
    AssetInfo,
    BuyOutcome,
    CometAccount,
    CometMarket,
    CometParams,
    CometTotals,
    Outcome,
    Pause,
    RateCurve,
)

__all__ = [
    "AbsorbOutcome",
    "Absorption",
    "AssetInfo",
    "BuyOutcome",
    "CometAccount",
    "CometLayout",
    "CometMarket",
    "CometParams",
    "CometTotals",
    "CompoundV3",
    "Outcome",
    "Pause",
    "RateCurve",
    "absorb",
    "accrue",
    "accrue_account",
    "buy_collateral",
    "discover_layout",
    "get_collateral_reserves",
    "get_reserves",
    "get_utilization",
    "is_borrow_collateralized",
    "is_liquidatable",
    "project",
    "quote_collateral",
    "supply",
    "withdraw",
    "withdraw_reserves",
]
