"""``marginline chaos``."""

from __future__ import annotations

import json

from rich.table import Table

from contracts_abi.errors import CheckFailed
from keeper.commands.chain import ensure_local, seeded
from keeper.commands.console import progress_bar, stderr_console
from keeper.demo.chaos import run


def run_chaos(
    *, kills: int, seed: int, accounts: int, trace: bool, as_json: bool, quick: bool = False
) -> None:
    """Run the kills, print the counts, and fail when something was done twice or lost."""
    console = stderr_console()
    ensure_local(console, quick=quick)
    state = seeded(console, accounts, seed, quick=quick)
    with progress_bar(console) as bar:
        task = bar.add_task("starting", total=1.0)
        result = run(
            state,
            kills=kills,
            seed=seed,
            trace=trace,
            progress=lambda what, part: bar.update(task, description=what, completed=part),
        )
    record = result.to_json()
    if as_json:
        print(json.dumps(record))
    else:
        table = Table("count", "value", title=f"{kills} kills, seed {seed}", title_justify="left")
        for name, value in record.items():
            table.add_row(name, str(value))
        console.print(table)
    if trace and result.trace is None:
        console.print("no system-call trace: strace is not installed (Debian: apt install strace)")
    if not result.passed:
        raise CheckFailed(f"chaos: {result.duplicates} duplicates, {result.lost} lost")
