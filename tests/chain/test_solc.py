"""The real compilers on the real sources: what is compiled once is never compiled again."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.calls import function
from contracts_abi.errors import DataError, InputError, ToolError
from simulation.chain import revm, solc
from simulation.chain.artifacts import chainlink, openzeppelin, pyth, uniswap_v2
from simulation.chain.evm import labelled_address, read
from simulation.chain.solc import (
    PROTOCOL_UNITS,
    UNITS,
    compile_sources,
    compile_unit,
    ensure_protocol_toolchain,
    solc_program,
    standard_json,
)
from simulation.chain.toolchain import PROTOCOL_PACKAGES, cache_dir, node_modules
from simulation.protocols import protocols

SIX = (
    "pragma solidity 0.6.6;\ncontract Six { function six() external pure returns (uint256) { return 6; } }\n"
)

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not on PATH")


@pytest.mark.parametrize("unit", UNITS)
def test_the_set_up_leaves_every_unit_compiled(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    contracts = compile_unit(unit)
    assert contracts
    assert all(contract.bytecode and contract.deployed_bytecode for contract in contracts.values())


def test_the_contracts_are_there_by_name() -> None:
    assert chainlink("FluxAggregator").name == "FluxAggregator"
    assert openzeppelin("Vault").bytecode
    assert pyth("MockPyth").bytecode
    assert uniswap_v2("UniswapV2Pair").bytecode


@needs_node
def test_new_sources_are_compiled_once_and_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = _installed_compiler(cache)
    source = tmp_path / "Six.sol"
    source.write_text(SIX)
    contract = compile_sources({"Six.sol": source})["Six"]
    compiler.unlink()
    monkeypatch.setenv("PATH", "")
    assert compile_sources({"Six.sol": SIX}) == {"Six": contract}
    if revm.available():
        evm = revm.RevmEvm()
        address = evm.create(labelled_address("deployer"), contract.creation_code())
        assert read(evm, function("six()(uint256)").call(address)) == 6


@needs_node
def test_a_spoilt_cache_file_is_compiled_anew(cache: Path) -> None:
    _installed_compiler(cache)
    first = compile_sources({"Six.sol": SIX})
    (file,) = (cache_dir() / "solc").glob("*.json")
    file.write_text('{"Six": ')
    assert compile_sources({"Six.sol": SIX}) == first


@needs_node
def test_other_settings_are_another_input(cache: Path) -> None:
    _installed_compiler(cache)
    optimized = compile_sources({"Six.sol": SIX})["Six"]
    plain = compile_sources({"Six.sol": SIX}, settings={})["Six"]
    assert optimized.bytecode != plain.bytecode


@needs_node
def test_what_does_not_compile_is_one_line(cache: Path) -> None:
    _installed_compiler(cache)
    with pytest.raises(DataError, match=r"^solc 0\.6\.6: Six\.sol:2:.*Undeclared identifier") as raised:
        compile_sources({"Six.sol": SIX.replace("return 6", "return seven")})
    assert "\n" not in str(raised.value)


@needs_node
def test_a_source_that_leans_on_another_version_is_refused(cache: Path) -> None:
    _installed_compiler(cache)
    with pytest.raises(DataError, match="requires different compiler version"):
        compile_sources({"Six.sol": SIX.replace("0.6.6", "0.8.19")})


def test_a_compiler_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"no Solidity compiler '0\.4\.11' is pinned; choose one of: 0\.6\.6"
    ):
        compile_sources({"Six.sol": SIX}, solc="0.4.11")


def test_without_node_the_fix_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed_compiler(cache)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match=r"Node\.js is not on PATH; run: marginline setup"):
        compile_sources({"Six.sol": SIX})


def test_without_the_compiler_the_fix_is_named(cache: Path) -> None:
    with pytest.raises(ToolError, match=r"compiler 0\.6\.6 is not there; run: marginline setup"):
        compile_sources({"Six.sol": SIX})


@needs_node
def test_the_compiler_serves_as_a_program(cache: Path) -> None:
    _installed_compiler(cache)
    program = solc_program("0.6.6")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.startswith("solc, the solidity compiler")
    assert "Version: 0.6.6+commit.6c089d02" in told
    given = standard_json({"Six.sol": SIX}, {}, node_modules())
    done = subprocess.run(
        [program, "--allow-paths", ".", "--standard-json"],
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["contracts"]["Six.sol"]["Six"]["evm"]["bytecode"]["object"]


def test_who_comes_second_reads_what_the_first_compiled(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed_compiler(cache)
    runs: list[str] = []

    def slowly(_compiler: Any, given: str, _node: Any) -> dict[str, Any]:
        runs.append(given)
        time.sleep(0.2)
        empty = {"object": "00", "linkReferences": {}}
        return {"Six": {"abi": [], "evm": {"bytecode": empty, "deployedBytecode": empty}}}

    monkeypatch.setattr(solc, "_run_solc", slowly)
    with ThreadPoolExecutor(4) as pool:
        compiled = list(pool.map(lambda _: compile_sources({"Six.sol": SIX}), range(4)))
    assert len(runs) == 1
    assert compiled == [compiled[0]] * 4
    assert not list((cache / "solc").glob("*.lock"))


def test_what_needs_nothing_compiled_fetches_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    told: list[str] = []
    assert not ensure_protocol_toolchain(["aave-v3", "oracle-aave"], told.append)
    assert told == []
    assert list(cache.iterdir()) == []


def test_every_protocol_that_is_compiled_is_known_by_its_name() -> None:
    assert set(PROTOCOL_UNITS) == set(PROTOCOL_PACKAGES)
    assert set(PROTOCOL_UNITS) <= set(protocols)
    assert not set(PROTOCOL_UNITS) & set(UNITS)


def test_a_missing_import_is_named(cache: Path) -> None:
    with pytest.raises(ToolError, match=r"source lib/Other\.sol is not there"):
        compile_sources({"lib/Six.sol": 'import {A} from "./Other.sol";\n' + SIX})
    with pytest.raises(DataError, match="leads out of its package"):
        compile_sources({"Six.sol": 'import "../../etc/passwd";\n' + SIX})


def _installed_compiler(cache: Path) -> Path:
    """Put the compiler of the machine's own cache into this test's; returns its file."""
    own = Path(str(_OWN_MODULES)) / "solc-0.6.6" / "soljson.js"
    copy = cache / "npm" / "node_modules" / "solc-0.6.6" / "soljson.js"
    copy.parent.mkdir(parents=True)
    copy.symlink_to(own)
    return copy


_OWN_MODULES = node_modules()
"""Before any test names a cache of its own."""
