"""Measure the bulk read of accounts through the lens: ours against web3's contract codec.

Both ask the same node the same `eth_call`s of the same deployed lens and end with the same numbers, which is
checked word by word. Ours go out one after another, as web3's do, and in one batch, as the keeper asks.

What the node itself needs is measured by calls whose work is the same and whose answer is a single word: a
few bytes of code, put in place by a state override, forward the calldata to the lens and return only the size
of what it answered. What a client needs itself is the processor time of this process during the call: while
the node works, it waits without using any.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from _common import Headline, Report, Summary, parser, race, ratios, run, table
from eth_utils.address import to_checksum_address
from web3 import HTTPProvider, Web3

from contracts_abi import lens
from contracts_abi.calls import Call
from contracts_abi.errors import RpcError
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.evm import labelled_address
from simulation.chain.rpc import JsonRpc, Request, hexed, unhexed
from simulation.chain.seed import SeededState, load_or_build

BATCH, SEQUENCE = "ours, one batch", "ours, one call after another"
WEB3, WEB3_BARE = "web3, defaults", "web3, no validation"
WEB3_BATCH = "web3, no validation, one batch"
NODE_BATCH, NODE_SEQUENCE = "node alone, one batch", "node alone, one call after another"


@dataclass(slots=True)
class Timed:
    """A contestant, with the processor time that this process spent in each of its runs."""

    work: Callable[[], object]
    cpu_s: list[float] = field(default_factory=list)

    def __call__(self) -> object:
        started = time.process_time()
        result = self.work()
        self.cpu_s.append(time.process_time() - started)
        return result


@dataclass(frozen=True, slots=True)
class Reader:
    """One bulk read, each way.

    Attributes
    ----------
    url
        The node.
    account_lens, pool
        Deployed contracts.
    users, tokens
        What to ask for.
    chunk
        Accounts in one call.
    account_data
        Whether to ask for the contract's own account data too.
    """

    url: str
    account_lens: str
    pool: str
    users: tuple[str, ...]
    tokens: tuple[str, ...]
    chunk: int
    account_data: bool

    def parts(self) -> list[tuple[str, ...]]:
        """Return the accounts of each call."""
        return [self.users[i : i + self.chunk] for i in range(0, len(self.users), self.chunk)]

    def calls(self) -> list[Call[lens.LensRows]]:
        """Return the calls as data."""
        return [
            lens.accounts_call(
                self.account_lens, self.pool, part, self.tokens, account_data=self.account_data
            )
            for part in self.parts()
        ]

    def ours(self, rpc: JsonRpc, *, batch: bool) -> lens.LensRows:
        """Encode, ask and decode as the keeper does."""
        calls = self.calls()
        requests: list[Request] = [
            ("eth_call", [_transaction(call.to, call.data), "latest"]) for call in calls
        ]
        answers = _answers(rpc, requests, batch=batch)
        return lens.concatenate([c.decode(unhexed(a)) for c, a in zip(calls, answers, strict=True)])

    def node_alone(self, rpc: JsonRpc, *, batch: bool) -> Callable[[], list[int]]:
        """Return the same work with single words as answers, its requests made beforehand."""
        at = labelled_address("bench: forwarder")
        code = {at: {"code": hexed(forwarder(self.account_lens))}}
        requests: list[Request] = [
            ("eth_call", [_transaction(at, call.data), "latest", code]) for call in self.calls()
        ]

        def work() -> list[int]:
            return [int(answer, 16) for answer in _answers(rpc, requests, batch=batch)]

        return work

    def contract(self, *, validation: bool) -> tuple[Web3, Any]:
        """Return a web3 of its own and the lens as its contract."""
        web3 = Web3(HTTPProvider(self.url))
        if not validation:
            web3.middleware_onion.remove("validation")
        abi: Any = own("AccountLens").abi
        return web3, web3.eth.contract(address=to_checksum_address(self.account_lens), abi=abi)

    def web3(self, contract: Any) -> list[list[int]]:
        """Ask through web3's contract codec."""
        return [
            contract.functions.accounts(self.pool, part, self.tokens, self.account_data).call()
            for part in self.parts()
        ]

    def web3_batch(self, web3: Web3, contract: Any) -> list[list[int]]:
        """Ask through web3's contract codec, in one JSON-RPC batch."""
        with web3.batch_requests() as batch:
            for part in self.parts():
                batch.add(contract.functions.accounts(self.pool, part, self.tokens, self.account_data))
            answers: Any = batch.execute()
        return [list(words) for words in answers]


def _answers(rpc: JsonRpc, requests: Sequence[Request], *, batch: bool) -> list[Any]:
    """Return the answers to requests, together or one after another; one that failed is raised."""
    if not batch:
        return [rpc.call(*request) for request in requests]
    answers = rpc.batch(requests)
    for answer in answers:
        if isinstance(answer, RpcError):
            raise answer
    return answers


def _transaction(to: str, data: bytes) -> dict[str, str]:
    return {"to": to, "data": hexed(data)}


def forwarder(target: str) -> bytes:
    """Return code that calls `target` with its own calldata and returns the size of the answer in a word."""
    return bytes.fromhex(
        "363d3d37"  # calldatacopy(0, 0, calldatasize)
        "3d3d363d73" + target[2:] + "5afa50"  # staticcall(gas, target, 0, calldatasize, 0, 0)
        "3d60005260206000f3"  # mstore(0, returndatasize); return(0, 32)
    )


def check(rows: lens.LensRows, answers: Sequence[Sequence[int]], sizes: Sequence[int]) -> int:
    """Fail loudly unless all ways gave the same; returns the number of words."""
    heads, balances = [], []
    users = 0
    for words in answers:
        n = next(n for n in range(users, len(rows) + 1) if _words(rows, users, n) == len(words)) - users
        heads += list(words[: lens.HEAD * n])
        balances += list(words[lens.HEAD * n :])
        users += n
    ours = [lens.word_to_int(word) for word in itertools.chain(rows.head.reshape(-1, 4), rows.values)]
    if ours != heads + balances:
        raise SystemExit("the lens read through web3 differs from ours")
    expected = [32 * (2 + len(words)) for words in answers]
    if list(sizes) != expected:
        raise SystemExit(f"the node's own work was not the same: {sizes} bytes instead of {expected}")
    return len(ours)


def _words(rows: lens.LensRows, first: int, end: int) -> int:
    return lens.HEAD * (end - first) + int(rows.row_ptr[end] - rows.row_ptr[first])


def measure(state: SeededState, chunk: int, turns: int, *, account_data: bool) -> Report:
    """Race all ways on one node."""
    with Anvil.start(AnvilOptions(load_state=state.path)) as node:
        deployment = state.deployment
        reader = Reader(
            url=node.url,
            account_lens=node.evm().create(deployment.deployer, own("AccountLens").creation_code()),
            pool=deployment.pool,
            users=tuple(account.address for account in state.book),
            tokens=tuple(t for asset in deployment.assets.values() for t in (asset.a_token, asset.v_token)),
            chunk=chunk,
            account_data=account_data,
        )
        with JsonRpc(node.url, timeout_s=300) as rpc:
            return _race(reader, rpc, turns)


def _race(reader: Reader, rpc: JsonRpc, turns: int) -> Report:
    _, with_validation = reader.contract(validation=True)
    bare_web3, bare = reader.contract(validation=False)
    node_sequence = reader.node_alone(rpc, batch=False)
    rows = reader.ours(rpc, batch=True)
    words = check(rows, reader.web3(bare), node_sequence())
    assert words == check(rows, reader.web3_batch(bare_web3, bare), node_sequence())

    contestants = {
        BATCH: Timed(lambda: reader.ours(rpc, batch=True)),
        SEQUENCE: Timed(lambda: reader.ours(rpc, batch=False)),
        WEB3: Timed(lambda: reader.web3(with_validation)),
        WEB3_BARE: Timed(lambda: reader.web3(bare)),
        WEB3_BATCH: Timed(lambda: reader.web3_batch(bare_web3, bare)),
        NODE_BATCH: Timed(reader.node_alone(rpc, batch=True)),
        NODE_SEQUENCE: Timed(node_sequence),
    }
    taken, _ = race(contestants, turns, 0.0)
    own_s = {name: timed.cpu_s[-turns:] for name, timed in contestants.items()}
    # The forwarded calls cost this process something too, and the node does not wait for that.
    node_s = {
        name: [t - c for t, c in zip(taken[name], own_s[name], strict=True)]
        for name in (NODE_BATCH, NODE_SEQUENCE)
    }
    baselines = (WEB3, WEB3_BARE, WEB3_BATCH)
    total = {
        (ours, base): ratios(taken[base], taken[ours]) for ours in (BATCH, SEQUENCE) for base in baselines
    }
    mine = {
        (ours, base): ratios(own_s[base], own_s[ours]) for ours in (BATCH, SEQUENCE) for base in baselines
    }
    share = {
        BATCH: Summary.of([n / t for n, t in zip(node_s[NODE_BATCH], taken[BATCH], strict=True)]),
        SEQUENCE: Summary.of([n / t for n, t in zip(node_s[NODE_SEQUENCE], taken[SEQUENCE], strict=True)]),
        WEB3: Summary.of([n / t for n, t in zip(node_s[NODE_SEQUENCE], taken[WEB3], strict=True)]),
        WEB3_BARE: Summary.of([n / t for n, t in zip(node_s[NODE_SEQUENCE], taken[WEB3_BARE], strict=True)]),
        WEB3_BATCH: Summary.of([n / t for n, t in zip(node_s[NODE_BATCH], taken[WEB3_BATCH], strict=True)]),
    }
    users = len(reader.users)
    figures: dict[str, Any] = {
        "accounts": users,
        "words": words,
        "calls": len(reader.parts()),
        "accounts_per_call": reader.chunk,
        "account_data": reader.account_data,
        "turns": turns,
        "total_ms": {name: asdict(Summary.of(t).scaled(1e3)) for name, t in taken.items()},
        "own_ms": {name: asdict(Summary.of(t).scaled(1e3)) for name, t in own_s.items()},
        "node_share": {name: asdict(summary) for name, summary in share.items()},
        "total_ratios": {f"{ours} against {base}": asdict(r) for (ours, base), r in total.items()},
        "own_ratios": {f"{ours} against {base}": asdict(r) for (ours, base), r in mine.items()},
    }
    shown = table(
        f"{users:,} accounts, {words:,} words in {len(reader.parts())} calls",
        "",
        "total ms",
        "own ms",
        "node",
    )
    for name, times in taken.items():
        shown.add_row(
            name,
            Summary.of(times).scaled(1e3).text(1),
            Summary.of(own_s[name]).scaled(1e3).text(1),
            f"{share[name].scaled(100).text(0)} %" if name in share else "",
        )
    headlines = (
        Headline(
            f"bulk read of {users:,} accounts, total, against web3 as it comes",
            total[BATCH, WEB3],
            "x",
            note=f"one call after another, as web3 asks: {total[SEQUENCE, WEB3].text()} x; "
            f"against web3 without validation, in one batch too: {total[BATCH, WEB3_BATCH].text()} x",
        ),
        Headline(
            "the node's share of our total, one call after another",
            share[SEQUENCE].scaled(100),
            "%",
            note=f"of web3's: {share[WEB3].scaled(100).text()} %",
        ),
        Headline(
            "our own share (transport, decoding) against web3's, same calls, no validation",
            mine[SEQUENCE, WEB3_BARE],
            "x",
            at_least=7,
            note=f"both in one batch: {mine[BATCH, WEB3_BATCH].text()} x",
        ),
    )
    return Report(headlines, figures, (shown,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--accounts", type=int, default=10_000)
    options.add_argument("--chunk", type=int, default=500, help="accounts in one call")
    options.add_argument(
        "--account-data", action="store_true", help="ask for the contract's account data too"
    )
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    if given.quick:
        given.accounts, given.chunk, given.turns = 200, 50, 1
    state = load_or_build(given.accounts, given.seed)
    run(
        "lens",
        lambda: measure(state, given.chunk, given.turns, account_data=given.account_data),
        given.json,
    )


if __name__ == "__main__":
    main()
