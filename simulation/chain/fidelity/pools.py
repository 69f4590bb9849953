"""Opens the lending venues of a shared book in an EVM, account by account."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from contracts_abi import aave_v3 as aave
from contracts_abi import morpho_blue as morpho
from contracts_abi.calls import Call, Function
from contracts_abi.errors import CallReverted, InputError
from simulation.book.types import LendingVenue, RateCurve, SharedBook, raw_units
from simulation.chain.aave_v3 import MINT, AaveDeployment, deploy_tokens
from simulation.chain.deploy import AAVE_VERSIONS
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read, transact
from simulation.chain.market import AssetSpec, EModeSpec, MarketSpec, RateSpec
from simulation.chain.morpho_blue import create_markets, deploy_morpho
from simulation.contagion.world import World
from simulation.fixed_point import MAX_UINT256
from simulation.protocols.morpho_blue import MarketParams

PRICE_SOURCE: Final = bytes.fromhex("5f545f5260205ff3")
"""SLOAD(0), returned: a price source that answers every call with its only storage word."""

DEPLOYER: Final = labelled_address("deployer")
SUPPLIER: Final = labelled_address("suppliers of the shared book")
LIQUIDATOR: Final = labelled_address("liquidator of the shared book")
_FUNDS_RAW: Final = 10**45
_GENEROUS: Final = 1_000
"""Collateral is worth this many times more while accounts are opened: the book says what they owe, not when
they borrowed it."""
SUPPORTED: Final = ("aave-v3", "aave-v3.6", "morpho-blue")


@functools.lru_cache(maxsize=1 << 16)
def call_of(fn: Function, to: str, *args: Any) -> Call[Any]:
    """Return a read that is made at every step, encoded once."""
    return fn.call(to, *args)


class Size(Enum):
    """How much a liquidation is meant to do; rounding decides neither of the first two."""

    ALL_COLLATERAL = "all collateral"
    ALL_DEBT = "all debt that may be repaid"
    AMOUNT = "an amount"


@dataclass(frozen=True, slots=True)
class Liquidated:
    """What a liquidation moved, in token units.

    Attributes
    ----------
    repaid_raw
        Debt that the liquidator paid.
    received_raw
        Collateral that it got.
    taken_raw
        Collateral that the account lost, the protocol's fee included.
    revert
        The contract's reason when it refused; all amounts are 0 then.
    """

    repaid_raw: int
    received_raw: int
    taken_raw: int
    revert: str | None = None


class Pool(Protocol):
    """A venue in an EVM."""

    def set_prices(self, prices_e8: Mapping[str, int]) -> None:
        """Let the venue's oracle say these prices, US dollars at 1e8."""
        ...

    def indices(self) -> dict[str, tuple[float, float]]:
        """Return supply and borrow index of each token since the start."""
        ...

    def amounts_raw(self, account: str, token: str) -> tuple[int, int]:
        """Return collateral and debt of an account in a token."""
        ...

    def liquidatable(self, account: str) -> bool:
        """Return what the contract says."""
        ...

    def cash_raw(self, token: str) -> int:
        """Return what the venue can pay out of a token."""
        ...

    def liquidate(
        self, account: str, debt: str, collateral: str, repay_raw: int, taken_raw: int, size: Size
    ) -> Liquidated:
        """Liquidate as much as `size` says; amounts count for `Size.AMOUNT` only."""
        ...


def account_address(wallet: str) -> str:
    """Return the address that stands for a wallet of the book."""
    return labelled_address(f"account {wallet}")


def open_pools(evm: Evm, world: World, *, interest: bool) -> dict[str, Pool]:
    """Deploy every lending venue of the book on its tokens, and open its accounts, all in one second.

    Parameters
    ----------
    evm, world
        Where, and what.
    interest
        Whether the reserves have the book's rate curves; otherwise they have none.

    Raises
    ------
    InputError
        For a venue whose kind has no bytecode here, or a book that the contracts cannot hold.
    """
    book = world.book
    for venue in book.lending:
        require_supported(venue)
    market = MarketSpec(assets=tuple(_plain_asset(book, t.symbol) for t in book.tokens))
    tokens = deploy_tokens(evm, DEPLOYER, market)
    for address in tokens.values():
        for holder in (SUPPLIER, LIQUIDATOR):
            transact(evm, DEPLOYER, address, MINT, holder, _FUNDS_RAW)
    pools: dict[str, Pool] = {}
    for v, venue in enumerate(book.lending):
        try:
            if venue.kind == "morpho-blue":
                pools[venue.name] = _open_morpho(evm, world, v, tokens)
            else:
                pools[venue.name] = _open_aave(evm, world, v, tokens, interest=interest)
        except CallReverted as error:
            raise InputError(
                f"the contracts of {venue.name} ({venue.kind}) refuse the book: {error.message}",
                fix="smaller amounts, or --fidelity model",
            ) from None
    return pools


def require_supported(venue: LendingVenue) -> None:
    """Refuse a venue whose bytecode is not built here, or that owes what no account could owe there.

    Raises
    ------
    InputError
        Naming the venue.
    """
    if venue.kind not in SUPPORTED:
        raise InputError(
            f"{venue.name} is {venue.kind}, whose bytecode is not built here",
            fix=f"--fidelity model, or a venue of {', '.join(SUPPORTED)}",
        )
    for reserve in venue.reserves:
        if reserve.outside_debt:
            raise InputError(
                f"{venue.name}: outside_debt of {reserve.token} has no accounts that could owe it in an EVM",
                fix="add accounts, or --fidelity model",
            )


def _plain_asset(book: SharedBook, symbol: str) -> AssetSpec:
    token = next(t for t in book.tokens if t.symbol == symbol)
    return AssetSpec(
        symbol=symbol,
        name=symbol,
        decimals=token.decimals,
        price_e8=max(1, int(token.price * 1e8)),
        ltv_bps=0,
        liquidation_threshold_bps=0,
        liquidation_bonus_bps=0,
        liquidation_protocol_fee_bps=0,
        reserve_factor_bps=0,
        rate=RateSpec(8_000, 0, 0, 0),
    )


def _lent(world: World, v: int, token: str) -> float:
    """Return what others than the accounts have supplied, and what the protocol holds itself."""
    at = v * len(world.tokens) + world.token(token)
    return float(world.reserves.idle[at] + world.reserves.reserves[at])


def _rate(curve: RateCurve) -> RateSpec:
    return RateSpec(
        round(curve.optimal * 1e4),
        round(curve.base * 1e4),
        round(curve.slope1 * 1e4),
        round(curve.slope2 * 1e4),
    )


# --- Aave ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class AavePool:
    """Aave V3 or V3.6.

    Attributes
    ----------
    evm, deployed, tokens, sources
        Where it is, its addresses, and token and price source by symbol.
    first
        Indices at the start, in ray.
    """

    evm: Evm
    deployed: AaveDeployment
    tokens: Mapping[str, str]
    sources: Mapping[str, str]
    first: dict[str, tuple[int, int]]

    def set_prices(self, prices_e8: Mapping[str, int]) -> None:
        """See `Pool`."""
        for symbol, source in self.sources.items():
            self.evm.set_storage(source, 0, prices_e8[symbol])

    def indices(self) -> dict[str, tuple[float, float]]:
        """See `Pool`."""
        found = {}
        for symbol, (supply, borrow) in self._indices_ray().items():
            own = self.first[symbol]
            found[symbol] = (supply / own[0], borrow / own[1])
        return found

    def _indices_ray(self) -> dict[str, tuple[int, int]]:
        pool = self.deployed.pool
        return {
            symbol: (
                read(self.evm, call_of(aave.GET_RESERVE_NORMALIZED_INCOME, pool, self.tokens[symbol])),
                read(self.evm, call_of(aave.GET_RESERVE_NORMALIZED_VARIABLE_DEBT, pool, self.tokens[symbol])),
            )
            for symbol in self.sources
        }

    def amounts_raw(self, account: str, token: str) -> tuple[int, int]:
        """See `Pool`."""
        reserve = self.deployed.reserves[token]
        return (
            read(self.evm, call_of(aave.BALANCE_OF, reserve.a_token, account)),
            read(self.evm, call_of(aave.BALANCE_OF, reserve.v_token, account)),
        )

    def liquidatable(self, account: str) -> bool:
        """See `Pool`."""
        data = read(self.evm, call_of(aave.GET_USER_ACCOUNT_DATA, self.deployed.pool, account))
        return bool(data[5] < 10**18)

    def cash_raw(self, token: str) -> int:
        """See `Pool`."""
        reserve = self.deployed.reserves[token]
        return int(read(self.evm, call_of(aave.BALANCE_OF, self.tokens[token], reserve.a_token)))

    def liquidate(
        self, account: str, debt: str, collateral: str, repay_raw: int, taken_raw: int, size: Size
    ) -> Liquidated:
        """See `Pool`."""
        evm, paid, got = self.evm, self.tokens[debt], self.tokens[collateral]
        before = (_held(evm, paid), _held(evm, got))
        held = self.amounts_raw(account, collateral)[0]
        call = aave.LIQUIDATION_CALL.encode(
            got, paid, account, repay_raw if size is Size.AMOUNT else MAX_UINT256, False
        )
        now = evm.timestamp()
        result = evm.send(LIQUIDATOR, self.deployed.pool, call)
        # Read at the transaction's own second: a second later the balances have earned interest.
        evm.warp(now)
        if not result.success:
            return Liquidated(0, 0, 0, result.output.hex() or "reverted")
        log = next(entry for entry in result.logs if entry.topics[0] == aave.LIQUIDATION_CALL_EVENT.topic)
        covered = int(aave.LIQUIDATION_CALL_EVENT.decode(log.topics, log.data)["debtToCover"])
        received = _held(evm, got) - before[1] + (covered if paid == got else 0)
        return Liquidated(covered, received, held - self.amounts_raw(account, collateral)[0])


def _held(evm: Evm, token: str) -> int:
    return int(read(evm, call_of(aave.BALANCE_OF, token, LIQUIDATOR)))


def _open_aave(evm: Evm, world: World, v: int, tokens: Mapping[str, str], *, interest: bool) -> AavePool:
    book, venue = world.book, world.book.lending[v]
    modes = {t: mode.id for mode in venue.emodes for t in mode.tokens}
    market = MarketSpec(
        market_id=venue.name,
        assets=tuple(
            _aave_asset(book, venue, r.token, modes.get(r.token, 0), interest) for r in venue.reserves
        ),
        emodes=tuple(
            EModeSpec(
                m.id,
                f"category {m.id}",
                m.ltv_bps,
                m.liquidation_threshold_bps,
                10_000 + m.liquidation_bonus_bps,
            )
            for m in venue.emodes
        ),
    )
    sources = {
        r.token: labelled_address(f"price source of {r.token} in {venue.name}") for r in venue.reserves
    }
    for symbol, source in sources.items():
        evm.set_code(source, PRICE_SOURCE)
        evm.set_storage(source, 0, market.asset(symbol).price_e8)
    deployed = AAVE_VERSIONS[venue.kind](evm, DEPLOYER, market, tokens=tokens, feeds=sources)
    pool = AavePool(evm, deployed, tokens, sources, {})
    for holder in (SUPPLIER, LIQUIDATOR):
        for reserve in venue.reserves:
            transact(evm, holder, tokens[reserve.token], aave.APPROVE, deployed.pool, MAX_UINT256)
    start = evm.timestamp()
    decimals = {t.symbol: t.decimals for t in book.tokens}
    for reserve in venue.reserves:
        raw = raw_units(_lent(world, v, reserve.token), decimals[reserve.token])
        if raw:
            transact(evm, SUPPLIER, deployed.pool, aave.SUPPLY, tokens[reserve.token], raw, SUPPLIER, 0)
            evm.warp(start)
    rows = range(int(world.venue_ptr[v]), int(world.venue_ptr[v + 1]))
    for i in rows:
        account = account_address(book.wallets[world.row_wallet[i]])
        for symbol, amount in slots(world, world.coll_at, world.coll, i):
            raw = raw_units(amount, decimals[symbol])
            if raw:
                transact(evm, SUPPLIER, deployed.pool, aave.SUPPLY, tokens[symbol], raw, account, 0)
                evm.warp(start)
    emode = _emodes(world, v)
    for i in rows:
        account = account_address(book.wallets[world.row_wallet[i]])
        if emode.get(i):
            transact(evm, account, deployed.pool, aave.SET_USER_EMODE, emode[i])
            evm.warp(start)
        held = [symbol for symbol, _ in slots(world, world.coll_at, world.coll, i)]
        owed = slots(world, world.debt_at, world.debt, i)
        for symbol in held:
            evm.set_storage(sources[symbol], 0, market.asset(symbol).price_e8 * _GENEROUS)
        for symbol, amount in owed:
            raw = raw_units(amount, decimals[symbol])
            if symbol in held:
                evm.set_storage(sources[symbol], 0, market.asset(symbol).price_e8)
            if raw:
                transact(evm, account, deployed.pool, aave.BORROW, tokens[symbol], raw, 2, 0, account)
                # A second later the first ones would owe interest before the book's moment.
                evm.warp(start)
        for symbol in held:
            evm.set_storage(sources[symbol], 0, market.asset(symbol).price_e8)
    pool.first.update(pool._indices_ray())
    return pool


def _aave_asset(
    book: SharedBook, venue: LendingVenue, symbol: str, category: int, interest: bool
) -> AssetSpec:
    r = venue.reserve(symbol)
    token = next(t for t in book.tokens if t.symbol == symbol)
    collateral = r.liquidation_threshold_bps > 0
    return AssetSpec(
        symbol=symbol,
        name=symbol,
        decimals=token.decimals,
        price_e8=max(1, int(token.price * 1e8)),
        ltv_bps=r.ltv_bps,
        liquidation_threshold_bps=r.liquidation_threshold_bps,
        liquidation_bonus_bps=10_000 + r.liquidation_bonus_bps if collateral else 0,
        liquidation_protocol_fee_bps=r.protocol_fee_bps,
        reserve_factor_bps=r.reserve_factor_bps,
        rate=_rate(r.rate) if interest else RateSpec(8_000, 0, 0, 0),
        emode_category=category,
    )


def _emodes(world: World, v: int) -> dict[int, int]:
    """Return the category of each row of a venue that has one."""
    p = world.book.positions
    of = {(int(p.venue[k]), int(p.wallet[k])): int(p.emode[k]) for k in range(len(p)) if p.emode[k]}
    first, last = int(world.venue_ptr[v]), int(world.venue_ptr[v + 1])
    return {i: of.get((v, int(world.row_wallet[i])), 0) for i in range(first, last)}


def slots(world: World, at: Any, amount: Any, i: int) -> list[tuple[str, float]]:
    """Return symbol and amount of the slots of row `i` that hold something."""
    return [
        (world.tokens[int(at[i, k]) % len(world.tokens)], float(amount[i, k]))
        for k in range(at.shape[1])
        if amount[i, k] > 0.0
    ]


# --- Morpho Blue --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class MorphoPool:
    """One market of Morpho Blue without interest.

    Attributes
    ----------
    evm, address, params, id
        Where it is, and which market.
    tokens
        Token by symbol.
    collateral, loan
        Symbols.
    scale
        Decimals of the oracle's price: 36 plus the loan's less the collateral's.
    """

    evm: Evm
    address: str
    params: MarketParams
    id: bytes
    tokens: Mapping[str, str]
    collateral: str
    loan: str
    scale: int

    def set_prices(self, prices_e8: Mapping[str, int]) -> None:
        """See `Pool`."""
        price = prices_e8[self.collateral] * 10**self.scale // prices_e8[self.loan]
        self.evm.set_storage(self.params.oracle, 0, price)

    def indices(self) -> dict[str, tuple[float, float]]:
        """See `Pool`."""
        return {self.collateral: (1.0, 1.0), self.loan: (1.0, 1.0)}

    def amounts_raw(self, account: str, token: str) -> tuple[int, int]:
        """See `Pool`."""
        _, shares, collateral = read(self.evm, call_of(morpho.POSITION, self.address, self.id, account))
        if token == self.collateral:
            return int(collateral), 0
        assets, total = self._borrowed()
        return 0, -(-shares * (assets + 1) // (total + 10**6))

    def _borrowed(self) -> tuple[int, int]:
        market = read(self.evm, call_of(morpho.MARKET, self.address, self.id))
        return int(market[2]), int(market[3])

    def liquidatable(self, account: str) -> bool:
        """See `Pool`. Morpho has no view for it: this is `_isHealthy` of `Morpho.sol`."""
        price = self.evm.storage(self.params.oracle, 0)
        collateral = self.amounts_raw(account, self.collateral)[0]
        owed = self.amounts_raw(account, self.loan)[1]
        most = collateral * price // 10**36 * self.params.lltv_wad // 10**18
        return owed > most

    def cash_raw(self, token: str) -> int:
        """See `Pool`."""
        return int(read(self.evm, call_of(aave.BALANCE_OF, self.tokens[token], self.address)))

    def liquidate(
        self, account: str, debt: str, collateral: str, repay_raw: int, taken_raw: int, size: Size
    ) -> Liquidated:
        """See `Pool`."""
        evm, paid, got = self.evm, self.tokens[debt], self.tokens[collateral]
        before = (_held(evm, paid), _held(evm, got))
        _, shares, held = read(evm, call_of(morpho.POSITION, self.address, self.id, account))
        seized, repaid_shares = taken_raw, 0
        if size is Size.ALL_DEBT:
            seized, repaid_shares = 0, shares
        elif size is Size.ALL_COLLATERAL:
            seized = held
        call = morpho.LIQUIDATE.encode(self.params.words(), account, seized, repaid_shares, b"")
        now = evm.timestamp()
        result = evm.send(LIQUIDATOR, self.address, call)
        evm.warp(now)
        if not result.success:
            return Liquidated(0, 0, 0, result.output.hex() or "reverted")
        after = (_held(evm, paid), _held(evm, got))
        return Liquidated(before[0] - after[0], after[1] - before[1], after[1] - before[1])


def _open_morpho(evm: Evm, world: World, v: int, tokens: Mapping[str, str]) -> MorphoPool:
    book, venue = world.book, world.book.lending[v]
    collateral, loan = venue.reserves[0], venue.reserves[-1]
    decimals = {t.symbol: t.decimals for t in book.tokens}
    price = {t.symbol: max(1, int(t.price * 1e8)) for t in book.tokens}
    address = deploy_morpho(evm, DEPLOYER)
    oracle = labelled_address(f"price source of {venue.name}")
    evm.set_code(oracle, PRICE_SOURCE)
    params = MarketParams(
        tokens[loan.token],
        tokens[collateral.token],
        oracle,
        ZERO_ADDRESS,
        collateral.liquidation_threshold_bps * 10**14,
    )
    create_markets(evm, DEPLOYER, address, [params])
    pool = MorphoPool(
        evm,
        address,
        params,
        bytes.fromhex(params.id[2:]),
        tokens,
        collateral.token,
        loan.token,
        36 + decimals[loan.token] - decimals[collateral.token],
    )
    for holder in (SUPPLIER, LIQUIDATOR):
        for symbol in (collateral.token, loan.token):
            transact(evm, holder, tokens[symbol], aave.APPROVE, address, MAX_UINT256)
    lent = raw_units(_lent(world, v, loan.token), decimals[loan.token])
    if lent:
        transact(evm, SUPPLIER, address, morpho.SUPPLY, params.words(), lent, 0, SUPPLIER, b"")
    pool.set_prices({**price, collateral.token: price[collateral.token] * _GENEROUS})
    for i in range(int(world.venue_ptr[v]), int(world.venue_ptr[v + 1])):
        account = account_address(book.wallets[world.row_wallet[i]])
        for symbol, amount in slots(world, world.coll_at, world.coll, i):
            raw = raw_units(amount, decimals[symbol])
            if raw:
                transact(evm, SUPPLIER, address, morpho.SUPPLY_COLLATERAL, params.words(), raw, account, b"")
        for symbol, amount in slots(world, world.debt_at, world.debt, i):
            raw = raw_units(amount, decimals[symbol])
            if raw:
                transact(evm, account, address, morpho.BORROW, params.words(), raw, 0, account, account)
    pool.set_prices(price)
    return pool
