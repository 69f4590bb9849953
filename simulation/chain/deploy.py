"""Deploys a whole market: tokens, feeds, Aave V3, Uniswap V3 and a multicall, the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from eth_utils.crypto import keccak

from contracts_abi.multicall import MULTICALL3_ADDRESS
from simulation.chain.aave_v3 import AaveDeployment, deploy_aave, deploy_tokens
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm, labelled_address
from simulation.chain.feeds import deploy_feed
from simulation.chain.market import DEFAULT_MARKET, DeployedAsset, Deployment, MarketSpec
from simulation.chain.uniswap_v3 import deploy_uniswap


class DeployAave(Protocol):
    """Deploys one version of Aave V3: `simulation.chain.aave_v3.deploy_aave` or another module's."""

    def __call__(
        self,
        evm: Evm,
        deployer: str,
        market: MarketSpec,
        *,
        tokens: Mapping[str, str],
        feeds: Mapping[str, str],
    ) -> AaveDeployment:
        """Deploy and configure it."""
        ...


def deploy_market(
    evm: Evm, market: MarketSpec = DEFAULT_MARKET, *, deploy_aave: DeployAave = deploy_aave
) -> Deployment:
    """Deploy a market on an EVM with a base fee of zero.

    The same specification gives the same addresses, whichever the backend.

    Parameters
    ----------
    evm
        Where to.
    market
        What to deploy.
    deploy_aave
        Which version of Aave V3; revision 1 by default.

    Raises
    ------
    ToolError
        If the contract artifacts are not installed.
    CallReverted
        If the contracts refuse a parameter.
    """
    deployer = labelled_address("deployer")
    tokens = deploy_tokens(evm, deployer, market)
    feeds, reference_feeds = {}, {}
    for asset in market.assets:
        pair = f"{asset.symbol} / USD"
        feeds[asset.symbol] = deploy_feed(evm, deployer, pair, asset.feed, asset.price_e8)
        reference_feeds[asset.symbol] = deploy_feed(
            evm, deployer, f"{pair} reference", asset.reference_feed, asset.price_e8
        )
    aave = deploy_aave(evm, deployer, market, tokens=tokens, feeds=feeds)
    uniswap = deploy_uniswap(evm, deployer, market, tokens=tokens)
    evm.set_code(MULTICALL3_ADDRESS, own("Multicall3").deployed_bytecode)

    named = {
        "Pool": aave.pool_implementation,
        "PoolProxy": aave.pool,
        "AaveOracle": aave.oracle,
        "UniswapV3Factory": uniswap.factory,
        "SwapRouter": uniswap.router,
        "Multicall3": MULTICALL3_ADDRESS,
    }
    return Deployment(
        chain_id=evm.chain_id,
        deployer=deployer,
        provider=aave.provider,
        pool=aave.pool,
        configurator=aave.configurator,
        oracle=aave.oracle,
        data_provider=aave.data_provider,
        acl_manager=aave.acl_manager,
        pool_implementation=aave.pool_implementation,
        libraries=aave.libraries,
        treasury=aave.treasury,
        assets={
            asset.symbol: DeployedAsset(
                symbol=asset.symbol,
                address=tokens[asset.symbol],
                decimals=asset.decimals,
                a_token=aave.reserves[asset.symbol].a_token,
                v_token=aave.reserves[asset.symbol].v_token,
                feed=feeds[asset.symbol],
                reference_feed=reference_feeds[asset.symbol],
            )
            for asset in market.assets
        },
        uniswap=uniswap,
        multicall=MULTICALL3_ADDRESS,
        code_hashes={name: "0x" + keccak(evm.code(address)).hex() for name, address in named.items()},
    )
