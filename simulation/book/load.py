"""A shared book as files: ``shared-book/1`` as TOML, its positions inline or in a CSV or Parquet beside it.

`load_book` reads what `simulation.book.dump` writes, and what people write by hand; docs/book.md shows the
format by example. What is wrong is told in one line that names the file, the place, the value and the fix.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pydantic import Field, ValidationError, field_validator, model_validator

from contracts_abi.errors import InputError, MarginlineError, UnknownNameError
from oracle.strict import StrictModel
from simulation.book.bounds import LENDING_KINDS, MORPHO_BLUE, check_book, morpho_bonus_bps, require_known
from simulation.book.exits import ExitModel, checked_exit, table_of_csv, table_of_model
from simulation.book.types import (
    USD,
    Backing,
    BackingKind,
    EMode,
    ExitLiquidity,
    LendingColumns,
    LendingVenue,
    OptionColumns,
    PerpColumns,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Token,
)
from simulation.portfolio.load import unix_time
from simulation.types import Float64, Int8, Int32

SCHEMA: Final = "shared-book/1"
MAX_TOML_BYTES: Final = 16 * 2**20
"""Python's TOML parser takes a second for a million bytes; a book of many accounts has a table beside."""
MAX_TABLE_BYTES: Final = 2**30
MAX_ROWS: Final = 10_000_000

SIDES: Final = ("collateral", "debt", "margin", "perp", "call", "put")
"""What a row of a table of positions can be."""

COLUMNS: Final[Mapping[str, str]] = {
    "wallet": "Who: an address or a name.",
    "venue": "Where, by the venue's name in the book; empty of options.",
    "token": "Symbol; of `margin` the venue's margin token.",
    "side": "`collateral`, `debt`, `margin`, `perp`, `call` or `put`.",
    "amount": "Whole tokens, above 0; of `perp`, `call` and `put` below 0 when short.",
    "emode": "Category of the account in its venue; empty for none.",
    "entry": "US dollars, of `perp`.",
    "strike": "US dollars, of `call` and `put`.",
    "expiry": "Unix seconds or ISO 8601, of `call` and `put`.",
    "volatility": "A year's, 0.65 for 65 %, of `call` and `put`.",
}
"""Column of a table of positions to what it means."""

_REQUIRED: Final = ("wallet", "venue", "token", "side", "amount")
_NUMBERS: Final = ("amount", "emode", "entry", "strike", "expiry", "volatility")
_MOST: Final = 1e30

Amount = Annotated[float, Field(strict=True, gt=0, le=_MOST, allow_inf_nan=False)]
"""Whole tokens or US dollars, above 0."""
Whole = Annotated[float, Field(strict=True, ge=0, le=_MOST, allow_inf_nan=False)]
"""Likewise, 0 or more."""
Signed = Annotated[float, Field(strict=True, ge=-_MOST, le=_MOST, allow_inf_nan=False)]
Bps = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]


class BackingTable(StrictModel):
    """What a token redeems for; see `simulation.book.types.Backing`."""

    kind: BackingKind
    token: Name
    rate: Amount = 1.0
    reserve_ratio: Amount = 1.0
    delay_s: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 0


class TokenTable(StrictModel):
    """One token: its decimals, its price, what backs it."""

    price: Amount
    decimals: Annotated[int, Field(strict=True, ge=0, le=255)] = 18
    backing: BackingTable | None = None


class RateTable(StrictModel):
    """A kinked interest curve; see `simulation.book.types.RateCurve`."""

    optimal: Amount
    base: Whole = 0.0
    slope1: Whole
    slope2: Whole


class ReserveTable(StrictModel):
    """One token of a lending venue; see `simulation.book.types.Reserve`.

    The bonus may be left out where it follows: 0 of what is no collateral, and of Morpho Blue from the LLTV.
    """

    ltv_bps: Bps = 0
    liquidation_threshold_bps: Bps = 0
    liquidation_bonus_bps: Bps | None = None
    rate: RateTable
    protocol_fee_bps: Bps = 0
    reserve_factor_bps: Bps = 0
    idle_supply: Whole = 0.0
    reserves: Whole = 0.0
    outside_debt: Whole = 0.0
    supply_cap: Amount | None = None
    borrow_cap: Amount | None = None


class EModeTable(StrictModel):
    """A category of an Aave V3 venue; see `simulation.book.types.EMode`."""

    id: Annotated[int, Field(strict=True)]
    tokens: tuple[Name, ...]
    ltv_bps: Bps
    liquidation_threshold_bps: Bps
    liquidation_bonus_bps: Bps
    borrowable: tuple[Name, ...] | None = None


class LendingTable(StrictModel):
    """A lending venue: whose rules hold, and its tokens in order."""

    name: Name
    kind: Name
    reserves: dict[str, ReserveTable]
    emode: tuple[EModeTable, ...] = ()

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in LENDING_KINDS:
            raise UnknownNameError("kind", kind, LENDING_KINDS)
        return kind


class PerpMarketTable(StrictModel):
    """Margins of one perpetual future, as parts of the notional."""

    maintenance_margin: Amount
    initial_margin: Amount
    skew_scale: Amount | None = None


class PerpVenueTable(StrictModel):
    """A venue of perpetual futures; see `simulation.book.types.PerpVenue`."""

    name: Name
    margin_token: Name
    markets: dict[str, PerpMarketTable]
    liquidation_fee: Whole = 0.0
    insurance: Whole = 0.0


class PerpPositionTable(StrictModel):
    """A position in a perpetual future: tokens, below 0 when short, and the price that it was opened at."""

    size: Signed
    entry: Amount


class AccountTable(StrictModel):
    """What a wallet has in one venue: collateral and debt, or margin and positions of perpetuals."""

    wallet: Name
    venue: Name
    emode: Annotated[int, Field(strict=True, ge=0, le=255)] = 0
    collateral: dict[str, Amount] = Field(default_factory=dict)
    debt: dict[str, Amount] = Field(default_factory=dict)
    margin: Amount | None = None
    perp: dict[str, PerpPositionTable] = Field(default_factory=dict)


class OptionTable(StrictModel):
    """A European option of a wallet; `size` in contracts of one token, below 0 when written."""

    wallet: Name
    token: Name
    expiry: float
    strike: Amount
    size: Signed
    volatility: Amount
    call: Annotated[bool, Field(strict=True)]

    @field_validator("expiry", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return _moment(value)


class ExitTable(StrictModel):
    """What selling a token costs: `size` and `slippage`, or a `table` (CSV), or a `model`."""

    token: Name
    quote: Name
    venue: Name
    date: str
    source: str = ""
    size: tuple[Amount, ...] | None = None
    slippage: tuple[Whole, ...] | None = None
    table: Name | None = None
    model: ExitModel | None = None

    @field_validator("date", mode="before")
    @classmethod
    def _iso(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value

    @model_validator(mode="after")
    def _one_of_three(self) -> ExitTable:
        given = [self.size is not None or self.slippage is not None, bool(self.table), self.model is not None]
        if sum(given) != 1 or (given[0] and (self.size is None or self.slippage is None)):
            raise InputError(
                f"the exit of {self.token} at {self.venue} gives no table, or more than one",
                fix="give size and slippage, or table, or model",
            )
        return self


class BookFile(StrictModel):
    """What a ``shared-book/1`` file holds.

    Attributes
    ----------
    schema_
        ``shared-book/1``; the key is ``schema``.
    timestamp
        When: unix seconds or a TOML date-time, UTC without a zone.
    block
        0 off chain.
    origin
        Where the figures come from, for reports.
    over_limit
        ``allow`` where accounts may owe more than they could borrow at these prices.
    tokens, lending, perps
        What there is; see the tables.
    positions
        A CSV or Parquet of positions beside this file.
    wallets
        Their order, where it is not that of their first use.
    unknown
        Accounts that could not be read when the book was pulled, as ``venue:wallet``.
    account, option, exit
        Positions and exits written here.
    """

    schema_: Literal["shared-book/1"] = Field(default="shared-book/1", alias="schema")
    timestamp: int
    block: Annotated[int, Field(strict=True, ge=0)] = 0
    origin: str = ""
    over_limit: Literal["refuse", "allow"] = "refuse"
    positions: Name | None = None
    wallets: tuple[Name, ...] = ()
    unknown: tuple[Name, ...] = ()
    tokens: dict[str, TokenTable]
    lending: tuple[LendingTable, ...] = ()
    perps: tuple[PerpVenueTable, ...] = ()
    exit: tuple[ExitTable, ...] = ()
    account: tuple[AccountTable, ...] = ()
    option: tuple[OptionTable, ...] = ()

    @field_validator("timestamp", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return _moment(value)


def _moment(value: object) -> object:
    """Return a TOML date-time, or text with one, as unix seconds; numbers as they are."""
    if isinstance(value, bool):
        raise InputError("is no time", fix="write 2026-12-25T08:00:00Z or unix seconds")
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    return unix_time(value) if isinstance(value, str) else value


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a book file, for editors and for checks of one's own."""
    return BookFile.model_json_schema(by_alias=True)


# ---------------------------------------------------------------------------------------------------- files


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
    rows = _inline_rows(file, where)
    if file.positions is not None:
        rows = rows.joined(_table_rows(positions, file.positions))
    book = _assembled(market, rows, tuple(dict.fromkeys(file.wallets)), where)
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


# ----------------------------------------------------------------------------------------------------- rows


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


def _inline_rows(file: BookFile, where: str) -> Rows:
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


def _table_rows(content: bytes, name: str) -> Rows:
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
            return csv.read_csv(io.BytesIO(content), convert_options=types)
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


def _assembled(market: SharedBook, rows: Rows, first: tuple[str, ...], where: str) -> SharedBook:
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


def _finite(rows: Rows, values: Float64, column: str, of: Any, *, least: float = -_MOST) -> None:
    bad = of & ~(np.isfinite(values) & (np.abs(values) <= _MOST) & (values > least))
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
