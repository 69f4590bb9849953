"""True prices from users' files: read as they say, or refused in one line that names file, row and fix."""

from __future__ import annotations

import gzip
import hashlib
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import InputError
from oracle.scenario import load_scenario
from oracle.truth import TruthFile
from simulation.replay.record import replay_record_from_json
from tests.command_line import Inside

WHERE = "truth.COIN/USD.file"
NEW_YORK = "America/New_York"
T0 = 1_583_971_200  # 2020-03-12 00:00 UTC

Rows = tuple[tuple[int, Fraction], ...]


def read(folder: Path, text: str, name: str = "prices.csv", **keys: Any) -> Rows:
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    config = {"path": name, "sha256": digest, "time": "t", "price": "p"} | keys
    return TruthFile(**config).read("COIN/USD", folder, WHERE)


def refused(folder: Path, text: str, **keys: Any) -> str:
    """Return the one line that a file is refused with, its folder left out."""
    with pytest.raises(InputError) as caught:
        read(folder, text, **keys)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{WHERE}: ")
    assert "; " in line, "no fix"
    return line.removeprefix(f"{WHERE}: ").replace(f"{folder}/", "")


# ---------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("t,p\n0,0.1\n60,2000.5\n", {"time_unit": "s"}),
        ("t;p\n0;0.1\n60;2000.5\n", {"time_unit": "s", "delimiter": ";"}),
        ("t\tp\n0\t0.1\n60\t2000.5\n", {"time_unit": "s", "delimiter": "\t"}),
        (
            '"x,y",Close Time,Last\n1,0,0.1\n1,60,2000.5\n',
            {"time": "Close Time", "price": "Last", "time_unit": "s"},
        ),
        ("t,p\n1970-01-01,0.1\n1970-01-01 00:01,2000.5\n", {}),
        ("t,p\n1970-01-01T02:00:00+02:00,0.1\n1969-12-31T19:01:00-05:00,2000.5\n", {}),
        ("t,p\n1970-01-01 05:30:00,0.1\n1970-01-01 05:31:00,2000.5\n", {"tz": "Asia/Kolkata"}),
        ("t,p\n60,2000.5\n0,0.1\n", {"time_unit": "s", "order": "descending"}),
        ("t,p\n3600,0.1\n3660,2000.5\n", {"time_unit": "s", "time_offset_s": -3_600}),
    ],
)
def test_files_of_many_kinds_say_the_same(tmp_path: Path, text: str, keys: dict[str, Any]) -> None:
    assert read(tmp_path, text, **keys) == ((0, Fraction(1, 10)), (60, Fraction(4001, 2)))


def test_a_packed_file_is_read_and_its_own_bytes_are_hashed(tmp_path: Path) -> None:
    assert read(tmp_path, "t,p\n0,1\n", name="p.csv.gz", time_unit="s") == ((0, Fraction(1)),)


def test_minutes_stay_minutes_and_prices_stay_exact(tmp_path: Path) -> None:
    # A day of minutes, and no digit lost.
    text = "t,p\n" + "".join(f"{T0 + 60 * i},1.{i:06d}000000000001\n" for i in range(1_440))
    rows = read(tmp_path, text, time_unit="s", max_gap_s=60)
    assert len(rows) == 1_440
    assert rows[-1] == (T0 + 86_340, Fraction("1.001439000000000001"))


def test_rows_of_another_symbol_are_left_out(tmp_path: Path) -> None:
    text = "t,p,s\n0,1,COIN\n0,9,OTHER\n60,2,COIN\nbroken,x,OTHER\n"
    keys = {"time_unit": "s", "symbol_column": "s"}
    assert read(tmp_path, text, symbol="COIN", **keys) == ((0, Fraction(1)), (60, Fraction(2)))
    assert "prices.csv has no rows of 'coin'" in refused(tmp_path, text, symbol="coin", **keys)
    # Without the column both are one series, and it says so.
    assert "time 0 is there twice, as in line 2" in refused(tmp_path, text, time_unit="s", skip_bad_rows=True)


def test_bad_rows_are_left_out_when_that_is_said(tmp_path: Path) -> None:
    text = "t,p\n0,1\nyesterday,2\n60,n/a\n61,-3\n62,0\n120,4\n"
    assert read(tmp_path, text, time_unit="s", skip_bad_rows=True) == ((0, Fraction(1)), (120, Fraction(4)))


@pytest.mark.parametrize(("duplicates", "kept"), [("first", 2), ("last", 3)])
def test_of_two_rows_of_one_time_the_first_or_the_last_of_the_file_is_kept(
    tmp_path: Path, duplicates: str, kept: int
) -> None:
    up = "t,p\n0,1\n60,2\n60,3\n120,4\n"
    down = "t,p\n120,4\n60,2\n60,3\n0,1\n"
    rows = ((0, Fraction(1)), (60, Fraction(kept)), (120, Fraction(4)))
    assert read(tmp_path, up, time_unit="s", duplicates=duplicates) == rows
    assert read(tmp_path, down, time_unit="s", duplicates=duplicates, order="descending") == rows


# --------------------------------------------------------------------------------------------- clock changes


def test_local_times_beside_a_change_of_clocks_are_what_they_say(tmp_path: Path) -> None:
    # 2024-03-10: 01:59:59 is followed by 03:00:00, 07:00 UTC.
    spring = read(tmp_path, "t,p\n2024-03-10 01:59:59,1\n2024-03-10 03:00:00,2\n", tz=NEW_YORK)
    assert [t for t, _ in spring] == [1_710_053_999, 1_710_054_000]
    # 2024-11-03: 00:59:59 is 04:59:59 UTC, and 02:00 is 07:00 UTC.
    autumn = read(tmp_path, "t,p\n2024-11-03 00:59:59,1\n2024-11-03 02:00:00,2\n", tz=NEW_YORK)
    assert [t for t, _ in autumn] == [1_730_609_999, 1_730_617_200]


@pytest.mark.parametrize(
    ("time", "tz"),
    [
        ("2024-03-10 02:00:00", NEW_YORK),
        ("2024-03-10 02:59:59", NEW_YORK),
        ("2024-11-03 01:00:00", NEW_YORK),
        ("2024-11-03 01:59:59", NEW_YORK),
        ("2024-03-31 02:30:00", "Europe/Berlin"),
        ("2024-10-27 02:30:00", "Europe/Berlin"),
    ],
)
def test_a_local_time_that_was_there_twice_or_never_is_refused(tmp_path: Path, time: str, tz: str) -> None:
    line = refused(tmp_path, f"t,p\n{time},1\n", tz=tz)
    assert line.startswith(
        f"prices.csv, line 2: time {time!r} is a time that the change of clocks makes twice or never; "
        "write the offset"
    )
    # In UTC nothing changes.
    assert len(read(tmp_path, f"t,p\n{time},1\n")) == 1


def test_an_offset_says_which_of_the_two_it_was(tmp_path: Path) -> None:
    text = "t,p\n2024-11-03T01:00:00-04:00,1\n2024-11-03T01:00:00-05:00,2\n"
    assert [t for t, _ in read(tmp_path, text, tz=NEW_YORK)] == [1_730_610_000, 1_730_613_600]


# ------------------------------------------------------------------------------------ seconds and the others

MIXED = f"t,p\n{T0},1\n{T0 + 60}000,2\n{T0 + 120}.0,3\n{T0 + 180}999,4\n"


def test_an_archive_that_mixes_seconds_and_milliseconds_is_read_when_that_is_said(tmp_path: Path) -> None:
    rows = read(tmp_path, MIXED, time_unit="s_or_ms")
    assert rows == tuple((T0 + 60 * i, Fraction(i + 1)) for i in range(4))


def test_and_refused_where_one_unit_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path, MIXED, time_unit="s") == (
        f"prices.csv, line 3: time '{T0 + 60}000' is beyond the year 5000 in unit 's'; "
        "set time_unit, which is 's' ('s_or_ms' where rows mix both), or mend the row"
    )
    assert refused(tmp_path, MIXED, time_unit="ms").startswith(
        f"prices.csv, line 2: time '{T0}' is before the year 2000 in unit 'ms'; set time_unit"
    )


# ------------------------------------------------------------------------------------------------ directions

UPSIDE_DOWN = "t,p\n0,0.0005\n60,0.0005\n120,0.0004\n"


def test_an_inverted_pair_is_caught_and_said(tmp_path: Path) -> None:
    said = "the prices of prices.csv are inverted: their middle is 0.0005; set invert = "
    assert refused(tmp_path, UPSIDE_DOWN, time_unit="s", near="2000") == said + "true"
    upright = read(tmp_path, UPSIDE_DOWN, time_unit="s", near="2000", invert=True)
    # 1 / 0.0005 and 1 / 0.0004, exactly.
    assert [p for _, p in upright] == [2_000, 2_000, 2_500]
    twice = refused(tmp_path, "t,p\n0,2000\n", time_unit="s", near="2000", invert=True)
    assert twice == said + "false"


@pytest.mark.parametrize(
    ("price", "fine"), [("6000", True), ("6000.01", False), ("667", True), ("666", False)]
)
def test_a_price_is_near_within_three_times(tmp_path: Path, price: str, fine: bool) -> None:
    text = f"t,p\n0,1\n60,{price}\n120,9999999\n"
    if fine:
        assert len(read(tmp_path, text, time_unit="s", near="2000")) == 3
    else:
        assert refused(tmp_path, text, time_unit="s", near="2000") == (
            f"the middle of the prices of prices.csv is {float(price):.6g}, not near 2000; "
            "check the column, the pair and its unit"
        )


def test_a_third_is_as_near_as_three_times_also_upside_down(tmp_path: Path) -> None:
    assert len(read(tmp_path, "t,p\n0,1000\n", time_unit="s", near="3000")) == 1
    # 1 / 0.001 is 1000, a third of 3000; 1 / 0.0011 is less, and then it is another price altogether.
    assert "are inverted" in refused(tmp_path, "t,p\n0,0.001\n", time_unit="s", near="3000")
    assert "not near 3000" in refused(tmp_path, "t,p\n0,0.0011\n", time_unit="s", near="3000")


# -------------------------------------------------------------------------------------------------- refusals


def test_a_gap_of_a_second_more_is_refused(tmp_path: Path) -> None:
    assert len(read(tmp_path, "t,p\n0,1\n60,2\n120,3\n", time_unit="s", max_gap_s=60)) == 3
    assert refused(tmp_path, "t,p\n0,1\n60,2\n121,3\n", time_unit="s", max_gap_s=60) == (
        "prices.csv has no row for 61 s after time 60, limit 60; fill the gap, or set max_gap_s higher"
    )


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        (
            "t,p\n0,1\n60,2\n60,3\n",
            {},
            "prices.csv, line 4: time 60 is there twice, as in line 3; "
            "set duplicates = 'first' or 'last', or remove one",
        ),
        (
            "t,p\n0,1\n120,2\n60,3\n",
            {},
            "prices.csv, line 4: time 60 is out of ascending order next to line 3 (120); "
            "set order = 'descending' or sort the file",
        ),
        (
            "t,p\n0,1,5\n",
            {},
            "prices.csv, line 2: 3 fields, the header has 2; mend the row; the file may be cut off",
        ),
        # A decimal comma, a price that is none, and one of nothing: no key of a truth mends them.
        (
            "t;p\n0;1,5\n",
            {"delimiter": ";"},
            "prices.csv, line 2: price '1,5' is no number; "
            "mend the row, name another column, or set skip_bad_rows = true",
        ),
        (
            "t,p\n0,1\n1,0.0000000000000000000000000000001\n",
            {},
            "prices.csv, line 3: price '0.0000000000000000000000000000001' has more than 30 decimals; "
            "mend the row, name another column, or set skip_bad_rows = true",
        ),
        (
            "t,p\n60,0\n",
            {},
            "prices.csv, line 2: price 0 is not positive; mend the row, or set skip_bad_rows = true",
        ),
        ("t;p\n0;1\n", {}, "unknown column in prices.csv: 't'; did you mean 't;p'?"),
        ("t,P\n0,1\n", {}, "unknown column in prices.csv: 'p'; did you mean 'P'?"),
        ("t,p,t\n0,1,2\n", {}, "prices.csv has several columns 't'; rename all but one"),
        ("t,p\n", {}, "prices.csv has no rows; give a file with at least one price"),
        ("", {}, "prices.csv is empty; give a file with a header and at least one price"),
        (
            "t,p\n0,1\n",
            {"tz": "Mars/Olympus"},
            "tz 'Mars/Olympus' is no time zone; name one of the IANA database, such as America/New_York",
        ),
    ],
)
def test_a_refusal_is_one_line_with_file_row_and_fix(
    tmp_path: Path, text: str, keys: dict[str, Any], line: str
) -> None:
    assert refused(tmp_path, text, time_unit="s", **keys) == line


def test_another_file_than_the_figures_were_made_with_is_refused(tmp_path: Path) -> None:
    line = refused(tmp_path, "t,p\n0,1\n", time_unit="s", sha256="0" * 64)
    found = hashlib.sha256(b"t,p\n0,1\n").hexdigest()
    assert line == (
        f"prices.csv has sha256 {found}, expected {'0' * 64}; get the file that the figures were made with"
    )
    # Capital letters are the same hash.
    assert read(tmp_path, "t,p\n0,1\n", time_unit="s", sha256=found.upper())


def file_scenario(folder: Path, **keys: object) -> Path:
    """Write a scenario whose truth is a file that is written beside it."""
    text = "t,p\n2022-05-12T08:00:00,0.3\n2022-05-12T10:00:00,0.01\n"
    (folder / "prices.csv").write_text(text, encoding="utf-8")
    table = {
        "path": "prices.csv",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "time": "t",
        "price": "p",
    }
    shown = ", ".join(
        f"{k} = {v!r}" if not isinstance(v, bool) else f"{k} = {str(v).lower()}"
        for k, v in (table | keys).items()
    )
    toml = f"""
schema = "oracle-scenario/1"
id = "own"
title = "own"
record = "stated"
depth = "series"
mechanism = "constant"
chain = {{ id = 1, kind = "l1", block_time_s = 12 }}
clock = {{ start = 2022-05-12T08:00:00Z, end = 2022-05-12T10:00:00Z, step_s = 600 }}
assets = {{ COIN = {{ decimals = 18, pair = "COIN/USD" }} }}
[truth."COIN/USD"]
file = {{ {shown} }}
[feeds."COIN/USD"]
kind = "constant"
value = "1"
"""
    (folder / "own.toml").write_text(toml, encoding="utf-8")
    return folder / "own.toml"


def test_a_truth_of_a_file_lies_beside_its_scenario(tmp_path: Path) -> None:
    truth = load_scenario(file_scenario(tmp_path)).truth["COIN/USD"]
    assert truth.file is not None


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"symbol_column": "p"}, "symbol_column and symbol go together: give both, or none"),
        ({"symbol": "p"}, "symbol_column and symbol go together: give both, or none"),
        ({"sha256": "abc"}, "sha256"),
        ({"delimiter": ";;"}, "delimiter"),
        ({"time_unit": "minutes"}, "time_unit"),
        ({"max_gap_s": 0}, "max_gap_s"),
        ({"near": "-1"}, "near"),
        ({"zone": "UTC"}, "'zone'"),
        ({"path": "other.csv"}, "other.csv cannot be read: No such file or directory; check the path"),
        ({"path": "prices.json"}, "prices.json"),
        # The clock is not covered when the zone is another one.
        ({"tz": NEW_YORK}, "2022-05-12T12:00:00Z to 2022-05-12T14:00:00Z"),
    ],
)
def test_a_scenario_refuses_what_its_truth_cannot_be_in_one_line(
    tmp_path: Path, keys: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        load_scenario(file_scenario(tmp_path, **keys))
    assert "\n" not in str(caught.value)
    assert "COIN/USD" in str(caught.value)


# -------------------------------------------------------------------------------------------- real archives

ETH_OLD = "hourly/ETHUSDT_1h_2017-08_2021-06.csv.gz"
BTC_OLD = "hourly/BTCUSDT_1h_2017-08_2021-06.csv.gz"
ETH_NEW = "hourly/ETHUSDT_1h_2022_2025.csv.gz"
BTC_NEW = "hourly/BTCUSDT_1h_2022_2025.csv.gz"
ROUNDS = "chainlink_rounds/0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419.csv.gz"
DAILY = "chainlink_rounds/eth_usd_daily_2023-01_2025-12_withblock.csv.gz"
OPTIONS = "options/deribit_options.csv"
POOL = "options/uniswap_v3_usdc_eth.csv"
LIQUIDATIONS = "liquidations/aave_v2_liquidations_rpi_idea.csv.gz"
MAKER = "maker_2020_03/eth_03-12-2020.json"


def archive(shared: Path, name: str, **keys: Any) -> Rows:
    """Read a file of the archive in place."""
    path = shared / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return TruthFile(path=name, sha256=digest, **keys).read("ETH/USD", path.parents[1], "truth")


def rejected(shared: Path, name: str, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        archive(shared, name, **keys)
    line = str(caught.value)
    assert "\n" not in line
    assert Path(name).name in line
    return line


OLD = {"time": "unix", "order": "descending"}


def test_an_archive_that_changed_its_unit_is_read_only_where_that_is_said(shared: Path) -> None:
    assert "line 2: time '1623283200000' is beyond the year 5000 in unit 's'" in rejected(
        shared, ETH_OLD, price="close", time_unit="s", **OLD
    )
    assert "line 4832: time '1605855600.0' is before the year 2000 in unit 'ms'" in rejected(
        shared, ETH_OLD, price="close", time_unit="ms", **OLD
    )
    # Then its hours that stand there twice are told, and its order.
    assert "is there twice" in rejected(shared, ETH_OLD, price="close", time_unit="s_or_ms", **OLD)
    assert "set order = 'descending' or sort the file" in rejected(
        shared, ETH_OLD, time="unix", price="close", time_unit="s_or_ms"
    )
    low = dict(archive(shared, ETH_OLD, price="low", time_unit="s_or_ms", duplicates="first", **OLD))
    assert len(low) == 33_413
    # 86 dollars at 02:00 on 2020-03-13.
    assert low[1_584_064_800] == 86
    assert min(p for t, p in low.items() if 1_583_971_200 <= t < 1_584_144_000) == 86


def test_a_corrupt_first_candle_stands_as_it_was_written_and_a_foreign_file_is_caught(shared: Path) -> None:
    keys = OLD | {"price": "open", "time_unit": "s_or_ms", "duplicates": "last"}
    rows = archive(shared, BTC_OLD, **keys)
    assert rows[0] == (1_502_942_400, Fraction("16199.91"))
    assert rows[1][1] < 5_000
    assert "not near 400" in rejected(shared, BTC_OLD, near="400", **keys)


def test_the_crash_of_2025_is_in_the_newer_files(shared: Path) -> None:
    # The hour from 21:00 on; its close is known at 22:00.
    keys = {"time": "timestamp", "price": "low", "time_offset_s": 3_600}
    ether = dict(archive(shared, ETH_NEW, near="2500", **keys))
    bitcoin = dict(archive(shared, BTC_NEW, near="50000", **keys))
    assert ether[1_760_133_600] == 3_435
    assert bitcoin[1_760_133_600] == 102_000
    assert "no row for 7200 s" in rejected(shared, ETH_NEW, max_gap_s=3_600, **keys)


def test_rounds_that_are_integers_are_far_from_the_price_they_should_be_near(shared: Path) -> None:
    keys: dict[str, Any] = {"time": "update", "price": "answer", "time_unit": "s", "order": "descending"}
    assert "is there twice" in rejected(shared, ROUNDS, **keys)
    line = rejected(shared, ROUNDS, duplicates="last", near="1800", **keys)
    assert "not near 1800; check the column, the pair and its unit" in line
    rows = archive(shared, ROUNDS, duplicates="last", max_gap_s=3_720, **keys)
    # The round of zeros is none; 3720 s is the longest gap.
    assert rows[0] == (1_680_734_315, Fraction(190_818_855_732))
    assert "for 3720 s" in rejected(shared, ROUNDS, duplicates="last", max_gap_s=3_719, **keys)


def test_daily_samples_across_phases(shared: Path) -> None:
    rows = archive(shared, DAILY, time="chainlink_updatedAt_utc", price="eth_price_usd", near="2500")
    assert rows[0] == (1_674_604_523, Fraction("1554.49"))
    assert rows[-1][1] == Fraction("2966.93164033")


def test_one_instrument_of_a_book_and_the_hours_of_a_pool(shared: Path) -> None:
    keys = {"time": "creation_timestamp", "price": "mark_price", "time_unit": "ms"}
    named = {"symbol_column": "instrument_name", "symbol": "ETH-26JAN24-1200-P"}
    assert archive(shared, OPTIONS, **keys, **named) == ((1_704_712_781, Fraction("0.000853")),)
    assert "price 0.0 is not positive; mend the row, or set skip_bad_rows = true" in rejected(
        shared, OPTIONS, **keys
    )
    hours = {"time": "periodStartUnix", "price": "close", "time_unit": "s", "order": "descending"}
    rows = archive(shared, POOL, near="2200", max_gap_s=3_600, **hours)
    assert rows[-1] == (1_704_711_600, Fraction("2223.3277025599814"))


def test_what_is_no_series_is_refused(shared: Path) -> None:
    line = rejected(shared, LIQUIDATIONS, time="timestamp", price="reservePriceUSDPrincipal", time_unit="s")
    assert "line 72: price '' is empty; mend the row, name another column" in line
    line = rejected(shared, MAKER, time="time_period_end", price="price_close")
    assert line.endswith("is of no known format; name it .csv, .csv.gz or .parquet")


# ---------------------------------------------------------------------------------------------- end to end

MINUTES = """Schluss|Ticker|Zeit (Berlin)|Volumen
1.00|COIN/EUR|2024-06-03 15:30:00|7
0.80|COIN/USD|2024-06-03 15:30:00|5
0.80|COIN/USD|2024-06-03 15:31:00|5
1.25|COIN/USD|2024-06-03 15:32:00|5
1.60|COIN/USD|2024-06-03 15:33:00|5
1.60|COIN/USD|2024-06-03 15:34:00|5
"""

OWN = """
schema = "oracle-scenario/1"
id = "own-minutes"
title = "Minutes of a user's own, upside down"
record = "stated"
depth = "series"
mechanism = "constant"

[chain]
id = 1
kind = "l1"
block_time_s = 12

[clock]
start = 2024-06-03T13:30:00Z
end = 2024-06-03T13:34:00Z
step_s = 60

[assets]
COIN = {{ decimals = 18, pair = "COIN/USD" }}

[truth."COIN/USD"]
interp = "step"

[truth."COIN/USD".file]
path = "data/minutes.csv"
sha256 = "{digest}"
time = "Zeit (Berlin)"
tz = "Europe/Berlin"
price = "Schluss"
delimiter = "|"
symbol_column = "Ticker"
symbol = "COIN/USD"
invert = true
near = "1.2"
max_gap_s = 60

[feeds."COIN/USD"]
kind = "constant"
value = "1.25"

[feeds."COIN/USD market"]
kind = "chainlink"
role = "reference"
pair = "COIN/USD"
heartbeat_s = 3600
deviation_bps = 50

[[expect]]
assert = "guard"
id = "G17"
feed = "COIN/USD"
by = 2024-06-03T13:32:00Z

[[expect]]
assert = "deviation_bps"
feed = "COIN/USD"
at = 2024-06-03T13:33:00Z
op = "=="
value = "10000"
"""


def test_minutes_of_another_zone_upside_down_replay_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "minutes.csv").write_text(MINUTES, encoding="utf-8")
    digest = hashlib.sha256(MINUTES.encode()).hexdigest()
    (tmp_path / "own.toml").write_text(OWN.format(digest=digest), encoding="utf-8")
    ran = Inside(monkeypatch, capsys)
    # The file is found beside the scenario, from wherever the command is given.
    first = ran("oracle", "replay", str(tmp_path / "own.toml"), "--json", "--no-matrix")
    assert first.code == 0, first.err
    monkeypatch.chdir(tmp_path)
    again = ran("oracle", "replay", str(tmp_path / "own.toml"), "--json", "--no-matrix")
    assert again.out == first.out
    record = replay_record_from_json(first.out)
    assert record.passed
    assert [d.sha256 for d in record.data] == [digest]
    # 1 / 0.80, 1 / 1.25 and 1 / 1.60.
    assert [row.feeds["COIN/USD"].truth for row in record.timeline] == [
        "1.25",
        "1.25",
        "0.8",
        "0.625",
        "0.625",
    ]


def test_a_file_that_was_touched_since_is_one_line_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_scenario(tmp_path)
    (tmp_path / "prices.csv").write_text("t,p\n2022-05-12T08:00:00,0.4\n", encoding="utf-8")
    line = Inside(monkeypatch, capsys)("oracle", "replay", str(path), "--json").line()
    assert "prices.csv has sha256 " in line
    assert line.endswith("; get the file that the figures were made with")
