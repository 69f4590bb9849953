"""Positions as rows that a file writes, inline or in a table, and the columns that they become."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from contracts_abi.errors import InputError
from simulation.book.bounds import require_known
from simulation.book.tables import COLUMNS, MOST, SIDES, BookFile
from simulation.book.types import (
    USD,
    LendingColumns,
    OptionColumns,
    PerpColumns,
    SharedBook,
)
from simulation.portfolio.load import unix_time
from simulation.types import Float64, Int8, Int32

MAX_ROWS: Final = 10_000_000
"""Of a table of positions."""

_REQUIRED: Final = ("wallet", "venue", "token", "side", "amount")
_NUMBERS: Final = ("amount", "emode", "entry", "strike", "expiry", "volatility")


@dataclass(frozen=True, slots=True)
class Rows:
    """Positions as they are written: names as codes into their dictionaries, numbers as columns.

    Attributes
    ----------
    labels
        What messages call a row: a table's name, or one text for each row.
    names
        Of ``wallet``, ``venue``, ``token`` and ``side``: the values in order of first use, and their codes.
    numbers
        Of each column of `_NUMBERS`; NaN where the cell is empty.
    """

    labels: tuple[tuple[int, str | Sequence[str]], ...] = ()
    names: Mapping[str, tuple[tuple[str, ...], Int32]] = field(default_factory=dict)
    numbers: Mapping[str, Float64] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(count for count, _ in self.labels)

    def label(self, row: int) -> str:
        """Return what a message calls a row."""
        for count, labels in self.labels:
            if row < count:
                return f"{labels}: row {row + 1}" if isinstance(labels, str) else labels[row]
            row -= count
        raise IndexError(row)

    def joined(self, other: Rows) -> Rows:
        """Return these rows and behind them others."""
        if not len(self):
            return other
        if not len(other):
            return self
        names = {}
        for column, (mine, codes) in self.names.items():
            theirs, more = other.names[column]
            values = tuple(dict.fromkeys((*mine, *theirs)))
            at = {value: i for i, value in enumerate(values)}
            moved = np.array([at[value] for value in theirs], dtype=np.int32)
            names[column] = values, np.concatenate([codes, moved[more]])
        numbers = {c: np.concatenate([self.numbers[c], other.numbers[c]]) for c in _NUMBERS}
        return Rows((*self.labels, *other.labels), names, numbers)


def inline_rows(file: BookFile, where: str) -> Rows:
    labels: list[str] = []
    texts: list[tuple[str, str, str, str]] = []
    numbers: list[tuple[float, ...]] = []
    margin_tokens = {table.name: table.margin_token for table in file.perps}
    lends = {table.name for table in file.lending}
    nan = float("nan")
    seen: dict[tuple[str, str], int] = {}
    for i, account in enumerate(file.account):
        at = f"{where}: account.{i}"
        named = f"{at} ({account.wallet} on {account.venue})"
        require_known("venue", account.venue, [*lends, *margin_tokens], f"{at} ({account.wallet})")
        before = seen.setdefault((account.wallet, account.venue), i)
        if before != i:
            raise InputError(
                f"{at}: {account.wallet} on {account.venue} stands at account.{before} already",
                fix="put both into one",
            )
        strange = ("margin", "perp") if account.venue in lends else ("collateral", "debt", "emode")
        for key in strange:
            if getattr(account, key):
                raise InputError(f"{named}: {key} where there is none", fix="leave it out")
        if not (account.collateral or account.debt or account.perp or account.margin is not None):
            raise InputError(f"{named}: holds and owes nothing", fix="remove it")
        emode = float(account.emode) if account.emode else nan
        for side, held in (("collateral", account.collateral), ("debt", account.debt)):
            for token, amount in held.items():
                texts.append((account.wallet, account.venue, token, side))
                numbers.append((amount, emode, nan, nan, nan, nan))
                labels.append(f"{named}: {side}.{token}")
        if account.margin is not None:
            texts.append((account.wallet, account.venue, margin_tokens[account.venue], "margin"))
            numbers.append((account.margin, nan, nan, nan, nan, nan))
            labels.append(f"{named}: margin")
        for token, perp in account.perp.items():
            texts.append((account.wallet, account.venue, token, "perp"))
            numbers.append((perp.size, nan, perp.entry, nan, nan, nan))
            labels.append(f"{named}: perp.{token}")
    for i, option in enumerate(file.option):
        texts.append((option.wallet, "", option.token, "call" if option.call else "put"))
        numbers.append((option.size, nan, nan, option.strike, option.expiry, option.volatility))
        labels.append(f"{where}: option.{i}")
    if not texts:
        return Rows()
    columns = zip(("wallet", "venue", "token", "side"), zip(*texts, strict=True), strict=True)
    matrix = np.array(numbers, dtype=np.float64)
    return Rows(
        ((len(labels), labels),),
        {column: _coded(pa.array(values, pa.string())) for column, values in columns},
        {column: matrix[:, k] for k, column in enumerate(_NUMBERS)},
    )


def _coded(values: Any) -> tuple[tuple[str, ...], Int32]:
    """Return the different texts of an arrow column in order of first use, and each row's place in them."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    coded = pc.fill_null(values, "").dictionary_encode()
    return tuple(coded.dictionary.to_pylist()), coded.indices.to_numpy().astype(np.int32)


def table_rows(content: bytes, name: str) -> Rows:
    """Return the rows of a CSV or Parquet; columns are described in `COLUMNS`."""
    table = _read_table(content, name)
    seen: set[str] = set()
    for column in table.column_names:
        require_known("column", column, COLUMNS, name)
        if column in seen:
            raise InputError(f"{name}: the column {column!r} stands twice", fix="remove one")
        seen.add(column)
    for column in _REQUIRED:
        if column not in seen:
            raise InputError(f"{name}: no column {column!r}", fix=COLUMNS[column].replace("`", ""))
    if table.num_rows > MAX_ROWS:
        raise InputError(f"{name}: {table.num_rows:,} rows, at most {MAX_ROWS:,}", fix="split the book")
    names = {}
    for column in ("wallet", "venue", "token", "side"):
        try:
            names[column] = _coded(table.column(column).cast(pa.string()))
        except pa.ArrowException:
            raise InputError(f"{name}: the column {column!r} is no text", fix="write text") from None
    numbers = {
        column: (
            _numbers(table.column(column), column, name)
            if column in seen
            else np.full(table.num_rows, np.nan)
        )
        for column in _NUMBERS
    }
    return Rows(((table.num_rows, name),) if table.num_rows else (), names, numbers)


def _read_table(content: bytes, name: str) -> Any:
    suffix = Path(name).suffix.lower()
    try:
        if suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(io.BytesIO(content))
        if suffix == ".csv":
            from pyarrow import csv

            # As text, so that a cell which is no number can be named with its row.
            types = csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))
            # A name may have a line's end in it.
            lines = csv.ParseOptions(newlines_in_values=True)
            return csv.read_csv(io.BytesIO(content), parse_options=lines, convert_options=types)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: cannot be read: {error}", fix="write it anew") from None
    raise InputError(f"{name}: is of no known format", fix="name it .csv or .parquet")


def _numbers(column: Any, name: str, file: str) -> Float64:
    """Return a column as float64, NaN for an empty cell."""
    if not pa.types.is_string(column.type):
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException:
            raise InputError(
                f"{file}: the column {name!r} is of {column.type}", fix="write numbers"
            ) from None
    # Null instead of empty: arrow reads no number from an empty text.
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    try:
        return np.asarray(text.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        out = np.full(len(text), np.nan)
        for i, cell in enumerate(text.to_pylist()):
            try:
                out[i] = np.nan if cell is None else unix_time(cell) if name == "expiry" else float(cell)
            except (ValueError, InputError):
                raise InputError(
                    f"{file}: row {i + 1}, {name}: {cell[:60]!r} is no number",
                    fix="write a plain decimal such as 1234.5",
                ) from None
        return out


# -------------------------------------------------------------------------------------------------- columns


_I32 = np.empty(0, dtype=np.int32)
NO_POSITIONS: Final = LendingColumns(_I32, _I32, _I32, np.empty(0, np.int8), np.empty(0), _I32)
"""Lending positions of nobody."""


def assembled(market: SharedBook, rows: Rows, first: tuple[str, ...], where: str) -> SharedBook:
    """Return the market with the positions that `rows` write; the wallets `first` come first."""
    if not len(rows):
        return replace(market, wallets=first)
    named, codes = rows.names["wallet"]
    wallets = tuple(dict.fromkeys((*first, *named)))
    at = {name: i for i, name in enumerate(wallets)}
    wallet = np.array([at[name] for name in named], dtype=np.int32)[codes]
    side = _known_codes(rows, "side", SIDES)
    tokens = [*(token.symbol for token in market.tokens), USD]
    token = _known_codes(rows, "token", tokens)
    _finite(rows, rows.numbers["amount"], "amount", np.ones(len(rows), dtype=np.bool_))
    for row in np.flatnonzero((token == len(tokens) - 1) & (side != SIDES.index("margin")))[:1]:
        raise InputError(f"{rows.label(row)}: {USD} is no token", fix="name a stable")
    for row in [i for i, name in enumerate(wallets) if not name][:1]:
        raise InputError(f"{rows.label(int(np.flatnonzero(wallet == row)[0]))}: no wallet", fix="name it")
    lends, is_perp = side <= SIDES.index("debt"), (side == SIDES.index("perp"))
    is_margin, is_option = side == SIDES.index("margin"), side >= SIDES.index("call")
    lending = _known_codes(rows, "venue", [venue.name for venue in market.lending], lends)
    perps = _known_codes(rows, "venue", [venue.name for venue in market.perps], is_perp | is_margin)
    _empty(rows, "emode", ~lends)
    _empty(rows, "entry", ~is_perp)
    for column in ("strike", "expiry", "volatility"):
        _empty(rows, column, ~is_option)
    return SharedBook(
        tokens=market.tokens,
        lending=market.lending,
        wallets=wallets,
        positions=_lending_columns(market, rows, wallets, wallet, lending, token, side, lends),
        perps=market.perps,
        perp_positions=_perp_columns(market, rows, wallet, perps, token, is_perp, is_margin),
        options=_option_columns(rows, wallet, token, side, is_option),
        exits=market.exits,
        block=market.block,
        timestamp=market.timestamp,
        source=market.source,
        unknown=market.unknown,
    )


def _known_codes(rows: Rows, column: str, known: Sequence[str], of: Any = None) -> Int32:
    """Return each row's place in `known`, -1 where `of` is False; a name that is not known is refused."""
    values, codes = rows.names[column]
    at = {name: i for i, name in enumerate(known)}
    place = np.array([at.get(value, -1) for value in values], dtype=np.int32)[codes]
    if of is not None:
        place = np.where(of, place, np.int32(-1))
    unknown = place < 0 if of is None else (place < 0) & of
    for row in np.flatnonzero(unknown)[:1]:
        require_known(column, values[codes[row]], known, rows.label(int(row)))
    return place.astype(np.int32)


def _finite(rows: Rows, values: Float64, column: str, of: Any, *, least: float = -MOST) -> None:
    bad = of & ~(np.isfinite(values) & (np.abs(values) <= MOST) & (values > least))
    for row in np.flatnonzero(bad)[:1]:
        got = "is missing" if np.isnan(values[row]) else f"{values[row]:g} is not above {least:g}"
        if (np.isfinite(values[row]) and values[row] > least) or values[row] == np.inf:
            got = f"{values[row]:g} is too large"
        raise InputError(
            f"{rows.label(int(row))}, {column}: {got}", fix=COLUMNS[column].replace("`", "").rstrip(".")
        )


def _empty(rows: Rows, column: str, of: Any) -> None:
    for row in np.flatnonzero(of & ~np.isnan(rows.numbers[column]))[:1]:
        values, codes = rows.names["side"]
        raise InputError(
            f"{rows.label(int(row))}, {column}: {rows.numbers[column][row]:g} of a {values[codes[row]]}",
            fix="leave it empty",
        )


def _twice(rows: Rows, at: Any, order: Any, keys: Sequence[Any]) -> None:
    """Refuse two rows that are equal in all `keys`, which `order` has put beside each other."""
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    for i in np.flatnonzero(same)[:1]:
        first, second = sorted((int(at[order[i]]), int(at[order[i + 1]])))
        raise InputError(
            f"{rows.label(second)}: the same wallet, venue, token and side as {rows.label(first)}",
            fix="add them up in one",
        )


def _lending_columns(
    market: SharedBook,
    rows: Rows,
    wallets: Sequence[str],
    wallet: Int32,
    venue: Int32,
    token: Int32,
    side: Int8 | Int32,
    lends: Any,
) -> LendingColumns:
    at = np.flatnonzero(lends)
    amount, emode_cell = rows.numbers["amount"], rows.numbers["emode"]
    _finite(rows, amount, "amount", lends, least=0.0)
    odd = lends & ~np.isnan(emode_cell) & ((emode_cell != np.floor(emode_cell)) | (np.abs(emode_cell) > 255))
    for row in np.flatnonzero(odd)[:1]:
        raise InputError(f"{rows.label(int(row))}, emode: {emode_cell[row]:g} is no id", fix="give 1 to 255")
    emode = np.nan_to_num(emode_cell[at]).astype(np.int32)
    order = np.lexsort((token[at], side[at], wallet[at], venue[at]))
    _twice(rows, at, order, (venue[at], wallet[at], side[at], token[at]))
    made = LendingColumns(
        wallet=wallet[at][order],
        venue=venue[at][order],
        token=token[at][order],
        side=side[at][order].astype(np.int8),
        amount=amount[at][order],
        emode=emode[order],
    )
    same = (made.venue[1:] == made.venue[:-1]) & (made.wallet[1:] == made.wallet[:-1])
    for i in np.flatnonzero(same & (made.emode[1:] != made.emode[:-1]))[:1]:
        raise InputError(
            f"{rows.label(int(at[order[i + 1]]))}: {wallets[made.wallet[i]]} is in eMode {made.emode[i]} and "
            f"{made.emode[i + 1]} of {market.lending[made.venue[i]].name}",
            fix="an account has one category in a venue: write it in each of its rows",
        )
    return made


def _perp_columns(
    market: SharedBook, rows: Rows, wallet: Int32, venue: Int32, token: Int32, is_perp: Any, is_margin: Any
) -> PerpColumns:
    size, entry = rows.numbers["amount"], rows.numbers["entry"]
    _finite(rows, entry, "entry", is_perp, least=0.0)
    _finite(rows, size, "amount", is_margin, least=0.0)
    for row in np.flatnonzero(is_perp & (size == 0))[:1]:
        raise InputError(f"{rows.label(int(row))}, amount: a position of 0", fix="leave it out")
    symbols = [t.symbol for t in market.tokens]
    for row in np.flatnonzero(is_perp):
        listed = market.perps[venue[row]].maintenance_margin
        if symbols[token[row]] not in listed:
            require_known("market", symbols[token[row]], listed, rows.label(int(row)))
    for v, perp in enumerate(market.perps):
        wanted = len(symbols) if perp.margin_token == USD else symbols.index(perp.margin_token)
        for row in np.flatnonzero(is_margin & (venue == v) & (token != wanted))[:1]:
            raise InputError(
                f"{rows.label(int(row))}, token: margin of {perp.name} is posted in {perp.margin_token}",
                fix=f"write {perp.margin_token}",
            )
    at, margin_at = np.flatnonzero(is_perp), np.flatnonzero(is_margin)
    order = np.lexsort((token[at], wallet[at], venue[at]))
    _twice(rows, at, order, (venue[at], wallet[at], token[at]))
    margins = np.lexsort((wallet[margin_at], venue[margin_at]))
    _twice(rows, margin_at, margins, (venue[margin_at], wallet[margin_at]))
    pairs = set(zip(venue[margin_at].tolist(), wallet[margin_at].tolist(), strict=True))
    for row in at:
        if (int(venue[row]), int(wallet[row])) not in pairs:
            raise InputError(
                f"{rows.label(int(row))}: a position without margin on {market.perps[venue[row]].name}",
                fix="give the account its margin",
            )
    return PerpColumns(
        wallet=wallet[at][order],
        venue=venue[at][order],
        token=token[at][order],
        size=size[at][order],
        entry=entry[at][order],
        margin_wallet=wallet[margin_at][margins],
        margin_venue=venue[margin_at][margins],
        margin=size[margin_at][margins],
    )


def _option_columns(rows: Rows, wallet: Int32, token: Int32, side: Int32, is_option: Any) -> OptionColumns:
    numbers = rows.numbers
    for column in ("strike", "expiry", "volatility"):
        _finite(rows, numbers[column], column, is_option, least=0.0)
    for row in np.flatnonzero(is_option & (numbers["volatility"] >= 10))[:1]:
        raise InputError(f"{rows.label(int(row))}, volatility: {numbers['volatility'][row]:g}", fix="0.65")
    for row in np.flatnonzero(is_option & (numbers["amount"] == 0))[:1]:
        raise InputError(f"{rows.label(int(row))}, amount: a position of 0", fix="leave it out")
    values, codes = rows.names["venue"]
    for row in np.flatnonzero(is_option & (np.array([bool(v) for v in values])[codes]))[:1]:
        raise InputError(
            f"{rows.label(int(row))}, venue: {values[codes[row]]!r} of an option", fix="empty it"
        )
    at = np.flatnonzero(is_option)
    call = (side[at] == SIDES.index("call")).astype(np.int8)
    keys = (numbers["strike"][at], numbers["expiry"][at], call, token[at], wallet[at])
    order = np.lexsort(keys)
    return OptionColumns(
        wallet=wallet[at][order],
        token=token[at][order],
        expiry=numbers["expiry"][at][order],
        strike=numbers["strike"][at][order],
        size=numbers["amount"][at][order],
        volatility=numbers["volatility"][at][order],
        is_call=call[order],
    )
