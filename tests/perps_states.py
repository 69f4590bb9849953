"""Synthetix markets and accounts made by hand, for tests without a chain."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from simulation.protocols.synthetix_perps import (
    SNX_USD,
    KeeperCosts,
    KeeperGuards,
    MarketConfiguration,
    PerpsAccount,
    PerpsMarket,
    PerpsVenue,
)

NOW = 1_700_000_000
DAY = 86_400


def wad(value: float | str) -> int:
    """Return a decimal number at 1e18, exactly as it is written."""
    return int(Decimal(str(value)).scaleb(18))


def configuration(**changes: Any) -> MarketConfiguration:
    """Return parameters without fees, minima or funding; numbers are given as decimals."""
    plain = {
        "maker_fee": 0,
        "taker_fee": 0,
        "skew_scale": 1_000,
        "max_funding_velocity": 0,
        "initial_margin_ratio": 2,
        "minimum_initial_margin_ratio": "0.01",
        "maintenance_margin_scalar": "0.5",
        "minimum_position_margin": 0,
        "flag_reward_ratio": "0.05",
        "max_liquidation_limit_accumulation_multiplier": 1,
    }
    seconds = changes.pop("max_seconds_in_liquidation_window", 10)
    endorsed = changes.pop("endorsed_liquidator", "")
    given = {f"{name}_wad": wad(value) for name, value in {**plain, **changes}.items()}
    return MarketConfiguration(
        max_seconds_in_liquidation_window=seconds, endorsed_liquidator=endorsed, **given
    )


def venue(*markets: tuple[MarketConfiguration, float], **changes: Any) -> PerpsVenue:
    """Return a venue of markets 1, 2, ... at these prices, whose keepers cost nothing."""
    plain: dict[str, Any] = {
        "timestamp": NOW,
        "guards": KeeperGuards(0, wad(10_000), 0, wad(1)),
        "costs": KeeperCosts(),
    }
    return PerpsVenue(
        markets={i + 1: PerpsMarket(i + 1, c, last_funding_time=NOW) for i, (c, _) in enumerate(markets)},
        prices_wad={i + 1: wad(price) for i, (_, price) in enumerate(markets)},
        **{**plain, **changes},
    )


def depositor(usd: float, account: str = "trader") -> PerpsAccount:
    """Return an account with the market's own dollar."""
    return PerpsAccount(account, {SNX_USD: wad(usd)})
