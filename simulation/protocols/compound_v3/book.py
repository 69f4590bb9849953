"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.fixed_point import WAD, to_float
from simulation.protocols.compound_v3.comet import borrow_balance_of, is_in_asset
from simulation.protocols.compound_v3.errors import CometRevert
from simulation.protocols.compound_v3.types import PRICE_DECIMALS, CometAccount, CometMarket
from simulation.screen import Rounding
from simulation.types import Book, PositionKind


def screen_rounding() -> Rounding:
    """Return how the contract's health differs from real numbers, in units of its currency.

    Each collateral's value and the part of it that counts are each rounded down to 1e-8, and so is the debt's
    value; the debt in the book is the contract's own.
    """
    return Rounding(value_step=10.0**-PRICE_DECIMALS)


def book_of_accounts(
    protocol: str, market: CometMarket, accounts: Sequence[str], exact: Sequence[CometAccount | None]
) -> Book:
    """Return the book of exact states; an account that could not be read has no positions.

    Debts are with interest up to the market's timestamp, as `absorb` would find them, and then correctly
    rounded to float64. What somebody lent is no position: a lender is no borrower, and it stands for nothing.
    The assets are the base token, then the collaterals in order.
    """
    assets = (market.params.base, *(info.asset for info in market.params.assets))
    row_ptr = [0]
    columns: list[tuple[int, int, float, float]] = []
    known = []
    for account in exact:
        debt_raw = None if account is None else _owed(market, account)
        known.append(debt_raw is not None)
        if account is not None and debt_raw is not None:
            for offset, info in enumerate(market.params.assets):
                if account.collateral_raw[offset] and is_in_asset(account, offset):
                    amount = to_float(account.collateral_raw[offset], info.asset.decimals)
                    weight = info.liquidate_collateral_factor_wad / WAD
                    columns.append((1 + offset, int(PositionKind.COLLATERAL), amount, weight))
            if debt_raw:
                columns.append((0, int(PositionKind.DEBT), to_float(debt_raw, assets[0].decimals), 1.0))
        row_ptr.append(len(columns))
    asset, kind, amounts, weight_of = zip(*columns, strict=True) if columns else ((), (), (), ())
    return Book(
        accounts=tuple(accounts),
        protocols=(protocol,),
        assets=assets,
        protocol=np.zeros(len(accounts), dtype=np.int32),
        row_ptr=np.array(row_ptr, dtype=np.int64),
        asset=np.array(asset, dtype=np.int32),
        kind=np.array(kind, dtype=np.int8),
        amount=np.array(amounts, dtype=np.float64),
        weight=np.array(weight_of, dtype=np.float64),
        block=market.block,
        timestamp=market.timestamp,
        exact=tuple(a if usable else None for a, usable in zip(exact, known, strict=True)),
        known=np.array(known, dtype=np.bool_),
    )


def _owed(market: CometMarket, account: CometAccount) -> int | None:
    try:
        return borrow_balance_of(market, account)
    except CometRevert:
        return None
