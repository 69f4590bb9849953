"""Random cases of Morpho's adaptive rate model, answered by its authors' contract.

No package ships it. With a checkout of morpho-org/morpho-blue-irm (a1a87fd) below the folder that
`MARGINLINE_AUTHORS_SOURCES` names it is compiled and asked; what it said to a few hundred cases is kept in
``tests/golden`` for where there is none:

    MARGINLINE_AUTHORS_SOURCES=<folder> python -m tests.morpho_irm_cases
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from eth_utils.crypto import keccak

from contracts_abi.artifacts import Artifact
from contracts_abi.calls import function
from contracts_abi.morpho_blue import MARKET_PARAMS, RATE_AT_TARGET
from simulation.chain.artifacts import own
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read
from simulation.chain.parity.harness import backend_evm
from simulation.chain.solc import compile_sources
from simulation.chain.toolchain import node_modules
from simulation.protocols.morpho_blue import MarketParams
from simulation.protocols.morpho_blue.irm import MAX_RATE_AT_TARGET_WAD, MIN_RATE_AT_TARGET_WAD

VARIABLE = "MARGINLINE_AUTHORS_SOURCES"
CHECKOUT = "morpho-blue-irm"
KEPT = Path(__file__).parent / "golden" / "morpho-irm.jsonl"
KEPT_CASES = 300
SEED = 20_240_110

MARKET = "(uint128,uint128,uint128,uint128,uint128,uint128)"
BORROW_RATE_VIEW = function(f"borrowRateView({MARKET_PARAMS},{MARKET})(uint256)")
BORROW_RATE = function(f"borrowRate({MARKET_PARAMS},{MARKET})(uint256)")

MORPHO = labelled_address("morpho of the rate cases")
PARAMS = MarketParams(ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, 0)
MARKET_ID = bytes.fromhex(PARAMS.id[2:])

Asked: TypeAlias = tuple[int, int, int, int]
"""Rate at target, supplied, borrowed, seconds elapsed."""
Said: TypeAlias = tuple[int, int]
"""Mean rate, rate at target afterwards."""


def drawn(count: int, seed: int = SEED) -> Iterator[Asked]:
    """Yield random questions, with the corners among them."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        low, high = MIN_RATE_AT_TARGET_WAD, MAX_RATE_AT_TARGET_WAD
        start = (0, low, high, int(low * (high / low) ** rng.random()))[
            int(rng.choice(4, p=(0.1, 0.1, 0.1, 0.7)))
        ]
        supplied = int(10 ** rng.uniform(0, 30)) if rng.random() < 0.95 else 0
        part = (0.0, 1.0, 0.9, rng.random(), 0.9 + rng.normal(0, 0.01))[
            int(rng.choice(5, p=(0.1, 0.1, 0.1, 0.4, 0.3)))
        ]
        borrowed = min(supplied, supplied * int(min(max(part, 0.0), 1.0) * 10**15) // 10**15)
        elapsed = (0, 1, int(10 ** rng.uniform(0, 7)), int(10 ** rng.uniform(7, 9)))[
            int(rng.choice(4, p=(0.1, 0.1, 0.6, 0.2)))
        ]
        yield start, supplied, borrowed, elapsed


def answered(evm: Evm, contract: str, slot: int, asked: Asked) -> Said:
    """Ask a contract that keeps the market's rate at target in storage word `slot`."""
    start, supplied, borrowed, elapsed = asked
    evm.set_storage(contract, slot, start)
    assert read(evm, RATE_AT_TARGET.call(contract, MARKET_ID)) == start
    market = (supplied, 0, borrowed, 0, evm.timestamp() - elapsed, 0)
    mean = read(evm, BORROW_RATE_VIEW.call(contract, PARAMS.words(), market))
    market = (supplied, 0, borrowed, 0, evm.timestamp() - elapsed, 0)
    sent = evm.send(MORPHO, contract, BORROW_RATE.encode(PARAMS.words(), market)).expect("borrowRate")
    assert BORROW_RATE.decode_one(sent.output) == mean
    return mean, read(evm, RATE_AT_TARGET.call(contract, MARKET_ID))


def compiled(folder: Path) -> Artifact:
    """Return the authors' contract, or skip; `folder` is to work in."""
    named = os.environ.get(VARIABLE)
    if not named or not (source := Path(named) / CHECKOUT).is_dir():
        pytest.skip(f"{VARIABLE} names no folder with a checkout of {CHECKOUT}")
    shutil.copytree(source / "src", folder / "src")
    shutil.copytree(node_modules() / "@morpho-org/morpho-blue/src", folder / "lib/morpho-blue/src")
    name = "src/adaptive-curve-irm/AdaptiveCurveIrm.sol"
    return compile_sources({name: folder / name}, "0.8.19", base=folder)["AdaptiveCurveIrm"]


def asked_of(artifact: Artifact, slot: int, count: int, seed: int = SEED) -> Iterator[tuple[Asked, Said]]:
    """Yield questions with what a contract says to them."""
    with backend_evm("revm") as evm:
        contract = evm.create(MORPHO, artifact.creation_code(MORPHO))
        for asked in drawn(count, seed):
            yield asked, answered(evm, contract, slot, asked)


def asked_of_authors(folder: Path, count: int, seed: int = SEED) -> Iterator[tuple[Asked, Said]]:
    """Yield questions with what the authors' contract says; Solidity hashes key before place."""
    slot = int.from_bytes(keccak(MARKET_ID + bytes(32)))
    yield from asked_of(compiled(folder), slot, count, seed)


def asked_of_ours(count: int, seed: int = SEED) -> Iterator[tuple[Asked, Said]]:
    """Yield questions with what our contract for local chains says; Vyper hashes place before key."""
    slot = int.from_bytes(keccak(bytes(32) + MARKET_ID))
    yield from asked_of(own("AdaptiveCurveIrm"), slot, count, seed)


def kept() -> Iterator[tuple[Asked, Said]]:
    """Yield the questions and answers that are kept."""
    for line in KEPT.read_text(encoding="ascii").splitlines():
        asked, said = json.loads(line)
        yield tuple(asked), tuple(said)


def keep(folder: Path) -> str:
    """Return the text of the file of kept cases."""
    return "".join(json.dumps(case) + "\n" for case in asked_of_authors(folder, KEPT_CASES))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        KEPT.write_text(keep(Path(work)), encoding="ascii")
