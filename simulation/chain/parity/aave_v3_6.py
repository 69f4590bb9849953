"""Parity of Aave V3.6: random borrowers of a real pool, liquidated by the model and by the contract.

What all versions do alike is in `aave_v3_cases`; here is what has changed since: positions of one collateral,
for whose debts a deficit is left, values beside the dust rule's, the pool's own books, and grace periods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi import aave_v3 as abi
from contracts_abi import aave_v3_6 as abi_3_6
from simulation.chain.aave_v3 import AaveDeployment
from simulation.chain.aave_v3_6 import deploy_aave_v3_6
from simulation.chain.artifacts import aave_v3_6
from simulation.chain.evm import Evm, TxResult, read
from simulation.chain.market import DEFAULT_MARKET
from simulation.chain.parity.aave_cases import (
    BORROWER,
    CLOSE_FACTOR_WAD,
    DEPLOYER,
    LIQUIDATOR,
    PROVIDER,
    WHALE,
    Attempt,
    Comparison,
    act_as,
    maybe,
    pick,
    pick_pair,
)
from simulation.chain.parity.aave_v3_cases import E_MODE, Done, V3Parity, World, counts
from simulation.chain.parity.harness import Compared, parity_adapters
from simulation.protocols.aave_v3.configuration import is_borrowing
from simulation.protocols.aave_v3.layout import AaveLayout
from simulation.protocols.aave_v3.types import AaveAccount, AavePosition
from simulation.protocols.aave_v3_6 import errors
from simulation.protocols.aave_v3_6.adapter import AaveV36
from simulation.protocols.aave_v3_6.generic_logic import a_token_balance, variable_debt_balance
from simulation.protocols.aave_v3_6.liquidation_logic import (
    MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD,
    MIN_LEFTOVER_BASE,
)
from simulation.protocols.aave_v3_6.types import AaveMarket, LiquidationOutcome, ReserveData

RESERVES: Final = len(DEFAULT_MARKET.assets)
HALF_BPS: Final = 5_000


@parity_adapters.register("aave-v3.6")
@dataclass(frozen=True, slots=True)
class AaveV36Parity(V3Parity):
    """`simulation.chain.parity.ParityAdapter` of Aave V3.6.

    Attributes
    ----------
    kind
        Its name.
    """

    kind: ClassVar[Literal["aave-v3.6"]] = "aave-v3.6"

    styles: ClassVar = {"plain": 0.40, "single": 0.25, "emode": 0.25, "isolation": 0.10}
    sizes: ClassVar = {(-6, 0): 0.08, (0, 3): 0.15, (3, 4): 0.32, (4, 5.5): 0.32, (5.5, 7.5): 0.13}
    targets: ClassVar = {
        "one": 0.13,
        "close": 0.18,
        "floor": 0.12,
        "below": 0.33,
        "deep": 0.18,
        "above": 0.06,
    }
    covers = (0.40, 0.15, 0.05, 0.08, 0.04, 0.07, 0.04, 0.08, 0.09)
    # With round thresholds more prices give a health factor of 1 itself. More steps than for revision 1:
    # without an average in between few prices do.
    round_thresholds_bps = (5_000, 8_000)
    threshold_tries = 150
    odd_bonuses_bps = (0, 9_000, 10_000)
    healthy = errors.HEALTH_FACTOR_NOT_BELOW_THRESHOLD
    revert_code = staticmethod(errors.revert_code)
    contract = staticmethod(aave_v3_6)

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "simulation.protocols.aave_v3_6",
            "@aave-dao/aave-v3-origin 3.6.0: PoolInstance, AaveOracle, tokens; solc 0.8.27",
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as; from the closes on only where the liquidation went through."""
        return (
            "emode",
            "emode_collateral",
            "isolation",
            "multi_collateral",
            "multi_debt",
            "multi_asset",
            "near_threshold",
            "at_threshold",
            "dust",
            "full_close",
            "partial_close",
            "close_factor_half",
            "small_position",
            "deficit",
            "deficit_of_other_debts",
            "protocol_fee",
            "receive_atoken",
            "collateral_exhausted",
        )

    @staticmethod
    def deploy(evm: Evm, tokens: Mapping[str, str], sources: Mapping[str, str]) -> AaveDeployment:
        """Deploy the market."""
        return deploy_aave_v3_6(evm, DEPLOYER, DEFAULT_MARKET, tokens=tokens, feeds=sources)

    def adapter(self, layout: AaveLayout) -> AaveV36:
        """Return the adapter."""
        return AaveV36(layout)

    def vary_e_mode(self, evm: Evm, world: World, rng: np.random.Generator) -> World:
        """Give the eMode category other parameters or collaterals, or some that count with an LTV of 0."""
        parameters = (
            int(rng.integers(9_000, 9_400)),
            int(rng.integers(9_400, 9_800)),
            int(rng.integers(10_001, 10_300)),
            "varied",
        )
        act_as(evm, world.configurator, world.pool, abi_3_6.CONFIGURE_EMODE_CATEGORY, E_MODE, parameters)
        for fn in (
            abi_3_6.CONFIGURE_EMODE_CATEGORY_COLLATERAL_BITMAP,
            abi_3_6.CONFIGURE_EMODE_CATEGORY_LTVZERO_BITMAP,
        ):
            if maybe(rng, 0.4):
                act_as(evm, world.configurator, world.pool, fn, E_MODE, int(rng.integers(0, 2**RESERVES)))
        return world

    def disturb(self, evm: Evm, world: World, rng: np.random.Generator) -> None:
        """Put circumstances in the way that have nothing to do with the borrower."""
        V3Parity.disturb(self, evm, world, rng)
        if maybe(rng, 0.06):  # all that could be lent is lent
            token = world.token(pick(rng, world.symbols))
            for sender, fn in ((WHALE, "borrow"), (PROVIDER, "withdraw")):
                virtual = read(evm, abi_3_6.GET_VIRTUAL_UNDERLYING_BALANCE.call(world.pool, token))
                if fn == "borrow":
                    call = abi.BORROW.encode(token, virtual, abi.VARIABLE_RATE_MODE, 0, WHALE)
                else:
                    call = abi.WITHDRAW.encode(token, virtual, PROVIDER)
                evm.send(sender, world.pool, call)
        if maybe(rng, 0.06):  # a reserve was paused a while ago
            until = evm.timestamp() + int(pick(rng, (-1, 0, 1, 2, 12, 3_600, 10**7)))
            token = world.token(pick(rng, world.symbols))
            act_as(evm, world.configurator, world.pool, abi_3_6.SET_LIQUIDATION_GRACE_PERIOD, token, until)

    def choose_prices(
        self, rng: np.random.Generator, world: World, market: AaveMarket, account: AaveAccount
    ) -> dict[str, int]:
        """Return prices that put the account's health factor, or one of its debts, where it matters."""
        prices = {k: max(1, int(price * rng.lognormal(0, 0.2))) for k, price in market.prices_base.items()}
        word = account.user_configuration
        flagged = [r for r in market.listed() if (word >> (2 * r.id)) & 3]
        if not flagged:
            return prices
        target = self.target(rng)
        debts = [r for r in flagged if is_borrowing(word, r.id)]
        collaterals = [r for r in flagged if not is_borrowing(word, r.id)]
        # What an account has least of moves values and health factor in the smallest steps.
        finest = sorted(flagged, key=lambda r: _most_raw(account, r) / r.configuration.unit)
        if target[0] == "floor" and debts and collaterals:
            _put_beside_floor(rng, prices, account, next(r for r in finest if r in debts))
            flagged = collaterals
        at_one = target[0] in ("one", "close") and maybe(rng, 0.8)
        lever = finest[0] if at_one else pick(rng, flagged)

        def second() -> str:
            return str((finest[1] if at_one and len(finest) > 1 else pick(rng, flagged)).asset.symbol)

        self.aim(rng, world, market, account, prices, (lever.asset.symbol, lever.id), target, second)
        return prices

    def choose_attempt(self, rng: np.random.Generator, market: AaveMarket, account: AaveAccount) -> Attempt:
        """Return the liquidation that the case tries, in few cases by the borrower itself."""
        pair = pick_pair(rng, market.listed(), account.user_configuration)
        collateral, debt = pair
        owed_raw = max(1, variable_debt_balance(debt, account.position(debt.id)))
        leftover_base = MIN_LEFTOVER_BASE + int(pick(rng, (-1, 0, 1)))
        leftover_raw = leftover_base * debt.configuration.unit // (debt.price_base or 1)
        attempt = self.attempt(
            rng,
            pair,
            owed_raw,
            lambda: max(0, owed_raw - leftover_raw + int(pick(rng, (-1, 0, 1)))),
            lambda: _leaving_collateral(rng, account, collateral, debt),
        )
        return replace(attempt, liquidator=BORROWER if maybe(rng, 0.02) else LIQUIDATOR)

    @staticmethod
    def balances(market: AaveMarket, reserve: ReserveData, position: AavePosition) -> tuple[int, int]:
        """Return what the model says of aTokens and variable debt."""
        return a_token_balance(reserve, position), variable_debt_balance(reserve, position)

    def quote_options(self, attempt: Attempt) -> dict[str, Any]:
        """Return who liquidates: not the borrower itself since 3.6."""
        return {"liquidator": attempt.liquidator}

    def compare_events(
        self, result: TxResult, market: AaveMarket, outcome: LiquidationOutcome, compared: Comparison
    ) -> None:
        """Compare what the liquidation emitted, deficits too."""
        V3Parity.compare_events(self, result, market, outcome, compared)
        ids = {r.asset.address.lower(): r.id for r in market.listed()}
        created = [
            abi_3_6.DEFICIT_CREATED_EVENT.decode(log.topics, log.data)
            for log in result.logs
            if log.topics and log.topics[0] == abi_3_6.DEFICIT_CREATED_EVENT.topic
        ]
        deficits = tuple((ids[str(log["debtAsset"]).lower()], log["amountCreated"]) for log in created)
        compared.check("events DeficitCreated", deficits, outcome.deficits_raw)

    def books(self, evm: Evm, world: World, market: AaveMarket) -> dict[str, int]:
        """Return each reserve's deficit, and what the pool accounts for in all."""
        pool, tokens = world.pool, {r.id: r.asset.address for r in market.listed()}
        deficits = {
            f"deficit {i}": read(evm, abi_3_6.GET_RESERVE_DEFICIT.call(pool, token))
            for i, token in tokens.items()
        }
        virtual = [
            read(evm, abi_3_6.GET_VIRTUAL_UNDERLYING_BALANCE.call(pool, token)) for token in tokens.values()
        ]
        return deficits | {"virtual balances": sum(virtual)}

    def own_changes(
        self, market: AaveMarket, attempt: Attempt, outcome: LiquidationOutcome, before: Mapping[str, int]
    ) -> dict[str, int]:
        """Return what is burnt as bad debt, and what the pool is paid and pays.

        aTokens that a liquidator receives never become collateral by themselves: its word stays.
        """
        paid_out_raw = 0 if attempt.receive_a_token else outcome.to_liquidator_raw
        burnt = {f"deficit {i}": amount_raw for i, amount_raw in outcome.deficits_raw}
        return burnt | {"virtual balances": outcome.debt_repaid_raw - paid_out_raw}

    def own_tags(self, done: Done) -> dict[str, bool]:
        """Return how the close factor, the dust rule and bad debt came in."""
        outcome, liquidated, health_factor_wad = done.outcome, done.code is None, done.health_factor_wad
        ids = {r.asset.symbol: r.id for r in done.market.listed()}
        e_mode = done.market.e_mode_categories.get(done.account.e_mode_category)
        half = liquidated and outcome.close_factor_bps == HALF_BPS
        above = health_factor_wad is not None and health_factor_wad > CLOSE_FACTOR_WAD
        return {
            "emode_collateral": e_mode is not None
            and bool((e_mode.collateral_bitmap >> ids[done.attempt.collateral]) & 1),
            "multi_asset": max(counts(done.account.user_configuration)) > 1,
            "dust": done.code == errors.MUST_NOT_LEAVE_DUST,
            "close_factor_half": half,
            "small_position": liquidated and above and not half,
            "deficit": liquidated and bool(outcome.deficits_raw),
            "deficit_of_other_debts": liquidated
            and any(i != ids[done.attempt.debt] for i, _ in outcome.deficits_raw),
        }


def _most_raw(account: AaveAccount, reserve: ReserveData) -> int:
    position = account.position(reserve.id)
    return max(position.scaled_a_token_raw, position.scaled_variable_debt_raw)


def _put_beside_floor(
    rng: np.random.Generator, prices: dict[str, int], account: AaveAccount, debt: ReserveData
) -> None:
    """Price a debt so that it is worth as much as a position has to be for the close factor to be half."""
    owed_raw = variable_debt_balance(debt, account.position(debt.id))
    if owed_raw:
        target_base = MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD + int(pick(rng, (-1, 0, 1)))
        prices[debt.asset.symbol] = max(1, target_base * debt.configuration.unit // owed_raw)


def _leaving_collateral(
    rng: np.random.Generator,
    account: AaveAccount,
    collateral: ReserveData,
    debt: ReserveData,
) -> int:
    """Return a cover that leaves about as much collateral as must be left, give or take a raw unit."""
    if not collateral.price_base or not debt.price_base:
        return 1
    held_raw = a_token_balance(collateral, account.position(collateral.id))
    held_base = held_raw * collateral.price_base // collateral.configuration.unit
    bonus_bps = collateral.configuration.liquidation_bonus_bps or 10_000
    cover_base = max(0, held_base - MIN_LEFTOVER_BASE) * 10_000 // bonus_bps
    cover_raw = cover_base * debt.configuration.unit // debt.price_base
    return max(0, cover_raw + int(pick(rng, (-1, 0, 1))))
