"""What one task leaves: a table with a row or more per path, as Parquet that can tell whether it is whole.

A part carries its task's id and the digest of its content. The digest is of names, types and values, not of
the file: compression, row groups and chunks may change, and it stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts_abi.errors import DataError, InputError
from simulation.backtest.plan import SweepTask

Columns: TypeAlias = "pa.Table | Mapping[str, np.ndarray[Any, Any] | Sequence[Any]]"
"""What the function of a task returns."""

POINT, PATH = "point", "path"
"""Columns that every part begins with: numbers of the parameter point and of the path."""

_ID: Final = b"marginline.task"
_CONTENT: Final = b"marginline.content_sha256"


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a part that was read and found whole.

    Attributes
    ----------
    rows
        How many.
    bytes
        Size of the file.
    content_sha256
        Digest of the content.
    columns
        Types by name, in order.
    """

    rows: int
    bytes: int
    content_sha256: str
    columns: Mapping[str, str]


class ContentHash:
    """SHA-256 over the logical content of tables that follow each other.

    Each column has a digest of its values in order, so it does not matter into which tables, chunks or files
    rows were cut. Not-a-numbers are one value, whatever their bits.
    """

    def __init__(self) -> None:
        self._columns: dict[str, str] | None = None
        self._hashes: list[_ColumnHash] = []
        self.rows = 0

    def update(self, table: pa.Table) -> None:
        """Add rows.

        Raises
        ------
        DataError
            If names or types are not those of the rows before.
        """
        columns = column_types(table.schema)
        if self._columns is None:
            self._columns = columns
            self._hashes = [_ColumnHash() for _ in columns]
        elif list(self._columns.items()) != list(columns.items()):
            raise DataError(f"columns {_text(columns)} follow {_text(self._columns)}")
        for column, into in zip(table.columns, self._hashes, strict=True):
            for chunk in column.chunks:
                into.update(chunk)
        self.rows += table.num_rows

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        whole = hashlib.sha256(f"{self.rows}\n".encode())
        for (name, kind), column in zip((self._columns or {}).items(), self._hashes, strict=True):
            whole.update(f"{len(name.encode())}:{name}:{kind}\n".encode())
            whole.update(column.digest())
        return whole.hexdigest()


class _ColumnHash:
    """The values of one column in order; missing ones by their places."""

    def __init__(self) -> None:
        self._values, self._lengths, self._missing = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._rows = 0

    def update(self, chunk: pa.Array) -> None:
        if chunk.null_count:
            places = np.flatnonzero(_values(pc.is_null(chunk))) + self._rows
            self._missing.update(places.astype("<i8").tobytes())
            chunk = chunk.fill_null("" if pa.types.is_string(chunk.type) else False if _is_bool(chunk) else 0)
        self._rows += len(chunk)
        if pa.types.is_string(chunk.type):
            self._lengths.update(_values(pc.binary_length(chunk)).astype("<i8").tobytes())
            self._values.update("".join(chunk.to_pylist()).encode())
            return
        values = _values(chunk)
        if values.dtype.kind == "f" and np.isnan(values).any():
            values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
        self._values.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)

    def digest(self) -> bytes:
        return self._values.digest() + self._lengths.digest() + self._missing.digest()


# Arrow's own ways to and from NumPy import pandas, which would be most of a worker's start.


def _values(array: pa.Array) -> np.ndarray[Any, Any]:
    """Return numbers or booleans as they lie in memory; the array has no missing values."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    kind = np.dtype(array.type.to_pandas_dtype())
    if not len(array):
        return np.empty(0, dtype=kind)
    return np.frombuffer(array.buffers()[1], dtype=kind, count=len(array) + array.offset)[array.offset :]


def _array(values: Any) -> pa.Array:
    """Return values as Arrow keeps them; numbers are not copied."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iufb":
        kind = values.dtype.newbyteorder("=")
        whole = np.ascontiguousarray(values, np.uint8 if kind.kind == "b" else kind)
        flat = pa.from_numpy_dtype(whole.dtype)
        made = pa.Array.from_buffers(flat, len(whole), [None, pa.py_buffer(whole)])
        return made.cast(pa.bool_()) if kind.kind == "b" else made
    values = values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind == "U" else values
    if isinstance(values, list | tuple) and values and all(isinstance(value, str) for value in values):
        texts = [value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.Array.from_buffers(
            pa.string(), len(texts), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        )
    return pa.array(values, from_pandas=False)


def content_sha256(tables: Iterable[pa.Table]) -> str:
    """Return the digest of tables that follow each other; see `ContentHash`."""
    content = ContentHash()
    for table in tables:
        content.update(table)
    return content.hexdigest()


def column_types(schema: pa.Schema) -> dict[str, str]:
    """Return the columns' types by name, in order."""
    return {column.name: str(column.type) for column in schema}


def part_table(task: SweepTask, columns: Columns) -> pa.Table:
    """Return what a task computed as its part: the columns `point` and `path`, then its own.

    Parameters
    ----------
    task
        The task.
    columns
        Numbers, booleans or text, all of one length. Without a column ``path`` of its own there is one row
        per path, in order; with it there may be any number of rows per path, paths in order.

    Raises
    ------
    InputError
        Naming the column and what is wrong with it.
    """
    table = columns if isinstance(columns, pa.Table) else _from_mapping(columns)
    if POINT in table.column_names:
        raise InputError(f"column {POINT!r}: is written by the sweep", fix="give it another name")
    if len(set(table.column_names)) < table.num_columns:
        raise InputError(f"columns {', '.join(table.column_names)}: a name stands there twice")
    if PATH in table.column_names:
        paths = _own_paths(task, table[PATH])
        table = table.drop_columns([PATH])
    else:
        paths = np.arange(task.first_path, task.stop_path, dtype=np.int64)
        if table.num_rows != len(paths):
            raise InputError(
                f"{table.num_rows} rows for {len(paths)} paths",
                fix="return a row per path, or a column 'path'",
            )
    if not table.num_columns:
        raise InputError("no columns", fix="return a value per path")
    plain = [_plain(name, table[name]) for name in table.column_names]
    point = np.full(len(paths), task.point, dtype=np.int64)
    return pa.Table.from_arrays(
        [_array(point), _array(paths), *plain], names=[POINT, PATH, *table.column_names]
    )


def _from_mapping(columns: object) -> pa.Table:
    if not isinstance(columns, Mapping):
        raise InputError(f"a {type(columns).__name__} is no result", fix="return columns by name, or a table")
    arrays, length = {}, None
    for name, values in columns.items():
        try:
            array = _array(values)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"column {name!r}: is no list of values: {error}") from None
        length = len(array) if length is None else length
        if len(array) != length:
            raise InputError(f"column {name!r}: has {len(array)} rows, the others have {length}")
        arrays[str(name)] = array
    return pa.Table.from_arrays(list(arrays.values()), names=list(arrays))


def _own_paths(task: SweepTask, column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    if not pa.types.is_integer(column.type) or column.null_count:
        raise InputError(f"column {PATH!r}: must be whole numbers, is {column.type}")
    chunks = [_values(chunk) for chunk in column.chunks]
    paths = np.concatenate([np.empty(0, dtype=np.int64), *chunks]).astype(np.int64)
    if len(paths) and (paths.min() < task.first_path or paths.max() >= task.stop_path):
        raise InputError(f"column {PATH!r}: has paths other than {task.first_path}-{task.stop_path - 1}")
    if (np.diff(paths) < 0).any():
        raise InputError(f"column {PATH!r}: must be in order")
    return paths


def _plain(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in one of the types that are hashed, or refuse it."""
    kind = column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return column
    raise InputError(f"column {name!r}: {kind} is not kept", fix="return numbers, booleans or text")


def _is_bool(array: pa.Array) -> bool:
    return bool(pa.types.is_boolean(array.type))


def _text(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


# --------------------------------------------------------------------------------------------------- the file


def encode_part(task: SweepTask, table: pa.Table) -> tuple[bytes, PartFacts]:
    """Return the bytes of a part and what is known of it."""
    content = content_sha256([table])
    marked = table.replace_schema_metadata({_ID: task.id.encode(), _CONTENT: content.encode()})
    out = pa.BufferOutputStream()
    pq.write_table(marked, out, compression="zstd", write_statistics=False, write_page_checksum=True)
    data = out.getvalue().to_pybytes()
    return data, PartFacts(table.num_rows, len(data), content, column_types(table.schema))


def read_part(file: Path, task_id: str) -> tuple[pa.Table, PartFacts]:
    """Return the table of a part and what is known of it, after making sure that it is whole and unchanged.

    Parameters
    ----------
    file
        Where it is.
    task_id
        Whose it must be.

    Raises
    ------
    DataError
        If it is not there, truncated, changed, or another task's.
    """
    table, said = _read(file, task_id, None)
    content = content_sha256([table])
    if content != said:
        raise DataError(f"{file}: is not what was written")
    return table, PartFacts(table.num_rows, file.stat().st_size, content, column_types(table.schema))


def read_columns(file: Path, task_id: str, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a part; their pages' checksums are tested, the digest of the whole is not.

    Raises
    ------
    DataError
        See `read_part`.
    """
    return _read(file, task_id, list(columns))[0].select(list(columns))


def _read(file: Path, task_id: str, columns: list[str] | None) -> tuple[pa.Table, str]:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as part:
            metadata = part.schema_arrow.metadata or {}
            if metadata.get(_ID) != task_id.encode():
                raise DataError(f"{file}: is of another task")
            # Without threads: parts are small, and workers fill the cores.
            table = part.read(columns=columns, use_threads=False)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file}: is missing") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None
    return table.replace_schema_metadata(None), metadata.get(_CONTENT, b"").decode("ascii", "replace")
