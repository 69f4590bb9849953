"""The compiled contracts that a deployment is made of, read once per process."""

from __future__ import annotations

import functools

from contracts_abi.artifacts import Artifact, npm_artifact, vyper_artifact
from simulation.chain.toolchain import node_modules, vyper_cache

AAVE = "@aave/core-v3"
UNISWAP_CORE = "@uniswap/v3-core"
UNISWAP_PERIPHERY = "@uniswap/v3-periphery"

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
def own(name: str) -> Artifact:
    """Return one of this project's own contracts."""
    return vyper_artifact(name, vyper_cache())
