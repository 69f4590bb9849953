"""Killed with -9 again and again, the sender neither repeats an intent nor forgets an account."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from keeper.journal import Journal
from keeper.types import FINAL_STATES
from simulation.chain.anvil import Anvil, AnvilOptions
from tests.faults.bench import GWEI, TARGET, executed, load_signer, prepare
from tests.faults.proxy import FaultProxy, Spoil

ROOT = Path(__file__).resolve().parents[2]
POINTS = (
    *("before write-ahead", "after write-ahead", "before send", "after send"),
    *("after recording sends", "before commit", "after replacement"),
)


@contextmanager
def chain() -> Iterator[tuple[Anvil, FaultProxy]]:
    """Run a node behind a proxy; it mines when told to, which is while a victim lives and between two."""
    with Anvil.start(AnvilOptions(mining=False, base_fee=GWEI, gas_limit=30_000_000)) as anvil:
        prepare(anvil)
        with FaultProxy(anvil.url) as proxy:
            yield anvil, proxy


class Victim:
    """The sending process, and a chain that goes on while it is alive or dead."""

    def __init__(self, folder: Path, anvil: Anvil, proxy: FaultProxy, accounts: int) -> None:
        self.folder, self.anvil, self.proxy, self.accounts = folder, anvil, proxy, accounts

    def start(
        self, point: str = "never", passages: int = 1, under: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        arguments = [self.proxy.url, str(self.folder), str(self.accounts), point, str(passages)]
        return subprocess.Popen(
            [*under, sys.executable, "-m", "tests.faults.victim", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def mine_until_end(self, process: subprocess.Popen[bytes], limit_s: float = 60.0) -> int:
        """Mine at a pace of its own until the process ends; return its exit code."""
        end = time.monotonic() + limit_s
        while process.poll() is None:
            assert time.monotonic() < end, "the victim hangs"
            self.anvil.rpc.call("evm_mine")
            try:
                process.wait(0.04)
            except subprocess.TimeoutExpired:
                continue
        _, errors = process.communicate()
        if process.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(errors.decode())
        return int(process.returncode)

    def check(self) -> None:
        """Check that nothing is duplicated, lost or unaccounted for."""
        times = executed(self.anvil)
        assert [i for i, n in times.items() if n > 1] == []
        logs = self.anvil.rpc.call(
            "eth_getLogs", [{"address": TARGET, "fromBlock": "0x0", "toBlock": "latest"}]
        )
        per_account = Counter(log["topics"][1] for log in logs)
        assert len(per_account) == self.accounts
        assert set(per_account.values()) == {1}
        with Journal.read_only(self.folder / "journal.sqlite") as journal:
            intents = journal.intents()
            assert {intent.state for intent in intents} <= FINAL_STATES
            assert set(times) <= {intent.intent_id for intent in intents}
            assert len({intent.nonce for intent in intents}) == len(intents)
            sent = {"0x" + keccak(hexstr=raw).hex() for raw in self.proxy.sent()}
            assert sent <= journal.tx_hashes()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    load_signer(tmp_path).close()
    with chain() as (anvil, proxy):
        yield Victim(tmp_path, anvil, proxy, accounts=9)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(victim: Victim, point: str) -> None:
    if point == "after replacement":
        # Without answers the first bytes never get anywhere and have to be replaced.
        victim.proxy.spoil(Spoil.LOSE_REQUEST, times=4)
    deaths = 0
    for passages in (1, 2):
        process = victim.start(point, passages)
        deaths += victim.mine_until_end(process) != 0
    assert deaths >= 1
    assert victim.mine_until_end(victim.start()) == 0
    victim.check()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_killed_at_random_moments_with_a_node_that_fails(victim: Victim, seed: int) -> None:
    chance = random.Random(seed)
    kills = 0
    for _ in range(8):
        victim.proxy.spoil(chance.choice([Spoil.LOSE_REPLY, Spoil.LOSE_REQUEST, Spoil.HTTP_500, Spoil.TWICE]))
        process = victim.start()
        # From the first transaction on it is at work, however long the machine takes to get it there.
        end = time.monotonic() + 60.0
        seen = len(victim.proxy.sent())
        while process.poll() is None and len(victim.proxy.sent()) == seen and time.monotonic() < end:
            victim.anvil.rpc.call("evm_mine")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
        end = time.monotonic() + chance.uniform(0.0, 0.2)
        while process.poll() is None and time.monotonic() < end:
            victim.anvil.rpc.call("evm_mine")
            try:
                process.wait(0.03)
            except subprocess.TimeoutExpired:
                continue
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert victim.mine_until_end(victim.start()) == 0
    victim.check()
    assert kills > 0


def test_journal_is_synced_before_each_send(victim: Victim) -> None:
    """Read in the system calls that no signed byte left before its journal page was on the disk."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace is not there, or may not trace")
    trace = victim.folder / "trace"
    calls = "trace=pwrite64,fsync,fdatasync,sendto"
    process = victim.start(under=[strace, "-f", "-y", "-s", "4000", "-e", calls, "-o", str(trace)])
    assert victim.mine_until_end(process) == 0
    victim.check()

    sends, unsynced = 0, False
    for line in trace.read_text(errors="replace").splitlines():
        if "journal.sqlite-wal>" in line:
            unsynced = "pwrite64(" in line
        elif "sendto(" in line and "eth_sendRawTransaction" in line:
            sends += len(re.findall("eth_sendRawTransaction", line))
            assert not unsynced, "sent while the journal was not on disk"
    assert sends >= victim.accounts
