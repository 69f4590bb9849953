"""A shared book from what a chain answers at one block: which reads it takes, and what their answers mean.

Nothing here reads a chain: `aave_book`, `morpho_book` and `pool_exits` are staged reads that
`aave_v3.layout.run_stages` drives. What is read is whole or refused: the debts of the borrowers that were
found add up to what the protocol itself counts, or the book is partial. An account that does not decode is
listed as unknown, and its debt counted with that of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, cast

import numpy as np

from contracts_abi import aave_v3 as abi
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call, function
from contracts_abi.errors import DataError, InputError
from simulation.amm.uniswap_v3 import PoolKey, PoolLayout, PoolState, decode_pool, pool_reads
from simulation.book.bounds import AAVE_V3, AAVE_V3_6, MORPHO_BLUE, check_book, morpho_bonus_bps
from simulation.book.exits import table_of_pool
from simulation.book.types import (
    USD,
    Backing,
    BackingKind,
    EMode,
    ExitLiquidity,
    LendingColumns,
    LendingVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Side,
    Token,
)
from simulation.fixed_point import BPS, RAY, SECONDS_PER_YEAR, WAD, to_float
from simulation.interfaces import ProtocolAdapter
from simulation.protocols import aave_v3, aave_v3_6, morpho_blue
from simulation.protocols.aave_v3.layout import Reads, Staged, answer_all
from simulation.protocols.morpho_blue.morpho import accrue
from simulation.types import Asset, Book, Int32, PositionKind

AaveAdapter: TypeAlias = aave_v3.AaveV3 | aave_v3_6.AaveV36

# DefaultReserveInterestRateStrategy (rays) and, of all reserves at once, ...V2 (basis points).
_RATES_V1: Final = (
    function("OPTIMAL_USAGE_RATIO()(uint256)"),
    function("getBaseVariableBorrowRate()(uint256)"),
    function("getVariableRateSlope1()(uint256)"),
    function("getVariableRateSlope2()(uint256)"),
)
_RATES_V2: Final = function("getInterestRateDataBps(address)((uint16,uint32,uint32,uint32))")
_STRATEGY: Final = 11
"""Of the words of `getReserveData`."""

_STAKED_ETHER: Final = ("wstETH", "weETH", "rETH", "cbETH", "osETH", "ETHx", "rsETH", "ezETH", "stETH")
_DOLLARS: Final = ("USDC", "USDT", "DAI", "USDe", "USDS", "GHO", "LUSD", "PYUSD", "crvUSD", "FRAX", "RLUSD")
"""Symbols whose backing is common knowledge; a chain does not tell it."""

_REACH_TICKS: Final = 6_932
"""A pool is read to a halving and a doubling of its price."""
_POOL_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Pulled:
    """A book that was read, and what there is to say of it.

    Attributes
    ----------
    book
        The book; its `unknown` accounts are those that did not decode.
    addresses
        Token address by symbol.
    notes
        What a book cannot say of this market, or says by assumption, one line each.
    """

    book: SharedBook
    addresses: Mapping[str, str]
    notes: tuple[str, ...]


def aave_book(
    adapter: AaveAdapter,
    accounts: Sequence[str],
    *,
    block: int,
    timestamp: int,
    source: str,
    venue: str = "aave",
) -> Staged[Pulled]:
    """Read an Aave V3 or V3.6 market and all of its borrowers.

    Parameters
    ----------
    adapter
        The market.
    accounts
        All who ever borrowed.
    block, timestamp, source
        Of the block that the reads run at; `source` is kept in the book.
    venue
        The market's name in the book.

    Raises
    ------
    DataError
        If a read failed, a reserve has no price, or the borrowers are not all: the book would be partial.
    """
    layout, reader = adapter.layout, cast(ProtocolAdapter[Any, Any], adapter)
    market_reads, account_reads = reader.market_reads(), reader.account_reads(accounts)
    totals: Reads = []
    for place in layout.reserves:
        symbol = place.asset.symbol
        totals += [
            abi.TOTAL_SUPPLY.call(place.a_token, label=f"{symbol} supply"),
            abi.TOTAL_SUPPLY.call(place.variable_debt_token, label=f"{symbol} debt"),
            abi.GET_RESERVE_DATA.call(layout.pool, place.asset.address, label=f"reserve {symbol}"),
        ]
    answers = yield [*market_reads, *totals, *account_reads]
    at = len(market_reads)
    market = reader.decode_market(answers[:at], block=block, timestamp=timestamp)
    words = answer_all(totals, answers[at : at + len(totals)])
    found = reader.decode_accounts(market, accounts, answers[at + len(totals) :])

    listed = market.listed()
    strategies = [str(data[_STRATEGY]) for data in words[2::3]]
    calls = [
        call for s, r in zip(strategies, listed, strict=True) for call in _rate_reads(s, r.asset.address)
    ]
    answers = yield calls
    per = len(calls) // max(len(listed), 1)
    notes: list[str] = []
    curves = []
    for i, reserve in enumerate(listed):
        curve = _curve(calls[per * i : per * (i + 1)], answers[per * i : per * (i + 1)])
        if curve is None:
            rate = reserve.current_variable_borrow_rate_ray / RAY
            notes.append(
                f"{reserve.asset.symbol}: its rate strategy does not tell its curve; {rate:.2%} of now stays"
            )
            curve = RateCurve(0.8, rate, 0.0, 0.0)
        curves.append(curve)

    tokens = _aave_tokens(adapter, market)
    rows, wallets = _rows(found, [token.symbol for token in tokens], _emodes(found))
    unknown = tuple(a for a, known in zip(found.accounts, found.known, strict=True) if not known)
    held, owed = (_sums(rows, len(tokens), side) for side in Side)
    reserves = []
    for i, reserve in enumerate(listed):
        decimals, symbol = reserve.asset.decimals, reserve.asset.symbol
        supply, debt = to_float(words[3 * i], decimals), to_float(words[3 * i + 1], decimals)
        _require_whole(symbol, debt, owed[i], len(wallets) + 1, decimals, bool(unknown))
        outside = max(debt - owed[i], 0.0) if unknown else 0.0
        # Interest rounds for the protocol: the debt may be above the supply by units when all is lent.
        idle = max(supply, owed[i] + outside) - held[i]
        reserves.append(_aave_reserve(reserve, curves[i], max(idle, 0.0), outside))
    kind = AAVE_V3_6 if isinstance(adapter, aave_v3_6.AaveV36) else AAVE_V3
    made = LendingVenue(venue, kind, tuple(reserves), _aave_emodes(market, notes))
    notes += _aave_notes(listed)
    return _pulled(tokens, made, wallets, rows, listed, unknown, market, source, notes)


def morpho_book(
    adapter: morpho_blue.MorphoBlue,
    accounts: Sequence[str],
    *,
    block: int,
    timestamp: int,
    source: str,
    loan_price: float | None,
    venue: str = "",
) -> Staged[Pulled]:
    """Read a Morpho Blue market and all of its borrowers.

    Parameters
    ----------
    adapter, accounts, block, timestamp, source
        As of `aave_book`.
    loan_price
        US dollars of a whole loan token. A market's oracle tells what collateral is worth in loan tokens, and
        nothing in dollars. None takes 1 where the token is a well-known dollar.
    venue
        The market's name in the book; `morpho-COLLATERAL-LOAN` without it.

    Raises
    ------
    InputError
        If the loan token is no well-known dollar and no price is given.
    DataError
        As `aave_book`.
    """
    layout, notes = adapter.layout, []
    if loan_price is None:
        if layout.loan.symbol not in _DOLLARS:
            raise InputError(
                f"the market prices {layout.collateral.symbol} in {layout.loan.symbol}, and that in nothing",
                fix=f"give --price {layout.loan.symbol}=DOLLARS",
            )
        loan_price = 1.0
        notes.append(f"{layout.loan.symbol} is counted as one US dollar, since the market has no price of it")
    market_reads, account_reads = adapter.market_reads(), adapter.account_reads(accounts)
    answers = yield [*market_reads, *account_reads]
    stored = adapter.decode_market(answers[: len(market_reads)], block=block, timestamp=timestamp)
    if stored.price_e36 is None:
        raise DataError(f"the market's oracle has no price for {layout.collateral.symbol} at block {block}")
    found = adapter.decode_accounts(stored, accounts, answers[len(market_reads) :])
    state = accrue(stored).market.state
    price = loan_price * stored.price_e36 / 10**stored.base_decimals
    tokens = (
        _token(layout.collateral, price, {layout.loan.symbol: loan_price}),
        _token(layout.loan, loan_price, {layout.collateral.symbol: price}),
    )
    rows, wallets = _rows(found, [token.symbol for token in tokens], {})
    unknown = tuple(a for a, known in zip(found.accounts, found.known, strict=True) if not known)
    shares = sum(account.borrow_shares for account in found.exact if account is not None)
    if not unknown and shares != state.total_borrow_shares:
        raise DataError(
            f"the borrowers found owe {shares} of {state.total_borrow_shares} shares: the read is partial",
            fix="let discovery begin earlier: --from-block",
        )
    owed = float(_sums(rows, 2, Side.DEBT)[1])
    debt = to_float(state.total_borrow_assets_raw, layout.loan.decimals)
    supply = to_float(state.total_supply_assets_raw, layout.loan.decimals)
    lltv_bps = layout.params.lltv_wad * BPS // WAD
    if layout.params.lltv_wad * BPS % WAD:
        notes.append(f"the LLTV {layout.params.lltv_wad / WAD:.6%} is cut to whole basis points")
    outside = max(debt - owed, 0.0) if unknown else 0.0
    made = LendingVenue(
        venue or f"morpho-{layout.collateral.symbol.lower()}-{layout.loan.symbol.lower()}",
        MORPHO_BLUE,
        (
            Reserve(
                tokens[0].symbol,
                lltv_bps,
                lltv_bps,
                morpho_bonus_bps(lltv_bps),
                RateCurve(0.9, 0.0, 0.0, 0.0),
            ),
            Reserve(
                tokens[1].symbol,
                0,
                0,
                0,
                _morpho_curve(stored, notes),
                reserve_factor_bps=state.fee_wad * BPS // WAD,
                # Each debt is rounded up, so that they may be a unit more than what is lent.
                idle_supply=max(supply, owed + outside),
                outside_debt=outside,
            ),
        ),
    )
    return _pulled(
        tokens, made, wallets, rows, (layout.collateral, layout.loan), unknown, stored, source, notes
    )


def _pulled(
    tokens: Sequence[Token],
    venue: LendingVenue,
    wallets: tuple[str, ...],
    rows: LendingColumns,
    listed: Sequence[Any],
    unknown: Sequence[str],
    market: Any,
    source: str,
    notes: Sequence[str],
) -> Pulled:
    book = SharedBook(
        tokens=tuple(tokens),
        lending=(venue,),
        wallets=wallets,
        positions=rows,
        block=market.block,
        timestamp=market.timestamp,
        source=source,
        unknown=tuple(f"{venue.name}:{account}" for account in unknown),
    )
    check_book(book, venue.name, over_limit=True)
    assets: list[Asset] = [getattr(part, "asset", part) for part in listed]
    return Pulled(book, {asset.symbol: asset.address for asset in assets}, tuple(notes))


# ----------------------------------------------------------------------------------------------------- parts


def _token(asset: Asset, price: float, others: Mapping[str, float]) -> Token:
    """Return a token with its price, linked to what is well known to back it."""
    backing = None
    if asset.symbol in _STAKED_ETHER and "WETH" in others:
        # What it redeems for is near what the oracle says of both; where it prices a market rate, no more.
        backing = Backing(BackingKind.STAKED, "WETH", price / others["WETH"])
    elif asset.symbol in _DOLLARS:
        backing = Backing(BackingKind.STABLE, USD)
    return Token(asset.symbol, asset.decimals, price, backing)


def _aave_tokens(adapter: AaveAdapter, market: Any) -> tuple[Token, ...]:
    known = adapter.prices_base(market)
    missing = [r.asset.symbol for r in market.listed() if not known.get(r.asset.symbol)]
    if missing:
        raise DataError(
            f"the protocol's oracle has no price for {', '.join(missing)} at block {market.block}"
        )
    prices = {symbol: to_float(price, market.base_decimals) for symbol, price in known.items()}
    return tuple(_token(r.asset, prices[r.asset.symbol], prices) for r in market.listed())


def _aave_reserve(reserve: Any, curve: RateCurve, idle: float, outside: float) -> Reserve:
    configuration = reserve.configuration
    threshold = configuration.liquidation_threshold_bps
    return Reserve(
        token=reserve.asset.symbol,
        ltv_bps=configuration.ltv_bps,
        liquidation_threshold_bps=threshold,
        liquidation_bonus_bps=max(configuration.liquidation_bonus_bps - BPS, 0) if threshold else 0,
        rate=curve,
        protocol_fee_bps=configuration.liquidation_protocol_fee_bps,
        reserve_factor_bps=configuration.reserve_factor_bps,
        idle_supply=idle,
        outside_debt=outside,
        supply_cap=float(configuration.supply_cap) or None,
        borrow_cap=float(configuration.borrow_cap) or None,
    )


def _aave_emodes(market: Any, notes: list[str]) -> tuple[EMode, ...]:
    found = []
    for category in sorted(market.e_mode_categories.values(), key=lambda c: c.id):

        def members(bitmap: int) -> tuple[str, ...]:
            return tuple(r.asset.symbol for r in market.listed() if bitmap >> r.id & 1)

        if isinstance(category, aave_v3_6.EModeCategory):
            tokens, borrowable = members(category.collateral_bitmap), members(category.borrowable_bitmap)
            for token in members(category.ltvzero_bitmap):
                notes.append(
                    f"eMode {category.id}: {token} counts with a loan-to-value of 0, which is left out"
                )
        else:
            tokens = borrowable = tuple(
                r.asset.symbol for r in market.listed() if r.configuration.e_mode_category == category.id
            )
            if category.price_source:
                raise DataError(
                    f"eMode category {category.id} has a price of its own: a shared book has no place for it"
                )
        if not category.ltv_bps:
            notes.append(f"eMode {category.id} is left out: its loan-to-value is 0")
            continue
        found.append(
            EMode(
                category.id,
                tokens,
                category.ltv_bps,
                category.liquidation_threshold_bps,
                category.liquidation_bonus_bps - BPS,
                None if set(borrowable) == set(tokens) else borrowable,
            )
        )
    return tuple(found)


def _aave_notes(listed: Sequence[Any]) -> list[str]:
    notes = []
    for reserve in listed:
        configuration, symbol = reserve.configuration, reserve.asset.symbol
        if configuration.debt_ceiling:
            notes.append(
                f"{symbol} is an isolated collateral with a debt ceiling, which a book does not hold"
            )
        if configuration.siloed_borrowing:
            notes.append(f"{symbol} is borrowed alone or not at all, which a book does not hold")
        if configuration.paused or not configuration.active:
            notes.append(f"{symbol} is paused: nobody is liquidated in it, which a book does not hold")
    return notes


def _rate_reads(strategy: str, asset: str) -> Reads:
    return [fn.call(strategy, label=fn.name) for fn in _RATES_V1] + [_RATES_V2.call(strategy, asset)]


def _curve(calls: Sequence[Call[Any]], answers: Sequence[bytes | None]) -> RateCurve | None:
    """Return the curve of a strategy of either version, None of one that is neither."""
    try:
        if answers[-1]:
            ((optimal, base, slope1, slope2),) = _RATES_V2.decode(answers[-1])
            return RateCurve(optimal / BPS, base / BPS, slope1 / BPS, slope2 / BPS)
        optimal, base, slope1, slope2 = answer_all(calls[:-1], answers[:-1])
        return RateCurve(optimal / RAY, base / RAY, slope1 / RAY, slope2 / RAY) if 0 < optimal < RAY else None
    except DataError:
        return None


def _morpho_curve(market: morpho_blue.MorphoMarket, notes: list[str]) -> RateCurve:
    """Return the kinked curve through what the market's rate model says now."""
    irm = market.irm
    if irm is None:
        return RateCurve(0.9, 0.0, 0.0, 0.0)
    if isinstance(irm, morpho_blue.FixedRateIrm):
        return RateCurve(0.9, irm.rate_wad * SECONDS_PER_YEAR / WAD, 0.0, 0.0)
    if isinstance(irm, morpho_blue.UtilizationIrm):
        return RateCurve(0.9, 0.0, 0.9, 0.1)
    rate = accrue(market).market.irm
    assert isinstance(rate, morpho_blue.AdaptiveCurveIrm)
    target = rate.rate_at_target_wad * SECONDS_PER_YEAR / WAD
    notes.append(f"the adaptive curve is taken at its rate of now, {target:.2%} at target, and stands still")
    return RateCurve(0.9, target / 4, target * 3 / 4, target * 3)


def _emodes(book: Book) -> dict[int, int]:
    """Return the category of each row that is in one."""
    found = {i: state.e_mode_category for i, state in enumerate(book.exact) if state is not None}
    return {row: category for row, category in found.items() if category}


def _rows(
    book: Book, tokens: Sequence[str], emodes: Mapping[int, int]
) -> tuple[LendingColumns, tuple[str, ...]]:
    """Return the positions of a protocol's book as columns, and the wallets that have any."""
    place = {symbol: i for i, symbol in enumerate(tokens)}
    token_of = np.array([place.get(asset.symbol, -1) for asset in book.assets], dtype=np.int32)
    account = np.repeat(np.arange(len(book)), np.diff(book.row_ptr))
    kept = book.amount > 0
    account, token, amount = account[kept], token_of[book.asset[kept]], book.amount[kept]
    side = np.where(book.kind[kept] == PositionKind.DEBT, Side.DEBT, Side.COLLATERAL).astype(np.int8)
    present, wallet = np.unique(account, return_inverse=True)
    category = np.zeros(len(book), dtype=np.int32)
    category[list(emodes)] = list(emodes.values())
    order = np.lexsort((token, side, wallet))
    columns = LendingColumns(
        wallet=wallet[order].astype(np.int32),
        venue=np.zeros(len(order), dtype=np.int32),
        token=token[order].astype(np.int32),
        side=side[order],
        amount=amount[order],
        emode=category[account][order],
    )
    return columns, tuple(book.accounts[int(i)] for i in present)


def _sums(rows: LendingColumns, tokens: int, side: Side) -> list[float]:
    at = rows.side == side
    token: Int32 = rows.token[at]
    return [float(x) for x in np.bincount(token, rows.amount[at], minlength=tokens)]


def _require_whole(
    symbol: str, total: float, found: float, accounts: int, decimals: int, has_unknown: bool
) -> None:
    """Refuse debts that are not those of all: each account's is rounded by a unit at most."""
    rounding = accounts * 10.0**-decimals + 1e-9 * total
    if not has_unknown and abs(total - found) > rounding:
        raise DataError(
            f"the borrowers found owe {found:,.6f} of {total:,.6f} {symbol}: the read is partial",
            fix="let discovery begin earlier: --from-block",
        )


# ----------------------------------------------------------------------------------------------------- exits


def pool_exits(
    pools: Sequence[str], tokens: Mapping[str, Token], *, timestamp: int, source: str
) -> Staged[tuple[ExitLiquidity, ...]]:
    """Read Uniswap V3 pools and quote sales of either of their tokens.

    Parameters
    ----------
    pools
        Addresses.
    tokens
        The book's tokens by address, checksummed.
    timestamp, source
        Of the block; each table's source is `source` and the pool.

    Raises
    ------
    InputError
        If an address is no Uniswap V3 pool, or one of tokens that the book has not.
    DataError
        If a pool cannot be read.
    """
    when = datetime.fromtimestamp(timestamp, UTC).date().isoformat()
    getters = (uniswap.TOKEN0, uniswap.TOKEN1, uniswap.FEE, uniswap.TICK_SPACING)
    calls = [getter.call(pool, label=f"{getter.name} of {pool}") for pool in pools for getter in getters]
    answers = yield calls
    layouts = []
    for i, pool in enumerate(pools):
        part = slice(4 * i, 4 * i + 4)
        try:
            token0, token1, fee, spacing = answer_all(calls[part], answers[part])
        except DataError:
            raise InputError(f"{pool} is no Uniswap V3 pool at this block", fix="check its address") from None
        for token in (token0, token1):
            if token not in tokens:
                raise InputError(f"pool {pool} trades {token}, which is not in the book", fix="leave it out")
        layouts.append(PoolLayout(PoolKey(pool, token0, token1, fee, spacing)))
    states: dict[str, PoolState] = {}
    wanted = layouts
    for _ in range(_POOL_ROUNDS):
        if not wanted:
            break
        calls = [call for layout in wanted for call in pool_reads(layout)]
        answers = yield calls
        at, unfinished = 0, []
        for layout in wanted:
            count = len(pool_reads(layout))
            state = decode_pool(layout, answers[at : at + count], reach_ticks=_REACH_TICKS)
            at += count
            if isinstance(state, PoolState):
                states[state.address] = state
            else:
                unfinished.append(state)
        wanted = unfinished
    if wanted:
        raise DataError(f"pool {wanted[0].key.address} cannot be read whole")
    return tuple(
        table_of_pool(
            states[pool],
            tokens[sold],
            tokens[states[pool].other(sold)],
            sold_is_token0=sold == states[pool].token0,
            when=when,
            source=f"{source} pool {pool}",
        )
        for pool in pools
        for sold in (states[pool].token0, states[pool].token1)
    )
