"""What brings an account to its limit: the price of each of its assets at which it becomes liquidatable."""

from __future__ import annotations

import numpy as np

from simulation.types import Book, Float64, PositionKind


def trigger_prices(book: Book, row: int, prices: Float64) -> dict[str, float | None]:
    """Return for each asset of an account the price that takes its health factor to 1, the others standing.

    An asset counts net: collateral at its threshold less debt. For a collateral the account is liquidatable
    below the price, for a debt above it. A float estimate for people; nothing is decided by it.

    Parameters
    ----------
    row
        The account.
    prices
        float64, shape (assets,), as `keeper.decide.prices_of`; NaN where unknown.

    Returns
    -------
    dict
        Symbol to price; None where no positive price does it, or another asset's price is unknown.
    """
    span = slice(int(book.row_ptr[row]), int(book.row_ptr[row + 1]))
    signs = np.where(book.kind[span] == PositionKind.DEBT, -1.0, 1.0)
    net = np.zeros(len(book.assets))
    np.add.at(net, book.asset[span], signs * book.weight[span] * book.amount[span])
    # An asset that the account does not hold must not make the others unknown.
    value = np.where(net == 0, 0.0, net * prices)
    found: dict[str, float | None] = {}
    for index in np.flatnonzero(net).tolist():
        rest = float(np.delete(value, index).sum())
        price = -rest / float(net[index])
        found[book.assets[index].symbol] = price if np.isfinite(price) and price > 0 else None
    return found
