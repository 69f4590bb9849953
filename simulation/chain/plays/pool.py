"""A lending model whose every answer the real Aave V3 pool gives.

`ChainPool` is a `simulation.replay.lending.LendingModel`, so that the same accounts, borrowers and keepers
can be played on it as on the exact model in Python, and their economics compared integer by integer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from contracts_abi import aave_v3 as abi
from contracts_abi import feeds
from contracts_abi.errors import CallReverted, ChainError, InputError
from simulation.chain.aave_v3 import MINT, AaveDeployment, deploy_aave, deploy_tokens
from simulation.chain.artifacts import own
from simulation.chain.evm import find_log, labelled_address
from simulation.chain.market import AssetSpec, MarketSpec, RateSpec
from simulation.chain.plays.stage import OWNER, PRICE_DECIMALS, Stage
from simulation.fixed_point import BPS, WAD
from simulation.replay.lending import Account, Market, Quotes, Seizure

LENDER: Final = labelled_address("lender")
KEEPER: Final = labelled_address("keeper")

_ALL_THAT_IS_LENT: Final = 2**100
"""Lent where the scenario names no limit: more than any borrower's collateral allows."""

_DEAR, _CHEAP = 10**24, 1
"""Prices of collateral and debt while a position is opened, which history had opened at better ones."""

_NO_INTEREST: Final = RateSpec(optimal_bps=8_000, base_bps=0, slope1_bps=0, slope2_bps=0)

_Amounts: TypeAlias = tuple[tuple[str, int], ...]
_Key: TypeAlias = tuple[str, _Amounts, _Amounts]


@dataclass(frozen=True, slots=True)
class PoolAddresses:
    """Where the market is.

    Attributes
    ----------
    aave
        Addresses of the protocol.
    tokens
        Asset to token.
    posted
        Asset to the feed that tells whatever price we post, for questions at prices that are not the
        protocol's own.
    """

    aave: AaveDeployment
    tokens: Mapping[str, str]
    posted: Mapping[str, str]


class ChainPool:
    """Aave V3 on a stage, without interest and fees, as the exact model has it.

    Accounts are opened, moved and liquidated when a question about them shows that they changed: a caller
    that plays by `LendingModel` gets the pool's own amounts, and the pool's state follows.

    Parameters
    ----------
    stage
        Where to deploy.
    markets
        Assets by symbol, in the order of their reserves.
    """

    def __init__(self, stage: Stage, markets: Mapping[str, Market]) -> None:
        self.stage = stage
        self.markets = markets
        self.at = _deploy(stage, markets)
        self._sources = dict(self.at.posted)
        self._accounts: dict[str, Account] = {}
        self._offers: dict[_Key, tuple[Seizure, int]] = {}
        for symbol, market in markets.items():
            lent = _ALL_THAT_IS_LENT if market.liquidity_raw is None else market.liquidity_raw
            self._supply(LENDER, symbol, lent)

    @property
    def name(self) -> str:
        """Short name."""
        return "aave_v3"

    @property
    def label(self) -> str:
        """What the model is."""
        return f"Aave V3 (@aave/core-v3 1.19.3) on {self.stage.evm.name}, without interest"

    # --------------------------------------------------------------------------------------------- prices

    def read_from(self, sources: Mapping[str, str]) -> None:
        """Let the oracle read each asset's price from a contract; assets not named keep theirs."""
        wanted = {**self._sources, **sources}
        if wanted != self._sources:
            self._sources = wanted
            self._set_sources(wanted)

    def price(self, symbol: str) -> int | None:
        """Return what `AaveOracle.getAssetPrice` says, USD with 8 decimals; None when it reverts."""
        try:
            return int(self.stage.read(abi.GET_ASSET_PRICE.call(self.at.aave.oracle, self.at.tokens[symbol])))
        except CallReverted:
            return None

    def prices(self) -> dict[str, int | None]:
        """Return the price of every asset."""
        return {symbol: self.price(symbol) for symbol in self.markets}

    def _set_sources(self, sources: Mapping[str, str]) -> None:
        symbols = list(self.markets)
        tokens = [self.at.tokens[symbol] for symbol in symbols]
        named = [sources[symbol] for symbol in symbols]
        self.stage.act(OWNER, self.at.aave.oracle, abi.SET_ASSET_SOURCES, tokens, named)

    def _post(self, symbol: str, price_e8: int | None) -> None:
        """Post a price to the asset's own feed; None switches its reads off."""
        mode = feeds.READS_REVERT if price_e8 is None else feeds.READS_LIVE
        feed = self.at.posted[symbol]
        self.stage.act(OWNER, feed, feeds.SET_READ_MODE, mode)
        if price_e8 is not None:
            self.stage.act(OWNER, feed, feeds.TRANSMIT, price_e8)

    @contextmanager
    def _quoting(self, quotes: Quotes, assets: tuple[str, ...]) -> Iterator[None]:
        """Answer at `quotes` for `assets`: at the protocol's own prices if those are they, else posted."""
        wanted = {symbol: _one_price(quotes, symbol) for symbol in assets}
        if all(self.price(symbol) == price for symbol, price in wanted.items()):
            yield
            return
        with self.stage.trial():
            for symbol, price in wanted.items():
                self._post(symbol, price)
            self._set_sources({**self._sources, **{symbol: self.at.posted[symbol] for symbol in wanted}})
            yield

    # -------------------------------------------------------------------------------- the three questions

    def due(self, account: Account, quotes: Quotes) -> bool | None:
        """See `LendingModel.due`; asks ``Pool.getUserAccountData``."""
        self._follow(account)
        if not account.debt:
            return False
        with self._quoting(quotes, account.assets()):
            try:
                *_, health_factor = self._data(address_of(account.id))
            except CallReverted:
                return None
            return bool(health_factor < WAD)

    def borrowable(self, account: Account, asset: str, quotes: Quotes, most_raw: int | None) -> int:
        """See `LendingModel.borrowable`; the greatest ``Pool.borrow`` that does not revert."""
        most = _ALL_THAT_IS_LENT if most_raw is None else most_raw
        borrower = address_of(account.id)
        with self._quoting(quotes, (*account.assets(), asset)), self.stage.trial():
            self._enlarge(self._known(account.id), account)
            try:
                _, _, available, *_ = self._data(borrower)
            except CallReverted:
                return 0
            price = self.price(asset)
            near = available * self.markets[asset].unit // price if price else 0

            def passes(raw: int) -> bool:
                return raw == 0 or self._may_borrow(borrower, asset, raw)

            return last_that_passes(passes, min(near, most), most)

    def liquidate(
        self, account: Account, quotes: Quotes, *, collateral: str, debt: str, most_raw: int
    ) -> Seizure | None:
        """See `LendingModel.liquidate`; what ``Pool.liquidationCall`` emits, undone until it is taken."""
        self._follow(account)
        with self._quoting(quotes, account.assets()), self.stage.trial():
            seizure = self._liquidate(account, collateral, debt, most_raw)
        if seizure is not None:
            self._offers[_key(seizure.after)] = (seizure, most_raw)
        return seizure

    def account(self, account_id: str) -> Account:
        """Return an account as the pool's tokens have it."""
        address = address_of(account_id)
        held = {s: self._balance(self.at.aave.reserves[s].a_token, address) for s in self.markets}
        owed = {s: self._balance(self.at.aave.reserves[s].v_token, address) for s in self.markets}
        return Account(
            account_id,
            {s: raw for s, raw in sorted(held.items()) if raw},
            {s: raw for s, raw in sorted(owed.items()) if raw},
        )

    def open(self, account: Account) -> None:
        """Open a position that history had opened earlier, at whatever health it has at today's prices.

        What it borrows is lent anew, so that the market's liquidity stays what the scenario says.
        """
        with self._generous(account):
            for symbol, raw in account.debt.items():
                self._supply(LENDER, symbol, raw)
            self._follow(account)

    def settle(self, account: Account) -> None:
        """Bring an account to where the caller has it, after the last question about it."""
        self._follow(account)

    # ------------------------------------------------------------------------------------------ the chain

    def _follow(self, account: Account) -> None:
        """Do on chain what has happened to an account since it was last asked about."""
        before = self._known(account.id)
        if before == account:
            return
        offer = self._offers.get(_key(account))
        if offer is not None:
            self._take(before, *offer)
        else:
            self._enlarge(before, account)
        self._accounts[account.id] = account
        self._offers = {key: offer for key, offer in self._offers.items() if key[0] != account.id}

    def _known(self, account_id: str) -> Account:
        return self._accounts.get(account_id, Account(account_id, {}, {}))

    def _take(self, before: Account, seizure: Seizure, most_raw: int) -> None:
        # Asked again as it was asked, since the seizure's own amount as the limit would round otherwise.
        taken = self._liquidate(before, seizure.collateral, seizure.debt, most_raw)
        if taken != seizure:
            raise ChainError(f"the pool offered {seizure} and then gave {taken}")

    def _enlarge(self, before: Account, after: Account) -> None:
        """Supply and borrow the difference."""
        address = address_of(after.id)
        for symbol in after.assets():
            more = after.collateral.get(symbol, 0) - before.collateral.get(symbol, 0)
            if more < 0:
                raise InputError(f"{after.id} withdraws {symbol}, which no play on chain knows")
            if more:
                self._supply(address, symbol, more)
        for symbol in after.debt:
            more = after.debt[symbol] - before.debt.get(symbol, 0)
            if more < 0:
                raise InputError(f"{after.id} repays {symbol}, which no play on chain knows")
            if more:
                self._borrow(address, symbol, more)

    @contextmanager
    def _generous(self, account: Account) -> Iterator[None]:
        """Make collateral dear and debt cheap."""
        self._set_sources(self.at.posted)
        for symbol in account.debt:
            self._post(symbol, _CHEAP)
        for symbol in account.collateral:
            self._post(symbol, _DEAR)
        yield
        self._set_sources(self._sources)

    def _supply(self, address: str, symbol: str, raw: int) -> None:
        if not raw:
            return
        token, pool = self.at.tokens[symbol], self.at.aave.pool
        self.stage.act(OWNER, token, MINT, address, raw)
        self.stage.act(address, token, abi.APPROVE, pool, raw)
        self.stage.act(address, pool, abi.SUPPLY, token, raw, address, 0)

    def _borrow(self, address: str, symbol: str, raw: int) -> None:
        token, pool = self.at.tokens[symbol], self.at.aave.pool
        self.stage.act(address, pool, abi.BORROW, token, raw, abi.VARIABLE_RATE_MODE, 0, address)

    def _may_borrow(self, address: str, symbol: str, raw: int) -> bool:
        data = abi.BORROW.encode(self.at.tokens[symbol], raw, abi.VARIABLE_RATE_MODE, 0, address)
        try:
            self.stage.evm.call(self.at.aave.pool, data, address)
        except CallReverted:
            return False
        return True

    def _liquidate(self, account: Account, collateral: str, debt: str, most_raw: int) -> Seizure | None:
        """Call the pool as the keeper, with all that it may need; None when that reverts."""
        tokens, pool = self.at.tokens, self.at.aave.pool
        owed = min(most_raw, account.debt.get(debt, 0))
        self.stage.act(OWNER, tokens[debt], MINT, KEEPER, owed)
        self.stage.act(KEEPER, tokens[debt], abi.APPROVE, pool, owed)
        result = self.stage.attempt(
            *(KEEPER, pool, abi.LIQUIDATION_CALL, tokens[collateral], tokens[debt]),
            *(address_of(account.id), most_raw, False),
        )
        if not result.success:
            return None
        event = find_log(result, abi.LIQUIDATION_CALL_EVENT, pool)
        seized, repaid = event["liquidatedCollateralAmount"], event["debtToCover"]
        if not repaid:
            return None
        after = account.moved({collateral: -seized}, {debt: -repaid})
        return Seizure(collateral, debt, seized, repaid, after)

    def _data(self, address: str) -> tuple[int, ...]:
        return self.stage.read(abi.GET_USER_ACCOUNT_DATA.call(self.at.aave.pool, address))

    def _balance(self, token: str, address: str) -> int:
        return int(self.stage.read(abi.BALANCE_OF.call(token, address)))


def address_of(account_id: str) -> str:
    """Return the address that plays an account."""
    return labelled_address(f"account {account_id}")


def _one_price(quotes: Quotes, symbol: str) -> int | None:
    """Return the price of an asset with 8 decimals, rounded down; one for both sides, as the oracle has."""
    price = quotes.collateral.get(symbol)
    if price != quotes.debt.get(symbol):
        raise InputError(f"{symbol} has two prices, and Aave's oracle one")
    if price is None:
        return None
    scaled = math.floor(price * 10**PRICE_DECIMALS)
    return scaled if scaled > 0 else None


def _key(account: Account) -> _Key:
    return account.id, tuple(account.collateral.items()), tuple(account.debt.items())


def last_that_passes(passes: Callable[[int], bool], near: int, most: int) -> int:
    """Return the greatest amount from 0 to `most` that passes, where all below one that passes do too.

    Zero is taken to pass. The search starts at `near` and widens by doubling, so that a good guess costs few
    questions.
    """
    step, good, bad = 1, 0, most + 1
    if passes(near):
        good = near
        while good < most and bad > most:
            probe = min(most, good + step)
            good, bad, step = (probe, bad, 2 * step) if passes(probe) else (good, probe, step)
    else:
        bad = near
        while good == 0 and bad > 1:
            probe = max(0, bad - step)
            if probe == 0 or passes(probe):
                good = probe
                break
            bad, step = probe, 2 * step
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if passes(middle) else (good, middle)
    return good


def _deploy(stage: Stage, markets: Mapping[str, Market]) -> PoolAddresses:
    """Deploy tokens, a feed for each that tells what we post, and Aave V3 that reads those."""
    spec = MarketSpec(assets=tuple(_asset(market) for market in markets.values()))
    posted = {symbol: _posted(stage, symbol) for symbol in markets}
    tokens = deploy_tokens(stage.evm, OWNER, spec)
    aave = deploy_aave(stage.evm, OWNER, spec, tokens=tokens, feeds=posted)
    stage.move_to(stage.evm.timestamp())  # each transaction of the deployment took a second
    return PoolAddresses(aave, tokens, posted)


def _posted(stage: Stage, symbol: str) -> str:
    bounds = (-(2**191), 2**191 - 1)
    code = own("PriceAggregator").creation_code(PRICE_DECIMALS, f"{symbol} posted", 1, 1, *bounds)
    feed = stage.create(code)
    stage.act(OWNER, feed, feeds.TRANSMIT, 10**PRICE_DECIMALS)
    return feed


def _asset(market: Market) -> AssetSpec:
    return AssetSpec(
        symbol=market.symbol,
        name=market.symbol,
        decimals=market.decimals,
        price_e8=10**PRICE_DECIMALS,
        ltv_bps=market.max_ltv_bps,
        liquidation_threshold_bps=market.liquidation_threshold_bps,
        # The contract wants none where the asset is no collateral.
        liquidation_bonus_bps=BPS + market.liquidation_bonus_bps if market.liquidation_threshold_bps else 0,
        liquidation_protocol_fee_bps=0,
        reserve_factor_bps=0,
        rate=_NO_INTEREST,
    )
