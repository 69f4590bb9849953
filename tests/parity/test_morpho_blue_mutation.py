"""Morpho Blue's parity is worth what it finds: each rounding and rule is off by one here, and is found."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from simulation.chain import revm
from simulation.chain.parity import run_cases
from simulation.chain.parity.morpho_blue import MorphoBlueParity
from simulation.chain.solc import is_compiled
from simulation.fixed_point import WAD, ceil_div
from simulation.protocols.morpho_blue import irm
from simulation.protocols.morpho_blue.math_lib import mul_div_down, mul_div_up, w_taylor_compounded
from simulation.protocols.morpho_blue.shares_math_lib import (
    to_assets_down,
    to_assets_up,
    to_shares_down,
    to_shares_up,
)

pytestmark = [
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
    pytest.mark.skipif(
        not is_compiled("morpho-blue") and shutil.which("node") is None,
        reason="Morpho Blue is not compiled, and Node.js is not on PATH",
    ),
]

CASES = 1_000
SEED = 3
PACKAGE = "simulation.protocols.morpho_blue"

real_exp = irm.w_exp


def first_mismatch() -> str | None:
    results = run_cases(MorphoBlueParity(), "revm", cases=CASES, seed=SEED)
    return next((m.field for result in results for m in result.mismatches), None)


def w_mul_up(x: int, y: int) -> int:
    return ceil_div(x * y, WAD)


def w_div_floor(x: int, y: int) -> int:
    return x * WAD // y


def two_terms(rate_wad: int, elapsed_s: int) -> int:
    first = rate_wad * elapsed_s
    return first + first * first // (2 * WAD)


def one_more(rate_wad: int, elapsed_s: int) -> int:
    return w_taylor_compounded(rate_wad, elapsed_s) + 1


def floor_division(a: int, b: int) -> int:
    return a // b


def a_billionth_more(x_wad: int) -> int:
    """A rate at target has nine digits or ten: what is less than its last is not to be seen."""
    return real_exp(x_wad) + 10**9


@pytest.mark.parametrize(
    ("module", "name", "mutant"),
    [
        pytest.param("morpho", "to_shares_down", to_shares_up, id="shares given rounded up"),
        pytest.param("morpho", "to_shares_up", to_shares_down, id="shares taken rounded down"),
        pytest.param("morpho", "to_assets_down", to_assets_up, id="assets given rounded up"),
        pytest.param("morpho", "to_assets_up", to_assets_down, id="assets owed rounded down"),
        pytest.param("morpho", "mul_div_down", mul_div_up, id="collateral's value rounded up"),
        pytest.param("morpho", "mul_div_up", mul_div_down, id="seized value rounded down"),
        pytest.param("morpho", "w_mul_down", w_mul_up, id="products rounded up"),
        pytest.param("morpho", "w_div_up", w_div_floor, id="debt for collateral rounded down"),
        pytest.param("morpho", "w_taylor_compounded", two_terms, id="two terms of interest"),
        pytest.param("morpho", "w_taylor_compounded", one_more, id="a trifle more interest"),
        pytest.param("irm", "_to_zero", floor_division, id="signed quotients floored"),
        pytest.param("irm", "w_exp", a_billionth_more, id="a rate's growth a billionth off"),
        pytest.param("morpho", "LIQUIDATION_CURSOR_WAD", 3 * WAD // 10 + 10, id="cursor above 0.3"),
        pytest.param("morpho", "MAX_LIQUIDATION_INCENTIVE_FACTOR_WAD", 2 * WAD, id="incentive without a cap"),
        pytest.param("shares_math_lib", "VIRTUAL_SHARES", 10**6 - 1, id="a virtual share less"),
        pytest.param("shares_math_lib", "VIRTUAL_ASSETS_RAW", 2, id="a virtual unit more"),
        pytest.param("irm", "TARGET_UTILIZATION_WAD", 9 * WAD // 10 + 10**10, id="target above nine tenths"),
        pytest.param("irm", "MAX_RATE_AT_TARGET_WAD", irm.MAX_RATE_AT_TARGET_WAD + 1, id="a higher rate"),
        pytest.param("irm", "MIN_RATE_AT_TARGET_WAD", irm.MIN_RATE_AT_TARGET_WAD - 1, id="a lower rate"),
    ],
)
def test_a_slip_is_found(monkeypatch: pytest.MonkeyPatch, module: str, name: str, mutant: Any) -> None:
    target = importlib.import_module(f"{PACKAGE}.{module}")
    assert hasattr(target, name)
    monkeypatch.setattr(target, name, mutant)
    assert first_mismatch() is not None


def healthy_only_above(real: Callable[..., bool]) -> Callable[..., bool]:
    morpho = importlib.import_module(f"{PACKAGE}.morpho")

    def mutant(market: Any, account: Any) -> bool:
        at_threshold = morpho.max_borrow(market, account) == morpho.borrowed_assets(market.state, account)
        return real(market, account) and not at_threshold

    return mutant


def test_a_threshold_that_excludes_equality_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    morpho = importlib.import_module(f"{PACKAGE}.morpho")
    monkeypatch.setattr(morpho, "_is_healthy_at", healthy_only_above(morpho._is_healthy_at))
    assert first_mismatch() is not None


@pytest.mark.parametrize("forgotten", ["total_borrow_assets_raw", "total_supply_assets_raw"])
def test_bad_debt_that_stays_on_one_side_is_found(monkeypatch: pytest.MonkeyPatch, forgotten: str) -> None:
    """Suppliers who do not bear it, and a total that keeps it."""
    morpho = importlib.import_module(f"{PACKAGE}.morpho")
    real = morpho._liquidate

    def mutant(market: Any, account: Any, seized_raw: int, shares: int) -> Any:
        outcome = real(market, account, seized_raw, shares)
        state = outcome.market_after.state
        kept = {forgotten: getattr(state, forgotten) + outcome.bad_debt_assets_raw}
        after = morpho.replace(outcome.market_after, state=morpho.replace(state, **kept))
        return morpho.replace(outcome, market_after=after)

    monkeypatch.setattr(morpho, "_liquidate", mutant)
    assert first_mismatch() is not None
