"""What all commands show people: a console on standard error, and one kind of progress bar."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def stderr_console() -> Console:
    """Return the console for people; standard output stays free for machines."""
    return Console(stderr=True)


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
    )
