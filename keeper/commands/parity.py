"""``marginline parity``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contracts_abi.errors import CheckFailed
from keeper.commands.console import progress_bar, stderr_console
from simulation.chain.parity import ORACLE, ParityResult, parity_adapter, parity_names, run_parity
from simulation.chain.solc import ensure_oracle_toolchain, ensure_protocol_toolchain
from simulation.chain.toolchain import ensure_toolchain, node_tools


def run_parity_command(
    name: str, *, backend: str, cases: int, seed: int, as_json: bool, source: Path | None = None
) -> None:
    """Run one comparison, or those of all price sources; print the counts, and fail on a mismatch.

    `source` is a built checkout of contracts that no package ships.
    """
    names = parity_names(name)
    for one in names:
        parity_adapter(one, source)  # refuses before anything is fetched
    console = stderr_console()
    _set_up(console, names)
    results = [_run(console, one, backend, cases, seed, source) for one in names]
    if as_json:
        print(json.dumps(_record(name, results)))
    else:
        for result in results:
            console.print(_table(result))
    if parted := sum(result.mismatches for result in results):
        raise CheckFailed(f"parity: {parted} of {cases * len(results)} cases mismatch")


def _record(name: str, results: list[ParityResult]) -> dict[str, Any]:
    """Return one comparison's record as it is, several under ``runs`` with their sums."""
    if name != ORACLE:
        return results[0].to_json()
    return {
        "cases": sum(result.cases for result in results),
        "mismatches": sum(result.mismatches for result in results),
        "runs": [result.to_json() for result in results],
    }


def _set_up(console: Console, names: tuple[str, ...]) -> None:
    """Fetch what the comparisons need; each kind does without what only another compares with."""

    def report(text: str) -> None:
        console.log(text)

    with node_tools(report) as tools:
        ensure_toolchain(report, tools)
        if any(name.startswith(f"{ORACLE}-") for name in names):
            ensure_oracle_toolchain(report, tools)
        ensure_protocol_toolchain(names, report, tools)


def _run(
    console: Console, name: str, backend: str, cases: int, seed: int, source: Path | None
) -> ParityResult:
    with progress_bar(console) as bar:
        task = bar.add_task(f"{name} on {backend}", total=cases)
        return run_parity(
            name,
            backend,
            cases=cases,
            seed=seed,
            source=source,
            progress=lambda done: bar.update(task, completed=done),
        )


def _table(result: ParityResult) -> Table:
    title = f"{result.protocol} on {result.backend}, seed {result.seed}"
    table = Table("count", "value", title=title, title_justify="left")
    for name, value in result.to_json().items():
        if isinstance(value, int | str):
            table.add_row(name, str(value))
    return table
