"""The keeper's questions, put to a real node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts_abi.calls import Call
from contracts_abi.errors import RpcError
from keeper.rpc import Node, TxCall, Watch
from simulation.chain.anvil import Anvil, AnvilOptions

USER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
COUNTER = "0x00000000000000000000000000000000000C0dE1"
# With calldata: reverts with it. Without: adds one to slot 0, logs and returns what is then there.
COUNTER_CODE = (
    "0x36601b57"  # if calldatasize: jump to 1b
    "600054600101"  # sload(0) + 1
    "80600055600052"  # sstore(0, it); mstore(0, it)
    "60206000a060206000f3"  # log0(0, 32); return(0, 32)
    "5b366000600037366000fd"  # calldatacopy(0, 0, all); revert(0, all)
)
TIME = "0x00000000000000000000000000000000000C0dE2"
TIME_CODE = "0x426000524360205260406000f3"  # return(timestamp, number)


@pytest.fixture(scope="module")
def anvil() -> Iterator[Anvil]:
    with Anvil.start(AnvilOptions(mining=False, base_fee=10**9, timestamp=1_600_000_000)) as node:
        node.rpc.call("anvil_setCode", [COUNTER, COUNTER_CODE])
        node.rpc.call("anvil_setCode", [TIME, TIME_CODE])
        node.rpc.call("evm_mine")
        yield node


@pytest.fixture
def node(anvil: Anvil) -> Node:
    return Node(anvil.rpc)


def read(to: str, data: bytes = b"") -> Call[bytes]:
    return Call(to, data, bytes, "test")


def test_read_keeps_to_its_block(anvil: Anvil, node: Node) -> None:
    head = node.head()
    anvil.rpc.call("evm_mine")
    (answer,) = node.read([read(TIME)], head)
    assert answer is not None
    assert int.from_bytes(answer[32:], "big") == head.number < node.head().number


def test_block_that_is_not_known_is_an_error_and_a_revert_is_not(node: Node) -> None:
    with pytest.raises(RpcError):
        node.read([read(TIME)], "0x" + "12" * 32)
    assert node.read([read(COUNTER, b"\x01"), read(COUNTER)], node.head()) == [None, b"\0" * 31 + b"\1"]


def test_code_can_be_pretended(node: Node) -> None:
    somewhere = "0x" + "77" * 20
    code = bytes.fromhex(TIME_CODE[2:])
    (answer,) = node.read([read(somewhere)], node.head(), code={somewhere: code})
    assert answer is not None
    assert len(answer) == 64
    assert node.code([somewhere, TIME]) == [b"", code]


def test_bundle_is_simulated_in_order_on_one_block_in_one_round_trip(node: Node) -> None:
    head = node.head()
    trips = node.round_trips
    first, failed, second, when = node.simulate(
        [
            TxCall(USER, COUNTER, b"", 100_000),
            TxCall(USER, COUNTER, b"\xbe\xef", 100_000),
            TxCall(USER, COUNTER, b"", 100_000),
            TxCall(USER, TIME, b"", 100_000),
        ],
        head,
        timestamp=head.timestamp + 777,
    )
    assert node.round_trips == trips + 1
    assert (int.from_bytes(first.return_data, "big"), int.from_bytes(second.return_data, "big")) == (1, 2)
    assert (failed.success, failed.return_data) == (False, b"\xbe\xef")
    assert first.gas_used is not None
    assert first.gas_used > 40_000
    assert [log.data for log in second.logs or ()] == [(2).to_bytes(32, "big")]
    assert int.from_bytes(when.return_data[:32], "big") == head.timestamp + 777
    assert int.from_bytes(when.return_data[32:], "big") == head.number + 1
    assert node.simulate_v1 is True


def test_tick_receipts_and_logs_agree(anvil: Anvil, node: Node) -> None:
    transaction = {"from": USER, "to": COUNTER, "gas": hex(100_000), "gasPrice": hex(10**10)}
    tx_hash = anvil.rpc.call("eth_sendTransaction", [transaction])
    before = node.tick(USER, Watch((tx_hash,)))
    anvil.rpc.call("evm_mine")
    after = node.tick(USER, Watch((tx_hash,), (0, before.head.number, 10_000)))

    assert before.receipts[tx_hash] is None
    assert before.sender is not None
    assert after.sender is not None
    assert before.sender.nonce_pending == after.sender.nonce_latest == before.sender.nonce_latest + 1
    receipt = after.receipts[tx_hash]
    assert receipt is not None
    assert (receipt.success, receipt.block_hash) == (True, after.head.block_hash)
    assert after.head.parent_hash == before.head.block_hash
    assert after.blocks[before.head.number] == before.head
    assert after.blocks[10_000] is None
    by_hash = node.logs([], addresses=[COUNTER], block_hash=after.head.block_hash)
    by_range = node.logs([], addresses=[COUNTER], from_block=after.head.number, to_block=after.head.number)
    assert by_hash == by_range == list(receipt.logs)
    genesis = after.blocks[0]
    assert genesis is not None
    assert node.genesis_hash() == genesis.block_hash
    with pytest.raises(RpcError):
        node.logs([], block_hash="0x" + "12" * 32)
