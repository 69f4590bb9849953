"""Account states as the flat float columns that the screen and the kernels run on; prices are in ether."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from simulation.fixed_point import to_float
from simulation.protocols.aave_v2.reserve_logic import (
    a_token_balance,
    stable_debt_balance,
    variable_debt_balance,
)
from simulation.protocols.aave_v2.types import AaveV2Account, AaveV2Market
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.screen import Rounding
from simulation.types import Book, PositionKind

ROUNDING: Final = Rounding(weight_step=1e-4, value_step=1e-18)
"""How the contract's health departs from real numbers: thresholds averaged to whole basis points, values cut
to one wei. With it `simulation.screen` says of every account what the exact integers say, or that it is too
near to tell; the bound is derived there."""


def book_of_accounts(protocol: str, market: AaveV2Market, accounts: Sequence[AaveV2Account | None]) -> Book:
    """Return the book of exact states; an account that is None is unknown and has no positions.

    Amounts are the contract's balances at the market's time, to the wei, and then correctly rounded to
    float64; stable and variable debt in one asset are one position.
    """
    row_ptr = [0]
    columns: list[tuple[int, int, float, float]] = []
    for account in accounts:
        for reserve in market.reserves if account is not None else ():
            assert account is not None
            position, word = account.position(reserve.id), account.user_configuration
            decimals = reserve.configuration.decimals
            if is_using_as_collateral(word, reserve.id):
                amount = to_float(a_token_balance(reserve, position, market.timestamp), decimals)
                weight = reserve.configuration.liquidation_threshold_bps / 10_000
                columns.append((reserve.id, int(PositionKind.COLLATERAL), amount, weight))
            if is_borrowing(word, reserve.id):
                owed_raw = variable_debt_balance(reserve, position, market.timestamp)
                owed_raw += stable_debt_balance(position, market.timestamp)
                columns.append((reserve.id, int(PositionKind.DEBT), to_float(owed_raw, decimals), 1.0))
        row_ptr.append(len(columns))
    asset, kind, amounts, weights = zip(*columns, strict=True) if columns else ((), (), (), ())
    return Book(
        accounts=tuple("" if a is None else a.account for a in accounts),
        protocols=(protocol,),
        assets=tuple(r.asset for r in market.reserves),
        protocol=np.zeros(len(accounts), dtype=np.int32),
        row_ptr=np.array(row_ptr, dtype=np.int64),
        asset=np.array(asset, dtype=np.int32),
        kind=np.array(kind, dtype=np.int8),
        amount=np.array(amounts, dtype=np.float64),
        weight=np.array(weights, dtype=np.float64),
        block=0,
        timestamp=market.timestamp,
        exact=tuple(accounts),
        known=np.array([a is not None for a in accounts], dtype=np.bool_),
    )
