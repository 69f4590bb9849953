"""``marginline demo``."""

from __future__ import annotations

import time
from pathlib import Path

from contracts_abi.errors import CheckFailed
from keeper.commands.chain import ensure_local, seeded
from keeper.commands.console import require_writable, stderr_console, stdout_console, told_progress
from keeper.demo.run import run
from oracle.scenario import load_scenario
from simulation.report.demo import render_demo
from simulation.report.terminal import print_demo

SCENARIO = "black-thursday-2020-03-12"


def run_demo(
    *,
    json_file: Path | None,
    report: Path,
    accounts: int,
    seed: int,
    pace_s: float,
    log: Path | None = None,
    quick: bool = False,
) -> None:
    """Run the demo, show it, write report and record, and fail when an invariant broke."""
    for option, path in (("--json", json_file), ("--report", report)):
        if path is not None:
            require_writable(option, path)
    started = time.monotonic()
    console = stderr_console()
    ensure_local(console, quick=quick)
    scenario = load_scenario(SCENARIO)
    state = seeded(console, accounts, seed, quick=quick)
    with told_progress(console, "starting") as tell:
        record = run(state, scenario, seed=seed, pace_s=pace_s, progress=tell, log=log)
        tell("writing the report", 1.0)
        report.write_text(render_demo(record), encoding="utf-8")
    if json_file is not None:
        json_file.write_text(record.to_json(), encoding="utf-8")
    print_demo(record, stdout_console())
    console.print(f"report: [bold]{report}[/]  ({time.monotonic() - started:.0f} s)", soft_wrap=True)
    if not record.passed:
        broken = [name for name, invariant in record.invariants.items() if not invariant.ok]
        if not record.identity.runtime_equal:
            broken.append("pool_is_the_published_one")
        raise CheckFailed(f"demo: {', '.join(broken)} broken", fix=f"see {report}")
