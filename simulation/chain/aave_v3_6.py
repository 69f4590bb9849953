"""Deploys Aave V3.6 (`@aave-dao/aave-v3-origin` 3.6.0) unmodified, in the order that its contracts demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eth_abi.abi import encode as abi_encode

from contracts_abi import aave_v3_6 as abi_3_6
from simulation.chain.aave_v3 import AaveDeployment, Contracts, Site, configure_reserve, deploy_version
from simulation.chain.artifacts import aave_v3_6
from simulation.chain.evm import ZERO_ADDRESS, Evm
from simulation.chain.market import MarketSpec

# Each library stands behind those that it links.
POOL_LIBRARIES: Final = ("BorrowLogic", "FlashLoanLogic", "LiquidationLogic", "PoolLogic", "SupplyLogic")


def deploy_aave_v3_6(
    evm: Evm,
    deployer: str,
    market: MarketSpec,
    *,
    tokens: Mapping[str, str],
    feeds: Mapping[str, str],
) -> AaveDeployment:
    """Deploy and configure Aave V3.6.

    Parameters
    ----------
    evm
        Where to.
    deployer
        Becomes owner of the provider and holds every administrator's role.
    market
        Reserves, categories and premium. An asset's category is where it is collateral and may be borrowed.
    tokens, feeds
        Symbol to token, and to the price feed that the oracle shall read.

    Raises
    ------
    ToolError
        If the contracts are not compiled and cannot be; see `simulation.chain.solc`.
    CallReverted
        If a step fails, for instance on parameters that the contracts refuse.
    """
    return deploy_version(evm, deployer, market, _CONTRACTS, tokens=tokens, feeds=feeds)


def _list_reserves(market: MarketSpec, site: Site) -> None:
    # Nobody pays rewards here. The treasury is a constant of the aToken's implementation.
    a_token = site.evm.create(
        site.deployer, aave_v3_6("ATokenInstance").creation_code(site.pool, ZERO_ADDRESS, site.treasury)
    )
    v_token = site.evm.create(
        site.deployer, aave_v3_6("VariableDebtTokenInstance").creation_code(site.pool, ZERO_ADDRESS)
    )
    listings = []
    for asset in market.assets:
        symbol, rate = asset.symbol, asset.rate
        curve = (rate.optimal_bps, rate.base_bps, rate.slope1_bps, rate.slope2_bps)
        listings.append(
            (
                *(a_token, v_token, site.tokens[symbol]),
                *(f"Aave {symbol}", f"a{symbol}"),
                *(f"Aave Variable Debt {symbol}", f"variableDebt{symbol}"),
                b"",
                abi_encode(abi_3_6.INTEREST_RATE_DATA, curve),
            )
        )
    site.configure(abi_3_6.INIT_RESERVES, listings)
    for asset in market.assets:
        configure_reserve(site, asset)
    for emode in market.emodes:
        site.configure(
            abi_3_6.SET_EMODE_CATEGORY,
            emode.category,
            emode.ltv_bps,
            emode.liquidation_threshold_bps,
            emode.liquidation_bonus_bps,
            emode.label,
        )
        for asset in market.assets:
            if asset.emode_category == emode.category:
                for fn in (abi_3_6.SET_ASSET_COLLATERAL_IN_EMODE, abi_3_6.SET_ASSET_BORROWABLE_IN_EMODE):
                    site.configure(fn, site.tokens[asset.symbol], emode.category, True)


_CONTRACTS: Final = Contracts(
    contract=aave_v3_6,
    libraries=POOL_LIBRARIES,
    pool="PoolInstance",
    configurator="PoolConfiguratorInstance",
    constants=("DefaultReserveInterestRateStrategyV2",),  # one strategy serves all reserves
    set_flash_premium=abi_3_6.UPDATE_FLASHLOAN_PREMIUM,
    list_reserves=_list_reserves,
)
