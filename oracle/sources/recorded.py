"""Prices from files: CSV and Parquet with an explicit mapping, and round dumps of Chainlink feeds.

Nothing is guessed. Which column is the time and which the price, in what unit and scale, and in what order
the rows stand is said by the configuration; a file that does not agree is refused with the row and the fix.
Text becomes an integer digit by digit and never passes through a float.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PrivateAttr

from contracts_abi.calls import Call
from contracts_abi.errors import InputError, UnknownNameError
from contracts_abi.feeds import split_round_id
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.strict import StrictModel
from oracle.types import FeedKind, NoData, PriceObs, Reading

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_2000 = 946_684_800
_LATEST = 10**11 - 1
"""Beyond the year 5000; seconds never get there, milliseconds are always there."""
_MAX_ANSWER = 2**255 - 1
LARGEST_OFFSET_S = 366 * 86_400
"""A longer offset is a wrong unit, not a zone or a candle."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, decoded.

    Attributes
    ----------
    where
        ``line 7`` or ``row 7``, for messages.
    published_at
        Unix seconds; None for a round that was never written.
    mantissa
        Price at the configured scale.
    round_key, answered_key
        See `oracle.types.PriceObs`.
    """

    where: str
    published_at: int | None
    mantissa: int
    round_key: tuple[int, ...] | None
    answered_key: tuple[int, ...] | None


def exact(text: str, decimals: int) -> int:
    """Return ``text * 10**decimals`` as an exact integer.

    Raises
    ------
    ValueError
        If `text` is no decimal number, is out of an int256's range, or has more places than `decimals`.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("is no number" if text else "is empty")
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = decimals + int(exponent or "0") - len(fraction)
    value = int(whole + fraction)
    if shift >= 0:
        value *= int(10**shift)
    else:
        value, rest = divmod(value, int(10**-shift))
        if rest:
            raise ValueError(f"has more than {decimals} decimals")
    if abs(value) > _MAX_ANSWER:
        raise ValueError("is out of range")
    return value


def zone_of(name: str | None) -> tzinfo:
    """Return the time zone of that name; UTC without one."""
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"tz {name!r} is no time zone", fix="name one of the IANA database, such as America/New_York"
        ) from None


def _local(moment: datetime, zone: tzinfo) -> datetime:
    """Return a time without an offset as one of `zone`; one that was there twice or never is refused."""
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        raise ValueError("is a time that the change of clocks makes twice or never; write the offset")
    return first


def unix_seconds(text: str, unit: str, zone: tzinfo = UTC) -> int:
    """Return unix seconds of a time cell, rounded down."""
    if unit == "iso":
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("is no ISO 8601 time") from None
        aware = moment if moment.tzinfo else _local(moment, zone)
        if aware < _EPOCH:
            raise ValueError("is before 1970")
        return (aware - _EPOCH) // timedelta(seconds=1)
    ticks = exact(text, 9) // 10**9
    if unit == "s_or_ms":
        unit = "ms" if ticks > _LATEST else "s"
    seconds = ticks // _PER_SECOND[unit]
    if seconds < 0:
        raise ValueError("is before 1970")
    if seconds > _LATEST:
        raise ValueError(f"is beyond the year 5000 in unit {unit!r}")
    if unit != "s" and 0 < seconds < _YEAR_2000:
        raise ValueError(f"is before the year 2000 in unit {unit!r}")
    return seconds


class RecordedFile(StrictModel):
    """A price series in a file: which column is what, in what unit and order.

    Attributes
    ----------
    base, quote
        Symbols of the pair, in the file's own direction.
    path
        A ``.csv``, ``.csv.gz`` or ``.parquet`` file.
    time, price
        Names of the columns.
    round, answered
        Names of the columns of proxy round ids, where the file has them.
    decimals
        Scale of the integer price. More places in the file than that are refused, not rounded.
    price_is
        ``decimal`` for prices as people write them, ``raw`` for integers that already have the scale.
    time_unit
        Unit of a numeric time, or ``iso`` for ISO 8601 text; without an offset that is UTC. A Parquet
        timestamp column has its own unit. ``s_or_ms`` is for archives that changed from one to the other:
        each row is told by its size, which no date from 1970 to 5000 leaves open.
    time_offset_s
        Added to every time. A candle is stamped with its opening, its close is known an interval later:
        3600 for the close of hourly candles.
    order
        In which the rows stand.
    duplicates
        What to do with rows of equal time: refuse the file, or keep the one that stands first or last in it.
        Different rounds may share a time, and real ones do (two in one block).
    allow_non_positive
        Lets prices of zero and below through, for the guards to judge.
    sha256
        Of the file's bytes, checked when given.
    tz
        Zone of ISO times without an offset, as ``America/New_York``; UTC without it. A local time that a
        change of clocks made twice, or never, is refused.
    delimiter
        Between the columns of a CSV.
    symbol_column, symbol
        Column that names the pair of each row, and the name of the rows to take; others are left out.
    skip_bad_rows
        Leave out rows that cannot be read instead of refusing the file; `skipped` counts them. A row with
        too few or too many fields is refused all the same: the file may be cut off.
    name
        Source id; ``recorded:<file name>`` by default.
    heartbeat_s, deviation_bps, grace_s
        As of the feed that was recorded.
    """

    base: str
    quote: str
    path: Path
    time: str
    price: str
    round: str | None = None
    answered: str | None = None
    decimals: int = Field(ge=0, le=77)
    price_is: Literal["decimal", "raw"] = "decimal"
    time_unit: Literal["s", "ms", "us", "ns", "s_or_ms", "iso"] = "s"
    time_offset_s: int = Field(default=0, ge=-LARGEST_OFFSET_S, le=LARGEST_OFFSET_S)
    order: Literal["ascending", "descending"] = "ascending"
    duplicates: Literal["refuse", "first", "last"] = "refuse"
    allow_non_positive: bool = False
    sha256: str | None = None
    tz: str | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    symbol_column: str | None = None
    symbol: str | None = None
    skip_bad_rows: bool = False
    name: str | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    deviation_bps: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def model_post_init(self, _context: object) -> None:
        """Check the keys against each other, before any file is looked at.

        Raises
        ------
        InputError
            Naming the keys.
        """
        if (self.symbol_column is None) != (self.symbol is None):
            raise InputError("symbol_column and symbol go together", fix="give both, or none")
        zone_of(self.tz)
        if self.tz is not None and self.time_unit != "iso":
            raise InputError(
                f"tz goes with time_unit = 'iso', not {self.time_unit!r}",
                fix="remove tz: seconds since 1970 have no zone",
            )

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"recorded:{self.path.name}"

    def columns(self) -> tuple[str, ...]:
        named = (self.time, self.price, self.round, self.answered, self.symbol_column)
        return tuple(c for c in named if c is not None)

    def rows(self, on_skip: Callable[[], None] | None = None) -> Iterator[Row]:
        """Yield the rows of the file as they stand in it, decoded.

        Parameters
        ----------
        on_skip
            Called for every row that is left out because it cannot be read.

        Raises
        ------
        InputError
            Naming file, row and fix.
        """
        for where, cell, own_unit in _cells(self.path, self.columns(), self.time, self.delimiter):
            if self.symbol_column is not None and cell[self.symbol_column] != self.symbol:
                continue
            try:
                row = self._row(where, cell, own_unit or self.time_unit)
            except InputError:
                if not self.skip_bad_rows:
                    raise
                if on_skip is not None:
                    on_skip()
                continue
            yield row

    def _row(self, where: str, cell: dict[str, str], unit: str) -> Row:
        scale = self.decimals if self.price_is == "decimal" else 0
        zone = zone_of(self.tz)
        seconds = self._cell(where, "time", cell[self.time], lambda text: unix_seconds(text, unit, zone))
        mantissa = self._cell(where, "price", cell[self.price], lambda text: exact(text, scale))
        round_key = self._round(where, cell, self.round)
        answered_key = self._round(where, cell, self.answered)
        if seconds == 0 and mantissa == 0:
            return Row(where, None, 0, round_key, answered_key)
        if mantissa <= 0 and not self.allow_non_positive:
            raise InputError(
                f"{self.path}, {where}: price {cell[self.price]} is not positive",
                fix="mend the row, or set allow_non_positive = true to let the guards judge it",
            )
        if seconds + self.time_offset_s < 0:
            raise InputError(
                f"{self.path}, {where}: time {cell[self.time]!r} is before 1970 with its offset",
                fix=f"set time_offset_s, which is {self.time_offset_s}, or mend the row",
            )
        return Row(where, seconds + self.time_offset_s, mantissa, round_key, answered_key)

    def _cell(self, where: str, what: str, text: str, parse: Any) -> int:
        try:
            return int(parse(text))
        except ValueError as error:
            clocks = "change of clocks" in str(error)
            fix = {
                "time": "mend the row"
                if clocks
                else f"set time_unit, which is {self.time_unit!r} ('s_or_ms' where rows mix both), "
                "or mend the row",
                "price": f"set decimals, which is {self.decimals}, or mend the row",
            }.get(what, "mend the row")
            raise InputError(f"{self.path}, {where}: {what} {text!r} {error}", fix=fix) from None

    def _round(self, where: str, cell: dict[str, str], column: str | None) -> tuple[int, ...] | None:
        if column is None:
            return None
        value = self._cell(where, column, cell[column], lambda text: exact(text, 0))
        if value < 0:
            raise InputError(f"{self.path}, {where}: {column} {value} is negative", fix="mend the row")
        return tuple(split_round_id(value))

    def in_order(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Return rows in time order with duplicates settled; `rows` are oldest first by the configuration."""
        kept: list[Row] = []
        for row in rows:
            if not kept or _place(row) > _place(kept[-1]):
                kept.append(row)
                continue
            other = kept[-1]
            if _place(row) < _place(other):
                opposite = "ascending" if self.order == "descending" else "descending"
                raise InputError(
                    f"{self.path}, {row.where}: time {row.published_at} is out of {self.order} order "
                    f"next to {other.where} ({other.published_at})",
                    fix=f"set order = {opposite!r} or sort the file",
                )
            if self.duplicates == "refuse":
                raise InputError(
                    f"{self.path}, {row.where}: time {row.published_at} is there twice, as in {other.where}",
                    fix="set duplicates = 'first' or 'last', or remove one",
                )
            # In a descending file the row met later here stands earlier in the file.
            later_in_file = self.order == "ascending"
            if (self.duplicates == "last") == later_in_file:
                kept[-1] = row
        return tuple(kept)


@sources.register("recorded")
class RecordedSource(RecordedFile):
    """A price series in a file. Reading it is part of constructing the source.

    Build it by the registry, which turns every complaint into one `InputError`.

    Attributes
    ----------
    skipped
        Rows that could not be read and were left out.
    """

    kind: ClassVar[Literal["recorded"]] = "recorded"

    _rows: tuple[Row, ...] = PrivateAttr()
    _skipped: int = PrivateAttr(default=0)
    _times: tuple[int, ...] = PrivateAttr()

    def model_post_init(self, _context: object) -> None:
        """Read and check the file.

        Raises
        ------
        InputError
            Naming file, row and fix.
        """
        super().model_post_init(_context)
        check_digest(self.path, self.sha256)
        rows = list(self.rows(self._skip))
        if not rows:
            of = "" if self.symbol is None else f" of {self.symbol!r}"
            raise InputError(f"{self.path} has no rows{of}", fix="give a file with at least one price")
        self._rows = tuple(reversed(rows)) if self.order == "descending" else tuple(rows)
        dated = self.in_order([row for row in self._rows if row.published_at is not None])
        if not dated:
            raise InputError(f"{self.path} has no row with data", fix="give a file with at least one price")
        self._rows = tuple(row for row in self._rows if row.published_at is None) + dated
        self._times = tuple(row.published_at for row in dated if row.published_at is not None)

    def _skip(self) -> None:
        self._skipped += 1

    @staticmethod
    def chainlink_rounds(path: Path, base: str, quote: str, *, decimals: int = 8) -> RecordedSource:
        """Return a dump of rounds: columns round, answer, start, update, answeredInRound, newest first.

        A row of zeros is a round that was never written; it reads as `NoData`.
        """
        source: RecordedSource = sources.build(
            {
                "kind": "recorded",
                "base": base,
                "quote": quote,
                "path": path,
                "time": "update",
                "price": "answer",
                "round": "round",
                "answered": "answeredInRound",
                "decimals": decimals,
                "price_is": "raw",
                "order": "descending",
            }
        )
        return source

    @property
    def span(self) -> tuple[int, int]:
        """Unix seconds of the first and the last price."""
        return self._times[0], self._times[-1]

    def __len__(self) -> int:
        """Return the number of prices."""
        return len(self._times)

    def reads(self) -> list[Call[Any]]:
        """Return nothing: the data is here."""
        return []

    def at(self, timestamp: int) -> Reading:
        """Return the last price made at or before `timestamp`, or `NoData` before the first."""
        i = bisect_right(self._times, timestamp)
        if i == 0:
            reason = f"the record begins at {self._times[0]}, asked for {timestamp}"
            return NoData(self.base, self.quote, self.source_id, timestamp, reason)
        return self._reading(self._rows[len(self._rows) - len(self._times) + i - 1], timestamp)

    @property
    def skipped(self) -> int:
        """Rows that could not be read and were left out."""
        return self._skipped

    def series(self) -> Iterator[tuple[int, int]]:
        """Yield time and price of every row with data, in time order."""
        for row in self._rows:
            if row.published_at is not None:
                yield row.published_at, row.mantissa

    def readings(self) -> Iterator[Reading]:
        """Yield every row in time order, each read at its own time; rounds never written come first."""
        for row in self._rows:
            yield self._reading(row, row.published_at or 0)

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return `at` of the block's time; a record knows no blocks."""
        return self.at(timestamp)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises; a record has no bounds."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            deviation_bps=self.deviation_bps,
        )

    def _reading(self, row: Row, timestamp: int) -> Reading:
        if row.published_at is None:
            reason = f"{row.where}: round {row.round_key} was never written"
            return NoData(self.base, self.quote, self.source_id, timestamp, reason)
        return PriceObs(
            self.base,
            self.quote,
            row.mantissa,
            self.decimals,
            FeedKind.PUSH,
            self.source_id,
            published_at=row.published_at,
            observed_at=timestamp,
            round_key=row.round_key,
            answered_key=row.answered_key,
        )


def _place(row: Row) -> tuple[int, tuple[int, ...]]:
    """Return what rows are ordered by: the time, and the round within it."""
    return row.published_at or 0, row.round_key or ()


def check_digest(path: Path, expected: str | None) -> None:
    """Refuse a file that has another sha256 than expected; None expects nothing."""
    if expected is None:
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None
    if found != expected.lower():
        raise InputError(
            f"{path} has sha256 {found}, expected {expected}",
            fix="get the file that the figures were made with",
        )


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror or error}", fix="check the path")


def _cells(
    path: Path, columns: Sequence[str], time: str, delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str], str | None]]:
    """Yield place, cells by column name and, where the file itself knows it, the unit of the time."""
    names = path.name.lower()
    if names.endswith(".parquet"):
        yield from _parquet_cells(path, columns, time)
    elif names.endswith((".csv", ".csv.gz")):
        yield from _csv_cells(path, columns, delimiter)
    else:
        raise InputError(f"{path} is of no known format", fix="name it .csv, .csv.gz or .parquet")


def _need(path: Path, columns: Sequence[str], present: Sequence[str]) -> None:
    for column in columns:
        if column not in present:
            raise UnknownNameError(f"column in {path}:", column, present)
        if list(present).count(column) > 1:
            raise InputError(f"{path} has several columns {column!r}", fix="rename all but one")


def _csv_cells(
    path: Path, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str], str | None]]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            header = next(reader, None)
            if header is None:
                raise InputError(f"{path} is empty", fix="give a file with a header and at least one price")
            _need(path, columns, header)
            places = [(column, header.index(column)) for column in columns]
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields, the header has {len(header)}",
                        fix="mend the row; the file may be cut off",
                    )
                yield f"line {reader.line_num}", {c: fields[i].strip() for c, i in places}, None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}", fix="get it again") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not CSV in UTF-8: {error}", fix="convert it or get it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _parquet_cells(
    path: Path, columns: Sequence[str], time: str
) -> Iterator[tuple[str, dict[str, str], str | None]]:
    # Imported here: it costs a quarter of a second, and few commands read Parquet.
    import pyarrow as pa
    from pyarrow import parquet

    try:
        path.stat()  # its error is shorter than Arrow's
        file = parquet.ParquetFile(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not Parquet: {error}", fix="get it again") from None
    with file:
        _need(path, columns, file.schema_arrow.names)
        kind = file.schema_arrow.field(time).type
        unit = kind.unit if pa.types.is_timestamp(kind) else None
        number = 0
        try:
            for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
                values = {
                    name: (
                        batch.column(name).cast(pa.int64()) if name == time and unit else batch.column(name)
                    ).to_pylist()
                    for name in columns
                }
                for i in range(batch.num_rows):
                    number += 1
                    yield f"row {number}", {n: _text(v[i]) for n, v in values.items()}, unit
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{path} is corrupt after row {number}: {error}", fix="get it again") from None


def _text(value: object) -> str:
    """Return a cell as text; a float as the shortest decimal that reads back as the same float."""
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
