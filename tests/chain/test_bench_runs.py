"""Every benchmark that needs a chain runs, in a size that takes seconds, and reports what the README shows.

How fast anything is, is not asserted: these run beside other tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


def report(name: str, tmp_path: Path) -> dict[str, Any]:
    """Run one benchmark as a program and return its document."""
    target = tmp_path / "out.json"
    command = [sys.executable, str(BENCH / f"bench_{name}.py"), "--quick", "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    assert document["bench"] == name
    return document


def test_the_lens_is_read_the_same_both_ways(tmp_path: Path) -> None:
    figures = report("lens", tmp_path)["figures"]
    assert figures["calls"] == 4
    assert figures["words"] > 6 * figures["accounts"]  # compared word by word, or it would have failed


def test_a_shock_leads_to_signed_transactions_within_three_round_trips(tmp_path: Path) -> None:
    document = report("path", tmp_path)
    (head,) = document["figures"]["heads"]
    assert min(head["sent"]) >= 1
    # Counts, not times, and so the same on every machine.
    assert head["round_trips"]["max"] <= 3
    assert document["headlines"][0]["met"] is True
    assert sum(step["median"] for name, step in head["steps_ms"].items() if name != "node") == pytest.approx(
        head["own_ms"]["median"]
    )


def test_starting_is_measured_from_a_state_that_was_built_for_it(tmp_path: Path) -> None:
    document = report("start", tmp_path)
    (chain,) = document["figures"]["chains"]
    assert chain["accounts"] == 20
    assert chain["megabytes"] > 1
    assert "marginline --help" in document["figures"]["seconds"]


def test_the_contagion_engine_is_raced_against_numpy_and_the_bytecode(tmp_path: Path) -> None:
    # Every contestant's results are compared before anything is timed, or it would have failed.
    document = report("contagion", tmp_path)
    figures = document["figures"]
    assert figures["step"]["liquidations"] > 0
    assert figures["step"]["largest_difference"] < 1e-9
    assert figures["pruning"]["crash"]["liquidations"] > 0
    assert figures["bytecode"]["account_reads"] == 5
    assert len(figures["sweep"]["sha256"]) == 64
    assert len(document["headlines"]) == 8
