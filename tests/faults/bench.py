"""A node, a contract that shows what was executed, and a keeper's sending half on top of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from keeper.config import Mode, Secret
from keeper.fees import FeePolicy
from keeper.journal import Identity, Journal
from keeper.rpc import Node
from keeper.signer import TOY_COST, Signer, create_keystore
from keeper.submit import Submitter
from keeper.types import Order
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.rpc import JsonRpc
from tests.faults.proxy import FaultProxy

CHAIN_ID = 31_337
GWEI = 10**9
ETHER = 10**18
# The first of anvil's well-known development keys.
KEY = Secret("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
SENDER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
PASSWORD = Secret("canary-password")

TARGET = "0x00000000000000000000000000000000000C0dE5"
# Calldata is (intent id, account, last block). Reverts after the last block, else LOG2(intent id, account).
TARGET_CODE = "0x" + "".join(
    (
        "604035431160145760203560003560006000a200",  # if number > calldata[64]: jump; log2
        "5b60006000fd",  # revert
    )
)

POLICY = FeePolicy(
    min_tip_wei=GWEI,
    max_tip_wei=50 * GWEI,
    headroom=Fraction(2),
    replace_after_blocks=2,
    max_action_cost_wei=ETHER,
    max_cancel_cost_wei=ETHER // 20,
)


def account(number: int) -> str:
    """Return the address of a borrower that does not exist."""
    return f"0x{0xACC0_0000 + number:040x}"


@dataclass
class Bench:
    """What a test works with; `node` goes through the proxy, `anvil` does not."""

    anvil: Anvil
    proxy: FaultProxy
    node: Node
    signer: Signer
    journal: Journal
    submitter: Submitter
    folder: Path

    def order(self, number: int = 0, *, deadline_in: int = 8, budget_wei: int = ETHER // 10) -> Order:
        """Return an order that makes the target log the account's intent."""
        head = self.node.head().number
        return make_order(self.journal, number, head, deadline_in=deadline_in, budget_wei=budget_wei)

    def mine(self, blocks: int = 1, *, base_fee_wei: int | None = None) -> None:
        """Mine blocks, the first at a given base fee."""
        if base_fee_wei is not None:
            self.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", [hex(base_fee_wei)])
        for _ in range(blocks):
            self.anvil.rpc.call("evm_mine")

    def executed(self) -> Counter[str]:
        """Return how often each intent id was executed, read from the chain."""
        return executed(self.anvil)

    def reopen(self, mode: Mode = Mode.LIVE) -> None:
        """Start over with the same journal, as a new process would."""
        self.journal.close()
        self.journal = Journal.open(self.folder / "journal.sqlite", identity(self.anvil))
        self.submitter = make_submitter(self.journal, self.node, self.signer, mode)


def executed(anvil: Anvil) -> Counter[str]:
    """Return how often each intent id was executed on a chain."""
    logs = anvil.rpc.call("eth_getLogs", [{"address": TARGET, "fromBlock": "0x0", "toBlock": "latest"}])
    return Counter(log["topics"][0] for log in logs)


def identity(anvil: Anvil) -> Identity:
    """Return whose journal it is on this node."""
    return Identity(CHAIN_ID, anvil.rpc.call("eth_getBlockByNumber", ["0x0", False])["hash"], SENDER)


def make_order(
    journal: Journal, number: int, head: int, *, deadline_in: int = 8, budget_wei: int = ETHER // 10
) -> Order:
    """Return an order on a borrower, decided at `head`."""
    names = {"debt_asset": account(10**6), "collateral_asset": account(10**6 + 1)}
    borrower = account(number)
    intent_id = journal.new_intent_id(protocol="aave-v3", account=borrower, decided_block=head, **names)
    deadline = head + deadline_in
    data = bytes.fromhex(intent_id[2:]) + int(borrower, 16).to_bytes(32, "big") + deadline.to_bytes(32, "big")
    return Order(
        intent_id=intent_id,
        account=borrower,
        protocol="aave-v3",
        **names,
        debt_to_cover_raw=10**30,
        simulated_profit_raw=10**9,
        min_profit_raw=1,
        decided_block=head,
        deadline_block=deadline,
        to=TARGET,
        data=data,
        gas_limit=100_000,
        budget_wei=budget_wei,
    )


def make_submitter(journal: Journal, node: Node, signer: Signer | None, mode: Mode) -> Submitter:
    """Return a submitter with the policy of these tests."""
    return Submitter(journal=journal, node=node, signer=signer, mode=mode, policy=POLICY, confirmations=3)


def prepare(anvil: Anvil) -> None:
    """Put the target contract in place; anvil without ``eth_setCode`` would be no anvil."""
    anvil.rpc.call("anvil_setCode", [TARGET, TARGET_CODE])
    anvil.rpc.call("evm_mine")


def load_signer(folder: Path, *, exclusive: bool = True) -> Signer:
    """Return the signer of these tests, through a keystore file."""
    keystore = folder / "keystore.json"
    if not keystore.exists():
        create_keystore(keystore, PASSWORD, private_key=KEY, cost=TOY_COST)
    return Signer.load(keystore, PASSWORD, chain_id=CHAIN_ID, exclusive=exclusive)


@contextmanager
def running_bench(
    folder: Path, *, mode: Mode = Mode.LIVE, timeout_s: float = 5.0, credentials: str = ""
) -> Iterator[Bench]:
    """Run a bench: a node that mines only when told to, with a base fee of one gwei.

    Parameters
    ----------
    credentials
        ``user:password@`` in the keeper's RPC URL.
    """
    options = AnvilOptions(mining=False, base_fee=GWEI, gas_limit=30_000_000)
    with Anvil.start(options) as anvil, FaultProxy(anvil.url) as proxy:
        prepare(anvil)
        rpc = JsonRpc(proxy.url.replace("://", f"://{credentials}"), timeout_s=timeout_s)
        node, signer = Node(rpc), load_signer(folder)
        journal = Journal.open(folder / "journal.sqlite", identity(anvil))
        bench = Bench(
            anvil, proxy, node, signer, journal, make_submitter(journal, node, signer, mode), folder
        )
        try:
            yield bench
        finally:
            bench.journal.close()
            signer.close()
            rpc.close()
