"""Aave V3: the model against the pool's bytecode."""

from __future__ import annotations

import pytest

from contracts_abi.errors import InputError, UnknownNameError
from simulation.chain import revm
from simulation.chain.parity import ParityResult, Verdict, run_parity

needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)


def assert_parity(result: ParityResult) -> None:
    assert result.mismatches == 0, result.details
    assert sum(result.verdicts.values()) == result.cases
    assert sum(result.codes.values()) == result.cases - result.verdicts[Verdict.LIQUIDATED]


@needs_revm
@pytest.mark.parametrize("seed", [1, 20_200_312])
def test_model_equals_bytecode_on_revm(seed: int) -> None:
    result = run_parity("aave-v3", "revm", cases=150, seed=seed)
    assert_parity(result)
    # A set that hits none of these would prove little.
    assert min(result.tags.values()) > 0, result.tags
    assert {"27", "29", "45", "46", "47"} <= set(result.codes)
    assert result.verdicts[Verdict.LIQUIDATED] >= 50


@pytest.mark.chain
def test_model_equals_bytecode_on_a_node() -> None:
    result = run_parity("aave-v3", "anvil", cases=12, seed=7)
    assert_parity(result)
    assert result.verdicts[Verdict.LIQUIDATED] > 0


@needs_revm
def test_a_case_depends_on_seed_and_number_only() -> None:
    alone = run_parity("aave-v3", "revm", cases=1, seed=5, first=9)
    upto = run_parity("aave-v3", "revm", cases=10, seed=5)
    before = run_parity("aave-v3", "revm", cases=9, seed=5)
    for verdict in Verdict:
        assert alone.verdicts[verdict] == upto.verdicts[verdict] - before.verdicts[verdict]
    assert {t: upto.tags[t] - before.tags[t] for t in upto.tags} == alone.tags


@needs_revm
def test_json_names_what_was_run_and_adds_up() -> None:
    seen: list[int] = []
    plain = run_parity("aave-v3", "revm", cases=3, seed=2, progress=seen.append).to_json()
    assert (plain["protocol"], plain["backend"], plain["seed"], plain["cases"]) == ("aave-v3", "revm", 2, 3)
    assert plain["mismatches"] == 0
    assert plain["details"] == []
    assert plain["liquidated"] + plain["rejected"] + plain["healthy"] == 3
    assert {"emode", "multi_collateral", "multi_debt", "partial_close", "near_threshold"} <= set(plain)
    assert seen == [1, 2, 3]


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'aave-v3'"):
        run_parity("aave-v33", "revm", cases=1, seed=1)
    with pytest.raises(InputError, match="backend 'geth'"):
        run_parity("aave-v3", "geth", cases=1, seed=1)
    with pytest.raises(InputError, match="cases is 0"):
        run_parity("aave-v3", "revm", cases=0, seed=1)
    with pytest.raises(InputError, match="negative"):
        run_parity("aave-v3", "revm", cases=1, seed=-1)
