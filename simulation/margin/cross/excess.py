"""What each wallet has above the requirement of each venue, in many scenarios at once, and what can leave.

At a venue's prices both are sums over tokens, so a book becomes columns once and every scenario is a matrix
product. Requirements by venue:

- Aave V2, V3 and V3.6: collateral by its liquidation threshold, or its category's, less debt. A withdrawal
  asks for a health factor of 1, which is the same limit (`ValidationLogic.validateHFAndLtv`; recalled [R]),
  and for the reserve's tokens that are not lent out.
- Morpho Blue: collateral by the LLTV less debt; a withdrawal asks for the same (`withdrawCollateral`, in
  `simulation.protocols.morpho_blue` held against the bytecode). Collateral is not lent out.
- Compound III: collateral by the liquidation factor less debt; a withdrawal asks for the smaller borrow
  factor (`isBorrowCollateralized`; read in source). Collateral is not lent out.
- Perpetuals: margin and profit less the maintenance margin; a withdrawal asks for the initial margin
  (formulas of Synthetix Perps V3, read and not executed), and of unpaid profit only a part can leave.

A dollar withdrawn counts as a dollar of excess although collateral counts by less than 1: what can leave is
understated, never overstated. Capital placed at a lending venue is debt repaid; it comes back by borrowing
only, so that none of it counts as withdrawable. Capital at a perpetuals venue is margin, and all of it does.

Options of a book name no venue and are not margined here; a wallet with options says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulation.book.health import row_limits, token_prices
from simulation.book.types import USD, SharedBook, Side
from simulation.margin.cross.links import Links
from simulation.types import Bool, Float64, Int64

LENT_OUT: Final = frozenset({"aave-v2", "aave-v3", "aave-v3.6"})
"""Protocols that lend collateral to others: full utilisation keeps it in."""

AT_INITIAL: Final = frozenset({"compound-v3"})
"""Lending protocols whose withdrawals ask for the limit of a new loan."""


@dataclass(frozen=True, slots=True)
class Legs:
    """Coefficients of W wallets at V venues over T tokens; lending venues come first.

    Dollars at prices p: counted . p + constant is what counts for the account, owed . p what it is held
    against; the difference is the excess. Of perpetuals, margin counts apart: `margin` . p.

    Attributes
    ----------
    names
        Of the venues.
    lends
        Whether a venue lends, shape (V,); the others trade perpetuals.
    lent_out, at_initial
        Whether withdrawals meet the pool's liquidity, and the initial limit, shape (V,).
    counted, owed
        Tokens, by threshold where collateral; of perpetuals sizes, and maintenance margin a token. (W, V, T).
    initial
        Of lending: collateral by what can be borrowed against it; of perpetuals initial margin. (W, V, T).
    held
        Collateral, or margin, whole, shape (W, V, T).
    constant
        Of perpetuals: less the sizes at their entries, and margin in dollars, shape (W, V).
    margin_usd
        The part of `constant` that is margin, shape (W, V).
    cash
        Tokens in the pools that are not lent out, shape (V, T).
    prices
        Of the book, shape (T,).
    present
        Whether the wallet has anything at the venue, shape (W, V).
    has_options
        Shape (W,).
    """

    names: tuple[str, ...]
    lends: Bool
    lent_out: Bool
    at_initial: Bool
    counted: Float64
    owed: Float64
    initial: Float64
    held: Float64
    constant: Float64
    margin_usd: Float64
    cash: Float64
    prices: Float64
    present: Bool
    has_options: Bool


def venue_names(book: SharedBook) -> tuple[str, ...]:
    """Return the names of a book's venues, lending first."""
    return (*(venue.name for venue in book.lending), *(venue.name for venue in book.perps))


def legs_of(book: SharedBook, wallets: Int64 | None = None) -> Legs:
    """Return the coefficients of some wallets.

    Parameters
    ----------
    book
        The shared book.
    wallets
        Indices, in the order wanted; all without.
    """
    tokens, lending = len(book.tokens), len(book.lending)
    count = lending + len(book.perps)
    chosen = np.arange(len(book.wallets)) if wallets is None else np.asarray(wallets, dtype=np.int64)
    place = np.full(len(book.wallets), -1)
    place[chosen] = np.arange(len(chosen))
    shape = (len(chosen), count, tokens)
    counted, owed, initial, held = (np.zeros(shape) for _ in range(4))
    constant, margin_usd = np.zeros(shape[:2]), np.zeros(shape[:2])

    rows = book.positions
    mine = place[rows.wallet] >= 0
    ltv, threshold = row_limits(book)
    is_held = rows.side == Side.COLLATERAL
    for into, factor, where in (
        (counted, threshold, mine & is_held),
        (initial, ltv, mine & is_held),
        (held, np.ones(len(rows)), mine & is_held),
        (owed, np.ones(len(rows)), mine & ~is_held),
    ):
        at = place[rows.wallet[where]], rows.venue[where], rows.token[where]
        np.add.at(into, at, rows.amount[where] * factor[where])

    index, perps = book.token_index(), book.perp_positions
    maintenance, opening = np.zeros((len(book.perps), tokens)), np.zeros((len(book.perps), tokens))
    for v, venue in enumerate(book.perps):
        for token, part in venue.maintenance_margin.items():
            maintenance[v, index[token]] = part
            opening[v, index[token]] = venue.initial_margin[token]
    mine = place[perps.wallet] >= 0
    who, venue_, token_ = place[perps.wallet[mine]], perps.venue[mine], perps.token[mine]
    size, entry = perps.size[mine], perps.entry[mine]
    at = who, lending + venue_, token_
    np.add.at(counted, at, size)
    np.add.at(constant, at[:2], -size * entry)
    np.add.at(owed, at, np.abs(size) * maintenance[venue_, token_])
    np.add.at(initial, at, np.abs(size) * opening[venue_, token_])
    mine = place[perps.margin_wallet] >= 0
    for w, v, margin in zip(
        place[perps.margin_wallet[mine]], perps.margin_venue[mine], perps.margin[mine], strict=True
    ):
        name = book.perps[v].margin_token
        if name == USD:
            margin_usd[w, lending + v] += margin
        else:
            held[w, lending + v, index[name]] += margin
    present = (counted != 0).any(-1) | (owed != 0).any(-1) | (held != 0).any(-1) | (margin_usd != 0)
    kinds = [venue.kind for venue in book.lending]
    options = np.zeros(len(book.wallets), dtype=np.bool_)
    options[book.options.wallet] = True
    return Legs(
        names=venue_names(book),
        lends=np.arange(count) < lending,
        lent_out=np.array([kind in LENT_OUT for kind in kinds] + [False] * len(book.perps)),
        at_initial=np.array([kind in AT_INITIAL for kind in kinds] + [True] * len(book.perps)),
        counted=counted,
        owed=owed,
        initial=initial,
        held=held,
        constant=constant + margin_usd,
        margin_usd=margin_usd,
        cash=pool_cash(book),
        prices=token_prices(book),
        present=present,
        has_options=options[chosen],
    )


def pool_cash(book: SharedBook) -> Float64:
    """Return the tokens of each venue that are not lent out, shape (V, T); 0 at venues of perpetuals."""
    index, lending = book.token_index(), len(book.lending)
    cash = np.zeros((lending + len(book.perps), len(book.tokens)))
    rows = book.positions
    sign = np.where(rows.side == Side.COLLATERAL, 1.0, -1.0)
    np.add.at(cash, (rows.venue, rows.token), sign * rows.amount)
    for v, venue in enumerate(book.lending):
        for reserve in venue.reserves:
            cash[v, index[reserve.token]] += reserve.idle_supply - reserve.outside_debt
    return np.maximum(cash, 0.0)


def _dot(coefficients: Float64, prices: Float64) -> Float64:
    """Return sums over tokens, shape (W, V, S), of (W, V, T) and (V, S, T)."""
    found: Float64 = np.einsum("wvt,vst->wvs", coefficients, prices, optimize=True)
    return found


@dataclass(frozen=True, slots=True)
class Excess:
    """Dollars of W wallets at V venues in S scenarios, shape (W, V, S).

    Attributes
    ----------
    excess
        Above the venue's own maintenance requirement, negative for a deficit.
    withdrawable
        What can leave.
    """

    excess: Float64
    withdrawable: Float64


def excess_of(legs: Legs, factors: Float64, frozen: Bool, links: Links) -> Excess:
    """Return excess and what can leave.

    Parameters
    ----------
    legs
        Of the wallets.
    factors
        What a venue's feeds multiply prices by, shape (V, S, T).
    frozen
        Whether pools that lend collateral out are empty, shape (V, S).
    links
        Says how much of unpaid profit can leave.
    """
    prices = factors * legs.prices
    # Margin in tokens counts with its price; collateral is in `counted` already.
    margin = np.where(legs.lends[None, :, None], 0.0, legs.held)
    posted = _dot(margin, prices) + legs.margin_usd[:, :, None]
    worth = _dot(legs.counted + margin, prices) + legs.constant[:, :, None]
    owed = _dot(legs.owed, prices)
    excess = worth - owed
    opening = _dot(legs.initial, prices)
    at_initial = np.where(legs.lends[None, :, None], opening - owed, worth - opening)
    limit = np.where(legs.at_initial[None, :, None], np.minimum(excess, at_initial), excess)
    gain = np.maximum(worth - posted, 0.0)
    recognised = np.minimum(links.gain_offset * gain, links.max_offsetable)
    lent = np.minimum(legs.held, legs.cash[None])
    liquid = _dot(np.where(legs.lent_out[None, :, None], lent, legs.held), prices)
    liquid = np.where((frozen & legs.lent_out[:, None])[None], 0.0, liquid)
    liquid = np.where(legs.lends[None, :, None], liquid, posted + recognised)
    return Excess(excess, np.minimum(np.maximum(limit, 0.0), np.maximum(liquid, 0.0)))


def isolated(book: SharedBook, legs: Legs, chosen: Int64, factors: Float64) -> Float64:
    """Return what positions need one by one, dollars, shape (W, V).

    An account is split into its debts, or perpetuals, each with its share of the collateral by the value of
    the debt, or of the margin by the maintenance margin, at the book's prices. The parts sum to the account,
    so that this is never less than the account needs.

    Parameters
    ----------
    book, legs, chosen
        The book, its coefficients, and the indices of the wallets that they are of.
    factors
        As of `excess_of`.
    """
    prices = factors * legs.prices
    place = np.full(len(book.wallets), -1)
    place[np.asarray(chosen, dtype=np.int64)] = np.arange(legs.counted.shape[0])
    out = np.zeros(legs.counted.shape[:2])
    rows = book.positions
    at = np.flatnonzero((place[rows.wallet] >= 0) & (rows.side == Side.DEBT))
    who, venue, token = place[rows.wallet[at]], rows.venue[at], rows.token[at]
    debts = legs.owed @ legs.prices
    share = rows.amount[at] * legs.prices[token] / debts[who, venue]
    for part, w, v, t, amount in zip(share, who, venue, token, rows.amount[at], strict=True):
        left = part * (prices[v] @ legs.counted[w, v]) - amount * prices[v, :, t]
        out[w, v] += max(0.0, -float(left.min()))
    perps, lending = book.perp_positions, len(book.lending)
    at = np.flatnonzero(place[perps.wallet] >= 0)
    who, venue, token = place[perps.wallet[at]], lending + perps.venue[at], perps.token[at]
    required = legs.owed @ legs.prices
    for w, v, t, size, entry in zip(who, venue, token, perps.size[at], perps.entry[at], strict=True):
        rate = legs.owed[w, v, t] / abs(legs.counted[w, v, t])
        part = rate * abs(size) * legs.prices[t] / required[w, v] if required[w, v] > 0 else 1.0
        posted = prices[v] @ legs.held[w, v] + legs.margin_usd[w, v]
        left = part * posted + size * (prices[v, :, t] - entry) - rate * abs(size) * prices[v, :, t]
        out[w, v] += max(0.0, -float(left.min()))
    return out
