"""Recorded prices: exact when the file agrees with the configuration, one clear line when it does not."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts_abi.errors import InputError
from oracle.interfaces import Source
from oracle.snapshot import Feed, accept, snapshot
from oracle.sources import sources
from oracle.sources.recorded import RecordedSource, exact
from oracle.types import NoData, PriceObs

T0 = 1_583_971_200


def build(path: Path, **config: Any) -> RecordedSource:
    defaults = {"base": "ETH", "quote": "USD", "time": "t", "price": "p", "decimals": 8}
    source: RecordedSource = sources.build({"kind": "recorded", "path": path} | defaults | config)
    return source


def written(folder: Path, text: str, name: str = "prices.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def mantissas(source: RecordedSource) -> list[int]:
    return [r.mantissa for r in source.readings() if isinstance(r, PriceObs)]


GOOD = f"t,p\n{T0},194.5\n{T0 + 60},194.123456789012345678\n{T0 + 120},86\n"


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decimals", "value"),
    [
        ("194.5", 8, 19_450_000_000),
        ("0.1", 1, 1),
        (".5", 2, 50),
        ("5.", 0, 5),
        ("-1.5", 2, -150),
        ("-.5", 1, -5),
        ("+2", 0, 2),
        ("1e3", 0, 1_000),
        ("1.5E-3", 4, 15),
        ("1.50", 1, 15),
        (
            "123456789012345678901234567890.123456789012345678",
            18,
            123456789012345678901234567890123456789012345678,
        ),
        ("0e-300", 0, 0),
    ],
)
def test_text_becomes_an_exact_integer(text: str, decimals: int, value: int) -> None:
    assert exact(text, decimals) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("abc", "is no number"),
        ("nan", "is no number"),
        ("inf", "is no number"),
        ("1_000", "is no number"),
        ("1,5", "is no number"),
        ("0x10", "is no number"),
        ("٣", "is no number"),
        ("1e9999999", "is no number"),
        ("1e300", "is out of range"),
        ("0.123456789", "has more than 8 decimals"),
        ("1e-9", "has more than 8 decimals"),
    ],
)
def test_text_that_is_no_exact_number_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        exact(text, 8)


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prices.csv", "prices.csv.gz", "PRICES.CSV"])
def test_a_file_is_read_exactly(tmp_path: Path, name: str) -> None:
    source = build(written(tmp_path, GOOD, name), decimals=18, heartbeat_s=3_600, deviation_bps=50)
    assert isinstance(source, Source)
    assert mantissas(source) == [1945 * 10**17, 194123456789012345678, 86 * 10**18]
    assert len(source) == 3
    assert source.span == (T0, T0 + 120)
    assert source.reads() == []
    assert source.source_id == f"recorded:{name}"
    context = source.context([], timestamp=T0)
    assert (context.now, context.heartbeat_s, context.deviation_bps) == (T0, 3_600, 50)


@pytest.mark.parametrize(
    ("timestamp", "price"), [(T0, 1945), (T0 + 59, 1945), (T0 + 60, 1941), (T0 + 10**9, 860)]
)
def test_at_is_the_last_price_made_until_then(tmp_path: Path, timestamp: int, price: int) -> None:
    source = build(written(tmp_path, f"t,p\n{T0},194.5\n{T0 + 60},194.1\n{T0 + 120},86\n"), decimals=1)
    reading = source.decode([], block=9, timestamp=timestamp)
    assert reading == source.at(timestamp)
    assert isinstance(reading, PriceObs)
    assert (reading.mantissa, reading.observed_at, reading.block) == (price, timestamp, None)
    assert reading.published_at is not None
    assert reading.published_at <= timestamp


def test_before_the_first_price_there_is_none(tmp_path: Path) -> None:
    reading = build(written(tmp_path, GOOD), decimals=18).at(T0 - 1)
    assert isinstance(reading, NoData)
    assert f"begins at {T0}" in reading.reason


def test_a_close_is_known_an_interval_after_its_candle_opened(tmp_path: Path) -> None:
    source = build(written(tmp_path, f"t,p\n{T0},1\n{T0 + 3_600},2\n"), time_offset_s=3_600)
    assert isinstance(source.at(T0 + 3_599), NoData)
    assert source.span == (T0 + 3_600, T0 + 7_200)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("s", str(T0)),
        ("s", f"{T0}.0"),
        ("ms", f"{T0}999"),
        ("s_or_ms", f"{T0}"),
        ("s_or_ms", f"{T0}999"),
        ("us", f"{T0}000000"),
        ("ns", f"{T0}000000000"),
        ("iso", "2020-03-12"),
        ("iso", "2020-03-12 00:00:00"),
        ("iso", "2020-03-12T00:00:00Z"),
        ("iso", "2020-03-12T01:00:00.75+01:00"),
    ],
)
def test_time_units(tmp_path: Path, unit: str, text: str) -> None:
    assert build(written(tmp_path, f"t,p\n{text},1\n"), time_unit=unit).span == (T0, T0)


def test_newest_first(tmp_path: Path) -> None:
    source = build(written(tmp_path, f"t,p\n{T0 + 60},2\n{T0},1\n"), order="descending", decimals=0)
    assert mantissas(source) == [1, 2]


@pytest.mark.parametrize(
    ("order", "duplicates", "kept"),
    [
        ("ascending", "first", [1, 2, 4]),
        ("ascending", "last", [1, 3, 4]),
        ("descending", "first", [4, 2, 1]),
        ("descending", "last", [4, 3, 1]),
    ],
)
def test_duplicates_are_settled_as_configured(
    tmp_path: Path, order: str, duplicates: str, kept: list[int]
) -> None:
    rows = [(T0, 1), (T0 + 60, 2), (T0 + 60, 3), (T0 + 120, 4)]
    if order == "descending":
        rows = [(2 * T0 - t, p) for t, p in rows]
    text = "t,p\n" + "".join(f"{t},{p}\n" for t, p in rows)
    source = build(written(tmp_path, text), order=order, duplicates=duplicates, decimals=0)
    assert mantissas(source) == kept


def test_other_columns_blank_lines_marks_and_spaces_do_not_matter(tmp_path: Path) -> None:
    text = f'﻿"t",volume, p ,"p"\r\n{T0},"1,5",x,"194.5"\r\n\r\n{T0 + 60},2,y, 195 \r\n'
    assert mantissas(build(written(tmp_path, text), decimals=1)) == [1945, 1950]


def test_rounds_and_rounds_never_written(tmp_path: Path) -> None:
    phase = 6 << 64
    text = (
        ",round,answer,start,update,answeredInRound\n"
        f"0,{phase + 3},203,{T0 + 9},{T0 + 9},{phase + 2}\n"
        f"1,{phase + 2},202,{T0 + 9},{T0 + 9},{phase + 2}\n"  # two rounds in one block: no duplicate
        f"2,{phase + 1},201,{T0},{T0},{phase + 1}\n"
        f"3,{phase},0,0,0,{phase}\n"
    )
    source = RecordedSource.chainlink_rounds(written(tmp_path, text), "ETH", "USD")
    first, *rest = source.readings()
    assert isinstance(first, NoData)
    assert "round (6, 0) was never written" in first.reason
    assert [(r.mantissa, r.round_key, r.answered_key) for r in rest if isinstance(r, PriceObs)] == [
        (201, (6, 1), (6, 1)),
        (202, (6, 2), (6, 2)),
        (203, (6, 3), (6, 2)),
    ]
    assert isinstance(source.at(0), NoData)
    latest = source.at(T0 + 9)
    assert isinstance(latest, PriceObs)
    assert latest.mantissa == 203


def test_a_price_of_zero_may_be_let_through_for_the_guards(tmp_path: Path) -> None:
    path = written(tmp_path, f"t,p\n{T0},0\n{T0 + 1},-5\n")
    assert mantissas(build(path, allow_non_positive=True, decimals=0)) == [0, -5]


def test_a_record_feeds_a_snapshot(tmp_path: Path) -> None:
    source = build(written(tmp_path, GOOD), decimals=18, heartbeat_s=60)
    taken = snapshot("reference", "USD", [Feed("WETH", (source,))], [], {}, block=1, timestamp=T0 + 120 + 360)
    assert taken.price_e8("WETH") == 86 * 10**8
    late = snapshot("reference", "USD", [Feed("WETH", (source,))], [], {}, block=1, timestamp=T0 + 120 + 361)
    assert late.price_e8("WETH") is None


@pytest.mark.parametrize(
    ("times", "prices", "unit"),
    [
        (pa.array([T0, T0 + 60]), pa.array([Decimal("194.50"), Decimal("0.01")]), "s"),
        (pa.array([T0, T0 + 60]), pa.array([194.5, 0.01]), "s"),
        (pa.array([T0 * 1000, (T0 + 60) * 1000]), pa.array(["194.5", "1e-2"]), "ms"),
        (pa.array([T0 * 10**9, (T0 + 60) * 10**9], pa.timestamp("ns", "UTC")), pa.array([194.5, 0.01]), "s"),
        (pa.array([datetime.fromtimestamp(T0 + 60 * i, UTC) for i in (0, 1)]), pa.array([194.5, 0.01]), "s"),
    ],
)
def test_parquet(tmp_path: Path, times: pa.Array, prices: pa.Array, unit: str) -> None:
    path = tmp_path / "prices.parquet"
    parquet.write_table(pa.table({"other": prices, "t": times, "p": prices}), path)
    source = build(path, time_unit=unit)
    assert mantissas(source) == [19_450_000_000, 1_000_000]
    assert source.span == (T0, T0 + 60)


def test_parquet_integers_of_any_width_keep_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "rounds.parquet"
    big = 2**63 - 1
    parquet.write_table(pa.table({"t": [T0], "p": [big]}), path)
    assert mantissas(build(path, price_is="raw")) == [big]


# --- what is refused --------------------------------------------------------------------------------------

REFUSED = {
    "empty file": ("", {}, "is empty", "header"),
    "header only": ("t,p\n", {}, "has no rows", "at least one price"),
    "only rounds never written": ("t,p\n0,0\n", {}, "no row with data", "at least one price"),
    "missing column": ("t,pp\n1,2\n", {}, "'p'", "did you mean 'pp'"),
    "column twice": ("t,p,p\n1,2,3\n", {}, "several columns 'p'", "rename"),
    "unsorted": (f"t,p\n{T0 + 1},1\n{T0},2\n", {}, f"line 3: time {T0} is out of ascending order", "order"),
    "ascending where descending was said": (
        f"t,p\n{T0},1\n{T0 + 1},2\n",
        {"order": "descending"},
        "out of descending order",
        "order = 'ascending'",
    ),
    "duplicate": (
        f"t,p\n{T0},1\n{T0},2\n",
        {},
        f"line 3: time {T0} is there twice, as in line 2",
        "duplicates",
    ),
    "negative": (f"t,p\n{T0},-1\n", {}, "line 2: price -1 is not positive", "allow_non_positive"),
    "zero": (f"t,p\n{T0},0\n", {}, "line 2: price 0 is not positive", "allow_non_positive"),
    "no number": (f"t,p\n{T0},1\n{T0 + 1},n/a\n", {}, "line 3: price 'n/a' is no number", "mend"),
    "nan": (f"t,p\n{T0},NaN\n", {}, "line 2: price 'NaN' is no number", "mend"),
    "empty cell": (f"t,p\n{T0},\n", {}, "line 2: price '' is empty", "mend"),
    "too precise": (f"t,p\n{T0},0.123456789\n", {}, "line 2: .* has more than 8 decimals", "set decimals"),
    "raw with places": (f"t,p\n{T0},1.5\n", {"price_is": "raw"}, "more than 0 decimals", "decimals"),
    "cut row": (f"t,p\n{T0},1\n{T0 + 1}\n", {}, "line 3: 1 fields, the header has 2", "cut off"),
    "milliseconds": (
        f"t,p\n{T0}000,1\n",
        {},
        "line 2: time .* beyond the year 5000 in unit 's'",
        "time_unit",
    ),
    "mixed units": (
        f"t,p\n{T0},1\n{T0 + 60}000,2\n",
        {},
        "line 3: time .* beyond the year 5000 in unit 's'",
        "time_unit",
    ),
    "seconds": (f"t,p\n{T0},1\n", {"time_unit": "ms"}, "before the year 2000 in unit 'ms'", "time_unit"),
    "negative time": ("t,p\n-1,1\n", {}, "line 2: time '-1' is before 1970", "mend"),
    "old date": ("t,p\n1969-12-31,1\n", {"time_unit": "iso"}, "line 2: time .* is before 1970", "mend"),
    "no date": (
        "t,p\nyesterday,1\n",
        {"time_unit": "iso"},
        "line 2: time 'yesterday' is no ISO 8601",
        "mend",
    ),
    "negative round": (f"t,p,r\n{T0},1,-1\n", {"round": "r"}, "line 2: r -1 is negative", "mend"),
    "no round": (f"t,p,r\n{T0},1,x\n", {"round": "r"}, "line 2: r 'x' is no number", "mend"),
    "open quote": (f't,p\n{T0},"1\n', {}, "is not CSV", "get it again"),
    "wrong sha256": (f"t,p\n{T0},1\n", {"sha256": "0" * 64}, "has sha256 .*, expected 000", "get the file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_one_line_with_file_row_and_fix(tmp_path: Path, case: str) -> None:
    text, config, what, fix = REFUSED[case]
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=what) as refused:
        build(path, **config)
    assert str(path) in str(refused.value)
    assert fix in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_that_do_not_go_together_are_refused_before_the_file_is_read(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.csv"
    with pytest.raises(InputError, match="tz goes with time_unit = 'iso', not 's'; remove tz"):
        build(missing, tz="Europe/Berlin")
    with pytest.raises(InputError, match="symbol_column and symbol go together"):
        build(missing, symbol_column="s")


def test_a_checked_digest_passes(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert len(build(path, decimals=18, sha256=hashlib.sha256(path.read_bytes()).hexdigest().upper())) == 3


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("prices.csv.gz", gzip.compress(GOOD.encode())[:-9], "not a whole gzip file"),
        ("prices.csv.gz", GOOD.encode(), "not a whole gzip file"),
        ("prices.csv.gz", gzip.compress(GOOD.encode())[:10] + b"\xff" * 30, "not a whole gzip file"),
        ("prices.csv", b"t,p\n\xff\xfe,1\n", "not CSV in UTF-8"),
        ("prices.parquet", b"PAR1 and nothing else", "is not Parquet"),
        ("prices.parquet", b"", "is not Parquet"),
        ("prices.xlsx", b"", "is of no known format"),
    ],
    # Without ids pytest would name the cases by their bytes, and gzip writes the time into those.
    ids=["cut", "plain", "garbled", "utf-16", "parquet header", "parquet empty", "format"],
)
def test_corrupt_bytes_are_one_line(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=what) as refused:
        build(path, decimals=18)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_files_and_folders_are_one_line(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InputError, match="cannot be read: No such file"):
            build(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        build(tmp_path / "folder.csv")
    with pytest.raises(InputError, match="cannot be read"):
        build(tmp_path / "none.csv", sha256="0" * 64)


def test_corrupt_parquet_pages_and_wrong_columns(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    parquet.write_table(pa.table({"t": list(range(T0, T0 + 5_000)), "p": [1.5] * 5_000}), path)
    with pytest.raises(InputError, match="did you mean"):
        build(path, price="pp")
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"\x00" * 200 + whole[240:])
    with pytest.raises(InputError, match=r"prices\.parquet"):
        build(path)


def test_parquet_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    parquet.write_table(pa.table({"t": [T0, T0 + 1], "p": [1.5, None]}), path)
    with pytest.raises(InputError, match="row 2: price '' is empty"):
        build(path)
    parquet.write_table(pa.table({"t": [T0, T0 + 1], "p": [1.5, float("nan")]}), path)
    with pytest.raises(InputError, match="row 2: price 'nan' is no number"):
        build(path)


# --- the real rounds --------------------------------------------------------------------------------------

ETH_ROUNDS = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419.csv.gz"
BTC_ROUNDS = "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c.csv.gz"


@pytest.mark.parametrize(
    ("name", "base", "rounds", "span"),
    [
        (ETH_ROUNDS, "ETH", 11_106, (1_680_734_315, 1_706_558_123)),
        (BTC_ROUNDS, "BTC", 10_691, (1_680_734_111, 1_706_558_135)),
    ],
)
def test_real_rounds(shared: Path, name: str, base: str, rounds: int, span: tuple[int, int]) -> None:
    path = shared / "data" / "chainlink_rounds" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    source = RecordedSource.chainlink_rounds(path, base, "USD")
    assert (len(source), source.span) == (rounds, span)
    readings = list(source.readings())
    assert isinstance(readings[0], NoData)
    priced = [r for r in readings if isinstance(r, PriceObs)]
    assert len(priced) == rounds
    assert [r.round_key for r in priced] == [(6, i + 1) for i in range(rounds)]
    assert all(r.answered_key == r.round_key for r in priced)
    gaps = [
        b.published_at - a.published_at
        for a, b in itertools.pairwise(priced)
        if a.published_at is not None and b.published_at is not None
    ]
    assert max(gaps) == 3_720


def test_the_guards_believe_a_calm_year_of_real_rounds(shared: Path) -> None:
    """No false alarm at the default thresholds in ten months of mainnet, each round read as it appears."""
    for name, base in ((ETH_ROUNDS, "ETH"), (BTC_ROUNDS, "BTC")):
        path = shared / "data" / "chainlink_rounds" / name
        if not path.exists():
            pytest.skip(f"no {path}")
        source = RecordedSource.chainlink_rounds(path, base, "USD").model_copy(update={"heartbeat_s": 3_600})
        feed = Feed(base, (source,))
        history: dict[str, tuple[PriceObs, ...]] = {}
        for reading in source.readings():
            if isinstance(reading, NoData):
                continue
            taken = snapshot("reference", "USD", [feed], [], history, block=0, timestamp=reading.observed_at)
            assert taken.price_e8(base) is not None, taken.prices[base].reasons
            history = accept(history, taken)
