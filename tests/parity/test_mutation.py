"""Parity is worth what it finds: each rounding of the model is off by one here, and must be found."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest

from simulation.chain import revm
from simulation.chain.parity import run_cases
from simulation.chain.parity.aave_v3 import AaveV3Parity
from simulation.fixed_point import BPS, RAY, WAD, ceil_div, percent_mul
from simulation.protocols.aave_v3 import V3_0, Rules
from simulation.protocols.aave_v3.math_utils import calculate_compounded_interest, calculate_linear_interest

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

CASES = 1_000
SEED = 3

PACKAGE = "simulation.protocols.aave_v3"


def percent_mul_floor(value: int, bps: int) -> int:
    return value * bps // BPS


def percent_div_floor(value: int, bps: int) -> int:
    return value * BPS // bps


def percent_div_ceil(value: int, bps: int) -> int:
    return ceil_div(value * BPS, bps)


def ray_mul_floor(a: int, b: int) -> int:
    return a * b // RAY


def ray_div_floor(a: int, b: int) -> int:
    return a * RAY // b


def ray_div_ceil(a: int, b: int) -> int:
    return ceil_div(a * RAY, b)


def a_ray_more(function: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda a, b: function(a, b) + 1


def health_factor_floor(collateral_base: int, threshold_bps: int, debt_base: int) -> int:
    return percent_mul(collateral_base, threshold_bps) * WAD // debt_base


def health_factor_in_one_step(collateral_base: int, threshold_bps: int, debt_base: int) -> int:
    return (collateral_base * threshold_bps * WAD + debt_base * BPS // 2) // (debt_base * BPS)


def first_mismatch(rules: Rules = V3_0) -> str | None:
    results = run_cases(AaveV3Parity(rules), "revm", cases=CASES, seed=SEED)
    parted = (m.field for result in results for m in result.mismatches)
    return next(parted, None)


@pytest.mark.parametrize(
    ("module", "name", "mutant"),
    [
        ("reserve_logic", "ray_mul", ray_mul_floor),
        ("reserve_logic", "calculate_linear_interest", a_ray_more(calculate_linear_interest)),
        ("reserve_logic", "calculate_compounded_interest", a_ray_more(calculate_compounded_interest)),
        ("generic_logic", "percent_mul", percent_mul_floor),
        ("liquidation_logic", "percent_mul", percent_mul_floor),
        ("liquidation_logic", "percent_div", percent_div_floor),
        ("liquidation_logic", "percent_div", percent_div_ceil),
    ],
)
def test_a_rounding_off_by_one_is_found(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, mutant: Callable[[int, int], int]
) -> None:
    target = importlib.import_module(f"{PACKAGE}.{module}")
    assert callable(getattr(target, name))
    monkeypatch.setattr(target, name, mutant)
    assert first_mismatch() is not None


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(replace(V3_0, scaled_to_balance=ray_mul_floor), id="balances floored"),
        pytest.param(replace(V3_0, balance_to_scaled=ray_div_floor), id="scaled amounts floored"),
        pytest.param(replace(V3_0, balance_to_scaled=ray_div_ceil), id="scaled amounts ceiled"),
        pytest.param(replace(V3_0, debt_needed=percent_div_floor), id="debt needed floored"),
        pytest.param(replace(V3_0, debt_needed=percent_div_ceil), id="debt needed ceiled"),
        pytest.param(replace(V3_0, health_factor=health_factor_floor), id="health factor floored"),
        pytest.param(replace(V3_0, health_factor=health_factor_in_one_step), id="health factor in one step"),
        pytest.param(
            replace(V3_0, close_factor_hf_threshold_wad=V3_0.close_factor_hf_threshold_wad - 1),
            id="close factor from 0.95 on",
        ),
        pytest.param(
            # No price has a step of one wei of health factor; a ten-millionth is what cases come close to.
            replace(V3_0, close_factor_hf_threshold_wad=V3_0.close_factor_hf_threshold_wad + 10**11),
            id="close factor from a little above 0.95 on",
        ),
    ],
)
def test_a_rule_off_by_one_is_found(rules: Rules) -> None:
    assert first_mismatch(rules) is not None


def test_a_threshold_that_includes_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    validation = importlib.import_module(f"{PACKAGE}.validation_logic")
    monkeypatch.setattr(validation, "HEALTH_FACTOR_LIQUIDATION_THRESHOLD", WAD + 1)
    assert first_mismatch() is not None


def test_the_unmutated_model_is_not_accused() -> None:
    results = run_cases(AaveV3Parity(), "revm", cases=CASES, seed=SEED)
    assert not [m for result in islice(results, 100) for m in result.mismatches]
