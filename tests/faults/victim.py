"""A keeper's sending half as a process that is made to be killed; run by test_kill.py, not a test.

Clears a list of accounts, each once: an account is done when the chain shows that it was executed. With a
crash point it kills itself there, after a number of passages.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contracts_abi.errors import ChainError
from keeper.config import Mode
from keeper.journal import Identity, Journal
from keeper.rpc import Node, SendResult, Tick
from keeper.types import Attempt, Order
from simulation.chain.rpc import JsonRpc
from tests.faults.bench import CHAIN_ID, SENDER, TARGET, account, load_signer, make_order, make_submitter


class Fuse:
    """Kills this process without a word when the chosen point is passed the chosen number of times."""

    def __init__(self, point: str, passages: int) -> None:
        self.point, self.left = point, passages

    def pass_(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class DyingJournal(Journal):
    """A journal that dies around its commits."""

    fuse: Fuse

    def write_ahead(self, prepared: Sequence[tuple[Order, Attempt]]) -> None:
        self.fuse.pass_("before write-ahead")
        super().write_ahead(prepared)
        self.fuse.pass_("after write-ahead")

    def add_attempts(self, attempts: Sequence[Attempt]) -> None:
        super().add_attempts(attempts)
        self.fuse.pass_("after replacement")

    def record_sends(self, block: int, results: Sequence[SendResult]) -> None:
        super().record_sends(block, results)
        self.fuse.pass_("after recording sends")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
            self.fuse.pass_("before commit")


class DyingNode(Node):
    """A node that dies around its sends."""

    fuse: Fuse

    def send_raw(self, signed: Sequence[bytes]) -> list[SendResult]:
        self.fuse.pass_("before send")
        answers = super().send_raw(signed)
        self.fuse.pass_("after send")
        return answers


def done(node: Node) -> set[str]:
    """Return the accounts that were executed, as the chain shows."""
    head = node.head()
    logs = node.logs([], addresses=[TARGET], from_block=0, to_block=head.number)
    return {"0x" + log.topics[1][12:].hex() for log in logs}


def run(url: str, folder: Path, accounts: int, fuse: Fuse) -> None:
    """Clear all accounts, a few per head, then settle what is open."""
    DyingJournal.fuse = DyingNode.fuse = fuse
    node = DyingNode(JsonRpc(url, timeout_s=2.0))
    signer = load_signer(folder)
    journal = DyingJournal.open(folder / "journal.sqlite", Identity(CHAIN_ID, node.genesis_hash(), SENDER))
    submitter = make_submitter(journal, node, signer, Mode.LIVE)
    submitter.reconcile(submitter.tick())
    last: Tick | None = None
    while True:
        try:
            tick = submitter.tick()
            if last is not None and tick.head.block_hash == last.head.block_hash:
                continue
            last = tick
            submitter.follow(tick)
            cleared = done(node)
            wanted = [i for i in range(accounts) if account(i) not in cleared]
            orders = [make_order(journal, i, tick.head.number, deadline_in=4) for i in wanted[:3]]
            submitter.submit(orders, tick)
        except ChainError as error:
            print(error, file=sys.stderr)
            continue
        if not wanted and not journal.open_intents():
            break
    journal.close()
    print(json.dumps({"done": len(cleared)}))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Fuse(sys.argv[4], int(sys.argv[5])))
