"""Account states as the flat float columns that the screen runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from contracts_abi.lens import (
    CONFIGURATION,
    EMODE_CATEGORY,
    HEALTH_FACTOR_WAD,
    STATUS,
    LensRows,
    LensStatus,
    collateral_column,
    debt_column,
)
from simulation.fixed_point import MAX_UINT256, to_float
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.protocols.aave_v3.generic_logic import (
    a_token_balance,
    is_in_e_mode_category,
    user_e_mode,
    variable_debt_balance,
)
from simulation.protocols.aave_v3.types import AaveAccount, AaveMarket, AavePosition, PoolState, ReserveData
from simulation.types import Asset, Book, Position, PositionKind

E_MODES: Final = 256
_WORD: Final = 32


def book_assets(market: AaveMarket) -> tuple[Asset, ...]:
    """Return the book's assets: the reserves' in order, then one for each eMode category with its own price.

    An account in such a category holds and owes the category's asset (symbol ``emode-N``), since one
    price applies to all of them; amounts are in whole tokens, so that they add up. Its decimals are the
    fewest of the category's reserves: no balance in it is rounded more coarsely.
    """
    e_modes = sorted(market.e_mode_categories.values(), key=lambda c: c.id)
    return tuple(r.asset for r in market.listed()) + tuple(
        Asset(c.price_key, "", _fewest_decimals(market, c.id)) for c in e_modes if c.price_source
    )


def _fewest_decimals(market: AaveMarket, e_mode_category: int) -> int:
    members = [r for r in market.listed() if r.configuration.e_mode_category == e_mode_category]
    return min((r.asset.decimals for r in members), default=0)


def listed_flags(market: PoolState[Any, Any]) -> int:
    """Return the flags of all reserves that the market knows."""
    return sum(3 << (2 * r.id) for r in market.listed())


def uncovered_flags(market: AaveMarket) -> int:
    """Return the flags with which the market's state does not say all that an account's health depends on.

    Those of reserves that the market does not know, and those of a debt in a reserve where somebody owes at a
    stable rate: stable debts are not read one by one, so the account's own is unknown.
    """
    stable = sum(1 << (2 * r.id) for r in market.listed() if r.total_stable_debt_raw)
    return ~listed_flags(market) | stable


def covered(market: PoolState[Any, Any], uncovered: int, account: AaveAccount) -> bool:
    """Return whether the market's state says all that the account's health depends on.

    It does not with an `uncovered` flag, nor in an eMode category that the market does not know.
    """
    if account.e_mode_category and account.e_mode_category not in market.e_mode_categories:
        return False
    return not account.user_configuration & uncovered


def account_of_row(account: str, rows: LensRows, row: int, *, account_data: bool) -> AaveAccount | None:
    """Return the exact state of one row, None when it was not read whole.

    `account_data` says whether the lens was asked for the contract's own health factor.
    """
    status = rows.word(row, STATUS)
    if status not in (LensStatus.OK, LensStatus.NO_ACCOUNT_DATA):
        return None
    balances = rows.positions(row)
    ids = sorted({column // 2 for column in balances})
    reported = rows.word(row, HEALTH_FACTOR_WAD) if account_data and status == LensStatus.OK else None
    return AaveAccount(
        account=account,
        user_configuration=rows.word(row, CONFIGURATION),
        e_mode_category=rows.word(row, EMODE_CATEGORY),
        positions=tuple(
            AavePosition(i, balances.get(collateral_column(i), 0), balances.get(debt_column(i), 0))
            for i in ids
        ),
        reported_health_factor_wad=reported,
    )


class RowAccounts(Sequence[AaveAccount | None]):
    """The exact states of lens rows, each decoded when it is asked for.

    Parameters
    ----------
    accounts, rows, account_data
        As for `account_of_row`.
    covered
        Says whether the market's state has all that an account's health depends on; None where it has not.
    """

    def __init__(
        self,
        accounts: Sequence[str],
        rows: LensRows,
        covered: Callable[[AaveAccount], bool],
        *,
        account_data: bool,
    ) -> None:
        self._accounts, self._rows, self._covered = accounts, rows, covered
        self._account_data = account_data

    def __len__(self) -> int:
        return len(self._accounts)

    @overload
    def __getitem__(self, index: int) -> AaveAccount | None: ...

    @overload
    def __getitem__(self, index: slice) -> list[AaveAccount | None]: ...

    def __getitem__(self, index: int | slice) -> AaveAccount | list[AaveAccount | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"account {index} of {len(self)}")
        state = account_of_row(self._accounts[index], self._rows, index, account_data=self._account_data)
        return state if state is not None and self._covered(state) else None


def book_of_rows(
    protocol: str, market: AaveMarket, accounts: Sequence[str], rows: LensRows, *, account_data: bool
) -> Book:
    """Return the book of `accounts` from what the lens read.

    Each amount is the contract's balance at the market's timestamp, to the wei, and then correctly rounded to
    float64. What the floats leave out is the contract's rounding of *values*: each is floored to one unit of
    base currency, and the average liquidation threshold is floored to a whole basis point. An account that is
    not known whole has no positions and ``exact`` None.
    """
    assets = book_assets(market)
    to_balance = market.rules.scaled_to_balance
    return book_of_tables(
        protocol,
        market,
        accounts,
        rows,
        assets,
        *_tables(market, assets, rows.reserves),
        uncovered=uncovered_flags(market),
        to_balance=(to_balance, to_balance),
        account_data=account_data,
    )


def book_of_tables(
    protocol: str,
    market: PoolState[Any, Any],
    accounts: Sequence[str],
    rows: LensRows,
    assets: tuple[Asset, ...],
    asset_of: NDArray[np.int64],
    threshold_of: NDArray[np.float64],
    *,
    uncovered: int,
    to_balance: tuple[Callable[[int, int], int], Callable[[int, int], int]],
    account_data: bool,
) -> Book:
    """Return the book of `accounts` on any version.

    Parameters
    ----------
    assets, asset_of, threshold_of
        The book's assets; the asset's index and the liquidation threshold by (category, reserve).
    uncovered
        As for `covered`.
    to_balance
        ``(scaled, index_ray) -> balance`` of aTokens and of variable debt.
    """
    usable = _usable(market, rows, uncovered)
    counts = np.where(usable, np.diff(rows.row_ptr), 0)
    keep = np.repeat(usable, np.diff(rows.row_ptr))
    row_ptr = np.zeros(len(accounts) + 1, dtype=np.int64)
    np.cumsum(counts, out=row_ptr[1:])

    reserve, is_debt = np.divmod(rows.column[keep], 2)
    category = np.repeat(_categories(rows), counts)
    return Book(
        accounts=tuple(accounts),
        protocols=(protocol,),
        assets=assets,
        protocol=np.zeros(len(accounts), dtype=np.int32),
        row_ptr=row_ptr,
        asset=asset_of[category, reserve].astype(np.int32),
        kind=np.where(is_debt, int(PositionKind.DEBT), int(PositionKind.COLLATERAL)).astype(np.int8),
        amount=_amounts(market, rows, *to_balance)[keep],
        weight=np.where(is_debt, 1.0, threshold_of[category, reserve]),
        block=market.block,
        timestamp=market.timestamp,
        exact=RowAccounts(accounts, rows, partial(covered, market, uncovered), account_data=account_data),
        known=usable,
    )


def _categories(rows: LensRows) -> NDArray[np.int64]:
    return rows.head[:, EMODE_CATEGORY, -1].astype(np.int64)


def _usable(market: PoolState[Any, Any], rows: LensRows, uncovered: int) -> NDArray[np.bool_]:
    """Return what `RowAccounts` finds not to be None, for all rows at once."""
    known_category = np.zeros(E_MODES, dtype=np.bool_)
    known_category[[0, *market.e_mode_categories]] = True
    category = _categories(rows)
    bad = np.frombuffer((uncovered & MAX_UINT256).to_bytes(_WORD, "big"), dtype=">u8").astype(np.uint64)
    flagged = (rows.head[:, CONFIGURATION].astype(np.uint64) & bad).any(axis=1)
    in_range = category < E_MODES
    return rows.usable & in_range & known_category[np.where(in_range, category, 0)] & ~flagged


def _amounts(
    market: PoolState[Any, Any],
    rows: LensRows,
    to_a_token: Callable[[int, int], int],
    to_debt: Callable[[int, int], int],
) -> NDArray[np.float64]:
    """Return all balances in whole tokens, also those of accounts that are not usable."""
    terms: dict[int, tuple[Callable[[int, int], int], int, int]] = {}
    for reserve in market.listed():
        decimals = reserve.configuration.decimals
        terms[collateral_column(reserve.id)] = to_a_token, reserve.normalized_income_ray, decimals
        terms[debt_column(reserve.id)] = to_debt, reserve.normalized_variable_debt_ray, decimals
    raw = rows.values.tobytes()
    amounts = np.zeros(len(rows.column))
    for i, column in enumerate(rows.column.tolist()):
        if column in terms:
            to_balance, index_ray, decimals = terms[column]
            scaled_raw = int.from_bytes(raw[i * _WORD : (i + 1) * _WORD])
            amounts[i] = to_float(to_balance(scaled_raw, index_ray), decimals)
    return amounts


def _tables(
    market: AaveMarket, assets: tuple[Asset, ...], reserves: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return asset index and liquidation threshold by (category, reserve)."""
    index = {asset.symbol: i for i, asset in enumerate(assets)}
    asset_of = np.zeros((E_MODES, reserves), dtype=np.int64)
    threshold_of = np.zeros((E_MODES, reserves))
    for reserve in market.listed():
        configuration = reserve.configuration
        threshold = configuration.liquidation_threshold_bps
        asset_of[:, reserve.id] = index[reserve.asset.symbol]
        threshold_of[:, reserve.id] = threshold / 10_000
        category = market.e_mode_categories.get(configuration.e_mode_category)
        if category is not None:
            if category.price_source:
                asset_of[category.id, reserve.id] = index[category.price_key]
            if threshold:
                threshold_of[category.id, reserve.id] = category.liquidation_threshold_bps / 10_000
    return asset_of, threshold_of


def book_of_accounts(
    protocol: str, market: AaveMarket, accounts: Sequence[str], exact: Sequence[AaveAccount | None]
) -> Book:
    """Return the book of exact states: the plain twin of `book_of_rows`, for states that no lens read."""
    assets = book_assets(market)
    index = {asset.symbol: i for i, asset in enumerate(assets)}
    return Book.of_positions(
        protocol,
        assets,
        accounts,
        exact,
        [
            None if state is None else [p for r in market.listed() for p in _columns(market, state, r, index)]
            for state in exact
        ],
        block=market.block,
        timestamp=market.timestamp,
    )


def _columns(
    market: AaveMarket, account: AaveAccount, reserve: ReserveData, index: dict[str, int]
) -> list[Position]:
    configuration = reserve.configuration
    position = account.position(reserve.id)
    e_mode = user_e_mode(market, account)
    symbol, threshold_bps = reserve.asset.symbol, configuration.liquidation_threshold_bps
    if e_mode is not None and is_in_e_mode_category(e_mode.id, configuration.e_mode_category):
        symbol = e_mode.price_key if e_mode.price_source else symbol
        threshold_bps = e_mode.liquidation_threshold_bps if threshold_bps else 0
    columns = []
    if is_using_as_collateral(account.user_configuration, reserve.id):
        amount = to_float(a_token_balance(market.rules, reserve, position), configuration.decimals)
        columns.append((index[symbol], int(PositionKind.COLLATERAL), amount, threshold_bps / 10_000))
    if is_borrowing(account.user_configuration, reserve.id):
        debt_raw = variable_debt_balance(market.rules, reserve, position) + position.stable_debt_raw
        amount = to_float(debt_raw, configuration.decimals)
        columns.append((index[symbol], int(PositionKind.DEBT), amount, 1.0))
    return columns
