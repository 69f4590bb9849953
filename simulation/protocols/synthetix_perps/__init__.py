"""A perpetuals venue by the formulas of Synthetix V3's perps market, at 1e18 with its rounding.

Read, not executed: from Synthetixio/synthetix-v3 at commit 23585f73c (MIT), and held against the figures that
the authors' own tests state. Not modelled: delays between an order and its settlement, referrers, the core
system's vaults behind the market (their utilisation and credit are inputs), 128-bit overflows.

A port of the contracts' libraries under their own names: `perps_market` (funding, windows), `perps_account`
(margin), `orders`, `liquidation`; `columns` for kernels.
"""

from __future__ import annotations

from simulation.protocols.synthetix_perps.columns import Columns, MarketColumns, columns_of
from simulation.protocols.synthetix_perps.liquidation import Liquidated, liquidate, liquidate_margin_only
from simulation.protocols.synthetix_perps.model import SynthetixPerps
from simulation.protocols.synthetix_perps.orders import Settled, fill_price, order_fee, settle_order
from simulation.protocols.synthetix_perps.perps_account import (
    LiquidationTest,
    available_margin,
    liquidation_test,
    required_margins,
    withdrawable_margin,
)
from simulation.protocols.synthetix_perps.perps_market import (
    calculate_next_funding,
    current_funding_rate,
    current_funding_velocity,
    current_liquidation_capacity,
    market_debt,
    max_liquidation_amount_in_window,
)
from simulation.protocols.synthetix_perps.types import (
    SNX_USD,
    CollateralType,
    InterestRate,
    KeeperCosts,
    KeeperGuards,
    MarketConfiguration,
    PerpsAccount,
    PerpsMarket,
    PerpsVenue,
    Position,
    PriceUnknown,
    SynthetixRevert,
)

__all__ = [
    "SNX_USD",
    "CollateralType",
    "Columns",
    "InterestRate",
    "KeeperCosts",
    "KeeperGuards",
    "Liquidated",
    "LiquidationTest",
    "MarketColumns",
    "MarketConfiguration",
    "PerpsAccount",
    "PerpsMarket",
    "PerpsVenue",
    "Position",
    "PriceUnknown",
    "Settled",
    "SynthetixPerps",
    "SynthetixRevert",
    "available_margin",
    "calculate_next_funding",
    "columns_of",
    "current_funding_rate",
    "current_funding_velocity",
    "current_liquidation_capacity",
    "fill_price",
    "liquidate",
    "liquidate_margin_only",
    "liquidation_test",
    "market_debt",
    "max_liquidation_amount_in_window",
    "order_fee",
    "required_margins",
    "settle_order",
    "withdrawable_margin",
]
