"""Morpho Blue: the model against the contract's bytecode.

The plain run draws a few dozen cases. All: ``MARGINLINE_CASES=400 pytest`` on this file.
"""

from __future__ import annotations

import os
import shutil

import pytest

from contracts_abi import morpho_blue as abi
from contracts_abi.errors import CallReverted, DataError, InputError
from simulation.chain import revm
from simulation.chain.artifacts import morpho_blue
from simulation.chain.evm import Evm, labelled_address
from simulation.chain.parity import ParityResult, Verdict, run_parity
from simulation.chain.parity.harness import backend_evm
from simulation.chain.parity.morpho_blue import BORROWER, MorphoBlueParity, World
from simulation.chain.solc import is_compiled
from simulation.protocols.aave_v3.layout import Answers, Reads, run_stages
from simulation.protocols.morpho_blue import IrmKind, discover_layout
from simulation.protocols.morpho_blue.errors import revert_code

needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)
pytestmark = pytest.mark.skipif(
    not is_compiled("morpho-blue") and shutil.which("node") is None,
    reason="Morpho Blue is not compiled, and Node.js is not on PATH",
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
    result = run_parity("morpho-blue", "revm", cases=CASES, seed=seed)
    assert_parity(result)
    # A set that hits none of these would prove little.
    assert min(result.tags.values()) > 0, result.tags
    assert min(result.verdicts.values()) >= CASES // 6, result.verdicts
    assert {"position is healthy", "inconsistent input", "Panic(0x11)"} <= set(result.codes)


@pytest.mark.chain
@pytest.mark.slow
def test_model_equals_bytecode_on_a_node() -> None:
    result = run_parity("morpho-blue", "anvil", cases=NODE_CASES, seed=1)
    assert_parity(result)
    assert result.verdicts[Verdict.LIQUIDATED] > 0


@needs_revm
def test_a_case_depends_on_seed_and_number_only() -> None:
    alone = run_parity("morpho-blue", "revm", cases=1, seed=5, first=9)
    upto = run_parity("morpho-blue", "revm", cases=10, seed=5)
    before = run_parity("morpho-blue", "revm", cases=9, seed=5)
    assert {t: upto.tags[t] - before.tags[t] for t in upto.tags} == alone.tags


def test_the_contract_is_the_one_that_mainnet_runs_by_its_size() -> None:
    assert len(morpho_blue("Morpho").deployed_bytecode) == 15_623


def opened() -> tuple[Evm, World]:
    with backend_evm("revm") as evm:
        return evm, MorphoBlueParity().prepare(evm)


def asked(evm: Evm, calls: Reads) -> Answers:
    answers: list[bytes | None] = []
    for call in calls:
        try:
            answers.append(evm.call(call.to, call.data))
        except CallReverted:
            answers.append(None)
    return answers


@needs_revm
def test_a_market_is_found_from_its_id() -> None:
    evm, world = opened()
    for adapter in world.adapters:
        layout = adapter.layout
        stages = discover_layout(world.morpho, layout.id)
        if layout.irm_kind is IrmKind.UTILIZATION:
            with pytest.raises(DataError, match=r"interest rate model at 0x.* is none that is known"):
                run_stages(stages, lambda calls: asked(evm, calls))
            continue
        found = run_stages(stages, lambda calls: asked(evm, calls))
        assert (found.params, found.loan, found.collateral) == (
            layout.params,
            layout.loan,
            layout.collateral,
        )
        # The fixed rate's stand-in answers whatever it is asked, as the adaptive model would.
        if layout.irm_kind is not IrmKind.FIXED_RATE:
            assert found == layout


@needs_revm
def test_what_is_no_market_is_one_line() -> None:
    evm, world = opened()
    with pytest.raises(InputError, match="not a market id: 'WETH/USDC'"):
        run_stages(discover_layout(world.morpho, "WETH/USDC"), lambda calls: asked(evm, calls))
    with pytest.raises(DataError, match="has no market 0x1111"):
        run_stages(discover_layout(world.morpho, "0x" + "11" * 32), lambda calls: asked(evm, calls))


@needs_revm
def test_only_its_own_loans_bring_a_market_borrowers() -> None:
    evm, world = opened()
    first, second = world.adapters[:2]
    words = first.layout.params.words()
    evm.set_storage(first.layout.params.oracle, 0, 10**36)
    lender = labelled_address("liquidity provider")
    for data in (
        abi.SUPPLY.encode(words, 10**6, 0, lender, b""),
        abi.SUPPLY_COLLATERAL.encode(words, 10**6, BORROWER, b""),
    ):
        assert evm.send(lender, world.morpho, data).success
    sent = evm.send(BORROWER, world.morpho, abi.BORROW.encode(words, 10**5, 0, BORROWER, BORROWER))
    assert sent.success, revert_code(sent.output)
    found = [first.discovered(log.topics, log.data) for log in sent.logs]
    assert [account for account in found if account] == [BORROWER]
    assert not any(second.discovered(log.topics, log.data) for log in sent.logs)
