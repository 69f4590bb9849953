"""Reads a recorded series part by part, as columns: as exact as `oracle.sources.recorded`, and as strict.

A part is read by Arrow and checked as a whole. Whatever is not plain about it is decoded cell by cell, by the
same functions as everywhere; whatever is wrong is looked for again row by row, for the line that says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from contracts_abi.errors import InputError
from contracts_abi.feeds import split_round_id
from oracle.columns import ROWS, UNKNOWN, Columns
from oracle.sources.recorded import RecordedFile, check_digest, exact, unix_seconds, zone_of
from oracle.types import FeedKind

Int64: TypeAlias = NDArray[np.int64]

_INTEGER = r"^-?[0-9]{1,18}$"
_ROUND = r"^[0-9]{1,30}$"
_DECIMAL = r"^-?([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})$"
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_YEAR_2000 = 946_684_800
_LATEST = 10**11 - 1


class _NotPlainError(Exception):
    """Something about a part is to be looked at row by row."""


def stream(file: RecordedFile, *, block_bytes: int = 1 << 20) -> Iterator[Columns]:
    """Yield a file's prices in time order, each part let go before the next is read.

    Rounds that were never written are left out. A file whose newest row stands first is read whole, since its
    end has to be known before its beginning can be told: some 80 bytes a row.

    Parameters
    ----------
    block_bytes
        Size of a part of a CSV; a Parquet file has its own.

    Raises
    ------
    InputError
        Naming file, row and fix, as for `RecordedSource`.
    """
    check_digest(file.path, file.sha256)
    try:
        yield from (
            _backwards(file, block_bytes)
            if file.order == "descending"
            else _settled(file, _parts(file, block_bytes))
        )
    except (_NotPlainError, pa.ArrowInvalid, pa.ArrowKeyError, OSError, EOFError) as error:
        # The reader that goes row by row finds what is wrong, and says it with its line.
        rows = list(file.rows())
        file.in_order(
            [
                row
                for row in (rows if file.order == "ascending" else rows[::-1])
                if row.published_at is not None
            ]
        )
        raise InputError(
            f"{file.path} cannot be read in parts: {error}", fix="convert it to plain CSV or Parquet"
        ) from None


@dataclass(frozen=True, slots=True)
class _Part:
    """Decoded columns of one part, in the order of the file."""

    time: Int64
    price: Int64
    phase: Int64
    number: Int64
    from_phase: Int64
    from_number: Int64

    def take(self, rows: Any) -> _Part:
        return _Part(*(getattr(self, name)[rows] for name in _NAMES))

    def __len__(self) -> int:
        return len(self.time)


_NAMES = tuple(field.name for field in fields(_Part))


def _joined(parts: list[_Part]) -> _Part:
    return _Part(*(np.concatenate([getattr(p, name) for p in parts]) for name in _NAMES))


def _backwards(file: RecordedFile, block_bytes: int) -> Iterator[Columns]:
    parts = list(_parts(file, block_bytes))
    if not parts:
        return
    whole = _joined(parts).take(slice(None, None, -1))
    yield from _settled(file, iter([whole]))


def _settled(file: RecordedFile, parts: Iterator[_Part]) -> Iterator[Columns]:
    """Yield parts in order, with rows of one time settled; the last row waits for the next part."""
    keep_last = (file.duplicates == "last") == (file.order == "ascending")
    waiting: _Part | None = None
    for part in parts:
        whole = part if waiting is None else _joined([waiting, part])
        if not len(whole):
            continue
        whole = whole.take(_kept(whole, file.duplicates == "refuse", keep_last))
        if len(whole) > 1:
            yield _columns(file, whole.take(slice(0, -1)))
        waiting = whole.take(slice(len(whole) - 1, None))
    if waiting is not None:
        yield _columns(file, waiting)


def _kept(part: _Part, refuse: bool, keep_last: bool) -> NDArray[np.bool_]:
    keys = (part.time, part.phase, part.number)
    equal, later = np.ones(len(part) - 1, dtype=np.bool_), np.zeros(len(part) - 1, dtype=np.bool_)
    for key in keys:
        later |= equal & (key[1:] > key[:-1])
        equal &= key[1:] == key[:-1]
    if not (later | equal).all():
        raise _NotPlainError("rows are out of order")
    if refuse and equal.any():
        raise _NotPlainError("rows are there twice")
    rows = np.ones(len(part), dtype=np.bool_)
    rows[: -1 if keep_last else None][equal if keep_last else np.concatenate([[False], equal])] = False
    return rows


def _columns(file: RecordedFile, part: _Part) -> Columns:
    unknown = np.full(len(part), UNKNOWN, dtype=np.int64)
    columns: dict[str, Any] = dict.fromkeys(ROWS, unknown) | {
        "mantissa": part.price,
        "has_data": np.ones(len(part), dtype=np.bool_),
        "published_at": part.time,
        "observed_at": part.time,
        "phase": part.phase,
        "round": part.number,
        "answered_phase": part.from_phase,
        "answered_round": part.from_number,
    }
    return Columns(file.base, file.quote, FeedKind.PUSH, file.source_id, file.decimals, **columns)


# --------------------------------------------------------------------------------------------------- decoding


def _parts(file: RecordedFile, block_bytes: int) -> Iterator[_Part]:
    with _batches(file, block_bytes) as (batches, unit):
        for batch in batches:
            yield _part(file, batch, unit)


@contextmanager
def _batches(file: RecordedFile, block_bytes: int) -> Iterator[tuple[Iterator[pa.RecordBatch], str | None]]:
    names = list(dict.fromkeys(file.columns()))
    if file.path.name.lower().endswith(".parquet"):
        with parquet.ParquetFile(file.path) as source:
            field = source.schema_arrow.field(file.time).type
            unit = field.unit if pa.types.is_timestamp(field) else None
            yield source.iter_batches(columns=names), unit
        return
    header = _header(file)
    if len(set(header)) != len(header):
        raise _NotPlainError("columns of one name")
    if _open_quote(file):
        raise _NotPlainError("a quote that is not closed")
    reader = arrow_csv.open_csv(
        pa.input_stream(str(file.path), compression="detect"),
        read_options=arrow_csv.ReadOptions(block_size=block_bytes, use_threads=False),
        parse_options=arrow_csv.ParseOptions(delimiter=file.delimiter),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
        ),
    )
    with reader:
        yield reader, None


def _open_quote(file: RecordedFile) -> bool:
    """Return whether the file ends within quotes, as one that was cut off may: Arrow takes what is there."""
    quotes = 0
    with pa.input_stream(str(file.path), compression="detect") as source:
        while piece := source.read(1 << 20):
            quotes += piece.count(b'"')
    return quotes % 2 == 1


def _header(file: RecordedFile) -> list[str]:
    with pa.input_stream(str(file.path), compression="detect") as source:
        line: bytes = source.read(65_536).partition(b"\n")[0]
    return line.decode("utf-8-sig", "strict").strip().split(file.delimiter)


def _part(file: RecordedFile, batch: pa.RecordBatch, unit: str | None) -> _Part:
    if file.symbol_column is not None:
        batch = batch.filter(pc.equal(batch.column(file.symbol_column).cast(pa.string()), file.symbol))
    try:
        part = _Part(
            _times(file, batch.column(file.time), unit),
            _prices(file, batch.column(file.price)),
            *_rounds(file, batch, file.round),
            *_rounds(file, batch, file.answered),
        )
    except ValueError as error:
        if not file.skip_bad_rows:
            raise _NotPlainError(str(error)) from None
        return _part_without_bad_rows(file, batch, unit)
    never_written = (part.time == 0) & (part.price == 0)
    if not file.allow_non_positive and ((part.price <= 0) & ~never_written).any():
        if file.skip_bad_rows:
            return _part_without_bad_rows(file, batch, unit)
        raise _NotPlainError("a price is not positive")
    part = part.take(~never_written)
    times = part.time + file.time_offset_s
    if (times < 0).any():
        if file.skip_bad_rows:
            return _part_without_bad_rows(file, batch, unit)
        raise _NotPlainError("a time is before 1970 with its offset")
    return _Part(times, *(getattr(part, n) for n in _NAMES[1:]))


def _part_without_bad_rows(file: RecordedFile, batch: pa.RecordBatch, unit: str | None) -> _Part:
    """Halve a part until what cannot be read stands alone, and leave that out."""
    strict = file.model_copy(update={"skip_bad_rows": False, "symbol_column": None, "symbol": None})
    if batch.num_rows <= 1:
        try:
            return _part(strict, batch, unit)
        except _NotPlainError:
            return _Part(*(np.empty(0, dtype=np.int64) for _ in _NAMES))
    middle = batch.num_rows // 2
    halves = []
    for half in (batch.slice(0, middle), batch.slice(middle)):
        try:
            halves.append(_part(strict, half, unit))
        except _NotPlainError:
            halves.append(_part_without_bad_rows(strict, half, unit))
    return _joined(halves)


def _texts(column: pa.Array) -> list[str]:
    def text(value: object) -> str:
        if value is None:
            return ""
        return repr(value) if isinstance(value, float) else str(value).strip()

    cells: list[object] = column.to_pylist()
    return [text(value) for value in cells]


def _slow(column: pa.Array, parse: Callable[[str], int]) -> Int64:
    try:
        return np.array([parse(text) for text in _texts(column)], dtype=np.int64)
    except OverflowError:
        raise _NotPlainError("a number does not fit 64 bits") from None


def _plain(column: pa.Array, pattern: str) -> bool:
    """Return whether all cells are text of that form."""
    if not pa.types.is_string(column.type) or column.null_count:
        return False
    return bool(pc.all(pc.match_substring_regex(column, pattern), min_count=0).as_py())


def _times(file: RecordedFile, column: pa.Array, unit: str | None) -> Int64:
    if unit is not None:
        column, named = column.cast(pa.int64()), unit
    else:
        named = file.time_unit
    zone = zone_of(file.tz)
    whole = pa.types.is_integer(column.type) and not column.null_count
    if named == "iso" or not (whole or _plain(column, _INTEGER)):
        return _slow(column, lambda text: unix_seconds(text, named, zone))
    ticks = _int64(column.cast(pa.int64()))
    if named == "s_or_ms":
        milli = ticks > _LATEST
        seconds = np.where(milli, ticks // 1_000, ticks)
    else:
        milli = np.full(len(ticks), named != "s")
        seconds = ticks // _PER_SECOND[named]
    if len(seconds) and (seconds.min() < 0 or seconds.max() > _LATEST):
        raise ValueError("a time is out of range")
    if (milli & (seconds > 0) & (seconds < _YEAR_2000)).any():
        raise ValueError("a time is in another unit")
    return seconds


def _prices(file: RecordedFile, column: pa.Array) -> Int64:
    scale = file.decimals if file.price_is == "decimal" else 0
    if pa.types.is_integer(column.type) and not column.null_count and scale == 0:
        return _int64(column.cast(pa.int64()))
    if scale == 0 and _plain(column, _INTEGER):
        return _int64(column.cast(pa.int64()))
    if scale <= 18 and _plain(column, _DECIMAL):
        try:
            return _words(column.cast(pa.decimal128(38, scale)))[0]
        except pa.ArrowInvalid:
            raise ValueError(f"a price has more than {scale} decimals") from None
    return _slow(column, lambda text: exact(text, scale))


def _rounds(file: RecordedFile, batch: pa.RecordBatch, name: str | None) -> tuple[Int64, Int64]:
    if name is None:
        unknown = np.full(batch.num_rows, UNKNOWN, dtype=np.int64)
        return unknown, unknown
    column = batch.column(name)
    if _plain(column, _ROUND):
        number, phase = _words(column.cast(pa.decimal128(38, 0)), whole=False)
        if len(number) and number.min() < 0:
            raise _NotPlainError("a round does not fit 63 bits")
        return phase, number
    pairs = [split_round_id(_natural(exact(text, 0))) for text in _texts(column)]
    return (
        np.array([pair[0] for pair in pairs], dtype=np.int64),
        np.array([pair[1] for pair in pairs], dtype=np.int64),
    )


def _natural(value: int) -> int:
    if value < 0:
        raise ValueError("is negative")
    return value


def _int64(column: pa.Array) -> Int64:
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def _words(column: pa.Array, *, whole: bool = True) -> tuple[Int64, Int64]:
    """Return both words of 128-bit integers, low first; `whole` refuses what the low one does not hold."""
    words = np.frombuffer(column.buffers()[1], dtype=np.int64).reshape(-1, 2)
    words = words[column.offset : column.offset + len(column)]
    low, high = words[:, 0].copy(), words[:, 1].copy()
    if whole and (high != (low >> 63)).any():
        raise _NotPlainError("a number does not fit 64 bits")
    return low, high
