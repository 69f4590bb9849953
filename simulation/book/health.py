"""What the accounts of a shared book are worth and may owe at its prices: a few sums over its columns.

Float64, for checks, pictures and calibration; the exact integers of one account are its protocol's adapter's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.book.types import USD, SharedBook, Side
from simulation.types import Float64, Int32


@dataclass(frozen=True, slots=True)
class LendingAccounts:
    """One row for each wallet in each lending venue, sorted by venue and wallet.

    Attributes
    ----------
    venue, wallet
        int32 indices into the book's lending venues and wallets, shape (n,).
    emode
        int32, the account's category; 0 without.
    collateral, debt
        US dollars at the book's prices, shape (n,).
    borrow_limit, liquidation_limit
        US dollars: collateral weighted by loan-to-value, and by liquidation threshold.
    """

    venue: Int32
    wallet: Int32
    emode: Int32
    collateral: Float64
    debt: Float64
    borrow_limit: Float64
    liquidation_limit: Float64

    def __len__(self) -> int:
        return len(self.venue)

    @property
    def health_factor(self) -> Float64:
        """Liquidation limit over debt; infinite without debt."""
        out = np.full(len(self), np.inf)
        np.divide(self.liquidation_limit, self.debt, out=out, where=self.debt > 0)
        return out


@dataclass(frozen=True, slots=True)
class PerpAccounts:
    """One row for each account of a perpetuals venue, as the book's margin rows.

    Attributes
    ----------
    venue, wallet
        int32 indices, shape (m,).
    equity
        US dollars: margin and what positions have gained or lost since their entry.
    initial, maintenance
        US dollars that opening, and staying, ask for.
    notional
        US dollars, absolute, of all positions.
    """

    venue: Int32
    wallet: Int32
    equity: Float64
    initial: Float64
    maintenance: Float64
    notional: Float64

    def __len__(self) -> int:
        return len(self.venue)


def token_prices(book: SharedBook) -> Float64:
    """Return the price of each token in US dollars, shape (tokens,)."""
    return np.array([token.price for token in book.tokens], dtype=np.float64)


def row_limits(book: SharedBook) -> tuple[Float64, Float64]:
    """Return loan-to-value and liquidation threshold of each lending row, parts of one, shape (n,) each.

    Those of the account's category where the token is in it (Aave's `GenericLogic`), else the reserve's. Of
    debts they mean nothing.
    """
    rows, index = book.positions, book.token_index()
    ltv = np.zeros((len(book.lending), len(book.tokens)))
    threshold = np.zeros_like(ltv)
    for v, venue in enumerate(book.lending):
        for reserve in venue.reserves:
            at = v, index[reserve.token]
            ltv[at], threshold[at] = reserve.ltv_bps / 1e4, reserve.liquidation_threshold_bps / 1e4
    row_ltv, row_threshold = ltv[rows.venue, rows.token], threshold[rows.venue, rows.token]
    for v, venue in enumerate(book.lending):
        for category in venue.emodes:
            members = np.zeros(len(book.tokens), dtype=np.bool_)
            members[[index[token] for token in category.tokens]] = True
            inside = (rows.venue == v) & (rows.emode == category.id) & members[rows.token]
            row_ltv[inside] = category.ltv_bps / 1e4
            row_threshold[inside] = category.liquidation_threshold_bps / 1e4
    return row_ltv, row_threshold


def lending_accounts(book: SharedBook) -> LendingAccounts:
    """Return what each wallet has, owes and may owe in each lending venue."""
    rows = book.positions
    key = rows.venue.astype(np.int64) * max(len(book.wallets), 1) + rows.wallet
    keys, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    value = rows.amount * token_prices(book)[rows.token]
    held = np.where(rows.side == Side.COLLATERAL, value, 0.0)
    ltv, threshold = row_limits(book)

    def total(values: Float64) -> Float64:
        return np.bincount(inverse, values, minlength=len(keys)).astype(np.float64)

    return LendingAccounts(
        venue=rows.venue[first],
        wallet=rows.wallet[first],
        emode=rows.emode[first],
        collateral=total(held),
        debt=total(value - held),
        borrow_limit=total(held * ltv),
        liquidation_limit=total(held * threshold),
    )


def perp_accounts(book: SharedBook) -> PerpAccounts:
    """Return equity and requirements of each account of the perpetuals venues at the book's prices."""
    rows, index, prices = book.perp_positions, book.token_index(), token_prices(book)
    shape = len(book.perps), len(book.tokens)
    initial, maintenance = np.zeros(shape), np.zeros(shape)
    for v, venue in enumerate(book.perps):
        for token in venue.maintenance_margin:
            initial[v, index[token]] = venue.initial_margin[token]
            maintenance[v, index[token]] = venue.maintenance_margin[token]
    margin_price = np.array(
        [1.0 if venue.margin_token == USD else prices[index[venue.margin_token]] for venue in book.perps]
    )
    wallets = max(len(book.wallets), 1)
    keys = rows.margin_venue.astype(np.int64) * wallets + rows.margin_wallet
    order = np.argsort(keys, kind="stable")
    own = order[np.searchsorted(keys, rows.venue.astype(np.int64) * wallets + rows.wallet, sorter=order)]
    price = prices[rows.token]
    notional = np.abs(rows.size) * price

    def total(values: Float64) -> Float64:
        return np.bincount(own, values, minlength=len(keys)).astype(np.float64)

    return PerpAccounts(
        venue=rows.margin_venue,
        wallet=rows.margin_wallet,
        equity=rows.margin * margin_price[rows.margin_venue] + total(rows.size * (price - rows.entry)),
        initial=total(notional * initial[rows.venue, rows.token]),
        maintenance=total(notional * maintenance[rows.venue, rows.token]),
        notional=total(notional),
    )


def wallet_leverage(book: SharedBook) -> tuple[Float64, Float64]:
    """Return assets and leverage of each wallet over all lending venues, shape (wallets,) each.

    Leverage is assets over equity, as of Heimbach and Huang, "DeFi leverage" (BIS Working Paper 1171): 1
    without debt, infinite where debt is no less than assets, and not a number without assets.
    """
    accounts = lending_accounts(book)
    wallets = len(book.wallets)
    assets: Float64 = np.bincount(accounts.wallet, accounts.collateral, minlength=wallets).astype(np.float64)
    equity = assets - np.bincount(accounts.wallet, accounts.debt, minlength=wallets)
    leverage: Float64 = np.where(assets > 0, np.inf, np.nan)
    np.divide(assets, equity, out=leverage, where=(assets > 0) & (equity > 0))
    return assets, leverage
