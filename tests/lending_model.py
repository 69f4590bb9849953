"""A lending protocol of a few lines and pools made by hand, for planner tests without a chain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from oracle.snapshot import plain_snapshot
from oracle.types import PriceSnapshot
from simulation.amm.uniswap_v3 import (
    MAX_TICK,
    PoolKey,
    PoolState,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
)
from simulation.fixed_point import ceil_div
from simulation.types import Asset

E8 = 10**8
ETH, USD, BTC, DAI = (f"0x{i:040x}" for i in (0xE0, 0x50, 0xB0, 0xD0))
ASSETS = {
    ETH: Asset("ETH", ETH, 18),
    USD: Asset("USD", USD, 6),
    BTC: Asset("BTC", BTC, 8),
    DAI: Asset("DAI", DAI, 18),
}
PRICES_E8 = {ETH: 100 * E8, USD: E8, BTC: 5_000 * E8, DAI: E8}


@dataclass(frozen=True)
class Outcome:
    """What a liquidation in `Lender` does."""

    revert_code: str | None
    debt_repaid_raw: int = 0
    to_liquidator_raw: int = 0
    full: bool = False


@dataclass(frozen=True)
class Borrower:
    """Raw balances by token."""

    account: str
    debts: Mapping[str, int]
    collaterals: Mapping[str, int]
    liquidatable: bool = True


@dataclass(frozen=True)
class Lender:
    """Seizes at the oracle's price with a bonus; the market is its prices at 1e8 by token.

    Attributes
    ----------
    bonus_bps
        10500 seizes 5% more than is repaid.
    premium_bps
        Of flash loans.
    flash_raw
        What can be borrowed, by token; everything where there is no entry.
    least_left_raw
        Debt left over must be none or at least this.
    """

    bonus_bps: int = 10_500
    premium_bps: int = 5
    flash_raw: Mapping[str, int] = field(default_factory=dict)
    least_left_raw: int = 0
    name: str = "lender"

    def assets(self, market: Mapping[str, int]) -> tuple[Asset, ...]:
        return tuple(ASSETS[token] for token in market)

    def liquidation_pairs(self, market: Mapping[str, int], account: Borrower) -> list[tuple[str, str]]:
        return [(debt, collateral) for debt in account.debts for collateral in account.collaterals]

    def liquidation_quote(
        self,
        market: Mapping[str, int],
        account: Borrower,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
    ) -> Outcome:
        if not account.liquidatable:
            return Outcome("45")
        numerator = market[debt_asset] * 10 ** ASSETS[collateral_asset].decimals * self.bonus_bps
        denominator = market[collateral_asset] * 10 ** ASSETS[debt_asset].decimals * 10_000
        repaid = min(debt_to_cover_raw, account.debts[debt_asset])
        seized = repaid * numerator // denominator
        held = account.collaterals[collateral_asset]
        if seized > held:
            seized, repaid = held, ceil_div(held * denominator, numerator)
        left = account.debts[debt_asset] - repaid
        if 0 < left < self.least_left_raw:
            return Outcome("dust")
        return Outcome(None, repaid, seized, left == 0)

    def flash_loan_premium(self, market: Mapping[str, int], amount_raw: int) -> int:
        return ceil_div(amount_raw * self.premium_bps, 10_000)

    def flash_loan_limit(self, market: Mapping[str, int], asset: str) -> int:
        return self.flash_raw.get(asset, 10**40)


def pool(
    token_a: str,
    token_b: str,
    *,
    depth_usd: int,
    fee_pips: int = 500,
    off_bps: int = 0,
    width_ticks: int | None = None,
    number: int = 0,
) -> PoolState:
    """Return a pool at the price of `PRICES_E8`, worth about `depth_usd`.

    Parameters
    ----------
    off_bps
        How far the pool's price of token0 is above the oracle's.
    width_ticks
        Half-width of the liquidity; None for the full range.
    number
        Tells pools of one pair apart.
    """
    spacing = {100: 1, 500: 10, 3_000: 60, 10_000: 200}[fee_pips]
    token0, token1 = sorted((token_a, token_b), key=lambda token: int(token, 16))
    key = PoolKey(f"0xF{number:07x}{token0[-16:]}{token1[-16:]}", token0, token1, fee_pips, spacing)
    # token1 raw per token0 raw
    numerator = PRICES_E8[token0] * 10 ** ASSETS[token1].decimals * (10_000 + off_bps)
    denominator = PRICES_E8[token1] * 10 ** ASSETS[token0].decimals * 10_000
    sqrt_price_x96 = math.isqrt((numerator << 192) // denominator)
    tick = get_tick_at_sqrt_ratio(sqrt_price_x96)
    edge = MAX_TICK // spacing * spacing
    half = edge if width_ticks is None else max(spacing, width_ticks // spacing * spacing)
    centre = tick // spacing * spacing
    lower, upper = max(-edge, centre - half), min(edge, centre + half + spacing)
    # Half of the value lies in token1: L * (sqrt(price) - sqrt(lower)).
    amount1 = depth_usd * E8 * 10 ** ASSETS[token1].decimals // (2 * PRICES_E8[token1])
    liquidity = (amount1 << 96) // (sqrt_price_x96 - get_sqrt_ratio_at_tick(lower))
    return PoolState(
        key, sqrt_price_x96, tick, liquidity, ((lower, liquidity), (upper, -liquidity)), key.all_words()
    )


def pools_of(*pools: PoolState) -> dict[str, PoolState]:
    """Return pools by address."""
    return {p.address: p for p in pools}


def snapshot(prices_e8: Mapping[str, int | None] = PRICES_E8) -> PriceSnapshot:
    """Return the protocol view."""
    prices = {ASSETS[token].symbol: price for token, price in prices_e8.items()}
    return plain_snapshot("protocol", "USD", prices, 8, block=1, timestamp=1)
