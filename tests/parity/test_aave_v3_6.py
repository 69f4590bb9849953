"""Aave V3.6: the model against the pool's bytecode, compiled here from its authors' source."""

from __future__ import annotations

import shutil

import pytest

from simulation.chain import revm
from simulation.chain.parity import ParityResult, Verdict, run_parity
from simulation.chain.solc import is_compiled

needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)
pytestmark = pytest.mark.skipif(
    not is_compiled("aave-v3.6") and shutil.which("node") is None,
    reason="Aave V3.6 is not compiled, and Node.js is not on PATH",
)


def assert_parity(result: ParityResult) -> None:
    assert result.mismatches == 0, result.details
    assert sum(result.verdicts.values()) == result.cases
    assert sum(result.codes.values()) == result.cases - result.verdicts[Verdict.LIQUIDATED]


@needs_revm
def test_model_equals_bytecode_on_revm() -> None:
    result = run_parity("aave-v3.6", "revm", cases=60, seed=9)
    assert_parity(result)
    # A set that hits none of these would prove little.
    assert min(result.tags.values()) > 0, result.tags


@needs_revm
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_model_equals_bytecode_on_revm_in_full(seed: int) -> None:
    result = run_parity("aave-v3.6", "revm", cases=400, seed=seed)
    assert_parity(result)
    assert min(result.tags.values()) > 0, result.tags
    assert min(result.verdicts.values()) >= 60, result.verdicts
    assert {
        "CollateralCannotBeLiquidated",
        "HealthFactorNotBelowThreshold",
        "InvalidBurnAmount",
        "MustNotLeaveDust",
        "Panic(0x11)",
        "PriceOracleSentinelCheckFailed",
        "ReserveInactive",
        "ReservePaused",
        "SelfLiquidation",
        "SpecifiedCurrencyNotBorrowedByUser",
    } <= set(result.codes)


@pytest.mark.chain
@pytest.mark.parametrize("cases", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_model_equals_bytecode_on_a_node(cases: int) -> None:
    result = run_parity("aave-v3.6", "anvil", cases=cases, seed=1)
    assert_parity(result)
    assert result.verdicts[Verdict.LIQUIDATED] > 0


@needs_revm
def test_a_case_depends_on_seed_and_number_only() -> None:
    alone = run_parity("aave-v3.6", "revm", cases=1, seed=5, first=9)
    upto = run_parity("aave-v3.6", "revm", cases=10, seed=5)
    before = run_parity("aave-v3.6", "revm", cases=9, seed=5)
    for verdict in Verdict:
        assert alone.verdicts[verdict] == upto.verdicts[verdict] - before.verdicts[verdict]
    assert {t: upto.tags[t] - before.tags[t] for t in upto.tags} == alone.tags


@needs_revm
def test_json_names_what_was_run_and_adds_up() -> None:
    plain = run_parity("aave-v3.6", "revm", cases=3, seed=2).to_json()
    assert (plain["protocol"], plain["backend"], plain["seed"], plain["cases"]) == ("aave-v3.6", "revm", 2, 3)
    assert plain["mismatches"] == 0
    assert plain["liquidated"] + plain["rejected"] + plain["healthy"] == 3
    assert {"dust", "deficit", "close_factor_half", "multi_asset"} <= set(plain)
    assert "@aave-dao/aave-v3-origin 3.6.0" in plain["contract"]
