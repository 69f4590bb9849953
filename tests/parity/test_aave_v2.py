"""Aave V2: the model against the bytecode that its authors published, and slips that the comparison must see.

The plain run draws a few dozen cases. All: ``MARGINLINE_CASES=400 pytest`` on this file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from simulation.chain import revm
from simulation.chain.aave_v2 import PACKAGE
from simulation.chain.parity import ParityResult, Verdict, run_parity
from simulation.fixed_point import BPS
from simulation.protocols.aave_v2 import (
    collateral_manager,
    generic_logic,
    interest_rate_strategy,
    reserve_logic,
)
from simulation.protocols.aave_v3.math_utils import calculate_compounded_interest as compounded_v3

needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)
pytestmark = pytest.mark.skipif(
    not PACKAGE.installed() and shutil.which("npm") is None,
    reason=f"{PACKAGE.name} is not installed, and npm is not on PATH",
)

CASES = int(os.environ.get("MARGINLINE_CASES", "60"))
NODE_CASES = max(5, 3 * CASES // 20 if CASES > 60 else 0)


def assert_parity(result: ParityResult) -> None:
    assert result.mismatches == 0, result.details
    assert sum(result.verdicts.values()) == result.cases
    assert sum(result.codes.values()) == result.cases - result.verdicts[Verdict.LIQUIDATED]


@needs_revm
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_model_equals_bytecode_on_revm(seed: int) -> None:
    result = run_parity("aave-v2", "revm", cases=2 * CASES, seed=seed)
    assert_parity(result)
    # A set that hits none of these would prove little.
    assert min(result.tags.values()) > 0, result.tags
    assert min(result.verdicts.values()) >= CASES // 12, result.verdicts
    assert {"42", "23"} <= set(result.codes)
    if CASES >= 400:
        assert {"2", "42", "43", "44", "45", "23", "64"} == set(result.codes)


@pytest.mark.chain
@pytest.mark.slow
def test_model_equals_bytecode_on_a_node() -> None:
    result = run_parity("aave-v2", "anvil", cases=NODE_CASES, seed=1)
    assert_parity(result)
    assert result.verdicts[Verdict.LIQUIDATED] > 0


@needs_revm
def test_a_case_depends_on_seed_and_number_only() -> None:
    alone = run_parity("aave-v2", "revm", cases=1, seed=5, first=9)
    upto = run_parity("aave-v2", "revm", cases=10, seed=5)
    before = run_parity("aave-v2", "revm", cases=9, seed=5)
    assert {t: upto.tags[t] - before.tags[t] for t in upto.tags} == alone.tags
    assert_parity(upto)


def floored(value: int, percentage_bps: int) -> int:
    """Return a share rounded down, not half up."""
    return value * percentage_bps // BPS


SLIPS: dict[str, tuple[Any, str, Callable[..., Any] | int]] = {
    "close factor": (collateral_manager, "LIQUIDATION_CLOSE_FACTOR_BPS", 5_001),
    "share rounded down": (collateral_manager, "checked_percent_mul", floored),
    "counted value rounded down": (generic_logic, "checked_percent_mul", floored),
    "interest of V3": (reserve_logic, "calculate_compounded_interest", compounded_v3),
    "rate's share rounded down": (interest_rate_strategy, "percent_mul", floored),
}


@needs_revm
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_of_one_rounding_is_seen(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, wrong = SLIPS[slip]
    monkeypatch.setattr(module, name, wrong)
    # Half of an odd debt is what few cases come down to.
    cases = 120 if slip == "share rounded down" else 25
    assert run_parity("aave-v2", "revm", cases=cases, seed=1).mismatches > 0
