"""Price sources against contracts: every parity test of the registry, and a wrong source is found out."""

from __future__ import annotations

from typing import Any

import pytest

from oracle.sources import chainlink
from simulation.chain import revm
from simulation.chain.parity import ORACLE, ParityResult, parity_adapters, parity_names, run_parity

needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

CASES = 200


@needs_revm
@pytest.mark.parametrize("name", parity_names(ORACLE))
def test_source_equals_contract_on_revm(name: str) -> None:
    result = run_parity(name, "revm", cases=CASES, seed=20_200_312)
    assert result.mismatches == 0, result.details
    assert sum(result.verdicts.values()) == CASES
    # A set that lacks one of what it counts would prove little.
    assert min(result.verdicts.values(), default=1) > 0, result.verdicts
    assert min(result.tags.values(), default=1) > 0, result.tags


@pytest.mark.chain
@pytest.mark.parametrize("name", parity_names(ORACLE))
def test_source_equals_contract_on_a_node(name: str) -> None:
    result = run_parity(name, "anvil", cases=5, seed=7)
    assert result.mismatches == 0, result.details


def parted(name: str, cases: int = 60) -> ParityResult:
    return run_parity(name, "revm", cases=cases, seed=3)


@needs_revm
@pytest.mark.parametrize(
    ("function", "wrong", "field"),
    [
        ("split_round_id", lambda i: (i >> 63, i & (2**63 - 1)), "round_key"),
        ("split_round_id", lambda i: (i >> 64, i & (2**32 - 1)), "round_key"),
    ],
)
def test_a_wrong_chainlink_source_is_found(
    monkeypatch: pytest.MonkeyPatch, function: str, wrong: Any, field: str
) -> None:
    monkeypatch.setattr(chainlink, function, wrong)
    result = parted("oracle-chainlink")
    assert field in {mismatch.field for _case, mismatch in result.details}


def test_each_says_what_it_compares() -> None:
    for name in parity_names(ORACLE):
        compared = parity_adapters.get(name)().compared
        assert compared.model.startswith("oracle.")
        assert compared.contract
