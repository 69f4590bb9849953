"""``marginline oracle incidents``, ``replay`` and ``schema``: what oracles did, and what it cost."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape

from keeper.commands.console import plain_table, remarked_table, stdout_console
from oracle.incidents import incident_ids, incident_path
from oracle.scenario import Scenario


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
        ``deep``: with positions and economics; ``series``: prices and guards only.
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
    rows = [
        ((escape(line.id), line.date, line.record, line.depth, escape(line.mechanism)), line.title)
        for line in lines
    ]
    columns = ("incident", "date", "record", "depth", "mechanism")
    console.print(remarked_table(console, columns, "title", rows) if rows else plain_table(*columns))
    deep = sum(line.depth == "deep" for line in lines)
    console.print(f"{len(lines)} incidents, {deep} deep; replay one with: marginline oracle replay ID")


def schema() -> None:
    """Print the JSON Schema of ``oracle-scenario/1``."""
    print(json.dumps(Scenario.model_json_schema(by_alias=True), indent=1, sort_keys=True))
