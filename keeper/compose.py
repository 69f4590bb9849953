"""From a configuration to the keeper's parts, with every address checked before anything is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError, UnknownNameError
from keeper.config import KeeperConfig, ProtocolSection, RouterSection
from keeper.rpc import Head, Node
from keeper.view import QUOTE, Reader, check_symbols
from oracle.guards import BASIC, guards
from oracle.interfaces import Guard
from oracle.snapshot import Feed
from oracle.sources import sources
from oracle.sources.chainlink import ChainlinkSource, complete, resolve
from simulation.amm.uniswap_v3 import PoolKey
from simulation.chain.artifacts import own
from simulation.policy import policies
from simulation.protocols import protocols
from simulation.protocols.aave_v3 import AaveLayout, AaveV3, discover_layout, run_stages

LENS_ADDRESS: Final = to_checksum_address(keccak(text="marginline: AccountLens")[12:])
"""Where the lens is pretended to be when it is not deployed."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A node that answers for the configured chain, and the market on it.

    Attributes
    ----------
    config, node
        What was connected, and to what.
    head
        The newest block when it was.
    adapter
        The market, laid out.
    pools
        Pools to sell collateral in.
    feeds
        Reference feeds.
    """

    config: KeeperConfig
    node: Node
    head: Head
    adapter: AaveV3
    pools: tuple[PoolKey, ...]
    feeds: tuple[Feed, ...]

    @property
    def protocol(self) -> ProtocolSection:
        """The configuration of the market that is watched."""
        return self.config.protocols[0]

    @property
    def assets(self) -> dict[str, str]:
        """Symbol to token address."""
        return {r.asset.symbol: r.asset.address for r in self.adapter.layout.reserves}

    def reader(self) -> Reader:
        """Return a fresh reader of this market."""
        lens = self.adapter.layout.lens
        pretended = {lens: own("AccountLens").deployed_bytecode} if lens == LENS_ADDRESS else None
        return Reader(
            self.node,
            self.adapter,
            feeds=self.feeds,
            pools=self.pools,
            multicall=self.config.contracts.multicall,
            code=pretended,
        )

    def policy(self) -> Any:
        """Return the configured policy."""
        return build_policy(self.config)


def connect(config: KeeperConfig) -> Connected:
    """Connect, check chain id and addresses, and find the market's parts.

    Raises
    ------
    InputError
        For a wrong chain id, an address without code, or a market or feed that is not one.
    RpcUnavailable
        If the node does not answer.
    """
    node = open_node(config)
    head = node.head()
    section = config.protocols[0]
    if len(config.protocols) > 1:
        raise InputError(
            f"protocols: {len(config.protocols)} markets, one is supported",
            fix="run one keeper per market, each with its own journal and key",
        )
    check_code(
        node, {**_configured_addresses(config), f"protocols.0.provider ({section.kind})": section.provider}
    )
    adapter = _adapter(config, section, node, head)
    symbols = [r.asset.symbol for r in adapter.layout.reserves]
    pools = find_pools(config.router, [r.asset.address for r in adapter.layout.reserves], node, head)
    feeds = build_feeds(config, node, head)
    check_symbols(feeds, symbols)
    return Connected(config, node, head, adapter, pools, feeds)


def open_node(config: KeeperConfig) -> Node:
    """Return a node that answers for the configured chain id; see `connect`."""
    node = Node.connect(
        config.rpc_url.reveal(), timeout_s=config.rpc.timeout_s, max_batch=config.rpc.max_batch
    )
    found = node.chain_id()
    if found != config.chain_id:
        raise InputError(
            f"rpc.url {config.rpc_shown} answers for chain {found}, the configuration says chain_id = "
            f"{config.chain_id}",
            fix="correct one of the two",
        )
    return node


def _configured_addresses(config: KeeperConfig) -> dict[str, str]:
    named = {
        "contracts.liquidator": config.contracts.liquidator,
        "contracts.account_lens": config.contracts.account_lens,
        "contracts.multicall": config.contracts.multicall,
    }
    if config.router is not None:
        named |= {"router.factory": config.router.factory, "router.router": config.router.router}
    return {key: address for key, address in named.items() if address is not None}


def check_code(node: Node, named: Mapping[str, str]) -> None:
    """Refuse an address that has no code.

    Raises
    ------
    InputError
        Naming the configuration key and the address.
    """
    for (key, address), code in zip(named.items(), node.code(list(named.values())), strict=True):
        if not code:
            raise InputError(
                f"{key}: no code at {address} on this chain", fix="check the address and the chain"
            )


def _adapter(config: KeeperConfig, section: ProtocolSection, node: Node, head: Head) -> AaveV3:
    if section.kind not in protocols:
        raise UnknownNameError("protocol", section.kind, protocols)
    layout = read_layout(node, head, section.provider)
    lens = config.contracts.account_lens or LENS_ADDRESS
    layout = replace(layout, lens=lens, multicall=config.contracts.multicall or "")
    try:
        return AaveV3(layout, **section.options)
    except TypeError as error:
        raise InputError(f"protocols.0: {error}", fix="remove the key") from None


def read_layout(node: Node, head: Head, provider: str) -> AaveLayout:
    """Find an Aave V3 market from its PoolAddressesProvider."""
    try:
        return run_stages(discover_layout(provider), lambda calls: node.read(calls, head))
    except DataError as error:
        raise InputError(
            f"{provider} does not lead to an Aave V3 market: {error.message}",
            fix="give the address of its PoolAddressesProvider",
        ) from None


def find_pools(
    router: RouterSection | None, tokens: Sequence[str], node: Node, head: Head
) -> tuple[PoolKey, ...]:
    """Return the pools between `tokens` that a factory knows."""
    if router is None:
        return ()
    pairs = [sorted(pair, key=lambda t: int(t, 16)) for pair in combinations(tokens, 2)]
    wanted = [(t0, t1, fee) for t0, t1 in pairs for fee in router.fees_pips]
    spacings = node.read(
        [uniswap.FEE_AMOUNT_TICK_SPACING.call(router.factory, f) for f in router.fees_pips], head
    )
    if any(answer is None for answer in spacings):
        raise InputError(
            f"router.factory: {router.factory} is not a Uniswap V3 factory", fix="check the address"
        )
    by_fee = {
        fee: int(uniswap.FEE_AMOUNT_TICK_SPACING.decode_one(answer or b""))
        for fee, answer in zip(router.fees_pips, spacings, strict=True)
    }
    answers = node.read([uniswap.GET_POOL.call(router.factory, *w) for w in wanted], head)
    found = [
        (uniswap.GET_POOL.decode_one(answer), *where)
        for where, answer in zip(wanted, answers, strict=True)
        if answer is not None
    ]
    return tuple(
        PoolKey(to_checksum_address(address), t0, t1, fee, by_fee[fee])
        for address, t0, t1, fee in found
        if int(address, 16)
    )


def build_feeds(config: KeeperConfig, node: Node, head: Head) -> tuple[Feed, ...]:
    """Return the reference feeds, each Chainlink source resolved to the aggregator behind it."""
    judges = _guards(config)

    def execute(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        return node.read(list(calls), head)

    feeds = []
    for asset, tables in config.references.items():
        built = []
        for i, table in enumerate(tables):
            where = f"references.{asset}.{i}"
            source = sources.build({"base": asset, "quote": QUOTE, **table}, where=where)
            if isinstance(source, ChainlinkSource):
                source = source.resolved(complete(resolve(source.address), execute))
            built.append(source)
        feeds.append(Feed(asset, tuple(built), judges))
    return tuple(feeds)


def _guards(config: KeeperConfig) -> tuple[Guard, ...]:
    for name in config.guards:
        if name not in guards:
            raise UnknownNameError("guard", name, guards)
    names = dict.fromkeys([*BASIC, *config.guards])
    built = []
    for name in names:
        built.append(guards.build({"kind": name, **config.guards.get(name, {})}, where=f"guards.{name}"))
    return tuple(built)


def build_policy(config: KeeperConfig) -> Any:
    """Return the configured policy (`simulation.interfaces.Policy`)."""
    return policies.build(dict(config.policy), where="policy")
