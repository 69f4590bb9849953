"""A local node: how it is found, started and ended, and the EVM interface on top of it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from contracts_abi.calls import checksummed
from contracts_abi.errors import (
    CallReverted,
    ChainError,
    InputError,
    RpcError,
    ToolError,
)
from simulation.chain.evm import ZERO_ADDRESS, Log, Tx, TxResult, reverted
from simulation.chain.guarded import guarded, release
from simulation.chain.rpc import JsonRpc, Request, hexed, masked, quantity, unhexed
from simulation.chain.toolchain import locate_anvil

CHAIN_ID = 31_337
GAS_LIMIT = 1_000_000_000
MAX_BLOCK_TXS = 100_000

# A node that writes a large state file takes its time to end.
_PATIENCE_S = 600.0

_LISTENING = re.compile(r"Listening on (\S+):(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnvilOptions:
    """How a node is started.

    Attributes
    ----------
    port
        TCP port on the loopback interface, 0 for any free one.
    chain_id
        Chain id; with `fork_url` None takes the forked chain's.
    timestamp
        Genesis time in unix seconds; None for the clock's.
    gas_limit
        Block gas limit.
    base_fee
        Base fee of the first block in wei.
    accounts, balance_ether
        How many of the well-known development accounts are funded, and with how much.
    mining
        Whether each transaction is mined at once; otherwise only `AnvilEvm.mine` does.
    load_state, dump_state
        State files to start from and to write on a regular end.
    fork_url, fork_block
        Chain to fork, and at which block (None for its head).
    """

    port: int = 0
    chain_id: int | None = CHAIN_ID
    timestamp: int | None = None
    gas_limit: int = GAS_LIMIT
    base_fee: int = 0
    accounts: int = 1
    balance_ether: int = 10_000
    mining: bool = True
    load_state: Path | None = None
    dump_state: Path | None = None
    fork_url: str | None = None
    fork_block: int | None = None

    def arguments(self) -> list[str]:
        """Return the command-line arguments."""
        arguments = [
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--gas-limit", str(self.gas_limit), "--base-fee", str(self.base_fee)),
            *("--accounts", str(self.accounts), "--balance", str(self.balance_ether)),
            *(
                "--order",
                "fees",
                "--max-transactions",
                str(MAX_BLOCK_TXS),
                "--no-request-size-limit",
                "--disable-min-priority-fee",
            ),
            "--auto-impersonate",
        ]
        optional = {
            "--chain-id": self.chain_id,
            "--timestamp": self.timestamp,
            "--load-state": self.load_state,
            "--dump-state": self.dump_state,
            "--fork-url": self.fork_url,
            "--fork-block-number": self.fork_block,
        }
        for flag, value in optional.items():
            if value is not None:
                arguments += [flag, str(value)]
        if not self.mining:
            arguments.append("--no-mining")
        if self.fork_url is not None:
            arguments += ["--no-storage-caching", "--retries", "1"]
        return arguments


class Anvil:
    """A running node, ended by `close`, by leaving the ``with`` block, or by the end of this process.

    Attributes
    ----------
    url
        ``http://127.0.0.1:<port>``.
    port, pid
        Of the node.
    rpc
        A connection to it.
    """

    _running: ClassVar[weakref.WeakSet[Anvil]] = weakref.WeakSet()

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes], port: int) -> None:
        self._process, self._log = process, log
        self.port, self.pid = port, process.pid
        self.url = f"http://127.0.0.1:{port}"
        self.rpc = JsonRpc(self.url, timeout_s=300)
        Anvil._running.add(self)

    @classmethod
    def start(
        cls, options: AnvilOptions | None = None, *, binary: Path | None = None, timeout_s: float = 60.0
    ) -> Anvil:
        """Start a node and wait until it answers.

        Parameters
        ----------
        options
            See `AnvilOptions`.
        binary
            The program; None for `locate_anvil`.
        timeout_s
            How long it may take; a large state file or a forked chain take their time.

        Raises
        ------
        InputError
            If the port is taken.
        ToolError
            If the binary does not run.
        ChainError
            If the node ends or does not answer in time; with its own last words.
        """
        options = options or AnvilOptions()
        binary = binary or locate_anvil()
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the node
        try:
            process = subprocess.Popen(
                guarded([str(binary), *options.arguments()]),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt at the terminal is ours to handle, not the node's
            )
        except OSError as error:
            log.close()
            raise ToolError(f"{binary} does not run: {error}") from None
        try:
            node = cls(process, log, _wait_for_port(process, log, options, timeout_s))
        except BaseException:
            _end(process, log)
            raise
        try:
            # Each request would be logged to a file that nobody reads.
            node.rpc.call("anvil_setLoggingEnabled", [False])
            if options.load_state is not None or options.fork_url is not None:
                # Time goes on from the head, and not from the clock of this machine.
                head = node.rpc.call("eth_getBlockByNumber", ["latest", False])
                node.rpc.call("evm_setTime", [head["timestamp"]])
        except BaseException:
            # It listens and does not work, as a fork does whose chain has gone.
            node.close()
            raise
        return node

    def __enter__(self) -> Anvil:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def evm(self) -> AnvilEvm:
        """Return the node as an `Evm`."""
        return AnvilEvm(self.rpc)

    def alive(self) -> bool:
        """Return whether the node is running."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the node and wait for its end, after which a state that it was to dump is on disk."""
        self.rpc.close()
        if not self._log.closed:
            _end(self._process, self._log)

    def _forget(self) -> None:
        """Let go of the pipe, in a forked child: only the parent may keep the node alive."""
        if self._process.stdin is not None:
            self._process.stdin.close()


def _forget_in_child() -> None:
    for node in list(Anvil._running):
        node._forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _end(process: subprocess.Popen[bytes], log: IO[bytes], patience_s: float = _PATIENCE_S) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    release(process)
    log.close()


def _wait_for_port(
    process: subprocess.Popen[bytes], log: IO[bytes], options: AnvilOptions, timeout_s: float
) -> int:
    """Return the port once the node says that it listens."""
    deadline = time.monotonic() + timeout_s
    while True:
        ended = process.poll() is not None  # before reading, so that last words are not missed
        text = _contents(log)
        if found := _LISTENING.search(text):
            return int(found[2])
        if ended:
            if "in use" in text:
                raise InputError(f"port {options.port} is taken", fix="choose another one, or 0 for any")
            if options.fork_url is not None:
                text = text.replace(options.fork_url, masked(options.fork_url))
            words = [line.strip() for line in text.splitlines() if line.strip()]
            raise ChainError(f"the local node ended at once: {words[-1] if words else 'without a word'}")
        if time.monotonic() > deadline:
            raise ChainError(f"the local node did not start within {timeout_s:g} s")
        time.sleep(0.002)


def _contents(log: IO[bytes]) -> str:
    """Return what was written so far, without moving the offset that the node shares with us."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode(errors="replace")


def receipt_result(receipt: Any, output: bytes = b"") -> TxResult:
    """Turn a node's receipt into a `TxResult`."""
    created = receipt.get("contractAddress")
    return TxResult(
        success=int(receipt["status"], 16) == 1,
        gas_used=int(receipt["gasUsed"], 16),
        output=output,
        logs=tuple(
            Log(
                checksummed(log["address"]),
                tuple(unhexed(topic) for topic in log["topics"]),
                unhexed(log["data"]),
            )
            for log in receipt["logs"]
        ),
        block=int(receipt["blockNumber"], 16),
        timestamp=_integer(receipt["blockTimestamp"]),
        created=checksummed(created) if created else None,
        tx_hash=receipt["transactionHash"],
    )


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else int(value, 16)


class AnvilEvm:
    """`Evm` on a node. It expects to be the only one that mines; after others did, call `sync`.

    Parameters
    ----------
    rpc
        Connection to an anvil started with ``--auto-impersonate``.
    """

    name = "anvil"

    def __init__(self, rpc: JsonRpc) -> None:
        self.rpc = rpc
        chain_id, automine = self._batch([("eth_chainId", []), ("anvil_getAutomine", [])])
        self.chain_id = int(chain_id, 16)
        self._automine = bool(automine)
        self._snapshots: dict[int, int] = {}
        self.sync()

    def sync(self) -> None:
        """Take number and time from the node's head: the next block comes one second behind it."""
        head = self.rpc.call("eth_getBlockByNumber", ["latest", False])
        self._number = int(head["number"], 16) + 1
        self._last_timestamp = int(head["timestamp"], 16)
        self._timestamp = self._last_timestamp + 1

    def _batch(self, requests: Sequence[Request]) -> list[Any]:
        """Send a batch of which every part must succeed.

        anvil works through a short batch in order, but not through a long one; see `_ORDERED_BATCH`.
        """
        results = self.rpc.batch(requests)
        for result in results:
            if isinstance(result, RpcError):
                raise result
        return results

    def create(self, sender: str, initcode: bytes, value: int = 0) -> str:
        """See `Evm.create`."""
        result = self.send(sender, None, initcode, value).expect("contract creation")
        if result.created is None:
            raise ChainError("contract creation returned no address")
        return result.created

    def call(
        self, to: str, data: bytes, sender: str = ZERO_ADDRESS, gas: int | None = None, value: int = 0
    ) -> bytes:
        """See `Evm.call`."""
        tx = _tx_object(Tx(sender, to, data, value, gas))
        block = {"time": quantity(self._timestamp), "number": quantity(self._number)}
        try:
            return unhexed(self.rpc.call("eth_call", [tx, "latest", {}, block]))
        except RpcError as error:
            raise _as_revert(f"call of {to[:10]}", error) from None

    def send(
        self, sender: str, to: str | None, data: bytes = b"", value: int = 0, gas: int | None = None
    ) -> TxResult:
        """See `Evm.send`."""
        tx = Tx(sender, to, data, value, gas or _DEFAULT_TX_GAS)
        # Mined by `evm_mine` and not by the node's own miner: that one tells of a block before it has cleared
        # its pool, and a state that is taken back in between leaves a nonce in the pool that nobody expects.
        # One request at a time: the parts of a batch run side by side.
        if self._automine:
            self.rpc.call("evm_setAutomine", [False])
        try:
            tx_hash = self.rpc.call("eth_sendTransaction", [_tx_object(tx)])
            self.rpc.call("evm_setNextBlockTimestamp", [self._timestamp])
            self.rpc.call("evm_mine")
        finally:
            if self._automine:
                self._mine_by_itself_again()
        receipt = self.rpc.call("eth_getTransactionReceipt", [tx_hash])
        if receipt is None:
            self.rpc.call("anvil_dropAllTransactions")
            raise ChainError(f"transaction {tx_hash} did not fit into one block")
        result = receipt_result(receipt)
        if result.block >= self._number:
            self._advance(result.block, result.timestamp)
        return result if result.success else self._with_revert_data(tx, result)

    def send_many(self, txs: Sequence[Tx]) -> list[TxResult]:
        """See `Evm.send_many`. All in one block; the sum of the gas limits must fit into it."""
        if not txs:
            return []
        if self._automine:
            self.rpc.call("evm_setAutomine", [False])
        try:
            hashes = self.submit(txs)
            self.mine()
            receipts = self._batch([("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes])
            if missing := sum(receipt is None for receipt in receipts):
                # Left in the pool they would be mined whenever mining is next switched on.
                self.rpc.call("anvil_dropAllTransactions")
                raise ChainError(f"{missing} of {len(txs)} transactions did not fit into one block")
        finally:
            if self._automine:
                self._mine_by_itself_again()
        return [receipt_result(receipt) for receipt in receipts]

    def _mine_by_itself_again(self) -> None:
        """Switch the node's own miner on, which looks at new transactions only.

        Somebody else's that came while it was off would lie in the pool until the next one comes.
        """
        self.rpc.call("evm_setAutomine", [True])
        if int(self.rpc.call("txpool_status")["pending"], 16):
            self.rpc.call("evm_mine")
            self.sync()

    def submit(self, txs: Sequence[Tx]) -> list[str]:
        """Put transactions into the pool and return their hashes.

        All offer nothing, and so are mined in this order.
        """
        senders = sorted({tx.sender for tx in txs})
        answers = self._batch([("eth_getTransactionCount", [sender, "pending"]) for sender in senders])
        nonces = {s: int(nonce, 16) for s, nonce in zip(senders, answers, strict=True)}
        objects = []
        for tx in txs:
            objects.append(_tx_object(tx) | {"nonce": quantity(nonces[tx.sender])})
            nonces[tx.sender] += 1
        hashes: list[str] = []
        for start in range(0, len(objects), _ORDERED_BATCH):
            part = objects[start : start + _ORDERED_BATCH]
            hashes += self._batch([("eth_sendTransaction", [tx]) for tx in part])
        return hashes

    def mine(self, *, base_fee: int | None = None) -> int:
        """Mine one block at `timestamp` with what is in the pool; returns its number.

        Parameters
        ----------
        base_fee
            Base fee of the block in wei; None leaves it to the protocol's rule.
        """
        requests: list[Request] = [("evm_setNextBlockTimestamp", [self._timestamp])]
        if base_fee is not None:
            requests.append(("anvil_setNextBlockBaseFeePerGas", [quantity(base_fee)]))
        self._batch(requests)
        self.rpc.call("evm_mine")
        block = self._number
        self._advance(block, self._timestamp)
        return block

    def _advance(self, block: int, timestamp: int) -> None:
        self._number = block + 1
        self._last_timestamp = timestamp
        self._timestamp = timestamp + 1

    def _with_revert_data(self, tx: Tx, result: TxResult) -> TxResult:
        """Receipts have no revert data: repeat a failed transaction as a call on the state before it."""
        block = {"time": quantity(result.timestamp), "number": quantity(result.block)}
        try:
            self.rpc.call("eth_call", [_tx_object(tx), quantity(result.block - 1), {}, block])
        except RpcError as error:
            data = _revert_data(error) or b""
            return TxResult(
                False, result.gas_used, data, (), result.block, result.timestamp, None, result.tx_hash
            )
        return result

    def code(self, address: str) -> bytes:
        """See `Evm.code`."""
        return unhexed(self.rpc.call("eth_getCode", [address, "latest"]))

    def set_code(self, address: str, code: bytes) -> None:
        """See `Evm.set_code`."""
        self.rpc.call("anvil_setCode", [address, hexed(code)])

    def storage(self, address: str, slot: int) -> int:
        """See `Evm.storage`."""
        return int(self.rpc.call("eth_getStorageAt", [address, quantity(slot), "latest"]), 16)

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """See `Evm.set_storage`."""
        self.set_storage_many([(address, slot, value)])

    def set_storage_many(self, words: Sequence[tuple[str, int, int]]) -> None:
        """See `Evm.set_storage_many`."""
        self._batch(
            [
                ("anvil_setStorageAt", [address, quantity(slot), hexed(value.to_bytes(32))])
                for address, slot, value in words
            ]
        )

    def balance(self, address: str) -> int:
        """See `Evm.balance`."""
        return int(self.rpc.call("eth_getBalance", [address, "latest"]), 16)

    def set_balance(self, address: str, wei: int) -> None:
        """See `Evm.set_balance`."""
        self.rpc.call("anvil_setBalance", [address, quantity(wei)])

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
        self._timestamp = timestamp

    def snapshot(self) -> int:
        """See `Evm.snapshot`."""
        snapshot = int(self.rpc.call("evm_snapshot"), 16)
        self._snapshots[snapshot] = self._timestamp
        return snapshot

    def revert(self, snapshot: int) -> None:
        """See `Evm.revert`."""
        timestamp = self._snapshots.get(snapshot)
        if timestamp is None or not self.rpc.call("evm_revert", [quantity(snapshot)]):
            raise InputError(f"no snapshot {snapshot}", fix="each snapshot can be reverted to once")
        self._snapshots = {s: t for s, t in self._snapshots.items() if s < snapshot}
        self.sync()
        self._timestamp = timestamp


_DEFAULT_TX_GAS = 100_000_000
# anvil works through a short batch one by one, and through a long one in any order.
_ORDERED_BATCH = 25


def _tx_object(tx: Tx) -> dict[str, str]:
    fields = {"from": tx.sender, "data": hexed(tx.data), "gasPrice": "0x0"}
    if tx.to is not None:
        fields["to"] = tx.to
    if tx.value:
        fields["value"] = quantity(tx.value)
    if tx.gas is not None:
        fields["gas"] = quantity(tx.gas)
    return fields


def _revert_data(error: RpcError) -> bytes | None:
    """Return revert data of an execution that reverted or ran out of gas, None of any other error."""
    if isinstance(error.data, str) and error.data.startswith("0x"):
        return unhexed(error.data)
    if error.code == 3 or "revert" in error.message or "EVM error" in error.message:
        return b""
    return None


def _as_revert(what: str, error: RpcError) -> CallReverted | RpcError:
    data = _revert_data(error)
    return error if data is None else reverted(what, data)
