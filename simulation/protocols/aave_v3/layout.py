"""Where the parts of one Aave V3 market are, found from its PoolAddressesProvider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from eth_utils.address import to_checksum_address

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError
from simulation.types import Asset

R = TypeVar("R")

ZERO_ADDRESS: Final = "0x" + "00" * 20
MAX_E_MODE_CATEGORY: Final = 255

Reads: TypeAlias = list[Call[Any]]
Answers: TypeAlias = Sequence[bytes | None]
Staged: TypeAlias = Generator[Reads, Answers, R]
"""Reads that depend on earlier answers: yields calls, is sent their answers, returns a value."""


@dataclass(frozen=True, slots=True)
class ReserveLayout:
    """Addresses of one reserve.

    Attributes
    ----------
    asset
        The underlying token.
    id
        Position in the pool's list.
    a_token, stable_debt_token, variable_debt_token
        The reserve's tokens.
    treasury
        Where the protocol's fees go.
    """

    asset: Asset
    id: int
    a_token: str
    stable_debt_token: str
    variable_debt_token: str
    treasury: str


@dataclass(frozen=True, slots=True)
class AaveLayout:
    """Addresses of one market, enough to read it in one round of calls.

    Attributes
    ----------
    provider, pool, oracle
        The market's contracts.
    sentinel
        Price oracle sentinel; empty for none.
    reserves
        Ordered by id.
    e_mode_price_sources
        Pairs of category number and its price source (empty for none), of the configured categories.
    base_decimals
        Scale of the oracle's prices.
    lens, multicall
        Where to call the account lens, else Multicall3; empty where there is none.
    """

    provider: str
    pool: str
    oracle: str
    sentinel: str
    reserves: tuple[ReserveLayout, ...]
    e_mode_price_sources: tuple[tuple[int, str], ...]
    base_decimals: int
    lens: str = ""
    multicall: str = ""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Scaled tokens by reserve id, aToken before variable debt token; zero where an id is unused."""
        tokens = [ZERO_ADDRESS] * (2 * max((r.id + 1 for r in self.reserves), default=0))
        for reserve in self.reserves:
            tokens[2 * reserve.id : 2 * reserve.id + 2] = reserve.a_token, reserve.variable_debt_token
        return tuple(tokens)

    def reserve_of(self, symbol: str) -> ReserveLayout:
        """Return the reserve of a symbol; raises `InputError`."""
        for reserve in self.reserves:
            if reserve.asset.symbol == symbol:
                return reserve
        known = ", ".join(r.asset.symbol for r in self.reserves)
        raise InputError(f"the market has no asset {symbol!r}", fix=f"known: {known}")


def answer_all(calls: Sequence[Call[Any]], answers: Answers) -> list[Any]:
    """Decode the answers of `calls` in order.

    Raises
    ------
    DataError
        If there are too few or too many, one read failed or does not decode.
    """
    if len(calls) != len(answers):
        raise DataError(f"{len(answers)} answers for {len(calls)} reads")
    values = []
    for call, data in zip(calls, answers, strict=True):
        if data is None:
            raise DataError(
                f"read {call.label} failed", fix="check the addresses and that the node has the block"
            )
        values.append(call.decode(data))
    return values


def optional_address(address: str) -> str:
    """Return the checksummed address, empty for the zero address."""
    return "" if int(address, 16) == 0 else str(to_checksum_address(address))


_DOLLAR: Final = "USD"


def told_apart(symbols: Sequence[str], addresses: Sequence[str]) -> list[str]:
    """Return a name for each token that no other has: its symbol, or symbol and part of its address.

    Prices are kept by name, and symbols are not unique: a market may list a native and a bridged USDC. Nor
    are they bound to be printable, or not to look like the name of an eMode category's price, or of the
    dollar: a market that prices in such a token would be taken for one that prices in dollars.
    """
    clean = ["".join(c for c in symbol if c.isprintable()).strip() for symbol in symbols]
    times = Counter(clean)
    return [
        f"{symbol or 'token'}-{address[2:10].lower()}"
        if times[symbol] > 1 or not symbol or symbol == _DOLLAR or symbol.startswith("emode-")
        else symbol
        for symbol, address in zip(clean, addresses, strict=True)
    ]


def discover_layout(provider: str, *, lens: str = "", multicall: str = "") -> Staged[AaveLayout]:
    """Find a market's parts, in stages; `run_stages` drives it.

    Raises
    ------
    DataError
        If a read fails, for example because `provider` is not a PoolAddressesProvider.
    """
    calls: Reads = [
        abi.GET_POOL.call(provider, label="provider.getPool"),
        abi.GET_PRICE_ORACLE.call(provider, label="provider.getPriceOracle"),
        abi.GET_PRICE_ORACLE_SENTINEL.call(provider, label="provider.getPriceOracleSentinel"),
    ]
    pool, oracle, sentinel = answer_all(calls, (yield calls))

    calls = [
        abi.GET_RESERVES_LIST.call(pool, label="pool.getReservesList"),
        abi.BASE_CURRENCY_UNIT.call(oracle, label="oracle.BASE_CURRENCY_UNIT"),
        *(
            abi.GET_EMODE_CATEGORY_DATA.call(pool, i, label=f"pool.getEModeCategoryData({i})")
            for i in range(1, MAX_E_MODE_CATEGORY + 1)
        ),
    ]
    listed, unit, *categories = answer_all(calls, (yield calls))
    assets = [str(to_checksum_address(a)) for a in listed]
    e_modes = tuple(
        (i, optional_address(source))
        for i, (_, threshold_bps, _, source, _) in enumerate(categories, start=1)
        if threshold_bps
    )

    calls = []
    for asset in assets:
        calls += [
            abi.GET_RESERVE_DATA.call(pool, asset, label=f"pool.getReserveData({asset})"),
            abi.symbol_call(asset),
            abi.ERC20_DECIMALS.call(asset, label=f"decimals of {asset}"),
        ]
    values = answer_all(calls, (yield calls))
    reserve_data, decimals = values[0::3], values[2::3]
    symbols = told_apart(values[1::3], assets)

    calls = [abi.RESERVE_TREASURY_ADDRESS.call(str(to_checksum_address(d[8]))) for d in reserve_data]
    treasuries = answer_all(calls, (yield calls))

    reserves = [
        ReserveLayout(
            asset=Asset(symbol, asset, decimal),
            id=data[7],
            a_token=str(to_checksum_address(data[8])),
            stable_debt_token=str(to_checksum_address(data[9])),
            variable_debt_token=str(to_checksum_address(data[10])),
            treasury=treasury,
        )
        for asset, symbol, decimal, data, treasury in zip(
            assets, symbols, decimals, reserve_data, treasuries, strict=True
        )
    ]
    return AaveLayout(
        provider=provider,
        pool=pool,
        oracle=oracle,
        sentinel=optional_address(sentinel),
        reserves=tuple(sorted(reserves, key=lambda r: r.id)),
        e_mode_price_sources=e_modes,
        base_decimals=len(str(unit)) - 1,
        lens=lens,
        multicall=multicall,
    )


def run_stages(staged: Staged[R], execute: Callable[[Reads], Answers]) -> R:
    """Drive staged reads to their value.

    Parameters
    ----------
    execute
        Runs reads at one block; None for a read that failed.
    """
    try:
        calls = next(staged)
        while True:
            calls = staged.send(execute(calls))
    except StopIteration as done:
        value: R = done.value
        return value
