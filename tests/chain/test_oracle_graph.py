"""The tree behind an oracle's address, on trees that stand on a local chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

from contracts_abi import feeds
from contracts_abi.artifacts import compile_vyper
from contracts_abi.calls import Call, function
from contracts_abi.errors import CallReverted, InputError
from keeper.commands.oracle_look import graph_json
from oracle.graph import OracleGraph, explore
from oracle.graph_guards import Answerable, graph_guards, over_tree
from oracle.types import FeedKind, GuardStatus
from simulation.chain.artifacts import aave, chainlink, openzeppelin, own, uniswap_twap
from simulation.chain.evm import Evm, labelled_address, transact
from simulation.report.oracle_graph import graph_svg
from tests.chain.conftest import Chain
from tests.command_line import assert_exact

OWNER = labelled_address("feed owner")
KEY = labelled_address("the one key")

PRODUCT = """
# pragma version 0.4.3
interface Feed:
    def latestAnswer() -> int256: view

priceFeedA: public(immutable(address))
priceFeedB: public(immutable(address))
decimals: public(constant(uint8)) = 8
description: public(constant(String[32])) = "wstETH / USD"

@deploy
def __init__(a: address, b: address):
    priceFeedA = a
    priceFeedB = b

@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    a: int256 = staticcall Feed(priceFeedA).latestAnswer()
    b: int256 = staticcall Feed(priceFeedB).latestAnswer()
    return 1, a * b // 10**8, block.timestamp, block.timestamp, 1
"""

CAPPED = """
# pragma version 0.4.3
ASSET_TO_USD_AGGREGATOR: public(immutable(address))
getPriceCap: public(constant(int256)) = 104_000_000
isCapped: public(constant(bool)) = False
decimals: public(constant(uint8)) = 8

@deploy
def __init__(inner: address):
    ASSET_TO_USD_AGGREGATOR = inner
"""

ONE_KEY = """
# pragma version 0.4.3
oracle: public(immutable(address))
exchangeRate: public(constant(uint256)) = 1_080_000_000_000_000_000

@deploy
def __init__(key: address):
    oracle = key
"""


def tree(evm: Evm, address: str, **limits: Any) -> OracleGraph:
    def execute(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        answers: list[bytes | None] = []
        for call in calls:
            try:
                answers.append(evm.call(call.to, call.data, gas=10_000_000))
            except CallReverted:
                answers.append(None)
        return answers

    return explore(address, execute, block=evm.block_number(), timestamp=evm.timestamp(), **limits)


@pytest.fixture
def feed(chain: Chain) -> Callable[..., str]:
    def deploy(
        description: str = "ETH / USD",
        low: int = 10**8,
        high: int = 10**12,
        decimals: int = 8,
        answer: int = 200 * 10**8,
    ) -> str:
        evm = chain.evm
        aggregator = evm.create(
            OWNER, own("PriceAggregator").creation_code(decimals, description, 3_600, 50, low, high)
        )
        transact(evm, OWNER, aggregator, feeds.TRANSMIT, answer)
        return evm.create(OWNER, own("PriceFeed").creation_code(aggregator))

    return deploy


def test_aaves_oracle_to_its_leaves(chain: Chain) -> None:
    found = tree(chain.evm, chain.market.oracle)
    root = found.nodes[found.root]
    assert root.shape == "Aave oracle"
    # No fallback is set: the zero address is no leg.
    assert {leg.role: leg.address for leg in root.legs} == {
        symbol: asset.feed for symbol, asset in chain.market.assets.items()
    }
    for asset in chain.market.assets.values():
        proxy = found.nodes[asset.feed]
        assert (proxy.shape, proxy.decimals, proxy.kind) == ("Chainlink proxy", 8, FeedKind.PUSH)
        (leg,) = proxy.legs
        aggregator = found.nodes[leg.address]
        assert aggregator.legs == ()
        assert aggregator.answer == proxy.answer
        assert aggregator.updated_at == proxy.updated_at
        assert (aggregator.heartbeat_s, aggregator.deviation_bps) == (3_600, 50)
        assert aggregator.roles["transmitter"] == chain.market.deployer
    assert {node.shape for node in found.leaves()} == {"price feed"}


def test_a_leg_that_two_share_stands_once(chain: Chain, feed: Callable[..., str]) -> None:
    base = feed()
    product = chain.evm.create(OWNER, compile_vyper("Product", PRODUCT).creation_code(base, base))
    found = tree(chain.evm, product)
    root = found.nodes[product]
    assert root.shape == "Compound multiplicative feed"
    assert [leg.role for leg in root.legs] == ["factor A", "factor B"]
    assert {leg.address for leg in root.legs} == {base}
    assert len(found.nodes) == 3


def test_a_cap_over_a_product_over_feeds(chain: Chain, feed: Callable[..., str]) -> None:
    product = chain.evm.create(
        OWNER, compile_vyper("Product", PRODUCT).creation_code(feed(), feed("wstETH / ETH"))
    )
    cap = chain.evm.create(OWNER, compile_vyper("Capped", CAPPED).creation_code(product))
    found = tree(chain.evm, cap)
    assert [node.shape for node in found.nodes.values()] == [
        "Aave CAPO, capped stablecoin",
        "Compound multiplicative feed",
        *["Chainlink proxy"] * 2,
        *["price feed"] * 2,
    ]
    assert found.nodes[cap].facts == {"getPriceCap": "104000000", "isCapped": "False"}


def test_bounds_that_bind_nothing_are_said_to(chain: Chain, feed: Callable[..., str]) -> None:
    narrow, wide = (tree(chain.evm, at).leaves()[0] for at in (feed(), feed(low=1, high=2**95)))
    assert (narrow.min_answer, narrow.max_answer, narrow.bounds_vacuous) == (10**8, 10**12, False)
    assert wide.bounds_vacuous


def test_a_proxy_is_bound_by_its_aggregator(chain: Chain, feed: Callable[..., str]) -> None:
    proxy = feed()
    views = {view.guard: view for view in graph_guards(tree(chain.evm, proxy))[proxy]}
    assert (views["G03"].status, views["G06"].status) == (GuardStatus.OK, GuardStatus.OK)
    vacuous = feed(low=1, high=2**95)
    views = {view.guard: view for view in graph_guards(tree(chain.evm, vacuous))[vacuous]}
    assert views["G06"].reason.startswith("bounds vacuous")


def test_a_rate_that_one_key_sets_names_the_key(chain: Chain) -> None:
    rate = chain.evm.create(OWNER, compile_vyper("OneKey", ONE_KEY).creation_code(KEY))
    (node,) = tree(chain.evm, rate).nodes.values()
    assert (node.shape, node.kind, node.facts["oracle"]) == ("rate set by one key", FeedKind.RATE, KEY)


def test_a_pool_is_a_leaf_and_a_spot_price(chain: Chain) -> None:
    (node,) = tree(chain.evm, chain.market.uniswap.pools[0].address).nodes.values()
    assert (node.shape, node.kind) == ("Uniswap V3 pool", FeedKind.AMM_SPOT)


def test_a_feed_that_does_not_answer_is_still_told(chain: Chain, feed: Callable[..., str]) -> None:
    proxy = feed()
    (leaf,) = tree(chain.evm, proxy).leaves()
    transact(chain.evm, OWNER, leaf.address, feeds.SET_READ_MODE, feeds.READS_REVERT)
    found = tree(chain.evm, proxy)
    assert found.nodes[proxy].shape == "Chainlink proxy"
    assert found.nodes[proxy].answer is None
    # The aggregator answers neither a round nor an answer; its bounds still tell what it is.
    dead = found.nodes[leaf.address]
    assert (dead.shape, dead.answer) == ("price feed", None)
    assert dead.problem == "latestRoundData() and latestAnswer() give no answer"
    assert {v.guard: v for v in graph_guards(found)[proxy]}["G01"].status is GuardStatus.VIOLATED


def test_deeper_than_asked_is_named_and_not_read(chain: Chain) -> None:
    found = tree(chain.evm, chain.market.oracle, depth=1)
    below = [node for at, node in found.nodes.items() if at != found.root]
    assert len(below) == len(chain.market.assets)
    assert {node.shape for node in below} == {"not read: deeper than 1"}


@pytest.mark.parametrize("given", ["0x1234", "", "ETH/USD"])
def test_what_is_no_address_is_refused(chain: Chain, given: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        tree(chain.evm, given)


def test_an_account_is_no_oracle(chain: Chain) -> None:
    with pytest.raises(InputError, match="answers nothing that a price feed answers"):
        tree(chain.evm, OWNER)


def test_the_picture_holds_every_contract_and_edge_and_is_the_same_each_time(chain: Chain) -> None:
    found = tree(chain.evm, chain.market.oracle)
    picture = graph_svg(found)
    assert picture == graph_svg(found)
    root = ElementTree.fromstring(picture)
    paths = [e for e in root.iter() if e.tag.endswith("path")]
    assert len(paths) == sum(len(node.legs) for node in found.nodes.values())
    texts = "".join(e.text or "" for e in root.iter() if e.tag.endswith("text"))
    for node in found.nodes.values():
        assert node.address[:22] in texts


# ------------------------------------------------------------------------------- this project's own adapters


def shape_of(found: OracleGraph) -> tuple[str, list[tuple[str, str]]]:
    """Return the root's kind, and the role and kind of each of its legs."""
    root = found.nodes[found.root]
    return root.shape, [(leg.role, found.nodes[leg.address].shape) for leg in root.legs]


def test_an_answer_adapter_names_its_target(chain: Chain, feed: Callable[..., str]) -> None:
    at = chain.evm.create(
        OWNER, own("AnswerAdapter").creation_code(feed(), feeds.LATEST_ANSWER.selector, 0, 8)
    )
    found = tree(chain.evm, at)
    assert shape_of(found) == ("answer adapter", [("price", "Chainlink proxy")])
    root = found.nodes[at]
    assert (root.answer, root.decimals) == (200 * 10**8, 8)
    assert root.facts["selector"] == "0x" + feeds.LATEST_ANSWER.selector.hex()
    # It says what its target says and no time: the target's holds for it, as its bounds do.
    views = {view.guard: view for view in graph_guards(found)[at]}
    assert (views["G03"].status, views["G06"].status) == (GuardStatus.OK, GuardStatus.OK)
    scaled = tree(
        chain.evm,
        chain.evm.create(
            OWNER, own("AnswerAdapter").creation_code(feed(), feeds.LATEST_ANSWER.selector, 0, 6)
        ),
    )
    other = {view.guard: view for view in graph_guards(scaled, heartbeat_s=3_600)[scaled.root]}
    assert (other["G03"].answer, other["G03"].reason) == (Answerable.CANNOT, "the source carries no time")
    assert views["G13"].status is GuardStatus.OK


def test_a_product_names_all_its_legs(chain: Chain, feed: Callable[..., str]) -> None:
    legs = [feed("A / B"), feed("B / C"), feed("C / USD")]
    at = chain.evm.create(OWNER, own("ProductFeed").creation_code(8, legs))
    found = tree(chain.evm, at)
    assert shape_of(found) == (
        "product of feeds",
        [(f"factor {i}", "Chainlink proxy") for i in (1, 2, 3)],
    )
    assert found.nodes[at].roles == {"owner": OWNER}


def test_scaled_multiplied_and_capped_in_a_row(chain: Chain, feed: Callable[..., str]) -> None:
    evm = chain.evm
    scaled = evm.create(OWNER, own("ScalingFeed").creation_code(feed(), 18))
    product = evm.create(OWNER, own("MultiplicativeFeed").creation_code(scaled, feed(), 8, "X / USD"))
    found = tree(evm, product)
    assert shape_of(found) == (
        "Compound multiplicative feed",
        [("factor A", "Compound scaling feed"), ("factor B", "Chainlink proxy")],
    )
    assert found.nodes[product].updated_at is not None


def test_a_capped_rate_with_its_cap(chain: Chain, feed: Callable[..., str]) -> None:
    evm = chain.evm
    rate = feed("wstETH / ETH", decimals=18, answer=11 * 10**17, high=10**20)
    arguments = (feed(), rate, 18, 0, 10**18, evm.timestamp() - 86_400, 500)
    at = evm.create(OWNER, own("CapoFeed").creation_code(*arguments))
    found = tree(evm, at)
    assert shape_of(found) == (
        "Aave CAPO, capped rate",
        [("base price", "Chainlink proxy"), ("ratio", "Chainlink proxy")],
    )
    node = found.nodes[at]
    assert node.facts["isCapped"] == "True"
    assert node.live == 11 * 10**17
    # A day of five percent a year, as the contract applied it to its answer.
    assert node.cap is not None
    assert node.answer == 200 * 10**8 * node.cap // 10**18
    views = {view.guard: view for view in graph_guards(found)[at]}
    assert views["G16"].status is GuardStatus.VIOLATED


def test_a_capped_stablecoin_is_held_against_what_it_caps(chain: Chain, feed: Callable[..., str]) -> None:
    at = chain.evm.create(
        OWNER, own("StableCapFeed").creation_code(feed("USDC / USD", 1, answer=10**8), 104 * 10**6)
    )
    found = tree(chain.evm, at)
    node = found.nodes[at]
    assert shape_of(found) == ("Aave CAPO, capped stablecoin", [("price", "Chainlink proxy")])
    assert (node.cap, node.live) == (104 * 10**6, 10**8)
    assert {view.guard: view for view in graph_guards(found)[at]}["G16"].status is GuardStatus.OK


@pytest.mark.parametrize("base_feeds", [0, 1, 2])
def test_a_morpho_oracle_names_the_feeds_that_it_has(
    chain: Chain, feed: Callable[..., str], base_feeds: int
) -> None:
    bases = [feed(f"B{i} / USD") for i in range(base_feeds)]
    at = chain.evm.create(OWNER, own("MorphoOracle").creation_code(bases, [feed("USDC / USD")], 18, 18))
    found = tree(chain.evm, at)
    assert shape_of(found) == (
        "Morpho oracle",
        [
            *((f"base feed {i + 1}", "Chainlink proxy") for i in range(base_feeds)),
            ("quote feed 1", "Chainlink proxy"),
        ],
    )
    assert found.nodes[at].decimals == 36
    assert found.nodes[at].answer is not None


def test_an_osm_says_the_price_in_effect(chain: Chain, feed: Callable[..., str]) -> None:
    source = feed(decimals=18, answer=201 * 10**18, high=10**24)
    at = chain.evm.create(OWNER, own("Osm").creation_code(source, 3_600, 200 * 10**18, 0, 0))
    found = tree(chain.evm, at)
    assert shape_of(found) == ("Maker OSM", [("source", "Chainlink proxy")])
    assert (found.nodes[at].answer, found.nodes[at].decimals) == (200 * 10**18, 18)
    empty = chain.evm.create(OWNER, own("Osm").creation_code(source, 3_600, 0, 0, 0))
    assert tree(chain.evm, empty).nodes[empty].problem == "it has no price in effect"


# ------------------------------------------------------------------------------- contracts of other authors


def test_chainlinks_own_proxy_and_aggregator(chain: Chain) -> None:
    evm, nobody = chain.evm, "0x" + "00" * 20
    flux = evm.create(
        OWNER,
        chainlink("FluxAggregator").creation_code(OWNER, 0, 600, nobody, 10**8, 10**12, 8, "ETH / USD"),
    )
    writer = labelled_address("an oracle")
    change = function("changeOracles(address[],address[],address[],uint32,uint32,uint32)")
    transact(evm, OWNER, flux, change, [], [writer], [OWNER], 1, 1, 0)
    proxy = evm.create(OWNER, chainlink("EACAggregatorProxy").creation_code(flux, nobody))
    found = tree(evm, proxy)
    assert shape_of(found) == ("Chainlink proxy", [("aggregator", "price feed")])
    leaf = found.nodes[flux]
    # Not a round yet: it reverts, and is told by its bounds.
    assert (leaf.min_answer, leaf.max_answer, leaf.writers) == (10**8, 10**12, (writer,))
    transact(evm, writer, flux, function("submit(uint256,int256)"), 1, 200 * 10**8)
    leaf = tree(evm, proxy).nodes[flux]
    assert (leaf.answer, leaf.round_id, leaf.problem) == (200 * 10**8, 1, "")


def test_openzeppelins_vault_is_a_rate(chain: Chain) -> None:
    evm = chain.evm
    token = evm.create(OWNER, openzeppelin("Token").creation_code(18))
    vault = evm.create(OWNER, openzeppelin("Vault").creation_code(token, 0))
    (node,) = tree(evm, vault).nodes.values()
    assert (node.shape, node.kind, node.answer, node.decimals) == ("vault", FeedKind.RATE, 10**18, 18)
    views = {view.guard: view for view in graph_guards(tree(evm, vault))[vault]}
    # No share stands behind the rate: a donation sets it.
    assert views["G15"].status is GuardStatus.VIOLATED


def test_an_average_names_its_pool_and_its_window(chain: Chain) -> None:
    evm, pool = chain.evm, chain.market.uniswap.pools[0].address
    token0, token1 = (
        function(f"{name}()(address)").decode_one(evm.call(pool, function(f"{name}()(address)").encode()))
        for name in ("token0", "token1")
    )
    at = evm.create(OWNER, uniswap_twap("TwapFeed").creation_code(pool, token0, token1, 10**18, 300, 8))
    found = tree(evm, at)
    assert shape_of(found) == ("average over a pool", [("pool", "Uniswap V3 pool")])
    node = found.nodes[at]
    assert (node.kind, node.window_s) == (FeedKind.AMM_TWAP, 300)
    spot = found.nodes[pool]
    assert spot.answer
    assert spot.locked is False
    views = {view.guard: view for view in graph_guards(found)[pool]}
    assert views["G19"].status is GuardStatus.OK
    assert views["G13"].status is GuardStatus.VIOLATED


def test_aaves_fallback_is_a_leg_and_no_market(chain: Chain) -> None:
    evm, market = chain.evm, chain.market
    fallback = evm.create(OWNER, aave("PriceOracle").creation_code())
    transact(evm, market.deployer, market.oracle, function("setFallbackOracle(address)"), fallback)
    found = tree(evm, market.oracle)
    root = found.nodes[found.root]
    assert [leg.role for leg in root.legs if not leg.market] == ["fallback"]
    views = {view.guard: view for view in graph_guards(found)[found.root]}
    assert views["G25"].status is GuardStatus.OK
    # It has no price of its own, and none is missed.
    assert views["G01"].answer is Answerable.OTHER_KIND


def test_aaves_oracle_with_a_source_that_is_dead(chain: Chain) -> None:
    asset = next(iter(chain.market.assets.values()))
    (leg,) = tree(chain.evm, asset.feed).nodes[asset.feed].legs
    transact(chain.evm, chain.market.deployer, leg.address, feeds.SET_READ_MODE, feeds.READS_REVERT)
    found = tree(chain.evm, chain.market.oracle)
    views = {view.guard: view for view in graph_guards(found)[found.root]}
    assert views["G25"].status is GuardStatus.VIOLATED
    blind = {row.guard: row.blind for row in over_tree(found, graph_guards(found))}
    assert leg.address in {leaf.address for leaf in blind["G02"]}


STAND_IN = """
# pragma version 0.4.3
{getters}
"""

IN = "0x" + "11" * 20
"""Where a stand-in's getter of an address leads, when it is not to lead to a feed."""


def stand_in(evm: Evm, getters: str, leg: str = IN) -> str:
    """Return a contract of a few constant getters: ``name type value`` a line, `leg` for LEG."""
    text = "\n".join(
        f"@external\n@view\ndef {name} -> {type_}:\n    return {value}\n"
        for name, type_, value in (line.split(" ; ") for line in getters.strip().splitlines())
    ).replace("LEG", leg)
    return evm.create(OWNER, compile_vyper("StandIn", STAND_IN.format(getters=text)).creation_code())


ADDR = "address"
ZERO = "empty(address)"
ROUND = "(uint80, int256, uint256, uint256, uint80)"

AUTHORS = {
    "MorphoChainlinkOracleV2": (
        f"""
price() ; uint256 ; 10**36
SCALE_FACTOR() ; uint256 ; 10**24
BASE_VAULT() ; {ADDR} ; {ZERO}
BASE_FEED_1() ; {ADDR} ; LEG
BASE_FEED_2() ; {ADDR} ; {ZERO}
QUOTE_VAULT() ; {ADDR} ; {ZERO}
QUOTE_FEED_1() ; {ADDR} ; {ZERO}
QUOTE_FEED_2() ; {ADDR} ; {ZERO}""",
        ("Morpho Chainlink oracle", FeedKind.COMPOSITE, ["base feed 1"], 10**36),
    ),
    "EulerRouter": (
        f"governor() ; {ADDR} ; LEG\nfallbackOracle() ; {ADDR} ; {ZERO}",
        ("Euler router", FeedKind.COMPOSITE, [], None),
    ),
    "CrossAdapter": (
        f"""
oracleBaseCross() ; {ADDR} ; LEG
oracleCrossQuote() ; {ADDR} ; LEG
base() ; {ADDR} ; LEG
quote() ; {ADDR} ; LEG
getQuote(a: uint256, b: address, c: address) ; uint256 ; a * 2""",
        ("Euler cross adapter", FeedKind.COMPOSITE, ["base to cross", "cross to quote"], 2 * 10**18),
    ),
    "Euler's ChainlinkOracle": (
        f"""
feed() ; {ADDR} ; LEG
maxStaleness() ; uint256 ; 3600
base() ; {ADDR} ; LEG
quote() ; {ADDR} ; LEG
getQuote(a: uint256, b: address, c: address) ; uint256 ; a * 3""",
        ("Euler adapter", FeedKind.COMPOSITE, ["price"], 3 * 10**18),
    ),
    "Euler's PythOracle": (
        f"""
pyth() ; {ADDR} ; LEG
feedId() ; bytes32 ; 0x{"ab" * 32}
base() ; {ADDR} ; LEG
quote() ; {ADDR} ; LEG
maxStaleness() ; uint256 ; 60
maxConfWidth() ; uint256 ; 200
getQuote(a: uint256, b: address, c: address) ; uint256 ; a * 3""",
        ("Pyth adapter", FeedKind.PULL, [], 3 * 10**18),
    ),
    "Euler's UniswapV3Oracle": (
        f"""
pool() ; {ADDR} ; LEG
tokenA() ; {ADDR} ; LEG
tokenB() ; {ADDR} ; LEG
twapWindow() ; uint32 ; 300
getQuote(a: uint256, b: address, c: address) ; uint256 ; a""",
        ("average over a pool", FeedKind.AMM_TWAP, ["pool"], 10**18),
    ),
    "PythAggregatorV3": (
        f"""
pyth() ; {ADDR} ; LEG
priceId() ; bytes32 ; 0x{"ab" * 32}
decimals() ; uint8 ; 8
latestRoundData() ; {ROUND} ; (7, 5, 9, 9, 7)""",
        ("Pyth feed", FeedKind.PULL, [], 5),
    ),
    "RedStone's price feed": (
        f"""
getDataFeedId() ; bytes32 ; 0x{"ab" * 32}
getPriceFeedAdapter() ; {ADDR} ; LEG
decimals() ; uint8 ; 8
latestRoundData() ; {ROUND} ; (7, 5, 9, 9, 7)""",
        ("RedStone price feed", FeedKind.PUSH, [], 5),
    ),
    "Chronicle": (
        f"wat() ; bytes32 ; 0x{'ab' * 32}\nbar() ; uint8 ; 13\ndecimals() ; uint8 ; 18",
        ("Chronicle oracle", FeedKind.PUSH, [], None),
    ),
    "Maker's median": (
        f"wat() ; bytes32 ; 0x{'ab' * 32}\nbar() ; uint256 ; 13\nage() ; uint32 ; 9\n"
        "peek() ; (uint256, bool) ; (5, True)",
        ("Maker median", FeedKind.PUSH, [], 5),
    ),
    "API3": (
        f"api3ServerV1() ; {ADDR} ; LEG\nread() ; (int224, uint32) ; (5, 9)",
        ("API3 reader", FeedKind.PUSH, [], 5),
    ),
    "CLSynchronicityPriceAdapterPegToBase": (
        f"""
ASSET_TO_PEG() ; {ADDR} ; LEG
PEG_TO_BASE() ; {ADDR} ; LEG
latestAnswer() ; int256 ; 5""",
        ("Aave synchronicity adapter", FeedKind.COMPOSITE, ["asset to peg", "peg to base"], 5),
    ),
    "CLSynchronicityPriceAdapterBaseToPeg": (
        f"""
ASSET_TO_PEG() ; {ADDR} ; LEG
BASE_TO_PEG() ; {ADDR} ; LEG
latestAnswer() ; int256 ; 5""",
        ("Aave synchronicity adapter", FeedKind.COMPOSITE, ["asset to peg", "base to peg"], 5),
    ),
    "Euler's RedstoneCoreOracle": (
        f"""
feedId() ; bytes32 ; 0x{"ab" * 32}
feedDecimals() ; uint8 ; 8
maxStaleness() ; uint256 ; 300
base() ; {ADDR} ; LEG
quote() ; {ADDR} ; LEG
getQuote(a: uint256, b: address, c: address) ; uint256 ; a * 3""",
        ("RedStone adapter", FeedKind.PULL, [], 3 * 10**18),
    ),
    "UniswapV2Pair": (
        f"""
token0() ; {ADDR} ; LEG
token1() ; {ADDR} ; LEG
getReserves() ; (uint112, uint112, uint32) ; (2, 3, 9)""",
        ("Uniswap V2 pair", FeedKind.AMM_SPOT, [], 15 * 10**35),
    ),
    "WstETHPriceFeed": (
        f"""
stETHtoETHPriceFeed() ; {ADDR} ; LEG
wstETH() ; {ADDR} ; LEG
decimals() ; uint8 ; 8
latestRoundData() ; {ROUND} ; (7, 5, 9, 9, 7)""",
        ("Compound wstETH feed", FeedKind.COMPOSITE, ["stETH price", "ratio"], 5),
    ),
    "wstETH": (
        f"stETH() ; {ADDR} ; LEG\nstEthPerToken() ; uint256 ; 12 * 10**17",
        ("rate of staked Ether", FeedKind.RATE, [], 12 * 10**17),
    ),
    "stETH": (
        "getPooledEthByShares(shares: uint256) ; uint256 ; shares * 12 // 10",
        ("staked Ether", FeedKind.RATE, [], 12 * 10**17),
    ),
    "rETH": (
        "getExchangeRate() ; uint256 ; 11 * 10**17",
        ("rate provider", FeedKind.RATE, [], 11 * 10**17),
    ),
    "weETH": ("getRate() ; uint256 ; 11 * 10**17", ("rate provider", FeedKind.RATE, [], 11 * 10**17)),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_stand_ins_with_the_getters_of_other_authors(chain: Chain, name: str) -> None:
    getters, (shape, kind, legs, answer) = AUTHORS[name]
    at = stand_in(chain.evm, getters)
    node = tree(chain.evm, at).nodes[at]
    assert (node.shape, node.kind) == (shape, kind)
    assert [leg.role for leg in node.legs] == legs
    assert node.answer == answer
    assert (node.answer is None) is bool(node.problem)


# ------------------------------------------------------------------------------------- what makes no sense


def runtime(evm: Evm, name: str, code: str) -> str:
    at = labelled_address(name)
    evm.set_code(at, bytes.fromhex(code))
    return at


# What a contract does whatever it is asked, as runtime code.
NONSENSE = {
    "ones": "5f195f5260205ff3",
    "one": "60015f5260205ff3",
    "zeros": "60205ff3",
    "seven bytes": "60075ff3",
    "a string beyond its end": "60205f52600160fe1b60205260405ff3",
    "a revert": "5f5ffd",
    "a loop": "5b5f56",
    "an invalid instruction": "fe",
    "nothing": "00",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_leg_that_makes_no_sense_is_a_node_that_says_so(
    chain: Chain, feed: Callable[..., str], name: str
) -> None:
    bad = runtime(chain.evm, name, NONSENSE[name])
    product = chain.evm.create(OWNER, compile_vyper("Product", PRODUCT).creation_code(feed(), bad))
    found = tree(chain.evm, product)
    node = found.nodes[bad]
    assert (node.kind, node.answer, node.legs, node.facts) == (None, None, (), {})
    assert node.problem in (
        "it answers whatever it is asked",
        "every read reverts",
        "no contract stands here, or one that answers nothing",
    )
    assert {view.guard: view for view in graph_guards(found)[bad]}["G01"].status is GuardStatus.VIOLATED
    ElementTree.fromstring(graph_svg(found, graph_guards(found)))
    with pytest.raises(InputError, match=node.problem):
        tree(chain.evm, bad)


def test_an_account_as_a_leg(chain: Chain, feed: Callable[..., str]) -> None:
    product = chain.evm.create(OWNER, compile_vyper("Product", PRODUCT).creation_code(feed(), OWNER))
    node = tree(chain.evm, product).nodes[OWNER]
    assert node.problem == "no contract stands here, or one that answers nothing"


SELF = """
# pragma version 0.4.3
aggregator: public(address)
phaseId: public(constant(uint16)) = 1
decimals: public(constant(uint8)) = 8

interface Feed:
    def latestAnswer() -> int256: view

@external
def point(at: address):
    self.aggregator = at

@external
@view
def latestAnswer() -> int256:
    return staticcall Feed(self.aggregator).latestAnswer()
"""
POINT = function("point(address)")


def ring(evm: Evm, length: int, *, closed: bool = True, last: str | None = None) -> list[str]:
    code = compile_vyper("Self", SELF).creation_code()
    proxies = [evm.create(OWNER, code) for _ in range(length)]
    nexts = [*proxies[1:], proxies[0] if closed else last]
    for at, to in zip(proxies, nexts, strict=True):
        if to is not None:
            transact(evm, OWNER, at, POINT, to)
    return proxies


def test_a_proxy_that_names_itself(chain: Chain) -> None:
    (at,) = ring(chain.evm, 1)
    node = tree(chain.evm, at).nodes[at]
    assert node.legs == ()
    assert node.answer is None
    assert "aggregator() names the contract itself" in node.problem


@pytest.mark.parametrize("length", [2, 3])
def test_a_circle_is_said_and_comes_to_an_end(chain: Chain, length: int) -> None:
    proxies = ring(chain.evm, length)
    found = tree(chain.evm, proxies[0])
    assert set(found.nodes) == set(proxies)
    for node in found.nodes.values():
        assert "its price comes from itself, through aggregator" in node.problem
    views = graph_guards(found)
    assert over_tree(found, views) == ()
    ElementTree.fromstring(graph_svg(found, views))


def test_a_chain_of_forty(chain: Chain, feed: Callable[..., str]) -> None:
    proxies = ring(chain.evm, 40, closed=False, last=feed())
    found = tree(chain.evm, proxies[0])
    assert len(found.nodes) == 11
    assert found.nodes[proxies[10]].problem == "not read: deeper than 10"
    whole = tree(chain.evm, proxies[0], depth=50)
    assert len(whole.nodes) == 42
    assert whole.leaves()[0].answer == 200 * 10**8


LOUD = """
# pragma version 0.4.3
decimals: public(constant(uint8)) = 255
heartbeat: public(constant(uint256)) = max_value(uint256)

@external
@view
def description() -> String[400]:
    return "\\x1b[31m<script>[bold]"

@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    return max_value(uint80), min_value(int256), max_value(uint256), max_value(uint256), 0
"""


def test_what_a_contract_says_is_shown_safely(chain: Chain) -> None:
    at = chain.evm.create(OWNER, compile_vyper("Loud", LOUD).creation_code())
    found = tree(chain.evm, at)
    views = graph_guards(found)
    assert found.nodes[at].description == "\ufffd[31m<script>[bold]"
    picture = graph_svg(found, views)
    ElementTree.fromstring(picture)
    assert "<script>" not in picture
    assert_exact(json.loads(json.dumps(graph_json(found, views))))
