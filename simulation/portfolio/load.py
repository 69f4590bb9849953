"""A user's portfolios: ``margin-book/1`` as JSON, or positions as CSV or Parquet beside a market.

What is wrong with a file is told cell by cell, each in one line with file, row, column, value and fix;
nothing is guessed and nothing is left out. The columns are described in docs/margin-book.md.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from contracts_abi.bounded_json import bounded_json
from contracts_abi.errors import InputError, MarginlineError, UnknownNameError
from oracle.strict import StrictModel
from simulation.portfolio.instruments import (
    Barrier,
    Future,
    Instrument,
    Option,
    Perpetual,
    Portfolio,
    Position,
    Spot,
)
from simulation.portfolio.market import Market

SCHEMA: Final = "margin-book/1"
EXPIRY_HOUR: Final = 8
"""Hour in UTC that a date without a time means: when the venues' options and futures expire."""

COLUMNS: Final[Mapping[str, str]] = {
    "account": "Name or address; one account for the whole file without the column.",
    "type": "`spot`, `perpetual`, `future`, `option`, `barrier`, or `cash` in dollars.",
    "underlying": "Symbol, for example `ETH`; of `spot` the token. The name `asset` does as well.",
    "expiry": "ISO 8601 or unix seconds, of futures and options; a date alone means 08:00 UTC.",
    "strike": "Dollars, of options.",
    "option": "`call` or `put`, of options.",
    "inverse": "`true` where premium, margin and payoff are paid in the underlying; empty for `false`.",
    "quantity": "Signed, long above 0; units of the underlying, dollars of inverse perpetuals and futures.",
    "unrealised": "Profit and funding not paid yet, dollars, of perpetuals and futures; empty for 0.",
    "volatility": "Implied volatility of an option, 0.65 for 65 %; empty takes the market's.",
    "protocol": "Where it is held; empty when there is one place only.",
    "barrier": "Dollars, of `barrier` alone.",
}
"""Column to what it means."""

_REQUIRED: Final = ("type", "underlying", "quantity")
_DATED: Final = ("future", "option", "barrier")
_OPTIONS: Final = ("option", "barrier")
_BELONGS: Final[Mapping[str, Sequence[str]]] = {
    "expiry": _DATED,
    "strike": _OPTIONS,
    "option": _OPTIONS,
    "inverse": ("perpetual", "future", "option"),
    "unrealised": ("perpetual", "future"),
    "volatility": _OPTIONS,
    "barrier": ("barrier",),
}
"""Column to the types that have it; a value anywhere else is a mistake."""

_TYPES: Final = ("spot", "perpetual", "future", "option", "barrier", "cash")
_YES, _NO = frozenset({"true", "yes", "1"}), frozenset({"", "false", "no", "0"})
_LEAST_MS: Final = 10**11
"""A time above it is no seconds: they would be in the year 5138."""
_MOST_VOLATILITY: Final = 10.0
_MOST_NESTED: Final = 64
_MOST: Final = 1e30
"""Of any number of a book: products of two do not overflow, and no chain holds more."""


class MarginBook(StrictModel):
    """Accounts and the market that prices them: what a ``margin-book/1`` file holds.

    Attributes
    ----------
    schema_
        ``margin-book/1``; the key is ``schema``.
    market
        Prices, forwards and volatilities.
    portfolios
        One for each account, names differ.
    """

    schema_: Literal["margin-book/1"] = Field(default="margin-book/1", alias="schema")
    market: Market
    portfolios: tuple[Portfolio, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _accounts_differ(self) -> MarginBook:
        seen: set[str] = set()
        for portfolio in self.portfolios:
            if portfolio.account in seen:
                raise InputError(
                    f"two portfolios of account {portfolio.account!r}", fix="put their positions into one"
                )
            seen.add(portfolio.account)
        return self

    def account(self, name: str) -> Portfolio:
        """Return one account's portfolio.

        Raises
        ------
        UnknownNameError
            With the nearest names.
        """
        for portfolio in self.portfolios:
            if portfolio.account == name:
                return portfolio
        raise UnknownNameError("account", name, (p.account for p in self.portfolios))


@dataclass(frozen=True, slots=True)
class BadCell:
    """A cell that cannot be read.

    Attributes
    ----------
    file
        Its name.
    row
        Line of a CSV; of Parquet and frames the row, the first is 1; of JSON the path to the object.
    column
        Name of the column or key.
    value
        As it stands there.
    problem, fix
        What is wrong with it, and what to do.
    """

    file: str
    row: str
    column: str
    value: str
    problem: str
    fix: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 60 else f"{self.value[:59]}…"
        return f"{self.file}: {self.row}, {self.column}: {shown!r} {self.problem}; {self.fix}"

    def error(self, others: int = 0) -> InputError:
        """Return it as an error, which says how many other cells are bad."""
        text, _, fix = str(self).rpartition("; ")
        more = f" (and {others} more bad cell{'s' * (others > 1)})" if others else ""
        return InputError(text, fix=fix + more)


class BadCells(InputError):
    """Cells of a file that cannot be read; the message tells the first.

    Attributes
    ----------
    cells
        All of them, in the file's order.
    """

    def __init__(self, cells: Sequence[BadCell]) -> None:
        first = cells[0].error(len(cells) - 1)
        super().__init__(first.message, fix=first.fix)
        self.cells = tuple(cells)


# ---------------------------------------------------------------------------------------------------- files


def load_book(path: Path, market: Path | None = None) -> MarginBook:
    """Return the accounts and the market of a file.

    Parameters
    ----------
    path
        ``.json``, ``.csv`` or ``.parquet``.
    market
        JSON of a market, or of a book whose market is taken. Without it, a CSV or Parquet file takes the
        ``.market.json`` or else the ``.json`` of its name, and a JSON book its own.

    Raises
    ------
    BadCells
        If cells cannot be read; it has all of them.
    InputError
        If a file is missing or no such file at all.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json_book(path, None if market is None else load_market(market))
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{path} is of no known format", fix="name it .json, .csv or .parquet")
    _require_file(path)
    prices = load_market(_market_beside(path) if market is None else market)
    columns, rows = _parquet_columns(path) if suffix == ".parquet" else _csv_columns(path)
    return MarginBook(market=prices, portfolios=portfolios_of(columns, rows, path.name))


def load_market(path: Path) -> Market:
    """Return the market of a JSON file: a market alone, or that of a book.

    Raises
    ------
    BadCells, InputError
        As `load_book`.
    """
    data = _json(path)
    if isinstance(data, dict) and "market" in data:
        data = data["market"]
    found: Market = _validated(Market, _market_times(data, path.name, ""), path.name)
    _as_cells(data, path.name)
    return found


def book_of(data: Any, where: str = "book") -> MarginBook:
    """Return a book from plain data: what a JSON file holds.

    Parameters
    ----------
    data
        ``{"market": …, "portfolios": […]}``; times as unix seconds or ISO 8601.
    where
        Stands at the head of messages.

    Raises
    ------
    BadCells
        If cells cannot be read.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where} is no object", fix='write {"market": …, "portfolios": […]}')
    changed = dict(data)
    if "market" in changed:
        changed["market"] = _market_times(changed["market"], where, "market.")
    if isinstance(changed.get("portfolios"), list):
        changed["portfolios"] = [
            _position_times(p, where, f"portfolios.{i}") for i, p in enumerate(changed["portfolios"])
        ]
    found: MarginBook = _validated(MarginBook, changed, where)
    _as_cells(data, where)
    return found


def dumped_book(book: MarginBook) -> dict[str, Any]:
    """Return a book as plain data, which `book_of` reads back."""
    return book.model_dump(mode="json", by_alias=True)


def _json_book(path: Path, market: Market | None) -> MarginBook:
    data = _json(path)
    if market is not None and isinstance(data, dict):
        data = {**data, "market": market.model_dump(mode="json")}
    if isinstance(data, dict) and "portfolios" not in data:
        raise InputError(f"{path.name}: no portfolios", fix="add the key, or give a CSV beside this market")
    return book_of(data, path.name)


def _market_beside(path: Path) -> Path:
    for beside in (path.with_suffix(".market.json"), path.with_suffix(".json")):
        if beside.is_file():
            return beside
    raise InputError(
        f"no market for {path.name}",
        fix=f"put {path.stem}.market.json or {path.stem}.json beside it, or name one with --market",
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"no file {path}", fix="see docs/margin-book.md for what it holds")


def _json(path: Path) -> Any:
    _require_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        # Brackets without end are refused before the parser that has the hook recurses through them.
        bounded_json(text, _MOST_NESTED)
        return json.loads(text, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is no UTF-8 at byte {error.start}", fix="save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", fix="give a file that can be read") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path.name}: line {error.lineno}, column {error.colno}: {error.msg}", fix="mend the JSON"
        ) from None
    except MarginlineError as error:
        raise InputError(f"{path.name}: {error.message}", fix=error.fix) from None
    except ValueError as error:
        raise InputError(f"{path.name} {error}", fix="mend the JSON") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, and refuse one whose keys repeat: the first would be lost without a word."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the key {double!r} stands twice in one object", fix="remove one")
    return found


def _validated(model: type[Any], data: Any, where: str) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadCells([_bad_key(line, where) for line in error.errors(include_url=False)]) from None


_FIXES: Final[Mapping[str, str]] = {
    "missing": "add the key",
    "finite_number": "give a number; leave an entry out whose price is not known",
    "greater_than": "give a larger number",
    "greater_than_equal": "give a larger number",
    "less_than_equal": "give a smaller number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "int_parsing": "give whole unix seconds or ISO 8601",
    "int_type": "give whole unix seconds or ISO 8601",
    "union_tag_invalid": "known types: spot, perpetual, future, option, barrier",
    "union_tag_not_found": "add the key `type`: spot, perpetual, future, option or barrier",
}


def _bad_key(line: Any, where: str) -> BadCell:
    cause = line.get("ctx", {}).get("error")
    path = _as_written(line["loc"])
    # The parent is the row, the key the column; an object that is wrong as a whole has no key.
    row = ".".join(path[:-1]) or "top"
    column = path[-1] if path else "file"
    value = line["input"]
    shown = "" if isinstance(value, Mapping | list | StrictModel) else str(value)
    if isinstance(cause, MarginlineError):
        return BadCell(where, row, column, shown, cause.message, cause.fix or "mend it")
    fix = _FIXES.get(line["type"], "mend it")
    if line["type"] == "union_tag_invalid":
        return BadCell(where, ".".join(path), "type", str(line["ctx"]["tag"]), "is no type", fix)
    # "Input should be …" stands behind the value: "'-1' should be …".
    problem = "is missing" if line["type"] == "missing" else line["msg"].removeprefix("Input ")
    return BadCell(where, row, column, shown, problem[0].lower() + problem[1:], fix)


def _as_written(loc: Sequence[str | int]) -> list[str]:
    """Return where something is as the file has it: without the type's own step, an expiry by its date."""
    path: list[str] = []
    for before, part in zip(("", *loc), loc, strict=False):
        if before == "instrument" and part in _TYPES:
            continue
        seconds = before == "expiries" and str(part).isdigit() and int(part) < _LEAST_MS
        path.append(
            datetime.fromtimestamp(int(part), UTC).isoformat().replace("+00:00", "Z")
            if seconds
            else str(part)
        )
    return path


def _as_cells(data: Any, where: str) -> None:
    """Refuse in valid JSON what cells of a table refuse too.

    Raises
    ------
    BadCells
        For a number beyond `_MOST`, a truth or text in the place of a number, a volatility of 10 and more,
        and a profit or volatility of an instrument that has none.
    """
    bad: list[BadCell] = []
    # A stack, and no recursion: how deep a file nests is bounded, how wide is not.
    left: list[tuple[str, Any]] = [("", data)]
    while left:
        at, value = left.pop()
        if isinstance(value, Mapping):
            left += [
                (f"{at}.{key}" if at else str(key), inner) for key, inner in reversed(tuple(value.items()))
            ]
            kind = value["instrument"].get("type") if isinstance(value.get("instrument"), Mapping) else None
            for key in ("unrealised", "volatility"):
                if kind is not None and value.get(key) and kind not in _BELONGS[key]:
                    problem = f"stands in a position of type {kind}, which has none"
                    bad.append(BadCell(where, at, key, str(value[key]), problem, "leave it out"))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            left += [(f"{at}.{i}", inner) for i, inner in reversed(tuple(enumerate(value)))]
        else:
            row, _, key = at.rpartition(".")
            problem, fix = _unlikely(key, value)
            if problem:
                bad.append(BadCell(where, row or "top", key, str(value), problem, fix))
    if bad:
        raise BadCells(bad)


_TEXTS: Final = ("schema", "account", "type", "asset", "underlying", "protocol", "expiry", "timestamp")
_TRUTHS: Final = ("call", "inverse")


def _unlikely(key: str, value: Any) -> tuple[str, str]:
    """Return what is wrong with a value that the models take, and what to do; empty if nothing is."""
    if value is None or key in _TEXTS or key in _TRUTHS:
        return "", ""
    if isinstance(value, bool | str):
        return "is no number", "write a number without quotes"
    if key == "volatility" and value >= _MOST_VOLATILITY:
        return "is no volatility between 0 and 10", "write 65 % as 0.65"
    if abs(value) > _MOST:
        return "is too large", f"give at most {_MOST:g}"
    return "", ""


def _position_times(portfolio: Any, where: str, at: str) -> Any:
    """Return a portfolio whose expiries are seconds; what has not that form is left to the model."""
    if not (isinstance(portfolio, Mapping) and isinstance(portfolio.get("positions"), list)):
        return portfolio
    positions = []
    for i, position in enumerate(portfolio["positions"]):
        instrument = position.get("instrument") if isinstance(position, Mapping) else None
        if isinstance(instrument, Mapping) and isinstance(instrument.get("expiry"), str):
            seconds = _json_time(instrument["expiry"], where, f"{at}.positions.{i}.instrument", "expiry")
            position = {**position, "instrument": {**instrument, "expiry": seconds}}
        positions.append(position)
    return {**portfolio, "positions": positions}


def _market_times(market: Any, where: str, at: str) -> Any:
    if not isinstance(market, Mapping):
        return market
    changed = dict(market)
    if isinstance(changed.get("timestamp"), str):
        changed["timestamp"] = _json_time(changed["timestamp"], where, at.rstrip(".") or "top", "timestamp")
    if isinstance(changed.get("underlyings"), Mapping):
        changed["underlyings"] = {
            symbol: _expiry_keys(inner, where, f"{at}underlyings.{symbol}")
            for symbol, inner in changed["underlyings"].items()
        }
    return changed


def _expiry_keys(underlying: Any, where: str, at: str) -> Any:
    if not (isinstance(underlying, Mapping) and isinstance(underlying.get("expiries"), Mapping)):
        return underlying
    expiries: dict[int, Any] = {}
    for key, inner in underlying["expiries"].items():
        seconds = _json_time(str(key), where, at, "expiries")
        if seconds in expiries:
            raise BadCells(
                [BadCell(where, at, "expiries", str(key), "is a time that stands twice", "remove one")]
            )
        expiries[seconds] = inner
    return {**underlying, "expiries": expiries}


def _json_time(text: str, where: str, row: str, column: str) -> int:
    try:
        return unix_time(text)
    except InputError as error:
        raise BadCells([BadCell(where, row, column, text, error.message, error.fix or "")]) from None


# --------------------------------------------------------------------------------------------------- columns


def unix_time(text: str) -> int:
    """Return a time as unix seconds.

    Parameters
    ----------
    text
        Unix seconds, or ISO 8601; UTC without a zone, and 08:00 UTC without a time.

    Raises
    ------
    InputError
        Whose message fits behind the value.
    """
    text = text.strip()
    # A column with gaps is written by many programs as 1798185600.0.
    whole = re.fullmatch(r"(-?\d{1,20})(?:\.0*)?", text, re.ASCII)
    if whole is not None:
        if re.fullmatch(r"(?:19|20)\d\d[01]\d[0-3]\d", text, re.ASCII):
            raise InputError("could be a date or seconds", fix="write a date as 2026-12-25")
        seconds = int(whole[1])
        if abs(seconds) >= _LEAST_MS:
            raise InputError("is too large for seconds", fix="divide milliseconds by 1000")
        return seconds
    try:
        alone = date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return int(datetime(alone.year, alone.month, alone.day, EXPIRY_HOUR, tzinfo=UTC).timestamp())
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError("is no time", fix="write 2026-12-25T08:00:00Z, 2026-12-25 or unix seconds") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if moment.microsecond:
        raise InputError("is no whole second", fix="round it")
    return int(moment.timestamp())


class _Refused(Exception):
    """A cell that a parser does not take; carries problem and fix."""

    def __init__(self, problem: str, fix: str) -> None:
        self.problem, self.fix = problem, fix


def _number(text: str) -> float:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Refused("is no number", "write a plain decimal such as -1234.5, without % or separators")
    if abs(value) > _MOST:
        raise _Refused("is too large", f"give at most {_MOST:g}")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise _Refused("is not above 0", "give a positive number of dollars")
    return value


def _volatility(text: str) -> float:
    value = _number(text)
    if not 0 < value < _MOST_VOLATILITY:
        raise _Refused("is no volatility between 0 and 10", "write 65 % as 0.65")
    return value


def _time(text: str) -> int:
    try:
        return unix_time(text)
    except InputError as error:
        raise _Refused(error.message, error.fix or "") from None


def _is_call(text: str) -> bool:
    word = text.lower()
    if word not in ("call", "put", "c", "p"):
        raise _Refused("is neither call nor put", "write call or put")
    return word[0] == "c"


def _is_true(text: str) -> bool:
    word = text.lower()
    if word not in _YES | _NO:
        raise _Refused("is neither true nor false", "write true or false")
    return word in _YES


def _type(text: str) -> str:
    word = text.lower()
    if word not in _TYPES:
        raise _Refused("is no type", f"write one of {', '.join(_TYPES)}")
    return word


@dataclass(frozen=True, slots=True)
class Columns:
    """A table of positions: names, and the cells of each row as text.

    Attributes
    ----------
    names
        As they stand in the file.
    rows
        As many cells in each as there are names.
    """

    names: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def portfolios_of(columns: Columns, labels: Sequence[str], file: str) -> tuple[Portfolio, ...]:
    """Return the portfolios of a table of positions, accounts in order of first use.

    Parameters
    ----------
    columns
        The table; see `COLUMNS`.
    labels
        What a message calls each row.
    file
        What a message calls the table.

    Raises
    ------
    BadCells
        If cells cannot be read; it has all of them.
    InputError
        If columns are missing, unknown or stand twice, or there is no row.
    """
    at = _places(columns.names, file)
    bad: list[BadCell] = []
    cash: dict[str, float] = {}
    positions: dict[str, list[Position]] = {}
    instruments: dict[tuple[object, ...], Instrument] = {}
    for label, cells in zip(labels, columns.rows, strict=True):
        if len(cells) != len(columns.names):
            problem = f"is {len(cells)} cells, the header has {len(columns.names)}"
            bad.append(BadCell(file, label, "all", ",".join(cells), problem, "mend the separators"))
            continue
        row = _Row(file, label, at, cells, bad)
        before = len(bad)
        account = "account" if "account" not in at else row.read("account", str)
        position, dollars = row.position(instruments)
        if len(bad) == before and account is not None:
            cash[account] = cash.get(account, 0.0) + dollars
            mine = positions.setdefault(account, [])
            if position is not None:
                mine.append(position)
    if bad:
        raise BadCells(bad)
    if not positions:
        raise InputError(f"{file} has no positions", fix="give a row for each; see docs/margin-book.md")
    return tuple(
        Portfolio(account=account, cash=cash[account], positions=tuple(held))
        for account, held in positions.items()
    )


@dataclass(frozen=True, slots=True)
class _Row:
    file: str
    label: str
    at: Mapping[str, int]
    cells: Sequence[str]
    bad: list[BadCell]

    def text(self, column: str) -> str:
        place = self.at.get(column)
        return "" if place is None else self.cells[place].strip()

    def refuse(self, column: str, problem: str, fix: str) -> None:
        self.bad.append(BadCell(self.file, self.label, column, self.text(column), problem, fix))

    def read(self, column: str, parse: Callable[[str], Any], default: Any = None) -> Any:
        """Return a cell's value; a bad one is noted and is None, an empty one the default where there is."""
        text = self.text(column)
        if not text:
            if default is None:
                self.refuse(column, "is missing", COLUMNS[column].replace("`", "").rstrip("."))
            return default
        try:
            return parse(text)
        except _Refused as refused:
            self.refuse(column, refused.problem, refused.fix)
            return None

    def position(self, known: dict[tuple[object, ...], Instrument]) -> tuple[Position | None, float]:
        """Return a row's position, or its dollars of cash."""
        kind, quantity = self.read("type", _type), self.read("quantity", _number)
        if kind is None:
            return None, 0.0
        for column, types in _BELONGS.items():
            text = self.text(column)
            if text and kind not in types and not (column == "inverse" and text.lower() in _NO):
                self.refuse(column, f"stands in a row of type {kind}, which has none", "leave it empty")
        if kind == "cash":
            return None, quantity or 0.0
        key = (
            kind,
            self.read("underlying", str),
            self.read("expiry", _time) if kind in _DATED else None,
            self.read("strike", _positive) if kind in _OPTIONS else None,
            self.read("option", _is_call) if kind in _OPTIONS else None,
            self.read("inverse", _is_true, False),
            self.read("barrier", _positive) if kind == "barrier" else None,
        )
        unrealised = self.read("unrealised", _number, 0.0)
        volatility = self.read("volatility", _volatility) if self.text("volatility") else None
        if any(bad.row == self.label for bad in self.bad[-len(COLUMNS) :]):
            return None, 0.0
        # Thousands of accounts hold the same few instruments: each is made and checked once.
        instrument = known.get(key)
        if instrument is None:
            instrument = known[key] = _instrument(*key)
        made = Position(
            instrument=instrument,
            quantity=quantity,
            unrealised=unrealised,
            volatility=volatility,
            protocol=self.text("protocol"),
        )
        return made, 0.0


def _instrument(
    kind: Any, symbol: Any, expiry: Any, strike: Any, call: Any, inverse: Any, barrier: Any
) -> Instrument:
    match kind:
        case "spot":
            return Spot(asset=symbol)
        case "perpetual":
            return Perpetual(underlying=symbol, inverse=inverse)
        case "future":
            return Future(underlying=symbol, expiry=expiry, inverse=inverse)
        case "option":
            return Option(underlying=symbol, expiry=expiry, strike=strike, call=call, inverse=inverse)
        case _:
            return Barrier(underlying=symbol, expiry=expiry, strike=strike, call=call, barrier=barrier)


def _places(names: Sequence[str], file: str) -> dict[str, int]:
    """Return where each column stands, after checking the names."""
    at: dict[str, int] = {}
    for place, name in enumerate(names):
        plain = name.strip().lower()
        plain = "underlying" if plain == "asset" else plain
        if plain not in COLUMNS:
            unknown = UnknownNameError("column", name, (*COLUMNS, "asset"))
            raise InputError(f"{file}: {unknown.message}", fix=unknown.fix)
        if plain in at:
            raise InputError(f"{file}: the column {plain!r} stands twice", fix="remove one")
        at[plain] = place
    for column in _REQUIRED:
        if column not in at:
            raise InputError(f"{file}: no column {column!r}", fix=f"known: {', '.join(COLUMNS)}")
    return at


def _csv_columns(path: Path) -> tuple[Columns, list[str]]:
    rows, labels = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            delimiter = ";" if ";" in head and "," not in head else ","
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            names = tuple(next(reader, ()))
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append(cells)
                    labels.append(f"row {reader.line_num}")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is no UTF-8 at byte {error.start}", fix="save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", fix="give a file that can be read") from None
    except csv.Error as error:
        raise InputError(f"{path.name}: row {reader.line_num}: {error}", fix="mend the quotes") from None
    if not names:
        raise InputError(f"{path.name} is empty", fix="begin with the names of the columns")
    return Columns(names, rows), labels


def _parquet_columns(path: Path) -> tuple[Columns, list[str]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path.name} is no Parquet file: {error}", fix="write it anew") from None
    return cell_table(table.column_names, [column.to_pylist() for column in table.columns])


def cell_table(names: Sequence[str], values: Sequence[Iterable[object]]) -> tuple[Columns, list[str]]:
    """Return columns of values as cells, and a label for each row.

    Parameters
    ----------
    names
        Of the columns; one that stands twice is seen later on.
    values
        Of each column: text, numbers, truths, times; None, NaN and NaT are empty cells.
    """
    rows = list(zip(*([cell_text(value) for value in column] for column in values), strict=True))
    return Columns(tuple(names), rows), [f"row {i}" for i in range(1, len(rows) + 1)]


def cell_text(value: object) -> str:
    """Return a value as a cell has it; None, NaN and NaT as an empty one."""
    if value is None or value != value:
        return ""
    if isinstance(value, datetime):
        # Kept whole: what is below a second is refused, not cut off.
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        # A column of whole numbers with gaps arrives as floats.
        return str(int(value))
    return str(value)


def rows_of(portfolios: Iterable[Portfolio]) -> Iterator[dict[str, object]]:
    """Yield portfolios as rows of a table, cash first in each account; None stands for an empty cell."""
    for portfolio in portfolios:
        empty: dict[str, object] = dict.fromkeys(COLUMNS)
        if portfolio.cash or not portfolio.positions:
            yield {**empty, "account": portfolio.account, "type": "cash", "quantity": portfolio.cash}
        for position in portfolio.positions:
            instrument = position.instrument
            call = getattr(instrument, "call", None)
            yield {
                **empty,
                "account": portfolio.account,
                "type": instrument.type,
                "underlying": instrument.underlying,
                "expiry": getattr(instrument, "expiry", None),
                "strike": getattr(instrument, "strike", None),
                "option": None if call is None else "call" if call else "put",
                "inverse": getattr(instrument, "inverse", None),
                "quantity": position.quantity,
                "unrealised": position.unrealised or None,
                "volatility": position.volatility,
                "protocol": position.protocol or None,
                "barrier": getattr(instrument, "barrier", None),
            }
