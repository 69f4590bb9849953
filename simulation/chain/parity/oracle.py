"""Price sources against contracts: a source's reads, answered by an EVM at one block, and what came of them.

A parity test of a source is a `ParityAdapter` whose name begins with ``oracle-``. It brings a contract into a
random state, asks the contract itself in a way that shares nothing with the source (`raw_words`), and lets
`compare` ask the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak

from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted
from oracle.interfaces import FeedContext, Source
from oracle.types import NoData, Reading
from simulation.chain.evm import ZERO_ADDRESS, Evm
from simulation.chain.parity.harness import Mismatch


class Answer(StrEnum):
    """What a feed contract did when it was read."""

    READ = "read"
    NO_DATA = "no_data"


class OracleParity:
    """What the parity tests of all price sources share."""

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract can do with a case."""
        return tuple(Answer)


class Draw:
    """Random figures of one case, and what the case was an instance of."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.tags: set[str] = set()

    def below(self, end: int) -> int:
        """Return a whole number from 0 to below `end`."""
        return int(self.rng.integers(end))

    def chance(self, part: float) -> bool:
        """Return True in that part of the cases."""
        return bool(self.rng.random() < part)

    def tag(self, name: str, applies: bool) -> None:
        """Count the case under a name if it applies."""
        if applies:
            self.tags.add(name)


def answers(evm: Evm, calls: Sequence[Call[Any]], sender: str = ZERO_ADDRESS) -> list[bytes | None]:
    """Execute reads on the next block; a read that reverts answers None."""
    return [_answer(evm, call, sender) for call in calls]


def _answer(evm: Evm, call: Call[Any], sender: str) -> bytes | None:
    try:
        return evm.call(call.to, call.data, sender)
    except CallReverted:
        return None


def observe(source: Source, evm: Evm, sender: str = ZERO_ADDRESS) -> tuple[Reading, FeedContext]:
    """Return what a source says of the next block, and what it knows of its feed there."""
    results = answers(evm, source.reads(), sender)
    now = evm.timestamp()
    reading = source.decode(results, block=evm.block_number(), timestamp=now)
    return reading, source.context(results, timestamp=now)


def compare(
    source: Source,
    evm: Evm,
    expected: Mapping[str, Any] | None,
    facts: Mapping[str, Any] | None = None,
    *,
    sender: str = ZERO_ADDRESS,
) -> tuple[Mismatch, ...]:
    """Read a source on an EVM and hold it against what the contract says.

    Parameters
    ----------
    source, evm
        Whose reads are executed where, all at the next block.
    expected
        Fields of `PriceObs` to the values that the contract gave; None when there must be no data.
    facts
        Fields of `FeedContext` to their values; dots lead into a fact (``amm.oldest_s``).
    sender
        Who reads; some feeds answer only those on a list.

    Returns
    -------
    tuple of Mismatch
        Empty when source and contract agree.
    """
    reading, context = observe(source, evm, sender)
    known = tuple(m for name, value in (facts or {}).items() for m in differ(name, value, _at(context, name)))
    return (*differ_reading(expected, reading), *known)


def differ_reading(expected: Mapping[str, Any] | None, reading: Reading) -> tuple[Mismatch, ...]:
    """Return where a reading is not what was expected; None expects no data."""
    if isinstance(reading, NoData):
        return () if expected is None else (Mismatch("reading", repr(dict(expected)), reading.reason),)
    if expected is None:
        return (Mismatch("reading", "no data", repr(reading)),)
    return tuple(m for name, value in expected.items() for m in differ(name, value, getattr(reading, name)))


def differ(field: str, contract: Any, model: Any) -> tuple[Mismatch, ...]:
    """Return the mismatch of two values, or nothing."""
    return () if contract == model else (Mismatch(field, repr(contract), repr(model)),)


def _at(context: FeedContext, path: str) -> Any:
    value: Any = context
    for name in path.split("."):
        value = getattr(value, name)
    return value


def raw_words(
    evm: Evm, to: str, signature: str, *arguments: Any, sender: str = ZERO_ADDRESS
) -> tuple[int, ...] | None:
    """Return what a function answers as unsigned 256-bit words, None when it reverts.

    Parameters
    ----------
    signature
        Name and argument types, for example ``getRoundData(uint80)``.
    """
    types = signature[signature.index("(") + 1 : -1]
    data = keccak(text=signature)[:4] + abi_encode(types.split(",") if types else [], arguments)
    try:
        output = evm.call(to, data, sender)
    except CallReverted:
        return None
    return tuple(int.from_bytes(output[i : i + 32]) for i in range(0, len(output), 32))


def signed(word: int) -> int:
    """Return a 256-bit word as two's complement."""
    return word - 2**256 if word >> 255 else word
