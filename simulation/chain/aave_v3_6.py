"""Deploys Aave V3.6 (`@aave-dao/aave-v3-origin` 3.6.0) unmodified, in the order that its contracts demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eth_abi.abi import encode as abi_encode

from contracts_abi import aave_v3 as abi
from contracts_abi import aave_v3_6 as abi_3_6
from contracts_abi.calls import Function
from simulation.chain.aave_v3 import AaveDeployment, Reserve
from simulation.chain.artifacts import aave_v3_6
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read, transact
from simulation.chain.market import E8, AssetSpec, MarketSpec

# Each library stands behind those that it links.
POOL_LIBRARIES: Final = ("BorrowLogic", "FlashLoanLogic", "LiquidationLogic", "PoolLogic", "SupplyLogic")
CONFIGURATOR_LIBRARIES: Final = ("ConfiguratorLogic",)


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
    libraries: dict[str, str] = {}
    for name in (*POOL_LIBRARIES, *CONFIGURATOR_LIBRARIES):
        libraries[name] = evm.create(deployer, aave_v3_6(name).creation_code(libraries=libraries))
    provider = evm.create(
        deployer, aave_v3_6("PoolAddressesProvider").creation_code(market.market_id, deployer)
    )
    # The role contract reads the administrator from the provider when it is constructed.
    transact(evm, deployer, provider, abi.SET_ACL_ADMIN, deployer)
    acl_manager = evm.create(deployer, aave_v3_6("ACLManager").creation_code(provider))
    transact(evm, deployer, provider, abi.SET_ACL_MANAGER, acl_manager)
    for role in (
        abi.ADD_POOL_ADMIN,
        abi.ADD_RISK_ADMIN,
        abi.ADD_ASSET_LISTING_ADMIN,
        abi.ADD_EMERGENCY_ADMIN,
    ):
        transact(evm, deployer, acl_manager, role, deployer)

    oracle = evm.create(
        deployer,
        aave_v3_6("AaveOracle").creation_code(
            provider,
            [tokens[asset.symbol] for asset in market.assets],
            [feeds[asset.symbol] for asset in market.assets],
            ZERO_ADDRESS,  # no fallback oracle
            ZERO_ADDRESS,  # prices in USD ...
            E8,  # ... with 8 decimals
        ),
    )
    transact(evm, deployer, provider, abi.SET_PRICE_ORACLE, oracle)

    # The provider puts a proxy before each implementation and initialises it. One strategy serves all
    # reserves, and is a constant of the pool's implementation.
    strategy = evm.create(deployer, aave_v3_6("DefaultReserveInterestRateStrategyV2").creation_code(provider))
    pool_implementation = evm.create(
        deployer, aave_v3_6("PoolInstance").creation_code(provider, strategy, libraries=libraries)
    )
    transact(evm, deployer, provider, abi.SET_POOL_IMPL, pool_implementation)
    pool = read(evm, abi.GET_POOL.call(provider))
    configurator_implementation = evm.create(
        deployer, aave_v3_6("PoolConfiguratorInstance").creation_code(libraries=libraries)
    )
    transact(evm, deployer, provider, abi.SET_POOL_CONFIGURATOR_IMPL, configurator_implementation)
    configurator = read(evm, abi.GET_POOL_CONFIGURATOR.call(provider))
    transact(evm, deployer, configurator, abi_3_6.UPDATE_FLASHLOAN_PREMIUM, market.flash_premium_bps)
    # It keeps the pool's address from its construction.
    data_provider = evm.create(deployer, aave_v3_6("AaveProtocolDataProvider").creation_code(provider))
    transact(evm, deployer, provider, abi.SET_POOL_DATA_PROVIDER, data_provider)

    treasury = labelled_address("treasury")
    _list_reserves(evm, deployer, market, tokens, pool, configurator, treasury)
    reserves = {}
    for asset in market.assets:
        a_token, _, v_token = read(
            evm, abi.GET_RESERVE_TOKENS_ADDRESSES.call(data_provider, tokens[asset.symbol])
        )
        reserves[asset.symbol] = Reserve(a_token, v_token)
    return AaveDeployment(
        provider=provider,
        pool=pool,
        configurator=configurator,
        oracle=oracle,
        data_provider=data_provider,
        acl_manager=acl_manager,
        pool_implementation=pool_implementation,
        libraries={name: libraries[name] for name in POOL_LIBRARIES},
        treasury=treasury,
        reserves=reserves,
    )


def _list_reserves(
    evm: Evm,
    deployer: str,
    market: MarketSpec,
    tokens: Mapping[str, str],
    pool: str,
    configurator: str,
    treasury: str,
) -> None:
    # Nobody pays rewards here. The treasury is a constant of the aToken's implementation.
    a_token = evm.create(deployer, aave_v3_6("ATokenInstance").creation_code(pool, ZERO_ADDRESS, treasury))
    v_token = evm.create(deployer, aave_v3_6("VariableDebtTokenInstance").creation_code(pool, ZERO_ADDRESS))
    listings = []
    for asset in market.assets:
        symbol, rate = asset.symbol, asset.rate
        curve = (rate.optimal_bps, rate.base_bps, rate.slope1_bps, rate.slope2_bps)
        listings.append(
            (
                *(a_token, v_token, tokens[symbol]),
                *(f"Aave {symbol}", f"a{symbol}"),
                *(f"Aave Variable Debt {symbol}", f"variableDebt{symbol}"),
                b"",
                abi_encode(abi_3_6.INTEREST_RATE_DATA, curve),
            )
        )
    transact(evm, deployer, configurator, abi_3_6.INIT_RESERVES, listings)
    for asset in market.assets:
        _configure_reserve(evm, deployer, configurator, tokens[asset.symbol], asset)
    for emode in market.emodes:
        transact(
            evm,
            deployer,
            configurator,
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
                    transact(evm, deployer, configurator, fn, tokens[asset.symbol], emode.category, True)


def _configure_reserve(evm: Evm, deployer: str, configurator: str, token: str, asset: AssetSpec) -> None:
    def configure(fn: Function, *values: object) -> None:
        transact(evm, deployer, configurator, fn, token, *values)

    configure(
        abi.CONFIGURE_RESERVE_AS_COLLATERAL,
        asset.ltv_bps,
        asset.liquidation_threshold_bps,
        asset.liquidation_bonus_bps,
    )
    configure(abi.SET_RESERVE_BORROWING, True)
    configure(abi.SET_RESERVE_FLASH_LOANING, True)
    configure(abi.SET_RESERVE_FACTOR, asset.reserve_factor_bps)
    configure(abi.SET_LIQUIDATION_PROTOCOL_FEE, asset.liquidation_protocol_fee_bps)
