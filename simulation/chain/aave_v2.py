"""Deploys Aave V2 (`@aave/protocol-v2` 1.0.1 of npm) unmodified, for the parity of its model alone.

The package has the contracts as their authors compiled them. Their `LendingPoolCollateralManager`,
`ValidationLogic` and `MathUtils` are, source for source, those of the repository's last commit (ce53c4a8);
`GenericLogic`, `ReserveLogic` and the rate strategy differ from it in layout and in who reads the liquidity,
and tokens in how they are initialised. No rule of interest, health or liquidation differs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from contracts_abi.artifacts import Artifact, npm_artifact
from contracts_abi.calls import function
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read, transact
from simulation.chain.toolchain import NpmPackage, fetch_packages, node_modules
from simulation.fixed_point import RAY
from simulation.protocols.aave_v2 import InterestRateStrategy

PACKAGE: Final = NpmPackage(
    "@aave/protocol-v2",
    "1.0.1",
    "MU3WiigW89DWDpCtvaw4rafih7RbADB45uUM/zqfnOD4g9JNUVfeT6MrjV4/DP/JPA2Iv5ySKSx+a1OfUES0Pg==",
    r"(package\.json|LICENSE.*|artifacts/contracts/(protocol|misc|mocks)/.*(?<!\.dbg)\.json)",
)

_FOLDERS: Final = {
    "LendingPoolAddressesProvider": "protocol/configuration",
    "LendingPool": "protocol/lendingpool",
    "LendingPoolConfigurator": "protocol/lendingpool",
    "LendingPoolCollateralManager": "protocol/lendingpool",
    "DefaultReserveInterestRateStrategy": "protocol/lendingpool",
    "GenericLogic": "protocol/libraries/logic",
    "ReserveLogic": "protocol/libraries/logic",
    "ValidationLogic": "protocol/libraries/logic",
    "AToken": "protocol/tokenization",
    "StableDebtToken": "protocol/tokenization",
    "VariableDebtToken": "protocol/tokenization",
    "AaveOracle": "misc",
    "LendingRateOracle": "mocks/oracle",
    "MintableERC20": "mocks/tokens",
}

GET_LENDING_POOL: Final = function("getLendingPool()(address)")
GET_LENDING_POOL_CONFIGURATOR: Final = function("getLendingPoolConfigurator()(address)")
GET_RESERVE_DATA: Final = function(
    "getReserveData(address)"
    "(((uint256),uint128,uint128,uint128,uint128,uint128,uint40,address,address,address,address,uint8))"
)
MINT: Final = function("mint(uint256)(bool)")

STRATEGY: Final = InterestRateStrategy(
    optimal_utilization_ray=8 * RAY // 10,
    base_variable_borrow_rate_ray=RAY // 100,
    variable_rate_slope1_ray=4 * RAY // 100,
    variable_rate_slope2_ray=75 * RAY // 100,
    stable_rate_slope1_ray=2 * RAY // 100,
    stable_rate_slope2_ray=60 * RAY // 100,
)
MARKET_STABLE_RATE_RAY: Final = 39 * RAY // 1_000
RESERVE_FACTOR_BPS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Listing:
    """One asset of the market deployed.

    Attributes
    ----------
    symbol, decimals
        Of its token.
    ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps
        Risk parameters.
    price_wei
        First price of one whole token, in wei of ether.
    """

    symbol: str
    decimals: int
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    price_wei: int


LISTINGS: Final = (
    Listing("TKA", 18, 8_000, 8_250, 10_500, 10**18),
    Listing("USD", 6, 8_000, 8_500, 10_500, 10**15),
    Listing("BTC", 8, 7_000, 7_500, 11_000, 15 * 10**18),
    Listing("CRV", 18, 5_200, 5_800, 10_850, 5 * 10**14),
)


@dataclass(frozen=True, slots=True)
class AaveV2Deployment:
    """Addresses of a market.

    Attributes
    ----------
    pool, configurator, oracle, treasury
        Of the market.
    tokens
        By symbol.
    a_tokens, stable_debt_tokens, variable_debt_tokens
        By symbol.
    """

    pool: str
    configurator: str
    oracle: str
    treasury: str
    tokens: Mapping[str, str]
    a_tokens: Mapping[str, str]
    stable_debt_tokens: Mapping[str, str]
    variable_debt_tokens: Mapping[str, str]


@functools.cache
def aave_v2(name: str) -> Artifact:
    """Return an Aave V2 contract as its authors compiled it; fetched from npm when first asked for."""
    if not PACKAGE.installed():
        fetch_packages([PACKAGE], lambda _line: None)
    path = f"artifacts/contracts/{_FOLDERS[name]}/{name}.sol/{name}.json"
    return npm_artifact(node_modules(), PACKAGE.name, path)


def deploy_aave_v2(evm: Evm, deployer: str, *, sources: Mapping[str, str]) -> AaveV2Deployment:
    """Deploy the market of `LISTINGS`.

    Parameters
    ----------
    evm
        Where to.
    deployer
        Becomes owner and administrator of everything.
    sources
        Symbol to the price source that the oracle shall read; it answers ``latestAnswer`` in wei.

    Raises
    ------
    CallReverted
        If a step fails.
    ToolError
        If the package is not there and cannot be fetched.
    """

    def new(name: str, *arguments: Any, libraries: Mapping[str, str] | None = None) -> str:
        return evm.create(deployer, aave_v2(name).creation_code(*arguments, libraries=libraries or {}))

    def set_on(to: str, signature: str, *arguments: Any) -> None:
        transact(evm, deployer, to, function(signature), *arguments)

    libraries: dict[str, str] = {}
    for name in ("ReserveLogic", "GenericLogic", "ValidationLogic"):
        libraries[name] = new(name, libraries=libraries)
    provider = new("LendingPoolAddressesProvider", "marginline")
    set_on(provider, "setPoolAdmin(address)", deployer)
    set_on(provider, "setEmergencyAdmin(address)", deployer)
    set_on(provider, "setLendingPoolImpl(address)", new("LendingPool", libraries=libraries))
    set_on(provider, "setLendingPoolConfiguratorImpl(address)", new("LendingPoolConfigurator"))
    set_on(provider, "setLendingPoolCollateralManager(address)", new("LendingPoolCollateralManager"))
    pool = read(evm, GET_LENDING_POOL.call(provider))
    configurator = read(evm, GET_LENDING_POOL_CONFIGURATOR.call(provider))

    tokens = {a.symbol: new("MintableERC20", a.symbol, a.symbol, a.decimals) for a in LISTINGS}
    # The oracle answers one ether for what it takes for wrapped ether, whatever its source: none of these.
    named = [list(tokens.values()), [sources[symbol] for symbol in tokens]]
    oracle = new("AaveOracle", *named, ZERO_ADDRESS, labelled_address("wrapped ether"))
    rates = new("LendingRateOracle")
    set_on(provider, "setPriceOracle(address)", oracle)
    set_on(provider, "setLendingRateOracle(address)", rates)
    treasury = labelled_address("treasury")
    s = STRATEGY
    curve = (
        s.optimal_utilization_ray,
        s.base_variable_borrow_rate_ray,
        s.variable_rate_slope1_ray,
        s.variable_rate_slope2_ray,
        s.stable_rate_slope1_ray,
        s.stable_rate_slope2_ray,
    )
    found: dict[str, tuple[str, str, str]] = {}
    for asset in LISTINGS:
        token, name = tokens[asset.symbol], asset.symbol
        set_on(rates, "setMarketBorrowRate(address,uint256)", token, MARKET_STABLE_RATE_RAY)
        set_on(
            configurator,
            "initReserve(address,address,address,uint8,address)",
            new("AToken", pool, token, treasury, f"a{name}", f"a{name}", ZERO_ADDRESS),
            new("StableDebtToken", pool, token, f"s{name}", f"s{name}", ZERO_ADDRESS),
            new("VariableDebtToken", pool, token, f"v{name}", f"v{name}", ZERO_ADDRESS),
            asset.decimals,
            new("DefaultReserveInterestRateStrategy", provider, *curve),
        )
        set_on(
            configurator,
            "configureReserveAsCollateral(address,uint256,uint256,uint256)",
            token,
            asset.ltv_bps,
            asset.liquidation_threshold_bps,
            asset.liquidation_bonus_bps,
        )
        set_on(configurator, "enableBorrowingOnReserve(address,bool)", token, True)
        set_on(configurator, "setReserveFactor(address,uint256)", token, RESERVE_FACTOR_BPS)
        data = read(evm, GET_RESERVE_DATA.call(pool, token))
        found[name] = (data[7], data[8], data[9])
    return AaveV2Deployment(
        pool=pool,
        configurator=configurator,
        oracle=oracle,
        treasury=treasury,
        tokens=tokens,
        a_tokens={symbol: addresses[0] for symbol, addresses in found.items()},
        stable_debt_tokens={symbol: addresses[1] for symbol, addresses in found.items()},
        variable_debt_tokens={symbol: addresses[2] for symbol, addresses in found.items()},
    )
