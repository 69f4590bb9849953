"""Deploys Aave V3 (`@aave/core-v3` 1.19.3) unmodified, in the order that its contracts demand.

`deploy_version` is the order, which later versions keep; each has its own contracts and listing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from contracts_abi import aave_v3 as abi
from contracts_abi.artifacts import Artifact
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


@dataclass(frozen=True, slots=True)
class Site:
    """A pool that lists nothing yet.

    Attributes
    ----------
    evm, deployer
        Where it is, and who holds every administrator's role.
    provider, pool, configurator, treasury
        Addresses of its parts.
    tokens
        Symbol to token.
    """

    evm: Evm
    deployer: str
    provider: str
    pool: str
    configurator: str
    treasury: str
    tokens: Mapping[str, str]

    def configure(self, fn: Function, *values: object) -> None:
        """Send the configurator a transaction."""
        transact(self.evm, self.deployer, self.configurator, fn, *values)


@dataclass(frozen=True, slots=True)
class Contracts:
    """What a version of Aave V3 has of its own when it is deployed.

    Attributes
    ----------
    contract
        Its contracts by name.
    libraries
        Names of those that the pool links.
    pool, configurator
        Names of the implementations.
    constants
        Names of contracts whose addresses the pool's implementation keeps behind the provider's.
    set_flash_premium
        The configurator's function for it.
    list_reserves
        Lists and configures the market's reserves and categories.
    """

    contract: Callable[[str], Artifact]
    libraries: tuple[str, ...]
    pool: str
    configurator: str
    constants: tuple[str, ...]
    set_flash_premium: Function
    list_reserves: Callable[[MarketSpec, Site], None]


def deploy_version(
    evm: Evm,
    deployer: str,
    market: MarketSpec,
    contracts: Contracts,
    *,
    tokens: Mapping[str, str],
    feeds: Mapping[str, str],
) -> AaveDeployment:
    """Deploy and configure the version of Aave V3 that has these contracts; see `deploy_aave`."""
    libraries: dict[str, str] = {}

    def new(name: str, *arguments: object) -> str:
        return evm.create(deployer, contracts.contract(name).creation_code(*arguments, libraries=libraries))

    def set_on(to: str, fn: Function, *values: object) -> None:
        transact(evm, deployer, to, fn, *values)

    for name in (*contracts.libraries, *CONFIGURATOR_LIBRARIES):
        libraries[name] = new(name)
    provider = new("PoolAddressesProvider", market.market_id, deployer)
    # The role contract reads the administrator from the provider when it is constructed.
    set_on(provider, abi.SET_ACL_ADMIN, deployer)
    acl_manager = new("ACLManager", provider)
    set_on(provider, abi.SET_ACL_MANAGER, acl_manager)
    for role in (
        abi.ADD_POOL_ADMIN,
        abi.ADD_RISK_ADMIN,
        abi.ADD_ASSET_LISTING_ADMIN,
        abi.ADD_EMERGENCY_ADMIN,
    ):
        set_on(acl_manager, role, deployer)

    oracle = new(
        "AaveOracle",
        provider,
        [tokens[asset.symbol] for asset in market.assets],
        [feeds[asset.symbol] for asset in market.assets],
        ZERO_ADDRESS,  # no fallback oracle
        ZERO_ADDRESS,  # prices in USD ...
        E8,  # ... with 8 decimals
    )
    set_on(provider, abi.SET_PRICE_ORACLE, oracle)

    # The provider puts a proxy before each implementation and initialises it.
    pool_implementation = new(
        contracts.pool, provider, *(new(name, provider) for name in contracts.constants)
    )
    set_on(provider, abi.SET_POOL_IMPL, pool_implementation)
    set_on(provider, abi.SET_POOL_CONFIGURATOR_IMPL, new(contracts.configurator))
    configurator = read(evm, abi.GET_POOL_CONFIGURATOR.call(provider))
    set_on(configurator, contracts.set_flash_premium, market.flash_premium_bps)
    # Since 3.6 it keeps the pool's address from its construction.
    data_provider = new("AaveProtocolDataProvider", provider)
    set_on(provider, abi.SET_POOL_DATA_PROVIDER, data_provider)

    pool, treasury = read(evm, abi.GET_POOL.call(provider)), labelled_address("treasury")
    contracts.list_reserves(market, Site(evm, deployer, provider, pool, configurator, treasury, tokens))
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
        libraries={name: libraries[name] for name in contracts.libraries},
        treasury=treasury,
        reserves=reserves,
    )


def configure_reserve(site: Site, asset: AssetSpec) -> None:
    """Give a listed reserve its risk parameters, and let it be borrowed and lent in a flash."""
    token = site.tokens[asset.symbol]
    site.configure(
        abi.CONFIGURE_RESERVE_AS_COLLATERAL,
        token,
        asset.ltv_bps,
        asset.liquidation_threshold_bps,
        asset.liquidation_bonus_bps,
    )
    site.configure(abi.SET_RESERVE_BORROWING, token, True)
    site.configure(abi.SET_RESERVE_FLASH_LOANING, token, True)
    site.configure(abi.SET_RESERVE_FACTOR, token, asset.reserve_factor_bps)
    site.configure(abi.SET_LIQUIDATION_PROTOCOL_FEE, token, asset.liquidation_protocol_fee_bps)


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
    return deploy_version(evm, deployer, market, _CONTRACTS, tokens=tokens, feeds=feeds)


def _list_reserves(market: MarketSpec, site: Site) -> None:
    a_token, stable_token, variable_token = (
        site.evm.create(site.deployer, aave(name).creation_code(site.pool))
        for name in ("AToken", "StableDebtToken", "VariableDebtToken")
    )
    listings = []
    for asset in market.assets:
        strategy = site.evm.create(
            site.deployer,
            aave("DefaultReserveInterestRateStrategy").creation_code(site.provider, *_rate_parameters(asset)),
        )
        symbol = asset.symbol
        listings.append(
            (
                *(a_token, stable_token, variable_token, asset.decimals, strategy, site.tokens[symbol]),
                *(site.treasury, ZERO_ADDRESS),
                *(f"Aave {symbol}", f"a{symbol}"),
                *(f"Aave Variable Debt {symbol}", f"variableDebt{symbol}"),
                *(f"Aave Stable Debt {symbol}", f"stableDebt{symbol}"),
                b"",
            )
        )
    site.configure(abi.INIT_RESERVES, listings)
    for emode in market.emodes:
        site.configure(
            abi.SET_EMODE_CATEGORY,
            emode.category,
            emode.ltv_bps,
            emode.liquidation_threshold_bps,
            emode.liquidation_bonus_bps,
            ZERO_ADDRESS,  # no price of its own
            emode.label,
        )
    for asset in market.assets:
        configure_reserve(site, asset)
        if asset.emode_category:
            site.configure(abi.SET_ASSET_EMODE_CATEGORY, site.tokens[asset.symbol], asset.emode_category)


def _rate_parameters(asset: AssetSpec) -> tuple[int, ...]:
    """Return the rate strategy's parameters in ray."""
    rate = asset.rate
    variable = (rate.optimal_bps, rate.base_bps, rate.slope1_bps, rate.slope2_bps)
    return (*(value * RAY // 10_000 for value in variable), *_STABLE_RATE_PARAMETERS)


_CONTRACTS: Final = Contracts(
    contract=aave,
    libraries=POOL_LIBRARIES,
    pool="Pool",
    configurator="PoolConfigurator",
    constants=(),
    set_flash_premium=abi.UPDATE_FLASHLOAN_PREMIUM_TOTAL,
    list_reserves=_list_reserves,
)


def mint(evm: Evm, sender: str, token: str, account: str, amount_raw: int) -> None:
    """Give `account` tokens; test tokens may be minted by anybody."""
    transact(evm, sender, token, MINT, account, amount_raw)
