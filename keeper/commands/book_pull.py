"""`marginline book pull`: read a market and its borrowers from a chain at one block."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak
from rich.progress import Progress, TaskID

from contracts_abi.aave_v3 import POOL_REVISION
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError, RpcError, UnknownNameError
from contracts_abi.multicall import MULTICALL3_ADDRESS
from keeper.commands.book import form_option, require_known, require_own_book, tell_written
from keeper.commands.console import (
    progress_bar,
    stderr_console,
)
from keeper.commands.keeper_init import deployment_block
from keeper.commands.keeper_setup import endpoint_option
from keeper.compose import chain_id_of, check_code
from keeper.rpc import Head, Node
from keeper.sync import Discovery, MemoryScanStore
from simulation.book.bounds import AAVE_V3, AAVE_V3_6, MORPHO_BLUE
from simulation.book.dump import save_book
from simulation.book.from_chain import Pulled, aave_book, morpho_book, pool_exits
from simulation.chain.artifacts import own
from simulation.chain.rpc import masked
from simulation.protocols import aave_v3, aave_v3_6, morpho_blue
from simulation.protocols.aave_v3.layout import Staged

PULLED: Final = (AAVE_V3, AAVE_V3_6, MORPHO_BLUE)
"""Protocols whose markets `book pull` reads."""

FIRST_V3_6_REVISION: Final = 10
"""`POOL_REVISION` of the V3.6 release; those below have the rules of V3 here."""

_LENS: Final = to_checksum_address(keccak(text="marginline: AccountLens of book pull")[12:])
_READS_PER_ROUND: Final = 100

R = TypeVar("R")
Adapter: TypeAlias = aave_v3.AaveV3 | aave_v3_6.AaveV36 | morpho_blue.MorphoBlue


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a book is read: a node, a block, and the code that is pretended there."""

    node: Node
    head: Head
    chain_id: int
    code: Mapping[str, bytes] | None = None

    def execute(self, calls: Sequence[Call[Any]]) -> list[bytes | None]:
        """Run reads at the block, by its hash, some at a time: answers of the lens are large."""
        answers: list[bytes | None] = []
        for at in range(0, len(calls), _READS_PER_ROUND):
            answers += self.node.read(calls[at : at + _READS_PER_ROUND], self.head, code=self.code)
        return answers

    def run(self, staged: Staged[R]) -> R:
        """Drive staged reads to their value."""
        return aave_v3.run_stages(staged, self.execute)

    @property
    def words(self) -> str:
        """What the book says of where it comes from."""
        return f"chain {self.chain_id} block {self.head.number} hash {self.head.block_hash}"


def pull(
    *,
    protocol: str,
    rpc_url: str,
    out: Path,
    block: int | None,
    provider: str | None,
    morpho: str | None,
    market: str | None,
    pools: Sequence[str],
    prices: Sequence[str],
    from_block: int | None,
    range_blocks: int,
    name: str | None,
    form: str | None,
    as_json: bool,
) -> None:
    """Read a market and all of its borrowers at one block into a book file; see the command's help.

    Raises
    ------
    CheckFailed
        If accounts could not be read; the book is written, and names them.
    """
    written_as = form_option(form)
    if protocol not in PULLED:
        raise UnknownNameError("protocol in --protocol", protocol, PULLED)
    _check_options(protocol, provider, morpho, market, prices)
    require_own_book(out, written_as)
    _, endpoint = endpoint_option(rpc_url)
    node = Node.connect(endpoint.reveal(), timeout_s=60.0)
    chain_id = chain_id_of(node, "--rpc", masked(endpoint.reveal()))
    head = node.head() if block is None else node.block(block)
    if head is None:
        raise InputError(
            f"--block: the chain has no block {block}", fix=f"its newest is {node.head().number}"
        )
    source = _Source(node, head, chain_id)
    adapter, contract = _adapter(source, protocol, provider, morpho, market)
    accounts = _borrowers(source, adapter, contract, from_block, range_blocks)
    console = stderr_console()
    with console.status("positions"):
        pulled = _read(source, adapter, accounts, prices, name)
    book = pulled.book
    if pools:
        by_address = {pulled.addresses[token.symbol]: token for token in book.tokens}
        named = [_address(pool, "--pools") for pool in pools]
        exits = pool_exits(named, by_address, timestamp=head.timestamp, source=source.words)
        book = replace(book, exits=source.run(exits))
    files = save_book(book, out, written_as)
    tell_written(book, files, pulled.notes, as_json)
    require_known(book)


def _check_options(
    protocol: str, provider: str | None, morpho: str | None, market: str | None, prices: Sequence[str]
) -> None:
    is_morpho = protocol == MORPHO_BLUE
    wanted = {"--morpho": morpho, "--market": market} if is_morpho else {"--provider": provider}
    foreign = {"--provider": provider} if is_morpho else {"--morpho": morpho, "--market": market}
    for option, value in wanted.items():
        if value is None:
            raise InputError(f"--protocol {protocol} goes with {option}", fix=f"give {option}")
    for option, value in foreign.items():
        if value is not None:
            raise InputError(f"{option} does not go with --protocol {protocol}", fix="leave it out")
    if prices and not is_morpho:
        raise InputError(
            f"--price {prices[0]}: {protocol} has an oracle of its own",
            fix=f"leave it out, or use {MORPHO_BLUE}",
        )


def _address(text: str, option: str) -> str:
    if not is_address(text):
        raise InputError(f"{option}: {text!r} is not an address", fix="give 0x and 40 hex digits")
    return str(to_checksum_address(text))


def _adapter(
    source: _Source, protocol: str, provider: str | None, morpho: str | None, market: str | None
) -> tuple[Adapter, str]:
    """Return the market, and the contract whose logs tell its borrowers."""
    if protocol == MORPHO_BLUE:
        contract = _address(morpho or "", "--morpho")
        check_code(source.node, {"--morpho": contract})
        try:
            layout = source.run(morpho_blue.discover_layout(contract, market or ""))
        except (DataError, InputError) as error:
            raise InputError(f"--market: {error.message}", fix=error.fix or "check both options") from None
        return morpho_blue.MorphoBlue(layout), contract
    address = _address(provider or "", "--provider")
    check_code(source.node, {"--provider": address})
    try:
        found = source.run(aave_v3.discover_layout(address))
    except DataError as error:
        raise InputError(
            f"--provider: {address} does not lead to an Aave V3 market: {error.message}",
            fix="give the address of its PoolAddressesProvider, and a block at which it was there",
        ) from None
    _check_revision(source, protocol, found.pool)
    kind = aave_v3_6.AaveV36 if protocol == AAVE_V3_6 else aave_v3.AaveV3
    return kind(found), found.pool


def _check_revision(source: _Source, protocol: str, pool: str) -> None:
    """Refuse a pool of the other version: its numbers would be read wrong, and not by much."""
    call = POOL_REVISION.call(pool)
    (answer,) = source.execute([call])
    if answer is None:
        return
    revision = int(call.decode(answer))
    right = AAVE_V3_6 if revision >= FIRST_V3_6_REVISION else AAVE_V3
    if protocol != right:
        raise InputError(
            f"--protocol {protocol}: the pool {pool} is of revision {revision}",
            fix=f"give --protocol {right}",
        )


def _borrowers(
    source: _Source, adapter: Adapter, contract: str, from_block: int | None, range_blocks: int
) -> tuple[str, ...]:
    """Return all who ever borrowed, from logs up to the block."""
    first = deployment_block(source.node, contract, source.head) if from_block is None else from_block
    discovery = Discovery(
        source.node,
        MemoryScanStore(),
        adapter,
        contract,
        from_block=first,
        range_blocks=range_blocks,
    )
    with progress_bar(stderr_console()) as bar:
        task = bar.add_task("borrowers", total=1)
        discovery.advance(source.head, functools.partial(_show, bar, task))
    return discovery.borrowers


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _read(
    source: _Source, adapter: Adapter, accounts: Sequence[str], prices: Sequence[str], name: str | None
) -> Pulled:
    at = {"block": source.head.number, "timestamp": source.head.timestamp}
    if isinstance(adapter, morpho_blue.MorphoBlue):
        loan = _loan_price(prices, adapter.layout.loan.symbol)
        return source.run(
            morpho_book(adapter, accounts, **at, source=source.words, loan_price=loan, venue=name or "")
        )

    def of(chosen: Any, through: _Source) -> Pulled:
        return through.run(aave_book(chosen, accounts, **at, source=source.words, venue=name or "aave"))

    lens = replace(adapter, layout=replace(adapter.layout, lens=_LENS))
    try:
        return of(lens, replace(source, code={_LENS: own("AccountLens").deployed_bytecode}))
    except RpcError:
        # A node without state overrides. The same positions by Multicall3 where it is, else word by word.
        there = bool(source.node.code([MULTICALL3_ADDRESS])[0])
        plain = replace(adapter.layout, multicall=MULTICALL3_ADDRESS if there else "")
        return of(replace(adapter, layout=plain), source)


def _loan_price(prices: Sequence[str], loan: str) -> float | None:
    found = None
    for text in prices:
        symbol, _, value = text.partition("=")
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not (math.isfinite(found) and found > 0):
            raise InputError(f"--price: {text!r} is not SYMBOL=DOLLARS", fix=f"for example {loan}=1")
        if symbol != loan:
            raise InputError(f"--price {text}: the market lends {loan}", fix=f"give {loan}=DOLLARS")
    return found
