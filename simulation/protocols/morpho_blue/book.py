"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.fixed_point import WAD, to_float
from simulation.protocols.morpho_blue.errors import MorphoRevert
from simulation.protocols.morpho_blue.morpho import accrue, borrowed_assets
from simulation.protocols.morpho_blue.types import MarketState, MorphoAccount, MorphoMarket
from simulation.screen import Rounding
from simulation.types import Book, PositionKind

_LOAN, _COLLATERAL = 0, 1


def screen_rounding(market: MorphoMarket) -> Rounding:
    """Return how the contract's health differs from real numbers, where loan tokens are the currency.

    The collateral's value and the part of it that counts are each rounded down to one raw unit of the loan
    token; the debt in the book is the contract's own, rounded up.
    """
    return Rounding(value_step=10.0**-market.loan.decimals)


def _owed(state: MarketState, account: MorphoAccount) -> int | None:
    """Return what an account owes, None where the contract's own arithmetic would overflow."""
    try:
        return borrowed_assets(state, account)
    except MorphoRevert:
        return None


def book_of_accounts(
    protocol: str, market: MorphoMarket, accounts: Sequence[str], exact: Sequence[MorphoAccount | None]
) -> Book:
    """Return the book of exact states; an account that could not be read has no positions.

    Debts are the contract's at the market's timestamp, to the wei, and then correctly rounded to float64.
    What somebody lent is no position: it stands for nothing here.
    """
    row_ptr = [0]
    columns: list[tuple[int, int, float, float]] = []
    known = []
    try:
        state = accrue(market).market.state
    except MorphoRevert:
        state = None
    for account in exact:
        owed_raw = None if account is None or state is None else _owed(state, account)
        known.append(owed_raw is not None)
        if account is not None and owed_raw is not None:
            if account.collateral_raw:
                amount = to_float(account.collateral_raw, market.collateral.decimals)
                weight = market.params.lltv_wad / WAD
                columns.append((_COLLATERAL, int(PositionKind.COLLATERAL), amount, weight))
            if account.borrow_shares:
                amount = to_float(owed_raw, market.loan.decimals)
                columns.append((_LOAN, int(PositionKind.DEBT), amount, 1.0))
        row_ptr.append(len(columns))
    asset, kind, amounts, weight_of = zip(*columns, strict=True) if columns else ((), (), (), ())
    return Book(
        accounts=tuple(accounts),
        protocols=(protocol,),
        assets=(market.loan, market.collateral),
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
