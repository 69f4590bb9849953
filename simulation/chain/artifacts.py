"""The compiled contracts that a deployment is made of, read once per process."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from contracts_abi.artifacts import Artifact, npm_artifact, vyper_artifact
from contracts_abi.errors import UnknownNameError
from simulation.chain.solc import compile_unit
from simulation.chain.toolchain import node_modules, vyper_cache

AAVE = "@aave/core-v3"
AAVE_ORIGIN = "@aave-dao/aave-v3-origin"
UNISWAP_CORE = "@uniswap/v3-core"
UNISWAP_PERIPHERY = "@uniswap/v3-periphery"
UNISWAP_V2 = "@uniswap/v2-core"

_AAVE_LOGIC = "protocol/libraries/logic"
_AAVE_FOLDERS = {
    "PoolAddressesProvider": "protocol/configuration",
    "ACLManager": "protocol/configuration",
    "Pool": "protocol/pool",
    "PoolConfigurator": "protocol/pool",
    "DefaultReserveInterestRateStrategy": "protocol/pool",
    "AToken": "protocol/tokenization",
    "StableDebtToken": "protocol/tokenization",
    "VariableDebtToken": "protocol/tokenization",
    "InitializableImmutableAdminUpgradeabilityProxy": "protocol/libraries/aave-upgradeability",
    "AaveOracle": "misc",
    "AaveProtocolDataProvider": "misc",
    "MintableERC20": "mocks/tokens",
    "WETH9Mocked": "mocks/tokens",
    "PriceOracle": "mocks/oracle",
    "BorrowLogic": _AAVE_LOGIC,
    "BridgeLogic": _AAVE_LOGIC,
    "ConfiguratorLogic": _AAVE_LOGIC,
    "EModeLogic": _AAVE_LOGIC,
    "FlashLoanLogic": _AAVE_LOGIC,
    "LiquidationLogic": _AAVE_LOGIC,
    "PoolLogic": _AAVE_LOGIC,
    "SupplyLogic": _AAVE_LOGIC,
}
_PERIPHERY_FOLDERS = {"QuoterV2": "lens/"}


@functools.cache
def aave(name: str) -> Artifact:
    """Return an Aave V3 contract as its authors compiled it."""
    return npm_artifact(
        node_modules(), AAVE, f"artifacts/contracts/{_AAVE_FOLDERS[name]}/{name}.sol/{name}.json"
    )


@functools.cache
def uniswap_core(name: str) -> Artifact:
    """Return a contract of Uniswap V3's core."""
    return npm_artifact(node_modules(), UNISWAP_CORE, f"artifacts/contracts/{name}.sol/{name}.json")


@functools.cache
def uniswap_periphery(name: str) -> Artifact:
    """Return a contract of Uniswap V3's periphery."""
    folder = _PERIPHERY_FOLDERS.get(name, "")
    return npm_artifact(
        node_modules(), UNISWAP_PERIPHERY, f"artifacts/contracts/{folder}{name}.sol/{name}.json"
    )


@functools.cache
def uniswap_v2(name: str) -> Artifact:
    """Return a contract of Uniswap V2's core."""
    return npm_artifact(node_modules(), UNISWAP_V2, f"build/{name}.json")


def chainlink(name: str) -> Artifact:
    """Return a contract of Chainlink's first aggregators and proxies, compiled from its authors' source."""
    return _compiled("chainlink", name)


def openzeppelin(name: str) -> Artifact:
    """Return ``Token`` or ``Vault``: OpenZeppelin's ERC-20 and ERC-4626 with nothing but a constructor added.

    ``Token(decimals)`` can be minted and burnt by anybody; ``Vault(asset, decimals offset)``.
    """
    return _compiled("openzeppelin", name)


def uniswap_twap(name: str) -> Artifact:
    """Return ``OracleLibraryCaller`` or ``TwapFeed``: Uniswap's oracle library behind functions to call.

    ``TwapFeed(pool, base, quote, base amount, window, decimals)`` answers what that amount is worth.
    ``SpotFeed(pair, base, quote, times, over, decimals)`` answers the ratio of what a pair of V2 holds.
    ``MeanFeed(pair, base is token0, period, times, over, decimals)`` answers its mean from kept sums.
    ``PoolSwapper`` swaps in a pool for whoever asks, and pays with his tokens.
    """
    return _compiled("uniswap-twap", name)


def pyth(name: str) -> Artifact:
    """Return a contract of Pyth's Solidity SDK, compiled from its authors' source."""
    return _compiled("pyth", name)


def morpho_blue(name: str) -> Artifact:
    """Return ``Morpho`` or ``IrmMock``, compiled from their authors' source as they build it."""
    return _compiled("morpho-blue", name)


def aave_v3_6(name: str) -> Artifact:
    """Return a contract of Aave V3.6, compiled from its authors' source."""
    return _compiled("aave-v3.6", name)


def _compiled(unit: str, name: str) -> Artifact:
    contracts = _contracts(unit)
    try:
        return contracts[name]
    except KeyError:
        raise UnknownNameError(f"contract of {unit}", name, contracts) from None


@functools.cache
def _contracts(unit: str) -> Mapping[str, Artifact]:
    return compile_unit(unit)


@functools.cache
def own(name: str) -> Artifact:
    """Return one of this project's own contracts."""
    return vyper_artifact(name, vyper_cache())
