"""What sources share that read contracts: decoding answers that may have failed, and feeds that carry a time.

A read that reverted, answered nothing or answered something else is one thing: no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from contracts_abi.calls import Call, Function
from contracts_abi.errors import DataError
from contracts_abi.feeds import DECIMALS, LATEST_ROUND_DATA
from oracle.fields import Address
from oracle.strict import StrictModel
from oracle.types import NoData

INT256_MAX = 2**255 - 1
UINT256_MAX = 2**256 - 1


def outputs(function: Function, data: bytes | None) -> tuple[Any, ...] | None:
    """Return what a function answered; None when it failed or answered something else."""
    if not data:
        return None
    try:
        return function.decode(data)
    except DataError:
        return None


def output(function: Function, data: bytes | None) -> Any:
    """Return the first output of a function; None when there is none."""
    values = outputs(function, data)
    return None if values is None else values[0]


def divide(numerator: int, denominator: int) -> int:
    """Divide as the EVM does with signed words: towards zero, where Python goes towards minus infinity."""
    quotient = abs(numerator) // abs(denominator)
    return quotient if (numerator < 0) == (denominator < 0) else -quotient


@dataclass(frozen=True, slots=True)
class Round:
    """The latest round of a feed behind an adapter.

    Attributes
    ----------
    answer, decimals
        As the feed states them.
    updated_at
        Unix seconds; 0 for a round that was never written.
    round_id, answered_in
        As the feed states them, phase included.
    """

    answer: int
    decimals: int
    updated_at: int
    round_id: int = 0
    answered_in: int = 0


def round_reads(feed: str) -> list[Call[Any]]:
    """Return the reads that `round_of` takes the answers of."""
    return [LATEST_ROUND_DATA.call(feed), DECIMALS.call(feed)]


ROUND_READS = 2


def round_of(results: Sequence[bytes | None]) -> Round | None:
    """Return a feed's latest round; None when it gave none, or no scale, or one that was never written."""
    values = outputs(LATEST_ROUND_DATA, results[0])
    decimals = output(DECIMALS, results[1])
    if values is None or decimals is None or values[3] == 0:
        return None
    round_id, answer, _started_at, updated_at, answered_in = values
    return Round(answer, decimals, updated_at, round_id, answered_in)


class ContractSource(StrictModel):
    """What sources share that read one contract.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The contract to read.
    name
        Source id; ``<kind>:<address>`` by default.
    """

    kind: ClassVar[str]

    base: str
    quote: str
    address: Address
    name: str | None = None

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"{self.kind}:{self.address}"

    def _no_data(self, reason: str, raw: bytes | None, block: int, timestamp: int) -> NoData:
        return NoData(self.base, self.quote, self.source_id, timestamp, reason, block, raw or b"")
