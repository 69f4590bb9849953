"""Parity of Aave V2: random borrowers of a real pool, liquidated by the model and by the contract.

All inputs of the model are read from the chain before the call: stored indices and rates, scaled balances,
principals and rates of stable debts, bitmaps, prices as the real oracle gives them. The arithmetic of the
model serves to *choose* a case, never as an input of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Call, function
from contracts_abi.errors import CallReverted
from simulation.chain.aave_v2 import (
    GET_RESERVE_DATA,
    LISTINGS,
    MARKET_STABLE_RATE_RAY,
    MINT,
    STRATEGY,
    AaveV2Deployment,
    deploy_aave_v2,
)
from simulation.chain.evm import Evm, read, transact
from simulation.chain.parity.aave_cases import (
    BORROWER,
    DEPLOYER,
    FUNDS_RAW,
    LIQUIDATOR,
    NEAR_WAD,
    PROVIDER,
    SINK,
    WHALE,
    Attempt,
    Comparison,
    act_as,
    first_from,
    holding,
    later,
    maybe,
    odd_price,
    paid,
    pass_time,
    pick,
    pick_pair,
    price_sources,
    some,
    uniform,
    verdict,
)
from simulation.chain.parity.harness import CaseResult, Compared, Verdict, parity_adapters
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols.aave_v2 import (
    AaveV2Account,
    AaveV2Liquidation,
    AaveV2Market,
    AaveV2Position,
    AaveV2Reserve,
    calculate_user_account_data,
    errors,
    liquidation_quote,
    update_interest_rates,
    update_state,
)
from simulation.protocols.aave_v2.reserve_logic import (
    a_token_balance,
    get_normalized_debt,
    get_normalized_income,
    stable_debt_balance,
    variable_debt_balance,
)
from simulation.protocols.aave_v3.configuration import (
    ReserveConfiguration,
    is_borrowing,
    is_using_as_collateral,
)
from simulation.protocols.aave_v3.errors import revert_code
from simulation.types import Asset

DEPOSIT: Final = function("deposit(address,uint256,address,uint16)")
SET_CONFIGURATION: Final = function("setConfiguration(address,uint256)")
SET_PAUSE: Final = function("setPause(bool)")
PRINCIPAL_BALANCE_OF: Final = function("principalBalanceOf(address)(uint256)")
GET_USER_STABLE_RATE: Final = function("getUserStableRate(address)(uint256)")
GET_USER_LAST_UPDATED: Final = function("getUserLastUpdated(address)(uint40)")
GET_SUPPLY_DATA: Final = function("getSupplyData()(uint256,uint256,uint256,uint40)")

STABLE, VARIABLE = 1, 2
LIQUIDITY_ETH: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class World:
    """What the cases have in common.

    Attributes
    ----------
    market
        Where its parts are.
    sources
        Symbol to the price source behind the oracle.
    """

    market: AaveV2Deployment
    sources: Mapping[str, str]

    @property
    def pool(self) -> str:
        """The pool's proxy."""
        return self.market.pool

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in reserve order."""
        return tuple(self.market.tokens)


@parity_adapters.register("aave-v2")
@dataclass(frozen=True, slots=True)
class AaveV2Parity:
    """`simulation.chain.parity.ParityAdapter` of Aave V2.

    Attributes
    ----------
    kind
        Its name.
    """

    kind: ClassVar[Literal["aave-v2"]] = "aave-v2"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "simulation.protocols.aave_v2", "@aave/protocol-v2 1.0.1: LendingPool, AaveOracle, tokens"
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract can do with a case."""
        return tuple(Verdict)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as; from the stable repayment on only where the liquidation went through."""
        return (
            "multi_collateral",
            "multi_debt",
            "stable_debt",
            "near_threshold",
            "stable_repaid",
            "receive_atoken",
            "collateral_exhausted",
            "same_asset",
            "rates_compared",
        )

    def prepare(self, evm: Evm) -> World:
        """Deploy the market of `LISTINGS` with settable price sources, and fund everybody."""
        sources = price_sources(evm, {asset.symbol: asset.price_wei for asset in LISTINGS})
        market = deploy_aave_v2(evm, DEPLOYER, sources=sources)
        for asset in LISTINGS:
            token = market.tokens[asset.symbol]
            for holder in (PROVIDER, WHALE, LIQUIDATOR):
                transact(evm, holder, token, MINT, FUNDS_RAW)
                transact(evm, holder, token, abi.APPROVE, market.pool, MAX_UINT256)
            for holder in (PROVIDER, WHALE):
                amount_raw = _raw(asset.symbol, LIQUIDITY_ETH)
                transact(evm, holder, market.pool, DEPOSIT, token, amount_raw, holder, 0)
        return World(market, sources)

    def run(self, evm: Evm, world: World, rng: np.random.Generator) -> CaseResult:
        """Bring about one borrower, one market and one liquidation; compare."""
        _open_position(evm, world, rng)
        _disturb(evm, world, rng)
        timestamp = later(evm, rng)
        state = _read_market(evm, world, timestamp)
        account = _read_account(evm, world, BORROWER)
        for symbol, price in _choose_prices(rng, state, account).items():
            evm.set_storage(world.sources[symbol], 0, price % 2**256)
        evm.warp(timestamp)
        state = _read_market(evm, world, timestamp)
        return _compare(evm, world, state, account, _choose_attempt(rng, state, account))


def _raw(symbol: str, ether: float) -> int:
    asset = next(a for a in LISTINGS if a.symbol == symbol)
    return int(ether * 10**18 / asset.price_wei * 10**asset.decimals)


# --- a case -----------------------------------------------------------------------------------------------


def _open_position(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Let others borrow, the borrower deposit and borrow at both rates, and time pass."""
    tokens = world.market.tokens

    def attempt(sender: str, data: bytes) -> bool:
        # What the pool refuses leaves an account with less debt or none.
        return evm.send(sender, world.pool, data).success

    for symbol in some(rng, world.symbols, 3):
        share = pick(rng, (0.05, 0.3, 0.6, 0.9), (0.3, 0.3, 0.3, 0.1)) * rng.uniform(0.5, 1)
        mode = pick(rng, (STABLE, VARIABLE), (0.2, 0.8))
        amount_raw = _raw(symbol, LIQUIDITY_ETH * share * (0.2 if mode == STABLE else 1))
        attempt(WHALE, abi.BORROW.encode(tokens[symbol], amount_raw, mode, 0, WHALE))
    low, high = pick(rng, ((-9, -3), (-3, 0), (0, 2), (2, 4)), (0.2, 0.25, 0.4, 0.15))
    collaterals, debts = some(rng, world.symbols, 3), some(rng, world.symbols, 3)
    for symbol in collaterals:
        amount_raw = max(1, _raw(symbol, 10 ** rng.uniform(low, high)))
        attempt(PROVIDER, DEPOSIT.encode(tokens[symbol], amount_raw, BORROWER, 0))
    for symbol in debts:
        for mode in pick(rng, ((VARIABLE,), (STABLE,), (VARIABLE, STABLE)), (0.5, 0.2, 0.3)):
            available_wei = read(evm, abi.GET_USER_ACCOUNT_DATA.call(world.pool, BORROWER))[2]
            amount_raw = max(1, _raw(symbol, available_wei / 10**18 * rng.uniform(0.2, 0.98)))
            attempt(BORROWER, abi.BORROW.encode(tokens[symbol], amount_raw, mode, 0, BORROWER))
    pass_time(
        evm,
        rng,
        lambda: attempt(PROVIDER, DEPOSIT.encode(tokens[pick(rng, world.symbols)], 10**6, PROVIDER, 0)),
    )
    if maybe(rng, 0.06):
        symbol = pick(rng, collaterals)
        attempt(BORROWER, abi.SET_USER_USE_RESERVE_AS_COLLATERAL.encode(tokens[symbol], False))


def _disturb(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Switch something off, take liquidity away, or let the liquidator have aTokens already."""
    symbol = pick(rng, world.symbols)
    token = world.market.tokens[symbol]
    if maybe(rng, 0.06):
        word = read(evm, abi.GET_CONFIGURATION.call(world.pool, token))
        changes: dict[str, Any] = pick(
            rng,
            (
                {"active": False},
                {"frozen": True},
                {"liquidation_threshold_bps": 0},
                {"liquidation_bonus_bps": 0},
                {"reserve_factor_bps": 10_000},
            ),
        )
        changed = replace(ReserveConfiguration.unpack(word), **changes).pack()
        act_as(evm, world.market.configurator, world.pool, SET_CONFIGURATION, token, changed)
    if maybe(rng, 0.03):
        act_as(evm, world.market.configurator, world.pool, SET_PAUSE, True)
        return
    if maybe(rng, 0.08):
        a_token = world.market.a_tokens[symbol]
        held_raw = read(evm, abi.BALANCE_OF.call(token, a_token))
        left_raw = int(10 ** rng.uniform(0, math.log10(held_raw + 1)))
        act_as(evm, a_token, token, abi.TRANSFER, SINK, max(0, held_raw - left_raw))
    if maybe(rng, 0.1):
        evm.send(PROVIDER, world.pool, DEPOSIT.encode(token, 10**6, LIQUIDATOR, 0))


def _choose_prices(rng: np.random.Generator, market: AaveV2Market, account: AaveV2Account) -> dict[str, int]:
    """Return prices near the present ones, one of which puts the health factor where a case wants it."""
    prices = {
        r.asset.symbol: max(1, int((r.price_wei or 1) * math.exp(rng.normal(0, 0.1))))
        for r in market.reserves
    }
    owed = [r.asset.symbol for r in market.reserves if is_borrowing(account.user_configuration, r.id)]
    if owed:
        symbol = pick(rng, owed)
        low, high = pick(rng, ((1.0, 1.0), (0.8, 1.0), (0.01, 0.8), (1.0, 1.5)), (0.25, 0.5, 0.17, 0.08))
        target_wad = int(rng.uniform(low, high) * WAD)

        def reached(price: int) -> bool:
            now = market.with_prices({**prices, symbol: price})
            try:
                return calculate_user_account_data(now, account).health_factor_wad <= target_wad
            except errors.AaveV2Revert:
                return True

        prices[symbol] = max(1, first_from(reached, 1, 10**30) + int(pick(rng, (-1, 0, 0, 1))))
    odd_price(rng, prices)
    return prices


def _choose_attempt(rng: np.random.Generator, market: AaveV2Market, account: AaveV2Account) -> Attempt:
    collateral, debt = pick_pair(rng, market.reserves, account.user_configuration)
    owed_raw = max(1, _owed(market, account, debt))
    options = (
        MAX_UINT256,
        uniform(rng, 1, owed_raw),
        int(10 ** rng.uniform(0, math.log10(owed_raw))),
        owed_raw // 2,
        pick(rng, (0, 1, 2, 3)),
    )
    return Attempt(
        collateral.asset.symbol,
        debt.asset.symbol,
        pick(rng, options, (0.4, 0.3, 0.1, 0.15, 0.05)),
        maybe(rng, 0.25),
    )


def _owed(market: AaveV2Market, account: AaveV2Account, debt: AaveV2Reserve) -> int:
    position = account.position(debt.id)
    variable_raw = variable_debt_balance(debt, position, market.timestamp)
    return variable_raw + stable_debt_balance(position, market.timestamp)


# --- reads ------------------------------------------------------------------------------------------------


def _or_none(evm: Evm, call: Call[Any]) -> Any:
    try:
        return call.decode(evm.call(call.to, call.data))
    except CallReverted:
        return None


def _read_reserve(evm: Evm, world: World, symbol: str) -> AaveV2Reserve:
    market = world.market
    token = market.tokens[symbol]
    data = read(evm, GET_RESERVE_DATA.call(world.pool, token))
    principal_raw, _, average_ray, updated = read(
        evm, GET_SUPPLY_DATA.call(market.stable_debt_tokens[symbol])
    )
    configuration = ReserveConfiguration.unpack(data[0][0])
    return AaveV2Reserve(
        asset=Asset(symbol, token, configuration.decimals),
        id=data[11],
        configuration=configuration,
        liquidity_index_ray=data[1],
        variable_borrow_index_ray=data[2],
        current_liquidity_rate_ray=data[3],
        current_variable_borrow_rate_ray=data[4],
        last_update_timestamp=data[6],
        scaled_variable_debt_raw=read(evm, abi.SCALED_TOTAL_SUPPLY.call(market.variable_debt_tokens[symbol])),
        available_liquidity_raw=read(evm, abi.BALANCE_OF.call(token, market.a_tokens[symbol])),
        price_wei=_or_none(evm, abi.GET_ASSET_PRICE.call(market.oracle, token)),
        stable_principal_raw=principal_raw,
        average_stable_rate_ray=average_ray,
        stable_timestamp=updated,
    )


def _read_market(evm: Evm, world: World, timestamp: int) -> AaveV2Market:
    return AaveV2Market(
        timestamp=timestamp,
        reserves=tuple(_read_reserve(evm, world, symbol) for symbol in world.symbols),
        paused=read(evm, function("paused()(bool)").call(world.pool)),
    )


def _read_account(evm: Evm, world: World, account: str) -> AaveV2Account:
    market = world.market
    return AaveV2Account(
        account=account,
        user_configuration=read(evm, abi.GET_USER_CONFIGURATION.call(world.pool, account)),
        positions=tuple(
            AaveV2Position(
                i,
                read(evm, abi.SCALED_BALANCE_OF.call(market.a_tokens[symbol], account)),
                read(evm, abi.SCALED_BALANCE_OF.call(market.variable_debt_tokens[symbol], account)),
                read(evm, PRINCIPAL_BALANCE_OF.call(market.stable_debt_tokens[symbol], account)),
                read(evm, GET_USER_STABLE_RATE.call(market.stable_debt_tokens[symbol], account)),
                read(evm, GET_USER_LAST_UPDATED.call(market.stable_debt_tokens[symbol], account)),
            )
            for i, symbol in enumerate(world.symbols)
        ),
    )


# --- comparison -------------------------------------------------------------------------------------------


def _compare(
    evm: Evm, world: World, market: AaveV2Market, account: AaveV2Account, attempt: Attempt
) -> CaseResult:
    compared = Comparison()
    health_factor_wad = _compare_reads(evm, world, market, account, compared)
    collateral, debt = world.market.tokens[attempt.collateral], world.market.tokens[attempt.debt]
    outcome = liquidation_quote(
        market,
        account,
        debt,
        collateral,
        attempt.debt_to_cover_raw,
        receive_a_token=attempt.receive_a_token,
    )
    a_token = world.market.a_tokens[attempt.collateral]
    treasury_of = world.market.a_tokens[attempt.debt]

    def holdings() -> dict[str, int]:
        return {
            "liquidator's collateral": read(evm, abi.BALANCE_OF.call(collateral, LIQUIDATOR)),
            "liquidator's debt token": read(evm, abi.BALANCE_OF.call(debt, LIQUIDATOR)),
            "liquidator's aTokens, scaled": read(evm, abi.SCALED_BALANCE_OF.call(a_token, LIQUIDATOR)),
            "treasury's aTokens, scaled": read(
                evm, abi.SCALED_BALANCE_OF.call(treasury_of, world.market.treasury)
            ),
        }

    before = holdings()
    data = abi.LIQUIDATION_CALL.encode(
        collateral, debt, BORROWER, attempt.debt_to_cover_raw, attempt.receive_a_token
    )
    result = evm.send(LIQUIDATOR, world.pool, data)
    compared.check("block time", result.timestamp, market.timestamp)
    code = None if result.success else revert_code(result.output)
    compared.check("revert code", code, outcome.revert_code)
    rates = False
    if result.success and outcome.succeeds:
        compared.event(result, outcome.debt_repaid_raw, outcome.collateral_seized_raw)
        updated, minted_raw = update_state(
            next(r for r in market.reserves if r.asset.symbol == attempt.debt), market.timestamp
        )
        moved_raw = outcome.collateral_scaled_raw if attempt.receive_a_token else 0
        changes = paid(
            repaid_raw=outcome.debt_repaid_raw,
            paid_out_raw=0 if attempt.receive_a_token else outcome.collateral_seized_raw,
            same=collateral == debt,
        )
        changes |= {"liquidator's aTokens, scaled": moved_raw, "treasury's aTokens, scaled": minted_raw}
        compared.changes(before, holdings(), changes)
        rates = _compare_reserve(evm, world, updated, account, attempt, outcome, market.timestamp, compared)
    if code == outcome.revert_code:
        compared.account(_read_account(evm, world, BORROWER), outcome.account_after)
    return CaseResult(
        verdict=verdict(code, errors.HEALTH_FACTOR_NOT_BELOW_THRESHOLD),
        code=code,
        tags=_tags(
            market, account, attempt, outcome, health_factor_wad, liquidated=result.success, rates=rates
        ),
        mismatches=tuple(compared.mismatches),
    )


def _compare_reads(
    evm: Evm, world: World, market: AaveV2Market, account: AaveV2Account, compared: Comparison
) -> int | None:
    """Compare indices, balances and account data; returns the contract's health factor."""
    now = market.timestamp
    for reserve in market.reserves:
        token, symbol = reserve.asset.address, reserve.asset.symbol
        position = account.position(reserve.id)
        income = read(evm, abi.GET_RESERVE_NORMALIZED_INCOME.call(world.pool, token))
        compared.check(f"normalized income of {symbol}", income, get_normalized_income(reserve, now))
        index = read(evm, abi.GET_RESERVE_NORMALIZED_VARIABLE_DEBT.call(world.pool, token))
        compared.check(f"normalized debt of {symbol}", index, get_normalized_debt(reserve, now))
        for kind, address, expected in (
            ("a", world.market.a_tokens[symbol], a_token_balance(reserve, position, now)),
            ("v", world.market.variable_debt_tokens[symbol], variable_debt_balance(reserve, position, now)),
            ("s", world.market.stable_debt_tokens[symbol], stable_debt_balance(position, now)),
        ):
            balance = read(evm, abi.BALANCE_OF.call(address, BORROWER))
            compared.check(f"balance of {kind}{symbol}", balance, expected)
    return compared.account_data(
        evm, world.pool, revert_code, lambda: calculate_user_account_data(market, account)
    )


def _compare_reserve(
    evm: Evm,
    world: World,
    updated: AaveV2Reserve,
    account: AaveV2Account,
    attempt: Attempt,
    outcome: AaveV2Liquidation,
    now: int,
    compared: Comparison,
) -> bool:
    """Compare the debt's reserve, brought to `now`: indices and, where no stable debt is burnt, new rates."""
    found = _read_reserve(evm, world, attempt.debt)
    compared.check("liquidity index", found.liquidity_index_ray, updated.liquidity_index_ray)
    compared.check("borrow index", found.variable_borrow_index_ray, updated.variable_borrow_index_ray)
    old, new = account.position(updated.id), outcome.account_after.position(updated.id)
    stable_burnt = stable_debt_balance(old, now) != stable_debt_balance(new, now)
    if stable_burnt or attempt.collateral == attempt.debt:
        return False
    burnt_raw = old.scaled_variable_debt_raw - new.scaled_variable_debt_raw
    updated = replace(updated, scaled_variable_debt_raw=updated.scaled_variable_debt_raw - burnt_raw)
    updated, _ = update_interest_rates(
        updated,
        STRATEGY,
        liquidity_added_raw=outcome.debt_repaid_raw,
        market_stable_rate_ray=MARKET_STABLE_RATE_RAY,
    )
    compared.check("liquidity rate", found.current_liquidity_rate_ray, updated.current_liquidity_rate_ray)
    compared.check(
        "variable rate", found.current_variable_borrow_rate_ray, updated.current_variable_borrow_rate_ray
    )
    compared.check("liquidity", found.available_liquidity_raw, updated.available_liquidity_raw)
    return True


def _tags(
    market: AaveV2Market,
    account: AaveV2Account,
    attempt: Attempt,
    outcome: AaveV2Liquidation,
    health_factor_wad: int | None,
    *,
    liquidated: bool,
    rates: bool,
) -> frozenset[str]:
    word = account.user_configuration
    debt = next(r for r in market.reserves if r.asset.symbol == attempt.debt)
    old, new = account.position(debt.id), outcome.account_after.position(debt.id)
    stable = [stable_debt_balance(p, market.timestamp) for p in (old, new)]
    named = {
        "multi_collateral": sum(is_using_as_collateral(word, r.id) for r in market.reserves) > 1,
        "multi_debt": sum(is_borrowing(word, r.id) for r in market.reserves) > 1,
        "stable_debt": any(p.stable_principal_raw for p in account.positions),
        "near_threshold": health_factor_wad is not None and abs(health_factor_wad - WAD) <= NEAR_WAD,
        "stable_repaid": liquidated and stable[0] != stable[1],
        "receive_atoken": liquidated and attempt.receive_a_token,
        "collateral_exhausted": liquidated and outcome.collateral_exhausted,
        "same_asset": liquidated and attempt.collateral == attempt.debt,
        "rates_compared": rates,
    }
    return holding(named)
