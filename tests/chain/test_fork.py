"""A fork stands where the chain stood, answers like it, and leaves it alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contracts_abi import aave_v3
from contracts_abi.errors import ChainError, InputError, RpcUnavailable
from simulation.chain import feeds
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.deploy import deploy_market
from simulation.chain.evm import Evm, read
from simulation.chain.fork import fork
from simulation.chain.identity import code_identity
from simulation.chain.market import DEFAULT_MARKET, GENESIS, Deployment, MarketSpec
from tests.chain.bench import Bench


@dataclass(frozen=True)
class Original:
    node: Anvil
    evm: Evm
    market: Deployment


@pytest.fixture(scope="module")
def original() -> Iterator[Original]:
    with Anvil.start(AnvilOptions(timestamp=GENESIS, chain_id=4_242)) as node:
        evm = node.evm()
        spec = MarketSpec(assets=DEFAULT_MARKET.assets, emodes=DEFAULT_MARKET.emodes)
        yield Original(node, evm, deploy_market(evm, spec))


def price_e8(evm: Evm, market: Deployment) -> int:
    call = aave_v3.GET_ASSET_PRICE.call(market.oracle, market.asset("WETH").address)
    return int(read(evm, call))


def test_a_fork_continues_the_chain(original: Original) -> None:
    with fork(original.node.url) as node:
        evm = node.evm()
        assert evm.chain_id == 4_242
        assert (evm.block_number(), evm.timestamp()) == (
            original.evm.block_number(),
            original.evm.timestamp(),
        )
        assert code_identity(evm, original.market).runtime_equal


def test_what_happens_on_the_fork_stays_there(original: Original) -> None:
    height, price = original.evm.block_number(), price_e8(original.evm, original.market)
    with fork(original.node.url) as node:
        bench = Bench(node.evm(), original.market)
        bench.move("WETH", -20)
        alice = bench.account("alice", {"WETH": 10_000}, {"USDC": 5_000})
        bench.move("WETH", -60)
        assert bench.health_factor_wad(alice) < 10**18
        assert price_e8(bench.evm, original.market) != price
    assert original.evm.block_number() == height
    assert price_e8(original.evm, original.market) == price


def test_a_fork_of_an_earlier_block_does_not_know_what_came_later(original: Original) -> None:
    before = original.evm.block_number() - 1
    old = price_e8(original.evm, original.market)
    weth = original.market.asset("WETH")
    feeds.post(original.evm, original.market.deployer, weth.feed, old // 2)
    with fork(original.node.url, before) as node:
        evm = node.evm()
        assert evm.block_number() == before + 1
        assert price_e8(evm, original.market) == old
    assert price_e8(original.evm, original.market) == old // 2
    feeds.post(original.evm, original.market.deployer, weth.feed, old)


def test_a_block_that_is_not_there_yet_is_refused(original: Original) -> None:
    head = original.evm.block_number() - 1
    with pytest.raises(InputError, match=f"no block {head + 1} yet; its head is at {head}"):
        fork(original.node.url, head + 1)
    with pytest.raises(InputError, match="must not be negative"):
        fork(original.node.url, -1)


def test_a_chain_that_does_not_answer_is_one_line_without_its_key() -> None:
    with Anvil.start() as node:
        gone = f"http://user:password@127.0.0.1:{node.port}/key"
    with pytest.raises(RpcUnavailable, match="no connection") as raised:
        fork(gone)
    assert "password" not in str(raised.value)
    assert "key" not in str(raised.value)
    # Also when the node itself finds out.
    with pytest.raises(ChainError) as raised_by_node:
        Anvil.start(AnvilOptions(chain_id=None, fork_url=gone))
    assert "password" not in str(raised_by_node.value)
