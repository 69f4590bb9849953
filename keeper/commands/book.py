"""``marginline book``: read a shared book from a chain, generate one, show it and check it.

Exit codes: 0 done; 1 a book was written or read in which accounts are unknown; 2 bad input or a partial read.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak
from rich.console import Console
from rich.progress import Progress, TaskID

from contracts_abi.aave_v3 import POOL_REVISION
from contracts_abi.calls import Call
from contracts_abi.errors import CheckFailed, DataError, InputError, RpcError, UnknownNameError
from contracts_abi.multicall import MULTICALL3_ADDRESS
from keeper.commands.console import (
    counted,
    plain_table,
    print_whole,
    progress_bar,
    require_writable,
    stderr_console,
    stdout_console,
)
from keeper.commands.keeper_init import deployment_block
from keeper.commands.keeper_setup import endpoint_option
from keeper.compose import chain_id_of, check_code
from keeper.rpc import Head, Node
from keeper.sync import Discovery, MemoryScanStore
from simulation.book.bounds import AAVE_V3, AAVE_V3_6, MORPHO_BLUE
from simulation.book.dump import Form, save_book
from simulation.book.from_chain import Pulled, aave_book, morpho_book, pool_exits
from simulation.book.generate import BookSpec, fitted, generate
from simulation.book.health import lending_accounts, perp_accounts, token_prices, wallet_leverage
from simulation.book.load import load_book, origin_of
from simulation.book.merge import merge_books
from simulation.book.tables import json_schema
from simulation.book.types import SharedBook, Side
from simulation.chain.artifacts import own
from simulation.chain.rpc import masked
from simulation.protocols import aave_v3, aave_v3_6, morpho_blue
from simulation.protocols.aave_v3.layout import Staged
from simulation.types import Float64

PULLED: Final = (AAVE_V3, AAVE_V3_6, MORPHO_BLUE)
"""Protocols whose markets `book pull` reads."""

FIRST_V3_6_REVISION: Final = 10
"""`POOL_REVISION` of the V3.6 release; those below have the rules of V3 here."""

HEALTH_EDGES: Final = (0.0, 1.0, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, math.inf)
"""Bins of the picture of health factors."""

_WRITTEN: Final = re.compile(rb'schema = "shared-book/1"\norigin = "(generated from seed|chain|merged:) ')
"""How books begin that these commands write: `simulation.book.dump`, with the origin behind the schema."""

_LENS: Final = to_checksum_address(keccak(text="marginline: AccountLens of book pull")[12:])
_READS_PER_ROUND: Final = 100
_BAR: Final = 40

Adapter: TypeAlias = aave_v3.AaveV3 | aave_v3_6.AaveV36 | morpho_blue.MorphoBlue
R = TypeVar("R")


# ----------------------------------------------------------------------------------------------------- pull


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
    _tell_written(book, files, pulled.notes, as_json)
    _require_known(book)


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


def _tell_written(book: SharedBook, files: Sequence[Path], notes: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"files": [str(file) for file in files], **summary(book), "notes": list(notes)}))
        return
    console = stdout_console()
    console.print(
        f"{files[0]}: {counted(len(book.wallets), 'wallet')}, {counted(len(book.positions), 'position')}, "
        f"{origin_of(book)}",
        soft_wrap=True,
    )
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def _require_known(book: SharedBook) -> None:
    if book.unknown:
        shown = ", ".join(book.unknown[:3]) + (", …" if len(book.unknown) > 3 else "")
        raise CheckFailed(
            f"{len(book.unknown)} accounts could not be read and are unknown: {shown}",
            fix="they are listed under `unknown` in the book; their debt is in outside_debt",
        )


# ------------------------------------------------------------------------------------ generate, check, schema


def form_option(form: str | None) -> Form | None:
    """Return how positions are to be written."""
    forms: dict[str, Form] = {"inline": "inline", "csv": "csv", "parquet": "parquet"}
    if form is not None and form not in forms:
        raise UnknownNameError("form in --positions", form, forms)
    return None if form is None else forms[form]


def require_own_book(out: Path, form: Form | None) -> None:
    """Refuse a file to be written that is no book, or that these commands have not written.

    Where a book of theirs stands they write over it: pulled again, or generated by another seed. A book
    written by hand would be gone.

    Parameters
    ----------
    out
        The book's file; a table of positions has its name and another ending.
    form
        How positions are to be written; None leaves that to their number.

    Raises
    ------
    InputError
        Naming the file.
    """
    if out.suffix != ".toml":
        raise InputError(
            f"--out {out}: a book is a .toml file", fix=f"for example {out.with_suffix('.toml')}"
        )
    require_writable("--out", out)
    beside = out.with_suffix(f".{'csv' if form == 'csv' else 'parquet'}")
    there = next((file for file in (out, beside) if file.exists()), None)
    if there is not None and not _is_written(out):
        raise InputError(
            f"--out {out}: {there.name} is there, and no command of ours wrote it", fix="name another file"
        )


def _is_written(path: Path) -> bool:
    """Return whether the book in a file says of itself that it was generated, pulled or merged."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 12)
    except OSError:
        return False
    return _WRITTEN.match(head) is not None


def generate_book(
    *,
    accounts: int,
    seed: int,
    out: Path,
    market: Path | None,
    leverage: float | None,
    form: str | None,
    as_json: bool,
) -> None:
    """Write a book from a seed; see the command's help."""
    written_as = form_option(form)
    require_own_book(out, written_as)
    spec = BookSpec(accounts=accounts)
    if market is not None:
        spec = replace(spec, market=load_book(market))
    if leverage is not None:
        spec = replace(spec, mean_leverage=leverage)
    spec, dropped = fitted(spec)
    with stderr_console().status("book"):
        book = generate(spec, seed)
        files = save_book(book, out, written_as)
    notes = [f"no {name}: no venue of the market can hold them" for name in dropped]
    _tell_written(book, files, notes, as_json)


def merge(paths: Sequence[Path], *, out: Path, form: str | None, as_json: bool) -> None:
    """Write several books as one; see the command's help."""
    written_as = form_option(form)
    require_own_book(out, written_as)
    if len(paths) < 2:
        raise InputError(f"{len(paths)} book to merge", fix="name two or more")
    book = merge_books([load_book(path) for path in paths], [str(path) for path in paths])
    files = save_book(book, out, written_as)
    _tell_written(book, files, (), as_json)
    _require_known(book)


def check(path: Path, *, as_json: bool) -> None:
    """Say whether a book is one; bad input is an error on one line."""
    book = load_book(path)
    if as_json:
        print(json.dumps(summary(book)))
    else:
        print(
            f"{path}: {counted(len(book.wallets), 'wallet')} on "
            f"{counted(len(book.lending) + len(book.perps), 'venue')}, in order"
        )
    _require_known(book)


def schema() -> None:
    """Print the JSON Schema of book files."""
    print(json.dumps(json_schema(), indent=2))


# ----------------------------------------------------------------------------------------------------- show


def summary(book: SharedBook) -> dict[str, Any]:
    """Return a book's totals as plain data; dollars and tokens at the book's prices."""
    accounts, perps = lending_accounts(book), perp_accounts(book)
    assets, leverage = wallet_leverage(book)
    lends = ~np.isnan(leverage)
    venues = []
    for v, venue in enumerate(book.lending):
        mine = accounts.venue == v
        venues.append(
            {
                "name": venue.name,
                "kind": venue.kind,
                "accounts": int(mine.sum()),
                "collateral_usd": float(accounts.collateral[mine].sum()),
                "debt_usd": float(accounts.debt[mine].sum()),
                "below_1": int((accounts.health_factor[mine] < 1).sum()),
                "tokens": _reserves(book, v),
            }
        )
    for v, perp in enumerate(book.perps):
        mine = perps.venue == v
        venues.append(
            {
                "name": perp.name,
                "kind": "perpetuals",
                "accounts": int(mine.sum()),
                "equity_usd": float(perps.equity[mine].sum()),
                "notional_usd": float(perps.notional[mine].sum()),
                "below_maintenance": int((perps.equity[mine] < perps.maintenance[mine]).sum()),
            }
        )
    owing = accounts.debt > 0
    counts, _ = np.histogram(accounts.health_factor[owing], HEALTH_EDGES)
    finite = leverage[lends & np.isfinite(leverage)]
    equity = float(accounts.collateral.sum() - accounts.debt.sum())
    return {
        "block": book.block,
        "timestamp": book.timestamp,
        "source": book.source,
        "wallets": len(book.wallets),
        "positions": len(book.positions),
        "unknown": list(book.unknown),
        "venues": venues,
        "leverage": {
            "mean": float(finite.mean()) if len(finite) else None,
            "median": float(np.median(finite)) if len(finite) else None,
            "of_all": float(accounts.collateral.sum()) / equity if equity > 0 else None,
            "largest_tenth": _largest_tenth(assets[lends], leverage[lends]),
            "without_equity": int(np.isinf(leverage).sum()),
        },
        "health_factor": [
            {"from": low, "to": high if math.isfinite(high) else None, "accounts": int(count)}
            for low, high, count in zip(HEALTH_EDGES, HEALTH_EDGES[1:], counts, strict=False)
        ],
        "exits": [
            {"token": e.token, "quote": e.quote, "venue": e.venue, "date": e.date, "points": len(e.size)}
            for e in book.exits
        ],
    }


def _largest_tenth(assets: Float64, leverage: Float64) -> float | None:
    finite = np.isfinite(leverage)
    order = np.argsort(assets[finite], kind="stable")
    tail = leverage[finite][order][-max(len(order) // 10, 1) :]
    return float(tail.mean()) if len(tail) else None


def _reserves(book: SharedBook, v: int) -> list[dict[str, Any]]:
    rows, index, prices = book.positions, book.token_index(), token_prices(book)
    found = []
    for reserve in book.lending[v].reserves:
        t = index[reserve.token]
        here = (rows.venue == v) & (rows.token == t)
        held = float(rows.amount[here & (rows.side == Side.COLLATERAL)].sum())
        owed = float(rows.amount[here & (rows.side == Side.DEBT)].sum())
        found.append(
            {
                "token": reserve.token,
                "price_usd": float(prices[t]),
                "collateral": held,
                "debt": owed,
                "outside_debt": reserve.outside_debt,
                "idle_supply": reserve.idle_supply,
                "ltv_bps": reserve.ltv_bps,
                "liquidation_threshold_bps": reserve.liquidation_threshold_bps,
            }
        )
    return found


def show(path: Path, *, as_json: bool) -> None:
    """Print what is in a book: venues, tokens, totals, leverage, health factors."""
    book = load_book(path)
    found = summary(book)
    if as_json:
        print(json.dumps(found))
    else:
        _print_summary(stdout_console(), found)
    _require_known(book)


def _print_summary(console: Console, found: Mapping[str, Any]) -> None:
    console.print(
        f"{counted(found['wallets'], 'wallet')}, {counted(found['positions'], 'lending position')}, "
        f"block {found['block']}"
    )
    console.print(found["source"], soft_wrap=True, markup=False)
    table = plain_table("venue", "kind", "accounts", "collateral $", "debt $", "below 1", right=_NUMBERS)
    for venue in found["venues"]:
        is_perp = venue["kind"] == "perpetuals"
        table.add_row(
            venue["name"],
            venue["kind"],
            f"{venue['accounts']:,}",
            f"{venue['equity_usd' if is_perp else 'collateral_usd']:,.0f}",
            f"{venue['notional_usd' if is_perp else 'debt_usd']:,.0f}",
            f"{venue['below_maintenance' if is_perp else 'below_1']:,}",
        )
    print_whole(console, table)
    if any(venue["kind"] == "perpetuals" for venue in found["venues"]):
        console.print("of perpetuals: equity, notional, and accounts below maintenance margin", style="dim")
    tokens = plain_table(*_TOKEN_COLUMNS, right=_TOKEN_COLUMNS[2:])
    for venue in found["venues"]:
        for token in venue.get("tokens", ()):
            amounts = (f"{token[key]:,.2f}" for key in ("collateral", "debt", "idle_supply"))
            limits = f"{token['ltv_bps'] / 100:g}/{token['liquidation_threshold_bps'] / 100:g}"
            tokens.add_row(venue["name"], token["token"], f"{token['price_usd']:,.2f}", *amounts, limits)
    print_whole(console, tokens, key=2)
    leverage = found["leverage"]
    if leverage["mean"] is not None:
        parts = [
            f"{word} {leverage[key]:.2f}" for key, word in _LEVERAGE.items() if leverage[key] is not None
        ]
        console.print(f"leverage, assets over equity: {', '.join(parts)}")
    if leverage["without_equity"]:
        console.print(f"{leverage['without_equity']:,} wallets owe no less than they have")
    for line in health_picture(found["health_factor"]):
        console.print(line, markup=False)
    for exit_ in found["exits"]:
        told = f"{exit_['points']} sizes, {exit_['date']}"
        console.print(f"exit {exit_['token']} to {exit_['quote']}: {exit_['venue']}, {told}", markup=False)


_NUMBERS: Final = ("accounts", "collateral $", "debt $", "below 1")
_TOKEN_COLUMNS: Final = (
    "venue",
    "token",
    "price $",
    "collateral",
    "debt",
    "others' supply",
    "LTV/threshold %",
)
_LEVERAGE: Final = {
    "mean": "mean",
    "median": "median",
    "of_all": "of all together",
    "largest_tenth": "of the largest tenth",
}


def health_picture(bins: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a bar for each bin of health factors of accounts that owe; none when nobody does."""
    most = max((row["accounts"] for row in bins), default=0)
    if not most:
        return []
    lines = ["health factors of accounts that owe"]
    for row in bins:
        name = f"{row['from']:g} to {row['to']:g}" if row["to"] is not None else f"{row['from']:g} and more"
        bar = "█" * math.ceil(_BAR * row["accounts"] / most)
        lines.append(f"{name:>13}  {row['accounts']:>9,}  {bar}".rstrip())
    return lines
