"""Tables in a narrow terminal: nothing is cut, and nothing is left out."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from keeper.commands.console import plain_table, print_whole, stderr_console, told_progress


def printed(table: Table, width: int, *, key: int = 1) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    print_whole(console, table, key=key)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def figures() -> Table:
    table = plain_table("venue", "kind", "liquidated", "bad debt", "gas", right=("gas",))
    table.add_row("aave", "v3", "12.50 M", "413.73 k", "1")
    table.add_row("morpho", "blue", "2.48 k", "148.96 k", "22")
    return table


def test_a_table_that_fits_is_one_table() -> None:
    lines = printed(figures(), 80)
    assert len(lines) == 4
    assert lines[2] == "aave    v3    12.50 M     413.73 k    1"


def test_columns_without_room_go_below_beside_the_first() -> None:
    lines = printed(figures(), 26)
    assert all(len(line) <= 26 for line in lines)
    assert [line for line in lines if line.startswith("morpho")] == [
        "morpho  blue  2.48 k",
        "morpho  148.96 k   22",
    ]
    assert [line.split() for line in lines if line.startswith("venue")] == [
        ["venue", "kind", "liquidated"],
        ["venue", "bad", "debt", "gas"],
    ]


def test_all_columns_that_name_a_row_are_repeated() -> None:
    lines = printed(figures(), 26, key=2)
    assert [line.split()[:2] for line in lines if line.startswith("morpho")] == [["morpho", "blue"]] * 3


def test_a_text_that_no_line_holds_is_broken_and_not_cut() -> None:
    table = plain_table("target", "value", "source")
    table.add_row("price", "0.74", "hourly candles of one venue, high of the hour from 17:00 on")
    lines = printed(table, 30)
    assert all(len(line) <= 30 for line in lines)
    assert "…" not in "".join(lines)
    told = " ".join(" ".join(lines).replace("─", "").split())
    assert "price 0.74" in told
    assert told.endswith("price hourly candles of one venue, high of the hour from 17:00 on")


def test_without_a_terminal_progress_is_plain_lines() -> None:
    console = Console(file=StringIO(), width=80)
    with told_progress(console, "starting") as tell:
        for k in range(9):
            tell("mining [the] crash", k / 8)
        tell("verifying", 0.5)
        tell("verifying", 0.6)
        tell("mining [the] crash", 0.0)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines() == [
        "mining [the] crash",
        *(f"mining [the] crash: {percent} %" for percent in (25, 50, 75, 100)),
        "verifying",
        "mining [the] crash",
    ]


def test_on_a_terminal_progress_is_a_bar() -> None:
    console = Console(file=StringIO(), width=80, force_terminal=True)
    with told_progress(console, "starting") as tell:
        tell("mining", 0.5)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "mining" in shown
    assert "50%" in shown


def test_what_is_logged_names_no_line_of_our_source(capsys: pytest.CaptureFixture[str]) -> None:
    stderr_console().log("installing node")
    said = capsys.readouterr().err
    assert "installing node" in said
    assert ".py" not in said
