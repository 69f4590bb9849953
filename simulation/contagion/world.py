"""What does not change while paths run: the book and the rules, laid out for the kernels.

Reserves are numbered over all venues: reserve ``v * A + a`` is token ``a`` in venue ``v``; ``R = V * A``.
An account is one wallet in one venue, a row. Rows of a venue stand together. A row has a fixed number of
slots on either side; an empty slot points at the venue's first token with amount 0, so that kernels need no
branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from contracts_abi.errors import InputError, UnknownNameError
from simulation.book.types import EMode, LendingVenue, SharedBook, Side
from simulation.types import Bool, Float64, Int32, Int64

AAVE_V2: Final = 0
AAVE_V3: Final = 1
AAVE_V3_6: Final = 2
MORPHO_BLUE: Final = 3
COMPOUND_V3: Final = 4

KINDS: Final = {
    "aave-v2": AAVE_V2,
    "aave-v3": AAVE_V3,
    "aave-v3.6": AAVE_V3_6,
    "morpho-blue": MORPHO_BLUE,
    "compound-v3": COMPOUND_V3,
}
"""Lending kinds that the kernels know the rules of."""

BPS: Final = 10_000.0


class VenueRules(NamedTuple):
    """How each venue liquidates; all arrays have shape (V,). A policy returns another one of these.

    A named tuple, so that compiled code takes it as it is.

    Attributes
    ----------
    kind
        Code of the protocol, see `KINDS`.
    close_factor
        Part of the debt that one liquidation may repay at a health factor above `full_below`.
    full_below
        Health factor at and below which all may be repaid.
    whole_position
        1 where the close factor is taken of the whole position's debt and not of one token's (Aave V3.3+).
    min_full
        US dollars: with less than this on either side all may be repaid whatever the health factor (V3.3+).
    min_leftover
        US dollars that a partial liquidation has to leave on both sides (V3.3+), 0 without the rule.
    halt_toxic
        1 where nobody is liquidated whose loan-to-value is above ``1 / (1 + bonus)``: a liquidation there
        raises it (Warmuz, Chaudhary and Pinna 2022).
    bonus_cap
        Largest bonus, infinite without the policy.
    bonus_slope
        Bonus per unit that the health factor is below 1, bounded by the reserve's own bonus; 0 for the
        reserve's bonus at once.
    solvent_bonus
        1 where the bonus never exceeds what the account's collateral has above its debt.
    delay_steps
        Steps that an account must have been below 1 before anybody may liquidate it.
    storefront
        Part of the liquidation penalty that a buyer of absorbed collateral gets (Compound III).
    socialise
        1 where what is left of a debt without collateral is taken off the suppliers at once (Morpho Blue).
    write_off
        1 where it is burned and kept as a deficit of the reserve (Aave V3.3+).
    """

    kind: Int64
    close_factor: Float64
    full_below: Float64
    whole_position: Int64
    min_full: Float64
    min_leftover: Float64
    halt_toxic: Int64
    bonus_cap: Float64
    bonus_slope: Float64
    solvent_bonus: Int64
    delay_steps: Int64
    storefront: Float64
    socialise: Int64
    write_off: Int64


def rules_of(kinds: list[str]) -> VenueRules:
    """Return the protocols' own rules, one venue each.

    The figures are constants of the contracts: Aave V2 `LendingPoolCollateralManager` (half, always), Aave V3
    `LiquidationLogic` (half above 0.95), Aave V3.6 `LiquidationLogic` (half of the position above 0.95 when
    both sides are worth 2,000, at least 1,000 left), Morpho Blue and Compound III all at once.

    Raises
    ------
    UnknownNameError
        For a kind without rules.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("lending kind", kind, KINDS)
    code = np.array([KINDS[kind] for kind in kinds], dtype=np.int64)
    n = len(kinds)
    half = np.isin(code, (AAVE_V2, AAVE_V3, AAVE_V3_6))
    modern = code == AAVE_V3_6
    return VenueRules(
        kind=code,
        close_factor=np.where(half, 0.5, 1.0),
        full_below=np.where(code == AAVE_V2, -np.inf, np.where(half, 0.95, np.inf)),
        whole_position=modern.astype(np.int64),
        min_full=np.where(modern, 2_000.0, 0.0),
        min_leftover=np.where(modern, 1_000.0, 0.0),
        halt_toxic=np.zeros(n, dtype=np.int64),
        bonus_cap=np.full(n, np.inf),
        bonus_slope=np.zeros(n),
        solvent_bonus=np.zeros(n, dtype=np.int64),
        delay_steps=np.zeros(n, dtype=np.int64),
        storefront=np.zeros(n),
        socialise=(code == MORPHO_BLUE).astype(np.int64),
        write_off=modern.astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class Reserves:
    """Reserves over all venues, arrays of shape (R,); entries of tokens that a venue does not list are 0.

    Attributes
    ----------
    listed
        Whether the venue has the token.
    optimal, base, slope1, slope2
        Interest curve, a year.
    reserve_factor
        Part of the interest that goes to the protocol.
    protocol_fee
        Part of a liquidation's bonus that goes to the protocol.
    idle
        Tokens supplied by others than the book's accounts, and by these where they are no collateral.
    outside_debt
        Tokens owed by others.
    reserves
        Tokens that the protocol holds against losses; a claim on the pool like a supplier's.
    """

    listed: Bool
    optimal: Float64
    base: Float64
    slope1: Float64
    slope2: Float64
    reserve_factor: Float64
    protocol_fee: Float64
    idle: Float64
    outside_debt: Float64
    reserves: Float64


@dataclass(frozen=True, slots=True)
class World:
    """The book and its rules as arrays.

    Attributes
    ----------
    book
        Where it all comes from.
    tokens, venues
        Names.
    price
        US dollars at the start, shape (A,).
    row_wallet, row_venue
        Shape (N,).
    venue_ptr
        Rows of venue v are ``venue_ptr[v]:venue_ptr[v + 1]``, shape (V + 1,).
    coll_at, debt_at
        Reserve of each slot, int32, shapes (N, C) and (N, D).
    coll, debt
        Whole tokens at the start, shapes (N, C) and (N, D).
    lt, ltv, bonus
        Of each collateral slot, parts of one, after eMode, shape (N, C).
    rules, reserves
        See the classes.
    cash
        Tokens in each pool at the start, shape (R,).
    shocks
        Scenarios in which an account has to stand: factors of all prices, shape (S, R). Its health factor is
        then the least over them. No rows under the protocols' own rules.
    """

    book: SharedBook
    tokens: tuple[str, ...]
    venues: tuple[str, ...]
    price: Float64
    row_wallet: Int32
    row_venue: Int32
    venue_ptr: Int64
    coll_at: Int32
    debt_at: Int32
    coll: Float64
    debt: Float64
    lt: Float64
    ltv: Float64
    bonus: Float64
    rules: VenueRules
    reserves: Reserves
    cash: Float64
    shocks: Float64

    @property
    def rows(self) -> int:
        """Number of accounts."""
        return len(self.row_venue)

    def token(self, symbol: str) -> int:
        """Return the index of a token.

        Raises
        ------
        UnknownNameError
            When the book has none of that name.
        """
        if symbol not in self.tokens:
            raise UnknownNameError("token", symbol, self.tokens)
        return self.tokens.index(symbol)

    def venue(self, name: str) -> int:
        """Return the index of a lending venue; see `token`."""
        if name not in self.venues:
            raise UnknownNameError("venue", name, self.venues)
        return self.venues.index(name)

    def with_rules(self, rules: VenueRules) -> World:
        """Return the same world under other rules."""
        return replace(self, rules=rules)


def build_world(book: SharedBook) -> World:
    """Lay a book out.

    Raises
    ------
    InputError
        If a pool has lent out more than was supplied, or a position is in a token that its venue has not.
    """
    tokens = tuple(token.symbol for token in book.tokens)
    venues = tuple(venue.name for venue in book.lending)
    reserves = _reserves(book, tokens)
    p = book.positions
    _require_listed(book, reserves)
    rows, row = np.unique(np.stack([p.venue, p.wallet], axis=1), axis=0, return_inverse=True)
    row = np.asarray(row).reshape(-1)
    row_venue, row_wallet = rows[:, 0].astype(np.int32), rows[:, 1].astype(np.int32)
    at = p.venue.astype(np.int64) * len(tokens) + p.token
    first = row_venue.astype(np.int64) * len(tokens)
    coll_at, coll, coll_of = _slots(p.side == Side.COLLATERAL, row, at, p.amount, first)
    debt_at, debt, _ = _slots(p.side == Side.DEBT, row, at, p.amount, first)
    emode = np.zeros(len(rows), dtype=np.int32)
    np.maximum.at(emode, row, p.emode)
    lt, ltv, bonus = _parameters(book, tokens, row_venue, emode, coll_at, coll_of >= 0)
    # What counts for nothing is no collateral that anybody could take: its owner is a supplier like others.
    idle = lt == 0.0
    np.add.at(reserves.idle, coll_at[idle], coll[idle])
    coll[idle] = 0.0
    cash = reserves.idle + reserves.reserves - reserves.outside_debt
    np.add.at(cash, coll_at.ravel(), coll.ravel())
    np.add.at(cash, debt_at.ravel(), -debt.ravel())
    _require_lendable(cash, reserves, tokens, venues)
    return World(
        book=book,
        tokens=tokens,
        venues=venues,
        price=np.array([token.price for token in book.tokens]),
        row_wallet=row_wallet,
        row_venue=row_venue,
        venue_ptr=np.searchsorted(row_venue, np.arange(len(venues) + 1)).astype(np.int64),
        coll_at=coll_at,
        debt_at=debt_at,
        coll=coll,
        debt=debt,
        lt=lt,
        ltv=ltv,
        bonus=bonus,
        rules=_rules(book),
        reserves=reserves,
        cash=np.maximum(cash, 0.0),
        shocks=np.empty((0, len(cash))),
    )


def _reserves(book: SharedBook, tokens: tuple[str, ...]) -> Reserves:
    n = len(book.lending) * len(tokens)
    columns = {
        name: np.zeros(n)
        for name in (
            "base",
            "slope1",
            "slope2",
            "reserve_factor",
            "protocol_fee",
            "idle",
            "outside_debt",
            "own",
        )
    }
    optimal, listed = np.full(n, 0.5), np.zeros(n, dtype=np.bool_)
    index = {symbol: i for i, symbol in enumerate(tokens)}
    for v, venue in enumerate(book.lending):
        for reserve in venue.reserves:
            at = v * len(tokens) + index[reserve.token]
            listed[at] = True
            optimal[at] = reserve.rate.optimal
            columns["base"][at] = reserve.rate.base
            columns["slope1"][at] = reserve.rate.slope1
            columns["slope2"][at] = reserve.rate.slope2
            columns["reserve_factor"][at] = reserve.reserve_factor_bps / BPS
            columns["protocol_fee"][at] = reserve.protocol_fee_bps / BPS
            columns["idle"][at] = reserve.idle_supply
            columns["outside_debt"][at] = reserve.outside_debt
            columns["own"][at] = reserve.reserves
    own = columns.pop("own")
    return Reserves(listed=listed, optimal=optimal, reserves=own, **columns)


def _require_listed(book: SharedBook, reserves: Reserves) -> None:
    p = book.positions
    unlisted = ~reserves.listed[p.venue.astype(np.int64) * len(book.tokens) + p.token]
    if unlisted.any():
        i = int(np.flatnonzero(unlisted)[0])
        raise InputError(
            f"wallet {book.wallets[p.wallet[i]]} has {book.tokens[p.token[i]].symbol} in "
            f"{book.lending[p.venue[i]].name}, which does not list it",
            fix="add the reserve or remove the position",
        )


def _require_lendable(
    cash: Float64, reserves: Reserves, tokens: tuple[str, ...], venues: tuple[str, ...]
) -> None:
    scale = reserves.idle + reserves.outside_debt + reserves.reserves + 1.0
    short = np.flatnonzero(cash < -1e-9 * scale)
    if len(short):
        v, a = divmod(int(short[0]), len(tokens))
        raise InputError(
            f"{venues[v]} has lent out {-cash[short[0]]:g} {tokens[a]} more than was supplied",
            fix=f"raise idle_supply of {tokens[a]} by at least that",
        )


def _slots(mask: Bool, row: Int64, at: Int64, amount: Float64, first: Int64) -> tuple[Int32, Float64, Int32]:
    """Return reserve, amount and position of each slot, shape (rows, most positions of a row)."""
    rows, picked = row[mask], np.flatnonzero(mask)
    order = np.argsort(rows, kind="stable")
    rows, picked = rows[order], picked[order]
    count = np.bincount(rows, minlength=len(first))
    width = max(int(count.max(initial=0)), 1)
    slot = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    where = np.repeat(first[:, None], width, axis=1).astype(np.int32)
    held = np.zeros((len(first), width))
    of = np.full((len(first), width), -1, dtype=np.int32)
    where[rows, slot], held[rows, slot], of[rows, slot] = at[picked], amount[picked], picked
    return where, held, of


def _parameters(
    book: SharedBook, tokens: tuple[str, ...], row_venue: Int32, emode: Int32, at: Int32, used: Bool
) -> tuple[Float64, Float64, Float64]:
    """Return threshold, loan-to-value and bonus of each collateral slot, as eMode has it."""
    n = len(book.lending) * len(tokens)
    own = np.zeros((3, n))
    index = {symbol: i for i, symbol in enumerate(tokens)}
    for v, venue in enumerate(book.lending):
        for r in venue.reserves:
            own[:, v * len(tokens) + index[r.token]] = (
                r.liquidation_threshold_bps / BPS,
                r.ltv_bps / BPS,
                r.liquidation_bonus_bps / BPS,
            )
        if venue.kind == "compound-v3":
            # The book has the bonus on the debt, 1 / factor - 1; Comet has the factor.
            own_at = slice(v * len(tokens), (v + 1) * len(tokens))
            own[2, own_at] = own[2, own_at] / (1.0 + own[2, own_at])
        if venue.kind == "morpho-blue":
            # The factor follows from the LLTV to 18 decimals; whole basis points in the book only round it.
            own[2, v * len(tokens) : (v + 1) * len(tokens)] = morpho_bonus(
                own[0, v * len(tokens) : (v + 1) * len(tokens)]
            )
    out = np.where(used, own[:, at], 0.0)
    for v, venue in enumerate(book.lending):
        for mode in venue.emodes:
            member = np.isin(at % len(tokens), [index[t] for t in mode.tokens])
            picked = used & member & ((row_venue == v) & (emode == mode.id))[:, None]
            for k, bps in enumerate(_mode_bps(mode)):
                out[k][picked] = bps / BPS
    return out[0], out[1], out[2]


def morpho_bonus(lltv: Float64) -> Float64:
    """Return the liquidation bonus of Morpho Blue, ``min(0.15, 1 / (1 - 0.3 (1 - lltv)) - 1)``.

    `ConstantsLib.sol` and `_liquidationIncentiveFactor` of `Morpho.sol`.
    """
    return np.asarray(np.minimum(0.15, 1.0 / (1.0 - 0.3 * (1.0 - lltv)) - 1.0))


def _mode_bps(mode: EMode) -> tuple[int, int, int]:
    return mode.liquidation_threshold_bps, mode.ltv_bps, mode.liquidation_bonus_bps


def _rules(book: SharedBook) -> VenueRules:
    """Return the venues' own rules; a Compound III storefront shares what the book's protocol fee leaves."""
    rules = rules_of([venue.kind for venue in book.lending])
    shares = [
        1.0 - max(reserve.protocol_fee_bps for reserve in venue.reserves) / BPS for venue in book.lending
    ]
    return rules._replace(storefront=np.where(rules.kind == COMPOUND_V3, shares, 0.0))


def venue_of(book: SharedBook, name: str) -> LendingVenue:
    """Return a lending venue by name; see `World.token`."""
    for venue in book.lending:
        if venue.name == name:
            return venue
    raise UnknownNameError("venue", name, [venue.name for venue in book.lending])
