"""A sweep as a process that is made to be stopped; run by test_sweep.py, not a test.

Its arguments are the folder, the number of workers, and a JSON of what the model is to do wrong. It ends like
the command does: one line on standard error, and an exit code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from contracts_abi.errors import MarginlineError
from keeper.sweeps.run import Progress, sweep
from simulation.backtest.plan import SweepPlan, make_plan
from tests.sweep_tasks import SCENARIO


def plan_of(play: dict[str, Any], *, seed: int = 7, task: str = "playing") -> SweepPlan:
    """Return twelve tasks: three shocks, four chunks of up to ten of 35 paths."""
    scenario = SCENARIO | {"play": SCENARIO["play"] | play}
    over = ["market.shock=0.1:0.3:3"]
    return make_plan(scenario, over, task=f"tests.sweep_tasks:{task}", paths=35, chunk=10, seed=seed)


def tell(progress: Progress) -> None:
    """Say how many tasks are kept, so that the test knows when to interfere."""
    print(progress.done, flush=True)


def main() -> None:
    """Run the sweep."""
    folder, workers, play = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    try:
        outcome = sweep(plan_of(play), folder=folder, workers=workers, on_progress=tell)
        print(outcome.require_whole().sha256)
    except MarginlineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
