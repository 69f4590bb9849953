"""Measure guards over whole series: compiled columns against the guards' own check, one reading at a time.

Both judge the same rounds with a second source beside them, and every judgement is compared before anything
is timed. The rounds are the real ones of ETH/USD where they are at hand, looked at once a minute, else made
from a seed. What a series costs in memory is the difference between a short and a longer file, each
read and judged in parts by a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from _common import ROOT, Headline, Report, Summary, parser, race, ratios, run, table

from oracle.columns import Columns, columns_of, every, joined
from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.judge_columns import SERIES_GUARDS, Code, Second, judge_columns, judge_readings
from oracle.sources import sources
from oracle.sources.recorded import RecordedFile, RecordedSource
from oracle.stream import stream
from oracle.types import FeedKind, GuardedPrice, PriceObs, PriceStatus

ROUNDS = ROOT.parent / "shared/data/chainlink_rounds/0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419.csv.gz"
CANDLES = ROOT.parent / "shared/data/hourly/ETHUSDT_1h_2022_2025.csv.gz"
CONTEXT = FeedContext(0, heartbeat_s=3_600, min_answer=10**6, max_answer=10**14, description="ETH / USD")
PLAIN, COLUMNS, LOADED, PARTS = "check, one by one", "columns", "row by row", "in parts"


def real_series() -> tuple[Columns, Columns]:
    """Return ETH/USD's rounds and hourly closes, both looked at once a minute."""
    rounds = RecordedSource.chainlink_rounds(ROUNDS, "ETH", "USD")
    closes: RecordedSource = sources.build(
        {
            "kind": "recorded",
            "base": "ETH",
            "quote": "USD",
            "path": CANDLES,
            "time": "timestamp",
            "price": "close",
            "time_unit": "iso",
            "time_offset_s": 3_600,
            "decimals": 2,
        }
    )
    series = columns_of([r for r in rounds.readings() if isinstance(r, PriceObs)])
    looked = joined(list(every([series], 60)))
    return looked, columns_of(closes.readings()).seen_at(looked.observed_at)


def made_series(rows: int, seed: int) -> tuple[Columns, Columns]:
    """Return two walks of a price, looked at once a minute; rounds last a quarter of an hour."""
    rng = np.random.default_rng(seed)
    walk = 2_000e8 * np.exp(np.cumsum(rng.normal(0, 2e-4, rows)))
    times = 1_700_000_000 + 60 * np.arange(rows)

    def series(source: str, hold: int) -> Columns:
        held = np.arange(rows) // hold * hold
        return columns_of(
            [
                PriceObs(
                    "ETH",
                    "USD",
                    int(walk[i]),
                    8,
                    FeedKind.PUSH,
                    source,
                    int(times[i]),
                    int(t),
                    None,
                    (6, 1 + int(i)),
                )
                for t, i in zip(times, held, strict=True)
            ]
        )

    return series("rounds", 15), series("closes", 60)


def measure(rows: int, long_rows: int, turns: int, seconds: float, seed: int) -> Report:
    """Race columns against single readings, parts against rows, and weigh a short and a long file."""
    real = ROUNDS.is_file() and CANDLES.is_file()
    whole, closes = real_series() if real else made_series(rows, seed)
    several: list[GuardModel] = [guards.build({"kind": kind}) for kind in SERIES_GUARDS]
    few, beside = whole.take(slice(0, rows)), closes.take(slice(0, rows))
    alone = judge_columns(beside, several, CONTEXT)
    second = Second(beside, alone.accepted, alone.only_jumped)
    readings = list(few.readings())
    seconds_beside = list(zip(beside.readings(), alone.accepted, alone.only_jumped, strict=True))
    compare(few, several, second, judge_readings(readings, several, CONTEXT, seconds_beside))
    taken, _ = race(
        {
            PLAIN: lambda: judge_readings(readings, several, CONTEXT, seconds_beside),
            COLUMNS: lambda: judge_columns(few, several, CONTEXT, second),
        },
        turns,
        seconds,
    )
    ratio = ratios(taken[PLAIN], taken[COLUMNS])
    judged = len(few) * len(several)
    rate = Summary.of([judged / t / 1e6 for t in taken[COLUMNS]])
    shown = table(
        f"{len(few):,} observations, {len(several)} guards", "", "ms", "M obs x guards / s", "ratio"
    )
    for name in (PLAIN, COLUMNS):
        milliseconds = Summary.of(taken[name]).scaled(1e3)
        each = Summary.of([judged / t / 1e6 for t in taken[name]])
        shown.add_row(name, milliseconds.text(), each.text(), f"{ratio.text(0)} x" if name == COLUMNS else "")
    files, weights = measure_files(long_rows, turns, seconds)
    what = "real rounds of ETH/USD, looked at once a minute" if real else "rounds made from a seed"
    return Report(
        (
            Headline(
                f"{len(several)} guards over {len(few):,} observations, against a plain loop of their checks",
                ratio,
                "x",
                at_least=20,
                note=f"{what}; the loop writes each finding's evidence too",
            ),
            Headline("guards over columns, one thread", rate, "M obs x guards / s"),
            Headline("series read in parts, against row by row", files, "x", note="CSV of rounds, ascending"),
            Headline(
                f"memory for {long_rows:,} rows beyond that for {long_rows * 2 // 5:,}, judged in parts",
                Summary.of([(weights[1] - weights[0]) / 1024]),
                "MiB",
                at_most=16,
                note=f"{weights[1] / 1024:,.0f} MiB in all, Python and its libraries included",
            ),
        ),
        {
            "observations": len(few),
            "guards": [g.kind for g in several],
            "real": real,
            "ratio": asdict(ratio),
            "rate": asdict(rate),
            "parts": asdict(files),
            "peak_kib": weights,
        },
        (shown,),
    )


def compare(
    few: Columns, several: Sequence[GuardModel], second: Second, plain: Sequence[GuardedPrice]
) -> None:
    """Stop unless columns and single readings say the same of every row."""
    found = judge_columns(few, several, CONTEXT, second)
    order = {"ok": Code.OK, "violated": Code.VIOLATED, "not_applicable": Code.NOT_APPLICABLE}
    for i, judged in enumerate(plain):
        said = [order[f.status.value] for f in judged.findings]
        stands = judged.status is PriceStatus.OK
        if said != list(found.codes[:, i]) or stands != found.accepted[i]:
            raise SystemExit(f"row {i}: columns say {found.codes[:, i]}, the guards {said}")


def write_rounds(path: Path, rows: int) -> None:
    """Write a dump of rounds, oldest first."""
    rng = np.random.default_rng(7)
    prices = (2_000e8 * np.exp(np.cumsum(rng.normal(0, 2e-4, rows)))).astype(np.int64)
    with path.open("w", encoding="utf-8") as file:
        file.write("round,answer,update\n")
        for i, price in enumerate(prices):
            file.write(f"{(6 << 64) + 1 + i},{price},{1_500_000_000 + 60 * i}\n")


def recorded(path: Path) -> RecordedFile:
    """Return how such a dump is read."""
    return RecordedFile(
        base="ETH",
        quote="USD",
        path=path,
        time="update",
        price="answer",
        round="round",
        decimals=8,
        price_is="raw",
    )


def judge_file(path: Path) -> int:
    """Read and judge a dump in parts; returns how many rows stand."""
    several = [guards.build({"kind": kind}) for kind in SERIES_GUARDS]
    history, stood = None, 0
    for part in stream(recorded(path)):
        judged = judge_columns(part, several, CONTEXT, history=history)
        history, stood = judged.history, stood + int(judged.accepted.sum())
    return stood


def measure_files(long_rows: int, turns: int, seconds: float) -> tuple[Summary, tuple[int, int]]:
    """Return how much faster parts are read than rows, and the peak KiB of a short and a long file."""
    with tempfile.TemporaryDirectory(prefix="marginline-bench-") as folder:
        short, long = Path(folder) / "short.csv", Path(folder) / "long.csv"
        write_rounds(short, long_rows * 2 // 5)
        write_rounds(long, long_rows)
        taken, _ = race(
            {
                LOADED: lambda: sources.build({"kind": "recorded", **recorded(short).model_dump()}),
                PARTS: lambda: list(stream(recorded(short))),
            },
            turns,
            seconds,
        )
        peaks = []
        for path in (short, long):
            command = [sys.executable, __file__, "--weigh", str(path)]
            peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        return ratios(taken[LOADED], taken[PARTS]), (peaks[0], peaks[1])


def weigh(path: Path) -> None:
    """Judge a dump and print this process's peak memory in KiB."""
    if not judge_file(path):
        raise SystemExit("nothing stood")
    # Not ru_maxrss: that begins with what the parent had when it forked.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=20_000, help="observations that are judged both ways")
    options.add_argument("--long", type=int, default=5_000_000, help="rows of the long file")
    options.add_argument("--seconds", type=float, default=0.3, help="length of one turn")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--weigh", type=Path, metavar="FILE", help="judge a dump, print the peak memory in KiB"
    )
    given = options.parse_args(arguments)
    if given.weigh is not None:
        weigh(given.weigh)
        return
    if given.quick:
        given.rows, given.long, given.turns, given.seconds = 500, 20_000, 1, 0.0
    run(
        "oracle",
        lambda: measure(given.rows, given.long, given.turns, given.seconds, given.seed),
        given.json,
    )


if __name__ == "__main__":
    main()
