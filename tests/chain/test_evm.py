"""What `Evm` promises, held against both backends with contracts of a few bytes."""

from __future__ import annotations

import pytest

from contracts_abi.errors import CallReverted, InputError
from simulation.chain.evm import ZERO_ADDRESS, Evm, Tx, labelled_address
from tests.chain.conftest import Chain

ALICE, BOB = labelled_address("alice"), labelled_address("bob")
CLOCK = labelled_address("returns time and number, keeps its argument, logs")
REVERTS = labelled_address("reverts with four bytes")
LIST = labelled_address("appends its argument to a list")
TRANSIENT = labelled_address("adds one to a transient slot and returns it")

# mstore(0, timestamp) mstore(32, number) sstore(0, calldata(0)) log1(0, 64, 0xaa) return(0, 64)
CLOCK_CODE = bytes.fromhex("425f5243602052 5f355f55 60aa60405fa1 60405ff3".replace(" ", ""))
REVERTS_CODE = bytes.fromhex("63deadbeef5f526004601cfd")
# sstore(0, sload(0) + 1) sstore(that, calldata(0))
LIST_CODE = bytes.fromhex("5f54600101805f555f35905500")
# tstore(0, tload(0) + 1) mstore(0, tload(0)) return(0, 32)
TRANSIENT_CODE = bytes.fromhex("5f5c6001015f5d5f5c5f5260205ff3")
# Creation code of a contract whose code is two JUMPDESTs.
CREATES = bytes.fromhex("6002600c60003960026000f35b5b")


def word(value: int) -> bytes:
    return value.to_bytes(32)


@pytest.fixture
def evm(chain: Chain) -> Evm:
    chain.evm.set_code(CLOCK, CLOCK_CODE)
    chain.evm.set_code(REVERTS, REVERTS_CODE)
    chain.evm.set_code(LIST, LIST_CODE)
    chain.evm.set_code(TRANSIENT, TRANSIENT_CODE)
    return chain.evm


def test_a_call_sees_the_block_that_the_next_transaction_is_mined_in(evm: Evm) -> None:
    evm.warp(evm.timestamp() + 1_000)
    promised = word(evm.timestamp()) + word(evm.block_number())
    called = evm.call(CLOCK, b"")
    result = evm.send(ALICE, CLOCK, word(7))
    assert called == promised
    assert result.success
    assert result.logs[0].data == promised
    assert (word(result.timestamp), word(result.block)) == (promised[:32], promised[32:])


def test_each_transaction_is_a_block_and_a_second(evm: Evm) -> None:
    time, number = evm.timestamp(), evm.block_number()
    results = [evm.send(ALICE, CLOCK, word(i)) for i in range(3)]
    assert [(r.block - number, r.timestamp - time) for r in results] == [(0, 0), (1, 1), (2, 2)]
    assert (evm.block_number() - number, evm.timestamp() - time) == (3, 3)


def test_a_call_leaves_nothing_behind(evm: Evm) -> None:
    evm.send(ALICE, CLOCK, word(7))
    before = (evm.timestamp(), evm.block_number())
    evm.call(CLOCK, word(8))
    assert evm.storage(CLOCK, 0) == 7
    assert (evm.timestamp(), evm.block_number()) == before


def test_logs_carry_address_topics_and_data(evm: Evm) -> None:
    (log,) = evm.send(ALICE, CLOCK, word(7)).logs
    assert (log.address, log.topics, len(log.data)) == (CLOCK, (word(0xAA),), 64)


def test_a_revert_is_raised_by_a_call_and_returned_by_a_transaction(evm: Evm) -> None:
    with pytest.raises(CallReverted, match="0xdeadbeef") as raised:
        evm.call(REVERTS, b"")
    assert raised.value.data == bytes.fromhex("deadbeef")
    result = evm.send(ALICE, REVERTS)
    assert (result.success, result.output, result.logs) == (False, bytes.fromhex("deadbeef"), ())
    with pytest.raises(CallReverted, match=r"poking reverted: 0xdeadbeef"):
        result.expect("poking")


def test_a_transaction_that_runs_out_of_gas_fails_and_changes_nothing(evm: Evm) -> None:
    result = evm.send(ALICE, CLOCK, word(9), gas=30_000)
    assert not result.success
    assert evm.storage(CLOCK, 0) == 0


def test_creation_returns_the_address_and_exactly_the_code(evm: Evm) -> None:
    address = evm.create(ALICE, CREATES)
    assert evm.code(address) == b"\x5b\x5b"
    with pytest.raises(CallReverted):
        evm.create(ALICE, bytes.fromhex("5f5ffd"))


def test_many_transactions_share_a_block_in_their_order(evm: Evm) -> None:
    number, time = evm.block_number(), evm.timestamp()
    senders = [labelled_address(f"sender {i * i % 23}") for i in range(200)]
    results = evm.send_many([Tx(s, LIST, word(i), gas=100_000) for i, s in enumerate(senders)])
    assert {(r.block, r.timestamp, r.success) for r in results} == {(number, time, True)}
    assert [evm.storage(LIST, i + 1) for i in range(200)] == list(range(200))
    assert (evm.block_number(), evm.timestamp()) == (number + 1, time + 1)


def test_no_transactions_are_no_block(evm: Evm) -> None:
    before = evm.block_number()
    assert evm.send_many([]) == []
    assert evm.block_number() == before


def test_transient_storage_ends_with_its_transaction(evm: Evm) -> None:
    evm.send(ALICE, TRANSIENT)
    assert evm.call(TRANSIENT, b"") == word(1)


def test_going_back_restores_all_that_was_written(evm: Evm) -> None:
    evm.send(ALICE, CLOCK, word(7))
    evm.set_balance(BOB, 5)
    before = (evm.timestamp(), evm.block_number())
    outer = evm.snapshot()
    created = evm.create(ALICE, CREATES)
    evm.send(ALICE, CLOCK, word(8))
    evm.snapshot()
    evm.set_balance(BOB, 10**18)
    evm.send(BOB, ALICE, value=10**17)
    evm.set_code(CLOCK, b"\x00")
    evm.set_storage(CLOCK, 0, 9)
    evm.warp(evm.timestamp() + 10_000)
    evm.revert(outer)
    assert (evm.timestamp(), evm.block_number()) == before
    assert (evm.storage(CLOCK, 0), evm.balance(BOB), evm.balance(ALICE)) == (7, 5, 0)
    assert evm.code(CLOCK) == CLOCK_CODE
    assert evm.create(ALICE, CREATES) == created  # the nonce, too
    with pytest.raises(InputError, match="no snapshot"):
        evm.revert(outer)


def test_storage_is_written_word_by_word_or_many_at_once(evm: Evm) -> None:
    evm.set_storage_many([(CLOCK, slot, 2**256 - 1 - slot) for slot in range(40)])
    assert [evm.storage(CLOCK, slot) for slot in range(41)] == [*(2**256 - 1 - i for i in range(40)), 0]


def test_time_does_not_go_back(evm: Evm) -> None:
    last = evm.send(ALICE, CLOCK).timestamp
    evm.warp(last)
    assert evm.send(ALICE, CLOCK).timestamp == last
    with pytest.raises(InputError, match=f"cannot warp to {last - 1}"):
        evm.warp(last - 1)


def test_an_account_without_code_answers_with_nothing(evm: Evm) -> None:
    assert evm.code(BOB) == b""
    assert evm.call(BOB, b"\x01\x02\x03\x04") == b""
    assert evm.code(ZERO_ADDRESS) == b""
