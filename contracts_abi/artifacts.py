"""ABI and bytecode by name: prebuilt npm artifacts and this project's own Vyper contracts.

Nothing here installs or downloads. The folder of the npm packages is passed in; who owns a cache folder
(`simulation.chain.toolchain`) says where it is.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from eth_abi.abi import encode as abi_encode
from eth_utils.address import is_address, to_canonical_address

from contracts_abi.errors import DataError, ToolError, UnknownNameError

VYPER_SOURCES = Path(__file__).parent / "vyper"

LINK_LENGTH = 20
"""Bytes that a library's address takes in bytecode."""


@dataclass(frozen=True, slots=True)
class LinkSlot:
    """A place in bytecode where a library's address belongs.

    Attributes
    ----------
    library
        Contract name of the library.
    offset
        Byte offset of the 20-byte address.
    """

    library: str
    offset: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract.

    Attributes
    ----------
    name
        Contract name.
    abi
        The JSON ABI as decoded.
    bytecode, deployed_bytecode
        Creation and runtime code; link slots and immutables hold zero bytes.
    links, deployed_links
        Where library addresses belong in each of the two.
    """

    name: str
    abi: tuple[Mapping[str, Any], ...]
    bytecode: bytes
    deployed_bytecode: bytes
    links: tuple[LinkSlot, ...] = ()
    deployed_links: tuple[LinkSlot, ...] = ()

    @property
    def libraries(self) -> frozenset[str]:
        """Names of the libraries that must be linked."""
        return frozenset(slot.library for slot in self.links)

    def creation_code(self, *arguments: Any, libraries: Mapping[str, str] | None = None) -> bytes:
        """Return creation code with libraries linked and the encoded constructor arguments behind it."""
        types = _constructor_types(self.abi)
        if len(types) != len(arguments):
            raise DataError(f"{self.name} is constructed from {types}, got {len(arguments)} arguments")
        code = link(self.name, self.bytecode, self.links, libraries or {})
        return code + abi_encode(types, arguments)

    def runtime_code(self, libraries: Mapping[str, str] | None = None) -> bytes:
        """Return runtime code with libraries linked; immutables still hold zero bytes."""
        return link(self.name, self.deployed_bytecode, self.deployed_links, libraries or {})


def _constructor_types(abi: tuple[Mapping[str, Any], ...]) -> tuple[str, ...]:
    for entry in abi:
        if entry["type"] == "constructor":
            return tuple(parameter["type"] for parameter in entry["inputs"])
    return ()


def link(name: str, code: bytes, slots: tuple[LinkSlot, ...], libraries: Mapping[str, str]) -> bytes:
    """Return `code` with library addresses written into its link slots.

    Raises
    ------
    UnknownNameError
        If a needed library is not in `libraries`.
    """
    linked = bytearray(code)
    for slot in slots:
        address = libraries.get(slot.library)
        if address is None:
            raise UnknownNameError(f"library linked by {name}", slot.library, libraries)
        if not is_address(address):
            raise DataError(f"library {slot.library} of {name}: not an address: {address!r}")
        linked[slot.offset : slot.offset + LINK_LENGTH] = to_canonical_address(address)
    return bytes(linked)


def _link_slots(references: Mapping[str, Mapping[str, Any]]) -> tuple[LinkSlot, ...]:
    """Flatten ``{file: {library: [{start, length}]}}``."""
    slots = []
    for libraries in references.values():
        for library, places in libraries.items():
            for place in places:
                if place["length"] != LINK_LENGTH:
                    raise DataError(f"link reference of {library} is {place['length']} bytes long, not 20")
                slots.append(LinkSlot(library, int(place["start"])))
    return tuple(sorted(slots, key=lambda slot: slot.offset))


def _unlinked_bytes(text: str, slots: tuple[LinkSlot, ...]) -> bytes:
    """Decode hex in which compilers leave placeholders (``__$…$__``) at the link slots."""
    digits = text.removeprefix("0x")
    for slot in slots:
        start, end = 2 * slot.offset, 2 * (slot.offset + LINK_LENGTH)
        digits = digits[:start] + "00" * LINK_LENGTH + digits[end:]
    return bytes.fromhex(digits)


def read_artifact(path: Path) -> Artifact:
    """Read an artifact file in any of the shapes that `parse_artifact` knows.

    Raises
    ------
    ToolError
        If the file is not there.
    DataError
        If it is not such an artifact.
    """
    try:
        return parse_artifact(json.loads(path.read_bytes()), path.stem)
    except FileNotFoundError:
        raise ToolError(f"contract artifact {path} is not there", fix="run: marginline setup") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a contract artifact: {error}") from None


def parse_artifact(raw: Mapping[str, Any], name: str) -> Artifact:
    """Return the contract that a compiler's output describes.

    Parameters
    ----------
    raw
        As Hardhat and Truffle write it (``bytecode``, ``linkReferences``), or as solc and Waffle do,
        with both kinds of code below ``evm``.
    name
        Contract name where `raw` has none.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        If it is neither.
    """
    if "evm" in raw:
        code, deployed = raw["evm"]["bytecode"], raw["evm"]["deployedBytecode"]
        text, deployed_text = code["object"], deployed["object"]
        links = _link_slots(code.get("linkReferences") or {})
        deployed_links = _link_slots(deployed.get("linkReferences") or {})
    else:
        text, deployed_text = raw["bytecode"], raw["deployedBytecode"]
        links = _link_slots(raw.get("linkReferences") or {})
        deployed_links = _link_slots(raw.get("deployedLinkReferences") or {})
    return Artifact(
        name=raw.get("contractName") or name,
        abi=tuple(raw["abi"]),
        bytecode=_unlinked_bytes(text, links),
        deployed_bytecode=_unlinked_bytes(deployed_text, deployed_links),
        links=links,
        deployed_links=deployed_links,
    )


def npm_artifact(node_modules: Path, package: str, path: str) -> Artifact:
    """Read the artifact at `path` inside an installed npm package.

    Parameters
    ----------
    node_modules
        Folder that the packages are installed in.
    package
        Package name, for example ``@aave/core-v3``.
    path
        Path inside the package, for example ``artifacts/contracts/misc/AaveOracle.sol/AaveOracle.json``.
    """
    return read_artifact(node_modules / package / path)


def vyper_names() -> tuple[str, ...]:
    """Return the names of this project's own contracts."""
    return tuple(sorted(path.stem for path in VYPER_SOURCES.glob("*.vy")))


def vyper_artifact(name: str, cache: Path | None = None) -> Artifact:
    """Compile one of this project's own contracts in process.

    Parameters
    ----------
    name
        File stem in ``contracts_abi/vyper``.
    cache
        Folder for compiled output, keyed by source and compiler version; None compiles anew.

    Raises
    ------
    UnknownNameError
        If there is no such contract.
    DataError
        If the source does not compile.
    """
    source_path = VYPER_SOURCES / f"{name}.vy"
    if not source_path.is_file():
        raise UnknownNameError("contract", name, vyper_names())
    return compile_vyper(name, source_path.read_text(encoding="utf-8"), cache)


def compile_vyper(name: str, source: str, cache: Path | None = None) -> Artifact:
    """Compile a Vyper source that imports nothing but the compiler's own modules; see `vyper_artifact`."""
    key = hashlib.sha256(f"{version('vyper')}\0{name}\0{source}".encode()).hexdigest()
    cached = None if cache is None else cache / f"{name}-{key[:24]}.json"
    if cached is not None and cached.is_file():
        return read_artifact(cached)

    _stand_in_for_immutables()
    from vyper.compiler import compile_code  # half a second, so only when something is compiled
    from vyper.exceptions import VyperException

    try:
        output = compile_code(source, output_formats=["abi", "bytecode", "bytecode_runtime"])
    except VyperException as error:
        raise DataError(f"{name}.vy does not compile: {error}") from None
    raw = {
        "contractName": name,
        "abi": output["abi"],
        "bytecode": output["bytecode"],
        "deployedBytecode": output["bytecode_runtime"],
    }
    if cached is not None:
        write_atomically(cached, json.dumps(raw).encode())
    return Artifact(
        name=name,
        abi=tuple(raw["abi"]),
        bytecode=_unlinked_bytes(raw["bytecode"], ()),
        deployed_bytecode=_unlinked_bytes(raw["deployedBytecode"], ()),
    )


def _stand_in_for_immutables() -> None:
    """Let Vyper load where `immutables` is absent: it has no wheel for CPython 3.14.

    Vyper imports it for one analysis of its experimental code generator, which is not used here.
    """
    try:
        importlib.import_module("immutables")
    except ModuleNotFoundError:
        module = ModuleType("immutables")
        vars(module)["Map"] = dict
        sys.modules["immutables"] = module


def write_atomically(path: Path, content: bytes) -> None:
    """Write a cache file so that a reader sees all of it or nothing, whoever else writes it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
