"""Aave V3 markets and accounts made by hand, for tests without a chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.fixed_point import RAY
from simulation.protocols.aave_v3 import (
    V3_0,
    AaveAccount,
    AaveMarket,
    AavePosition,
    EModeCategory,
    ReserveData,
    accrue,
)
from simulation.protocols.aave_v3.configuration import (
    ReserveConfiguration,
    set_borrowing,
    set_using_as_collateral,
)
from simulation.types import Asset

NOW = 1_600_000_000
E8 = 10**8
ACCOUNT = "0x" + "Aa" * 20


def configuration(decimals: int = 18, **changes: Any) -> ReserveConfiguration:
    """Return an ordinary reserve's configuration: 80 / 85 / 5 %, a tenth of the bonus as fee."""
    plain = replace(
        ReserveConfiguration.unpack(0),
        ltv_bps=8_000,
        liquidation_threshold_bps=8_500,
        liquidation_bonus_bps=10_500,
        liquidation_protocol_fee_bps=1_000,
        decimals=decimals,
        active=True,
        borrowing_enabled=True,
    )
    return replace(plain, **changes)


def address(reserve_id: int) -> str:
    """Return the token address of a reserve made by `reserve`."""
    return f"0x{reserve_id + 1:040x}"


def reserve(
    reserve_id: int,
    symbol: str,
    price_base: int | None,
    config: ReserveConfiguration,
    **changes: Any,
) -> ReserveData:
    """Return a reserve with indices of 1 and all the liquidity one could want."""
    plain = ReserveData(
        asset=Asset(symbol, address(reserve_id), config.decimals),
        id=reserve_id,
        configuration=config,
        a_token=f"0xa{reserve_id:039x}",
        stable_debt_token=f"0xb{reserve_id:039x}",
        variable_debt_token=f"0xc{reserve_id:039x}",
        liquidity_index_ray=RAY,
        variable_borrow_index_ray=RAY,
        current_liquidity_rate_ray=0,
        current_variable_borrow_rate_ray=0,
        last_update_timestamp=NOW,
        normalized_income_ray=RAY,
        normalized_variable_debt_ray=RAY,
        scaled_variable_debt_raw=10**30,
        total_stable_debt_raw=0,
        available_liquidity_raw=10**30,
        isolation_mode_total_debt=0,
        price_base=price_base,
    )
    return accrue(replace(plain, **changes), NOW)


def market(*reserves: ReserveData, e_modes: tuple[EModeCategory, ...] = (), **changes: Any) -> AaveMarket:
    """Return a market of these reserves."""
    plain = AaveMarket(1, NOW, reserves, {c.id: c for c in e_modes}, flash_loan_premium_bps=5, rules=V3_0)
    return replace(plain, **changes)


def eth_and_usd(**changes: Any) -> AaveMarket:
    """Return a market of ETH at 200 and USD at 1, 18 and 6 decimals."""
    return market(
        reserve(0, "ETH", 200 * E8, configuration(18)),
        reserve(1, "USD", E8, configuration(6)),
        **changes,
    )


def account(
    collateral: dict[int, int], debt: dict[int, int], *, e_mode_category: int = 0, **changes: Any
) -> AaveAccount:
    """Return an account with scaled balances by reserve id, all of them flagged."""
    word = 0
    for i in collateral:
        word = set_using_as_collateral(word, i, True)
    for i in debt:
        word = set_borrowing(word, i, True)
    positions = tuple(
        AavePosition(i, collateral.get(i, 0), debt.get(i, 0)) for i in sorted({*collateral, *debt})
    )
    return replace(AaveAccount(ACCOUNT, word, e_mode_category, positions), **changes)


def set_reserve(state: AaveMarket, reserve_id: int, **changes: Any) -> AaveMarket:
    """Return the market with a reserve's fields changed; configuration fields go by their own names."""
    old = state.reserves[reserve_id]
    assert old is not None
    config = {k: v for k, v in changes.items() if k in ReserveConfiguration.__slots__}
    rest = {k: v for k, v in changes.items() if k not in config}
    new = replace(old, configuration=replace(old.configuration, **config), **rest)
    return replace(state, reserves=tuple(new if r is old else r for r in state.reserves))
