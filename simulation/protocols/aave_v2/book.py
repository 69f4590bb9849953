"""Account states as the flat float columns that the screen and the kernels run on; prices are in ether."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from simulation.fixed_point import to_float
from simulation.protocols.aave_v2.reserve_logic import (
    a_token_balance,
    stable_debt_balance,
    variable_debt_balance,
)
from simulation.protocols.aave_v2.types import AaveV2Account, AaveV2Market
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.screen import Rounding
from simulation.types import Book, Position, PositionKind

ROUNDING: Final = Rounding(weight_step=1e-4, value_step=1e-18)
"""How the contract's health departs from real numbers: thresholds averaged to whole basis points, values cut
to one wei. With it `simulation.screen` says of every account what the exact integers say, or that it is too
near to tell; the bound is derived there."""


def book_of_accounts(protocol: str, market: AaveV2Market, accounts: Sequence[AaveV2Account | None]) -> Book:
    """Return the book of exact states; an account that is None is unknown and has no positions.

    Amounts are the contract's balances at the market's time, to the wei, and then correctly rounded to
    float64; stable and variable debt in one asset are one position.
    """
    return Book.of_positions(
        protocol,
        tuple(r.asset for r in market.reserves),
        tuple("" if a is None else a.account for a in accounts),
        accounts,
        [None if account is None else _positions(market, account) for account in accounts],
        block=0,
        timestamp=market.timestamp,
    )


def _positions(market: AaveV2Market, account: AaveV2Account) -> list[Position]:
    positions = []
    for reserve in market.reserves:
        position, word = account.position(reserve.id), account.user_configuration
        decimals = reserve.configuration.decimals
        if is_using_as_collateral(word, reserve.id):
            amount = to_float(a_token_balance(reserve, position, market.timestamp), decimals)
            weight = reserve.configuration.liquidation_threshold_bps / 10_000
            positions.append((reserve.id, int(PositionKind.COLLATERAL), amount, weight))
        if is_borrowing(word, reserve.id):
            owed_raw = variable_debt_balance(reserve, position, market.timestamp)
            owed_raw += stable_debt_balance(position, market.timestamp)
            positions.append((reserve.id, int(PositionKind.DEBT), to_float(owed_raw, decimals), 1.0))
    return positions
