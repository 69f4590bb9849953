"""Multicall3: many reads in one call, each allowed to fail. Fast codec for the one function that matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eth_utils.address import to_canonical_address

from contracts_abi.calls import Call, function
from contracts_abi.errors import DataError

MULTICALL3_ADDRESS: Final = "0xcA11bde05977b3631167028862bE2a173976CA11"
"""Where Multicall3 stands on most public chains."""

MAX_CALLS: Final = 512
"""Most reads that our own Multicall3 takes in one call; the original has no bound but gas."""

AGGREGATE3 = function("aggregate3((address,bool,bytes)[])((bool,bytes)[])")
GET_BLOCK_NUMBER = function("getBlockNumber()(uint256)")
GET_CURRENT_BLOCK_TIMESTAMP = function("getCurrentBlockTimestamp()(uint256)")

_WORD: Final = 32


def _word(value: int) -> bytes:
    return value.to_bytes(_WORD, "big")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _WORD)


def encode_aggregate3(reads: Sequence[tuple[str, bytes]]) -> bytes:
    """Return calldata of ``aggregate3`` for pairs of address and calldata, each allowed to fail."""
    addresses = {to: bytes(12) + to_canonical_address(to) for to in {to for to, _ in reads}}
    fixed = _word(1) + _word(3 * _WORD)
    bodies = [addresses[to] + fixed + _word(len(data)) + _padded(data) for to, data in reads]
    offsets: list[bytes] = []
    at = _WORD * len(bodies)
    for body in bodies:
        offsets.append(_word(at))
        at += len(body)
    return b"".join((AGGREGATE3.selector, _word(_WORD), _word(len(bodies)), *offsets, *bodies))


def decode_aggregate3(data: bytes) -> list[bytes | None]:
    """Return the return data of each read, None where it reverted.

    Raises
    ------
    DataError
        If `data` is not an answer of ``aggregate3``.
    """

    def uint_at(position: int) -> int:
        if position + _WORD > len(data):
            raise DataError(f"multicall: {len(data)} bytes end before position {position}")
        return int.from_bytes(data[position : position + _WORD], "big")

    array = uint_at(0)
    count = uint_at(array)
    base = array + _WORD
    if count > len(data) // _WORD:
        raise DataError(f"multicall: {count} results cannot stand in {len(data)} bytes")
    results: list[bytes | None] = []
    for i in range(count):
        body = base + uint_at(base + i * _WORD)
        start = body + uint_at(body + _WORD) + _WORD
        end = start + uint_at(start - _WORD)
        if end > len(data):
            raise DataError(f"multicall: result {i} ends behind the answer")
        results.append(data[start:end] if uint_at(body) else None)
    return results


def aggregate(multicall3: str, calls: Sequence[Call[Any]]) -> Call[list[bytes | None]]:
    """Return one read in place of several; decode each answer with its own call's `decode`."""
    return Call(
        multicall3,
        encode_aggregate3([(call.to, call.data) for call in calls]),
        decode_aggregate3,
        f"multicall of {len(calls)} reads",
    )
