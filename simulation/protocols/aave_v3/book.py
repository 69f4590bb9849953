"""Exact account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.fixed_point import to_float
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.protocols.aave_v3.generic_logic import (
    a_token_balance,
    is_in_e_mode_category,
    user_e_mode,
    variable_debt_balance,
)
from simulation.protocols.aave_v3.types import AaveAccount, AaveMarket, ReserveData
from simulation.types import Asset, Book, PositionKind


def book_assets(market: AaveMarket) -> tuple[Asset, ...]:
    """Return the book's assets: the reserves' in order, then one for each eMode category with its own price.

    An account in such a category holds and owes the category's asset (symbol ``emode-N``), since one
    price applies to all of them; amounts are in whole tokens, so that they add up.
    """
    e_modes = sorted(market.e_mode_categories.values(), key=lambda c: c.id)
    return tuple(r.asset for r in market.listed()) + tuple(
        Asset(c.price_key, "", 0) for c in e_modes if c.price_source
    )


def build_book(
    protocol: str, market: AaveMarket, accounts: Sequence[str], exact: Sequence[AaveAccount | None]
) -> Book:
    """Return the book of `accounts`, whose amounts are those of the market's timestamp.

    Amounts and weights are correctly rounded to float64. What is left out of the floats is the contract's
    own rounding: each value is floored to one unit of base currency, and the average liquidation threshold
    is floored to a whole basis point. An account without a state has no positions and is unknown.
    """
    assets = book_assets(market)
    index = {asset.symbol: i for i, asset in enumerate(assets)}
    row_ptr = [0]
    columns: list[tuple[int, int, float, float]] = []
    for account in exact:
        if account is not None:
            for reserve in market.listed():
                columns += _columns(market, account, reserve, index)
        row_ptr.append(len(columns))
    asset, kind, amount, weight = zip(*columns, strict=True) if columns else ((), (), (), ())
    return Book(
        accounts=tuple(accounts),
        protocols=(protocol,),
        assets=assets,
        protocol=np.zeros(len(accounts), dtype=np.int32),
        row_ptr=np.array(row_ptr, dtype=np.int64),
        asset=np.array(asset, dtype=np.int32),
        kind=np.array(kind, dtype=np.int8),
        amount=np.array(amount, dtype=np.float64),
        weight=np.array(weight, dtype=np.float64),
        block=market.block,
        timestamp=market.timestamp,
        exact=tuple(exact),
    )


def _columns(
    market: AaveMarket, account: AaveAccount, reserve: ReserveData, index: dict[str, int]
) -> list[tuple[int, int, float, float]]:
    configuration = reserve.configuration
    position = account.position(reserve.id)
    e_mode = user_e_mode(market, account)
    symbol, threshold_bps = reserve.asset.symbol, configuration.liquidation_threshold_bps
    if e_mode is not None and is_in_e_mode_category(e_mode.id, configuration.e_mode_category):
        symbol = e_mode.price_key if e_mode.price_source else symbol
        threshold_bps = e_mode.liquidation_threshold_bps if threshold_bps else 0
    columns = []
    if is_using_as_collateral(account.user_configuration, reserve.id):
        amount = to_float(a_token_balance(market.rules, reserve, position), configuration.decimals)
        columns.append((index[symbol], int(PositionKind.COLLATERAL), amount, threshold_bps / 10_000))
    if is_borrowing(account.user_configuration, reserve.id):
        debt_raw = variable_debt_balance(market.rules, reserve, position) + position.stable_debt_raw
        amount = to_float(debt_raw, configuration.decimals)
        columns.append((index[symbol], int(PositionKind.DEBT), amount, 1.0))
    return columns
