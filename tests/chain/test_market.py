"""The deployed market is what its specification says, and the same on every backend."""

from __future__ import annotations

import dataclasses

import pytest

from contracts_abi import aave_v3, feeds
from contracts_abi import uniswap_v3 as uniswap
from contracts_abi.calls import function
from contracts_abi.errors import CallReverted
from simulation.chain import revm
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.deploy import deploy_market
from simulation.chain.evm import labelled_address, read, transact
from simulation.chain.market import DEFAULT_MARKET, GENESIS, MarketSpec
from tests.chain.bench import Bench
from tests.chain.conftest import Chain

WITHDRAW = function("withdraw(uint256)")


@pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only")
def test_both_backends_give_the_same_addresses_and_code() -> None:
    with Anvil.start(AnvilOptions(timestamp=GENESIS)) as node:
        on_anvil = deploy_market(node.evm())
    assert deploy_market(revm.RevmEvm(timestamp=GENESIS + 1)) == on_anvil


def test_reserves_stand_in_order_with_their_parameters(chain: Chain) -> None:
    evm, market = chain.evm, chain.market
    addresses = [market.asset(spec.symbol).address.lower() for spec in DEFAULT_MARKET.assets]
    assert list(read(evm, aave_v3.GET_RESERVES_LIST.call(market.pool))) == addresses
    for spec in DEFAULT_MARKET.assets:
        asset = market.asset(spec.symbol).address
        word = read(evm, aave_v3.GET_CONFIGURATION.call(market.pool, asset))
        # Offsets and widths of ReserveConfiguration.sol.
        assert _bits(word, 0, 16) == spec.ltv_bps
        assert _bits(word, 16, 16) == spec.liquidation_threshold_bps
        assert _bits(word, 32, 16) == spec.liquidation_bonus_bps
        assert _bits(word, 48, 8) == spec.decimals
        assert _bits(word, 56, 4) == 0b0101  # active, not frozen, borrowing, no stable borrowing
        assert _bits(word, 60, 4) == 0b1000  # not paused, not isolated, not siloed, flash loans
        assert _bits(word, 64, 16) == spec.reserve_factor_bps
        assert _bits(word, 152, 16) == spec.liquidation_protocol_fee_bps
        assert _bits(word, 168, 8) == spec.emode_category


def _bits(word: int, start: int, width: int) -> int:
    return word >> start & (1 << width) - 1


def test_tokens_of_a_reserve_are_the_pools_own(chain: Chain) -> None:
    for asset in chain.market.assets.values():
        data = read(chain.evm, aave_v3.GET_RESERVE_DATA.call(chain.market.pool, asset.address))
        assert (data[8], data[10]) == (asset.a_token.lower(), asset.v_token.lower())


def test_the_efficiency_mode_is_set(chain: Chain) -> None:
    (mode,) = DEFAULT_MARKET.emodes
    found = read(chain.evm, aave_v3.GET_EMODE_CATEGORY_DATA.call(chain.market.pool, mode.category))
    assert found[:3] == (mode.ltv_bps, mode.liquidation_threshold_bps, mode.liquidation_bonus_bps)
    assert found[4] == mode.label


def test_the_oracle_reads_the_feed_and_not_the_reference(chain: Chain) -> None:
    evm, market = chain.evm, chain.market
    for spec in DEFAULT_MARKET.assets:
        asset = market.asset(spec.symbol)
        assert read(evm, aave_v3.GET_ASSET_PRICE.call(market.oracle, asset.address)) == spec.price_e8
        assert read(evm, aave_v3.GET_SOURCE_OF_ASSET.call(market.oracle, asset.address)) == asset.feed
        assert asset.reference_feed != asset.feed
        for feed in (asset.feed, asset.reference_feed):
            answer = read(evm, feeds.LATEST_ROUND_DATA.call(feed))
            assert answer[1] == spec.price_e8
            assert 0 <= evm.timestamp() - answer[3] < 3_600


def test_feeds_follow_their_own_rules(chain: Chain) -> None:
    evm = chain.evm
    for spec in DEFAULT_MARKET.assets:
        asset = chain.market.asset(spec.symbol)
        for feed, rule in ((asset.feed, spec.feed), (asset.reference_feed, spec.reference_feed)):
            aggregator = read(evm, feeds.AGGREGATOR.call(feed))
            assert read(evm, feeds.HEARTBEAT.call(aggregator)) == rule.heartbeat_s
            assert read(evm, feeds.DEVIATION_BPS.call(aggregator)) == rule.deviation_bps


def test_the_provider_leads_to_everything(chain: Chain) -> None:
    evm, market = chain.evm, chain.market
    assert read(evm, aave_v3.GET_POOL.call(market.provider)) == market.pool
    assert read(evm, aave_v3.GET_PRICE_ORACLE.call(market.provider)) == market.oracle
    assert read(evm, aave_v3.GET_POOL_DATA_PROVIDER.call(market.provider)) == market.data_provider
    assert read(evm, aave_v3.GET_POOL_CONFIGURATOR.call(market.provider)) == market.configurator
    assert read(evm, aave_v3.ADDRESSES_PROVIDER.call(market.pool)) == market.provider
    assert read(evm, aave_v3.FLASHLOAN_PREMIUM_TOTAL.call(market.pool)) == DEFAULT_MARKET.flash_premium_bps


def test_treasury_receives_the_protocols_fees(chain: Chain) -> None:
    for asset in chain.market.assets.values():
        treasury = read(chain.evm, aave_v3.RESERVE_TREASURY_ADDRESS.call(asset.a_token))
        assert treasury == chain.market.treasury


@pytest.mark.parametrize("index", range(len(DEFAULT_MARKET.pools)))
def test_a_pool_starts_at_the_feeds_price(chain: Chain, index: int) -> None:
    evm, spec, pool = chain.evm, DEFAULT_MARKET.pools[index], chain.market.uniswap.pools[index]
    by_address = {asset.address: symbol for symbol, asset in chain.market.assets.items()}
    assert {by_address[pool.token0], by_address[pool.token1]} == set(spec.symbols)
    assert int(pool.token0, 16) < int(pool.token1, 16)
    assert pool.fee_pips == spec.fee_pips == read(evm, uniswap.FEE.call(pool.address))
    asset0, asset1 = (DEFAULT_MARKET.asset(by_address[t]) for t in (pool.token0, pool.token1))
    sqrt_price = read(evm, uniswap.SLOT0.call(pool.address))[0] / 2**96
    assert sqrt_price**2 * 10 ** (asset0.decimals - asset1.decimals) == pytest.approx(
        asset0.price_e8 / asset1.price_e8, rel=1e-6
    )


def _cost_bps(chain: Chain, sold: str, bought: str, fee_pips: int, usd: int) -> float:
    """Return what a sale loses against the feeds, fee included."""
    spec_in, spec_out = DEFAULT_MARKET.asset(sold), DEFAULT_MARKET.asset(bought)
    amount = usd * 10**8 * 10**spec_in.decimals // spec_in.price_e8
    tokens = (chain.market.asset(sold).address, chain.market.asset(bought).address)
    quote = uniswap.QUOTE_EXACT_INPUT_SINGLE.call(chain.market.uniswap.quoter, (*tokens, amount, fee_pips, 0))
    received = read(chain.evm, quote)[0] * spec_out.price_e8 / 10**spec_out.decimals / 10**8
    return (1 - received / usd) * 10_000


def test_a_sale_moves_the_price_the_more_the_larger_it_is(chain: Chain) -> None:
    for spec in DEFAULT_MARKET.pools:
        for sold, bought in (spec.symbols, spec.symbols[::-1]):
            fee_bps = spec.fee_pips / 100
            costs = [
                _cost_bps(chain, sold, bought, spec.fee_pips, usd) for usd in (1_000, 100_000, 1_000_000)
            ]
            assert fee_bps < costs[0] < fee_bps + 0.5
            assert costs[0] < costs[1] < costs[2]


def test_a_million_of_ether_costs_about_half_a_percent(chain: Chain) -> None:
    assert 40 < _cost_bps(chain, "WETH", "USDC", 500, 1_000_000) < 100


def test_wrapped_ether_can_be_unwrapped(chain: Chain) -> None:
    bench, alice = Bench(chain.evm, chain.market), labelled_address("alice")
    bench.mint("WETH", alice, 10**18)
    transact(chain.evm, alice, chain.market.asset("WETH").address, WITHDRAW, 10**18)
    assert chain.evm.balance(alice) >= 10**18


def test_interest_accrues_by_the_second(chain: Chain) -> None:
    bench = Bench(chain.evm, chain.market)
    alice = bench.account("alice", {"WETH": 10_000}, {"USDC": 5_000})
    before = bench.debt_raw(alice, "USDC")
    chain.evm.warp(chain.evm.timestamp() + 31_536_000)
    assert bench.debt_raw(alice, "USDC") > before


@pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only")
def test_other_prices_and_a_smaller_market_deploy_as_well() -> None:
    small = MarketSpec(assets=DEFAULT_MARKET.assets[:1], emodes=DEFAULT_MARKET.emodes)
    small = small.with_prices({"WETH": 86 * 10**8})
    evm = revm.RevmEvm(timestamp=GENESIS)
    market = deploy_market(evm, small)
    assert list(market.assets) == ["WETH"]
    price = aave_v3.GET_ASSET_PRICE.call(market.oracle, market.asset("WETH").address)
    assert read(evm, price) == 86 * 10**8


@pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only")
def test_parameters_that_the_contracts_refuse_are_named() -> None:
    # A loan-to-value above the liquidation threshold: Errors.INVALID_RESERVE_PARAMS is "20".
    weth = dataclasses.replace(DEFAULT_MARKET.asset("WETH"), ltv_bps=9_000, emode_category=0)
    with pytest.raises(CallReverted, match=r"configureReserveAsCollateral@0x\w+ reverted: '20'"):
        deploy_market(revm.RevmEvm(timestamp=GENESIS), MarketSpec(assets=(weth,)))
