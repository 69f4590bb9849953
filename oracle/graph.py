"""The tree behind an oracle's address: which contracts a price comes from, and what can be checked of each.

A protocol names one address. Behind it stand caps, products, scalings and proxies, and at the end the
contracts in which somebody writes a number. `explore` asks every address for the getters that the known
kinds of contract have, recognises the kind by those that answer, and follows the ones that name a leg.
Nothing here opens a connection: `execute` answers lists of reads at one block.

Recognised by their getters: Chainlink proxies and aggregators, Aave's oracle and CAPO adapters, Compound's
scaling and multiplicative feeds, Morpho's Chainlink oracle, Euler's router and adapters, Maker's OSM and
median, API3 readers, Uniswap pools and averages over them, vaults and rate providers. A contract of another
kind is told as unknown, with what it answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from eth_utils.address import is_address

from contracts_abi.calls import Call, Function, checksummed, function
from contracts_abi.errors import DataError, InputError
from oracle.types import FeedKind

ZERO_ADDRESS: Final = "0x" + "00" * 20
MAX_DEPTH: Final = 10
_VACUOUS_MAX: Final = 2**90

Execute: TypeAlias = Callable[[Sequence[Call[Any]]], Sequence[bytes | None]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of contract, told by the getters that it answers.

    Attributes
    ----------
    name
        For people, for example ``Chainlink proxy``.
    kind
        How its price comes to be.
    marks
        Getters that must answer, with something that is not zero.
    legs
        Getters that name another contract to its price, with what that is to it.
    facts
        Getters that are worth telling.
    """

    name: str
    kind: FeedKind
    marks: tuple[str, ...]
    legs: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[str, ...] = ()


def _address(*names: str) -> dict[str, Function]:
    return {name: function(f"{name}()(address)") for name in names}


def _number(*names: str, type_: str = "uint256") -> dict[str, Function]:
    return {name: function(f"{name}()({type_})") for name in names}


GETTERS: Final[Mapping[str, Function]] = {
    "latestRoundData": function("latestRoundData()(uint80,int256,uint256,uint256,uint80)"),
    "slot0": function("slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)"),
    "getReserves": function("getReserves()(uint112,uint112,uint32)"),
    "api3_read": function("read()(int224,uint32)"),
    "description": function("description()(string)"),
    "typeAndVersion": function("typeAndVersion()(string)"),
    "name": function("name()(string)"),
    "symbol": function("symbol()(string)"),
    "isCapped": function("isCapped()(bool)"),
    "stopped": function("stopped()(uint256)"),
    "feedId": function("feedId()(bytes32)"),
    "convertToAssets": function("convertToAssets(uint256)(uint256)"),
    **_number("decimals", type_="uint8"),
    **_number("phaseId", type_="uint16"),
    **_number(
        *("latestAnswer", "minAnswer", "maxAnswer", "minSubmissionValue", "maxSubmissionValue"),
        *("getPriceCap", "getRatio"),
        type_="int256",
    ),
    **_number(
        *("heartbeat", "deviation_bps", "price", "SCALE_FACTOR", "BASE_CURRENCY_UNIT", "hop", "bar"),
        *("getSnapshotRatio", "getSnapshotTimestamp", "getMaxYearlyGrowthRatePercent", "RATIO_DECIMALS"),
        *("maxStaleness", "maxConfWidth", "twapWindow", "window", "liquidity", "fee"),
        *("totalAssets", "totalSupply", "getRate", "stEthPerToken", "getExchangeRate", "exchangeRate"),
    ),
    **_address(
        *("aggregator", "accessController", "owner", "governor", "transmitter", "ACL_MANAGER"),
        *("ADDRESSES_PROVIDER", "getFallbackOracle", "BASE_CURRENCY", "fallbackOracle"),
        *("BASE_TO_USD_AGGREGATOR", "ASSET_TO_USD_AGGREGATOR", "RATIO_PROVIDER"),
        *("priceFeedA", "priceFeedB", "underlyingPriceFeed"),
        *("BASE_VAULT", "BASE_FEED_1", "BASE_FEED_2", "QUOTE_VAULT", "QUOTE_FEED_1", "QUOTE_FEED_2"),
        *("oracleBaseCross", "oracleCrossQuote", "base", "quote", "feed", "pyth", "priceFeed", "source"),
        *("oracle", "src", "api3ServerV1", "pool", "token0", "token1", "asset", "stETH"),
    ),
}

ROLES: Final = ("owner", "governor", "transmitter", "ACL_MANAGER", "accessController")
"""Getters that name who may change something."""

_COMMON: Final = ("description", "typeAndVersion", "decimals")
_BOUNDS: Final = ("minAnswer", "maxAnswer", "minSubmissionValue", "maxSubmissionValue")

# The first that fits is the kind: the more particular stand first.
SHAPES: Final = (
    Shape(
        "Aave oracle",
        FeedKind.COMPOSITE,
        ("ADDRESSES_PROVIDER", "BASE_CURRENCY_UNIT"),
        {"getFallbackOracle": "fallback"},
        ("BASE_CURRENCY", "BASE_CURRENCY_UNIT"),
    ),
    Shape(
        "Morpho Chainlink oracle",
        FeedKind.COMPOSITE,
        ("SCALE_FACTOR", "price"),
        {
            "BASE_VAULT": "base vault",
            "BASE_FEED_1": "base feed 1",
            "BASE_FEED_2": "base feed 2",
            "QUOTE_VAULT": "quote vault",
            "QUOTE_FEED_1": "quote feed 1",
            "QUOTE_FEED_2": "quote feed 2",
        },
        ("SCALE_FACTOR", "price"),
    ),
    Shape(
        "Aave CAPO, capped rate",
        FeedKind.COMPOSITE,
        ("RATIO_PROVIDER", "getSnapshotRatio"),
        {"BASE_TO_USD_AGGREGATOR": "base price", "RATIO_PROVIDER": "ratio"},
        (
            *("getRatio", "getSnapshotRatio", "getSnapshotTimestamp", "getMaxYearlyGrowthRatePercent"),
            *("RATIO_DECIMALS", "isCapped"),
        ),
    ),
    Shape(
        "Aave CAPO, capped stablecoin",
        FeedKind.COMPOSITE,
        ("ASSET_TO_USD_AGGREGATOR", "getPriceCap"),
        {"ASSET_TO_USD_AGGREGATOR": "price"},
        ("getPriceCap", "isCapped"),
    ),
    Shape(
        "Compound multiplicative feed",
        FeedKind.COMPOSITE,
        ("priceFeedA", "priceFeedB"),
        {"priceFeedA": "factor A", "priceFeedB": "factor B"},
    ),
    Shape(
        "Compound scaling feed",
        FeedKind.COMPOSITE,
        ("underlyingPriceFeed",),
        {"underlyingPriceFeed": "price"},
    ),
    Shape(
        "Euler cross adapter",
        FeedKind.COMPOSITE,
        ("oracleBaseCross", "oracleCrossQuote"),
        {"oracleBaseCross": "base to cross", "oracleCrossQuote": "cross to quote"},
        ("base", "quote"),
    ),
    Shape(
        "Euler router",
        FeedKind.COMPOSITE,
        ("governor",),
        {"fallbackOracle": "fallback for pairs that are not configured"},
    ),
    Shape("Pyth adapter", FeedKind.PULL, ("pyth", "feedId"), {}, ("pyth", "feedId", "maxConfWidth")),
    Shape("Maker OSM", FeedKind.PUSH, ("src", "hop"), {"src": "source"}, ("hop", "stopped")),
    Shape("Maker median", FeedKind.PUSH, ("bar",), {}, ("bar",)),
    Shape("API3 reader", FeedKind.PUSH, ("api3ServerV1",), {}, ("api3ServerV1",)),
    Shape("Chainlink proxy", FeedKind.PUSH, ("aggregator", "phaseId"), {"aggregator": "aggregator"}),
    Shape(
        "average over a pool",
        FeedKind.AMM_TWAP,
        ("pool", "twapWindow"),
        {"pool": "pool"},
        ("twapWindow",),
    ),
    Shape("average over a pool", FeedKind.AMM_TWAP, ("pool", "window"), {"pool": "pool"}, ("window",)),
    Shape(
        "Uniswap V3 pool",
        FeedKind.AMM_SPOT,
        ("slot0", "token0"),
        {},
        ("token0", "token1", "fee", "liquidity"),
    ),
    Shape("Uniswap V2 pair", FeedKind.AMM_SPOT, ("getReserves", "token0"), {}, ("token0", "token1")),
    Shape(
        "vault",
        FeedKind.RATE,
        ("asset", "convertToAssets"),
        {},
        ("asset", "symbol", "totalAssets", "totalSupply"),
    ),
    Shape("rate of staked Ether", FeedKind.RATE, ("stEthPerToken",), {}, ("stEthPerToken", "stETH")),
    Shape("rate provider", FeedKind.RATE, ("getRate",), {}, ("getRate",)),
    Shape("rate provider", FeedKind.RATE, ("getExchangeRate",), {}, ("getExchangeRate",)),
    # cbETH: the account `oracle` alone sets the rate.
    Shape("rate set by one key", FeedKind.RATE, ("exchangeRate", "oracle"), {}, ("exchangeRate", "oracle")),
    Shape(
        "adapter",
        FeedKind.COMPOSITE,
        ("latestAnswer", "feed"),
        {"feed": "price"},
        ("maxStaleness",),
    ),
    Shape("adapter", FeedKind.COMPOSITE, ("maxStaleness", "feed"), {"feed": "price"}, ("maxStaleness",)),
    Shape("adapter", FeedKind.COMPOSITE, ("latestAnswer", "priceFeed"), {"priceFeed": "price"}),
    Shape("adapter", FeedKind.COMPOSITE, ("latestAnswer", "source"), {"source": "price"}),
    Shape("price feed", FeedKind.PUSH, ("latestRoundData",)),
    Shape("answer without a time", FeedKind.PUSH, ("latestAnswer",)),
)

UNKNOWN: Final = Shape("unknown contract", FeedKind.CONSTANT, ())


@dataclass(frozen=True, slots=True)
class Leg:
    """An edge of the tree: what the child is to its parent."""

    role: str
    address: str


@dataclass(frozen=True, slots=True)
class OracleNode:
    """One contract of the tree.

    Attributes
    ----------
    address
        Checksummed.
    shape
        Kind of contract, for people.
    kind
        How its price comes to be; None for an unknown contract.
    description
        What the contract calls itself; empty when it does not.
    decimals
        Scale of its answer; None when it states none.
    answer
        What it says now at that scale; None when it says nothing.
    updated_at
        Unix seconds of that answer; None when it carries no time.
    min_answer, max_answer
        Bounds of an aggregator; None when it has none.
    round_id, answered_in
        Round of the answer, and the one in which it was made; None without rounds.
    heartbeat_s, deviation_bps
        Only where the contract states them: Chainlink publishes both off chain.
    roles
        Who may change something: name of the getter to account.
    facts
        What else it answered, as text.
    legs
        The contracts that its price is made of.
    problem
        Why there is no answer, where that is known.
    """

    address: str
    shape: str
    kind: FeedKind | None
    description: str = ""
    decimals: int | None = None
    answer: int | None = None
    updated_at: int | None = None
    min_answer: int | None = None
    max_answer: int | None = None
    heartbeat_s: int | None = None
    deviation_bps: int | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    legs: tuple[Leg, ...] = ()
    round_id: int | None = None
    answered_in: int | None = None
    problem: str = ""

    @property
    def bounds_vacuous(self) -> bool:
        """Whether the bounds stand there and bind nothing."""
        low, high = self.min_answer, self.max_answer
        return low is not None and high is not None and low <= 1 and high >= _VACUOUS_MAX


@dataclass(frozen=True, slots=True)
class OracleGraph:
    """The tree of an oracle. Legs that are shared stand once, so that it is a graph without circles.

    Attributes
    ----------
    root
        Address that was asked for.
    nodes
        Address to contract, in the order in which they were found.
    block, timestamp
        Where and when it was read.
    """

    root: str
    nodes: Mapping[str, OracleNode]
    block: int
    timestamp: int

    def leaves(self) -> tuple[OracleNode, ...]:
        """Return the contracts that read no other."""
        return tuple(node for node in self.nodes.values() if not node.legs)


def explore(
    address: str, execute: Execute, *, block: int, timestamp: int, depth: int = MAX_DEPTH
) -> OracleGraph:
    """Return the tree behind `address`.

    Parameters
    ----------
    address
        The contract that a protocol reads.
    execute
        Answers reads at `block`; None for each that failed.
    block, timestamp
        The block read.
    depth
        How many contracts deep to look.

    Raises
    ------
    InputError
        If `address` is none, or answers nothing that a price feed answers.
    """
    if not is_address(address):
        raise InputError(f"{address!r} is not an address", fix="give 0x and 40 hex digits")
    root = checksummed(address)
    nodes: dict[str, OracleNode] = {}
    frontier = [root]
    for _ in range(depth):
        if not frontier:
            break
        found = _read(frontier, execute)
        nodes.update(found)
        legs = [leg.address for node in found.values() for leg in node.legs]
        frontier = [at for at in dict.fromkeys(legs) if at not in nodes]
    # What lies deeper is named and not looked into: an edge must not lead nowhere.
    nodes.update({at: OracleNode(at, f"not read: deeper than {depth}", None) for at in frontier})
    if nodes[root].kind is None:
        raise InputError(
            f"{root} answers nothing that a price feed answers", fix="check the address and the chain"
        )
    return OracleGraph(root, nodes, block, timestamp)


def _read(addresses: Sequence[str], execute: Execute) -> dict[str, OracleNode]:
    """Return the contracts at `addresses`; one list of reads for all of them."""
    calls = [_probe(name, at) for at in addresses for name in GETTERS]
    results = execute(calls)
    if len(results) != len(calls):
        raise ValueError(f"{len(results)} results for {len(calls)} reads")
    found: dict[str, OracleNode] = {}
    for i, at in enumerate(addresses):
        answers = {
            name: value
            for name, data in zip(GETTERS, results[i * len(GETTERS) : (i + 1) * len(GETTERS)], strict=True)
            if (value := _decoded(GETTERS[name], data)) is not None
        }
        node = _node(at, answers)
        if node.shape == "Aave oracle":
            node = _with_reserves(node, str(answers["ADDRESSES_PROVIDER"]), execute)
        found[at] = node
    return found


def _probe(name: str, at: str) -> Call[Any]:
    # One share at 18 decimals: whether it answers is what counts.
    return GETTERS[name].call(at, *([10**18] if name == "convertToAssets" else []))


def _decoded(getter: Function, data: bytes | None) -> Any:
    """Return the output, all outputs of a getter with several, None where it failed or does not decode."""
    if not data:
        return None
    try:
        values = getter.decode(data)
    except DataError:
        return None
    return values[0] if len(values) == 1 else values


def _present(value: Any) -> bool:
    return value is not None and value != ZERO_ADDRESS


def _node(address: str, answers: Mapping[str, Any]) -> OracleNode:
    shape = next((s for s in SHAPES if all(_present(answers.get(mark)) for mark in s.marks)), None)
    if shape is None:
        told = {name: _text(value) for name, value in answers.items() if _present(value)}
        return OracleNode(address, UNKNOWN.name, None, str(answers.get("name", "")), facts=told)
    low, high, flux_low, flux_high = (answers.get(name) for name in _BOUNDS)
    round_ = answers.get("latestRoundData")
    # A round whose time is zero was never written: its answer of zero is none.
    unwritten = round_ is not None and round_[3] == 0
    answer = round_[1] if round_ is not None else answers.get("latestAnswer")
    return OracleNode(
        address,
        shape.name,
        shape.kind,
        str(answers.get("description", answers.get("name", ""))),
        answers.get("decimals"),
        None if unwritten else answer,
        (round_[3] or None) if round_ is not None else None,
        low if low is not None else flux_low,
        high if high is not None else flux_high,
        answers.get("heartbeat"),
        answers.get("deviation_bps"),
        {name: str(answers[name]) for name in ROLES if _present(answers.get(name))},
        {name: _text(answers[name]) for name in shape.facts if name in answers},
        tuple(
            Leg(role, answers[getter])
            for getter, role in shape.legs.items()
            if _present(answers.get(getter)) and answers[getter] != address
        ),
        round_id=None if round_ is None or unwritten else round_[0],
        answered_in=None if round_ is None or unwritten else round_[4],
        problem="its latest round was never written" if unwritten else "",
    )


def _text(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


_GET_POOL = function("getPool()(address)")
_GET_RESERVES_LIST = function("getReservesList()(address[])")
_GET_SOURCE = function("getSourceOfAsset(address)(address)")


def _with_reserves(node: OracleNode, provider: str, execute: Execute) -> OracleNode:
    """Return an Aave oracle with the source of each of its market's reserves as a leg.

    The oracle keeps its sources in a mapping; the reserves stand in the pool (`Pool.getReservesList`).
    """
    (data,) = execute([_GET_POOL.call(provider)])
    pool = _decoded(_GET_POOL, data)
    if not _present(pool):
        return node
    (data,) = execute([_GET_RESERVES_LIST.call(pool)])
    reserves: list[str] = [checksummed(at) for at in _decoded(_GET_RESERVES_LIST, data) or ()]
    answers = execute(
        [
            *(_GET_SOURCE.call(node.address, reserve) for reserve in reserves),
            *(GETTERS["symbol"].call(reserve) for reserve in reserves),
        ]
    )
    sources = [_decoded(_GET_SOURCE, data) for data in answers[: len(reserves)]]
    symbols = [_decoded(GETTERS["symbol"], data) for data in answers[len(reserves) :]]
    legs = tuple(
        Leg(symbol or reserve, source)
        for reserve, symbol, source in zip(reserves, symbols, sources, strict=True)
        if _present(source)
    )
    missing = [
        symbol or reserve
        for reserve, symbol, source in zip(reserves, symbols, sources, strict=True)
        if not _present(source)
    ]
    facts = {**node.facts, **({"without a source": ", ".join(missing)} if missing else {})}
    return OracleNode(
        node.address,
        node.shape,
        node.kind,
        node.description,
        node.decimals,
        roles=node.roles,
        facts=facts,
        legs=(*legs, *node.legs),
    )
