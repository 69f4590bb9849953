"""Deploys Morpho Blue (`@morpho-org/morpho-blue` 1.0.0) unmodified, with markets as they are asked for.

The adaptive rate model is ours (``contracts_abi/vyper/AdaptiveCurveIrm.vy``): npm ships no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts_abi import morpho_blue as abi
from simulation.chain.artifacts import morpho_blue, own
from simulation.chain.evm import Evm, transact
from simulation.chain.market import DeployedMorpho, DeployedMorphoMarket, MarketSpec
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


def deploy_morpho_markets(
    evm: Evm, deployer: str, market: MarketSpec, *, tokens: Mapping[str, str], feeds: Mapping[str, str]
) -> DeployedMorpho | None:
    """Deploy Morpho Blue with the markets that a specification asks for; None where it asks for none.

    All follow the adaptive rate model. Their oracles (``contracts_abi/vyper/MorphoOracle.vy``) divide the
    answers of the two feeds, as Morpho's Chainlink oracle does.

    Parameters
    ----------
    evm, deployer
        Where to, and who becomes its owner.
    market
        Which markets.
    tokens, feeds
        Symbol to token, and to the price feed that Aave reads too.

    Raises
    ------
    ToolError
        If the contract is not compiled and cannot be; see `simulation.chain.solc`.
    CallReverted
        If the contract refuses a market.
    """
    if not market.morpho:
        return None
    address = deploy_morpho(evm, deployer)
    irm = deploy_adaptive_curve_irm(evm, deployer, address)
    params, deployed = [], []
    for spec in market.morpho:
        collateral, loan = market.asset(spec.collateral), market.asset(spec.loan)
        oracle = evm.create(
            deployer,
            own("MorphoOracle").creation_code(
                [feeds[spec.collateral]], [feeds[spec.loan]], collateral.decimals, loan.decimals
            ),
        )
        words = MarketParams(tokens[spec.loan], tokens[spec.collateral], oracle, irm, spec.lltv_wad)
        params.append(words)
        deployed.append(
            DeployedMorphoMarket(
                id=words.id,
                collateral=spec.collateral,
                loan=spec.loan,
                oracle=oracle,
                irm=irm,
                lltv_wad=spec.lltv_wad,
            )
        )
    create_markets(evm, deployer, address, params)
    return DeployedMorpho(address=address, markets=tuple(deployed))
