"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.fixed_point import WAD, to_float
from simulation.protocols.morpho_blue.errors import MorphoRevert
from simulation.protocols.morpho_blue.morpho import accrue, borrowed_assets
from simulation.protocols.morpho_blue.types import MarketState, MorphoAccount, MorphoMarket
from simulation.screen import Rounding
from simulation.types import Book, Position, PositionKind

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
    try:
        state = accrue(market).market.state
    except MorphoRevert:
        state = None
    return Book.of_positions(
        protocol,
        (market.loan, market.collateral),
        accounts,
        exact,
        [
            None if account is None or state is None else _positions(market, state, account)
            for account in exact
        ],
        block=market.block,
        timestamp=market.timestamp,
    )


def _positions(market: MorphoMarket, state: MarketState, account: MorphoAccount) -> list[Position] | None:
    """Return an account's positions, None where the contract's own arithmetic would overflow."""
    owed_raw = _owed(state, account)
    if owed_raw is None:
        return None
    positions = []
    if account.collateral_raw:
        amount = to_float(account.collateral_raw, market.collateral.decimals)
        weight = market.params.lltv_wad / WAD
        positions.append((_COLLATERAL, int(PositionKind.COLLATERAL), amount, weight))
    if account.borrow_shares:
        positions.append((_LOAN, int(PositionKind.DEBT), to_float(owed_raw, market.loan.decimals), 1.0))
    return positions
