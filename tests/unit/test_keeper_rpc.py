"""What the keeper makes of a node's answers, good and bad, without a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from eth_utils.crypto import keccak

from contracts_abi.calls import function
from contracts_abi.errors import ChainError, RpcError, RpcUnavailable
from keeper.rpc import Node, SendOutcome, TxCall, Watch, classify_send_error

TOKEN = "0x" + "70" * 20
HASH, PARENT = "0x" + "aa" * 32, "0x" + "bb" * 32
BLOCK = {
    "number": "0x10",
    "hash": HASH,
    "parentHash": PARENT,
    "timestamp": "0x5e6a1b80",
    "baseFeePerGas": "0x3b9aca00",
    "gasLimit": "0x1c9c380",
    "gasUsed": "0x5208",
}
LOG = {
    "address": TOKEN,
    "topics": ["0x" + "01" * 32],
    "data": "0x02",
    "blockNumber": "0x10",
    "blockHash": HASH,
    "transactionHash": PARENT,
    "logIndex": "0x3",
}


class Scripted:
    """A transport with one prepared answer per request."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[tuple[str, Sequence[Any]]]] = []

    def call(self, method: str, params: Sequence[Any], /) -> Any:
        (answer,) = self.batch([(method, params)])
        if isinstance(answer, ChainError):
            raise answer
        return answer

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]], /) -> list[Any]:
        self.asked.append(list(requests))
        answers, self.answers = self.answers[: len(requests)], self.answers[len(requests) :]
        for answer in answers:
            if isinstance(answer, RpcUnavailable):
                raise answer
        return answers


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("already known", SendOutcome.KNOWN),
        ("ALREADY_EXISTS: already known", SendOutcome.KNOWN),
        ("transaction already imported", SendOutcome.KNOWN),
        ("Known transaction", SendOutcome.KNOWN),
        ("AlreadyKnown", SendOutcome.KNOWN),
        ("nonce too low: next nonce 5, tx nonce 4", SendOutcome.NONCE_TOO_LOW),
        ("NONCE_TOO_LOW: nonce too low", SendOutcome.NONCE_TOO_LOW),
        ("OldNonce, Current nonce: 3, nonce of rejected tx: 2", SendOutcome.NONCE_TOO_LOW),
        ("replacement transaction underpriced", SendOutcome.UNDERPRICED),
        ("transaction underpriced: tip needed 1000000000", SendOutcome.UNDERPRICED),
        ("max fee per gas less than block base fee", SendOutcome.UNDERPRICED),
        ("FEE_TOO_LOW: fee too low", SendOutcome.UNDERPRICED),
        ("Gas price below current base fee", SendOutcome.UNDERPRICED),
        ("could not replace existing tx", SendOutcome.UNDERPRICED),
        ("txpool is full", SendOutcome.UNDERPRICED),
        ("insufficient funds for gas * price + value: balance 0", SendOutcome.INSUFFICIENT_FUNDS),
        ("Upfront cost exceeds account balance", SendOutcome.INSUFFICIENT_FUNDS),
        ("intrinsic gas too low", SendOutcome.REFUSED),
        ("exceeds block gas limit", SendOutcome.REFUSED),
        ("invalid chain id for signer", SendOutcome.REFUSED),
        ("rate limit exceeded", SendOutcome.AMBIGUOUS),
        ("Internal error", SendOutcome.AMBIGUOUS),
        ("", SendOutcome.AMBIGUOUS),
    ],
)
def test_send_error_by_the_words_of_the_nodes(message: str, outcome: SendOutcome) -> None:
    assert classify_send_error(RpcError(-32000, message)) is outcome


def test_no_answer_is_ambiguous_for_every_transaction_of_the_batch() -> None:
    node = Node(Scripted(RpcUnavailable("gone"), None))
    results = node.send_raw([b"\x01", b"\x02"])
    assert [r.outcome for r in results] == [SendOutcome.AMBIGUOUS] * 2
    assert [r.tx_hash for r in results] == ["0x" + keccak(b).hex() for b in (b"\x01", b"\x02")]


def test_each_transaction_of_a_batch_has_its_own_outcome() -> None:
    good = "0x" + keccak(b"\x01").hex()
    node = Node(Scripted(good, RpcError(-32000, "nonce too low"), "0x" + "ff" * 32, None))
    outcomes = [r.outcome for r in node.send_raw([b"\x01", b"\x02", b"\x03", b"\x04"])]
    assert outcomes == [
        *(SendOutcome.ACCEPTED, SendOutcome.NONCE_TOO_LOW, SendOutcome.AMBIGUOUS, SendOutcome.AMBIGUOUS)
    ]
    assert node.round_trips == 1


@pytest.mark.parametrize(
    "error",
    [
        RpcError(-32601, "the method eth_simulateV1 does not exist/is not available"),
        RpcError(-32600, "Unsupported method: eth_simulateV1. See available methods"),
        RpcError(-32604, "Method not enabled"),
        RpcError(-32000, "the method is not supported on this plan"),
    ],
)
def test_without_the_simulation_method_each_is_called_alone(error: RpcError) -> None:
    node = Node(Scripted(error, "0x01"))
    head = Node(Scripted(BLOCK)).head()
    (simulated,) = node.simulate([TxCall(TOKEN, TOKEN, b"", 1)], head)
    assert simulated.success
    assert node.simulate_v1 is False


def test_a_simulation_that_the_node_refuses_is_not_taken_for_a_missing_method() -> None:
    node = Node(Scripted(RpcError(-38015, "block gas limit reached")))
    with pytest.raises(RpcError, match="gas limit"):
        node.simulate([TxCall(TOKEN, TOKEN, b"", 1)], Node(Scripted(BLOCK)).head())
    assert node.simulate_v1 is None


def test_a_call_that_the_node_gave_up_is_not_an_answer_of_the_contract() -> None:
    call = function("f()(uint256)").call(TOKEN)
    node = Node(Scripted(RpcError(-32000, "execution aborted (timeout = 5s)")))
    with pytest.raises(RpcError, match="aborted"):
        node.read([call], HASH)


@pytest.mark.parametrize("key", ["number", "timestamp", "gasLimit", "gasUsed"])
def test_a_number_that_no_chain_has_is_no_answer(key: str) -> None:
    with pytest.raises(RpcUnavailable, match="not an answer"):
        Node(Scripted(BLOCK | {key: "0x" + "f" * 64})).head()


@pytest.mark.parametrize("ratio", ["0x1", None, [], {"a": 1}, ["x"], [None], [-1], True])
@pytest.mark.parametrize("key", ["gasUsedRatio", "reward"])
def test_fee_history_of_another_shape_is_no_answer(key: str, ratio: object) -> None:
    fees = {"oldestBlock": "0xf", "baseFeePerGas": ["0x1", "0x2"], "gasUsedRatio": [0.5], "reward": [["0x7"]]}
    node = Node(Scripted(BLOCK, fees | {key: ratio}))
    if ratio in (None, []):
        assert node.tick().fees.next_base_fee_wei == 2
    else:
        with pytest.raises(RpcUnavailable, match="not an answer"):
            node.tick()


def test_tick_is_one_round_trip() -> None:
    fees = {"oldestBlock": "0xf", "baseFeePerGas": ["0x1", "0x2"], "gasUsedRatio": [0.5], "reward": [["0x7"]]}
    transport = Scripted(BLOCK, fees, "0x5", "0x6", "0x64", None, BLOCK | {"number": "0x9"}, None)
    node = Node(transport)

    tick = node.tick(TOKEN, Watch((PARENT,), (9, 300)))

    assert len(transport.asked) == node.round_trips == 1
    assert (tick.head.number, tick.head.base_fee_wei) == (16, 10**9)
    assert (tick.fees.next_base_fee_wei, tick.fees.reward_wei) == (2, (7,))
    assert tick.sender is not None
    assert (tick.sender.nonce_latest, tick.sender.nonce_pending, tick.sender.balance_wei) == (5, 6, 100)
    assert tick.receipts == {PARENT: None}
    assert tick.blocks[300] is None
    nine = tick.blocks[9]
    assert nine is not None
    assert nine.number == 9


@pytest.mark.parametrize(
    "block",
    [
        *(None, "0x", [], {}, BLOCK | {"number": "16"}, BLOCK | {"hash": "0x12"}),
        *(BLOCK | {"timestamp": "0x12zz"}, BLOCK | {"parentHash": None}, BLOCK | {"gasLimit": 30}),
    ],
)
def test_malformed_block_is_no_answer(block: Any) -> None:
    with pytest.raises(RpcUnavailable, match="not an answer"):
        Node(Scripted(block)).head()


BALANCE = function("balanceOf(address)(uint256)")


def test_reads_are_pinned_to_the_block_and_a_revert_is_none() -> None:
    transport = Scripted("0x" + "00" * 31 + "07", RpcError(3, "execution reverted", "0x08c379a0"))
    node = Node(transport)
    call = BALANCE.call(TOKEN, TOKEN)

    assert node.read([call, call], HASH, code={TOKEN: b"\xfe"}) == [(7).to_bytes(32, "big"), None]

    ((_, params), _) = transport.asked[0]
    assert params[1] == {"blockHash": HASH, "requireCanonical": True}
    assert params[2] == {TOKEN: {"code": "0xfe"}}


@pytest.mark.parametrize(
    "answer", [RpcError(-32001, "Resource not found"), RpcError(-32000, "header not found"), "0x123", None]
)
def test_read_that_is_neither_answer_nor_revert_is_an_error(answer: Any) -> None:
    with pytest.raises(ChainError):
        Node(Scripted(answer)).read([BALANCE.call(TOKEN, TOKEN)], HASH)


def test_long_lists_are_split() -> None:
    transport = Scripted(*["0x"] * 7)
    node = Node(transport, max_batch=3)
    assert len(node.read([BALANCE.call(TOKEN, TOKEN)] * 7, HASH)) == 7
    assert [len(part) for part in transport.asked] == [3, 3, 1]


def test_simulation_falls_back_once_where_the_node_cannot() -> None:
    transport = Scripted(
        *(BLOCK, RpcError(-32601, "Method not found"), "0x01", RpcError(3, "execution reverted", "0xdead")),
        *("0x02",),
    )
    node = Node(transport)
    head = node.head()
    call = TxCall(TOKEN, TOKEN, b"\x01", 100_000)

    good, bad = node.simulate([call, call], head)
    (again,) = node.simulate([call], head)

    assert (good.success, good.return_data, good.gas_used) == (True, b"\x01", None)
    assert (bad.success, bad.return_data) == (False, b"\xde\xad")
    assert again.return_data == b"\x02"
    assert node.simulate_v1 is False
    assert [part[0][0] for part in transport.asked] == [
        *("eth_getBlockByNumber", "eth_simulateV1", "eth_call", "eth_call")
    ]


def test_simulation_of_a_block_keeps_order_gas_and_logs() -> None:
    calls = [
        {"status": "0x1", "returnData": "0x01", "gasUsed": "0x5208", "logs": [LOG]},
        {"status": "0x0", "returnData": "0xbeef", "gasUsed": "0x1", "error": {"message": "reverted"}},
    ]
    node = Node(Scripted(BLOCK, [{"calls": calls}]))
    head = node.head()
    good, bad = node.simulate([TxCall(TOKEN, TOKEN, b"", 1)] * 2, head, timestamp=5)
    assert (good.gas_used, len(good.logs or ())) == (21_000, 1)
    assert (bad.success, bad.return_data, bad.error) == (False, b"\xbe\xef", "reverted")


def test_range_that_is_too_large_is_halved() -> None:
    too_large = RpcError(-32005, "query returned more than 10000 results")
    transport = Scripted(too_large, [LOG], too_large, [], [LOG, LOG])
    logs = Node(transport).logs([None], from_block=0, to_block=3)
    assert len(logs) == 3
    ranges = [(p[0][1][0]["fromBlock"], p[0][1][0]["toBlock"]) for p in transport.asked]
    assert ranges == [("0x0", "0x3"), ("0x0", "0x1"), ("0x2", "0x3"), ("0x2", "0x2"), ("0x3", "0x3")]


def test_one_block_that_is_refused_is_an_error() -> None:
    with pytest.raises(RpcError):
        Node(Scripted(RpcError(-32000, "no"))).logs([None], from_block=3, to_block=3)


def test_logs_by_hash_name_the_block() -> None:
    transport = Scripted([LOG])
    (log,) = Node(transport).logs([b"\x01" * 32, [b"\x02" * 32], None], block_hash=HASH, addresses=[TOKEN])
    assert (log.block, log.log_index, log.data) == (16, 3, b"\x02")
    query = transport.asked[0][0][1][0]
    assert query == {
        "topics": ["0x" + "01" * 32, ["0x" + "02" * 32], None],
        "address": [TOKEN],
        "blockHash": HASH,
    }


def test_receipt_without_a_block_is_pending() -> None:
    receipt = {
        "transactionHash": HASH,
        "blockNumber": "0x10",
        "blockHash": HASH,
        "status": "0x0",
        "gasUsed": "0x5208",
        "effectiveGasPrice": "0x2",
        "logs": [LOG],
    }
    node = Node(Scripted(None, receipt | {"blockHash": None}, receipt))
    missing, pending, mined = node.receipts([HASH] * 3)
    assert missing is pending is None
    assert mined is not None
    assert (mined.success, mined.gas_used, len(mined.logs)) == (False, 21_000, 1)
