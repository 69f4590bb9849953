"""Compound III markets and accounts made by hand, for tests without a chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.fixed_point import WAD
from simulation.protocols.compound_v3 import (
    AssetInfo,
    CometAccount,
    CometMarket,
    CometParams,
    CometTotals,
    RateCurve,
)
from simulation.protocols.compound_v3.comet_math import BASE_INDEX_SCALE, per_second
from simulation.types import Asset
from tests.lending_model import BTC, ETH, USD

NOW = 1_700_000_000
E8 = 10**8
ACCOUNT = "0x" + "Aa" * 20
OTHER = "0x" + "Bb" * 20
COMET = "0x" + "C0" * 20
USDC = Asset("USDC", USD, 6)
WETH = Asset("WETH", ETH, 18)
WBTC = Asset("WBTC", BTC, 8)
FEEDS = tuple("0x" + f"{i:02x}" * 20 for i in (1, 2, 3))

ASSETS = (
    AssetInfo(WETH, FEEDS[1], 825 * WAD // 1000, 895 * WAD // 1000, 95 * WAD // 100, 10**24),
    AssetInfo(WBTC, FEEDS[2], 70 * WAD // 100, 77 * WAD // 100, 95 * WAD // 100, 10**14),
)


def curve(kink: int, base: int, low: int, high: int) -> RateCurve:
    """Return a curve of a year's rates in thousandths."""
    thousandth = WAD // 1000
    base_wad, low_wad, high_wad = (per_second(rate * thousandth) for rate in (base, low, high))
    return RateCurve(kink * thousandth, base_wad, low_wad, high_wad)


PARAMS = CometParams(
    base=USDC,
    base_price_feed=FEEDS[0],
    supply_curve=curve(800, 0, 32, 400),
    borrow_curve=curve(800, 15, 35, 250),
    store_front_price_factor_wad=WAD // 2,
    base_borrow_min_raw=100 * 10**6,
    target_reserves_raw=5_000_000 * 10**6,
    tracking_supply_speed=0,
    tracking_borrow_speed=0,
    base_min_for_rewards_raw=10**12,
    assets=ASSETS,
)
"""About what the authors' market of USDC on Ethereum began with."""


def account(owes_raw: int = 0, weth_raw: int = 0, wbtc_raw: int = 0, name: str = ACCOUNT) -> CometAccount:
    """Return an account that owes, while both indices are what they began with."""
    assets_in = (1 if weth_raw else 0) | (2 if wbtc_raw else 0)
    return CometAccount(name, -owes_raw, assets_in, (weth_raw, wbtc_raw))


def market(*accounts: CometAccount, lent_raw: int = 10**12, **changes: Any) -> CometMarket:
    """Return a market of these accounts, up to date, at 2,000 USD for a WETH and 40,000 for a WBTC."""
    owed_raw = -sum(a.principal for a in accounts)
    collateral_raw = tuple(sum(a.collateral_raw[i] for a in accounts) for i in range(2))
    plain = CometMarket(
        params=PARAMS,
        totals=CometTotals(BASE_INDEX_SCALE, BASE_INDEX_SCALE, 0, 0, lent_raw, owed_raw, NOW),
        total_collateral_raw=collateral_raw,
        collateral_held_raw=collateral_raw,
        base_held_raw=lent_raw - owed_raw,
        prices_e8=(2_000 * E8, 40_000 * E8),
        base_price_e8=E8,
        block=1,
        timestamp=NOW,
    )
    return replace(plain, **changes)
