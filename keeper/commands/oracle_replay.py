"""``marginline oracle incidents``, ``replay`` and ``schema``: what oracles did, and what it cost."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from contracts_abi.errors import CheckFailed, InputError
from keeper import __version__
from keeper.commands.console import (
    LateBar,
    plain_table,
    remarked_table,
    stderr_console,
    stdout_console,
)
from oracle.incidents import incident_ids, incident_path
from oracle.scenario import json_schema, load_scenario
from simulation.replay.build import run_replay
from simulation.replay.record import ReplayRecord
from simulation.report.oracle_html import render_replay_html
from simulation.report.oracle_md import render_replay_md
from simulation.report.oracle_poc import render_poc
from simulation.report.oracle_terminal import print_replay

_WIDE_COLUMNS: Final = 110


@dataclass(frozen=True, slots=True)
class IncidentLine:
    """One packaged incident, as it is listed.

    Attributes
    ----------
    id, title
        Name and headline of the scenario.
    date
        Day of the incident, ISO 8601; the start of the scenario's clock where the file states none.
    documented
        Whether its figures rest on published sources throughout.
    record
        How well it is founded: documented, recalled or stated.
    depth
        ``deep``: with positions, economics and a wrong value that arises; ``series``: without one of them.
    mechanism
        What produced the wrong price, in a word.
    """

    id: str
    date: str
    documented: bool
    record: str
    depth: str
    mechanism: str
    title: str


def incident_line(incident_id: str) -> IncidentLine:
    """Return what the list says of a packaged incident.

    Read without checking the whole file: the list must stay quick with many of them, and a replay checks
    what it plays.
    """
    raw: dict[str, Any] = tomllib.loads(incident_path(incident_id).read_text(encoding="utf-8"))
    record = str(raw.get("record", "stated"))
    return IncidentLine(
        id=incident_id,
        date=str(raw.get("date") or raw["clock"]["start"].date()),
        documented=record == "documented",
        record=record,
        depth=str(raw.get("depth", "series")),
        mechanism=str(raw.get("mechanism", "")),
        title=str(raw["title"]),
    )


def incidents(*, as_json: bool) -> None:
    """List the packaged incidents, oldest first."""
    lines = sorted(map(incident_line, incident_ids()), key=lambda line: (line.date, line.id))
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=1, ensure_ascii=False))
        return
    console = stdout_console()
    # A narrow terminal has no room for all of it; the day stands in the id, and the title says most.
    wide = console.width >= _WIDE_COLUMNS
    columns = ("incident", "date", "record", "depth", "mechanism") if wide else ("incident", "depth")
    rows = [
        (
            (escape(line.id), line.date, line.record, line.depth, escape(line.mechanism))
            if wide
            else (escape(line.id), line.depth),
            line.title,
        )
        for line in lines
    ]
    console.print(remarked_table(console, columns, "title", rows) if rows else plain_table(*columns))
    deep = sum(line.depth == "deep" for line in lines)
    console.print(f"{len(lines)} incidents, {deep} deep; replay one with: marginline oracle replay ID")


def schema() -> None:
    """Print the JSON Schema of ``oracle-scenario/1``."""
    print(json.dumps(json_schema(), indent=1, sort_keys=True))


def replay_command(source: str, *, as_json: bool, out: Path | None, html: bool, matrix: bool) -> None:
    """Replay an incident or a scenario file, show it, and fail when an expectation did not come true."""
    if out is not None:
        require_folder("--out", out)
    scenario = load_scenario(source)
    console = stderr_console()
    with LateBar(console) as bar:
        record = run_replay(scenario, tool_version=__version__, matrix=matrix, on_progress=bar.update)
        files = {} if out is None else rendered(record, html=html)
    if out is not None:
        write_all(out, files)
    if as_json:
        sys.stdout.write(record.to_json())
    else:
        print_replay(record, stdout_console())
        if out is not None:
            print(f"written to {out}: {', '.join(files)}")
    broken = [check.text for check in record.checks if not check.ok]
    if broken:
        raise CheckFailed(
            f"{scenario.id}: {len(broken)} of {len(record.checks)} expectations did not come true: "
            f"{', '.join(broken)}"
        )


def rendered(record: ReplayRecord, *, html: bool) -> dict[str, str]:
    """Return the files of a report, path below the folder to text."""
    files = {"report.md": render_replay_md(record), "report.json": record.to_json()}
    if html:
        files["report.html"] = render_replay_html(record)
    return files | {f"poc/{name}": text for name, text in render_poc(record).items()}


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    """Write files below `folder`, making it and what it needs.

    Raises
    ------
    InputError
        If the system refuses.
    """
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"--out: {path} cannot be written: {error.strerror or error}", fix="choose another folder"
            ) from None


def require_folder(option: str, folder: Path) -> None:
    """Refuse a folder that files cannot be written to, before the work begins.

    Raises
    ------
    InputError
        Naming the option and what is wrong.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{option}: {folder} is a file", fix="give the name of a folder")
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InputError(f"{option}: {folder} cannot be written", fix="choose another place")
