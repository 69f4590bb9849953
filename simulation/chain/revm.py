"""The in-process EVM: no node, no blocks, a hundred times faster. For parity tests and Monte Carlo.

What it is not: there is no mempool, there are no receipts by hash, and gas figures are close to a node's but
not equal, since accounts and slots stay warm between transactions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eth_utils.crypto import keccak

from contracts_abi.calls import checksummed
from contracts_abi.errors import ChainError, InputError, ToolError
from simulation.chain.evm import ZERO_ADDRESS, Log, Tx, TxResult, reverted
from simulation.chain.rpc import unhexed

if TYPE_CHECKING:
    import pyrevm

SPEC = "PRAGUE"
GAS_LIMIT = 1_000_000_000
ANALYSIS_PADDING = 33

_NO_CODE = keccak(b"")
_REVERT = re.compile(r"Revert \{ gas_used: (\d+), output: 0x([0-9a-fA-F]*) \}")
_HALT = re.compile(r"Halt \{ reason: (.+), gas_used: (\d+) \}")


@dataclass(slots=True)
class _Snapshot:
    """Where to go back to.

    The EVM's own checkpoint does not cover what is written around transactions, so balances, nonces and codes
    are kept as they were before the first such write. (A balance that a transaction had already moved by then
    would come back as moved.)
    """

    checkpoint: pyrevm.JournalCheckpoint
    number: int
    timestamp: int
    last_timestamp: int
    balances: dict[str, int] = field(default_factory=dict)
    nonces: dict[str, int] = field(default_factory=dict)
    codes: dict[str, bytes] = field(default_factory=dict)


def available() -> bool:
    """Return whether pyrevm can be imported; it has wheels for CPython 3.11 and 3.12 only."""
    try:
        import pyrevm  # noqa: F401 - the import is the question
    except ImportError:
        return False
    return True


class RevmEvm:
    """`Evm` on pyrevm.

    Parameters
    ----------
    timestamp
        Time of the first block.
    chain_id
        Chain id that contracts see.

    Raises
    ------
    ToolError
        Where pyrevm is not installed.
    """

    name = "revm"

    def __init__(self, *, timestamp: int = 1_583_971_200, chain_id: int = 31_337) -> None:
        try:
            import pyrevm
        except ImportError:
            raise ToolError(
                "the in-process EVM (pyrevm) is not installed; it has wheels for CPython 3.11 and 3.12 only",
                fix="use CPython 3.11 or 3.12, or the anvil backend",
            ) from None
        self._pyrevm = pyrevm
        self.chain_id = chain_id
        self._number, self._timestamp, self._last_timestamp = 1, timestamp, timestamp
        env = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=chain_id), block=self._block_env())
        self._evm = pyrevm.EVM(env=env, gas_limit=GAS_LIMIT, spec_id=SPEC)
        self._snapshots: list[_Snapshot] = []

    def _block_env(self) -> pyrevm.BlockEnv:
        return self._pyrevm.BlockEnv(
            number=self._number, timestamp=self._timestamp, basefee=0, gas_limit=GAS_LIMIT
        )

    def create(self, sender: str, initcode: bytes, value: int = 0) -> str:
        """See `Evm.create`."""
        result = self.send(sender, None, initcode, value).expect("contract creation")
        if result.created is None:
            raise ChainError("contract creation returned no address")
        return result.created

    def call(
        self, to: str, data: bytes, sender: str = ZERO_ADDRESS, gas: int | None = None, value: int = 0
    ) -> bytes:
        """See `Evm.call`. Not a STATICCALL, like `eth_call`: quoters write and revert."""
        evm = self._evm
        checkpoint = evm.snapshot()
        try:
            return bytes(evm.message_call(sender, to, data, value, gas or GAS_LIMIT))
        except RuntimeError as error:
            output, _, _ = _failed(error)
        finally:
            evm.reset_transient_storage()
            evm.revert(checkpoint)
        raise reverted(f"call of {to[:10]}", output)

    def send(
        self, sender: str, to: str | None, data: bytes = b"", value: int = 0, gas: int | None = None
    ) -> TxResult:
        """See `Evm.send`."""
        self._remember_nonce(sender)
        output, gas_used, success = self._execute(Tx(sender, to, data, value, gas))
        if to is not None:  # a creation counts itself
            self._count_nonce(sender)
        logs = self._logs() if success else ()
        created = checksummed(output.decode()) if success and to is None else None
        block, timestamp = self._number, self._timestamp
        self._last_timestamp = timestamp
        self._move_to(block + 1, timestamp + 1)
        return TxResult(
            success, gas_used, b"" if created is not None else output, logs, block, timestamp, created
        )

    def send_many(self, txs: Sequence[Tx]) -> list[TxResult]:
        """See `Evm.send_many`; one block, as on a node."""
        number, timestamp = self._number, self._timestamp
        results = []
        for tx in txs:
            self._move_to(number, timestamp)
            results.append(self.send(tx.sender, tx.to, tx.data, tx.value, tx.gas))
        return results

    def _remember_nonce(self, sender: str) -> None:
        """Note a sender's nonce at the snapshot; what revm itself makes of it when it goes back varies."""
        info = self._evm.basic(sender)
        if info.code_hash == _NO_CODE:
            for undo in self._snapshots[-1:]:
                undo.nonces.setdefault(sender, info.nonce)

    def _count_nonce(self, sender: str) -> None:
        """Count a transaction as a node does, so that contracts get the same addresses on both backends."""
        info = self._evm.basic(sender)
        if info.code_hash != _NO_CODE:
            return
        self._insert_account(sender, balance=info.balance, nonce=info.nonce + 1)

    def _logs(self) -> tuple[Log, ...]:
        """Return the logs of the transaction that was executed last."""
        return tuple(
            Log(
                checksummed(log.address),
                tuple(unhexed(topic) for topic in log.topics),
                bytes(log.data[1]),
            )
            for log in self._result().logs
        )

    def _result(self) -> pyrevm.ExecutionResult:
        if self._evm.result is None:
            raise ChainError("revm has no result of the last transaction")
        return self._evm.result

    def _execute(self, tx: Tx) -> tuple[bytes, int, bool]:
        """Run a transaction; returns output (of a creation: the address as text), gas and success."""
        gas = tx.gas or GAS_LIMIT
        try:
            if tx.to is None:
                created = self._evm.deploy(tx.sender, tx.data, tx.value, gas)
                return created.encode(), self._result().gas_used, True
            output = self._evm.message_call(tx.sender, tx.to, tx.data, tx.value, gas)
            return bytes(output), self._result().gas_used, True
        except RuntimeError as error:
            return _failed(error)
        finally:
            self._evm.reset_transient_storage()

    def code(self, address: str) -> bytes:
        """See `Evm.code`."""
        code = bytes(self._evm.get_code(address) or b"")
        # pyrevm shows code that it has analysed with the padding of the analysis behind it.
        unpadded = code[:-ANALYSIS_PADDING]
        if code.endswith(bytes(ANALYSIS_PADDING)) and keccak(unpadded) == self._evm.basic(address).code_hash:
            return unpadded
        return code

    def set_code(self, address: str, code: bytes) -> None:
        """See `Evm.set_code`."""
        for undo in self._snapshots[-1:]:
            undo.codes.setdefault(address, self.code(address))
        self._insert_code(address, code)

    def _insert_code(self, address: str, code: bytes) -> None:
        info = self._evm.basic(address)
        self._insert_account(address, balance=info.balance, nonce=info.nonce, code=code)

    def _insert_account(self, address: str, *, balance: int, nonce: int, code: bytes | None = None) -> None:
        account: Any = self._pyrevm.AccountInfo  # its stub lacks `balance`
        self._evm.insert_account_info(address, account(balance=balance, nonce=nonce, code=code))

    def storage(self, address: str, slot: int) -> int:
        """See `Evm.storage`."""
        return int(self._evm.storage(address, slot))

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """See `Evm.set_storage`."""
        self._evm.insert_account_storage(address, slot, value)

    def set_storage_many(self, words: Sequence[tuple[str, int, int]]) -> None:
        """See `Evm.set_storage_many`."""
        for address, slot, value in words:
            self.set_storage(address, slot, value)

    def balance(self, address: str) -> int:
        """See `Evm.balance`."""
        return int(self._evm.get_balance(address))

    def set_balance(self, address: str, wei: int) -> None:
        """See `Evm.set_balance`."""
        for undo in self._snapshots[-1:]:
            undo.balances.setdefault(address, self.balance(address))
        self._evm.set_balance(address, wei)

    def timestamp(self) -> int:
        """See `Evm.timestamp`."""
        return self._timestamp

    def block_number(self) -> int:
        """See `Evm.block_number`."""
        return self._number

    def warp(self, timestamp: int) -> None:
        """See `Evm.warp`."""
        if timestamp < self._last_timestamp:
            raise InputError(f"cannot warp to {timestamp}: the last block is at {self._last_timestamp}")
        self._move_to(self._number, timestamp)

    def snapshot(self) -> int:
        """See `Evm.snapshot`."""
        self._snapshots.append(
            _Snapshot(self._evm.snapshot(), self._number, self._timestamp, self._last_timestamp)
        )
        return len(self._snapshots)

    def revert(self, snapshot: int) -> None:
        """See `Evm.revert`."""
        if not 1 <= snapshot <= len(self._snapshots):
            raise InputError(f"no snapshot {snapshot}", fix="each snapshot can be reverted to once")
        while len(self._snapshots) >= snapshot:
            undo = self._snapshots.pop()
            self._evm.revert(undo.checkpoint)
            for address, wei in undo.balances.items():
                self._evm.set_balance(address, wei)
            for address, nonce in undo.nonces.items():
                self._insert_account(address, balance=self.balance(address), nonce=nonce)
            for address, code in undo.codes.items():
                self._insert_code(address, code)
        self._last_timestamp = undo.last_timestamp
        self._move_to(undo.number, undo.timestamp)

    def _move_to(self, number: int, timestamp: int) -> None:
        self._number, self._timestamp = number, timestamp
        self._evm.set_block_env(self._block_env())


def _failed(error: RuntimeError) -> tuple[bytes, int, bool]:
    """Return output, gas and failure of a transaction that reverted or halted.

    Raises
    ------
    ChainError
        If it was not executed at all.
    """
    if found := _REVERT.search(str(error)):
        return bytes.fromhex(found[2]), int(found[1]), False
    if found := _HALT.search(str(error)):
        return b"", int(found[2]), False
    raise ChainError(f"revm refused the transaction: {error}") from None
