"""Calls as data: what to ask a contract and how to read its answer, without asking it.

A protocol adapter or an oracle source says what it needs as a list of `Call`; whoever owns a
connection (the keeper, a parity test, a recorded file) executes them at one block and hands back
bytes. Nothing here opens a connection.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from contracts_abi.errors import DataError

T = TypeVar("T")


@functools.lru_cache(maxsize=4096)
def checksummed(address: str) -> str:
    """Return the checksummed form, at the cost of a hash only for addresses not seen lately."""
    return str(to_checksum_address(address))


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One read of one contract.

    Attributes
    ----------
    to
        Checksummed address.
    data
        Calldata: selector and arguments.
    decode
        Turns return data into a value; raises `DataError` on anything else.
    label
        Names the read in errors and logs.
    """

    to: str
    data: bytes
    decode: Callable[[bytes], T]
    label: str


def _split_types(text: str) -> tuple[str, ...]:
    """Split a type list at its top-level commas; names behind a type are dropped."""
    parts: list[str] = []
    depth, start = 0, 0
    for i, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return tuple(p.strip() for p in parts if p.strip())


@functools.cache
def _unsigned_bits(types: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the widths of types that are all unsigned integers, else None."""
    found = [re.fullmatch(r"uint(\d*)", t) for t in types]
    return tuple(int(m[1] or 256) for m in found if m) if all(found) else None


def _balanced_head(text: str) -> int:
    depth = 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return i
    raise ValueError(f"unbalanced parentheses in {text!r}")


@dataclass(frozen=True, slots=True)
class Function:
    """Encoder and decoder of one contract function, with its selector computed once.

    Attributes
    ----------
    name
        The function's name.
    inputs, outputs
        ABI types in order.
    selector
        First four bytes of the signature's Keccak-256.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    selector: bytes

    def encode(self, *args: Any) -> bytes:
        """Return selector and arguments as calldata."""
        return self.selector + abi_encode(self.inputs, args)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Return the outputs as a tuple; addresses come back checksummed.

        Raises
        ------
        DataError
            If `data` is not an encoding of the outputs.
        """
        bits = _unsigned_bits(self.outputs)
        if bits is not None and len(data) >= 32 * len(bits):
            # Most reads are this, and words are ten times as fast as the general decoder.
            words = [int.from_bytes(data[k : k + 32], "big") for k in range(0, 32 * len(bits), 32)]
            if not any(map(operator.rshift, words, bits)):
                return tuple(words)
        try:
            values = abi_decode(self.outputs, data)
        except (DecodingError, OverflowError, ValueError) as error:
            raise DataError(
                f"{self.name}: {len(data)} bytes do not decode as {self.outputs}: {error}"
            ) from None
        return tuple(
            checksummed(v) if t == "address" else v for t, v in zip(self.outputs, values, strict=True)
        )

    def decode_inputs(self, calldata: bytes) -> tuple[Any, ...]:
        """Return the arguments of `calldata` (with selector) as a tuple."""
        if calldata[:4] != self.selector:
            raise DataError(f"calldata is not a call of {self.name}")
        try:
            return tuple(abi_decode(self.inputs, calldata[4:]))
        except (DecodingError, OverflowError, ValueError) as error:
            raise DataError(f"{self.name}: arguments do not decode: {error}") from None

    def decode_one(self, data: bytes) -> Any:
        """Return the only output."""
        (value,) = self.decode(data)
        return value

    def call(self, to: str, *args: Any, label: str | None = None) -> Call[Any]:
        """Return the read as data; one output is unwrapped, several come as a tuple."""
        decode = self.decode_one if len(self.outputs) == 1 else self.decode
        return Call(to, self.encode(*args), decode, label or f"{self.name}@{to[:10]}")


@functools.cache
def function(signature: str) -> Function:
    """Parse ``name(inputs)(outputs)``, for example ``balanceOf(address)(uint256)``.

    Raises
    ------
    ValueError
        If the text is not such a signature.
    """
    open_at = signature.index("(")
    name = signature[:open_at].strip()
    end = open_at + _balanced_head(signature[open_at:])
    inputs = _split_types(signature[open_at + 1 : end])
    rest = signature[end + 1 :].strip()
    if rest and not (rest.startswith("(") and rest.endswith(")")):
        raise ValueError(f"not a function signature: {signature!r}")
    outputs = _split_types(rest[1:-1]) if rest else ()
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"not a function signature: {signature!r}")
    return Function(name, inputs, outputs, keccak(text=f"{name}({','.join(inputs)})")[:4])


@dataclass(frozen=True, slots=True)
class Event:
    """Decoder of one contract event.

    Attributes
    ----------
    name
        The event's name.
    fields
        Pairs of field name and ABI type, in declaration order.
    indexed
        Names of the fields that stand in the topics.
    topic
        Keccak-256 of the canonical signature.
    """

    name: str
    fields: tuple[tuple[str, str], ...]
    indexed: frozenset[str]
    topic: bytes

    def decode(self, topics: Sequence[bytes], data: bytes) -> Mapping[str, Any]:
        """Return field name to value.

        Raises
        ------
        DataError
            If the log is not this event.
        """
        if not topics or topics[0] != self.topic:
            raise DataError(f"log is not {self.name}")
        in_topics = [(n, t) for n, t in self.fields if n in self.indexed]
        in_data = [(n, t) for n, t in self.fields if n not in self.indexed]
        if len(topics) != len(in_topics) + 1:
            raise DataError(f"{self.name}: {len(topics)} topics, expected {len(in_topics) + 1}")
        try:
            values = {
                n: abi_decode([t], topic)[0] for (n, t), topic in zip(in_topics, topics[1:], strict=True)
            }
            values.update(
                zip([n for n, _ in in_data], abi_decode([t for _, t in in_data], data), strict=True)
            )
        except (DecodingError, OverflowError, ValueError) as error:
            raise DataError(f"{self.name}: log does not decode: {error}") from None
        return {n: checksummed(values[n]) if t == "address" else values[n] for n, t in self.fields}


@functools.cache
def event(signature: str) -> Event:
    """Parse ``Name(type indexed a, type b)`` as Solidity writes it, without the keyword `event`."""
    open_at = signature.index("(")
    name = signature[:open_at].strip()
    fields: list[tuple[str, str]] = []
    indexed: set[str] = set()
    for part in _split_types(signature[open_at + 1 : signature.rindex(")")]):
        words = part.split()
        if len(words) not in (2, 3) or (len(words) == 3 and words[1] != "indexed"):
            raise ValueError(f"not an event field: {part!r}")
        fields.append((words[-1], words[0]))
        if len(words) == 3:
            indexed.add(words[-1])
    canonical = f"{name}({','.join(t for _, t in fields)})"
    return Event(name, tuple(fields), frozenset(indexed), keccak(text=canonical))
