"""Deploys Uniswap V3 (core 1.0.1, periphery 1.4.4) unmodified, with liquidity that a sale really moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from contracts_abi import uniswap_v3 as abi
from contracts_abi.aave_v3 import APPROVE
from contracts_abi.calls import function
from simulation.chain.aave_v3 import mint
from simulation.chain.artifacts import uniswap_core, uniswap_periphery
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read, transact
from simulation.chain.market import DeployedPool, DeployedUniswap, MarketSpec, PoolSpec, RangeSpec

LOWEST_FEE_PIPS: Final = 100
LOWEST_FEE_TICK_SPACING: Final = 1

_FOREVER: Final = 2**64
_NO_LEAST: Final = 0


def deploy_uniswap(
    evm: Evm, deployer: str, market: MarketSpec, *, tokens: Mapping[str, str]
) -> DeployedUniswap:
    """Deploy factory, router, quoter and position manager, and the market's pools with their liquidity.

    Parameters
    ----------
    evm, deployer
        Where to, and who owns the factory.
    market
        Pools, and the prices that they start at.
    tokens
        Symbol to token; one of them is WETH.
    """
    weth = tokens["WETH"]
    factory = evm.create(deployer, uniswap_core("UniswapV3Factory").creation_code())
    # Core 1.0.1 knows three fee tiers; the fourth was enabled on mainnet by governance.
    transact(evm, deployer, factory, abi.ENABLE_FEE_AMOUNT, LOWEST_FEE_PIPS, LOWEST_FEE_TICK_SPACING)
    router = evm.create(deployer, uniswap_periphery("SwapRouter").creation_code(factory, weth))
    quoter = evm.create(deployer, uniswap_periphery("QuoterV2").creation_code(factory, weth))
    # The descriptor draws a picture of a position; nobody here asks for one.
    position_manager = evm.create(
        deployer,
        uniswap_periphery("NonfungiblePositionManager").creation_code(factory, weth, ZERO_ADDRESS),
    )
    provider = labelled_address("liquidity provider")
    for token in tokens.values():
        transact(evm, provider, token, APPROVE, position_manager, 2**256 - 1)
    pools = [_open_pool(evm, provider, position_manager, market, pool, tokens) for pool in market.pools]
    return DeployedUniswap(
        factory=factory,
        router=router,
        quoter=quoter,
        position_manager=position_manager,
        pools=tuple(pools),
    )


def _open_pool(
    evm: Evm,
    provider: str,
    position_manager: str,
    market: MarketSpec,
    spec: PoolSpec,
    tokens: Mapping[str, str],
) -> DeployedPool:
    # The pool has its tokens in order of address.
    symbols = sorted(spec.symbols, key=lambda symbol: int(tokens[symbol], 16))
    token0, token1 = (tokens[symbol] for symbol in symbols)
    asset0, asset1 = (market.asset(symbol) for symbol in symbols)
    price = Fraction(asset0.price_e8 * 10**asset1.decimals, asset1.price_e8 * 10**asset0.decimals)
    transact(
        evm,
        provider,
        position_manager,
        abi.CREATE_AND_INITIALIZE_POOL_IF_NECESSARY,
        token0,
        token1,
        spec.fee_pips,
        sqrt_price_x96(price),
    )
    factory = read(evm, function("factory()(address)").call(position_manager))
    pool = read(evm, abi.GET_POOL.call(factory, token0, token1, spec.fee_pips))
    _, tick, *_ = read(evm, abi.SLOT0.call(pool))
    spacing = read(evm, abi.TICK_SPACING.call(pool))
    for liquidity in spec.ranges:
        lower, upper = tick_range(tick, spacing, liquidity)
        # The manager takes of both tokens what the price asks for, which for a range around the price is
        # nearly half of the value each.
        amounts = [
            liquidity.depth_usd * 10**8 * 10**asset.decimals // (2 * asset.price_e8)
            for asset in (asset0, asset1)
        ]
        for token, amount in zip((token0, token1), amounts, strict=True):
            mint(evm, provider, token, provider, amount)
        transact(
            evm,
            provider,
            position_manager,
            abi.MINT,
            (
                *(token0, token1, spec.fee_pips, lower, upper, *amounts),
                *(_NO_LEAST, _NO_LEAST, provider, _FOREVER),
            ),
        )
    return DeployedPool(address=pool, token0=token0, token1=token1, fee_pips=spec.fee_pips)


def sqrt_price_x96(price: Fraction) -> int:
    """Return the pool's square-root price for `price`, raw token1 per raw token0, rounded down."""
    return math.isqrt(price.numerator * 2**192 // price.denominator)


def tick_range(tick: int, spacing: int, spec: RangeSpec) -> tuple[int, int]:
    """Return lower and upper tick of a range around `tick`, both usable at `spacing`."""
    greatest = abi.MAX_TICK // spacing * spacing
    if spec.width_bps == 0:
        return -greatest, greatest
    width = round(math.log1p(spec.width_bps / 10_000) / math.log(1.0001))
    lower = (tick - width) // spacing * spacing
    upper = -((-tick - width) // spacing) * spacing
    return max(lower, -greatest), min(upper, greatest)
