"""``marginline margin methods`` and ``margin check``: what there is, and what it says of a venue's cases."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from contracts_abi.errors import InputError
from keeper.commands.console import plain_table, stdout_console
from simulation.margin import margin_methods
from simulation.margin.vectors import VectorCase, cases_of, reader_of, readers

MAX_NESTING: Final = 32
"""A vector file has six."""

_LEAST_MARGIN_COLUMNS: Final = 14
_LEAST_SOURCE_COLUMNS: Final = 140
_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^\[\]{}"]++', re.DOTALL)
"""Everything that is no bracket of the structure: texts, even one without an end, and what is between."""


def methods(*, as_json: bool) -> None:
    """List the margin methods: what each is founded on, and which parameter sets it brings."""
    rows = method_rows()
    if as_json:
        print(json.dumps(rows))
        return
    console = stdout_console()
    columns = ("id", "parameter sets", "check", "grade", "source")
    # Where there is no room for the sources a word would stand on each line; `--json` has them.
    shown = len(columns) if console.width >= _LEAST_SOURCE_COLUMNS else len(columns) - 1
    table = plain_table(*columns[:shown])
    for column in table.columns[3:]:
        column.no_wrap = False
    for row in rows:
        cells = (
            row["id"],
            ", ".join(row["parameter_sets"]),
            "yes" if row["check"] else "",
            escape(row["grade"]),
            escape(row["source"]),
        )
        table.add_row(*cells[:shown])
    console.print(table)
    console.print(f"{len(rows)} margin methods")


def method_rows() -> list[dict[str, Any]]:
    """Return one record for each margin method, by id."""
    known = readers()
    rows = []
    for kind in margin_methods:
        entry = margin_methods.get(kind)
        rows.append(
            {
                "id": kind,
                "summary": (entry.__doc__ or "").strip().splitlines()[0],
                "grade": str(entry.grade),
                "source": entry.source,
                "parameter_sets": sorted(getattr(entry, "parameter_sets", ())),
                "check": kind in known,
            }
        )
    return rows


def check(method: str, files: Sequence[Path], *, as_json: bool) -> None:
    """Print what a method computes for each case of vector files.

    Raises
    ------
    InputError
        For an unknown method, a file that cannot be read or has another schema; before anything is printed.
    """
    reader_of(method)
    found = [case for file in files for case in read_cases(method, file)]
    if as_json:
        for case in found:
            print(json.dumps(case.record(), allow_nan=False))
        return
    console = stdout_console()
    table = plain_table("case", "im", "mm", "", right=("im", "mm"))
    for column in (1, 2):
        table.columns[column].min_width = _LEAST_MARGIN_COLUMNS
    refused = 0
    for case in found:
        record = case.record()
        if "refused" in record:
            refused += 1
            table.add_row(escape(record["case"]), "", "", f"refused: {escape(record['refused'])}")
        else:
            table.add_row(escape(record["case"]), _four(record["im"]), _four(record["mm"]), _also(record))
    console.print(table)
    console.print(f"{len(found)} case{'' if len(found) == 1 else 's'}, {refused} refused")


def read_cases(method: str, file: Path) -> tuple[VectorCase, ...]:
    """Return the cases of a vector file.

    Raises
    ------
    InputError
        Naming the file and what is wrong with it.
    """
    try:
        text = file.read_text(encoding="utf-8")
        # The parser recurses in C: brackets without end would take the process with them.
        if nesting(text) > MAX_NESTING:
            raise ValueError(f"nested deeper than {MAX_NESTING}")
        value = json.loads(text)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}", fix="give a vector file") from None
    except ValueError as error:
        raise InputError(f"{file}: is no JSON: {error}", fix="give a vector file") from None
    return cases_of(method, file.stem, value, where=str(file))


def nesting(text: str) -> int:
    """Return how deep brackets stand in each other, those within texts left out."""
    steps = (1 if bracket in "[{" else -1 for bracket in _BRACKETS.sub("", text))
    return max(accumulate(steps), default=0)


def _four(value: float) -> str:
    """Return a figure with four places, without a minus before nothing."""
    return f"{value if abs(value) >= 5e-5 else 0.0:,.4f}"


def _also(record: dict[str, Any]) -> str:
    """Return what else a record holds, in a few words."""
    parts = [f"{name.replace('_', ' ')} {_four(record[name])}" for name in ("mtm", "fee") if name in record]
    for name in ("scenario", "bid"):
        if (several := f"{name}s") in record:
            count = len(record[several])
            parts.append(f"{count} {name if count == 1 else several}")
    return ", ".join(parts)
