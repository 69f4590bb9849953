"""A seeded market on a node of its own, and a keeper's parts on top of it; the node is asked through a proxy.

Nothing is mined unless a test says so. Prices and pools stay where they are unless a test moves them.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from contracts_abi import aave_v3, feeds
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call, function
from contracts_abi.liquidator import LIQUIDATED, Liquidated, decode_liquidated
from keeper.clock import SystemClock
from keeper.commands.keeper_setup import discoveries_of
from keeper.compose import Connected, connect
from keeper.config import KeeperConfig, Mode, Secret
from keeper.fees import FeePolicy
from keeper.journal import Identity, Journal
from keeper.loop import Emit, Keeper, realised_profit
from keeper.rpc import Head, Node, Tick
from keeper.signer import TOY_COST, Signer, create_keystore
from keeper.submit import Submitter
from keeper.sync import Discovery
from simulation.chain.anvil import Anvil, AnvilEvm, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.deploy import AAVE_V3
from simulation.chain.evm import ZERO_ADDRESS, Tx, TxResult, labelled_address, read
from simulation.chain.market import DEFAULT_MARKET, DeployedPool, Deployment
from simulation.chain.seed import MorphoSeedAccount, SeedAccount, SeededState, load_or_build
from simulation.chain.uniswap_v3 import sqrt_price_x96
from tests.faults.proxy import FaultProxy

ACCOUNTS, SEED = 40, 3
GWEI, ETHER, E8 = 10**9, 10**18, 10**8
BLOCK_S = 12
RECEIVER = labelled_address("profits of a keeper under test")
# The first of anvil's well-known development keys.
KEY = Secret("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
PASSWORD = Secret("local chain only")

_TX_GAS = 5_000_000
_MINT = function("mint(address,uint256)")


@functools.cache
def seeded() -> SeededState:
    """Return the state that all these tests start from."""
    return load_or_build(ACCOUNTS, SEED)


@dataclass
class Stage:
    """A seeded chain and the keeper's contract on it.

    Attributes
    ----------
    anvil, evm
        The node, past the proxy. `evm` does not mine on its own.
    proxy
        The way that the keeper takes to the node.
    market, book
        What is on the chain.
    owner, liquidator
        The keeper's address and its contract.
    folder
        For keystore and journals.
    kind
        Which version of Aave V3 it is.
    morpho_book
        The accounts in Morpho's markets, where there are any.
    """

    anvil: Anvil
    evm: AnvilEvm
    proxy: FaultProxy
    market: Deployment
    book: tuple[SeedAccount, ...]
    owner: str
    liquidator: str
    folder: Path
    kind: str = AAVE_V3
    morpho_book: tuple[MorphoSeedAccount, ...] = ()

    # --------------------------------------------------------------------------------------------- the chain

    def node(self) -> Node:
        """Return a connection of the keeper's kind."""
        return Node.connect(self.proxy.url, timeout_s=5.0)

    def mine(self, blocks: int = 1, *, step_s: int = BLOCK_S, base_fee: int | None = 0) -> int:
        """Mine blocks with whatever is in the pool; return the number of the last."""
        number = 0
        for _ in range(blocks):
            self.evm.sync()
            self.evm.warp(self.evm.timestamp() - 1 + step_s)
            number = self.evm.mine(base_fee=base_fee)
        return number

    def send(self, *txs: Tx, expect: bool = True) -> list[TxResult]:
        """Mine transactions together, in a block at the usual distance."""
        self.evm.sync()
        self.evm.warp(self.evm.timestamp() - 1 + BLOCK_S)
        results = self.evm.send_many([Tx(t.sender, t.to, t.data, t.value, t.gas or _TX_GAS) for t in txs])
        return [result.expect("a test's own transaction") for result in results] if expect else results

    def head(self) -> int:
        """Return the number of the newest block."""
        return int(self.anvil.rpc.call("eth_blockNumber"), 16)

    def read(self, call: Call[Any]) -> Any:
        """Read from the newest state."""
        self.evm.sync()
        return read(self.evm, call)

    def replace(self, depth: int, *, step_s: int = BLOCK_S + 1) -> None:
        """Put other, empty blocks in the place of the newest ones, one more than there were."""
        self.anvil.rpc.call("anvil_rollback", [depth])
        self.mine(depth + 1, step_s=step_s)

    # -------------------------------------------------------------------------------------------- the market

    def price_e8(self, symbol: str) -> int:
        """Return the price that the protocol goes by."""
        asset = self.market.asset(symbol).address
        return int(self.read(aave_v3.GET_ASSET_PRICE.call(self.market.oracle, asset)))

    def first_price_e8(self, symbol: str) -> int:
        """Return the price that the market began with."""
        return DEFAULT_MARKET.asset(symbol).price_e8

    def posting(self, feed: str, answer: int) -> Tx:
        """Return the transaction that posts to a feed."""
        aggregator = read(self.evm, feeds.AGGREGATOR.call(feed))
        return Tx(self.market.deployer, aggregator, feeds.TRANSMIT.encode(answer), gas=500_000)

    def post(self, prices_e8: Mapping[str, int], *, protocol: bool = True, reference: bool = True) -> None:
        """Post prices to the protocol's feeds, to the reference feeds, or to both, in one block."""
        txs = []
        for symbol, price in prices_e8.items():
            asset = self.market.asset(symbol)
            txs += [self.posting(asset.feed, price)] if protocol else []
            txs += [self.posting(asset.reference_feed, price)] if reference else []
        self.send(*txs)

    def fall(self, percent: int, *, protocol: bool = True, reference: bool = True) -> dict[str, int]:
        """Let Ether and staked Ether fall to `percent` of their price, and Bitcoin half as far."""
        to = {"WETH": percent, "wstETH": percent, "WBTC": (100 + percent) // 2}
        prices = {symbol: self.price_e8(symbol) * part // 100 for symbol, part in to.items()}
        self.post(prices, protocol=protocol, reference=reference)
        return prices

    def break_feed(self, feed: str, mode: int = feeds.READS_REVERT) -> None:
        """Have every read of a feed fail."""
        aggregator = read(self.evm, feeds.AGGREGATOR.call(feed))
        self.send(Tx(self.market.deployer, aggregator, feeds.SET_READ_MODE.encode(mode), gas=500_000))

    def borrowing(self, label: str, *, usd: int = 1_000) -> tuple[str, list[Tx]]:
        """Return a new borrower of USDC against twice as much Ether, and what makes it one."""
        account = labelled_address(label)
        weth, usdc = self.market.asset("WETH"), self.market.asset("USDC")
        amount = 2 * usd * E8 * 10**weth.decimals // self.price_e8("WETH")
        pool = self.market.pool
        return account, [
            Tx(account, weth.address, _MINT.encode(account, amount)),
            Tx(account, weth.address, aave_v3.APPROVE.encode(pool, amount)),
            Tx(account, pool, aave_v3.SUPPLY.encode(weth.address, amount, account, 0)),
            Tx(account, pool, aave_v3.BORROW.encode(usdc.address, usd * 10**6, 2, 0, account)),
        ]

    def borrow(self, *labels: str) -> list[str]:
        """Open borrowers, all in one block."""
        opened = [self.borrowing(label) for label in labels]
        self.send(*(tx for _, txs in opened for tx in txs))
        return [account for account, _ in opened]

    def trade_to(self, symbols: tuple[str, str], price: Fraction) -> None:
        """Trade the pool of two assets until one of the first costs `price` of the second."""
        first, second = (self.market.asset(symbol) for symbol in symbols)
        pool = next(
            p for p in self.market.uniswap.pools if {p.token0, p.token1} == {first.address, second.address}
        )
        raw = price * Fraction(10**second.decimals, 10**first.decimals)
        target = sqrt_price_x96(raw if pool.token0 == first.address else 1 / raw)
        now = int(self.read(uniswap.SLOT0.call(pool.address))[0])
        if target != now:
            self._trade(pool, zero_for_one=target < now, limit_x96=target)

    def _trade(self, pool: DeployedPool, *, zero_for_one: bool, limit_x96: int) -> None:
        maker, router = labelled_address("market maker"), self.market.uniswap.router
        sold, bought = (pool.token0, pool.token1) if zero_for_one else (pool.token1, pool.token0)
        amount = 10**32
        swap = (sold, bought, pool.fee_pips, maker, 2**64, amount, 0, limit_x96)
        self.send(
            Tx(maker, sold, _MINT.encode(maker, amount)),
            Tx(maker, sold, aave_v3.APPROVE.encode(router, amount)),
            Tx(maker, router, uniswap.EXACT_INPUT_SINGLE.encode(swap)),
        )

    def health_factor_wad(self, account: str) -> int:
        """Return what the pool itself says of an account, at the newest block's time."""
        self.evm.sync()
        self.evm.warp(self.evm.timestamp() - 1)
        return int(read(self.evm, aave_v3.GET_USER_ACCOUNT_DATA.call(self.market.pool, account))[5])

    def liquidatable(self) -> set[str]:
        """Return the seeded accounts that the pool itself lets be liquidated."""
        return {a.address for a in self.book if self.health_factor_wad(a.address) < 10**18}

    def liquidations(self) -> list[Liquidated]:
        """Return what the keeper's contract did, from its logs."""
        query = {"address": self.liquidator, "fromBlock": "0x0", "toBlock": "latest"}
        logs = self.anvil.rpc.call("eth_getLogs", [query | {"topics": ["0x" + LIQUIDATED.topic.hex()]}])
        return [
            decode_liquidated([bytes.fromhex(t[2:]) for t in log["topics"]], bytes.fromhex(log["data"][2:]))
            for log in logs
        ]

    # -------------------------------------------------------------------------------------------- the keeper

    def protocols(self) -> list[dict[str, str]]:
        """Return the tables of all markets."""
        tables = [{"kind": self.kind, "provider": self.market.provider}]
        if (morpho := self.market.morpho) is not None:
            tables += [
                {"kind": "morpho-blue", "contract": morpho.address, "market": market.id}
                for market in morpho.markets
            ]
        return tables

    def config(self, mode: Mode = Mode.OBSERVE, **changes: Any) -> KeeperConfig:
        """Return a configuration for this chain; `changes` are whole sections, merged with what is there."""
        references = {
            symbol: [{"kind": "chainlink", "address": asset.reference_feed, "heartbeat_s": 3_600}]
            for symbol, asset in self.market.assets.items()
        }
        raw: dict[str, Any] = {
            "mode": mode.value,
            "chain_id": self.market.chain_id,
            "rpc": {"url": self.proxy.url, "poll_interval_s": 0.01, "timeout_s": 5},
            "protocols": self.protocols(),
            "contracts": {"liquidator": self.liquidator, "multicall": self.market.multicall},
            "router": {"factory": self.market.uniswap.factory, "router": self.market.uniswap.router},
            "references": references,
            # Tests let prices fall further at once than the default lets a single source say.
            "guards": {"jump": {"floor_bps": 8_000, "cap_bps": 9_000}},
            "limits": {"clock": "block"},
            "execution": {"confirmations": 1},
            "folder": self.folder,
        }
        for key, value in changes.items():
            merge = isinstance(value, Mapping) and key not in ("references", "policy", "guards")
            raw[key] = {**raw.get(key, {}), **value} if merge else value
        return KeeperConfig.model_validate(raw)

    def connected(self, mode: Mode = Mode.OBSERVE, **changes: Any) -> Connected:
        """Return a connection, made as a command makes it."""
        return connect(self.config(mode, **changes))

    def signer(self) -> Signer:
        """Return the keeper's key."""
        return Signer.load(self.folder / "keystore.json", PASSWORD, chain_id=self.market.chain_id)


@dataclass
class Running:
    """A keeper that a test drives head by head.

    Attributes
    ----------
    keeper
        The keeper.
    said
        What it emitted, in order: pairs of event and fields.
    """

    stage: Stage
    connected: Connected
    keeper: Keeper
    said: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    @property
    def borrowers(self) -> tuple[str, ...]:
        """The borrowers of the only market that the keeper knows."""
        (discovery,) = self.keeper.discoveries.values()
        return discovery.borrowers

    @property
    def journal(self) -> Journal:
        """The keeper's journal."""
        return self.keeper.journal

    def tick(self) -> Tick:
        """Look at the head as the loop does."""
        return self.keeper.submitter.tick()

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        """Return what was said of one kind."""
        return [fields for event, fields in self.said if event == kind]

    def run_until(self, condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
        """Run the loop itself, until a condition holds that what it says can change."""
        assert self.run_for(condition, timeout_s), f"not within {timeout_s} s; said {self.said[-5:]}"

    def run_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Run the loop itself until a condition holds or the time is up; return whether it held."""
        stop, met = threading.Event(), threading.Event()
        say = self.keeper.emit

        def emit(event: str, fields: Mapping[str, Any]) -> None:
            say(event, fields)
            if condition():
                met.set()
                stop.set()

        self.keeper.emit = emit
        timer = threading.Timer(timeout_s, stop.set)
        timer.start()
        try:
            self.keeper.run(stop)
        finally:
            timer.cancel()
            timer.join()
            self.keeper.emit = say
        return met.is_set()


@contextmanager
def running(
    stage: Stage, mode: Mode = Mode.OBSERVE, *, journal: str = "journal.sqlite", **changes: Any
) -> Iterator[Running]:
    """Put a keeper together as `marginline keeper run` does, and let go of all that it holds at the end."""
    connected = stage.connected(mode, **changes)
    config, node = connected.config, connected.node
    signer = stage.signer() if mode is Mode.LIVE else None
    identity = Identity(config.chain_id, node.genesis_hash(), stage.owner)
    said: list[tuple[str, Mapping[str, Any]]] = []
    try:
        with Journal.open(stage.folder / journal, identity) as opened:
            submitter = Submitter(
                journal=opened,
                node=node,
                signer=signer,
                mode=config.mode,
                policy=FeePolicy.from_config(config.fees),
                confirmations=config.execution.confirmations,
                profit_of=realised_profit(config.contracts.liquidator),
            )
            emit: Emit = lambda event, fields: said.append((event, fields))  # noqa: E731 - typed
            keeper = Keeper(
                config=config,
                node=node,
                markets={market.name: market for market in connected.markets},
                policy=connected.policy(),
                reader=connected.reader(),
                discoveries=discoveries_of(connected, opened),
                submitter=submitter,
                journal=opened,
                clock=SystemClock(),
                emit=emit,
                assets=connected.assets,
            )
            yield Running(stage, connected, keeper, said)
    finally:
        if signer is not None:
            signer.close()


def discovery(connected: Connected, store: Any, *, from_block: int = 0, range_blocks: int = 50) -> Discovery:
    """Return a discovery of the market's borrowers."""
    (market,) = connected.markets
    return Discovery(
        connected.node,
        store,
        market.adapter,
        market.emitter,
        from_block=from_block,
        range_blocks=range_blocks,
    )


@contextmanager
def staged(
    folder: Path,
    *,
    gas_limit: int = 1_000_000_000,
    state: SeededState | None = None,
    kind: str = AAVE_V3,
) -> Iterator[Stage]:
    """Start a node from the seeded state, with the keeper's contract on it and its key funded."""
    state = state or seeded()
    options = AnvilOptions(load_state=state.path, mining=False, gas_limit=gas_limit)
    with Anvil.start(options) as anvil, FaultProxy(anvil.url) as proxy:
        evm = anvil.evm()
        owner = create_keystore(folder / "keystore.json", PASSWORD, private_key=KEY, cost=TOY_COST)
        evm.set_balance(owner, 1_000 * ETHER)
        market = state.deployment
        morpho = ZERO_ADDRESS if market.morpho is None else market.morpho.address
        code = own("Liquidator").creation_code(owner, RECEIVER, market.pool, morpho, market.uniswap.router)
        # Sent by somebody else, so that the keeper's first nonce is 0.
        liquidator = evm.create(market.deployer, code)
        yield Stage(anvil, evm, proxy, market, state.book, owner, liquidator, folder, kind, state.morpho_book)


def heads_of(results: Sequence[Head]) -> list[int]:
    """Return the numbers of blocks."""
    return [head.number for head in results]
