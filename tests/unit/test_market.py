"""Specifications and deployments as data."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import DataError, InputError, UnknownNameError
from contracts_abi.uniswap_v3 import MAX_TICK, MIN_TICK
from simulation.chain.evm import labelled_address, revert_reason
from simulation.chain.market import (
    DEFAULT_MARKET,
    DeployedAsset,
    DeployedMorpho,
    DeployedMorphoMarket,
    DeployedPool,
    DeployedUniswap,
    Deployment,
    MorphoMarketSpec,
    RangeSpec,
    with_morpho,
)
from simulation.chain.rpc import masked
from simulation.chain.uniswap_v3 import sqrt_price_x96, tick_range


def deployment() -> Deployment:
    names = ("provider", "pool", "configurator", "oracle", "data_provider", "acl_manager")
    names += ("deployer", "pool_implementation", "treasury", "multicall")
    return Deployment(
        chain_id=31_337,
        libraries={"PoolLogic": labelled_address("PoolLogic")},
        assets={
            "WETH": DeployedAsset(
                symbol="WETH",
                address="a",
                decimals=18,
                a_token="b",
                v_token="c",
                feed="d",
                reference_feed="e",
            )
        },
        uniswap=DeployedUniswap(
            factory="f",
            router="r",
            quoter="q",
            position_manager="m",
            pools=(DeployedPool(address="p", token0="0", token1="1", fee_pips=500),),
        ),
        code_hashes={"Pool": "0x12"},
        **{name: labelled_address(name) for name in names},
    )


def test_a_deployment_survives_json() -> None:
    assert Deployment.from_json(deployment().to_json()) == deployment()
    market = DeployedMorphoMarket(
        id="0x1", collateral="WETH", loan="USDC", oracle="o", irm="i", lltv_wad=86 * 10**16
    )
    with_both = replace(deployment(), morpho=DeployedMorpho(address="m", markets=(market,)))
    assert Deployment.from_json(with_both.to_json()) == with_both
    assert with_both.morpho is not None
    assert with_both.morpho.market("WETH/USDC") is market
    with pytest.raises(UnknownNameError, match="WETH/USDC"):
        with_both.morpho.market("WETH/USD")


def test_morpho_markets_are_of_two_assets_that_are_there() -> None:
    assert DEFAULT_MARKET.morpho == ()
    assert [m.name for m in with_morpho(DEFAULT_MARKET).morpho] == ["WETH/USDC", "WBTC/USDC"]
    for markets, words in (
        ((MorphoMarketSpec("WETH", "USDT", 1),), "USDT"),
        ((MorphoMarketSpec("WETH", "WETH", 1),), "its own collateral"),
        ((MorphoMarketSpec("WETH", "DAI", 1), MorphoMarketSpec("WETH", "DAI", 2)), "at most once"),
    ):
        with pytest.raises(InputError, match=words):
            with_morpho(DEFAULT_MARKET, markets)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"chain_id": 1}', "null"])
def test_what_is_no_deployment_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a deployment"):
        Deployment.from_json(text)


def test_an_unknown_key_of_a_deployment_is_refused() -> None:
    raw = json.loads(deployment().to_json()) | {"poll": "0x"}
    with pytest.raises(DataError, match="poll"):
        Deployment.from_json(json.dumps(raw))


def test_prices_are_replaced_by_symbol() -> None:
    market = DEFAULT_MARKET.with_prices({"WETH": 1})
    assert market.asset("WETH").price_e8 == 1
    assert market.asset("WBTC") == DEFAULT_MARKET.asset("WBTC")
    with pytest.raises(UnknownNameError, match="did you mean 'WETH'"):
        DEFAULT_MARKET.with_prices({"WETHH": 1})
    with pytest.raises(InputError, match="price of WETH must be positive, got 0"):
        DEFAULT_MARKET.with_prices({"WETH": 0})
    with pytest.raises(UnknownNameError):
        deployment().asset("WETHH")


def test_a_specification_is_plain_data() -> None:
    assert json.loads(json.dumps(DEFAULT_MARKET.to_json()))["assets"][0]["symbol"] == "WETH"


@settings(deadline=None)
@given(
    tick=st.integers(-400_000, 400_000),
    spacing=st.sampled_from([1, 10, 60, 200]),
    width_bps=st.integers(1, 100_000),
)
def test_a_range_holds_the_price_and_is_usable(tick: int, spacing: int, width_bps: int) -> None:
    lower, upper = tick_range(tick, spacing, RangeSpec(width_bps, 1))
    assert MIN_TICK <= lower <= tick < upper + spacing
    assert lower < upper <= MAX_TICK
    assert lower % spacing == upper % spacing == 0


@pytest.mark.parametrize("spacing", [1, 10, 60, 200])
def test_the_full_range_is_the_widest_usable(spacing: int) -> None:
    lower, upper = tick_range(5, spacing, RangeSpec(0, 1))
    assert lower == -upper
    assert MAX_TICK - spacing < upper <= MAX_TICK


@settings(deadline=None)
@given(st.integers(1, 10**30), st.integers(1, 10**30))
def test_the_square_root_price_is_rounded_down(numerator: int, denominator: int) -> None:
    root = sqrt_price_x96(Fraction(numerator, denominator))
    assert root**2 * denominator <= numerator * 2**192 < (root + 1) ** 2 * denominator


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://127.0.0.1:8545/", "http://127.0.0.1:8545"),
        ("https://node.example/v2/KEY", "https://node.example/***"),
        ("https://user:pw@node.example", "https://node.example/***"),
        ("https://node.example?key=KEY", "https://node.example/***"),
        ("http://[::1]:8545/KEY", "http://[::1]:8545/***"),
        ("http://node.example:port/KEY", "<url>"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", "no data"),
        ("deadbeef", "0xdeadbeef"),
        ("08c379a0" + f"{32:064x}{2:064x}" + "3435".ljust(64, "0"), "'45'"),
        ("4e487b71" + f"{0x11:064x}", "panic 0x11"),
        ("08c379a0" + "ff", "0x08c379a0ff"),
        (
            "08c379a0" + f"{32:064x}{2:064x}" + "ff35".ljust(64, "0"),
            "0x08c379a0" + f"{32:064x}{2:064x}" + "ff35".ljust(64, "0"),
        ),
    ],
)
def test_revert_data_is_told_in_words_where_it_has_some(data: str, told: str) -> None:
    assert revert_reason(bytes.fromhex(data)) == told
