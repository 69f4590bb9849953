"""What the keeper asks a node, in as few round trips as it can.

Every decision reads one block: reads are pinned by block hash (EIP-1898), so two answers never come from two
states, also behind a load balancer. Related requests travel as one JSON-RPC batch. Nothing here retries: a
read that failed is repeated at the next head, and a send without an answer is resolved from the chain only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from eth_utils.crypto import keccak

from contracts_abi.calls import Call, checksummed
from contracts_abi.errors import ChainError, RpcError, RpcUnavailable
from keeper.clock import Clock, SystemClock
from simulation.chain.rpc import JsonRpc

METHOD_NOT_FOUND = -32601
"""JSON-RPC code of a method that the node does not have."""

# Providers refuse a method that they do not offer under codes of their own.
_METHOD_MISSING = ("not found", "not exist", "not available", "not supported", "unsupported", "not enabled")


class Transport(Protocol):
    """One endpoint; `simulation.chain.rpc.JsonRpc` is the real one."""

    def call(self, method: str, params: Sequence[Any], /) -> Any:
        """Return the result, or raise `RpcError` or `RpcUnavailable`."""
        ...

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]], /) -> list[Any]:
        """Return one result or `RpcError` per request, in order; raise `RpcUnavailable` for the whole."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """A block header, as far as the keeper needs it.

    Attributes
    ----------
    number, block_hash, parent_hash
        Which block; hashes are hex with 0x.
    timestamp
        Unix seconds.
    base_fee_wei
        Its base fee; 0 on a chain without one.
    gas_limit, gas_used
        In gas units.
    """

    number: int
    block_hash: str
    parent_hash: str
    timestamp: int
    base_fee_wei: int
    gas_limit: int
    gas_used: int


@dataclass(frozen=True, slots=True)
class FeeHistory:
    """Base fees and tips of recent blocks.

    Attributes
    ----------
    oldest_block
        Block of the first entry.
    base_fee_wei
        One entry per block and a last one for the block that comes next.
    gas_used_ratio
        Fullness per block, 0 to 1.
    reward_wei
        Tip per block at the percentile asked for; empty when the node gives none.
    """

    oldest_block: int
    base_fee_wei: tuple[int, ...]
    gas_used_ratio: tuple[float, ...]
    reward_wei: tuple[int, ...]

    @property
    def next_base_fee_wei(self) -> int:
        """Base fee to expect in the block that comes next: the node's own figure, and no less than the newest
        block's, since a fee that fell by an eighth may rise again before we are mined."""
        return max(self.base_fee_wei[-2:])


@dataclass(frozen=True, slots=True)
class Log:
    """One event log, hashes and addresses as hex text, topics and data as bytes."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    block_hash: str
    tx_hash: str
    log_index: int


@dataclass(frozen=True, slots=True)
class TxReceipt:
    """A mined transaction, as the node reports it."""

    tx_hash: str
    block: int
    block_hash: str
    success: bool
    gas_used: int
    effective_gas_price_wei: int
    logs: tuple[Log, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SenderState:
    """The sender's account: transactions mined, mined plus pooled, and its balance."""

    nonce_latest: int
    nonce_pending: int
    balance_wei: int


@dataclass(frozen=True, slots=True)
class Watch:
    """What to look at besides the head: hashes of transactions, and numbers of blocks."""

    tx_hashes: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """What one round trip at a new head tells.

    Attributes
    ----------
    head
        The newest block.
    fees
        Fee history up to it.
    sender
        The sender's account; None when nobody sends.
    receipts
        Transaction hash to its receipt, None while it is not mined.
    blocks
        Block number to the canonical block there, None when there is none.
    """

    head: Head
    fees: FeeHistory
    sender: SenderState | None
    receipts: Mapping[str, TxReceipt | None] = field(default_factory=dict)
    blocks: Mapping[int, Head | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TxCall:
    """A transaction to simulate."""

    sender: str
    to: str
    data: bytes = field(repr=False)
    gas_limit: int
    value_wei: int = 0


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would become of a transaction in the next block.

    Attributes
    ----------
    success
        Whether it runs through.
    return_data
        Its output, or its revert data.
    gas_used
        Gas of the transaction; None where the node could only do `eth_call`.
    logs
        Events it would emit; None where the node could only do `eth_call`.
    error
        The node's words when it fails, one line.
    """

    success: bool
    return_data: bytes
    gas_used: int | None
    logs: tuple[Log, ...] | None
    error: str = ""


class SendOutcome(StrEnum):
    """What a node's answer to a signed transaction means for the nonce and the bytes."""

    ACCEPTED = "accepted"
    KNOWN = "already_known"
    NONCE_TOO_LOW = "nonce_too_low"
    UNDERPRICED = "underpriced"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    REFUSED = "refused"
    AMBIGUOUS = "ambiguous"

    @property
    def in_pool(self) -> bool:
        """Whether the node says that it holds these very bytes."""
        return self in (SendOutcome.ACCEPTED, SendOutcome.KNOWN)


@dataclass(frozen=True, slots=True)
class SendResult:
    """A classified answer to one signed transaction, with the node's words."""

    tx_hash: str
    outcome: SendOutcome
    detail: str = ""


# Letters only, lower case; first match wins. The wordings are those of geth, reth, erigon, nethermind, besu
# and anvil. "replacement … underpriced" and "fee too low" ask for the same cure: a higher fee at this nonce.
_SEND_ERRORS: tuple[tuple[str, SendOutcome], ...] = (
    ("alreadyknown", SendOutcome.KNOWN),
    ("alreadyimported", SendOutcome.KNOWN),
    ("alreadyexists", SendOutcome.KNOWN),
    ("knowntransaction", SendOutcome.KNOWN),
    ("noncetoolow", SendOutcome.NONCE_TOO_LOW),
    ("oldnonce", SendOutcome.NONCE_TOO_LOW),
    ("noncehasalreadybeenused", SendOutcome.NONCE_TOO_LOW),
    ("noncebelowcurrent", SendOutcome.NONCE_TOO_LOW),
    ("insufficientfunds", SendOutcome.INSUFFICIENT_FUNDS),
    ("exceedsaccountbalance", SendOutcome.INSUFFICIENT_FUNDS),
    ("insufficientbalance", SendOutcome.INSUFFICIENT_FUNDS),
    ("underpriced", SendOutcome.UNDERPRICED),
    ("couldnotreplace", SendOutcome.UNDERPRICED),
    ("replacementnotallowed", SendOutcome.UNDERPRICED),
    ("feetoolow", SendOutcome.UNDERPRICED),
    ("lessthanblockbasefee", SendOutcome.UNDERPRICED),
    ("belowcurrentbasefee", SendOutcome.UNDERPRICED),
    ("belowminimum", SendOutcome.UNDERPRICED),
    ("poolisfull", SendOutcome.UNDERPRICED),
    ("intrinsicgas", SendOutcome.REFUSED),
    ("exceedsblockgaslimit", SendOutcome.REFUSED),
    ("gaslimitreached", SendOutcome.REFUSED),
    ("chainid", SendOutcome.REFUSED),
    ("invalidsender", SendOutcome.REFUSED),
    ("failedtodecode", SendOutcome.REFUSED),
)


def classify_send_error(error: ChainError) -> SendOutcome:
    """Return what a failed send means.

    Anything that is not a refusal we know is `AMBIGUOUS`: the bytes may be in a pool somewhere, and only the
    chain can tell. That includes every transport failure, rate limits and internal errors.
    """
    if not isinstance(error, RpcError):
        return SendOutcome.AMBIGUOUS
    text = "".join(c for c in error.message.lower() if c.isalpha())
    return next((outcome for words, outcome in _SEND_ERRORS if words in text), SendOutcome.AMBIGUOUS)


# A node says "this call failed in the EVM" in many ways; only these make a read's answer None.
_EVM_FAILURES = (
    "revert",
    "out of gas",
    "invalid opcode",
    "stack",
    "execution",
    "bad instruction",
    "outofgas",
)


def _is_evm_failure(error: RpcError) -> bool:
    text = error.message.lower()
    if "aborted" in text or "timeout" in text:
        return False  # the node gave up ("execution aborted"), the contract said nothing
    return error.code == 3 or any(words in text for words in _EVM_FAILURES)


def _is_method_missing(error: RpcError) -> bool:
    text = error.message.lower()
    return error.code == METHOD_NOT_FOUND or (
        "method" in text and any(words in text for words in _METHOD_MISSING)
    )


def _malformed(what: str, value: object) -> RpcUnavailable:
    return RpcUnavailable(f"{what}: not an answer: {str(value)[:60]!r}", fix="check the RPC endpoint")


def _quantity(value: object, what: str) -> int:
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise _malformed(what, value)


def _count(value: object, what: str) -> int:
    """Return a number of blocks, seconds or units of gas; one that the journal cannot hold is no answer."""
    number = _quantity(value, what)
    if number >= 1 << 63:
        raise _malformed(what, value)
    return number


def _bytes(value: object, what: str) -> bytes:
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise _malformed(what, value)


def _hash(value: object, what: str) -> str:
    if len(_bytes(value, what)) != 32:
        raise _malformed(what, value)
    return str(value).lower()


def _address(value: object, what: str) -> str:
    if len(_bytes(value, what)) != 20:
        raise _malformed(what, value)
    return checksummed(str(value))


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise _malformed(what, value)


def _list(value: object, what: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise _malformed(what, value)


def _head(value: object) -> Head:
    block = _mapping(value, "block")
    return Head(
        number=_count(block.get("number"), "block number"),
        block_hash=_hash(block.get("hash"), "block hash"),
        parent_hash=_hash(block.get("parentHash"), "parent hash"),
        timestamp=_count(block.get("timestamp"), "block timestamp"),
        base_fee_wei=_quantity(block.get("baseFeePerGas", "0x0"), "base fee"),
        gas_limit=_count(block.get("gasLimit"), "block gas limit"),
        gas_used=_count(block.get("gasUsed"), "block gas used"),
    )


def _optional_head(value: object) -> Head | None:
    return None if value is None else _head(value)


def _log(value: object) -> Log:
    log = _mapping(value, "log")
    return Log(
        address=_address(log.get("address"), "log address"),
        topics=tuple(_bytes(t, "log topic") for t in _list(log.get("topics"), "log topics")),
        data=_bytes(log.get("data"), "log data"),
        block=_count(log.get("blockNumber"), "log block"),
        block_hash=_hash(log.get("blockHash"), "log block hash"),
        tx_hash=_hash(log.get("transactionHash"), "log transaction"),
        log_index=_quantity(log.get("logIndex"), "log index"),
    )


def _receipt(value: object) -> TxReceipt | None:
    # A pending transaction has no receipt, or (on some nodes) one without a block.
    if value is None or _mapping(value, "receipt").get("blockHash") is None:
        return None
    receipt = _mapping(value, "receipt")
    return TxReceipt(
        tx_hash=_hash(receipt.get("transactionHash"), "receipt hash"),
        block=_count(receipt.get("blockNumber"), "receipt block"),
        block_hash=_hash(receipt.get("blockHash"), "receipt block hash"),
        success=_quantity(receipt.get("status"), "receipt status") == 1,
        gas_used=_count(receipt.get("gasUsed"), "receipt gas"),
        effective_gas_price_wei=_quantity(receipt.get("effectiveGasPrice"), "receipt gas price"),
        logs=tuple(_log(entry) for entry in _list(receipt.get("logs"), "receipt logs")),
    )


def _ratio(value: object) -> float:
    if isinstance(value, int | float) and value >= 0:  # more than 1 on chains whose blocks may overrun
        return float(value)
    raise _malformed("fee history gas used", value)


def _fee_history(value: object) -> FeeHistory:
    history = _mapping(value, "fee history")
    base = tuple(
        _quantity(fee, "fee history base fee")
        for fee in _list(history.get("baseFeePerGas"), "fee history base fees")
    )
    if not base:
        raise _malformed("fee history", value)
    return FeeHistory(
        oldest_block=_quantity(history.get("oldestBlock"), "fee history block"),
        base_fee_wei=base,
        gas_used_ratio=tuple(
            _ratio(r) for r in _list(history.get("gasUsedRatio") or [], "fee history gas used")
        ),
        reward_wei=tuple(
            _quantity(row[0], "fee history tip")
            for row in (_list(r, "fee history tips") for r in _list(history.get("reward") or [], "tips"))
            if row
        ),
    )


def _at(block: Head | str) -> Mapping[str, Any]:
    block_hash = block.block_hash if isinstance(block, Head) else block
    return {"blockHash": block_hash, "requireCanonical": True}


def _overrides(code: Mapping[str, bytes] | None) -> list[Any]:
    return [] if not code else [{address: {"code": "0x" + blob.hex()} for address, blob in code.items()}]


class Node:
    """A node, asked in batches.

    Parameters
    ----------
    transport
        The endpoint.
    max_batch
        Most requests per JSON-RPC batch; longer lists take several round trips.

    Attributes
    ----------
    round_trips
        Requests made so far, a batch counting once.
    waited_s
        Time spent in them, which is the node's and the network's and not ours.
    """

    def __init__(self, transport: Transport, *, max_batch: int = 500, clock: Clock | None = None) -> None:
        self._transport = transport
        self._max_batch = max_batch
        self._simulate_v1: bool | None = None
        self._clock = clock or SystemClock()
        self.round_trips = 0
        self.waited_s = 0.0

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = 10.0, max_batch: int = 500) -> Node:
        """Return a node at an HTTP endpoint; nothing is sent yet."""
        return cls(JsonRpc(url, timeout_s=timeout_s), max_batch=max_batch)

    @property
    def simulate_v1(self) -> bool | None:
        """Whether the node has `eth_simulateV1`; None until it was asked."""
        return self._simulate_v1

    def call(self, method: str, *params: Any) -> Any:
        """Make one plain request."""
        with self._round_trip():
            return self._transport.call(method, list(params))

    @contextlib.contextmanager
    def _round_trip(self) -> Iterator[None]:
        self.round_trips += 1
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self.waited_s += self._clock.monotonic() - started

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Return one result or `RpcError` per request, in order."""
        answers: list[Any] = []
        for start in range(0, len(requests), self._max_batch):
            chunk = requests[start : start + self._max_batch]
            with self._round_trip():
                part = self._transport.batch(chunk)
            if len(part) != len(chunk):
                raise RpcUnavailable(f"{len(part)} answers to a batch of {len(chunk)} requests")
            answers += part
        return answers

    def _all(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        answers = self.batch(requests)
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        return answers

    def chain_id(self) -> int:
        """Return the chain id."""
        return _quantity(self.call("eth_chainId"), "eth_chainId")

    def genesis_hash(self) -> str:
        """Return the hash of block 0, which tells two chains with one id apart."""
        return _head(self.call("eth_getBlockByNumber", "0x0", False)).block_hash

    def head(self) -> Head:
        """Return the newest block."""
        return _head(self.call("eth_getBlockByNumber", "latest", False))

    def block(self, number: int) -> Head | None:
        """Return the canonical block at `number`, or None when there is none."""
        return self.blocks([number])[0]

    def blocks(self, numbers: Sequence[int]) -> list[Head | None]:
        """Return the canonical blocks at `numbers`, None where there is none."""
        answers = self._all([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
        return [_optional_head(answer) for answer in answers]

    def tick(
        self,
        sender: str | None = None,
        watch: Watch = Watch(),
        *,
        fee_blocks: int = 10,
        percentile: float = 60.0,
        chain_id: int | None = None,
    ) -> Tick:
        """Return head, fees, the sender's state and what is watched, in one round trip.

        The answers may straddle a new block: a receipt can be newer than the head.

        Raises
        ------
        RpcUnavailable
            Also when the node answers for another chain than `chain_id`: an endpoint can be moved while we
            run, and the nonces of another chain would tell that ours are lost.
        """
        requests: list[tuple[str, list[Any]]] = [
            ("eth_getBlockByNumber", ["latest", False]),
            ("eth_feeHistory", [hex(fee_blocks), "latest", [percentile]]),
        ]
        if sender is not None:
            requests += [
                ("eth_getTransactionCount", [sender, "latest"]),
                ("eth_getTransactionCount", [sender, "pending"]),
                ("eth_getBalance", [sender, "latest"]),
            ]
        requests += [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in watch.tx_hashes]
        requests += [("eth_getBlockByNumber", [hex(number), False]) for number in watch.blocks]
        if chain_id is not None:
            requests.append(("eth_chainId", []))
        several = self._all(requests)
        if chain_id is not None and (found := _quantity(several[-1], "eth_chainId")) != chain_id:
            raise RpcUnavailable(f"the node answers for chain {found}, not {chain_id}")
        answers = iter(several)
        head, fees = _head(next(answers)), _fee_history(next(answers))
        state = None
        if sender is not None:
            state = SenderState(
                nonce_latest=_count(next(answers), "nonce"),
                nonce_pending=_count(next(answers), "pending nonce"),
                balance_wei=_quantity(next(answers), "balance"),
            )
        receipts = {tx_hash: _receipt(next(answers)) for tx_hash in watch.tx_hashes}
        blocks = {number: _optional_head(next(answers)) for number in watch.blocks}
        return Tick(head, fees, state, receipts, blocks)

    def nonce_at(self, sender: str, block: int) -> int:
        """Return the sender's transaction count after `block`."""
        return _quantity(self.call("eth_getTransactionCount", sender, hex(max(block, 0))), "nonce")

    def code(self, addresses: Sequence[str]) -> list[bytes]:
        """Return the runtime code at each address, empty where there is none."""
        answers = self._all([("eth_getCode", [address, "latest"]) for address in addresses])
        return [_bytes(answer, "code") for answer in answers]

    def read(
        self,
        calls: Sequence[Call[Any]],
        at: Head | str,
        *,
        code: Mapping[str, bytes] | None = None,
        gas: int | None = None,
    ) -> list[bytes | None]:
        """Execute reads at one block.

        Parameters
        ----------
        at
            A head or a block hash; a block that is no longer canonical is an error, not an answer.
        code
            Runtime code to pretend at addresses (state override), for contracts that are not deployed.
        gas
            Gas of each call; the node's own cap without it.

        Returns
        -------
        list of bytes or None
            Return data in order; None where the contract reverted.

        Raises
        ------
        RpcError
            If the node refuses for any other reason, for example because it does not know the block.
        RpcUnavailable
            If there is no answer, or a malformed one.
        """
        extra = _overrides(code)
        limit = {} if gas is None else {"gas": hex(gas)}
        answers = self.batch(
            [
                ("eth_call", [{"to": c.to, "data": "0x" + c.data.hex(), **limit}, _at(at), *extra])
                for c in calls
            ]
        )
        results: list[bytes | None] = []
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, RpcError):
                if not _is_evm_failure(answer):
                    raise answer
                results.append(None)
            else:
                results.append(_bytes(answer, call.label))
        return results

    def simulate(
        self, transactions: Sequence[TxCall], at: Head, *, timestamp: int | None = None
    ) -> list[Simulation]:
        """Run transactions one after another on top of a block.

        With `eth_simulateV1` they share one simulated block, so each sees what the ones before it did (the
        same pools are drained by the same bundle). Where their gas limits do not fit into one block they go
        on in the next, a second later: a node refuses the whole request otherwise. A node without the method
        runs each alone by `eth_call`, which cannot see the others and gives neither gas nor logs.

        Parameters
        ----------
        at
            The block to build on.
        timestamp
            Time of the simulated block; the node's own guess without it.
        """
        if not transactions:
            return []
        if self._simulate_v1 is not False:
            try:
                answer = self._simulate_blocks(transactions, at, timestamp)
            except RpcError as error:
                if not _is_method_missing(error):
                    raise
                self._simulate_v1 = False
            else:
                self._simulate_v1 = True
                return answer
        answers = self.batch([("eth_call", [_tx_object(tx, "data"), _at(at)]) for tx in transactions])
        return [_simulated_call(answer) for answer in answers]

    def _simulate_blocks(
        self, transactions: Sequence[TxCall], at: Head, timestamp: int | None
    ) -> list[Simulation]:
        parts = _blocks_of(transactions, at.gas_limit)
        blocks: list[dict[str, Any]] = []
        for i, part in enumerate(parts):
            # By default geth simulates the next block and anvil the same one again.
            overrides = {"number": hex(at.number + 1 + i)}
            if timestamp is not None:
                overrides["time"] = hex(timestamp + i)
            blocks.append({"calls": [_tx_object(tx, "input") for tx in part], "blockOverrides": overrides})
        answer = self.call(
            "eth_simulateV1", {"blockStateCalls": blocks, "validation": False}, {"blockHash": at.block_hash}
        )
        simulated = _list(answer, "eth_simulateV1")
        if len(simulated) != len(blocks):
            raise _malformed("eth_simulateV1", answer)
        results: list[Simulation] = []
        for part, block in zip(parts, simulated, strict=True):
            calls = _list(_mapping(block, "eth_simulateV1").get("calls"), "eth_simulateV1 calls")
            if len(calls) != len(part):
                raise _malformed("eth_simulateV1 calls", len(calls))
            results += [_simulated_tx(call) for call in calls]
        return results

    def logs(
        self,
        topics: Sequence[bytes | Sequence[bytes] | None],
        *,
        addresses: Sequence[str] = (),
        block_hash: str | None = None,
        from_block: int | None = None,
        to_block: int | None = None,
    ) -> list[Log]:
        """Return the logs of one block by hash, or of a range of blocks.

        By hash a node that does not know the block says so; by number it may silently answer with nothing,
        so ranges are for back-fill below the confirmation depth only. A range that the node finds too large
        is halved until it fits.

        Parameters
        ----------
        topics
            Per position: a topic, a list of alternatives, or None for any.
        addresses
            Contracts to watch; any when empty.
        """
        query = _log_query(topics, addresses)
        if block_hash is not None:
            found = self.call("eth_getLogs", query | {"blockHash": block_hash})
            return [_log(entry) for entry in _list(found, "eth_getLogs")]
        if from_block is None or to_block is None:
            raise ValueError("logs: pass block_hash, or from_block and to_block")
        return self._logs_range(query, from_block, to_block)

    def logs_of(
        self,
        block_hashes: Sequence[str],
        topics: Sequence[bytes | Sequence[bytes] | None],
        *,
        addresses: Sequence[str] = (),
    ) -> list[list[Log]]:
        """Return the logs of each block by its hash, all blocks in one round trip; see `logs`."""
        query = _log_query(topics, addresses)
        answers = self._all([("eth_getLogs", [query | {"blockHash": h}]) for h in block_hashes])
        return [[_log(entry) for entry in _list(answer, "eth_getLogs")] for answer in answers]

    def _logs_range(self, query: Mapping[str, Any], first: int, last: int) -> list[Log]:
        if first > last:
            return []
        try:
            found = self.call("eth_getLogs", {**query, "fromBlock": hex(first), "toBlock": hex(last)})
        except RpcError:
            # Nodes word "too many blocks" and "too many results" in their own ways: halve on any refusal,
            # a single block that is refused is a real error.
            if first == last:
                raise
            middle = (first + last) // 2
            return self._logs_range(query, first, middle) + self._logs_range(query, middle + 1, last)
        return [_log(entry) for entry in _list(found, "eth_getLogs")]

    def receipts(self, tx_hashes: Sequence[str]) -> list[TxReceipt | None]:
        """Return the receipts of `tx_hashes` in one round trip, None where there is none."""
        answers = self._all([("eth_getTransactionReceipt", [h]) for h in tx_hashes])
        return [_receipt(answer) for answer in answers]

    def send_raw(self, signed: Sequence[bytes]) -> list[SendResult]:
        """Hand signed transactions to the node, all in one batch, each exactly once.

        Never raises for what the node or the network does: the bytes are on their way, so every failure is
        an outcome to be recorded.
        """
        hashes = ["0x" + keccak(raw).hex() for raw in signed]
        try:
            answers = self.batch([("eth_sendRawTransaction", ["0x" + raw.hex()]) for raw in signed])
        except ChainError as error:
            return [SendResult(h, classify_send_error(error), str(error)) for h in hashes]
        return [_send_result(h, answer) for h, answer in zip(hashes, answers, strict=True)]


def _send_result(tx_hash: str, answer: object) -> SendResult:
    if isinstance(answer, ChainError):
        return SendResult(tx_hash, classify_send_error(answer), str(answer))
    if isinstance(answer, str) and answer.lower() == tx_hash:
        return SendResult(tx_hash, SendOutcome.ACCEPTED)
    # Some relays answer with nothing or with a hash of their own; only the chain can tell.
    return SendResult(tx_hash, SendOutcome.AMBIGUOUS, f"answered {str(answer)[:80]!r}")


def _log_query(topics: Sequence[bytes | Sequence[bytes] | None], addresses: Sequence[str]) -> dict[str, Any]:
    query: dict[str, Any] = {"topics": [_topic(t) for t in topics]}
    if addresses:
        query["address"] = list(addresses)
    return query


def _topic(topic: bytes | Sequence[bytes] | None) -> Any:
    if topic is None:
        return None
    if isinstance(topic, bytes):
        return "0x" + topic.hex()
    return ["0x" + alternative.hex() for alternative in topic]


def _blocks_of(transactions: Sequence[TxCall], gas_limit: int) -> list[list[TxCall]]:
    """Return transactions in order, in parts whose gas limits fit into a block together."""
    parts: list[list[TxCall]] = [[]]
    free = gas_limit
    for tx in transactions:
        if tx.gas_limit > free and parts[-1]:
            parts.append([])
            free = gas_limit
        parts[-1].append(tx)
        free -= tx.gas_limit
    return parts


def _tx_object(tx: TxCall, data_key: str) -> dict[str, str]:
    return {
        "from": tx.sender,
        "to": tx.to,
        "value": hex(tx.value_wei),
        "gas": hex(tx.gas_limit),
        data_key: "0x" + tx.data.hex(),
    }


def _simulated_tx(value: object) -> Simulation:
    call = _mapping(value, "eth_simulateV1 call")
    error = _mapping(call.get("error") or {}, "eth_simulateV1 error")
    return Simulation(
        success=_quantity(call.get("status"), "eth_simulateV1 status") == 1,
        return_data=_bytes(error.get("data") or call.get("returnData") or "0x", "eth_simulateV1 data"),
        gas_used=_count(call.get("gasUsed"), "eth_simulateV1 gas"),
        logs=tuple(_log(entry) for entry in _list(call.get("logs") or [], "eth_simulateV1 logs")),
        error=str(error.get("message", "")),
    )


def _simulated_call(answer: object) -> Simulation:
    if isinstance(answer, RpcError):
        if not _is_evm_failure(answer):
            raise answer
        data = answer.data if isinstance(answer.data, str) and answer.data.startswith("0x") else "0x"
        return Simulation(False, _bytes(data, "revert data"), None, None, answer.message)
    return Simulation(True, _bytes(answer, "eth_call"), None, None)
