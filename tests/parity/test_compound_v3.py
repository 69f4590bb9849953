"""Compound III: the model against the contract's bytecode, kept as numbers, or asked where it is there.

No package ships the contract. With ``MARGINLINE_COMET_SOURCE=<built checkout>`` it is deployed and compared
as the other protocols are; all: ``MARGINLINE_CASES=2000 pytest`` on this file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import CallReverted, DataError, InputError
from simulation.chain import revm
from simulation.chain.compound_v3 import comet_artifacts
from simulation.chain.evm import Evm
from simulation.chain.parity import ParityResult, run_cases, run_parity
from simulation.chain.parity.compound_v3 import Case, CompoundV3Parity
from simulation.chain.parity.compound_v3_record import judge
from simulation.chain.parity.harness import backend_evm, parity_adapter
from simulation.protocols.aave_v3.layout import Answers, Reads, run_stages
from simulation.protocols.compound_v3 import discover_layout
from tests.compound_v3_cases import KEPT, SLIPS, checkout, chosen, kept, slipped

CASES = int(os.environ.get("MARGINLINE_CASES", "100"))
NODE_CASES = max(5, 3 * CASES // 100)

needs_revm = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)


# --- what is kept -----------------------------------------------------------------------------------------


def test_the_model_says_what_the_contract_said() -> None:
    for number, life in enumerate(kept()):
        assert judge(life) == [], f"line {number + 1}"


def test_what_is_kept_has_everything_in_it() -> None:
    lives = kept()
    assert KEPT.stat().st_size < 300_000
    done: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for step in (step for life in lives for step in life["steps"]):
        done[step["do"][0]] += step["code"] is None
        refused[step["code"]] += 1
        done["bad debt"] += step["code"] is None and _is_bad_debt(step)
        done["several at once"] += step["do"][0] == "absorb" and len(step["do"][1]) > 1
    assert min(done[name] for name in ("absorb", "buy", "supply", "withdraw", "give", "take_reserves")) >= 3
    assert min(done["bad debt"], done["several at once"], done["pause"], done["accrue"]) >= 3
    codes = {"NotLiquidatable", "NotForSale", "TooMuchSlippage", "InsufficientReserves", "NotCollateralized"}
    codes |= {"BorrowTooSmall", "SupplyCapExceeded", "BadAsset", "BadPrice", "Paused", "Unauthorized"}
    codes |= {"price feed", "token", "Panic(0x11)", "InvalidUInt64", "InvalidUInt104"}
    assert codes <= set(refused), codes - set(refused)


def _is_bad_debt(step: Mapping[str, Any]) -> bool:
    """Return whether a market paid more for an account than what it seized of it was worth."""
    seized_e8 = 0
    for words in step["out"] if step["do"][0] == "absorb" else ():
        if len(words) == 3:
            seized_e8 += words[2]
        else:
            if words[1] > seized_e8:
                return True
            seized_e8 = 0
    return False


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_found_without_the_contract(name: str) -> None:
    lives = kept()
    with slipped(name):
        assert any(judge(life) for life in lives)
    assert not judge(lives[0])


@pytest.mark.parametrize(("part", "place", "field"), [("built", 0, "parameters"), ("start", 8, "step 0")])
def test_a_word_that_is_off_is_found(part: str, place: int, field: str) -> None:
    life = kept()[0]
    life[part][place] += 1
    assert judge(life)[0].field.startswith(field)


# --- the contract itself ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source() -> Path:
    return checkout()


def assert_parity(result: ParityResult) -> None:
    assert result.mismatches == 0, result.details
    assert sum(result.verdicts.values()) == result.cases
    assert sum(result.codes.values()) == result.cases - result.verdicts["absorbed"]


@needs_revm
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_model_equals_bytecode_on_revm(source: Path, seed: int) -> None:
    result = run_parity("compound-v3", "revm", cases=CASES, seed=seed, source=source)
    assert_parity(result)
    # A set that hits none of these would prove little.
    assert min(result.tags.values()) > 0, result.tags
    assert min(result.verdicts.values()) >= CASES // 25, result.verdicts
    assert "NotLiquidatable" in result.codes


@pytest.mark.chain
@pytest.mark.slow
def test_model_equals_bytecode_on_a_node(source: Path) -> None:
    result = run_parity("compound-v3", "anvil", cases=NODE_CASES, seed=1, source=source)
    assert_parity(result)
    assert result.verdicts["absorbed"] > 0


@needs_revm
@pytest.mark.slow
@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_found(source: Path, name: str) -> None:
    with slipped(name):
        results = run_cases(parity_adapter("compound-v3", source), "revm", cases=1_000, seed=3)
        assert any(result.mismatches for result in results)


@needs_revm
@pytest.mark.slow
def test_what_is_kept_is_what_the_contract_says(source: Path) -> None:
    assert chosen(source) == kept()


@needs_revm
def test_a_market_is_found_from_its_address(source: Path) -> None:
    import numpy as np

    adapter = CompoundV3Parity(comet_artifacts(source))
    with backend_evm("revm") as evm:
        case = Case(evm, adapter.prepare(evm), np.random.default_rng(4))
        stages = discover_layout(case.comet)
        assert run_stages(stages, lambda calls: asked(evm, calls)) == case.adapter.layout
        nobody = discover_layout(case.base.address)
        with pytest.raises(DataError, match=r"comet\.baseToken"):
            run_stages(nobody, lambda calls: asked(evm, calls))


def asked(evm: Evm, calls: Reads) -> Answers:
    answers: list[bytes | None] = []
    for call in calls:
        try:
            answers.append(evm.call(call.to, call.data))
        except CallReverted:
            answers.append(None)
    return answers


# --- where it is looked for -------------------------------------------------------------------------------


def test_without_a_checkout_one_line_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^parity compound-v3: no package ships .* --source PATH, a built"):
        parity_adapter("compound-v3")
    missing = tmp_path / "comet"
    with pytest.raises(InputError, match=r"no such folder; give a checkout of github.com/compound-finance"):
        parity_adapter("compound-v3", missing)
    missing.mkdir()
    with pytest.raises(InputError, match=r"no artifacts/contracts/Comet.sol/Comet.json; build the checkout"):
        parity_adapter("compound-v3", missing)
    file = missing / "artifacts/contracts/Comet.sol/Comet.json"
    file.parent.mkdir(parents=True)
    file.write_text("[]", encoding="ascii")
    with pytest.raises(InputError, match=r"no artifacts/contracts/CometExt.sol/CometExt.json"):
        parity_adapter("compound-v3", missing)
    other = missing / "artifacts/contracts/CometExt.sol/CometExt.json"
    other.parent.mkdir(parents=True)
    other.write_text("[]", encoding="ascii")
    with pytest.raises(DataError, match="is not a contract artifact"):
        parity_adapter("compound-v3", missing)


def test_a_checkout_where_none_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="aave-v3 is compared with what npm ships; leave it out"):
        parity_adapter("aave-v3", tmp_path)
