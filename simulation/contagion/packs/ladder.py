"""Accounts laid out evenly over health factors: for events of which only what was near is known.

A group is many accounts with one collateral and one debt. Quantiles instead of draws: account i of n stands
at the quantile (i + 1/2) / n of the health factor, and sizes are the quantiles of a lognormal in an order
that the seed shuffles. So a figure moves smoothly with the group's parameters, which calibration needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

import numpy as np
from pydantic import Field, model_validator
from scipy.special import ndtri

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.book.bounds import check_book
from simulation.book.health import token_prices
from simulation.book.types import LendingColumns, LendingVenue, Reserve, SharedBook, Side
from simulation.types import Float64

UTILISATION: Final = 0.85
"""Of what is lent, at most: others supply what is missing."""


class LadderSpec(StrictModel):
    """A group of accounts in one venue.

    Attributes
    ----------
    venue, collateral, debt, emode
        Where, and in what; 0 for no category.
    accounts
        How many.
    mean_debt_usd
        Mean debt of an account, US dollars.
    size_spread
        Standard deviation of the logarithm of debts.
    health
        Least and greatest health factor.
    """

    venue: str
    collateral: str
    debt: str
    emode: Annotated[int, Field(ge=0)] = 0
    accounts: Annotated[int, Field(ge=1, le=1_000_000)]
    mean_debt_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    size_spread: Annotated[float, Field(ge=0, le=5)] = 1.0
    health: tuple[
        Annotated[float, Field(gt=0, allow_inf_nan=False)], Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ]

    @model_validator(mode="after")
    def _rises(self) -> LadderSpec:
        if not self.health[0] < self.health[1]:
            raise InputError(f"health from {self.health[0]:g} to {self.health[1]:g}", fix="let it rise")
        return self


def ladder_book(market: SharedBook, groups: Sequence[LadderSpec], seed: int) -> SharedBook:
    """Return a market with groups of accounts; the positions of `market` itself are not looked at.

    Raises
    ------
    InputError
        For a venue, token or category that the market has not.
    """
    rng = np.random.default_rng(seed)
    prices, index = token_prices(market), market.token_index()
    venues = [venue.name for venue in market.lending]
    wallet, columns, first = [], [], 0
    for group in groups:
        if group.venue not in venues:
            raise InputError(f"ladder: no venue {group.venue}", fix=f"one of {', '.join(venues)}")
        v = venues.index(group.venue)
        threshold = _threshold(market.lending[v], group)
        n = group.accounts
        part = (np.arange(n) + 0.5) / n
        low, high = group.health
        health = low + (high - low) * part
        sizes = np.exp(group.size_spread * ndtri(part))
        debt_usd = group.mean_debt_usd * rng.permutation(sizes / sizes.mean())
        coll_usd = debt_usd * health / threshold
        who = first + np.arange(n)
        first += n
        for side, symbol, usd in (
            (Side.COLLATERAL, group.collateral, coll_usd),
            (Side.DEBT, group.debt, debt_usd),
        ):
            a = index[symbol]
            fixed = [np.full(n, x) for x in (v, a, int(side), group.emode)]
            columns.append((who, *fixed, usd / prices[a]))
        wallet += [f"{group.venue}-{group.collateral}-{i}" for i in range(n)]
    owner, at, token, sides, emode, amount = (np.concatenate(c) for c in zip(*columns, strict=True))
    order = np.lexsort((token, sides, owner, at))
    positions = LendingColumns(
        wallet=owner[order].astype(np.int32),
        venue=at[order].astype(np.int32),
        token=token[order].astype(np.int32),
        side=sides[order].astype(np.int8),
        amount=amount[order].astype(np.float64),
        emode=emode[order].astype(np.int32),
    )
    source = market.source.replace("; sha256 ", ", sha256 ")
    book = replace(
        market,
        lending=tuple(_supplied(market, v, positions) for v in range(len(venues))),
        wallets=tuple(wallet),
        positions=positions,
        source=f"{first} accounts laid out by seed {seed} over: {source}",
    )
    check_book(book, "ladder", over_limit=True)
    return book


def _threshold(venue: LendingVenue, group: LadderSpec) -> float:
    listed = [r.token for r in venue.reserves]
    for token in (group.collateral, group.debt):
        if token not in listed:
            raise InputError(f"ladder: {venue.name} does not list {token}", fix=f"one of {', '.join(listed)}")
    bps = venue.reserve(group.collateral).liquidation_threshold_bps
    if group.emode:
        modes = [m for m in venue.emodes if m.id == group.emode and group.collateral in m.tokens]
        if not modes:
            raise InputError(
                f"ladder: {venue.name} has no category {group.emode} with {group.collateral}",
                fix="add it to the market",
            )
        bps = modes[0].liquidation_threshold_bps
    if bps <= 0:
        raise InputError(f"ladder: {group.collateral} is no collateral of {venue.name}", fix="choose another")
    return bps / 1e4


def _supplied(market: SharedBook, v: int, rows: LendingColumns) -> LendingVenue:
    """Return a venue whose others supply so much that no token is lent beyond `UTILISATION`."""
    venue, index = market.lending[v], market.token_index()

    def total(amounts: Float64) -> float:
        return float(amounts.sum())

    def supplied(reserve: Reserve) -> Reserve:
        here = (rows.venue == v) & (rows.token == index[reserve.token])
        owed = total(rows.amount[here & (rows.side == Side.DEBT)]) + reserve.outside_debt
        held = total(rows.amount[here & (rows.side == Side.COLLATERAL)])
        needed = max(owed / UTILISATION - held - reserve.reserves, 0.0)
        return replace(reserve, idle_supply=max(reserve.idle_supply, needed))

    return replace(venue, reserves=tuple(supplied(r) for r in venue.reserves))
