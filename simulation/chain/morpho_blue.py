"""Deploys Morpho Blue (`@morpho-org/morpho-blue` 1.0.0) unmodified, with markets as they are asked for.

The adaptive rate model is ours (``contracts_abi/vyper/AdaptiveCurveIrm.vy``): npm ships no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts_abi import morpho_blue as abi
from simulation.chain.artifacts import morpho_blue, own
from simulation.chain.evm import Evm, transact
from simulation.protocols.morpho_blue import MarketParams


def deploy_morpho(evm: Evm, owner: str) -> str:
    """Deploy the contract that holds all markets; returns its address.

    Raises
    ------
    ToolError
        If it is not compiled yet and cannot be.
    """
    return evm.create(owner, morpho_blue("Morpho").creation_code(owner))


def deploy_adaptive_curve_irm(evm: Evm, owner: str, morpho: str) -> str:
    """Deploy the adaptive rate model that only `morpho` may move; returns its address."""
    return evm.create(owner, own("AdaptiveCurveIrm").creation_code(morpho))


def deploy_utilization_irm(evm: Evm, owner: str) -> str:
    """Deploy the rate model that Morpho's authors test with; returns its address."""
    return evm.create(owner, morpho_blue("IrmMock").creation_code())


def create_markets(evm: Evm, owner: str, morpho: str, markets: Sequence[MarketParams]) -> None:
    """Enable what the markets need and create them; `owner` is who owns the contract.

    Raises
    ------
    CallReverted
        If the contract refuses one, for instance a second one of the same parameters.
    """
    for irm in dict.fromkeys(market.irm for market in markets):
        transact(evm, owner, morpho, abi.ENABLE_IRM, irm)
    for lltv_wad in dict.fromkeys(market.lltv_wad for market in markets):
        transact(evm, owner, morpho, abi.ENABLE_LLTV, lltv_wad)
    for market in markets:
        transact(evm, owner, morpho, abi.CREATE_MARKET, market.words())
