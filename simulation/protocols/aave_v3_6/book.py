"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contracts_abi.lens import (
    CONFIGURATION,
    EMODE_CATEGORY,
    LensRows,
    collateral_column,
    debt_column,
)
from simulation.fixed_point import to_float
from simulation.protocols.aave_v3.book import RowAccounts
from simulation.protocols.aave_v3.types import AaveAccount
from simulation.protocols.aave_v3_6.generic_logic import is_reserve_enabled_on_bitmap
from simulation.protocols.aave_v3_6.token_math import get_a_token_balance, get_v_token_balance
from simulation.protocols.aave_v3_6.types import AaveMarket
from simulation.types import Book, PositionKind

_E_MODES: Final = 256
_WORD: Final = 32


def covered(market: AaveMarket, account: AaveAccount) -> bool:
    """Return whether the market's state says all that the account's health depends on.

    It does not in an eMode category that the market does not know, nor with a flag of a reserve that it does
    not know.
    """
    if account.e_mode_category and account.e_mode_category not in market.e_mode_categories:
        return False
    return not account.user_configuration & ~_known_flags(market)


def _known_flags(market: AaveMarket) -> int:
    return sum(3 << (2 * r.id) for r in market.listed())


def book_of_rows(
    protocol: str, market: AaveMarket, accounts: Sequence[str], rows: LensRows, *, account_data: bool
) -> Book:
    """Return the book of `accounts` from what the lens read.

    Each amount is the contract's balance at the market's timestamp, to the wei, and then correctly rounded to
    float64. What the floats leave out is the contract's rounding of *values*: a collateral's is rounded down
    to one unit of base currency, a debt's up. An account that is not known whole has no positions and
    ``exact`` None.
    """
    usable = _usable(market, rows)
    counts = np.where(usable, np.diff(rows.row_ptr), 0)
    keep = np.repeat(usable, np.diff(rows.row_ptr))
    row_ptr = np.zeros(len(accounts) + 1, dtype=np.int64)
    np.cumsum(counts, out=row_ptr[1:])

    reserve, is_debt = np.divmod(rows.column[keep], 2)
    category = np.repeat(_categories(rows), counts)
    asset_of, threshold_of = _tables(market, rows.reserves)
    return Book(
        accounts=tuple(accounts),
        protocols=(protocol,),
        assets=tuple(r.asset for r in market.listed()),
        protocol=np.zeros(len(accounts), dtype=np.int32),
        row_ptr=row_ptr,
        asset=asset_of[reserve].astype(np.int32),
        kind=np.where(is_debt, int(PositionKind.DEBT), int(PositionKind.COLLATERAL)).astype(np.int8),
        amount=_amounts(market, rows)[keep],
        weight=np.where(is_debt, 1.0, threshold_of[category, reserve]),
        block=market.block,
        timestamp=market.timestamp,
        exact=RowAccounts(accounts, rows, partial(covered, market), account_data=account_data),
        known=usable,
    )


def _categories(rows: LensRows) -> NDArray[np.int64]:
    return rows.head[:, EMODE_CATEGORY, -1].astype(np.int64)


def _usable(market: AaveMarket, rows: LensRows) -> NDArray[np.bool_]:
    """Return what `RowAccounts` finds not to be None, for all rows at once."""
    known_category = np.zeros(_E_MODES, dtype=np.bool_)
    known_category[[0, *market.e_mode_categories]] = True
    category = _categories(rows)
    unknown = ~_known_flags(market) & (2**256 - 1)
    bad = np.frombuffer(unknown.to_bytes(_WORD, "big"), dtype=">u8").astype(np.uint64)
    flagged = (rows.head[:, CONFIGURATION].astype(np.uint64) & bad).any(axis=1)
    in_range = category < _E_MODES
    return rows.usable & in_range & known_category[np.where(in_range, category, 0)] & ~flagged


def _amounts(market: AaveMarket, rows: LensRows) -> NDArray[np.float64]:
    """Return all balances in whole tokens, also those of accounts that are not usable."""
    terms: dict[int, tuple[Callable[[int, int], int], int, int]] = {}
    for reserve in market.listed():
        decimals = reserve.configuration.decimals
        terms[collateral_column(reserve.id)] = get_a_token_balance, reserve.normalized_income_ray, decimals
        terms[debt_column(reserve.id)] = get_v_token_balance, reserve.normalized_variable_debt_ray, decimals
    raw = rows.values.tobytes()
    amounts = np.zeros(len(rows.column))
    for i, column in enumerate(rows.column.tolist()):
        if column in terms:
            to_balance, index_ray, decimals = terms[column]
            scaled_raw = int.from_bytes(raw[i * _WORD : (i + 1) * _WORD])
            amounts[i] = to_float(to_balance(scaled_raw, index_ray), decimals)
    return amounts


def _tables(market: AaveMarket, reserves: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the asset's index by reserve, and the liquidation threshold by (category, reserve)."""
    asset_of = np.zeros(reserves, dtype=np.int64)
    threshold_of = np.zeros((_E_MODES, reserves))
    for index, reserve in enumerate(market.listed()):
        asset_of[reserve.id] = index
        threshold_of[:, reserve.id] = reserve.configuration.liquidation_threshold_bps / 10_000
        for category in market.e_mode_categories.values():
            if is_reserve_enabled_on_bitmap(category.collateral_bitmap, reserve.id):
                threshold_of[category.id, reserve.id] = category.liquidation_threshold_bps / 10_000
    return asset_of, threshold_of
