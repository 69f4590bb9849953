"""Parity of Aave V3.6 is worth what it finds: each rounding and rule is wrong here, and must be found."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from simulation.chain import revm
from simulation.chain.parity import run_cases
from simulation.chain.parity.aave_v3_6 import AaveV36Parity
from simulation.chain.solc import is_compiled
from simulation.fixed_point import (
    BPS,
    WAD,
    ceil_div,
    percent_div,
    percent_mul,
    ray_div,
    ray_mul,
    wad_div,
)
from simulation.protocols.aave_v3 import math_utils as rev_1
from simulation.protocols.aave_v3.math_utils import calculate_linear_interest
from simulation.protocols.aave_v3_6 import liquidation_logic
from simulation.protocols.aave_v3_6.math_utils import (
    calculate_compounded_interest,
    percent_mul_ceil,
    percent_mul_floor,
    ray_div_ceil,
    ray_div_floor,
    ray_mul_ceil,
    ray_mul_floor,
)

pytestmark = [
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
    pytest.mark.skipif(
        not is_compiled("aave-v3.6") and shutil.which("node") is None,
        reason="Aave V3.6 is not compiled, and Node.js is not on PATH",
    ),
]

CASES = 1_500
SEED = 3

PACKAGE = "simulation.protocols.aave_v3_6"


def percent_div_floor(value: int, bps: int) -> int:
    return value * BPS // bps


def percent_div_up(value: int, bps: int) -> int:
    return ceil_div(value * BPS, bps)


def mul_div_floor(a: int, b: int, c: int) -> int:
    return a * b // c


def a_ray_more(function: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda a, b: function(a, b) + 1


def health_factor_of_the_average(weighted_threshold: int, debt_base: int) -> int:
    return wad_div(weighted_threshold // BPS, debt_base)


def half_of_the_reserves_debt(**given: int) -> int:
    if given["health_factor_wad"] <= liquidation_logic.CLOSE_FACTOR_HF_THRESHOLD:
        return given["reserve_debt_raw"]
    return percent_mul(given["reserve_debt_raw"], 5_000)


def however_little_collateral(**given: int) -> int:
    return MAX_LIQUIDATABLE_DEBT(**given | {"reserve_collateral_base": 10**60})


def however_small_the_debt(**given: int) -> int:
    return MAX_LIQUIDATABLE_DEBT(
        **given | {"reserve_debt_base": max(2_000 * 10**8, given["reserve_debt_base"])}
    )


def no_dust_rule(*_given: Any, **_named: Any) -> None:
    return None


def dust_of_the_debt_only(collateral: Any, debt: Any, **given: int) -> None:
    if given["collateral_left_raw"] > 0:
        given["collateral_left_raw"] = 10**60
    REQUIRE_NO_DUST(collateral, debt, **given)


def dust_of_the_collateral_only(collateral: Any, debt: Any, **given: int) -> None:
    if given["debt_left_raw"] > 0:
        given["debt_left_raw"] = 10**60
    REQUIRE_NO_DUST(collateral, debt, **given)


def no_bad_debt(_market: Any, account: Any) -> tuple[Any, list[Any]]:
    return account, []


def in_inactive_reserves_too(market: Any, account: Any) -> tuple[Any, list[Any]]:
    reserves = tuple(
        r and replace(r, configuration=replace(r.configuration, active=True)) for r in market.reserves
    )
    return BURN_BAD_DEBT(replace(market, reserves=reserves), account)


def isolated_debt_never(*_given: Any) -> int:
    return 0


def no_e_mode(*_given: Any) -> None:
    return None


def ltv_of_the_category(reserve: Any, e_mode: Any) -> int:
    return (e_mode or reserve.configuration).ltv_bps


MAX_LIQUIDATABLE_DEBT = liquidation_logic.max_liquidatable_debt
REQUIRE_NO_DUST = liquidation_logic._require_no_dust
BURN_BAD_DEBT = liquidation_logic._burn_bad_debt


def first_mismatch() -> str | None:
    results = run_cases(AaveV36Parity(), "revm", cases=CASES, seed=SEED)
    return next((m.field for result in results for m in result.mismatches), None)


@pytest.mark.parametrize(
    ("module", "name", "mutant"),
    [
        ("reserve_logic", "ray_mul", ray_mul_floor),
        ("reserve_logic", "calculate_linear_interest", a_ray_more(calculate_linear_interest)),
        ("reserve_logic", "calculate_compounded_interest", a_ray_more(calculate_compounded_interest)),
        ("reserve_logic", "calculate_compounded_interest", rev_1.calculate_compounded_interest),
        ("token_math", "ray_mul_floor", ray_mul),
        ("token_math", "ray_mul_floor", ray_mul_ceil),
        ("token_math", "ray_mul_ceil", ray_mul),
        ("token_math", "ray_mul_ceil", ray_mul_floor),
        ("token_math", "ray_div_ceil", ray_div),
        ("token_math", "ray_div_ceil", ray_div_floor),
        ("token_math", "ray_div_floor", ray_div),
        ("token_math", "ray_div_floor", ray_div_ceil),
        ("generic_logic", "mul_div_ceil", mul_div_floor),
        ("generic_logic", "percent_mul_floor", percent_mul),
        ("generic_logic", "calculate_health_factor", health_factor_of_the_average),
        ("generic_logic", "e_mode_of_collateral", no_e_mode),
        ("generic_logic", "get_user_reserve_ltv", ltv_of_the_category),
        ("liquidation_logic", "percent_mul", percent_mul_floor),
        ("liquidation_logic", "percent_mul", percent_mul_ceil),
        ("liquidation_logic", "percent_div", percent_div_floor),
        ("liquidation_logic", "percent_div", percent_div_up),
        ("liquidation_logic", "percent_div_ceil", percent_div_floor),
        ("liquidation_logic", "percent_div_ceil", percent_div),
        ("liquidation_logic", "mul_div_ceil", mul_div_floor),
        ("liquidation_logic", "max_liquidatable_debt", half_of_the_reserves_debt),
        pytest.param(
            *("liquidation_logic", "max_liquidatable_debt", however_little_collateral), marks=pytest.mark.slow
        ),
        ("liquidation_logic", "max_liquidatable_debt", however_small_the_debt),
        ("liquidation_logic", "_require_no_dust", no_dust_rule),
        ("liquidation_logic", "_require_no_dust", dust_of_the_debt_only),
        ("liquidation_logic", "_require_no_dust", dust_of_the_collateral_only),
        ("liquidation_logic", "_burn_bad_debt", no_bad_debt),
        ("liquidation_logic", "_burn_bad_debt", in_inactive_reserves_too),
        ("liquidation_logic", "_isolated_debt_repaid", isolated_debt_never),
        ("liquidation_logic", "e_mode_of_collateral", no_e_mode),
        ("liquidation_logic", "DEFAULT_LIQUIDATION_CLOSE_FACTOR", 5_001),
        ("liquidation_logic", "CLOSE_FACTOR_HF_THRESHOLD", 95 * 10**16 - 1),
        ("liquidation_logic", "CLOSE_FACTOR_HF_THRESHOLD", 95 * 10**16 + 10**11),
        pytest.param(
            *("liquidation_logic", "MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD", 2_000 * 10**8 + 1),
            marks=pytest.mark.slow,
        ),
        ("liquidation_logic", "MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD", 2_000 * 10**8 - 1),
        ("liquidation_logic", "MIN_LEFTOVER_BASE", 1_000 * 10**8 + 1),
        ("liquidation_logic", "MIN_LEFTOVER_BASE", 1_000 * 10**8 - 1),
        ("validation_logic", "HEALTH_FACTOR_LIQUIDATION_THRESHOLD", WAD + 1),
        ("validation_logic", "MINIMUM_HEALTH_FACTOR_LIQUIDATION_THRESHOLD", 94 * 10**16),
    ],
)
def test_a_slip_is_found(monkeypatch: pytest.MonkeyPatch, module: str, name: str, mutant: Any) -> None:
    target = importlib.import_module(f"{PACKAGE}.{module}")
    assert hasattr(target, name)
    monkeypatch.setattr(target, name, mutant)
    assert first_mismatch() is not None


def test_the_unmutated_model_is_not_accused() -> None:
    results = run_cases(AaveV36Parity(), "revm", cases=CASES, seed=SEED)
    assert not [m for result in islice(results, 100) for m in result.mismatches]
