"""One point of a finished sweep as a single table on disk, whose columns are read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from simulation.backtest.parts import POINT
from simulation.backtest.store import read_tables
from simulation.types import Float64


def gather(folder: Path, point: int, file: Path) -> StoredColumns:
    """Write the rows of a point into one Parquet file, a part at a time; return its columns.

    Raises
    ------
    InputError, DataError
        See `read_tables`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.unfinished")
    writer = None
    try:
        for table in read_tables(folder, points=[point]):
            own = table.drop_columns([POINT])
            if writer is None:
                writer = pq.ParquetWriter(aside, own.schema)
            writer.write_table(own)
    finally:
        if writer is not None:
            writer.close()
    aside.replace(file)
    return StoredColumns(file)


class StoredColumns(Mapping[str, Float64]):
    """The columns of a Parquet file as float64; each is read when it is asked for and not kept.

    Parameters
    ----------
    file
        The table.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._names = tuple(pq.read_schema(file).names)

    def __getitem__(self, name: str) -> Float64:
        if name not in self._names:
            raise KeyError(name)
        column = pq.read_table(self.file, columns=[name])[name]
        return np.asarray(column.to_numpy(), dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
