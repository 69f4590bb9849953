"""From a configuration to the keeper's parts, with every address checked before anything is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address

from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError, RpcError, RpcUnavailable, UnknownNameError
from contracts_abi.liquidator import CONTRACT_VERSION, MORPHO, NO_MARKET, OWNER, POOL, VERSION
from contracts_abi.multicall import GET_BLOCK_NUMBER, aggregate
from keeper.config import KeeperConfig, RouterSection
from keeper.markets import LENS_ADDRESS, Market, checked_options, find_markets, named
from keeper.rpc import Head, Node
from keeper.view import QUOTE, FundsOf, Reader, check_symbols
from oracle.guards import BASIC, guards
from oracle.interfaces import Guard
from oracle.snapshot import Feed
from oracle.sources import sources
from oracle.sources.chainlink import ChainlinkSource, complete, resolve
from simulation.amm.uniswap_v3 import PoolKey
from simulation.chain.artifacts import own
from simulation.policy import policies
from simulation.types import Asset


@dataclass(frozen=True, slots=True)
class Connected:
    """A node that answers for the configured chain, and the markets on it.

    Attributes
    ----------
    config, node
        What was connected, and to what.
    head
        The newest block when it was.
    markets
        The markets, laid out, in the configuration's order.
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
    markets: tuple[Market, ...]
    pools: tuple[PoolKey, ...]
    feeds: tuple[Feed, ...]
    owner: str | None

    @property
    def assets(self) -> dict[str, str]:
        """Symbol to token address, of all markets; of two tokens of one symbol the first market's."""
        return {asset.symbol: asset.address for market in reversed(self.markets) for asset in market.assets}

    @property
    def tokens(self) -> tuple[Asset, ...]:
        """The tokens of all markets, each once."""
        return tuple({a.address: a for market in self.markets for a in market.assets}.values())

    def market(self, name: str | None = None) -> Market:
        """Return a market by its name; without one the only market.

        Raises
        ------
        InputError
            If there is no such market, or there are several and none is named.
        """
        known = {market.name: market for market in self.markets}
        if name is None:
            if len(known) > 1:
                raise InputError(
                    f"--protocol: there are {len(known)} markets", fix=f"name one: {', '.join(known)}"
                )
            return self.markets[0]
        if name not in known:
            raise UnknownNameError("market in --protocol", name, known)
        return known[name]

    def reader(self) -> Reader:
        """Return a fresh reader of all markets."""
        pretend = self.config.contracts.account_lens is None
        return Reader(
            self.node,
            *(market.adapter for market in self.markets),
            feeds=self.feeds,
            pools=self.pools,
            multicall=self.config.contracts.multicall,
            code={LENS_ADDRESS: own("AccountLens").deployed_bytecode} if pretend else None,
            funds=self._funds(),
            quotes={market.name: market.quote for market in self.markets},
            small_accounts=[market.name for market in self.markets if market.one_by_one],
        )

    def _funds(self) -> FundsOf | None:
        liquidator = self.config.contracts.liquidator
        if self.config.execution.funding != "inventory" or liquidator is None or self.owner is None:
            return None
        tokens = tuple(token.address for token in self.tokens)
        # Of what the contract holds it spends nothing where anybody can open a market.
        opened = {market.name for market in self.markets if market.adapter.venue.market != NO_MARKET}
        return FundsOf(liquidator, self.owner, tokens, frozenset(opened))

    def policy(self) -> Any:
        """Return the configured policy."""
        return build_policy(self.config)


def connect(config: KeeperConfig) -> Connected:
    """Connect, check chain id and addresses, and find the parts of every market.

    What can be checked without the node is checked before it is asked for anything.

    Raises
    ------
    InputError
        For a wrong chain id, an address without code, or a market, contract or feed that is not one.
    RpcUnavailable
        If the node does not answer.
    """
    for i, section in enumerate(config.protocols):
        checked_options(section, f"protocols.{i}")
    build_policy(config)
    references = reference_sources(config)
    judges = _guards(config)
    node = open_node(config)
    head = node.head()
    check_code(node, {**_configured_addresses(config), **_market_addresses(config)})
    markets = find_markets(config.protocols, config.contracts, node, head)
    symbols = _symbols(markets)
    if config.execution.native_asset not in symbols:
        raise UnknownNameError("asset in execution.native_asset", config.execution.native_asset, symbols)
    _one_token("execution.native_asset", config.execution.native_asset, symbols)
    feeds = resolve_feeds(references, judges, node, head)
    check_symbols(feeds, list(symbols))
    for symbol in references:
        _one_token(f"references.{symbol}", symbol, symbols)
    owner = _check_contracts(config, markets, node, head)
    through = () if config.router is None else config.router.intermediates
    tokens = [*(address for addresses in symbols.values() for address in addresses), *through]
    pools = find_pools(config.router, list(dict.fromkeys(tokens)), node, head)
    return Connected(config, node, head, markets, pools, feeds, owner)


def _symbols(markets: Sequence[Market]) -> dict[str, list[str]]:
    """Return the tokens of each symbol, over all markets."""
    found: dict[str, list[str]] = {}
    for market in markets:
        for asset in market.assets:
            addresses = found.setdefault(asset.symbol, [])
            if asset.address not in addresses:
                addresses.append(asset.address)
    return found


def _one_token(where: str, symbol: str, symbols: Mapping[str, Sequence[str]]) -> None:
    """Refuse a symbol that means different tokens in different markets: a price of one is none of the other.

    Raises
    ------
    InputError
        Naming the key and the tokens.
    """
    if len(symbols[symbol]) > 1:
        raise InputError(
            f"{where}: the markets have different tokens of that name, {' and '.join(symbols[symbol])}",
            fix="watch them with a keeper each",
        )


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


def _configured_addresses(config: KeeperConfig) -> dict[str, str]:
    named = {
        "contracts.liquidator": config.contracts.liquidator,
        "contracts.account_lens": config.contracts.account_lens,
        "contracts.multicall": config.contracts.multicall,
    }
    if config.router is not None:
        named |= {"router.factory": config.router.factory, "router.router": config.router.router}
        named["router.quoter"] = config.router.quoter
        named |= {f"router.intermediates.{i}": a for i, a in enumerate(config.router.intermediates)}
    return {key: address for key, address in named.items() if address is not None}


def _market_addresses(config: KeeperConfig) -> dict[str, str]:
    named = {
        f"protocols.{i}.{key} ({section.kind})": getattr(section, key)
        for i, section in enumerate(config.protocols)
        for key in ("provider", "contract")
    }
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


def _check_contracts(config: KeeperConfig, markets: Sequence[Market], node: Node, head: Head) -> str | None:
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
        calls["morpho"] = MORPHO.call(contracts.liquidator)
        calls["version"] = VERSION.call(contracts.liquidator)
    if contracts.multicall is not None:
        calls["multicall"] = aggregate(contracts.multicall, [GET_BLOCK_NUMBER.call(contracts.multicall)])
    found = dict(
        zip(calls, map(_decoded, calls.values(), node.read(list(calls.values()), head)), strict=True)
    )
    if contracts.liquidator is not None:
        what = f"contracts.liquidator: {contracts.liquidator}"
        ours = all(found[part] is not None for part in ("owner", "pool", "morpho"))
        if not ours or found["version"] != CONTRACT_VERSION:
            # A keeper of this version leaves to the contract what an earlier one does not do.
            raise InputError(
                f"{what} is not our Liquidator, or is one of another version than {CONTRACT_VERSION}",
                fix="check the address, or deploy one anew: marginline keeper init --deploy",
            )
        _check_venues(what, [str(found["pool"]), str(found["morpho"])], markets)
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


def _check_venues(what: str, venues: Sequence[str], markets: Sequence[Market]) -> None:
    """Refuse a Liquidator that cannot liquidate in a market; `venues` are its pool and its Morpho."""
    for i, market in enumerate(markets):
        wanted = market.adapter.venue.address
        if wanted not in venues:
            served = " and ".join(venue for venue in venues if int(venue, 16)) or "nowhere"
            raise InputError(
                f"{what} liquidates in {served}; the market of protocols.{i}, {market.name}, is {wanted}",
                fix="deploy one for these markets: marginline keeper init --deploy",
            )


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
            with named(where):
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
            with named(f"guards.{name}"):
                raise UnknownNameError("guard", name, guards)
    names = dict.fromkeys([*BASIC, *config.guards])
    return tuple(
        guards.build({"kind": name, **config.guards.get(name, {})}, where=f"guards.{name}") for name in names
    )


def build_policy(config: KeeperConfig) -> Any:
    """Return the configured policy (`simulation.interfaces.Policy`)."""
    with named("policy.kind"):
        return policies.build(dict(config.policy), where="policy")
