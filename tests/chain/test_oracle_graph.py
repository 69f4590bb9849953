"""The tree behind an oracle's address, on trees that stand on a local chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

from contracts_abi import feeds
from contracts_abi.artifacts import compile_vyper
from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted, InputError
from oracle.graph import OracleGraph, explore
from oracle.types import FeedKind
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm, labelled_address, transact
from simulation.report.oracle_graph import graph_svg
from tests.chain.conftest import Chain

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
                answers.append(evm.call(call.to, call.data))
            except CallReverted:
                answers.append(None)
        return answers

    return explore(address, execute, block=evm.block_number(), timestamp=evm.timestamp(), **limits)


@pytest.fixture
def feed(chain: Chain) -> Callable[..., str]:
    def deploy(description: str = "ETH / USD", low: int = 10**8, high: int = 10**12) -> str:
        evm = chain.evm
        aggregator = evm.create(
            OWNER, own("PriceAggregator").creation_code(8, description, 3_600, 50, low, high)
        )
        transact(evm, OWNER, aggregator, feeds.TRANSMIT, 200 * 10**8)
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
    # The aggregator answers neither a round nor an answer: nothing tells what it is, and that is said.
    assert found.nodes[leaf.address].kind is None


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
