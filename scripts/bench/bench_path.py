"""Measure the way from a new head to signed transactions, on a seeded market after a price shock.

A local chain is loaded, the keeper is put together as `marginline keeper run` does and works on one quiet
head. Then Ether falls, on the protocol's feeds, on the reference feeds and in the pools, so far that about
as many accounts as asked for can be liquidated; the next head is the one that is measured. Each turn starts
from the same snapshot with a fresh journal.

The keeper's own time is the wall time from the head until the bytes are in the journal and may leave, less
the time spent waiting for the node. While it waits this process uses no processor time, so of a request only
the processor time counts: making it, and reading the answer.
"""

from __future__ import annotations

import contextlib
import cProfile
import functools
import gc
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from _common import Headline, Report, Summary, parser, run, table

import keeper.decide
import keeper.loop
from contracts_abi import feeds
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.aave_v3 import APPROVE
from contracts_abi.calls import function
from keeper.clock import SystemClock
from keeper.commands.keeper_setup import discoveries_of
from keeper.compose import Connected, connect
from keeper.config import KeeperConfig, Mode, Secret
from keeper.decide import prices_of
from keeper.fees import FeePolicy
from keeper.journal import Identity, Journal
from keeper.loop import Keeper, realised_profit
from keeper.rpc import Head
from keeper.signer import TOY_COST, Signer, create_keystore
from keeper.submit import Submitter
from keeper.types import Attempt
from keeper.view import HeadView, Reader
from simulation.chain.anvil import Anvil, AnvilEvm, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.evm import ZERO_ADDRESS, Tx, labelled_address, read
from simulation.chain.market import DeployedPool, Deployment
from simulation.chain.rpc import JsonRpc
from simulation.chain.seed import SeededState, load_or_build
from simulation.chain.uniswap_v3 import sqrt_price_x96
from simulation.screen import AAVE_V3_0, build_screen

BLOCK_S = 12
LEAST_DEBT_USD = 200.0
"""Accounts that owe less are not counted when the fall is chosen: gas may cost more than they bring."""
FALLING = ("WETH", "wstETH")
LENT_RAW = 10**32
TX_GAS = 5_000_000
ROUND_TRIPS_AT_MOST = 3

_MINT = function("mint(address,uint256)")
_NO_DEADLINE = 2**64
_PASSWORD = Secret("local chain only")


# ----------------------------------------------------------------------------------------- time, step by step


NODE, REST = "node", "the loop itself"


@dataclass(slots=True)
class Steps:
    """Time by step, each without the steps within it, until signed bytes may leave."""

    seconds: dict[str, float] = field(default_factory=dict)
    _running: list[str] = field(default_factory=lambda: [REST])
    _since: float = 0.0
    _over: bool = False

    def start(self) -> None:
        """Begin to count."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Count no further: what comes now is on the way out."""
        self._charge()
        self._over = True

    def _charge(self) -> None:
        now = time.perf_counter()
        self._add(self._running[-1], now - self._since)
        self._since = now

    def _add(self, name: str, seconds: float) -> None:
        if not self._over:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what the block does as a step; of a request the wait is the node's."""
        self._charge()
        self._running.append(name)
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._charge()
            self._running.pop()
            if name == REQUESTS:
                waited = time.perf_counter() - wall - (time.process_time() - processor)
                self._add(name, -waited)
                self._add(NODE, waited)


REQUESTS = "requests and answers"
MEASURED: tuple[tuple[Any, str, str], ...] = (
    (JsonRpc, "_post", REQUESTS),
    (Submitter, "settle", "follow what was sent"),
    (keeper.loop, "advance_all", "new borrowers"),
    (Reader, "read_all", "decode"),
    (keeper.decide, "examined_rows", "screen"),
    (keeper.loop, "decide_all", "exact margins, verdicts"),
    (keeper.decide, "plan_markets", "plan"),
    (Keeper, "_stopped", "limits"),
    (keeper.loop, "prepare", "calldata, simulations"),
    (Submitter, "submit", "orders to intents"),
    (Signer, "sign", "sign"),
    (Journal, "write_ahead", "journal"),
)
"""Where each step is: a module or class, the name of a function in it, and what it does."""


@contextlib.contextmanager
def measured(steps: Steps) -> Iterator[None]:
    """Have the keeper's functions count their time while the block runs."""
    with contextlib.ExitStack() as undo:

        def replace(holder: Any, name: str, wrapped: Callable[..., Any]) -> None:
            undo.callback(setattr, holder, name, getattr(holder, name))
            setattr(holder, name, wrapped)

        for holder, name, what in MEASURED:
            replace(holder, name, _counted(getattr(holder, name), steps, what))
        broadcast = Submitter._broadcast

        @functools.wraps(broadcast)
        def leaving(submitter: Submitter, attempts: Sequence[Attempt], head: Head) -> Any:
            if attempts:
                steps.stop()
            return broadcast(submitter, attempts, head)

        replace(Submitter, "_broadcast", leaving)
        yield


def _counted(original: Callable[..., Any], steps: Steps, name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        with steps.step(name):
            return original(*arguments, **named)

    return wrapped


# ------------------------------------------------------------------------------------------------- the market


@dataclass(frozen=True, slots=True)
class Stage:
    """A seeded chain with the keeper's contract on it; it mines when told to."""

    node: Anvil
    evm: AnvilEvm
    market: Deployment
    owner: str
    liquidator: str
    folder: Path

    def send(self, *txs: Tx) -> None:
        """Mine transactions in one block, at the usual distance."""
        self.evm.sync()
        self.evm.warp(self.evm.timestamp() - 1 + BLOCK_S)
        for result in self.evm.send_many([Tx(t.sender, t.to, t.data, gas=TX_GAS) for t in txs]):
            result.expect("a transaction of the benchmark")

    def fall(self, to: Fraction) -> None:
        """Let Ether and staked Ether fall to a part of their price everywhere, in one block."""
        prices = {s: self.price_e8(s) for s in self.market.assets}
        prices |= {symbol: int(prices[symbol] * to) for symbol in FALLING}
        self.send(*self._posts(prices), *self._trades(prices))

    def price_e8(self, symbol: str) -> int:
        """Return the newest answer of the protocol's feed."""
        return int(read(self.evm, feeds.LATEST_ANSWER.call(self.market.asset(symbol).feed)))

    def _posts(self, prices_e8: Mapping[str, int]) -> list[Tx]:
        both = [(s, feed) for s in FALLING for feed in _feeds(self.market, s)]
        return [
            Tx(
                self.market.deployer,
                read(self.evm, feeds.AGGREGATOR.call(feed)),
                feeds.TRANSMIT.encode(prices_e8[symbol]),
            )
            for symbol, feed in both
        ]

    def _trades(self, prices_e8: Mapping[str, int]) -> list[Tx]:
        by_address = {asset.address: asset for asset in self.market.assets.values()}
        txs = []
        for pool in self.market.uniswap.pools:
            first, second = by_address[pool.token0], by_address[pool.token1]
            price = Fraction(
                prices_e8[first.symbol] * 10**second.decimals, prices_e8[second.symbol] * 10**first.decimals
            )
            now = int(read(self.evm, uniswap.SLOT0.call(pool.address))[0])
            target = sqrt_price_x96(price)
            if target != now:
                txs += self._trade(pool, zero_for_one=target < now, limit_x96=target)
        return txs

    def _trade(self, pool: DeployedPool, *, zero_for_one: bool, limit_x96: int) -> list[Tx]:
        maker, router = labelled_address("market maker"), self.market.uniswap.router
        sold, bought = (pool.token0, pool.token1) if zero_for_one else (pool.token1, pool.token0)
        swap = (sold, bought, pool.fee_pips, maker, _NO_DEADLINE, LENT_RAW, 0, limit_x96)
        return [
            Tx(maker, sold, _MINT.encode(maker, LENT_RAW)),
            Tx(maker, sold, APPROVE.encode(router, LENT_RAW)),
            Tx(maker, router, uniswap.EXACT_INPUT_SINGLE.encode(swap)),
        ]

    def config(self) -> KeeperConfig:
        """Return a configuration for this chain."""
        return KeeperConfig.model_validate(
            {
                "mode": Mode.LIVE.value,
                "chain_id": self.market.chain_id,
                "rpc": {"url": self.node.url},
                "protocols": [{"kind": "aave-v3", "provider": self.market.provider}],
                "contracts": {"liquidator": self.liquidator, "multicall": self.market.multicall},
                "router": {"factory": self.market.uniswap.factory, "router": self.market.uniswap.router},
                "references": {
                    symbol: [{"kind": "chainlink", "address": asset.reference_feed, "heartbeat_s": 86_400}]
                    for symbol, asset in self.market.assets.items()
                },
                # A single source may say a fall as deep as any that is played here.
                "guards": {"jump": {"floor_bps": 8_000, "cap_bps": 9_000}},
                "limits": {"clock": "block", "max_per_block": 128, "max_in_flight": 256},
                "folder": self.folder,
            }
        )


def _feeds(market: Deployment, symbol: str) -> tuple[str, str]:
    asset = market.asset(symbol)
    return asset.feed, asset.reference_feed


@contextlib.contextmanager
def staged(state: SeededState) -> Iterator[Stage]:
    """Start the chain, fund a fresh key and deploy the keeper's contract."""
    with (
        tempfile.TemporaryDirectory(prefix="marginline-bench-") as name,
        Anvil.start(AnvilOptions(load_state=state.path, mining=False)) as node,
    ):
        folder, evm, market = Path(name), node.evm(), state.deployment
        owner = create_keystore(folder / "keystore.json", _PASSWORD, cost=TOY_COST)
        evm.set_balance(owner, 10**21)
        code = own("Liquidator").creation_code(owner, owner, market.pool, ZERO_ADDRESS, market.uniswap.router)
        yield Stage(node, evm, market, owner, evm.create(market.deployer, code), folder)


@contextlib.contextmanager
def keeper_on(stage: Stage, journal: str) -> Iterator[Keeper]:
    """Put a keeper together, with a journal of its own."""
    connected = connect(stage.config())
    identity = Identity(connected.config.chain_id, connected.node.genesis_hash(), stage.owner)
    signer = Signer.load(stage.folder / "keystore.json", _PASSWORD, chain_id=connected.config.chain_id)
    with contextlib.closing(signer), Journal.open(stage.folder / journal, identity) as opened:
        yield _keeper(connected, opened, signer)


def _keeper(connected: Connected, journal: Journal, signer: Signer) -> Keeper:
    config, node = connected.config, connected.node
    return Keeper(
        config=config,
        node=node,
        markets={market.name: market for market in connected.markets},
        policy=connected.policy(),
        reader=connected.reader(),
        discoveries=discoveries_of(connected, journal),
        submitter=Submitter(
            journal=journal,
            node=node,
            signer=signer,
            mode=config.mode,
            policy=FeePolicy.from_config(config.fees),
            confirmations=config.execution.confirmations,
            profit_of=realised_profit(config.contracts.liquidator),
        ),
        journal=journal,
        clock=SystemClock(),
        emit=lambda event, fields: None,
        assets=connected.assets,
    )


def fall_for(view: HeadView, accounts: int) -> Fraction:
    """Return the part of its price to which Ether must fall so that about `accounts` are liquidatable."""
    book = view.book
    screen = build_screen(book, AAVE_V3_0)
    before = prices_of(view, view.protocol)
    ether = [asset.symbol in FALLING for asset in book.assets]
    large = {
        row
        for row in range(len(book))
        if sum(
            book.amount[i] * before[book.asset[i]]
            for i in range(int(book.row_ptr[row]), int(book.row_ptr[row + 1]))
            if book.kind[i]
        )
        > LEAST_DEBT_USD
    }

    def fallen(thousandths: int) -> int:
        prices = before.copy()
        prices[ether] *= thousandths / 1_000
        return len(large & set(screen.run(prices).candidates().tolist()))

    return Fraction(next((n for n in range(999, 100, -1) if fallen(n) >= accounts), 100), 1_000)


# -------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class Passage:
    """One head, from its arrival to signed bytes.

    Attributes
    ----------
    steps_s
        Time by step, the node's among them.
    round_trips
        Requests to the node in between.
    sent, examined
        Transactions, and accounts judged in exact integers.
    """

    steps_s: Mapping[str, float]
    round_trips: int
    sent: int
    examined: int

    @property
    def total_s(self) -> float:
        """Time from the head to signed bytes."""
        return sum(self.steps_s.values())

    @property
    def own_s(self) -> float:
        """The same without the node's."""
        return self.total_s - self.steps_s[NODE]


def passage(stage: Stage, to: Fraction, journal: str, profile: cProfile.Profile | None = None) -> Passage:
    """Play one turn and undo it."""
    before = stage.evm.snapshot()
    with keeper_on(stage, journal) as keeper_:
        keeper_.work(keeper_.submitter.tick())
        stage.fall(to)
        _settle_memory()
        tick = keeper_.submitter.tick()
        steps = Steps()
        with measured(steps), profile or contextlib.nullcontext():
            steps.start()
            result = keeper_.work(tick)
    stage.evm.revert(before)
    if result.submission is None or not result.submission.intents:
        raise SystemExit(f"a fall to {float(to):.1%} led to no transaction; take another seed")
    return Passage(
        steps.seconds, result.round_trips, len(result.submission.intents), result.decision.examined
    )


def _settle_memory() -> None:
    """Do what `marginline keeper run` does before its first head: keep the collector off what stays."""
    gc.collect()
    gc.freeze()


def first_view(stage: Stage) -> HeadView:
    """Return what the keeper sees before anything falls."""
    with keeper_on(stage, "first.sqlite") as keeper_:
        return next(iter(keeper_.work(keeper_.submitter.tick()).views.markets.values()))


def measure(state: SeededState, sizes: Sequence[int], turns: int, profile: bool) -> Report:
    """Measure every size in turn, all on one chain."""
    with staged(state) as stage:
        view = first_view(stage)
        falls = {size: fall_for(view, size) for size in sizes}
        passages: dict[int, list[Passage]] = {size: [] for size in sizes}
        for number in range(-1, turns):  # the first turn warms up and does not count
            for size, to in falls.items():
                found = passage(stage, to, f"journal-{size}-{number}.sqlite")
                if number >= 0:
                    passages[size].append(found)
        if profile:
            _profile(stage, falls[max(sizes)])
    return _report(len(state.book), falls, passages)


def _profile(stage: Stage, to: Fraction) -> None:
    recorded = cProfile.Profile()
    passage(stage, to, "journal-profile.sqlite", recorded)
    pstats.Stats(recorded).sort_stats("tottime").print_stats(30)


def _report(
    accounts: int, falls: Mapping[int, Fraction], passages: Mapping[int, Sequence[Passage]]
) -> Report:
    figures: dict[str, Any] = {"accounts": accounts, "heads": []}
    headlines = []
    trips_all: list[int] = []
    order = [*dict.fromkeys(what for _, _, what in MEASURED), REST]
    by_step = table(
        f"own time from head to signed bytes, {accounts} accounts, ms",
        "step",
        *(f"{_sent(found)} sent" for found in passages.values()),
    )
    for step in order:
        by_step.add_row(
            step, *(_milliseconds([p.steps_s.get(step, 0.0) for p in ps]).text(1) for ps in passages.values())
        )
    for title, values in (("own, all", "own_s"), ("with the node's", "total_s")):
        by_step.add_row(
            f"[bold]{title}[/]",
            *(_milliseconds([getattr(p, values) for p in ps]).text(1) for ps in passages.values()),
        )
    for size, found in passages.items():
        own_ms = _milliseconds([p.own_s for p in found])
        total_ms = _milliseconds([p.total_s for p in found])
        trips = Summary.of([p.round_trips for p in found])
        trips_all += [p.round_trips for p in found]
        headlines.append(
            Headline(
                f"from a new head to signed liquidations, {_sent(found)} at once: the keeper's own time",
                own_ms,
                "ms",
                note=f"with the node's {total_ms.text(1)} ms",
            )
        )
        figures["heads"].append(
            {
                "asked_for": size,
                "ether_falls_to": float(falls[size]),
                "sent": [p.sent for p in found],
                "examined": [p.examined for p in found],
                "round_trips": asdict(trips),
                "own_ms": asdict(own_ms),
                "total_ms": asdict(total_ms),
                "steps_ms": {
                    step: asdict(_milliseconds([p.steps_s.get(step, 0.0) for p in found]))
                    for step in (*order, NODE)
                },
            }
        )
    head_line = Headline(
        "from a new head to signed liquidations: round trips to the node",
        Summary.of(trips_all),
        "",
        at_most=ROUND_TRIPS_AT_MOST,
    )
    return Report((head_line, *headlines), figures, (by_step,))


def _sent(passages: Sequence[Passage]) -> str:
    counts = sorted({p.sent for p in passages})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _milliseconds(seconds: Sequence[float]) -> Summary:
    return Summary.of(seconds).scaled(1e3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--accounts", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--at-once", type=int, nargs="+", default=[1, 10, 40], help="liquidations that a fall makes possible"
    )
    options.add_argument("--profile", action="store_true", help="print where the largest head's time goes")
    given = options.parse_args(arguments)
    if given.quick:
        given.accounts, given.at_once, given.turns = 40, [2], 1
    state = load_or_build(given.accounts, given.seed)
    run("path", lambda: measure(state, given.at_once, given.turns, given.profile), given.json)


if __name__ == "__main__":
    main()
