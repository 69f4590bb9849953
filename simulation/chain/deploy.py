"""Deploys a whole market, the same on every backend.

Tokens, feeds, Aave V3, Uniswap V3, a multicall, and Morpho Blue where the market has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from eth_utils.crypto import keccak

from contracts_abi.errors import UnknownNameError
from contracts_abi.multicall import MULTICALL3_ADDRESS
from simulation.chain.aave_v3 import AaveDeployment, deploy_aave, deploy_tokens
from simulation.chain.aave_v3_6 import deploy_aave_v3_6
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm, labelled_address
from simulation.chain.feeds import deploy_feed
from simulation.chain.market import DEFAULT_MARKET, DeployedAsset, Deployment, MarketSpec
from simulation.chain.morpho_blue import deploy_morpho_markets
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


AAVE_V3: Final = "aave-v3"
AAVE_V3_6: Final = "aave-v3.6"
AAVE_VERSIONS: Final[Mapping[str, DeployAave]] = {AAVE_V3: deploy_aave, AAVE_V3_6: deploy_aave_v3_6}
"""Versions of Aave V3 by their protocol's name: the prebuilt first revision, and 3.6, which is compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionedMarket(MarketSpec):
    """A market that says itself on which version of Aave V3 it is deployed.

    Attributes
    ----------
    aave
        One of `AAVE_VERSIONS`.
    """

    aave: str = AAVE_V3_6

    def __post_init__(self) -> None:
        if self.aave not in AAVE_VERSIONS:
            raise UnknownNameError("version of Aave", self.aave, AAVE_VERSIONS)


def on_version(market: MarketSpec, aave: str) -> VersionedMarket:
    """Return the market on a version of Aave V3; raises `UnknownNameError` for one that is not known."""
    parts = {f.name: getattr(market, f.name) for f in dataclasses.fields(market) if f.name != "aave"}
    return VersionedMarket(**parts, aave=aave)


def deploy_market(
    evm: Evm, market: MarketSpec = DEFAULT_MARKET, *, deploy_aave: DeployAave | None = None
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
        Which version of Aave V3; else the one that the market names, or revision 1 where it names none.

    Raises
    ------
    ToolError
        If the contract artifacts are not installed.
    CallReverted
        If the contracts refuse a parameter.
    """
    if deploy_aave is None:
        deploy_aave = AAVE_VERSIONS[market.aave if isinstance(market, VersionedMarket) else AAVE_V3]
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
    morpho = deploy_morpho_markets(evm, deployer, market, tokens=tokens, feeds=feeds)

    named = {
        "Pool": aave.pool_implementation,
        "PoolProxy": aave.pool,
        "AaveOracle": aave.oracle,
        "UniswapV3Factory": uniswap.factory,
        "SwapRouter": uniswap.router,
        "Multicall3": MULTICALL3_ADDRESS,
        **({} if morpho is None else {"Morpho": morpho.address}),
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
        morpho=morpho,
        code_hashes={name: "0x" + keccak(evm.code(address)).hex() for name, address in named.items()},
    )
