"""Series read part by part against series read row by row: the same prices, or the same refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts_abi.errors import InputError
from oracle.columns import columns_of
from oracle.sources import sources
from oracle.sources.recorded import RecordedFile, RecordedSource
from oracle.stream import stream
from oracle.types import NoData, PriceObs

ODD = (
    "", "nan", "1e3", "-5", "0", "+7", " 8", "0x10", "1_000", "٣", "1.23456789012", ".5", "5.", "9" * 25,
    "1.5e-3", "--1", '"12"', "1,2", "inf",
)  # fmt: skip


def rows_of(rng: np.random.Generator, count: int, spoilt: float) -> list[list[str]]:
    """Return rows of time, price, round, answered, symbol; some of them odd."""
    times = 1_700_000_000 + np.cumsum(rng.choice([0, 1, 12, 3_600], count, p=[0.02, 0.3, 0.58, 0.1]))
    rows = []
    for i, t in enumerate(times):
        number = (6 << 64) + 10 + i
        row = [str(t), str(rng.integers(1, 10**6)), str(number), str(number), str(rng.choice(["A", "B"]))]
        if rng.random() < 0.03:
            row[:2] = ["0", "0"]
        if rng.random() < spoilt:
            row[int(rng.integers(0, 4))] = str(rng.choice(ODD))
        rows.append(row)
    if rng.random() < 0.1:
        i, j = rng.integers(0, count, 2)
        rows[i], rows[j] = rows[j], rows[i]
    return rows


def config(path: Path, rng: np.random.Generator) -> dict[str, Any]:
    by_symbol = bool(rng.random() < 0.3)
    rounds = bool(rng.random() < 0.6)
    return {
        "base": "A",
        "quote": "B",
        "path": path,
        "time": "t",
        "price": "p",
        "round": "r" if rounds else None,
        "answered": "a" if rounds else None,
        "decimals": int(rng.choice([0, 2, 8])),
        "price_is": str(rng.choice(["raw", "decimal"])),
        "time_unit": str(rng.choice(["s", "s", "s", "ms", "s_or_ms"])),
        "time_offset_s": int(rng.choice([0, 3_600])),
        "order": str(rng.choice(["ascending", "ascending", "descending"])),
        "duplicates": str(rng.choice(["refuse", "first", "last"])),
        "allow_non_positive": bool(rng.random() < 0.3),
        "symbol_column": "s" if by_symbol else None,
        "symbol": "A" if by_symbol else None,
        "skip_bad_rows": bool(rng.random() < 0.5),
    }


def slow(settings: dict[str, Any]) -> list[tuple[Any, ...]] | str:
    try:
        source: RecordedSource = sources.build({"kind": "recorded", **settings})
        prices = [r for r in source.readings() if isinstance(r, PriceObs)]
        columns_of(prices)
    except InputError as error:
        return str(error)
    return [(p.published_at, p.mantissa, p.round_key, p.answered_key) for p in prices]


def fast(settings: dict[str, Any], block_bytes: int) -> list[tuple[Any, ...]] | str:
    try:
        parts = list(stream(RecordedFile(**settings), block_bytes=block_bytes))
    except InputError as error:
        return str(error)
    prices = [r for part in parts for r in part.readings()]
    assert not any(isinstance(r, NoData) for r in prices)
    return [
        (r.published_at, r.mantissa, r.round_key, r.answered_key) for r in prices if isinstance(r, PriceObs)
    ]


@pytest.mark.parametrize("seed", range(250))
def test_parts_are_what_the_rows_are(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, int(rng.integers(1, 120)), float(rng.choice([0, 0, 0.02, 0.2])))
    path = tmp_path / "series.csv"
    settings = config(path, rng)
    if settings["order"] == "descending":
        rows.reverse()
    if settings["time_unit"] == "ms":
        rows = [[row[0] + "000" if row[0].isdigit() and row[0] != "0" else row[0], *row[1:]] for row in rows]
    if settings["time_unit"] == "s_or_ms":
        rows = [
            [row[0] + "000" if row[0][-1:] in "357" and len(row[0]) == 10 else row[0], *row[1:]]
            for row in rows
        ]
    path.write_text("t,p,r,a,s\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    expected = slow(settings)
    found = fast(settings, int(rng.choice([400, 2_000, 1 << 20])))
    if isinstance(expected, str) and "has no row" in expected:
        assert found == []
    elif isinstance(expected, str):
        assert isinstance(found, str)
        # Whether a part or a row is the first that is too large, and so how it is said, is not the same.
        large = ("64 bits", "too large")
        assert found in expected or all(any(words in said for words in large) for said in (found, expected))
    else:
        assert found == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_is_what_csv_is(tmp_path: Path, unit: str) -> None:
    times = pd.to_datetime([1_700_000_000, 1_700_000_060], unit="s", utc=True).as_unit(unit)  # type: ignore[arg-type]
    path = tmp_path / "series.parquet"
    pd.DataFrame({"t": times, "p": [1_850.25, 1_851.5]}).to_parquet(path)
    settings = {"base": "A", "quote": "B", "path": path, "time": "t", "price": "p", "decimals": 8}
    assert fast(settings, 1) == slow(settings) != []


def test_what_parts_cannot_tell_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text("t,p\n1700000000,1\n1700000060,1.123\n")
    settings = {"base": "A", "quote": "B", "path": path, "time": "t", "price": "p", "decimals": 2}
    with pytest.raises(InputError, match=r"line 3: price '1.123' has more than 2 decimals"):
        list(stream(RecordedFile(**settings)))


@pytest.mark.parametrize("end", ['1700000120,"10', '1700000120,"10\n', '"1700000120,10\n1700000180,11\n'])
def test_a_file_that_was_cut_off_within_quotes_is_refused_and_not_read_to_there(
    tmp_path: Path, end: str
) -> None:
    path = tmp_path / "series.csv"
    settings = {"base": "A", "quote": "B", "path": path, "time": "t", "price": "p", "decimals": 2}
    path.write_text(f't,p\n1700000000,"101"\n"1700000060",102\n{end}')
    with pytest.raises(InputError, match="is not CSV in UTF-8: unexpected end of data"):
        list(stream(RecordedFile(**settings)))
    path.write_text('t,p\n1700000000,"101"\n"1700000060",102\n')
    assert [int(m) for part in stream(RecordedFile(**settings)) for m in part.mantissa] == [10_100, 10_200]
