"""Morpho Blue markets and accounts made by hand, for tests without a chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.fixed_point import WAD
from simulation.protocols.morpho_blue import (
    IrmKind,
    MarketParams,
    MarketState,
    MorphoBlue,
    MorphoLayout,
    MorphoMarket,
)
from simulation.types import Asset
from tests.lending_model import ETH, USD

NOW = 1_700_000_000
ACCOUNT = "0x" + "Aa" * 20
MORPHO = "0x" + "Bb" * 20
ORACLE = "0x" + "0C" * 20
IRM = "0x" + "0D" * 20
LOAN = Asset("USDC", USD, 6)
COLLATERAL = Asset("WETH", ETH, 18)

PRICE_E36 = 2_000 * 10**24
"""2,000 USDC for a WETH: 36 + 6 - 18 = 24 decimals."""


def params(lltv_wad: int = 86 * WAD // 100, oracle: str = ORACLE) -> MarketParams:
    """Return what the market is."""
    return MarketParams(LOAN.address, COLLATERAL.address, oracle, IRM, lltv_wad)


def adapter(lltv_wad: int = 86 * WAD // 100, kind: IrmKind = IrmKind.ADAPTIVE_CURVE) -> MorphoBlue:
    """Return the adapter of that market."""
    return MorphoBlue(MorphoLayout(MORPHO, params(lltv_wad), LOAN, COLLATERAL, kind))


def market(supplied_raw: int = 0, borrowed_raw: int = 0, **changes: Any) -> MorphoMarket:
    """Return a market up to date, without interest, whose shares are still worth what they cost."""
    state = MarketState(
        total_supply_assets_raw=supplied_raw,
        total_supply_shares=supplied_raw * 10**6,
        total_borrow_assets_raw=borrowed_raw,
        total_borrow_shares=borrowed_raw * 10**6,
        last_update=NOW,
    )
    plain = MorphoMarket(
        params=params(),
        state=state,
        irm=None,
        price_e36=PRICE_E36,
        block=1,
        timestamp=NOW,
        loan=LOAN,
        collateral=COLLATERAL,
    )
    return replace(plain, **changes)
