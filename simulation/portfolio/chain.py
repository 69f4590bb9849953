"""Portfolios out of what was read from a chain, for methods that a lending protocol does not know."""

from __future__ import annotations

from oracle.types import PriceSnapshot
from simulation.portfolio.instruments import Portfolio, Position, Spot
from simulation.portfolio.market import AssetPrice, Market
from simulation.types import Book, PositionKind

_PRICE_DECIMALS = 18


def portfolios_of(book: Book, prices: PriceSnapshot) -> tuple[list[Portfolio], Market, dict[str, str]]:
    """Return the borrowers of a book as portfolios of tokens held and owed, and the market that prices them.

    Parameters
    ----------
    book
        Positions of one block.
    prices
        By asset symbol; one that is unknown is left out of the market, so that whoever holds it is unknown.

    Returns
    -------
    portfolios
        One for each account that could be read.
    market
        Its time is the book's.
    unknown
        Account to the reason why nothing can be said of it.
    """
    portfolios: list[Portfolio] = []
    unknown: dict[str, str] = {}
    for row, account in enumerate(book.accounts):
        if not book.known[row]:
            unknown[account] = "account could not be read"
            continue
        part = slice(int(book.row_ptr[row]), int(book.row_ptr[row + 1]))
        positions = tuple(
            Position(
                instrument=Spot(asset=book.assets[asset].symbol),
                quantity=float(-amount if kind == PositionKind.DEBT else amount),
            )
            for asset, kind, amount in zip(book.asset[part], book.kind[part], book.amount[part], strict=True)
        )
        portfolios.append(Portfolio(account=account, positions=positions))
    known = {asset.symbol: prices.price_at(asset.symbol, _PRICE_DECIMALS) for asset in book.assets}
    assets = {
        symbol: AssetPrice(price=raw / 10**_PRICE_DECIMALS)
        for symbol, raw in known.items()
        if raw is not None
    }
    return portfolios, Market(timestamp=book.timestamp, assets=assets), unknown
