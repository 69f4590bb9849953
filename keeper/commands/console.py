"""What all commands show people: the consoles, one kind of progress bar, and how values are written."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from contracts_abi.errors import InputError
from simulation.fixed_point import WAD

PIPE_COLUMNS: Final = 180
"""Width of what goes into a pipe or a file, where no terminal sets one; COLUMNS overrides."""

ACTION_COLOURS: Final[Mapping[str, str]] = {
    "act": "green",
    "arm": "yellow",
    "hold": "red",
    "leave": "default",
}

_LONG_ADDRESS_COLUMNS: Final = 170
_LEAST_REMARK_COLUMNS: Final = 24


def stderr_console() -> Console:
    """Return the console for people; standard output stays free for machines.

    What it logs has the time and no line of our source, which says nothing to whoever reads it.
    """
    return Console(stderr=True, log_path=False)


def stdout_console() -> Console:
    """Return the console for a command's result."""
    return Console(width=shutil.get_terminal_size((PIPE_COLUMNS, 50)).columns, highlight=False)


def progress_bar(console: Console) -> Progress:
    """Return the one progress bar that all commands show."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # A pipe or a file would get an empty line for it.
        disable=not console.is_terminal,
    )


class LateBar:
    """A progress bar that appears only when the work takes longer than two seconds.

    Attributes
    ----------
    shown
        Whether it has appeared.
    """

    PATIENCE_S: Final = 2.0

    def __init__(self, console: Console) -> None:
        self._bar = progress_bar(console)
        self._started = time.monotonic()
        self.shown = False
        self._task = self._bar.add_task("", total=1)

    def __enter__(self) -> LateBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self._bar.stop()

    def update(self, what: str, done: int, total: int) -> None:
        """Say what is being done and how much of it is."""
        if not self.shown and time.monotonic() - self._started > self.PATIENCE_S:
            self.shown = True
            self._bar.start()
        if self.shown:
            self._bar.update(self._task, description=what, completed=done, total=total)


@contextlib.contextmanager
def told_progress(console: Console, first: str) -> Iterator[Callable[[str, float], None]]:
    """Show how far one long piece of work is: a bar on a terminal, else a plain line now and then.

    Yields what is told the part of the work that is under way and how much of it is done, 0 to 1. A line is
    written where another part begins, and at each quarter of one.

    Parameters
    ----------
    console
        For people.
    first
        What the bar says until it is told something.
    """
    if console.is_terminal:
        with progress_bar(console) as bar:
            task = bar.add_task(first, total=1.0)
            yield lambda what, part: bar.update(task, description=what, completed=part)
        return
    said: tuple[str, int] | None = None

    def tell(what: str, part: float) -> None:
        nonlocal said
        quarter = min(int(4.0 * part), 4)
        if said is not None and said[0] == what and quarter <= said[1]:
            return
        begins = said is None or said[0] != what
        said = (what, quarter)
        text = what if begins else f"{what}: {25 * quarter} %"
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    yield tell


def require_writable(option: str, path: Path) -> None:
    """Refuse a file to be written at the end of a run that could not be written now.

    Raises
    ------
    InputError
        Naming the option and what is wrong.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{option}: no folder {folder}", fix="create it first")
    if path.is_dir():
        raise InputError(f"{option}: {path} is a folder", fix="give the name of a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{option}: {path} cannot be written", fix="choose another place")


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts, of which there may be one: ``1 path``, ``2 paths``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a table without side lines: rows can be copied, and 80 columns hold more of them.

    Parameters
    ----------
    columns
        Names, in order. Their cells are never broken over lines.
    right
        Those of them that are aligned to the right.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column in right else "left")
    return table


def remarked_table(
    console: Console,
    columns: Sequence[str],
    remark: str,
    rows: Sequence[tuple[Sequence[str], str]],
    *,
    right: Sequence[str] = (),
) -> Table:
    """Return a table whose last column takes the room that is left, or is left out where that is too little.

    Rich would take missing room from all columns alike, and cut addresses to pieces.

    Parameters
    ----------
    columns, right
        As of `plain_table`.
    remark
        Name of the last column.
    rows
        Cells with markup, and the remark as plain text.
    """
    table = plain_table(*columns, right=right)
    for cells, _ in rows:
        table.add_row(*cells)
    room = console.width - console.measure(table, options=console.options.update(width=10_000)).maximum - 2
    if room < _LEAST_REMARK_COLUMNS or not any(text for _, text in rows):
        return table
    table = plain_table(*columns, remark, right=right)
    for cells, text in rows:
        cell = Text(text)
        cell.truncate(room, overflow="ellipsis")
        table.add_row(*cells, cell)
    return table


def print_whole(console: Console, table: Table, *, key: int = 1) -> None:
    """Print a table of which nothing may be cut: columns for which a line has no room go below.

    Rich would cut figures and leave columns out where a terminal is narrow; half of a figure is a wrong one.

    Parameters
    ----------
    table
        Of `plain_table`.
    key
        How many of its first columns say what a row is; they stand before each part again. Of a part that is
        too wide even so, cells are broken over lines.
    """
    unlimited = console.options.update(width=10_000)
    widths = [column_width(console, table, i) for i in range(len(table.columns))]
    if console.measure(table, options=unlimited).maximum <= console.width:
        console.print(table)
        return
    room = console.width - sum(widths[:key])
    parts: list[list[int]] = [[]]
    for i in range(key, len(widths)):
        if parts[-1] and sum(widths[j] for j in parts[-1]) + widths[i] > room:
            parts.append([])
        parts[-1].append(i)
    for part in parts:
        shown = plain_table()
        fits = sum(widths[i] for i in part) <= room
        for i in (*range(key), *part):
            old = table.columns[i]
            shown.add_column(old.header, justify=old.justify, no_wrap=fits, overflow="fold")
        cells = [list(table.columns[i].cells) for i in (*range(key), *part)]
        for row in zip(*cells, strict=True):
            shown.add_row(*row)
        console.print(shown)


def column_width(console: Console, table: Table, index: int) -> int:
    """Return how many characters a column of a table takes, with the space and the rule beside it."""
    column = table.columns[index]
    cells = (column.header, *column.cells)
    return 2 + max(
        console.measure(cell, options=console.options.update(width=10_000)).maximum for cell in cells
    )


def address_text(address: str, columns: int) -> str:
    """Return an address whole where the terminal is wide, else its ends: ``0x0123…cdef``."""
    if columns >= _LONG_ADDRESS_COLUMNS or len(address) < 12:
        return address
    return f"{address[:6]}…{address[-4:]}"


def health_text(health_factor_wad: int | None) -> str:
    """Return a health factor in at most six characters: exact to four places where it matters."""
    if health_factor_wad is None:
        return "?"
    if health_factor_wad >= 100 * WAD:
        return ">100"
    # Rounded down: 0.99996 is liquidatable and must not read 1.0000.
    places = Decimal("0.0001") if health_factor_wad < 10 * WAD else Decimal("0.01")
    return str((Decimal(health_factor_wad) / WAD).quantize(places, ROUND_DOWN))


def amount_text(raw: int, decimals: int) -> str:
    """Return an amount of tokens for people: two places above 1, four significant digits below."""
    amount = Decimal(raw).scaleb(-decimals)
    if abs(amount) >= 1 or raw == 0:
        return f"{amount:,.2f}"
    return f"{amount:.4g}"
