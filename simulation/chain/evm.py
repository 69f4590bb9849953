"""One small interface for every EVM that the project deploys to and tests against.

Time is explicit. `Evm.timestamp` and `Evm.block_number` are those of the *next* block: what a call sees
and what the next transaction is mined with, so that a call and the transaction behind it agree to the wei
although interest accrues by the second. Each transaction is a block, and moves time on by one second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from contracts_abi.calls import Call, Event, Function
from contracts_abi.errors import CallReverted, DataError

T = TypeVar("T")

ZERO_ADDRESS = "0x" + "00" * 20

ERROR_STRING = bytes.fromhex("08c379a0")
PANIC = bytes.fromhex("4e487b71")


@dataclass(frozen=True, slots=True)
class Log:
    """A log entry of a transaction."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction to be sent by an account that needs no key here.

    Attributes
    ----------
    sender
        Any address; local EVMs do not ask for a signature.
    to
        Callee, or None to create a contract from `data`.
    data
        Calldata or creation code.
    value
        Wei.
    gas
        Gas limit; None for the EVM's own default.
    """

    sender: str
    to: str | None
    data: bytes = b""
    value: int = 0
    gas: int | None = None


@dataclass(frozen=True, slots=True)
class TxResult:
    """What became of a transaction.

    Attributes
    ----------
    success
        Whether it did not revert.
    gas_used
        Gas units.
    output
        Return data, or revert data of a failed one.
    logs
        Logs in order.
    block, timestamp
        The block that it is in, and that block's time in unix seconds.
    created
        Address of the contract that it created, if any.
    tx_hash
        Hash, None where the EVM has none.
    """

    success: bool
    gas_used: int
    output: bytes
    logs: tuple[Log, ...]
    block: int
    timestamp: int
    created: str | None = None
    tx_hash: str | None = None

    def expect(self, what: str) -> TxResult:
        """Return self, or raise `CallReverted` naming `what` and the contract's reason."""
        if not self.success:
            raise reverted(what, self.output)
        return self


class Evm(Protocol):
    """What deployments, parity tests and simulations need of an EVM."""

    @property
    def name(self) -> str:
        """``anvil`` or ``revm``."""
        ...

    @property
    def chain_id(self) -> int:
        """Chain id that contracts see."""
        ...

    def create(self, sender: str, initcode: bytes, value: int = 0) -> str:
        """Create a contract and return its checksummed address; raises `CallReverted`."""
        ...

    def call(
        self, to: str, data: bytes, sender: str = ZERO_ADDRESS, gas: int | None = None, value: int = 0
    ) -> bytes:
        """Run a call on the next block and forget its effects; raises `CallReverted`."""
        ...

    def send(
        self, sender: str, to: str | None, data: bytes = b"", value: int = 0, gas: int | None = None
    ) -> TxResult:
        """Mine one transaction in a block of its own. A revert is a result, not an exception."""
        ...

    def send_many(self, txs: Sequence[Tx]) -> list[TxResult]:
        """Mine transactions in order, in one block; each needs its `gas` limit."""
        ...

    def code(self, address: str) -> bytes:
        """Return an account's code."""
        ...

    def set_code(self, address: str, code: bytes) -> None:
        """Replace an account's code; storage stays."""
        ...

    def storage(self, address: str, slot: int) -> int:
        """Return a storage word."""
        ...

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """Replace a storage word."""
        ...

    def set_storage_many(self, words: Sequence[tuple[str, int, int]]) -> None:
        """Replace many storage words, each given as address, slot and value."""
        ...

    def balance(self, address: str) -> int:
        """Return an account's balance in wei."""
        ...

    def set_balance(self, address: str, wei: int) -> None:
        """Replace an account's balance."""
        ...

    def timestamp(self) -> int:
        """Return the next block's time in unix seconds."""
        ...

    def block_number(self) -> int:
        """Return the next block's number."""
        ...

    def warp(self, timestamp: int) -> None:
        """Set the next block's time; raises `InputError` when that is before the last block's."""
        ...

    def snapshot(self) -> int:
        """Remember state, block and time; returns an id for `revert`."""
        ...

    def revert(self, snapshot: int) -> None:
        """Go back to a snapshot, which is used up, as are all later ones."""
        ...


def reverted(what: str, data: bytes) -> CallReverted:
    """Return the error for a call that reverted with `data`."""
    return CallReverted(f"{what} reverted: {revert_reason(data)}", data)


def revert_reason(data: bytes) -> str:
    """Render revert data: the text of ``Error(string)``, a panic's code, else the bytes."""
    try:
        if data[:4] == ERROR_STRING:
            return repr(abi_decode(["string"], data[4:])[0])
        if data[:4] == PANIC:
            return f"panic 0x{abi_decode(['uint256'], data[4:])[0]:02x}"
    except (DecodingError, UnicodeDecodeError, OverflowError):
        pass
    return f"0x{data.hex()}" if data else "no data"


def read(evm: Evm, call: Call[T]) -> T:
    """Execute a read and decode its answer."""
    try:
        return call.decode(evm.call(call.to, call.data))
    except CallReverted as error:
        raise reverted(call.label, error.data) from None


def transact(
    evm: Evm, sender: str, to: str, fn: Function, *args: Any, value: int = 0, gas: int | None = None
) -> TxResult:
    """Send a function call that is expected to succeed.

    Raises
    ------
    CallReverted
        If it does not.
    """
    return evm.send(sender, to, fn.encode(*args), value, gas).expect(f"{fn.name}@{to[:10]}")


def find_log(result: TxResult, wanted: Event, address: str | None = None) -> Mapping[str, Any]:
    """Return the fields of the first log of `wanted`, of a given contract or any.

    Raises
    ------
    DataError
        If there is none.
    """
    for log in result.logs:
        if log.topics and log.topics[0] == wanted.topic and address in (None, log.address):
            return wanted.decode(log.topics, log.data)
    raise DataError(f"the transaction did not emit {wanted.name}")


def labelled_address(label: str) -> str:
    """Return an address that nobody has a key of and that is the same on every run."""
    return to_checksum_address(keccak(text=f"marginline: {label}")[12:])
