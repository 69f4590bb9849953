"""Everything at once, in an order drawn from a seed; what must hold afterwards always holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from contracts_abi.errors import ChainError
from keeper.types import FINAL_STATES, AttemptKind, IntentState
from tests.faults.bench import ETHER, GWEI, SENDER, Bench, running_bench
from tests.faults.proxy import Spoil

STEPS = 80


class Storm:
    """A bench and what can happen to it."""

    def __init__(self, bench: Bench, chance: random.Random) -> None:
        self.bench, self.chance = bench, chance
        self.foreign = 0

    def step(self) -> None:
        happenings = [self.submit] * 4 + [self.mine] * 6 + [self.follow] * 6
        happenings += [self.spoil] * 3 + [self.spike, self.evict, self.reorganise, self.restart, self.cancel]
        happenings += [self.starve, self.interfere, self.reorganise, self.reorganise]
        self.chance.choice(happenings)()

    def submit(self) -> None:
        orders = [
            self.bench.order(self.chance.randrange(20), deadline_in=self.chance.randint(1, 8))
            for _ in range(self.chance.randint(1, 4))
        ]
        self.quietly(lambda: self.bench.submitter.submit(orders, self.bench.submitter.tick()))

    def mine(self) -> None:
        self.bench.mine(self.chance.randint(1, 2))

    def follow(self) -> None:
        self.quietly(lambda: self.bench.submitter.follow(self.bench.submitter.tick()))

    def quietly(self, action: Callable[[], object]) -> None:
        """Do what may fail for want of an answer, which is no excuse for anything."""
        try:
            action()
        except ChainError:
            return

    def spoil(self) -> None:
        method = self.chance.choice(
            ["eth_sendRawTransaction"] * 3 + ["eth_getTransactionReceipt", "eth_feeHistory"]
        )
        spoil = self.chance.choice([s for s in Spoil if s is not Spoil.HANG])
        if method != "eth_sendRawTransaction" and spoil is Spoil.TWICE:
            return
        self.bench.proxy.spoil(spoil, method, times=self.chance.randint(1, 2))

    def spike(self) -> None:
        self.bench.mine(base_fee_wei=self.chance.choice([5, 40, 200]) * GWEI)

    def evict(self) -> None:
        sent = self.bench.proxy.sent()
        if sent:
            tx_hash = "0x" + keccak(hexstr=self.chance.choice(sent)).hex()
            self.bench.anvil.rpc.call("anvil_dropTransaction", [tx_hash])

    def reorganise(self) -> None:
        self.bench.anvil.rpc.call("anvil_reorg", [self.chance.randint(1, 2), []])

    def restart(self) -> None:
        self.bench.reopen()
        self.quietly(lambda: self.bench.submitter.reconcile(self.bench.submitter.tick()))

    def cancel(self) -> None:
        opened = self.bench.journal.open_intents()
        if opened:
            self.bench.submitter.request_cancel(self.chance.choice(opened).intent_id, "gone")

    def starve(self) -> None:
        self.bench.anvil.rpc.call(
            "anvil_setBalance", [SENDER, hex(self.chance.choice([0, ETHER, 100 * ETHER]))]
        )

    def interfere(self) -> None:
        """Use the key from elsewhere at the next free nonce, as an operator with a wallet would."""
        nonce = int(self.bench.anvil.rpc.call("eth_getTransactionCount", [SENDER, "pending"]), 16)
        fees = {"maxFeePerGas": hex(500 * GWEI), "maxPriorityFeePerGas": hex(50 * GWEI)}
        transfer = {"from": SENDER, "to": SENDER, "nonce": hex(nonce), "gas": hex(21_000), **fees}
        try:
            self.bench.anvil.rpc.call("eth_sendTransaction", [transfer])
        except ChainError:
            return  # not funded
        self.foreign += 1

    def calm(self) -> None:
        """Let it end: no more faults, enough money, cheap blocks."""
        self.bench.proxy.faults.clear()
        self.bench.anvil.rpc.call("anvil_setBalance", [SENDER, hex(10_000 * ETHER)])
        self.bench.reopen()
        for _ in range(40):
            self.bench.mine(base_fee_wei=GWEI)
            self.bench.submitter.follow(self.bench.submitter.tick(), resume=True)
            if not self.bench.journal.open_intents():
                return
        raise AssertionError("the queue is wedged")


@pytest.mark.parametrize("seed", range(8))
def test_storm(tmp_path: Path, seed: int) -> None:
    with running_bench(tmp_path) as bench:
        bench.mine(5)
        storm = Storm(bench, random.Random(seed))
        storm.submit()
        for _ in range(STEPS):
            storm.step()
        storm.calm()

        executed = bench.executed()
        intents = bench.journal.intents()
        assert {intent.state for intent in intents} <= FINAL_STATES
        for intent in intents:
            expected = 1 if intent.state is IntentState.CONFIRMED else 0
            assert executed.get(intent.intent_id, 0) == expected, (intent.nonce, intent.state)
            attempts = bench.journal.attempts([intent.intent_id])[intent.intent_id]
            spent = [a.max_fee_wei * intent.gas_limit for a in attempts if a.kind is AttemptKind.ACTION]
            assert max(spent) <= intent.budget_wei
        assert set(executed) <= {intent.intent_id for intent in intents}
        assert {"0x" + keccak(hexstr=raw).hex() for raw in bench.proxy.sent()} <= bench.journal.tx_hashes()
        used = int(bench.anvil.rpc.call("eth_getTransactionCount", [SENDER, "latest"]), 16)
        assert used >= len(intents) - sum(i.state is IntentState.ABANDONED for i in intents)
        assert intents
