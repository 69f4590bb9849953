"""A node starts where it is told, says in one line why it does not, and never outlives who started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts_abi.errors import ChainError, InputError, RpcUnavailable, ToolError
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.evm import Tx, labelled_address
from simulation.chain.rpc import JsonRpc

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB = labelled_address("alice"), labelled_address("bob")
DEADLINE_S = 20.0

CHILD = """
import sys
from simulation.chain.anvil import Anvil
node = Anvil.start()
print(node.pid, node.port, flush=True)
sys.stdin.read()
"""


# From CPython 3.12 on, forking beside other threads warns; that a fork may happen is what is tested.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def running(pid: int) -> bool:
    """Return whether a process runs; one that ended and was not yet collected does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def start_in_a_child() -> tuple[subprocess.Popen[str], int, int]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    pid, port = map(int, child.stdout.readline().split())
    return child, pid, port


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_node_ends_with_the_process_that_started_it(how: signal.Signals) -> None:
    child, pid, port = start_in_a_child()
    with child:
        assert running(pid)
        child.send_signal(how)
        child.wait(DEADLINE_S)
    assert eventually(lambda: not running(pid))
    with JsonRpc(f"http://127.0.0.1:{port}") as rpc, pytest.raises(RpcUnavailable):
        rpc.call("eth_chainId")


@forks
def test_a_node_ends_although_a_forked_child_lives_on() -> None:
    # The fork inherits the pipe whose end is the node's sign that nobody is left.
    with Anvil.start() as node:
        context = multiprocessing.get_context("fork")
        quiet, wake = context.Pipe()
        sleeper = context.Process(target=quiet.recv)
        sleeper.start()
        node._process.stdin.close()  # type: ignore[union-attr]  # what the end of this process does
        assert eventually(lambda: not running(node.pid))
        wake.send("wake")
        sleeper.join()


def test_a_node_does_not_end_with_the_thread_that_started_it() -> None:
    nodes: list[Anvil] = []
    thread = threading.Thread(target=lambda: nodes.append(Anvil.start()))
    thread.start()
    thread.join()
    with nodes[0] as node:
        assert node.alive()
        assert node.rpc.call("eth_chainId") == "0x7a69"


def test_closing_ends_the_node_and_its_watcher() -> None:
    with Anvil.start() as node:
        children = subprocess.run(["pgrep", "-P", str(node.pid)], capture_output=True, text=True, check=False)
        watchers = [int(pid) for pid in children.stdout.split()]
    assert not node.alive()
    node.close()  # a second time does no harm
    assert not running(node.pid)
    assert len(watchers) <= 1
    assert eventually(lambda: not any(running(pid) for pid in watchers))


def test_a_taken_port_is_one_line() -> None:
    with (
        Anvil.start() as node,
        pytest.raises(InputError, match=rf"^port {node.port} is taken; choose another"),
    ):
        Anvil.start(AnvilOptions(port=node.port))


def test_a_program_that_is_no_node_is_one_line(tmp_path: Path) -> None:
    program = tmp_path / "anvil"
    program.write_text("#!/bin/sh\necho cannot find libfoo >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(ChainError, match="ended at once: cannot find libfoo"):
        Anvil.start(binary=program)
    with pytest.raises((ToolError, ChainError)):
        Anvil.start(binary=tmp_path / "missing")


def test_a_node_that_never_answers_is_given_up(tmp_path: Path) -> None:
    program = tmp_path / "anvil"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    with pytest.raises(ChainError, match=r"did not start within 0\.2 s"):
        Anvil.start(binary=program, timeout_s=0.2)


def test_options_reach_the_node() -> None:
    options = AnvilOptions(chain_id=4242, timestamp=1_000_000_000, gas_limit=77_000_000, base_fee=9)
    with Anvil.start(options) as node:
        head = node.rpc.call("eth_getBlockByNumber", ["latest", False])
        assert node.rpc.call("eth_chainId") == hex(4242)
    fields = ("timestamp", "gasLimit", "baseFeePerGas")
    assert [int(head[name], 16) for name in fields] == [1_000_000_000, 77_000_000, 9]


def test_without_mining_only_mine_makes_blocks() -> None:
    with Anvil.start(AnvilOptions(mining=False, base_fee=0)) as node:
        evm = node.evm()
        (tx_hash,) = evm.submit([Tx(ALICE, BOB, gas=21_000)])
        assert node.rpc.call("eth_blockNumber") == "0x0"
        assert evm.mine(base_fee=0) == 1
        assert int(node.rpc.call("eth_getTransactionReceipt", [tx_hash])["blockNumber"], 16) == 1
        assert evm.send(ALICE, BOB).block == 2


def test_the_base_fee_of_a_block_can_be_scripted() -> None:
    with Anvil.start(AnvilOptions(mining=False)) as node:
        evm = node.evm()
        for fee in (7, 10**9, 0):
            block = node.rpc.call("eth_getBlockByNumber", [hex(evm.mine(base_fee=fee)), False])
            assert int(block["baseFeePerGas"], 16) == fee


def test_what_does_not_fit_into_a_block_is_refused_and_forgotten() -> None:
    with Anvil.start(AnvilOptions(gas_limit=100_000)) as node:
        evm = node.evm()
        with pytest.raises(ChainError, match="1 of 2 transactions did not fit"):
            evm.send_many([Tx(ALICE, BOB, gas=90_000)] * 2)
        assert node.rpc.call("txpool_status") == {"pending": "0x0", "queued": "0x0"}
        assert evm.send(ALICE, BOB, gas=21_000).success


def test_a_reloaded_chain_goes_on_where_it_stopped(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with Anvil.start(AnvilOptions(timestamp=1_000_000_000, dump_state=state)) as node:
        evm = node.evm()
        evm.warp(1_000_000_500)
        evm.set_code(BOB, bytes.fromhex("60aa5f5fa100"))  # log1(0, 0, 0xaa)
        sent = evm.send(ALICE, BOB)
        query = {"address": BOB, "fromBlock": "0x0", "toBlock": "latest"}
        logs = node.rpc.call("eth_getLogs", [query])
        blocks = [node.rpc.call("eth_getBlockByNumber", [hex(n), True]) for n in range(sent.block + 1)]
    with Anvil.start(AnvilOptions(load_state=state)) as node:
        evm = node.evm()
        assert node.rpc.call("eth_getLogs", [query]) == logs
        assert len(logs) == 1
        again = [node.rpc.call("eth_getBlockByNumber", [hex(n), True]) for n in range(sent.block + 1)]
        assert again == blocks
        assert (evm.block_number(), evm.timestamp()) == (sent.block + 1, sent.timestamp + 1)
        # Also a block that nobody set a time for follows the chain's clock and not this machine's.
        node.rpc.call("evm_mine")
        head = node.rpc.call("eth_getBlockByNumber", ["latest", False])
        assert 0 <= int(head["timestamp"], 16) - sent.timestamp < 3_600


@forks
def test_a_forked_process_does_not_close_the_parents_node() -> None:
    with Anvil.start() as node:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert node.alive()
        assert node.rpc.call("eth_chainId") == "0x7a69"
