"""The seeded book as a view that no node was asked for: market, accounts and pools made by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from contracts_abi.uniswap_v3 import MAX_TICK
from keeper.rpc import Head
from keeper.view import HeadView
from oracle.snapshot import plain_snapshot
from oracle.types import PriceSnapshot
from simulation.amm.uniswap_v3 import (
    PoolKey,
    PoolState,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
)
from simulation.chain.market import DEFAULT_MARKET, AssetSpec
from simulation.chain.seed import Holding, draw_book
from simulation.fixed_point import RAY
from simulation.liquidation import PlanSettings
from simulation.protocols.aave_v3 import (
    AaveAccount,
    AaveLayout,
    AaveMarket,
    AaveV3,
    EModeCategory,
)
from simulation.protocols.aave_v3.book import book_of_accounts
from simulation.protocols.aave_v3.configuration import ReserveConfiguration
from tests.aave_states import NOW, account, address, configuration, market, reserve

E8 = 10**8
GWEI = 10**9
BLOCK = 1_000
SYMBOLS = tuple(asset.symbol for asset in DEFAULT_MARKET.assets)
FIRST_E8: Mapping[str, int] = {asset.symbol: asset.price_e8 for asset in DEFAULT_MARKET.assets}
POOLS = (("WETH", "USDC", 500), ("WBTC", "WETH", 500), ("WBTC", "USDC", 3_000), ("wstETH", "WETH", 100))
DEPTH_USD = 200_000_000
_SPACING = {100: 1, 500: 10, 3_000: 60}

HEAD = Head(BLOCK, "0x" + "11" * 32, "0x" + "10" * 32, NOW, GWEI, 30_000_000, 0)
# A margin needs no address; nothing is read.
ADAPTER = AaveV3(AaveLayout("", "", "", "", (), (), 8))


def token(symbol: str) -> str:
    """Return an asset's address."""
    return address(SYMBOLS.index(symbol))


SETTINGS = PlanSettings(gas_price_wei=20 * GWEI, native_asset=token("WETH"), min_net_profit_e8=E8)


def market_at(prices_e8: Mapping[str, int | None]) -> AaveMarket:
    """Return the default market at other prices, with a year of interest behind it."""
    indices = {
        "liquidity_index_ray": RAY * 103 // 100,
        "variable_borrow_index_ray": RAY * 105 // 100,
        "current_variable_borrow_rate_ray": RAY * 4 // 100,
        "current_liquidity_rate_ray": RAY * 2 // 100,
    }
    return market(
        *(
            reserve(
                i,
                asset.symbol,
                prices_e8.get(asset.symbol, asset.price_e8),
                _configuration(asset),
                **indices,
            )
            for i, asset in enumerate(DEFAULT_MARKET.assets)
        ),
        e_modes=tuple(
            EModeCategory(
                m.category, m.ltv_bps, m.liquidation_threshold_bps, m.liquidation_bonus_bps, label=m.label
            )
            for m in DEFAULT_MARKET.emodes
        ),
        block=BLOCK,
    )


def _configuration(asset: AssetSpec) -> ReserveConfiguration:
    return configuration(
        asset.decimals,
        ltv_bps=asset.ltv_bps,
        liquidation_threshold_bps=asset.liquidation_threshold_bps,
        liquidation_bonus_bps=asset.liquidation_bonus_bps,
        liquidation_protocol_fee_bps=asset.liquidation_protocol_fee_bps,
        e_mode_category=asset.emode_category,
        flash_loan_enabled=True,
    )


@functools.cache
def seeded_accounts(accounts: int, seed: int) -> tuple[AaveAccount, ...]:
    """Return the exact states of a drawn book."""

    def balances(holdings: Sequence[Holding], index: int) -> dict[int, int]:
        return {SYMBOLS.index(h.symbol): h.amount_raw * 100 // index for h in holdings}

    return tuple(
        replace(
            account(balances(a.collateral, 103), balances(a.debt, 105), e_mode_category=a.emode),
            account=a.address,
        )
        for a in draw_book(DEFAULT_MARKET, accounts, seed)
    )


def pools_at(prices_e8: Mapping[str, int]) -> dict[str, PoolState]:
    """Return pools of full range at these prices."""
    found = {}
    for number, (first, second, fee_pips) in enumerate(POOLS):
        pool = _pool(first, second, fee_pips, prices_e8, number)
        found[pool.address] = pool
    return found


def _pool(first: str, second: str, fee_pips: int, prices_e8: Mapping[str, int], number: int) -> PoolState:
    zero, one = sorted((first, second), key=SYMBOLS.index)
    decimals = {asset.symbol: asset.decimals for asset in DEFAULT_MARKET.assets}
    spacing = _SPACING[fee_pips]
    key = PoolKey(f"0xF{number:039x}", token(zero), token(one), fee_pips, spacing)
    numerator = prices_e8[zero] * 10 ** decimals[one]
    denominator = prices_e8[one] * 10 ** decimals[zero]
    sqrt_price_x96 = math.isqrt((numerator << 192) // denominator)
    edge = MAX_TICK // spacing * spacing
    amount1 = DEPTH_USD * E8 * 10 ** decimals[one] // (2 * prices_e8[one])
    liquidity = (amount1 << 96) // (sqrt_price_x96 - get_sqrt_ratio_at_tick(-edge))
    tick = get_tick_at_sqrt_ratio(sqrt_price_x96)
    ticks = ((-edge, liquidity), (edge, -liquidity))
    return PoolState(key, sqrt_price_x96, tick, liquidity, ticks, key.all_words())


def reference_at(prices_e8: Mapping[str, int | None]) -> PriceSnapshot:
    """Return a reference view; an asset that is not named has no source."""
    return plain_snapshot("reference", "USD", prices_e8, 8, block=BLOCK, timestamp=NOW)


def view_at(
    accounts: Sequence[AaveAccount],
    protocol_e8: Mapping[str, int | None],
    reference_e8: Mapping[str, int | None],
    *,
    pools_e8: Mapping[str, int] | None = None,
    unreadable: Collection[str] = (),
) -> HeadView:
    """Return a view.

    Parameters
    ----------
    protocol_e8
        Price of an asset that is not the first one; None where the protocol's oracle reverts.
    reference_e8
        Price by asset, None where the source is refused; an asset without an entry has no source.
    pools_e8
        Prices that the pools stand at; the first ones by default.
    unreadable
        Accounts whose positions could not be read.
    """
    state = market_at(protocol_e8)
    exact = [None if a.account in unreadable else a for a in accounts]
    book = book_of_accounts(ADAPTER.name, state, [a.account for a in accounts], exact)
    known = ADAPTER.prices_base(state)
    protocol = plain_snapshot(
        "protocol", "USD", {**dict.fromkeys(SYMBOLS), **known}, 8, block=BLOCK, timestamp=NOW
    )
    pools = pools_at({**FIRST_E8, **(pools_e8 or {})})
    return HeadView(HEAD, state, book, protocol, reference_at(reference_e8), pools)
