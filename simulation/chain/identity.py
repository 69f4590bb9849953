"""Proof that the contracts on a chain are those of the npm package, byte for byte.

Runtime code differs from the package's artifact only where a deployment has to write into it: addresses of
linked libraries, immutables, and in a library its own address. Each of those places is checked to have been
empty in the artifact and to hold exactly what belongs there; everything else must be equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from contracts_abi.artifacts import LINK_LENGTH, Artifact
from contracts_abi.calls import function
from contracts_abi.errors import CallReverted
from simulation.chain import aave_v3, aave_v3_6, artifacts
from simulation.chain.aave_v3 import IMPLEMENTATION_SLOT
from simulation.chain.evm import ZERO_ADDRESS, Evm, read
from simulation.chain.market import Deployment
from simulation.chain.toolchain import PACKAGES, PROTOCOL_PACKAGES, NpmPackage

WORD: Final = 32
PUSH1: Final = 0x60
PUSH20: Final = 0x73
PUSH32: Final = 0x7F

RESERVE_INTEREST_RATE_STRATEGY: Final = function("RESERVE_INTEREST_RATE_STRATEGY()(address)")


def _named(package: NpmPackage) -> str:
    return f"{package.name}@{package.version}"


_PACKAGE: Final = _named(next(package for package in PACKAGES if package.name == artifacts.AAVE))
_PACKAGE_3_6: Final = _named(
    next(package for package in PROTOCOL_PACKAGES["aave-v3.6"] if package.name == artifacts.AAVE_ORIGIN)
)
PROXY: Final = "InitializableImmutableAdminUpgradeabilityProxy"


@dataclass(frozen=True, slots=True)
class Filled:
    """A place of the runtime code that the deployment filled in.

    Attributes
    ----------
    what
        ``library <name>``, ``immutable <name>`` or ``own address``.
    offset, length
        Bytes.
    """

    what: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """Whether a contract is the package's.

    Attributes
    ----------
    contract, package
        Its name, and the npm package with version that it is compared with.
    address, size, code_hash
        Where it is, the length of its runtime code in bytes, and that code's Keccak-256, 0x-prefixed.
    runtime_equal
        Whether the code is the artifact's with `filled` filled in, no immutable was left out, and all of
        `parts` are equal too.
    filled
        What was filled in, in order of offset.
    first_difference
        Byte offset of the first difference that `filled` does not explain, None when there is none.
    parts
        Contracts that this one runs: its proxy and its libraries.
    """

    contract: str
    package: str
    address: str
    size: int
    code_hash: str
    runtime_equal: bool
    filled: tuple[Filled, ...]
    first_difference: int | None
    parts: tuple[CodeIdentity, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a report."""
        return dataclasses.asdict(self)


def code_identity(evm: Evm, deployment: Deployment) -> CodeIdentity:
    """Compare the code that the pool runs with the npm package's artifacts.

    That is the contract that the pool's proxy points to, with the proxy and all libraries as its parts.

    Parameters
    ----------
    evm
        The chain that the market is on.
    deployment
        The market.
    """
    if set(deployment.libraries) == set(aave_v3.POOL_LIBRARIES):
        return _pool_identity(
            evm, deployment, artifacts.aave, _PACKAGE, "Pool", aave_v3.POOL_LIBRARIES, immutables={}
        )
    # One strategy serves all reserves and is a constant of the pool, so it is a part of it too.
    try:
        strategy = read(evm, RESERVE_INTEREST_RATE_STRATEGY.call(deployment.pool))
    except CallReverted:  # a pool that is damaged, which is what is asked here
        strategy = ZERO_ADDRESS
    pool = _pool_identity(
        evm,
        deployment,
        artifacts.aave_v3_6,
        _PACKAGE_3_6,
        "PoolInstance",
        aave_v3_6.POOL_LIBRARIES,
        immutables={"RESERVE_INTEREST_RATE_STRATEGY": strategy},
    )
    part = match_code(
        artifacts.aave_v3_6("DefaultReserveInterestRateStrategyV2"),
        strategy,
        evm.code(strategy),
        package=_PACKAGE_3_6,
        immutables={"ADDRESSES_PROVIDER": deployment.provider},
    )
    return dataclasses.replace(
        pool, runtime_equal=pool.runtime_equal and part.runtime_equal, parts=(*pool.parts, part)
    )


def _pool_identity(
    evm: Evm,
    deployment: Deployment,
    artifact: Callable[[str], Artifact],
    package: str,
    implementation_name: str,
    library_names: Sequence[str],
    *,
    immutables: Mapping[str, str],
) -> CodeIdentity:
    """Compare the pool's implementation, its proxy and its libraries with a package's artifacts."""
    proxy = match_code(
        artifact(PROXY),
        deployment.pool,
        evm.code(deployment.pool),
        package=package,
        immutables={"_admin": deployment.provider},
    )
    libraries = [
        match_code(
            artifact(name),
            deployment.libraries[name],
            evm.code(deployment.libraries[name]),
            package=package,
            libraries=deployment.libraries,
            is_library=True,
        )
        for name in library_names
    ]
    slot = evm.storage(deployment.pool, IMPLEMENTATION_SLOT)
    implementation = to_checksum_address(slot.to_bytes(WORD)[-LINK_LENGTH:])
    pool = match_code(
        artifact(implementation_name),
        implementation,
        evm.code(implementation),
        package=package,
        libraries=deployment.libraries,
        immutables={"ADDRESSES_PROVIDER": deployment.provider, **immutables},
    )
    parts = (proxy, *libraries)
    equal = pool.runtime_equal and all(part.runtime_equal for part in parts)
    return dataclasses.replace(pool, runtime_equal=equal, parts=parts)


def match_code(
    artifact: Artifact,
    address: str,
    runtime: bytes,
    *,
    package: str = _PACKAGE,
    libraries: Mapping[str, str] | None = None,
    immutables: Mapping[str, str] | None = None,
    is_library: bool = False,
) -> CodeIdentity:
    """Compare runtime code with an artifact's.

    Parameters
    ----------
    artifact
        What it should be.
    address
        Where the code is.
    runtime
        The code.
    package
        Name and version of the npm package that the artifact is from.
    libraries
        Library name to address, for the artifact's link slots.
    immutables
        Name to value of the immutables, which are addresses and differ from each other. Each must occur,
        and every place that the artifact keeps for an immutable must hold one of them.
    is_library
        Whether it is a library, whose code begins by comparing its own address.
    """
    expected = bytearray(artifact.runtime_code(libraries))
    filled = [Filled(f"library {slot.library}", slot.offset, LINK_LENGTH) for slot in artifact.deployed_links]
    if is_library and expected[0] == PUSH20 and not any(expected[1 : 1 + LINK_LENGTH]):
        filled.append(Filled("own address", 1, LINK_LENGTH))
        expected[1 : 1 + LINK_LENGTH] = to_canonical_address(address)
    words = {to_canonical_address(v).rjust(WORD, b"\0"): name for name, v in (immutables or {}).items()}
    missing = set(words.values())
    for offset in immutable_slots(artifact.deployed_bytecode):
        word = runtime[offset : offset + WORD]
        if (name := words.get(word)) is not None:
            filled.append(Filled(f"immutable {name}", offset, WORD))
            expected[offset : offset + WORD] = word
            missing.discard(name)
        else:
            missing.add(f"slot at {offset}")
    difference = _first_difference(bytes(expected), runtime)
    return CodeIdentity(
        contract=artifact.name,
        package=package,
        address=address,
        size=len(runtime),
        code_hash="0x" + keccak(runtime).hex(),
        runtime_equal=not missing and difference is None,
        filled=tuple(sorted(filled, key=lambda place: place.offset)),
        first_difference=difference,
    )


def immutable_slots(code: bytes) -> list[int]:
    """Return the offsets of the immutables in an artifact's runtime code.

    The compiler leaves a PUSH32 of zeros for each; a zero that is meant takes it one byte.
    """
    slots = []
    offset = 0
    while offset < len(code):
        opcode = code[offset]
        if opcode == PUSH32 and code[offset + 1 : offset + 1 + WORD] == bytes(WORD):
            slots.append(offset + 1)
        offset += 1 + (opcode - PUSH1 + 1 if PUSH1 <= opcode <= PUSH32 else 0)
    return slots


def _first_difference(expected: bytes, runtime: bytes) -> int | None:
    if expected == runtime:
        return None
    for offset, (a, b) in enumerate(zip(expected, runtime, strict=False)):
        if a != b:
            return offset
    return min(len(expected), len(runtime))
