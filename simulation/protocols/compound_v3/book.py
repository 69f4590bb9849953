"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.fixed_point import WAD, to_float
from simulation.protocols.compound_v3.comet import borrow_balance_of, is_in_asset
from simulation.protocols.compound_v3.errors import CometRevert
from simulation.protocols.compound_v3.types import PRICE_DECIMALS, CometAccount, CometMarket
from simulation.screen import Rounding
from simulation.types import Book, Position, PositionKind


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
    return Book.of_positions(
        protocol,
        (market.params.base, *(info.asset for info in market.params.assets)),
        accounts,
        exact,
        [None if account is None else _positions(market, account) for account in exact],
        block=market.block,
        timestamp=market.timestamp,
    )


def _positions(market: CometMarket, account: CometAccount) -> list[Position] | None:
    """Return an account's positions, None where the contract's own arithmetic would overflow."""
    debt_raw = _owed(market, account)
    if debt_raw is None:
        return None
    positions = []
    for offset, info in enumerate(market.params.assets):
        if account.collateral_raw[offset] and is_in_asset(account, offset):
            amount = to_float(account.collateral_raw[offset], info.asset.decimals)
            weight = info.liquidate_collateral_factor_wad / WAD
            positions.append((1 + offset, int(PositionKind.COLLATERAL), amount, weight))
    if debt_raw:
        amount = to_float(debt_raw, market.params.base.decimals)
        positions.append((0, int(PositionKind.DEBT), amount, 1.0))
    return positions


def _owed(market: CometMarket, account: CometAccount) -> int | None:
    try:
        return borrow_balance_of(market, account)
    except CometRevert:
        return None
