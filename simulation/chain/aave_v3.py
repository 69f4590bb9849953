"""Deploys Aave V3 (`@aave/core-v3` 1.19.3) unmodified, in the order that its contracts demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Function, function
from simulation.chain.artifacts import aave
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read, transact
from simulation.chain.market import E8, RAY, AssetSpec, MarketSpec

# Each library stands behind those that it links.
POOL_LIBRARIES: Final = (
    "BorrowLogic",
    "BridgeLogic",
    "EModeLogic",
    "FlashLoanLogic",
    "LiquidationLogic",
    "PoolLogic",
    "SupplyLogic",
)
CONFIGURATOR_LIBRARIES: Final = ("ConfiguratorLogic",)

MINT = function("mint(address,uint256)(bool)")

# EIP-1967: keccak256("eip1967.proxy.implementation") - 1.
IMPLEMENTATION_SLOT: Final = 0x360894A13BA1A3210667C828492DB98DCA3E2076CC3735A920A3CA505D382BBC

# Nobody borrows at a stable rate here; the strategy contract still wants the parameters of one.
_STABLE_RATE_PARAMETERS: Final = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Reserve:
    """Supply and variable-debt token of a reserve."""

    a_token: str
    v_token: str


@dataclass(frozen=True, slots=True)
class AaveDeployment:
    """Addresses of an Aave V3 market; see `simulation.chain.market.Deployment`."""

    provider: str
    pool: str
    configurator: str
    oracle: str
    data_provider: str
    acl_manager: str
    pool_implementation: str
    libraries: Mapping[str, str]
    treasury: str
    reserves: Mapping[str, Reserve]


def deploy_tokens(evm: Evm, deployer: str, market: MarketSpec) -> dict[str, str]:
    """Deploy the market's tokens; returns symbol to address.

    They are the package's own test tokens, which anybody may mint. Ether for unwrapping is put behind WETH.
    """
    tokens = {}
    for asset in market.assets:
        if asset.symbol == "WETH":
            tokens[asset.symbol] = evm.create(deployer, aave("WETH9Mocked").creation_code())
            evm.set_balance(tokens[asset.symbol], 10**9 * 10**18)
        else:
            code = aave("MintableERC20").creation_code(asset.name, asset.symbol, asset.decimals)
            tokens[asset.symbol] = evm.create(deployer, code)
    return tokens


def deploy_libraries(evm: Evm, deployer: str) -> dict[str, str]:
    """Deploy the libraries that pool and configurator link; returns name to address."""
    libraries: dict[str, str] = {}
    for name in (*POOL_LIBRARIES, *CONFIGURATOR_LIBRARIES):
        libraries[name] = evm.create(deployer, aave(name).creation_code(libraries=libraries))
    return libraries


def deploy_aave(
    evm: Evm,
    deployer: str,
    market: MarketSpec,
    *,
    tokens: Mapping[str, str],
    feeds: Mapping[str, str],
) -> AaveDeployment:
    """Deploy and configure Aave V3.

    Parameters
    ----------
    evm
        Where to.
    deployer
        Becomes owner of the provider and holds every administrator's role.
    market
        Reserves, categories and premium.
    tokens, feeds
        Symbol to token, and to the price feed that the oracle shall read.

    Raises
    ------
    CallReverted
        If a step fails, for instance on parameters that the contracts refuse.
    """
    libraries = deploy_libraries(evm, deployer)
    provider = evm.create(deployer, aave("PoolAddressesProvider").creation_code(market.market_id, deployer))
    # The role contract reads the administrator from the provider when it is constructed.
    transact(evm, deployer, provider, abi.SET_ACL_ADMIN, deployer)
    acl_manager = evm.create(deployer, aave("ACLManager").creation_code(provider))
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
        aave("AaveOracle").creation_code(
            provider,
            [tokens[asset.symbol] for asset in market.assets],
            [feeds[asset.symbol] for asset in market.assets],
            ZERO_ADDRESS,  # no fallback oracle
            ZERO_ADDRESS,  # prices in USD ...
            E8,  # ... with 8 decimals
        ),
    )
    transact(evm, deployer, provider, abi.SET_PRICE_ORACLE, oracle)
    data_provider = evm.create(deployer, aave("AaveProtocolDataProvider").creation_code(provider))
    transact(evm, deployer, provider, abi.SET_POOL_DATA_PROVIDER, data_provider)

    # The provider puts a proxy before each implementation and initialises it.
    pool_implementation = evm.create(deployer, aave("Pool").creation_code(provider, libraries=libraries))
    transact(evm, deployer, provider, abi.SET_POOL_IMPL, pool_implementation)
    pool = read(evm, abi.GET_POOL.call(provider))
    configurator_implementation = evm.create(
        deployer, aave("PoolConfigurator").creation_code(libraries=libraries)
    )
    transact(evm, deployer, provider, abi.SET_POOL_CONFIGURATOR_IMPL, configurator_implementation)
    configurator = read(evm, abi.GET_POOL_CONFIGURATOR.call(provider))
    transact(evm, deployer, configurator, abi.UPDATE_FLASHLOAN_PREMIUM_TOTAL, market.flash_premium_bps)

    treasury = labelled_address("treasury")
    _list_reserves(evm, deployer, market, tokens, provider, pool, configurator, treasury)
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
    provider: str,
    pool: str,
    configurator: str,
    treasury: str,
) -> None:
    a_token, stable_token, variable_token = (
        evm.create(deployer, aave(name).creation_code(pool))
        for name in ("AToken", "StableDebtToken", "VariableDebtToken")
    )
    listings = []
    for asset in market.assets:
        strategy = evm.create(
            deployer,
            aave("DefaultReserveInterestRateStrategy").creation_code(provider, *_rate_parameters(asset)),
        )
        symbol = asset.symbol
        listings.append(
            (
                *(a_token, stable_token, variable_token, asset.decimals, strategy, tokens[symbol]),
                *(treasury, ZERO_ADDRESS),
                *(f"Aave {symbol}", f"a{symbol}"),
                *(f"Aave Variable Debt {symbol}", f"variableDebt{symbol}"),
                *(f"Aave Stable Debt {symbol}", f"stableDebt{symbol}"),
                b"",
            )
        )
    transact(evm, deployer, configurator, abi.INIT_RESERVES, listings)
    for emode in market.emodes:
        transact(
            evm,
            deployer,
            configurator,
            abi.SET_EMODE_CATEGORY,
            emode.category,
            emode.ltv_bps,
            emode.liquidation_threshold_bps,
            emode.liquidation_bonus_bps,
            ZERO_ADDRESS,  # no price of its own
            emode.label,
        )
    for asset in market.assets:
        _configure_reserve(evm, deployer, configurator, tokens[asset.symbol], asset)


def _rate_parameters(asset: AssetSpec) -> tuple[int, ...]:
    """Return the rate strategy's parameters in ray."""
    rate = asset.rate
    variable = (rate.optimal_bps, rate.base_bps, rate.slope1_bps, rate.slope2_bps)
    return (*(value * RAY // 10_000 for value in variable), *_STABLE_RATE_PARAMETERS)


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
    if asset.emode_category:
        configure(abi.SET_ASSET_EMODE_CATEGORY, asset.emode_category)


def mint(evm: Evm, sender: str, token: str, account: str, amount_raw: int) -> None:
    """Give `account` tokens; test tokens may be minted by anybody."""
    transact(evm, sender, token, MINT, account, amount_raw)
