"""What the parity tests of Aave V3's versions have in common: who acts, how a case is drawn and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from contracts_abi.calls import Function, function
from contracts_abi.errors import CallReverted
from simulation.chain.evm import Evm, labelled_address, transact
from simulation.chain.market import DEFAULT_MARKET
from simulation.chain.parity.harness import Mismatch
from simulation.fixed_point import WAD
from simulation.protocols.aave_v3.layout import Answers, Reads

SET_CONFIGURATION: Final = function("setConfiguration(address,(uint256))")
SET_ANSWER: Final = function("setAnswer(bool,uint256)")

PRICE_SOURCE: Final = bytes.fromhex("5f545f5260205ff3")
"""SLOAD(0), returned: a price source that answers every call with its only storage word.

A price set in storage takes no block and no second, and may be what no feed would post.
"""

TRANSFER_REFUSED: Final = ("", "ERC20: transfer amount exceeds balance")
"""How the deployed tokens refuse a transfer beyond the balance: WETH without a word, the others with one."""

SENTINEL_GRACE_S: Final = 3_600
YEAR_S: Final = 31_536_000
FUNDS_RAW: Final = 10**36
LIQUIDITY_USD: Final = 1_000_000_000
CLOSE_FACTOR_WAD: Final = 95 * WAD // 100
THRESHOLDS_WAD: Final = (WAD, CLOSE_FACTOR_WAD)
THRESHOLD_TRIES: Final = 40
NEAR_WAD: Final = 10**12
"""A health factor this close to 1 or 0.95 counts as near: one part in a million."""

DEPLOYER: Final = labelled_address("deployer")
PROVIDER: Final = labelled_address("liquidity provider")
WHALE: Final = labelled_address("whale")
BORROWER: Final = labelled_address("borrower")
LIQUIDATOR: Final = labelled_address("liquidator")
SINK: Final = labelled_address("sink")

# --- drawing ----------------------------------------------------------------------------------------------


def pick(rng: np.random.Generator, options: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """Return one of the options."""
    return options[int(rng.choice(len(options), p=weights))]


def some(rng: np.random.Generator, options: Sequence[str], most: int) -> list[str]:
    """Return at least one and at most `most` of the options, in any order."""
    count = int(rng.integers(1, min(most, len(options)) + 1))
    return [options[i] for i in rng.permutation(len(options))[:count]]


def uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """Return an integer of any size, ``low <= n <= high``."""
    return low + int.from_bytes(rng.bytes(40)) % (high - low + 1)


def maybe(rng: np.random.Generator, probability: float) -> bool:
    """Return true with a probability."""
    return bool(rng.random() < probability)


def raw_of(symbol: str, usd: float) -> int:
    """Return what so many dollars are at the first price, in token units."""
    asset = DEFAULT_MARKET.asset(symbol)
    return int(usd * 10**8 / asset.price_e8 * 10**asset.decimals)


def first_from(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the least ``low <= n <= high`` from which on `holds` holds, `high` when it never does."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


# --- acting and comparing ---------------------------------------------------------------------------------


def act_as(evm: Evm, contract: str, to: str, fn: Function, *args: Any) -> None:
    """Send a transaction in a contract's name: without its code meanwhile, since code may not send any."""
    code = evm.code(contract)
    evm.set_code(contract, b"")
    transact(evm, contract, to, fn, *args)
    evm.set_code(contract, code)


def execute(evm: Evm, calls: Reads) -> Answers:
    """Run reads one by one; None for one that reverts."""
    answers: list[bytes | None] = []
    for call in calls:
        try:
            answers.append(evm.call(call.to, call.data))
        except CallReverted:
            answers.append(None)
    return answers


class Comparison:
    """Collects the fields on which contract and model part."""

    def __init__(self) -> None:
        self.mismatches: list[Mismatch] = []

    def check(self, field: str, contract: Any, model: Any) -> None:
        """Note the field when the two are not equal."""
        if contract != model:
            self.mismatches.append(Mismatch(field, str(contract), str(model)))
