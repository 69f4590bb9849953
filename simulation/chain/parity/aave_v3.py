"""Parity of Aave V3: random borrowers of a real pool, liquidated by the model and by the contract.

What all versions do alike is in `aave_v3_cases`; here is what the first revision alone has: an eMode category
may have a price of its own, and aTokens that a liquidator receives may become its collateral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import numpy as np

from contracts_abi import aave_v3 as abi
from contracts_abi.artifacts import Artifact, npm_artifact
from contracts_abi.calls import function
from simulation.chain.aave_v3 import AaveDeployment, deploy_aave
from simulation.chain.artifacts import AAVE
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, transact
from simulation.chain.market import DEFAULT_MARKET
from simulation.chain.parity.aave_cases import (
    BORROWER,
    DEPLOYER,
    Attempt,
    act_as,
    maybe,
    pick,
    pick_pair,
    price_sources,
)
from simulation.chain.parity.aave_v3_cases import E_MODE, Done, V3Parity, World
from simulation.chain.parity.harness import Compared, parity_adapters
from simulation.chain.toolchain import node_modules
from simulation.fixed_point import MAX_UINT256
from simulation.protocols.aave_v3 import errors
from simulation.protocols.aave_v3.adapter import AaveV3
from simulation.protocols.aave_v3.generic_logic import a_token_balance, variable_debt_balance
from simulation.protocols.aave_v3.layout import AaveLayout
from simulation.protocols.aave_v3.liquidation_logic import liquidator_configuration_after
from simulation.protocols.aave_v3.rules import V3_0
from simulation.protocols.aave_v3.types import (
    AaveAccount,
    AaveMarket,
    AavePosition,
    LiquidationOutcome,
    ReserveData,
    Rules,
)

CONFIGURE_E_MODE: Final = function("configureEModeCategory(uint8,(uint16,uint16,uint16,address,string))")
E_MODE_KEY: Final = labelled_address("price of eMode 1")
E_MODE_SOURCE: Final = labelled_address("price source of eMode 1")
_FOLDERS: Final = {"SequencerOracle": "mocks/oracle", "PriceOracleSentinel": "protocol/configuration"}


@parity_adapters.register("aave-v3")
@dataclass(frozen=True, slots=True)
class AaveV3Parity(V3Parity):
    """`simulation.chain.parity.ParityAdapter` of Aave V3.

    Attributes
    ----------
    rules
        The model's version of the contracts; the contracts deployed are always those of ``V3_0``.
    """

    kind: ClassVar[Literal["aave-v3"]] = "aave-v3"

    styles: ClassVar = {"plain": 0.55, "emode": 0.35, "isolation": 0.10}
    sizes: ClassVar = {(-6, 0): 0.15, (0, 3): 0.25, (3, 5.5): 0.45, (5.5, 7.5): 0.15}
    targets: ClassVar = {"one": 0.20, "close": 0.25, "below": 0.37, "deep": 0.12, "above": 0.06}
    covers = (0.35, 0.30, 0.08, 0.10, 0.05, 0.07, 0.05)
    threshold_tries = 40
    healthy = errors.HEALTH_FACTOR_NOT_BELOW_THRESHOLD
    revert_code = staticmethod(errors.revert_code)

    rules: Rules = V3_0

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared("simulation.protocols.aave_v3", "@aave/core-v3 1.19.3: Pool, AaveOracle, tokens")

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as; from the closes on only where the liquidation went through."""
        return (
            "emode",
            "emode_price_source",
            "isolation",
            "multi_collateral",
            "multi_debt",
            "near_threshold",
            "at_threshold",
            "full_close",
            "partial_close",
            "protocol_fee",
            "receive_atoken",
            "collateral_exhausted",
        )

    @staticmethod
    def deploy(evm: Evm, tokens: Mapping[str, str], sources: Mapping[str, str]) -> AaveDeployment:
        """Deploy the market, and a price source for the eMode category."""
        deployed = deploy_aave(evm, DEPLOYER, DEFAULT_MARKET, tokens=tokens, feeds=sources)
        price_sources(evm, {"eMode 1": DEFAULT_MARKET.asset("WETH").price_e8})
        transact(evm, DEPLOYER, deployed.oracle, abi.SET_ASSET_SOURCES, [E_MODE_KEY], [E_MODE_SOURCE])
        return deployed

    @staticmethod
    def contract(name: str) -> Artifact:
        """Return a contract as its authors compiled it."""
        return npm_artifact(
            node_modules(), AAVE, f"artifacts/contracts/{_FOLDERS[name]}/{name}.sol/{name}.json"
        )

    def adapter(self, layout: AaveLayout) -> AaveV3:
        """Return the adapter under the model's rules."""
        return AaveV3(layout, rules=self.rules)

    def prepare(self, evm: Evm) -> World:
        """Deploy the market of `DEFAULT_MARKET`, with a price oracle sentinel and settable price sources."""
        world = V3Parity.prepare(self, evm)
        # Nobody needs this leave; its block keeps the cases of a seed at the times that they always had.
        transact(evm, BORROWER, world.token("WETH"), abi.APPROVE, world.pool, MAX_UINT256)
        return replace(world, sources={**world.sources, f"emode-{E_MODE}": E_MODE_SOURCE})

    def vary_e_mode(self, evm: Evm, world: World, rng: np.random.Generator) -> World:
        """Give the eMode category other parameters, and in some cases a price of its own."""
        priced = maybe(rng, 0.5)
        parameters = (
            int(rng.integers(9_000, 9_400)),
            int(rng.integers(9_400, 9_800)),
            int(rng.integers(10_001, 10_300)),
            E_MODE_KEY if priced else ZERO_ADDRESS,
            "varied",
        )
        act_as(evm, world.configurator, world.pool, CONFIGURE_E_MODE, E_MODE, parameters)
        sources = ((E_MODE, E_MODE_KEY if priced else ""),)
        layout = replace(world.adapter.layout, e_mode_price_sources=sources)
        return replace(world, adapter=replace(world.adapter, layout=layout))

    def choose_prices(
        self, rng: np.random.Generator, world: World, market: AaveMarket, account: AaveAccount
    ) -> dict[str, int]:
        """Return prices that put the account's health factor where it is interesting."""
        prices = {k: max(1, int(price * rng.lognormal(0, 0.2))) for k, price in market.prices_base.items()}
        flagged = [r for r in market.listed() if (account.user_configuration >> (2 * r.id)) & 3]
        if flagged:
            lever = pick(rng, flagged)
            self.aim(
                rng,
                world,
                market,
                account,
                prices,
                (_price_key(market, account, lever), lever.id),
                self.target(rng),
                lambda: _price_key(market, account, pick(rng, flagged)),
            )
        return prices

    def choose_attempt(self, rng: np.random.Generator, market: AaveMarket, account: AaveAccount) -> Attempt:
        """Return the liquidation that the case tries."""
        pair = pick_pair(rng, market.listed(), account.user_configuration)
        _, owed_raw = self.balances(market, pair[1], account.position(pair[1].id))
        return self.attempt(rng, pair, max(1, owed_raw))

    @staticmethod
    def balances(market: AaveMarket, reserve: ReserveData, position: AavePosition) -> tuple[int, int]:
        """Return what the model says of aTokens and variable debt."""
        return (
            a_token_balance(market.rules, reserve, position),
            variable_debt_balance(market.rules, reserve, position),
        )

    def own_changes(
        self, market: AaveMarket, attempt: Attempt, outcome: LiquidationOutcome, before: Mapping[str, int]
    ) -> dict[str, int]:
        """Return how the liquidator's word changes when it receives aTokens."""
        if not (outcome.succeeds and attempt.receive_a_token):
            return {}
        word = before["liquidator's configuration"]
        reserve = next(r for r in market.listed() if r.asset.symbol == attempt.collateral)
        scaled_raw = before["liquidator's aTokens, scaled"]
        after = liquidator_configuration_after(market, word, scaled_raw, reserve.asset.address)
        return {"liquidator's configuration": after - word}

    def own_tags(self, done: Done) -> dict[str, bool]:
        """Return whether the account's category has a price of its own."""
        e_mode = done.market.e_mode_categories.get(done.account.e_mode_category)
        return {"emode_price_source": e_mode is not None and bool(e_mode.price_source)}


def _price_key(market: AaveMarket, account: AaveAccount, reserve: ReserveData) -> str:
    """Return under which key the account's position in a reserve is priced."""
    e_mode = market.e_mode_categories.get(account.e_mode_category)
    if e_mode and e_mode.price_source and reserve.configuration.e_mode_category == e_mode.id:
        return e_mode.price_key
    return reserve.asset.symbol
