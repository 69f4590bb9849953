"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts_abi.lens import LensRows
from simulation.protocols.aave_v3.book import E_MODES, book_of_tables, listed_flags
from simulation.protocols.aave_v3_6.generic_logic import is_reserve_enabled_on_bitmap
from simulation.protocols.aave_v3_6.token_math import get_a_token_balance, get_v_token_balance
from simulation.protocols.aave_v3_6.types import AaveMarket
from simulation.types import Book


def book_of_rows(
    protocol: str, market: AaveMarket, accounts: Sequence[str], rows: LensRows, *, account_data: bool
) -> Book:
    """Return the book of `accounts` from what the lens read.

    Each amount is the contract's balance at the market's timestamp, to the wei, and then correctly rounded to
    float64. What the floats leave out is the contract's rounding of *values*: a collateral's is rounded down
    to one unit of base currency, a debt's up. An account that is not known whole has no positions and
    ``exact`` None.
    """
    return book_of_tables(
        protocol,
        market,
        accounts,
        rows,
        tuple(r.asset for r in market.listed()),
        *_tables(market, rows.reserves),
        uncovered=~listed_flags(market),
        to_balance=(get_a_token_balance, get_v_token_balance),
        account_data=account_data,
    )


def _tables(market: AaveMarket, reserves: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the asset's index and the liquidation threshold by (category, reserve)."""
    asset_of = np.zeros((E_MODES, reserves), dtype=np.int64)
    threshold_of = np.zeros((E_MODES, reserves))
    for index, reserve in enumerate(market.listed()):
        asset_of[:, reserve.id] = index
        threshold_of[:, reserve.id] = reserve.configuration.liquidation_threshold_bps / 10_000
        for category in market.e_mode_categories.values():
            if is_reserve_enabled_on_bitmap(category.collateral_bitmap, reserve.id):
                threshold_of[category.id, reserve.id] = category.liquidation_threshold_bps / 10_000
    return asset_of, threshold_of
