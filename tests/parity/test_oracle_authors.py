"""Lending formulas against what their authors' own contracts said, and say where checkouts are at hand.

No package ships these contracts. What they said to random cases is kept in ``tests/golden``, and compared in
every run; with checkouts (`tests.authors_sources`) the contracts are asked again.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from simulation.chain import revm
from tests.authors_cases import FORMULAS, GENERATORS, KEPT, KEPT_CASES, Units, answered, keep, kept
from tests.authors_sources import compiled

CASES = 500


def test_formulas_say_what_the_authors_contracts_said() -> None:
    counts: Counter[str] = Counter()
    reverts: Counter[str] = Counter()
    for number, (formula, arguments, said) in enumerate(kept()):
        assert FORMULAS[formula](*arguments) == said, f"line {number + 1}: {formula}{arguments}"
        counts[formula] += 1
        reverts[formula] += said is None
    assert set(counts) == set(FORMULAS)
    assert min(counts.values()) >= KEPT_CASES * 3 // 4, counts
    # Whether a revert is a revert is compared too.
    assert {name for name, count in reverts.items() if count} >= {
        *("scaled_answer", "product_answer", "ratio_answer", "scale_factor", "morpho_price"),
        *("chainlink_quote", "resolve_oracle", "fetch_price"),
    }


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Units:
    if not revm.available():
        pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
    return compiled(tmp_path_factory.mktemp("authors"))


@pytest.mark.parametrize("generate", GENERATORS)
def test_formulas_say_what_the_authors_contracts_say(units: Units, generate: Callable[..., Any]) -> None:
    compared = 0
    for formula, arguments, said in answered(units, generate, CASES):
        assert FORMULAS[formula](*arguments) == said, f"{formula}{arguments}"
        compared += 1
    assert compared > CASES * 3 // 4


def test_what_is_kept_is_what_the_contracts_say(units: Units) -> None:
    assert keep(units) == KEPT.read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("module", "limit", "wrong"),
    [
        ("liquity", "MAX_DIFFERENCE", 3 * 10**16),
        ("liquity", "MAX_DEVIATION", 49 * 10**16),
        ("liquity", "TIMEOUT_S", 14_300),
        ("euler_router", "MAX_EXPONENT", 27),
        ("capo", "SECONDS_PER_YEAR", 31_557_600),
        ("capo", "MAXIMUM_SNAPSHOT_TERM", 90 * 86_400),
        ("morpho_chainlink", "UINT256_MAX", 2**200),
        ("comet", "INT256_MAX", 2**200),
    ],
)
def test_a_wrong_limit_is_found(monkeypatch: pytest.MonkeyPatch, module: str, limit: str, wrong: int) -> None:
    monkeypatch.setattr(importlib.import_module(f"oracle.sources.{module}"), limit, wrong)
    assert any(FORMULAS[formula](*arguments) != said for formula, arguments, said in kept())
