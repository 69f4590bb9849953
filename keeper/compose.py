"""From a configuration to the keeper's parts, with every address checked before anything is watched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from pydantic import ConfigDict, Field, ValidationError

from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError, RpcError, RpcUnavailable, UnknownNameError
from contracts_abi.liquidator import OWNER, POOL
from contracts_abi.multicall import GET_BLOCK_NUMBER, aggregate
from keeper.config import KeeperConfig, ProtocolSection, RouterSection
from keeper.rpc import Head, Node
from keeper.view import QUOTE, FundsOf, Reader, check_symbols
from oracle.guards import BASIC, guards
from oracle.interfaces import Guard
from oracle.snapshot import Feed
from oracle.sources import sources
from oracle.sources.chainlink import ChainlinkSource, complete, resolve
from oracle.strict import StrictModel, input_error
from simulation.amm.uniswap_v3 import PoolKey
from simulation.chain.artifacts import own
from simulation.policy import policies
from simulation.protocols import protocols
from simulation.protocols.aave_v3 import AaveLayout, AaveV3, discover_layout, run_stages

LENS_ADDRESS: Final = to_checksum_address(keccak(text="marginline: AccountLens")[12:])
"""Where the lens is pretended to be when it is not deployed."""


class AaveV3Options(StrictModel):
    """Keys of a ``[[protocols]]`` table that belong to the Aave V3 adapter."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    account_data: bool = False
    """Also read the contract's own account data with the positions; it makes up most of a bulk read's gas."""
    accounts_per_call: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Accounts in one call of the lens or of Multicall3."""


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
    owner
        Who may call our Liquidator; None without one.
    """

    config: KeeperConfig
    node: Node
    head: Head
    adapter: AaveV3
    pools: tuple[PoolKey, ...]
    feeds: tuple[Feed, ...]
    owner: str | None

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
            funds=self._funds(),
        )

    def _funds(self) -> FundsOf | None:
        liquidator = self.config.contracts.liquidator
        if self.config.execution.funding != "inventory" or liquidator is None or self.owner is None:
            return None
        return FundsOf(liquidator, self.owner, tuple(self.assets.values()))

    def policy(self) -> Any:
        """Return the configured policy."""
        return build_policy(self.config)


def connect(config: KeeperConfig) -> Connected:
    """Connect, check chain id and addresses, and find the market's parts.

    What can be checked without the node is checked before it is asked for anything.

    Raises
    ------
    InputError
        For a wrong chain id, an address without code, or a market, contract or feed that is not one.
    RpcUnavailable
        If the node does not answer.
    """
    section = _market_section(config)
    build_policy(config)
    references = reference_sources(config)
    judges = _guards(config)
    node = open_node(config)
    head = node.head()
    check_code(
        node, {**_configured_addresses(config), f"protocols.0.provider ({section.kind})": section.provider}
    )
    adapter = _adapter(config, section, node, head)
    symbols = {r.asset.symbol: r.asset.address for r in adapter.layout.reserves}
    if config.execution.native_asset not in symbols:
        raise UnknownNameError("asset in execution.native_asset", config.execution.native_asset, symbols)
    feeds = resolve_feeds(references, judges, node, head)
    check_symbols(feeds, list(symbols))
    owner = _check_contracts(config, adapter, node, head)
    pools = find_pools(config.router, list(symbols.values()), node, head)
    return Connected(config, node, head, adapter, pools, feeds, owner)


def open_node(config: KeeperConfig) -> Node:
    """Return a node that answers for the configured chain id; see `connect`."""
    node = Node.connect(
        config.rpc_url.reveal(), timeout_s=config.rpc.timeout_s, max_batch=config.rpc.max_batch
    )
    found = chain_id_of(node, "rpc.url", config.rpc_shown)
    if found != config.chain_id:
        raise InputError(
            f"rpc.url {config.rpc_shown} answers for chain {found}, the configuration says chain_id = "
            f"{config.chain_id}",
            fix="correct one of the two",
        )
    return node


def chain_id_of(node: Node, where: str, shown_url: str) -> int:
    """Return the chain id; when there is none, the error says by which key or option the node was named.

    Raises
    ------
    RpcUnavailable, InputError
        If the endpoint does not answer, or is no Ethereum node.
    """
    try:
        return node.chain_id()
    except RpcUnavailable as error:
        raise RpcUnavailable(
            f"{where} {_with_url(error.message, shown_url)}",
            fix=error.fix or "is it the URL of a JSON-RPC endpoint?",
        ) from None
    except RpcError as error:
        raise InputError(
            f"{where} {shown_url} does not tell its chain id: {error.message}", fix="check the URL"
        ) from None


def _with_url(message: str, shown_url: str) -> str:
    return message if shown_url in message else f"{shown_url}: {message}"


def _market_section(config: KeeperConfig) -> ProtocolSection:
    """Return the one market that is watched."""
    if len(config.protocols) > 1:
        raise InputError(
            f"protocols: {len(config.protocols)} markets, one is supported",
            fix="run one keeper per market, each with its own journal and key",
        )
    section = config.protocols[0]
    if section.kind not in protocols:
        with _named("protocols.0.kind"):
            raise UnknownNameError("protocol", section.kind, protocols)
    if section.kind != AaveV3.kind:
        raise InputError(
            f"protocols.0.kind: there is a model of {section.kind}, and no keeper for it yet",
            fix=f"a keeper runs on {AaveV3.kind}",
        )
    _options(section)
    return section


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Put the configuration key in front of an error about a name that is in no registry."""
    try:
        yield
    except UnknownNameError as error:
        raise InputError(f"{where}: {error.message}", fix=error.fix) from None


def _configured_addresses(config: KeeperConfig) -> dict[str, str]:
    named = {
        "contracts.liquidator": config.contracts.liquidator,
        "contracts.account_lens": config.contracts.account_lens,
        "contracts.multicall": config.contracts.multicall,
    }
    if config.router is not None:
        named |= {"router.factory": config.router.factory, "router.router": config.router.router}
        named["router.quoter"] = config.router.quoter
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


def _check_contracts(config: KeeperConfig, adapter: AaveV3, node: Node, head: Head) -> str | None:
    """Refuse contracts that are not what their keys say; return the owner of our Liquidator.

    Raises
    ------
    InputError
        Naming the configuration key and the address.
    """
    contracts = config.contracts
    calls: dict[str, Call[Any]] = {}
    if contracts.liquidator is not None:
        calls["owner"] = OWNER.call(contracts.liquidator)
        calls["pool"] = POOL.call(contracts.liquidator)
    if contracts.multicall is not None:
        calls["multicall"] = aggregate(contracts.multicall, [GET_BLOCK_NUMBER.call(contracts.multicall)])
    found = dict(
        zip(calls, map(_decoded, calls.values(), node.read(list(calls.values()), head)), strict=True)
    )
    if contracts.liquidator is not None:
        what = f"contracts.liquidator: {contracts.liquidator}"
        if found["owner"] is None or found["pool"] is None:
            raise InputError(f"{what} is not our Liquidator", fix="check the address")
        if found["pool"] != adapter.layout.pool:
            raise InputError(
                f"{what} liquidates in pool {found['pool']}, the market's is {adapter.layout.pool}",
                fix="deploy one for this market: marginline keeper init --deploy",
            )
    if contracts.multicall is not None and found["multicall"] is None:
        raise InputError(
            f"contracts.multicall: {contracts.multicall} is not a Multicall3",
            fix="correct it, or remove the key to read one by one",
        )
    if contracts.account_lens is not None:
        (code,) = node.code([contracts.account_lens])
        if code != own("AccountLens").deployed_bytecode:
            raise InputError(
                f"contracts.account_lens: {contracts.account_lens} is not the AccountLens of this version",
                fix="remove the key, it works without one",
            )
    if config.router is not None:
        check_router(config.router, node, head)
    return found.get("owner")


def check_router(router: RouterSection, node: Node, head: Head, where: str = "router.") -> None:
    """Refuse a router or quoter of another factory; `where` is the start of the keys' or options' names.

    Raises
    ------
    InputError
        Naming the key and both addresses.
    """
    named = {"router": router.router, "quoter": router.quoter}
    given = {key: address for key, address in named.items() if address is not None}
    calls = [uniswap.FACTORY.call(address) for address in given.values()]
    for (key, address), call, answer in zip(given.items(), calls, node.read(calls, head), strict=True):
        if _decoded(call, answer) != router.factory:
            raise InputError(
                f"{where}{key}: {address} does not belong to the factory {router.factory}",
                fix="check both addresses",
            )


def _decoded(call: Call[Any], answer: bytes | None) -> Any:
    """Return what was answered, None for a revert or bytes that are not an answer to this call."""
    if answer is None:
        return None
    try:
        return call.decode(answer)
    except DataError:
        return None


def _adapter(config: KeeperConfig, section: ProtocolSection, node: Node, head: Head) -> AaveV3:
    layout = read_layout(node, head, section.provider, "protocols.0.provider")
    lens = config.contracts.account_lens or LENS_ADDRESS
    layout = replace(layout, lens=lens, multicall=config.contracts.multicall or "")
    options = _options(section)
    return AaveV3(layout, account_data=options.account_data, accounts_per_call=options.accounts_per_call)


def _options(section: ProtocolSection) -> AaveV3Options:
    known = [*ProtocolSection.model_fields, *AaveV3Options.model_fields]
    for key in section.options:
        if key not in known:
            with _named("protocols.0"):
                raise UnknownNameError("key", key, known)
    try:
        return AaveV3Options(**section.options)
    except ValidationError as error:
        raise input_error(error, "protocols.0") from None


def read_layout(node: Node, head: Head, provider: str, where: str) -> AaveLayout:
    """Find an Aave V3 market from its PoolAddressesProvider, which was named by `where`."""
    try:
        return run_stages(discover_layout(provider), lambda calls: node.read(calls, head))
    except DataError as error:
        raise InputError(
            f"{where}: {provider} does not lead to an Aave V3 market: {error.message}",
            fix="give the address of its PoolAddressesProvider",
        ) from None


def find_pools(
    router: RouterSection | None, tokens: Sequence[str], node: Node, head: Head, where: str = "router.factory"
) -> tuple[PoolKey, ...]:
    """Return the pools between `tokens` that a factory knows; `where` it was named, for errors."""
    if router is None:
        return ()
    pairs = [sorted(pair, key=lambda t: int(t, 16)) for pair in combinations(tokens, 2)]
    wanted = [(t0, t1, fee) for t0, t1 in pairs for fee in router.fees_pips]
    spacings = node.read(
        [uniswap.FEE_AMOUNT_TICK_SPACING.call(router.factory, f) for f in router.fees_pips], head
    )
    if any(answer is None for answer in spacings):
        raise InputError(f"{where}: {router.factory} is not a Uniswap V3 factory", fix="check the address")
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


def reference_sources(config: KeeperConfig) -> dict[str, tuple[Any, ...]]:
    """Return the reference sources by asset, as configured; files of recorded ones are read."""
    found: dict[str, tuple[Any, ...]] = {}
    for asset, tables in config.references.items():
        built = []
        for i, table in enumerate(tables):
            where = f"references.{asset}.{i}"
            settings = {"base": asset, "quote": QUOTE, **table}
            if isinstance(settings.get("path"), str):
                settings["path"] = config.path(Path(settings["path"]))
            with _named(where):
                built.append(sources.build(settings, where=where))
        found[asset] = tuple(built)
    return found


def resolve_feeds(
    references: Mapping[str, Sequence[Any]], judges: tuple[Guard, ...], node: Node, head: Head
) -> tuple[Feed, ...]:
    """Return the reference feeds, each Chainlink source resolved to the aggregator behind it."""

    def execute(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        return node.read(list(calls), head)

    def resolved(source: Any, where: str) -> Any:
        if not isinstance(source, ChainlinkSource):
            return source
        try:
            return source.resolved(complete(resolve(source.address), execute))
        except InputError as error:
            raise InputError(f"{where}.address: {error.message}", fix=error.fix) from None

    return tuple(
        Feed(asset, tuple(resolved(s, f"references.{asset}.{i}") for i, s in enumerate(several)), judges)
        for asset, several in references.items()
    )


def _guards(config: KeeperConfig) -> tuple[Guard, ...]:
    for name in config.guards:
        if name not in guards:
            with _named(f"guards.{name}"):
                raise UnknownNameError("guard", name, guards)
    names = dict.fromkeys([*BASIC, *config.guards])
    return tuple(
        guards.build({"kind": name, **config.guards.get(name, {})}, where=f"guards.{name}") for name in names
    )


def build_policy(config: KeeperConfig) -> Any:
    """Return the configured policy (`simulation.interfaces.Policy`)."""
    with _named("policy.kind"):
        return policies.build(dict(config.policy), where="policy")
