"""A shared book as files: ``shared-book/1`` as TOML, its positions inline or in a CSV or Parquet beside it.

`load_book` reads what `simulation.book.dump` writes, and what people write by hand; docs/book.md shows the
format by example. What is wrong is told in one line that names the file, the place, the value and the fix.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from contracts_abi.errors import InputError, MarginlineError
from simulation.book.bounds import MORPHO_BLUE, check_book, morpho_bonus_bps
from simulation.book.exits import checked_exit, table_of_csv, table_of_model
from simulation.book.rows import NO_POSITIONS, assembled, inline_rows, table_rows
from simulation.book.tables import BookFile, ExitTable, LendingTable, PerpVenueTable, ReserveTable, TokenTable
from simulation.book.types import (
    Backing,
    EMode,
    ExitLiquidity,
    LendingVenue,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Token,
)

MAX_TOML_BYTES: Final = 16 * 2**20
"""Python's TOML parser takes a second for a million bytes; a book of many accounts has a table beside."""
MAX_TABLE_BYTES: Final = 2**30


def load_book(path: Path) -> SharedBook:
    """Return the book of a TOML file and of the tables that it names beside it.

    The book's `source` ends in the sha256 of the file and, behind it, of its tables in the order in which
    they are named: positions, then exits; see `origin_of`.

    Raises
    ------
    InputError
        If a file is missing, too large or no such file, or the book cannot be; see `bounds.check_book`.
    """
    return parse_book(_bytes(path, MAX_TOML_BYTES), path.name, folder=path.parent)


def parse_book(data: bytes, where: str = "book", *, folder: Path | None = None) -> SharedBook:
    """Return the book that `data` holds as TOML; see `load_book`.

    Parameters
    ----------
    data
        Bytes of the file, UTF-8.
    where
        Name of the file, for messages.
    folder
        Where the tables that it names are; without it a book that names one is refused.
    """
    if len(data) > MAX_TOML_BYTES:
        raise InputError(f"{where}: larger than {MAX_TOML_BYTES >> 20} MiB", fix=_TABLE_FIX)
    try:
        raw = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text at byte {error.start}", fix="save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not valid TOML: {error}", fix="mend the line") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: not readable TOML: {error}", fix="mend it") from None
    try:
        file = BookFile.model_validate(raw)
    except ValidationError as error:
        raise _model_error(error, where) from None
    digest = hashlib.sha256(data)
    positions, exits = b"", []
    if file.positions is not None:
        table = _beside(file.positions, folder, f"{where}: positions")
        positions = _bytes(table, MAX_TABLE_BYTES)
        digest.update(positions)
    for i, entry in enumerate(file.exit):
        exit_, content = _exit(entry, folder, f"{where}: exit.{i}")
        digest.update(content)
        exits.append(exit_)
    mark = f"sha256 {digest.hexdigest()}"
    market = SharedBook(
        tokens=tuple(_token(symbol, table) for symbol, table in file.tokens.items()),
        lending=tuple(_lending(table) for table in file.lending),
        wallets=(),
        positions=NO_POSITIONS,
        perps=tuple(_perps(table) for table in file.perps),
        exits=tuple(exits),
        block=file.block,
        timestamp=file.timestamp,
        source=f"{file.origin}; {mark}" if file.origin else mark,
        unknown=file.unknown,
    )
    # What there is before who holds it: a row is understood where its venue and token are in order.
    check_book(market, where)
    rows = inline_rows(file, where)
    if file.positions is not None:
        rows = rows.joined(table_rows(positions, file.positions))
    book = assembled(market, rows, tuple(dict.fromkeys(file.wallets)), where)
    check_book(book, where, over_limit=file.over_limit == "allow")
    return book


def origin_of(book: SharedBook) -> str:
    """Return where a book's figures come from, without the sha256 of the file that it was read from."""
    origin, mark, _ = book.source.rpartition("; sha256 ")
    return origin if mark else ("" if book.source.startswith("sha256 ") else book.source)


_TABLE_FIX: Final = 'write positions = "positions.parquet" and put the accounts there'
_FIXES: Final[Mapping[str, str]] = {
    "greater_than": "give a larger number; what is 0 is left out",
    "greater_than_equal": "give a larger number",
    "less_than_equal": "give a smaller number",
    "float_type": "give a number without quotes",
    "int_type": "give a whole number without quotes",
    "finite_number": "give a number that is finite",
    "enum": "write one of them",
    "literal_error": "write that",
    "string_type": "write it in quotes",
    "dict_type": "write a table",
    "tuple_type": "write a list",
    "model_type": "write a table",
    "model_attributes_type": "write a table",
}


def _model_error(error: ValidationError, where: str) -> InputError:
    """Return the first problem of a file's tables as one line with its fix."""
    first = error.errors(include_url=False)[0]
    at = ": ".join(filter(None, (where, ".".join(map(str, first["loc"])))))
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, MarginlineError):
        return InputError(f"{at}: {cause.message}", fix=cause.fix)
    if first["type"] == "missing":
        is_price = first["loc"][-1] == "price"
        return InputError(f"{at}: is missing", fix="give its price in US dollars" if is_price else "add it")
    value = first["input"]
    got = "" if isinstance(value, Mapping | list | tuple) else f", got {str(value)[:60]!r}"
    text = str(cause) if cause is not None else first["msg"].removeprefix("Input ")
    return InputError(f"{at}: {text}{got}", fix=_FIXES.get(first["type"], "see docs/book.md"))


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", fix="give a file that can be read") from None
    if len(data) > most:
        raise InputError(f"{path}: larger than {most >> 20} MiB", fix=_TABLE_FIX)
    return data


def _beside(name: str, folder: Path | None, where: str) -> Path:
    if folder is None:
        raise InputError(f"{where}: {name!r} is beside no file", fix="load the book from a file")
    if Path(name).name != name or name in (".", ".."):
        raise InputError(f"{where}: {name!r} is not beside the book", fix="give a name without a folder")
    return folder / name


# --------------------------------------------------------------------------------------------------- tables


def _token(symbol: str, table: TokenTable) -> Token:
    backing = table.backing
    made = None
    if backing is not None:
        made = Backing(backing.kind, backing.token, backing.rate, backing.reserve_ratio, backing.delay_s)
    return Token(symbol, table.decimals, table.price, made)


def _reserve(token: str, table: ReserveTable, kind: str) -> Reserve:
    bonus = table.liquidation_bonus_bps
    if bonus is None:
        follows = kind == MORPHO_BLUE and 0 < table.liquidation_threshold_bps < 10_000
        bonus = morpho_bonus_bps(table.liquidation_threshold_bps) if follows else 0
    rate = table.rate
    return Reserve(
        token=token,
        ltv_bps=table.ltv_bps,
        liquidation_threshold_bps=table.liquidation_threshold_bps,
        liquidation_bonus_bps=bonus,
        rate=RateCurve(rate.optimal, rate.base, rate.slope1, rate.slope2),
        protocol_fee_bps=table.protocol_fee_bps,
        reserve_factor_bps=table.reserve_factor_bps,
        idle_supply=table.idle_supply,
        reserves=table.reserves,
        outside_debt=table.outside_debt,
        supply_cap=table.supply_cap,
        borrow_cap=table.borrow_cap,
    )


def _lending(table: LendingTable) -> LendingVenue:
    return LendingVenue(
        name=table.name,
        kind=table.kind,
        reserves=tuple(_reserve(token, inner, table.kind) for token, inner in table.reserves.items()),
        emodes=tuple(
            EMode(
                e.id,
                e.tokens,
                e.ltv_bps,
                e.liquidation_threshold_bps,
                e.liquidation_bonus_bps,
                e.borrowable,
            )
            for e in table.emode
        ),
        target_reserves=table.target_reserves,
    )


def _perps(table: PerpVenueTable) -> PerpVenue:
    return PerpVenue(
        name=table.name,
        margin_token=table.margin_token,
        maintenance_margin={token: m.maintenance_margin for token, m in table.markets.items()},
        initial_margin={token: m.initial_margin for token, m in table.markets.items()},
        liquidation_fee=table.liquidation_fee,
        insurance=table.insurance,
        skew_scale={t: m.skew_scale for t, m in table.markets.items() if m.skew_scale is not None},
    )


def _exit(entry: ExitTable, folder: Path | None, where: str) -> tuple[ExitLiquidity, bytes]:
    """Return an exit, and the bytes of the table that it was read from."""
    head = (entry.token, entry.quote, entry.venue, entry.date)
    if entry.model is not None:
        return table_of_model(*head, entry.model, source=entry.source, where=where), b""
    if entry.table is not None:
        path = _beside(entry.table, folder, f"{where}.table")
        content = _bytes(path, MAX_TOML_BYTES)
        return table_of_csv(*head, content, source=entry.source or path.name, where=path.name), content
    size, slippage = np.array(entry.size), np.array(entry.slippage)
    return checked_exit(ExitLiquidity(*head, entry.source, size, slippage), where), b""


def equal_books(a: SharedBook, b: SharedBook, *, source: bool = True) -> bool:
    """Return whether two books are the same to the bit; without `source`, wherever they come from."""

    def plain(book: SharedBook) -> tuple[object, ...]:
        return (
            *(book.tokens, book.lending, book.perps, book.wallets, book.block, book.timestamp, book.unknown),
            *((book.source,) if source else ()),
            *((e.token, e.quote, e.venue, e.date, e.source) for e in book.exits),
        )

    def columns(book: SharedBook) -> Iterable[np.ndarray[Any, Any]]:
        for part in (book.positions, book.perp_positions, book.options):
            yield from (getattr(part, name) for name in part.__dataclass_fields__)
        for exit_ in book.exits:
            yield from (exit_.size, exit_.slippage)

    return plain(a) == plain(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(columns(a), columns(b), strict=True)
    )
