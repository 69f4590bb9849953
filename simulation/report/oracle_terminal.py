"""A replay in the terminal: headline, expectations, cost, and which guard would have stopped it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulation.replay.record import ReplayRecord
from simulation.replay.text import duration_text, stamp, usd_text
from simulation.report.oracle_view import ECONOMICS_COLUMNS, RECORD_WORDS, economics_rows, headline

VERDICT_STYLES = {"stops": "green", "detects": "green", "reduces": "yellow", "worse": "red"}


def print_replay(record: ReplayRecord, console: Console) -> None:
    """Print `record` as tables; whether the expectations came true is the last line."""
    console.print(Text(record.title, style="bold"))
    console.print(Text(RECORD_WORDS.get(record.record, record.record), style="dim"))
    steps = f"{len(record.timeline)} steps of {duration_text(record.step_s)}"
    console.print(Text(f"{stamp(record.start)} to {stamp(record.end)}, {steps}", style="dim"))
    tables = [_headline(record)] if headline(record) else []
    if record.fired:
        tables.append(_fired(record))
    if record.economics is not None:
        tables.append(_economics(record))
    if record.matrix is not None:
        tables.append(_matrix(record))
    if record.checks:
        tables.append(_checks(record))
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    console.print(_verdict(record))


def _table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def _headline(record: ReplayRecord) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for value, name, remark in headline(record):
        table.add_row(name, value, Text(remark))
    return table


def _fired(record: ReplayRecord) -> Table:
    table = _table("Guards violated, first time each", "at", "feed", "guard", "message")
    for f in record.fired:
        table.add_row(stamp(f.t), Text(f.feed), f"{f.guard} {f.name}", Text(f.message))
    return table


def _economics(record: ReplayRecord) -> Table:
    assert record.economics is not None
    title = f"What it cost ({record.economics.model})"
    table = _table(title, *ECONOMICS_COLUMNS, right=ECONOMICS_COLUMNS[1:])
    for row in economics_rows(record):
        table.add_row(*row)
    return table


def _matrix(record: ReplayRecord) -> Table:
    assert record.matrix is not None
    title = "Which single guard would have stopped it"
    amounts = ("bad debt", "wrongly seized")
    table = _table(title, "guard", "alone it", "fires at", *amounts, right=amounts)
    told = [row for row in record.matrix.alone if row.verdict != "not applicable"]
    order = list(VERDICT_STYLES)
    # What changes the outcome stands first, and the earliest of it.
    told.sort(
        key=lambda row: (
            order.index(row.verdict) if row.verdict in order else len(order),
            row.first_fired is None,
            row.first_fired or 0,
            row.guard,
        )
    )
    for row in told:
        table.add_row(
            f"{row.guard} {row.name}",
            Text(row.verdict, style=VERDICT_STYLES.get(row.verdict, "default")),
            "" if row.first_fired is None else stamp(row.first_fired),
            "" if row.bad_debt_usd is None else usd_text(row.bad_debt_usd),
            "" if row.wrongly_seized_usd is None else usd_text(row.wrongly_seized_usd),
        )
    left = len(record.matrix.alone) - len(told)
    if left:
        table.caption = f"{left} more have no inputs in this scenario"
        table.caption_justify = "left"
    return table


def _checks(record: ReplayRecord) -> Table:
    table = _table("Expected and actual", "", "expectation", "expected", "actual")
    for check in record.checks:
        sign = Text("✓", style="green") if check.ok else Text("✗", style="bold red")
        table.add_row(sign, Text(check.text), Text(check.expected), Text(check.actual))
    return table


def _verdict(record: ReplayRecord) -> Text:
    total = len(record.checks)
    if not total:
        return Text("the scenario states no expectation", style="dim")
    broken = sum(not check.ok for check in record.checks)
    if broken:
        return Text(f"{broken} of {total} expectations did not come true", style="bold red")
    return Text(f"all {total} expectations came true", style="bold green")
