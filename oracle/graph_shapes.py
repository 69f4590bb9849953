"""The kinds of contract that an oracle's tree is made of, each told by the getters that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from contracts_abi.calls import Function, function
from oracle.types import FeedKind

_ONE: Final = 10**18
LIST_LENGTH: Final = 8
"""How many entries of a public list are looked at; lists of ours hold no more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of contract.

    Attributes
    ----------
    name
        For people, for example ``Chainlink proxy``.
    kind
        How its price comes to be.
    marks
        Getters that must answer, with something that is not zero. Never one that reads another contract: a
        contract is what it is also while its feed is dead.
    legs
        Getters that name another contract to its price, with what that is to it.
    facts
        Getters that are worth telling.
    answers
        Getters that must answer, if only with zero.
    lists
        Public lists of contracts, with what an entry is to the price.
    price
        Getters of the price, in order of preference.
    scale
        Scale of the price where the kind fixes it; else ``decimals()`` tells.
    pair
        Getters of the two tokens for which ``getQuote`` is asked, where that is its price.
    apart
        Whether it prices each asset apart, so that it has no price of its own.
    """

    name: str
    kind: FeedKind
    marks: tuple[str, ...]
    legs: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    lists: Mapping[str, str] = field(default_factory=dict)
    price: tuple[str, ...] = ("latestRoundData", "latestAnswer")
    scale: int | None = None
    pair: tuple[str, str] | None = None
    apart: bool = False


def _address(*names: str) -> dict[str, Function]:
    return {name: function(f"{name}()(address)") for name in names}


def _number(*names: str, type_: str = "uint256") -> dict[str, Function]:
    return {name: function(f"{name}()({type_})") for name in names}


NOBODY_HAS: Final = "marginlineAsksWhatNobodyHas"
"""A function of no contract: one that answers it answers everything, and nothing that it says counts."""

_LISTS: Final = ("legs", "base_feeds", "quote_feeds")

GETTERS: Final[Mapping[str, Function]] = {
    NOBODY_HAS: function(f"{NOBODY_HAS}()(uint256)"),
    "latestRoundData": function("latestRoundData()(uint80,int256,uint256,uint256,uint80)"),
    "slot0": function("slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)"),
    "getReserves": function("getReserves()(uint112,uint112,uint32)"),
    # One selector, three meanings: API3 answers value and time, Maker one word.
    "api3_read": function("read()(int224,uint32)"),
    "peek": function("peek()(uint256,bool)"),
    "description": function("description()(string)"),
    "typeAndVersion": function("typeAndVersion()(string)"),
    "name": function("name()(string)"),
    "symbol": function("symbol()(string)"),
    "isCapped": function("isCapped()(bool)"),
    "selector": function("selector()(bytes4)"),
    **_number("feedId", "priceId", "getDataFeedId", "wat", "dapiName", type_="bytes32"),
    "convertToAssets": function("convertToAssets(uint256)(uint256)"),
    "getPooledEthByShares": function("getPooledEthByShares(uint256)(uint256)"),
    "transmitters": function("transmitters()(address[])"),
    "getTransmitters": function("getTransmitters()(address[])"),
    "getOracles": function("getOracles()(address[])"),
    **_number("decimals", type_="uint8"),
    **_number("phaseId", type_="uint16"),
    **_number("age", type_="uint32"),
    **_number(
        *("latestAnswer", "minAnswer", "maxAnswer", "minSubmissionValue", "maxSubmissionValue"),
        *("getPriceCap", "getRatio"),
        type_="int256",
    ),
    **_number(
        *("heartbeat", "deviation_bps", "price", "SCALE_FACTOR", "BASE_CURRENCY_UNIT", "hop", "bar", "zzz"),
        *("getSnapshotRatio", "getSnapshotTimestamp", "getMaxYearlyGrowthRatePercent", "RATIO_DECIMALS"),
        *("maxStaleness", "maxConfWidth", "twapWindow", "window", "liquidity", "fee", "stopped", "word"),
        *("totalAssets", "totalSupply", "getRate", "stEthPerToken", "getExchangeRate", "exchangeRate"),
        *("from_decimals", "feedDecimals", "combinedScale", "priceFeedScale", "getUniqueSignersThreshold"),
    ),
    **_address(
        *("aggregator", "accessController", "owner", "governor", "transmitter", "ACL_MANAGER"),
        *("ADDRESSES_PROVIDER", "getFallbackOracle", "BASE_CURRENCY", "fallbackOracle"),
        *("BASE_TO_USD_AGGREGATOR", "ASSET_TO_USD_AGGREGATOR", "RATIO_PROVIDER"),
        *("ASSET_TO_PEG", "PEG_TO_BASE", "BASE_TO_PEG"),
        *("priceFeedA", "priceFeedB", "underlyingPriceFeed", "stETHtoETHPriceFeed", "wstETH"),
        *("BASE_VAULT", "BASE_FEED_1", "BASE_FEED_2", "QUOTE_VAULT", "QUOTE_FEED_1", "QUOTE_FEED_2"),
        *("oracleBaseCross", "oracleCrossQuote", "base", "quote", "feed", "pyth", "priceFeed", "source"),
        *("oracle", "src", "api3ServerV1", "pool", "token0", "token1", "asset", "stETH", "target"),
        *("tokenA", "tokenB", "getPriceFeedAdapter"),
    ),
    **{f"{name}[{i}]": function(f"{name}(uint256)(address)") for name in _LISTS for i in range(1)},
}

ARGUMENTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "convertToAssets": (_ONE,),
    "getPooledEthByShares": (_ONE,),
    **{f"{name}[0]": (0,) for name in _LISTS},
}
"""What the getters that take something are asked with."""

GET_QUOTE: Final = function("getQuote(uint256,address,address)(uint256)")
QUOTED: Final = _ONE

ROLES: Final = ("owner", "governor", "transmitter", "ACL_MANAGER", "accessController")
"""Getters that name who may change something."""
WRITERS: Final = ("getTransmitters", "transmitters", "getOracles")
"""Getters that name who writes the answers."""

_CAPPED: Final = (
    *("getRatio", "getSnapshotRatio", "getSnapshotTimestamp", "getMaxYearlyGrowthRatePercent"),
    *("RATIO_DECIMALS", "isCapped"),
)

# The first that fits is the kind: the more particular stand first.
SHAPES: Final = (
    Shape(
        "Aave oracle",
        FeedKind.COMPOSITE,
        ("ADDRESSES_PROVIDER", "BASE_CURRENCY_UNIT"),
        {"getFallbackOracle": "fallback"},
        ("BASE_CURRENCY", "BASE_CURRENCY_UNIT"),
        apart=True,
    ),
    Shape(
        "Morpho Chainlink oracle",
        FeedKind.COMPOSITE,
        ("SCALE_FACTOR",),
        {
            "BASE_VAULT": "base vault",
            "BASE_FEED_1": "base feed 1",
            "BASE_FEED_2": "base feed 2",
            "QUOTE_VAULT": "quote vault",
            "QUOTE_FEED_1": "quote feed 1",
            "QUOTE_FEED_2": "quote feed 2",
        },
        ("SCALE_FACTOR",),
        answers=("BASE_FEED_1", "QUOTE_FEED_1"),
        price=("price",),
        scale=36,
    ),
    Shape(
        "Morpho oracle",
        FeedKind.COMPOSITE,
        ("SCALE_FACTOR",),
        facts=("SCALE_FACTOR",),
        lists={"base_feeds": "base feed", "quote_feeds": "quote feed"},
        price=("price",),
        scale=36,
    ),
    Shape(
        "Aave CAPO, capped rate",
        FeedKind.COMPOSITE,
        ("RATIO_PROVIDER", "getSnapshotRatio"),
        {"BASE_TO_USD_AGGREGATOR": "base price", "RATIO_PROVIDER": "ratio"},
        _CAPPED,
    ),
    Shape(
        "Aave CAPO, capped stablecoin",
        FeedKind.COMPOSITE,
        ("ASSET_TO_USD_AGGREGATOR", "getPriceCap"),
        {"ASSET_TO_USD_AGGREGATOR": "price"},
        ("getPriceCap", "isCapped"),
    ),
    Shape(
        "Aave synchronicity adapter",
        FeedKind.COMPOSITE,
        ("ASSET_TO_PEG",),
        {"ASSET_TO_PEG": "asset to peg", "PEG_TO_BASE": "peg to base", "BASE_TO_PEG": "base to peg"},
    ),
    Shape(
        "Compound multiplicative feed",
        FeedKind.COMPOSITE,
        ("priceFeedA", "priceFeedB"),
        {"priceFeedA": "factor A", "priceFeedB": "factor B"},
        ("combinedScale", "priceFeedScale"),
    ),
    Shape(
        "Compound scaling feed",
        FeedKind.COMPOSITE,
        ("underlyingPriceFeed",),
        {"underlyingPriceFeed": "price"},
    ),
    Shape(
        "Compound wstETH feed",
        FeedKind.COMPOSITE,
        ("stETHtoETHPriceFeed", "wstETH"),
        {"stETHtoETHPriceFeed": "stETH price", "wstETH": "ratio"},
    ),
    Shape("product of feeds", FeedKind.COMPOSITE, ("legs[0]",), lists={"legs": "factor"}),
    Shape(
        "answer adapter",
        FeedKind.COMPOSITE,
        ("target", "selector"),
        {"target": "price"},
        ("selector", "word", "from_decimals"),
        answers=("word",),
    ),
    Shape(
        "Euler cross adapter",
        FeedKind.COMPOSITE,
        ("oracleBaseCross", "oracleCrossQuote"),
        {"oracleBaseCross": "base to cross", "oracleCrossQuote": "cross to quote"},
        ("base", "quote"),
        price=(),
        scale=18,
        pair=("base", "quote"),
    ),
    Shape(
        "Euler router",
        FeedKind.COMPOSITE,
        ("governor",),
        {"fallbackOracle": "fallback for pairs that are not configured"},
        answers=("fallbackOracle",),
        apart=True,
    ),
    Shape(
        "Pyth adapter",
        FeedKind.PULL,
        ("pyth", "feedId"),
        {},
        ("pyth", "feedId", "base", "quote", "maxStaleness", "maxConfWidth"),
        price=(),
        scale=18,
        pair=("base", "quote"),
    ),
    Shape("Pyth feed", FeedKind.PULL, ("pyth", "priceId"), {}, ("pyth", "priceId")),
    Shape(
        "RedStone adapter",
        FeedKind.PULL,
        ("feedId", "maxStaleness"),
        {},
        ("feedId", "feedDecimals", "base", "quote", "maxStaleness"),
        answers=("feedDecimals",),
        price=(),
        scale=18,
        pair=("base", "quote"),
    ),
    Shape(
        "RedStone price feed",
        FeedKind.PUSH,
        ("getDataFeedId", "getPriceFeedAdapter"),
        {},
        ("getDataFeedId", "getPriceFeedAdapter"),
    ),
    Shape("Chronicle oracle", FeedKind.PUSH, ("wat", "bar", "decimals"), {}, ("wat", "bar")),
    Shape(
        "Maker OSM",
        FeedKind.PUSH,
        ("src", "hop"),
        {"src": "source"},
        ("hop", "zzz", "stopped"),
        price=("peek",),
        scale=18,
    ),
    Shape("Maker median", FeedKind.PUSH, ("bar",), {}, ("bar", "wat"), price=("peek",), scale=18),
    Shape(
        "API3 reader",
        FeedKind.PUSH,
        ("api3ServerV1",),
        {},
        ("api3ServerV1", "dapiName"),
        price=("api3_read",),
        scale=18,
    ),
    Shape(
        "Chainlink proxy",
        FeedKind.PUSH,
        ("aggregator",),
        {"aggregator": "aggregator"},
        ("phaseId",),
        answers=("phaseId",),
    ),
    Shape(
        "average over a pool",
        FeedKind.AMM_TWAP,
        ("pool", "twapWindow"),
        {"pool": "pool"},
        ("tokenA", "tokenB", "twapWindow"),
        scale=18,
        price=(),
        pair=("tokenA", "tokenB"),
    ),
    Shape(
        "average over a pool",
        FeedKind.AMM_TWAP,
        ("pool", "window"),
        {"pool": "pool"},
        ("base", "quote", "window"),
    ),
    Shape(
        "Uniswap V3 pool",
        FeedKind.AMM_SPOT,
        ("slot0", "token0"),
        {},
        ("token0", "token1", "fee", "liquidity"),
        price=("slot0",),
        scale=36,
    ),
    Shape(
        "Uniswap V2 pair",
        FeedKind.AMM_SPOT,
        ("getReserves", "token0"),
        {},
        ("token0", "token1"),
        price=("getReserves",),
        scale=36,
    ),
    Shape(
        "vault",
        FeedKind.RATE,
        ("asset",),
        {},
        ("asset", "symbol", "totalAssets", "totalSupply"),
        answers=("totalAssets", "totalSupply"),
        price=("convertToAssets",),
        scale=18,
    ),
    Shape(
        "rate of staked Ether",
        FeedKind.RATE,
        ("stETH",),
        {},
        ("stEthPerToken", "stETH"),
        answers=("stEthPerToken",),
        price=("stEthPerToken",),
        scale=18,
    ),
    Shape(
        "staked Ether",
        FeedKind.RATE,
        ("getPooledEthByShares",),
        price=("getPooledEthByShares",),
        scale=18,
    ),
    Shape("rate provider", FeedKind.RATE, ("getRate",), {}, ("getRate",), price=("getRate",), scale=18),
    Shape(
        "rate provider",
        FeedKind.RATE,
        ("getExchangeRate",),
        {},
        ("getExchangeRate",),
        price=("getExchangeRate",),
        scale=18,
    ),
    # cbETH: the account `oracle` alone sets the rate.
    Shape(
        "rate set by one key",
        FeedKind.RATE,
        ("oracle",),
        {},
        ("exchangeRate", "oracle"),
        answers=("exchangeRate",),
        price=("exchangeRate",),
        scale=18,
    ),
    Shape(
        "Euler adapter",
        FeedKind.COMPOSITE,
        ("maxStaleness", "feed", "base", "quote"),
        {"feed": "price"},
        ("base", "quote", "maxStaleness"),
        price=(),
        scale=18,
        pair=("base", "quote"),
    ),
    Shape("adapter", FeedKind.COMPOSITE, ("feed",), {"feed": "price"}, ("maxStaleness",)),
    Shape("adapter", FeedKind.COMPOSITE, ("priceFeed",), {"priceFeed": "price"}),
    Shape("adapter", FeedKind.COMPOSITE, ("source",), {"source": "price"}),
    # An aggregator is one by its bounds too, while it refuses to be read.
    Shape("price feed", FeedKind.PUSH, (), answers=("latestRoundData",)),
    Shape("price feed", FeedKind.PUSH, ("description", "decimals"), answers=("maxAnswer",)),
    Shape("price feed", FeedKind.PUSH, ("description", "decimals"), answers=("maxSubmissionValue",)),
    Shape("answer without a time", FeedKind.PUSH, (), answers=("latestAnswer",)),
)
