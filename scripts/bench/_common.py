"""What the benchmarks share: taking turns, medians and ranges, the machine's state, one form of report.

Every figure is a ratio, or stands beside one, of contestants that took turns within one run, so that a
neighbour's load or a slow machine falls on all of them. A benchmark returns a `Report`; `run` prints it and
writes it as JSON. `python scripts/bench` runs them all and puts their headlines into one table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Summary:
    """Median and range of what was measured in turns."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Summary:
        """Return the same in another unit."""
        return Summary(self.median * factor, self.min * factor, self.max * factor)

    def text(self, digits: int | None = None) -> str:
        """Return ``median (min-max)``; three significant digits unless told how many decimals."""

        def one(value: float) -> str:
            if digits is not None:
                return f"{value:,.{digits}f}"
            decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
            return f"{value:,.{decimals}f}"

        if self.min == self.max:
            return one(self.median)
        return f"{one(self.median)} ({one(self.min)}-{one(self.max)})"


@dataclass(frozen=True, slots=True)
class Headline:
    """One line of the table that all benchmarks make together.

    Attributes
    ----------
    what
        What was measured, with the baseline where it is a ratio.
    value
        The figure.
    unit
        ``x`` for a ratio.
    at_least, at_most
        What is asked for, None where nothing is.
    note
        What a reader has to know to believe it.
    """

    what: str
    value: Summary
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median is what is asked for; None where nothing is asked for."""
        if self.at_least is None and self.at_most is None:
            return None
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.value.median <= high

    @property
    def asked(self) -> str:
        """What is asked for, as text."""
        if self.at_least is not None:
            return f"at least {self.at_least:g} {self.unit}"
        return "" if self.at_most is None else f"at most {self.at_most:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found.

    Attributes
    ----------
    headlines
        For the table of all benchmarks.
    figures
        Everything measured, JSON types only.
    tables
        For people; not in the JSON.
    """

    headlines: tuple[Headline, ...]
    figures: Mapping[str, Any]
    tables: tuple[Table | str, ...] = field(default=())


# ----------------------------------------------------------------------------------------------- taking turns


def busy_jiffies() -> int | None:
    """Return the machine's busy time so far in clock ticks, None where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    ticks = [int(f) for f in fields]
    return sum(ticks[:8]) - ticks[3] - ticks[4]


def turn(work: Callable[[], object], seconds: float) -> tuple[float, float | None]:
    """Run `work` for about `seconds`; returns seconds per run and the cores that others left free."""
    busy, cpu, start = busy_jiffies(), time.process_time(), time.perf_counter()
    runs = 0
    while True:
        work()
        runs += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            break
    after = busy_jiffies()
    free = None
    if busy is not None and after is not None:
        others = (after - busy) / os.sysconf("SC_CLK_TCK") - (time.process_time() - cpu)
        free = (os.cpu_count() or 1) - max(0.0, others / elapsed)
    return elapsed / runs, free


def race(
    contestants: Mapping[str, Callable[[], object]], turns: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Let the contestants take turns; returns seconds per run and free cores, by contestant and turn."""
    for work in contestants.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    free: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, work in contestants.items():
            each, cores = turn(work, seconds)
            taken[name].append(each)
            if cores is not None:
                free[name].append(cores)
    return taken, free


def ratios(baseline: Sequence[float], contestant: Sequence[float]) -> Summary:
    """Return how many times faster `contestant` was than `baseline`, turn by turn."""
    return Summary.of([b / c for b, c in zip(baseline, contestant, strict=True)])


# -------------------------------------------------------------------------------------------------- reporting


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, with the load at this moment."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine_line(known: Mapping[str, Any]) -> str:
    """Return one line for people about a machine."""
    loads = " ".join(str(load) for load in known["load"])
    return (
        f"{known['processor']}, {known['cores']} cores, load {loads}, "
        f"Python {known['python']}, {known['system']}"
    )


def table(title: str, *columns: str) -> Table:
    """Return an empty table: the first column is text, the others are figures."""
    made = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left", no_wrap=bool(i))
    return made


def headline_table(headlines: Sequence[Headline], title: str = "Benchmarks") -> Table:
    """Return headlines as a table."""
    made = Table(title=title, title_justify="left")
    made.add_column("measured", min_width=24)
    made.add_column("median (range)", justify="right", no_wrap=True)
    made.add_column("asked for", justify="right")
    made.add_column("note")
    for line in headlines:
        colour = {True: "green", False: "red", None: "default"}[line.met]
        made.add_row(line.what, f"[{colour}]{line.value.text()} {line.unit}[/]", line.asked, line.note)
    return made


def headline_from(entry: Mapping[str, Any]) -> Headline:
    """Return a headline that was written as JSON."""
    known = {key: value for key, value in entry.items() if key not in ("value", "met")}
    return Headline(value=Summary(**entry["value"]), **known)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--turns", type=int, default=7, help="how often each contestant has its turn")
    made.add_argument("--quick", action="store_true", help="seconds only: shows that it runs, not how fast")
    made.add_argument("--full", action="store_true", help="also what takes minutes")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return made


def console() -> Console:
    """Return a console that does not cut tables which go to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 140)


def run(name: str, measure: Callable[[], Report], target: Path | None) -> None:
    """Measure, print, and write the JSON document where one is asked for."""
    before = machine()
    report = measure()
    known = before | {"load_after": [round(load, 2) for load in os.getloadavg()]}
    out = console()
    for part in report.tables:
        out.print(part, highlight=False)
    out.print(headline_table(report.headlines, title=name))
    out.print(machine_line(known), highlight=False)
    if target is not None:
        document = {
            "bench": name,
            "machine": known,
            "headlines": [asdict(line) | {"met": line.met} for line in report.headlines],
            "figures": report.figures,
        }
        target.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
