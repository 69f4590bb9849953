"""Books of accounts on a local market: drawn from a seed, opened on chain, kept as a state file.

Drawing is pure (`draw_book`, `draw_morpho_book`), opening works on any backend (`open_book`,
`open_morpho_book`), and `load_or_build` keeps the result so that the next start takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak

from contracts_abi import aave_v3 as abi
from contracts_abi import morpho_blue as morpho_abi
from contracts_abi.artifacts import VYPER_SOURCES, write_atomically
from contracts_abi.calls import Function, function
from contracts_abi.errors import DataError, InputError
from simulation.chain.aave_v3 import mint
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.deploy import deploy_market
from simulation.chain.evm import Evm, Tx, labelled_address, read, transact
from simulation.chain.market import (
    DEFAULT_MARKET,
    GENESIS,
    DeployedMorphoMarket,
    Deployment,
    MarketSpec,
)
from simulation.chain.toolchain import anvil_version, cache_dir, locate_anvil
from simulation.types import Float64

T = TypeVar("T")
_OWNER: Final = labelled_address("seeder owner")
Progress = Callable[[str, float], None]

MAX_ACCOUNTS: Final = 100_000

_SUPPLY = function("supply((address,address,uint256)[])")
_BORROW = function("borrow((address,address,uint256)[])")
_BORROW_ALLOWANCE = function("borrowAllowance(address,address)(uint256)")
# Slot of `_borrowAllowances` in VariableDebtToken: behind VersionedInitializable's 52 and EIP712Base's two.
_BORROW_ALLOWANCES_SLOT: Final = 54

_ENTRIES_PER_TX: Final = 100
_ENTRY_GAS: Final = 700_000
_EMODE_GAS: Final = 500_000
_REQUESTS_PER_BATCH: Final = 5_000
_BLOCK_GAS: Final = 2 * 10**9
_STATES_KEPT: Final = 12
_ACCOUNTS_PER_SESSION: Final = 10_000

_UNFINISHED = re.compile(r"\.[0-9a-f-]+\.(?P<pid>\d+)\.(json|compact)$")
_TRACES_OPEN, _TRACES_CLOSE = b'"traces":[', b'],"exit":'

# The market lends more than is borrowed, so that rates stay below their kinks.
_LENT_PER_BORROWED: Final = 1.8
_LEAST_LENT_USD: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class Holding:
    """An amount of an asset, in raw token units."""

    symbol: str
    amount_raw: int


@dataclass(frozen=True, slots=True)
class SeedAccount:
    """An account to be opened.

    Attributes
    ----------
    address
        Nobody has its key.
    profile
        What kind of account it is; see `PROFILES`.
    collateral, debt
        What it supplies and what it borrows.
    emode
        Efficiency-mode category, 0 for none.
    """

    address: str
    profile: str
    collateral: tuple[Holding, ...]
    debt: tuple[Holding, ...]
    emode: int


@dataclass(frozen=True, slots=True)
class MorphoSeedAccount:
    """An account to be opened in a market of Morpho Blue.

    Attributes
    ----------
    address
        Nobody has its key. Every fourth is also an account of the Aave book.
    market
        Name of the market, for example ``WETH/USDC``.
    collateral_raw, debt_raw
        What it gives as collateral and what it borrows, in token units.
    """

    address: str
    market: str
    collateral_raw: int
    debt_raw: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of account.

    Attributes
    ----------
    share
        Part of all accounts that are of this kind.
    collateral, debt
        Symbols and their parts of the value; an account has the first of them, or all.
    emode
        Efficiency-mode category.
    mean_spare
        Mean distance of the first health factor from the lowest that a borrow allows.
    """

    share: float
    collateral: tuple[tuple[str, float], ...]
    debt: tuple[tuple[str, float], ...]
    emode: int
    mean_spare: float


PROFILES: Final[dict[str, Profile]] = {
    "eth long": Profile(0.42, (("WETH", 1.0),), (("USDC", 1.0),), 0, 0.8),
    "eth and steth long": Profile(0.13, (("WETH", 0.6), ("wstETH", 0.4)), (("DAI", 1.0),), 0, 0.8),
    "mixed long": Profile(0.20, (("WETH", 0.6), ("WBTC", 0.4)), (("USDC", 0.7), ("DAI", 0.3)), 0, 0.8),
    "btc long": Profile(0.08, (("WBTC", 1.0),), (("USDC", 1.0),), 0, 0.8),
    "staked eth loop": Profile(0.10, (("wstETH", 1.0),), (("WETH", 1.0),), 1, 0.05),
    "eth short": Profile(0.07, (("USDC", 0.8), ("DAI", 0.2)), (("WETH", 1.0),), 0, 0.8),
}
"""Kinds of accounts. Longs fall with Ether, loops stand still as long as their two prices fall together,
shorts gain."""

_MEDIAN_DEBT_USD: Final = 8_000.0
_DEBT_SIGMA: Final = 1.2
_TINY_SHARE, _TINY_USD = 0.03, (20.0, 60.0)
_WHALE_SHARE, _WHALE_USD = 0.03, (50_000.0, 300_000.0)
_LEAST_SPARE: Final = 0.01
_MORPHO_MEAN_SPARE: Final = 0.25
_MORPHO_FIRST_SHARE: Final = 0.7
_SHARED_EVERY: Final = 4
_MORPHO_GAS: Final = 500_000
_FUNDER: Final = labelled_address("morpho funder")


def draw_book(market: MarketSpec, accounts: int, seed: int) -> tuple[SeedAccount, ...]:
    """Draw a book of accounts; the same arguments give the same book.

    Sizes are lognormal, with a few accounts too small to be worth a liquidation and a few so large that half
    of their debt is a real sale. First health factors lie an exponential distance above the least that the
    protocol lets an account borrow at.

    Parameters
    ----------
    market
        First prices and collateral parameters.
    accounts
        How many, 1 to `MAX_ACCOUNTS`.
    seed
        Any non-negative integer.

    Raises
    ------
    InputError
        If a number is out of its range.
    """
    if not 1 <= accounts <= MAX_ACCOUNTS:
        raise InputError(f"accounts must be 1 to {MAX_ACCOUNTS}, got {accounts}")
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng([0x5EED, seed])
    names = tuple(PROFILES)
    shares = np.array([PROFILES[name].share for name in names])
    profiles = rng.choice(len(names), size=accounts, p=shares / shares.sum())
    debt_usd = _draw_debts_usd(rng, accounts)
    spare = rng.exponential(size=accounts)
    return tuple(
        _account(market, seed, i, names[profiles[i]], float(debt_usd[i]), float(spare[i]))
        for i in range(accounts)
    )


def _draw_debts_usd(rng: np.random.Generator, accounts: int) -> Float64:
    debt_usd = _MEDIAN_DEBT_USD * np.exp(_DEBT_SIGMA * rng.standard_normal(accounts))
    debt_usd = np.clip(debt_usd, _TINY_USD[1] * 2, _WHALE_USD[0])
    tiny, whales = (max(3, round(accounts * share)) for share in (_TINY_SHARE, _WHALE_SHARE))
    places = rng.permutation(accounts)
    debt_usd[places[:tiny]] = rng.uniform(*_TINY_USD, size=tiny)[:accounts]
    large = places[tiny : tiny + whales]
    debt_usd[large] = np.exp(rng.uniform(math.log(_WHALE_USD[0]), math.log(_WHALE_USD[1]), size=len(large)))
    return debt_usd


def draw_morpho_book(market: MarketSpec, accounts: int, seed: int) -> tuple[MorphoSeedAccount, ...]:
    """Draw a book of borrowers over the market's Morpho markets; the same arguments give the same book.

    Sizes are drawn as for `draw_book`, and health factors an exponential distance above 1.01: on Morpho one
    may borrow up to where one is liquidated. Most are in the first market.

    Parameters
    ----------
    market
        First prices and Morpho's markets.
    accounts
        How many, 0 to `MAX_ACCOUNTS`.
    seed
        Any non-negative integer.

    Raises
    ------
    InputError
        If a number is out of its range, or there are accounts and no market.
    """
    if not 0 <= accounts <= MAX_ACCOUNTS:
        raise InputError(f"morpho_accounts must be 0 to {MAX_ACCOUNTS}, got {accounts}")
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    if not accounts:
        return ()
    if not market.morpho:
        raise InputError(f"morpho_accounts is {accounts}, the market has no Morpho", fix="use with_morpho")
    rng = np.random.default_rng([0x5EED, 0x4D, seed])
    count = len(market.morpho)
    later = (1 - _MORPHO_FIRST_SHARE) / max(1, count - 1)
    shares = [_MORPHO_FIRST_SHARE, *[later] * (count - 1)] if count > 1 else [1.0]
    places = rng.choice(count, size=accounts, p=shares)
    debt_usd = _draw_debts_usd(rng, accounts)
    health_factor = 1 + _LEAST_SPARE + _MORPHO_MEAN_SPARE * rng.exponential(size=accounts)
    return tuple(
        _morpho_account(market, seed, i, int(places[i]), float(debt_usd[i]), float(health_factor[i]))
        for i in range(accounts)
    )


def _morpho_account(
    market: MarketSpec, seed: int, index: int, place: int, debt_usd: float, health_factor: float
) -> MorphoSeedAccount:
    spec = market.morpho[place]
    # Somebody who borrows on both: one account, two positions that know nothing of each other.
    kind = "account" if index % _SHARED_EVERY == 0 else "morpho"
    (debt,) = _holdings(market, ((spec.loan, 1.0),), debt_usd)
    collateral_usd = debt_usd * health_factor / (spec.lltv_wad / 10**18)
    (collateral,) = _holdings(market, ((spec.collateral, 1.0),), collateral_usd)
    who = labelled_address(f"{kind} {index} of seed {seed}")
    return MorphoSeedAccount(who, spec.name, collateral.amount_raw, debt.amount_raw)


def _account(
    market: MarketSpec, seed: int, index: int, name: str, debt_usd: float, spare: float
) -> SeedAccount:
    profile = PROFILES[name]
    emode = next((mode for mode in market.emodes if mode.category == profile.emode), None)
    ltv = threshold = 0.0
    for symbol, part in profile.collateral:
        of = emode or market.asset(symbol)
        ltv += part * of.ltv_bps / 10_000
        threshold += part * of.liquidation_threshold_bps / 10_000
    least = threshold / ltv
    health_factor = least + _LEAST_SPARE * least + spare * profile.mean_spare
    collateral_usd = debt_usd * health_factor / threshold
    return SeedAccount(
        address=labelled_address(f"account {index} of seed {seed}"),
        profile=name,
        collateral=_holdings(market, profile.collateral, collateral_usd),
        debt=_holdings(market, profile.debt, debt_usd),
        emode=profile.emode,
    )


def _holdings(market: MarketSpec, parts: tuple[tuple[str, float], ...], usd: float) -> tuple[Holding, ...]:
    holdings = []
    for symbol, part in parts:
        asset = market.asset(symbol)
        cents = round(usd * part * 100)
        holdings.append(Holding(symbol, cents * 10**6 * 10**asset.decimals // asset.price_e8))
    return tuple(holdings)


def open_book(
    evm: Evm, deployment: Deployment, book: Sequence[SeedAccount], progress: Progress | None = None
) -> str:
    """Open every account of `book` on chain, through the pool and with its events.

    Lenders first supply what will be borrowed. Credit delegation is written into storage, for exactly what
    is borrowed, so that nothing of it is left.

    Returns
    -------
    str
        Address of the contract that acted for the accounts, and keeps what they borrowed.

    Raises
    ------
    CallReverted
        If the pool refuses a position.
    """
    seeder = _prepare(evm, deployment, book)
    _open_accounts(evm, deployment, seeder, book, progress or _silent)
    return seeder


def _silent(_what: str, _part: float) -> None:
    pass


def _prepare(evm: Evm, deployment: Deployment, book: Sequence[SeedAccount]) -> str:
    """Deploy the seeder, give it the tokens that the accounts supply, and open the lenders."""
    assets = [asset.address for asset in deployment.assets.values()]
    seeder = evm.create(_OWNER, own("Seeder").creation_code(deployment.pool, assets))
    supplied = _totals(deployment, (account.collateral for account in book))
    for symbol, amount in supplied.items():
        mint(evm, _OWNER, deployment.asset(symbol).address, seeder, amount)
    _open_lenders(evm, deployment, _totals(deployment, (account.debt for account in book)))
    return seeder


def open_morpho_book(
    evm: Evm, deployment: Deployment, book: Sequence[MorphoSeedAccount], progress: Progress | None = None
) -> None:
    """Open every account of `book` in its market of Morpho Blue, with the contract's events.

    A lender first supplies to every market. Collateral comes from one funder; each account borrows for itself
    and keeps what it borrowed.

    Raises
    ------
    InputError
        If the deployment has no Morpho.
    CallReverted
        If the contract refuses a position.
    """
    report = progress or _silent
    morpho = deployment.morpho
    if morpho is None:
        raise InputError("the deployment has no Morpho", fix="deploy a market made by with_morpho")
    words = {market.name: _words(deployment, market) for market in morpho.markets}
    for market in morpho.markets:
        of_market = [account for account in book if account.market == market.name]
        _lend_on_morpho(evm, deployment, market, sum(account.debt_raw for account in of_market))
        collateral_raw = sum(account.collateral_raw for account in of_market)
        token = deployment.asset(market.collateral).address
        mint(evm, _FUNDER, token, _FUNDER, collateral_raw)
        allowance = read(evm, abi.ALLOWANCE.call(token, _FUNDER, morpho.address))
        transact(evm, _FUNDER, token, abi.APPROVE, morpho.address, allowance + collateral_raw)
    txs = []
    for account in book:
        params, who = words[account.market], account.address
        give = morpho_abi.SUPPLY_COLLATERAL.encode(params, account.collateral_raw, who, b"")
        take = morpho_abi.BORROW.encode(params, account.debt_raw, 0, who, who)
        txs += [
            Tx(_FUNDER, morpho.address, give, gas=_MORPHO_GAS),
            Tx(who, morpho.address, take, gas=_MORPHO_GAS),
        ]
    done = 0
    for block in _blocks(txs):
        for result in evm.send_many(block):
            result.expect("opening a Morpho account")
        done += len(block)
        report("opening Morpho accounts", done / len(txs))


def _words(deployment: Deployment, market: DeployedMorphoMarket) -> tuple[str, str, str, str, int]:
    loan, collateral = (deployment.asset(symbol).address for symbol in (market.loan, market.collateral))
    return loan, collateral, market.oracle, market.irm, market.lltv_wad


def _lend_on_morpho(
    evm: Evm, deployment: Deployment, market: DeployedMorphoMarket, borrowed_raw: int
) -> None:
    lender, loan = labelled_address("morpho lender"), deployment.asset(market.loan)
    assert deployment.morpho is not None
    contract = deployment.morpho.address
    price_e8 = read(evm, abi.GET_ASSET_PRICE.call(deployment.oracle, loan.address))
    least_raw = _LEAST_LENT_USD * 10**8 * 10**loan.decimals // price_e8
    amount_raw = max(least_raw, int(borrowed_raw * _LENT_PER_BORROWED))
    mint(evm, lender, loan.address, lender, amount_raw)
    transact(evm, lender, loan.address, abi.APPROVE, contract, amount_raw)
    transact(evm, lender, contract, morpho_abi.SUPPLY, _words(deployment, market), amount_raw, 0, lender, b"")


def _totals(deployment: Deployment, holdings: Iterable[tuple[Holding, ...]]) -> dict[str, int]:
    totals = dict.fromkeys(deployment.assets, 0)
    for holding in chain.from_iterable(holdings):
        totals[holding.symbol] += holding.amount_raw
    return totals


def _open_lenders(evm: Evm, deployment: Deployment, borrowed: Mapping[str, int]) -> None:
    lender = labelled_address("lender")
    for symbol, asset in deployment.assets.items():
        price_e8 = read(evm, abi.GET_ASSET_PRICE.call(deployment.oracle, asset.address))
        least = _LEAST_LENT_USD * 10**8 * 10**asset.decimals // price_e8
        amount = max(least, int(borrowed[symbol] * _LENT_PER_BORROWED))
        mint(evm, lender, asset.address, lender, amount)
        transact(evm, lender, asset.address, abi.APPROVE, deployment.pool, amount)
        transact(evm, lender, deployment.pool, abi.SUPPLY, asset.address, amount, lender, 0)


def _open_accounts(
    evm: Evm, deployment: Deployment, seeder: str, book: Sequence[SeedAccount], report: Progress
) -> None:
    supplies = [(account, holding) for account in book for holding in account.collateral]
    borrows = [(account, holding) for account in book for holding in account.debt]
    modes = [
        Tx(account.address, deployment.pool, abi.SET_USER_EMODE.encode(account.emode), gas=_EMODE_GAS)
        for account in book
        if account.emode
    ]
    stages = (
        ("supplying", _entry_txs(deployment, seeder, _SUPPLY, supplies)),
        ("entering efficiency modes", modes),
        ("borrowing", _entry_txs(deployment, seeder, _BORROW, borrows)),
    )
    _delegate_credit(evm, deployment, seeder, borrows)
    for stage, (what, txs) in enumerate(stages):
        done = 0
        for block in _blocks(txs):
            for result in evm.send_many(block):
                result.expect(what)
            done += len(block)
            report(what, (stage + done / len(txs)) / len(stages))


def _entry_txs(
    deployment: Deployment, seeder: str, fn: Function, holdings: Sequence[tuple[SeedAccount, Holding]]
) -> list[Tx]:
    entries = [
        (deployment.asset(holding.symbol).address, account.address, holding.amount_raw)
        for account, holding in holdings
    ]
    return [
        Tx(_OWNER, seeder, fn.encode(chunk), gas=_ENTRY_GAS * len(chunk))
        for chunk in _chunks(entries, _ENTRIES_PER_TX)
    ]


def _blocks(txs: Iterable[Tx]) -> Iterator[list[Tx]]:
    """Fill blocks in order, up to the gas limit of the chain that builds the state."""
    block: list[Tx] = []
    room = _BLOCK_GAS
    for tx in txs:
        gas = tx.gas or 0
        if gas > room:
            yield block
            block, room = [], _BLOCK_GAS
        block.append(tx)
        room -= gas
    if block:
        yield block


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _delegate_credit(
    evm: Evm, deployment: Deployment, seeder: str, borrows: Sequence[tuple[SeedAccount, Holding]]
) -> None:
    words = [
        (
            deployment.asset(holding.symbol).v_token,
            _mapping_slot(_mapping_slot(_BORROW_ALLOWANCES_SLOT, account.address), seeder),
            holding.amount_raw,
        )
        for account, holding in borrows
    ]
    for chunk in _chunks(words, _REQUESTS_PER_BATCH):
        evm.set_storage_many(chunk)
    account, holding = borrows[0]
    allowance = _BORROW_ALLOWANCE.call(deployment.asset(holding.symbol).v_token, account.address, seeder)
    if read(evm, allowance) != holding.amount_raw:
        raise DataError("the debt token keeps its allowances elsewhere than expected")


def _mapping_slot(slot: int, key: str) -> int:
    """Return where Solidity keeps ``mapping(address => …)`` at `slot` for `key`."""
    return int.from_bytes(keccak(abi_encode(["address", "uint256"], [key, slot])))


@dataclass(frozen=True, slots=True)
class SeededState:
    """A market with a book, as a state file.

    Attributes
    ----------
    path
        State file for `AnvilOptions.load_state`.
    deployment
        Addresses of the market.
    book
        The accounts in it.
    built
        Whether it was built now, and not found in the cache.
    morpho_book
        The accounts in Morpho's markets.
    """

    path: Path
    deployment: Deployment
    book: tuple[SeedAccount, ...]
    built: bool
    morpho_book: tuple[MorphoSeedAccount, ...] = ()


def load_or_build(
    accounts: int = 200,
    seed: int = 0,
    *,
    market: MarketSpec = DEFAULT_MARKET,
    genesis: int = GENESIS,
    morpho_accounts: int = 0,
    progress: Progress | None = None,
) -> SeededState:
    """Return a market with a seeded book, from the cache when the same was built before.

    Parameters
    ----------
    accounts, seed
        The book on Aave; see `draw_book`.
    market
        What is deployed.
    genesis
        Unix time of the first block.
    morpho_accounts
        Borrowers over the market's Morpho markets; see `draw_morpho_book`.
    progress
        Told what is done, and which part of it.

    Raises
    ------
    InputError
        If a number is out of its range.
    ToolError
        If node or artifacts are not installed.
    """
    book = draw_book(market, accounts, seed)
    morpho_book = draw_morpho_book(market, morpho_accounts, seed)
    key = _state_key(market, accounts, seed, [genesis, morpho_accounts])
    folder = cache_dir() / "state"
    state, addresses = folder / f"{key}.json", folder / f"{key}.deployment.json"
    if state.is_file() and addresses.is_file():
        os.utime(state)
        found = Deployment.from_json(addresses.read_text("utf-8"))
        return SeededState(state, found, book, built=False, morpho_book=morpho_book)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{key}.{os.getpid()}.json"
    try:
        deployment = _build(unfinished, market, genesis, book, morpho_book, progress or _silent)
        write_atomically(addresses, deployment.to_json().encode())
        unfinished.replace(state)
    finally:
        unfinished.unlink(missing_ok=True)
    _forget_old_states(folder)
    return SeededState(state, deployment, book, built=True, morpho_book=morpho_book)


def _forget_old_states(folder: Path) -> None:
    """Keep the states used last, since each change of contracts or parameters leaves one behind.

    What a build that was killed left unfinished goes too.
    """
    for path in folder.glob(".*"):
        if (found := _UNFINISHED.match(path.name)) and not _runs(int(found["pid"])):
            path.unlink(missing_ok=True)
    states = {path: path.stat().st_mtime for path in folder.glob("[0-9]*.json") if path.suffixes == [".json"]}
    for path in sorted(states, key=lambda path: states[path], reverse=True)[_STATES_KEPT:]:
        path.unlink(missing_ok=True)
        path.with_suffix(".deployment.json").unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it runs
        pass
    return True


def _build(
    state: Path,
    market: MarketSpec,
    genesis: int,
    book: Sequence[SeedAccount],
    morpho_book: Sequence[MorphoSeedAccount],
    report: Progress,
) -> Deployment:
    """Build the market and open the book, in sessions that bound the node's memory."""
    options = AnvilOptions(timestamp=genesis, gas_limit=_BLOCK_GAS, dump_state=state)
    sessions = list(_chunks(book, _ACCOUNTS_PER_SESSION))
    report("deploying", 0.0)
    for number, part in enumerate(sessions):
        with Anvil.start(options) as node:
            evm = node.evm()
            if number == 0:
                deployment = deploy_market(evm, market)
                seeder = _prepare(evm, deployment, book)

            def report_session(what: str, done: float, number: int = number) -> None:
                report(what, (number + done) / len(sessions))

            _open_accounts(evm, deployment, seeder, part, report_session)
            if number == len(sessions) - 1 and deployment.morpho is not None:
                open_morpho_book(evm, deployment, morpho_book, report)
        drop_traces(state)
        options = replace(options, load_state=state)
    return deployment


def drop_traces(state: Path) -> None:
    """Take the call traces out of a state file, which are nine tenths of it and which nothing here reads.

    Blocks, receipts and logs stay; only tracing of transactions before the dump is lost.
    """
    compact = state.with_suffix(".compact")
    with (
        state.open("rb") as source,
        mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as text,
        compact.open("wb") as target,
    ):
        position = 0
        while (start := text.find(_TRACES_OPEN, position)) >= 0:
            target.write(text[position : start + len(_TRACES_OPEN)])
            # Traces hold numbers, names and hexadecimal, so nothing in them looks like their end.
            position = text.find(_TRACES_CLOSE, start)
            if position < 0:
                raise DataError(f"{state} is not a state file of an anvil known here")
        target.write(text[position:])
    compact.replace(state)


def _state_key(market: MarketSpec, accounts: int, seed: int, rest: Sequence[int]) -> str:
    """Return a name that changes with everything that the state is made of."""
    digest = hashlib.sha256()
    for source in (*sorted(VYPER_SOURCES.glob("*.vy")), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    spec = [market.to_json(), *rest, anvil_version(locate_anvil())]
    digest.update(json.dumps(spec, sort_keys=True).encode())
    return f"{accounts}-{seed}-{digest.hexdigest()[:16]}"
