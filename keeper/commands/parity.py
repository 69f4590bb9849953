"""``marginline parity``."""

from __future__ import annotations

import json

from rich.table import Table

from contracts_abi.errors import CheckFailed
from keeper.commands.console import progress_bar, stderr_console
from simulation.chain.parity import run_parity
from simulation.chain.toolchain import ensure_toolchain


def run_parity_command(protocol: str, *, backend: str, cases: int, seed: int, as_json: bool) -> None:
    """Run the comparison, print its counts, and fail on a mismatch."""
    console = stderr_console()
    ensure_toolchain(lambda text: console.log(text))
    with progress_bar(console) as bar:
        task = bar.add_task(f"{protocol} on {backend}", total=cases)
        result = run_parity(
            protocol,
            backend,
            cases=cases,
            seed=seed,
            progress=lambda done: bar.update(task, completed=done),
        )
    record = result.to_json()
    if as_json:
        print(json.dumps(record))
    else:
        table = Table("count", "value", title=f"{protocol} on {backend}, seed {seed}", title_justify="left")
        for name, value in record.items():
            if isinstance(value, int | str):
                table.add_row(name, str(value))
        console.print(table)
    if result.mismatches:
        raise CheckFailed(f"parity: {result.mismatches} of {cases} cases mismatch")
