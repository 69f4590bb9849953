"""Artifacts are read, linked and compiled, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.artifacts import (
    Artifact,
    compile_vyper,
    npm_artifact,
    read_artifact,
    vyper_artifact,
    vyper_names,
    write_atomically,
)
from contracts_abi.errors import DataError, ToolError, UnknownNameError

LIBRARY = "0x" + "ab" * 20
PLACEHOLDER = "__$0123456789abcdef0123456789abcdef01$__"[:40]
SOURCE = "# pragma version 0.4.3\nx: public(uint256)\n@deploy\ndef __init__(_x: uint256):\n    self.x = _x\n"


def artifact_json(**changes: Any) -> dict[str, Any]:
    reference = {"lib.sol": {"Lib": [{"start": 2, "length": 20}]}}
    return {
        "contractName": "Thing",
        "abi": [{"type": "constructor", "inputs": [{"type": "uint256"}]}],
        "bytecode": f"0x6001{PLACEHOLDER}00",
        "deployedBytecode": f"0x6002{PLACEHOLDER}00",
        "linkReferences": reference,
        "deployedLinkReferences": reference,
    } | changes


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "Thing.json"
    path.write_text(json.dumps(artifact_json(**changes)))
    return path


@pytest.fixture
def thing(tmp_path: Path) -> Artifact:
    return read_artifact(written(tmp_path))


def test_placeholders_become_zeros_and_libraries_their_addresses(thing: Artifact) -> None:
    assert thing.bytecode == bytes.fromhex("6001" + "00" * 21)
    assert thing.libraries == {"Lib"}
    assert thing.runtime_code({"Lib": LIBRARY}) == bytes.fromhex("6002" + "ab" * 20 + "00")
    code = thing.creation_code(7, libraries={"Lib": LIBRARY})
    assert code == bytes.fromhex("6001" + "ab" * 20 + "00") + (7).to_bytes(32)


def test_a_missing_library_is_named(thing: Artifact) -> None:
    with pytest.raises(UnknownNameError, match="library linked by Thing 'Lib'"):
        thing.runtime_code({"Lub": LIBRARY})
    with pytest.raises(DataError, match="Lib of Thing: not an address"):
        thing.runtime_code({"Lib": "0x12"})


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_the_wrong_number_of_constructor_arguments_is_refused(
    thing: Artifact, arguments: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match=r"constructed from \('uint256',\)"):
        thing.creation_code(*arguments, libraries={"Lib": LIBRARY})


@pytest.mark.parametrize(
    "changes",
    [
        {"bytecode": "0xzz"},
        {"bytecode": None},
        {"abi": None},
        {"linkReferences": {"lib.sol": {"Lib": [{"start": 2, "length": 19}]}}},
        {"deployedLinkReferences": [1]},
    ],
)
def test_what_is_no_artifact_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        read_artifact(written(tmp_path, **changes))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Thing.json"
    path.write_text("not json")
    with pytest.raises(DataError, match=r"Thing\.json is not a contract artifact"):
        read_artifact(path)


def test_a_package_that_is_not_installed_is_said_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="is not there; run: marginline setup"):
        npm_artifact(tmp_path, "@aave/core-v3", "artifacts/Pool.json")


def test_an_unknown_contract_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="PriceFeed"):
        vyper_artifact("PriceFed")
    assert "PriceFeed" in vyper_names()


def test_compiled_output_is_kept_by_source_and_compiler(tmp_path: Path) -> None:
    first = compile_vyper("Thing", SOURCE, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert compile_vyper("Thing", SOURCE, tmp_path) == first
    assert compile_vyper("Thing", SOURCE) == first
    # The cache is what is read: another content there is another answer, another source another file.
    kept.write_text(kept.read_text().replace('"Thing"', '"Changed"'))
    assert compile_vyper("Thing", SOURCE, tmp_path).name == "Changed"
    assert compile_vyper("Thing", SOURCE + "# changed\n", tmp_path).name == "Thing"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_source_that_does_not_compile_is_one_line() -> None:
    with pytest.raises(DataError, match=r"Thing\.vy does not compile") as raised:
        compile_vyper("Thing", "# pragma version 0.4.3\nx: uint257\n")
    assert "\n" not in str(raised.value)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]
