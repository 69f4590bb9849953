"""Parity of Aave V3.6: random borrowers of a real pool, liquidated by the model and by the contract.

All inputs of the model are read from the chain before the call, by the adapter's own reads: stored indices
and rates, scaled balances, bitmaps, virtual balances, prices as the real oracle gives them. The model's own
arithmetic serves to *choose* a case (prices that put a health factor or a value beside a threshold), never as
an input of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi import aave_v3 as abi
from contracts_abi import aave_v3_6 as abi_3_6
from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted
from simulation.chain.aave_v3 import MINT, deploy_tokens
from simulation.chain.aave_v3_6 import deploy_aave_v3_6
from simulation.chain.artifacts import aave_v3_6
from simulation.chain.evm import Evm, TxResult, find_log, labelled_address, read, transact
from simulation.chain.market import DEFAULT_MARKET
from simulation.chain.parity.aave_cases import (
    BORROWER,
    CLOSE_FACTOR_WAD,
    DEPLOYER,
    FUNDS_RAW,
    LIQUIDATOR,
    LIQUIDITY_USD,
    NEAR_WAD,
    PRICE_SOURCE,
    PROVIDER,
    SENTINEL_GRACE_S,
    SET_ANSWER,
    SET_CONFIGURATION,
    SINK,
    THRESHOLDS_WAD,
    TRANSFER_REFUSED,
    WHALE,
    YEAR_S,
    Comparison,
    act_as,
    execute,
    first_from,
    maybe,
    pick,
    raw_of,
    some,
    uniform,
)
from simulation.chain.parity.harness import CaseResult, Compared, Verdict, parity_adapters
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols.aave_v3.configuration import (
    BORROWING_MASK,
    COLLATERAL_MASK,
    ReserveConfiguration,
    is_borrowing,
    is_using_as_collateral,
)
from simulation.protocols.aave_v3.layout import discover_layout, run_stages
from simulation.protocols.aave_v3.pool_adapter import IS_LIQUIDATION_ALLOWED
from simulation.protocols.aave_v3.types import AaveAccount, AavePosition
from simulation.protocols.aave_v3_6 import errors
from simulation.protocols.aave_v3_6.adapter import AaveV36
from simulation.protocols.aave_v3_6.generic_logic import (
    a_token_balance,
    calculate_user_account_data,
    variable_debt_balance,
)
from simulation.protocols.aave_v3_6.liquidation_logic import (
    MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD,
    MIN_LEFTOVER_BASE,
    liquidation_quote,
)
from simulation.protocols.aave_v3_6.reserve_logic import project
from simulation.protocols.aave_v3_6.types import AaveMarket, LiquidationOutcome, ReserveData

E_MODE: Final = 1
RESERVES: Final = len(DEFAULT_MARKET.assets)
HALF_BPS: Final = 5_000
THRESHOLD_TRIES: Final = 150
"""More than for revision 1: without an average in between, few prices give a health factor of 1 itself."""


@dataclass(frozen=True, slots=True)
class World:
    """What the cases have in common.

    Attributes
    ----------
    adapter
        Adapter of the deployed market, reading word by word.
    configurator
        The only one whom the pool lets write configurations.
    sources
        Symbol to the price source behind the oracle.
    sequencer
        What the price oracle sentinel asks.
    treasury
        Receives the protocol's fees.
    """

    adapter: AaveV36
    configurator: str
    sources: Mapping[str, str]
    sequencer: str
    treasury: str

    @property
    def pool(self) -> str:
        """The pool's proxy."""
        return self.adapter.layout.pool

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in reserve order."""
        return tuple(r.asset.symbol for r in self.adapter.layout.reserves)

    def token(self, symbol: str) -> str:
        """Address of a token."""
        return self.adapter.layout.reserve_of(symbol).asset.address


@dataclass(frozen=True, slots=True)
class Attempt:
    """The liquidation that a case tries."""

    collateral: str
    debt: str
    debt_to_cover_raw: int
    receive_a_token: bool
    liquidator: str


@parity_adapters.register("aave-v3.6")
@dataclass(frozen=True, slots=True)
class AaveV36Parity:
    """`simulation.chain.parity.ParityAdapter` of Aave V3.6."""

    kind: ClassVar[Literal["aave-v3.6"]] = "aave-v3.6"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "simulation.protocols.aave_v3_6",
            "@aave-dao/aave-v3-origin 3.6.0: PoolInstance, AaveOracle, tokens; solc 0.8.27",
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract can do with a case."""
        return tuple(Verdict)

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

    def prepare(self, evm: Evm) -> World:
        """Deploy the market of `DEFAULT_MARKET`, with a price oracle sentinel and settable price sources."""
        return _prepare(evm)

    def run(self, evm: Evm, world: World, rng: np.random.Generator) -> CaseResult:
        """Bring about one borrower, one market and one liquidation; compare."""
        _open_position(evm, world, rng)
        _disturb(evm, world, rng)

        market_before = _read_market(evm, world)
        account = _read_account(evm, world, market_before)
        gap_s = pick(rng, (0, 1, 12, 3_600, int(rng.integers(1, 90 * 86_400))))
        timestamp = evm.timestamp() + gap_s
        for symbol, price in _choose_prices(rng, project(market_before, timestamp), account).items():
            evm.set_storage(world.sources[symbol], 0, price % 2**256)
        evm.warp(timestamp)

        market = replace(
            project(market_before.with_prices(_read_prices(evm, world)), timestamp),
            liquidation_allowed=read(evm, IS_LIQUIDATION_ALLOWED.call(world.adapter.layout.sentinel)),
        )
        attempt = _choose_attempt(rng, market, account)
        return _compare(evm, world, market, account, attempt)


# --- deployment -------------------------------------------------------------------------------------------


def _prepare(evm: Evm) -> World:
    tokens = deploy_tokens(evm, DEPLOYER, DEFAULT_MARKET)
    sources = {symbol: labelled_address(f"price source of {symbol}") for symbol in tokens}
    for asset in DEFAULT_MARKET.assets:
        evm.set_code(sources[asset.symbol], PRICE_SOURCE)
        evm.set_storage(sources[asset.symbol], 0, asset.price_e8)
    deployed = deploy_aave_v3_6(evm, DEPLOYER, DEFAULT_MARKET, tokens=tokens, feeds=sources)

    sequencer = evm.create(DEPLOYER, aave_v3_6("SequencerOracle").creation_code(DEPLOYER))
    sentinel = evm.create(
        DEPLOYER,
        aave_v3_6("PriceOracleSentinel").creation_code(deployed.provider, sequencer, SENTINEL_GRACE_S),
    )
    transact(evm, DEPLOYER, deployed.provider, abi.SET_PRICE_ORACLE_SENTINEL, sentinel)

    for asset in DEFAULT_MARKET.assets:
        token = tokens[asset.symbol]
        for holder in (PROVIDER, WHALE, LIQUIDATOR):
            transact(evm, DEPLOYER, token, MINT, holder, FUNDS_RAW)
            transact(evm, holder, token, abi.APPROVE, deployed.pool, MAX_UINT256)
        amount_raw = LIQUIDITY_USD * 10**8 * 10**asset.decimals // asset.price_e8
        for holder in (PROVIDER, WHALE):
            transact(evm, holder, deployed.pool, abi.SUPPLY, token, amount_raw, holder, 0)

    layout = run_stages(discover_layout(deployed.provider), lambda calls: execute(evm, calls))
    return World(
        adapter=AaveV36(layout),
        configurator=deployed.configurator,
        sources=sources,
        sequencer=sequencer,
        treasury=deployed.treasury,
    )


# --- a case -----------------------------------------------------------------------------------------------


def _open_position(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Let the borrower supply and borrow, and time pass; then change what the pool thinks of the assets."""
    style = pick(rng, ("plain", "single", "emode", "isolation"), (0.40, 0.25, 0.25, 0.10))
    low, high = pick(rng, ((-6, 0), (0, 3), (3, 4), (4, 5.5), (5.5, 7.5)), (0.08, 0.15, 0.32, 0.32, 0.13))
    _populate(evm, world, rng)
    if style == "emode":
        transact(evm, BORROWER, world.pool, abi.SET_USER_EMODE, E_MODE)
        collaterals = list(dict.fromkeys([pick(rng, ("WETH", "wstETH")), *some(rng, world.symbols, 3)]))
        debts = some(rng, ("WETH", "wstETH"), 2)
    else:
        collaterals, debts = some(rng, world.symbols, 4), some(rng, world.symbols, 3)
    if style in ("single", "isolation"):
        collaterals = collaterals[:1]
    if style == "isolation":
        _reconfigure(evm, world, collaterals[0], debt_ceiling=10**11)
        for symbol in debts:
            _reconfigure(evm, world, symbol, borrowable_in_isolation=True)

    for symbol in collaterals:
        amount_raw = max(1, raw_of(symbol, 10 ** rng.uniform(low, high)))
        evm.send(PROVIDER, world.pool, abi.SUPPLY.encode(world.token(symbol), amount_raw, BORROWER, 0))
    if style == "isolation":
        # Isolated assets never become collateral by themselves.
        call = abi.SET_USER_USE_RESERVE_AS_COLLATERAL.encode(world.token(collaterals[0]), True)
        evm.send(BORROWER, world.pool, call)
    for symbol in debts:
        available_base = read(evm, abi.GET_USER_ACCOUNT_DATA.call(world.pool, BORROWER))[2]
        amount_raw = max(1, raw_of(symbol, available_base / 10**8 * rng.uniform(0.2, 0.98)))
        # What the pool refuses, such as a borrow worth nothing, leaves an account with less debt or none.
        evm.send(
            BORROWER,
            world.pool,
            abi.BORROW.encode(world.token(symbol), amount_raw, abi.VARIABLE_RATE_MODE, 0, BORROWER),
        )
    _age(evm, world, rng)
    if maybe(rng, 0.06):
        call = abi.SET_USER_USE_RESERVE_AS_COLLATERAL.encode(world.token(pick(rng, collaterals)), False)
        evm.send(BORROWER, world.pool, call)
    for symbol in dict.fromkeys([*collaterals, *debts]):
        _vary_reserve(evm, world, rng, symbol)
    if style == "single" and maybe(rng, 0.2):  # what is owed in it is not burnt as bad debt
        _reconfigure(evm, world, debts[-1], active=False)
    if maybe(rng, 0.4):
        _vary_e_mode(evm, world, rng)


def _populate(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Let others borrow, so that rates differ by case and asset; in some cases the liquidator supplies."""
    for symbol in some(rng, world.symbols, 4):
        share = pick(rng, (0.05, 0.3, 0.6, 0.9), (0.3, 0.3, 0.3, 0.1)) * rng.uniform(0.5, 1)
        amount_raw = raw_of(symbol, LIQUIDITY_USD * share)
        call = abi.BORROW.encode(world.token(symbol), amount_raw, abi.VARIABLE_RATE_MODE, 0, WHALE)
        evm.send(WHALE, world.pool, call)
    if maybe(rng, 0.15):
        token = world.token(pick(rng, world.symbols))
        transact(evm, PROVIDER, world.pool, abi.SUPPLY, token, 10**6, LIQUIDATOR, 0)


def _age(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Let time pass, with reserves touched now and then, so that each has indices of another time."""
    for _ in range(int(rng.integers(0, 3))):
        gap_s = pick(rng, (1, 3_600, int(rng.integers(1, 30 * 86_400)), int(rng.integers(1, 2 * YEAR_S))))
        evm.warp(evm.timestamp() + gap_s)
        token = world.token(pick(rng, world.symbols))
        transact(evm, PROVIDER, world.pool, abi.SUPPLY, token, 10**6, PROVIDER, 0)


def _reconfigure(evm: Evm, world: World, symbol: str, **changes: Any) -> None:
    """Write a reserve's configuration as the configurator would, without its own checks."""
    word = read(evm, abi.GET_CONFIGURATION.call(world.pool, world.token(symbol)))
    changed = replace(ReserveConfiguration.unpack(word), **changes).pack()
    act_as(evm, world.configurator, world.pool, SET_CONFIGURATION, world.token(symbol), (changed,))


def _vary_reserve(evm: Evm, world: World, rng: np.random.Generator, symbol: str) -> None:
    changes: dict[str, Any] = {}
    if maybe(rng, 0.4):
        changes["liquidation_protocol_fee_bps"] = pick(rng, (0, 2_000, 10_000, int(rng.integers(1, 10_000))))
    if maybe(rng, 0.4):
        # With round thresholds more prices give a health factor of 1 itself.
        changes["liquidation_threshold_bps"] = pick(rng, (5_000, 8_000, int(rng.integers(1_000, 9_900))))
        changes["liquidation_bonus_bps"] = int(rng.integers(10_001, 12_500))
    if maybe(rng, 0.04):
        changes["ltv_bps"] = 0
    if maybe(rng, 0.03):
        changes["liquidation_threshold_bps"] = 0
    if maybe(rng, 0.02):
        changes["liquidation_bonus_bps"] = pick(rng, (0, 9_000, 10_000))
    if maybe(rng, 0.08):
        changes[pick(rng, ("frozen", "paused", "paused", "inactive"))] = True
    if changes.pop("inactive", False):
        changes["active"] = False
    if changes:
        _reconfigure(evm, world, symbol, **changes)


def _vary_e_mode(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Give the eMode category other parameters, other collaterals, or collaterals that count with LTV 0."""
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


def _disturb(evm: Evm, world: World, rng: np.random.Generator) -> None:
    """Put circumstances in the way that have nothing to do with the borrower."""
    if maybe(rng, 0.10):  # the sequencer is down, or came up a while ago
        since = evm.timestamp() - int(rng.integers(0, 2 * SENTINEL_GRACE_S))
        transact(evm, DEPLOYER, world.sequencer, SET_ANSWER, maybe(rng, 0.5), since)
    if maybe(rng, 0.05):  # the tokens to pay collateral with are gone
        reserve = world.adapter.layout.reserve_of(pick(rng, world.symbols))
        liquidity = read(evm, abi.BALANCE_OF.call(reserve.asset.address, reserve.a_token))
        act_as(evm, reserve.a_token, reserve.asset.address, abi.TRANSFER, SINK, liquidity)
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


# --- prices -----------------------------------------------------------------------------------------------


def _choose_prices(rng: np.random.Generator, market: AaveMarket, account: AaveAccount) -> dict[str, int]:
    """Return prices that put the account's health factor, or one of its debts, where it is interesting."""
    prices = {key: max(1, int(price * rng.lognormal(0, 0.2))) for key, price in market.prices_base.items()}
    word = account.user_configuration
    flagged = [r for r in market.listed() if (word >> (2 * r.id)) & 3]
    if not flagged:
        return prices
    kind, target_wad = _target_health_factor(rng)
    debts = [r for r in flagged if is_borrowing(word, r.id)]
    collaterals = [r for r in flagged if not is_borrowing(word, r.id)]
    # What an account has least of moves values and health factor in the smallest steps.
    finest = sorted(flagged, key=lambda r: _most_raw(account, r) / r.configuration.unit)
    if kind == "floor" and debts and collaterals:
        _put_beside_floor(rng, prices, account, next(r for r in finest if r in debts))
        flagged = collaterals
    at_one = kind in ("one", "close") and maybe(rng, 0.8)
    lever = finest[0] if at_one else pick(rng, flagged)
    key = lever.asset.symbol
    rising = is_using_as_collateral(word, lever.id)

    def health_factor(tried: dict[str, int]) -> int:
        try:
            return calculate_user_account_data(market.with_prices(tried), account).health_factor_wad
        except errors.AaveRevert:
            return MAX_UINT256 if rising else 0

    def reached(target_wad: int, others: dict[str, int]) -> Callable[[int], bool]:
        return lambda price: (health_factor(others | {key: price}) >= target_wad) is rising

    price = first_from(reached(target_wad, prices), 1, 10**16)
    if kind in ("one", "close"):
        # Another price, moved tick by tick, is a second chance to hit the threshold itself.
        other = (finest[1] if at_one and len(finest) > 1 else pick(rng, flagged)).asset.symbol
        for _ in range(THRESHOLD_TRIES):
            if health_factor(prices | {key: price}) == target_wad or other == key:
                break
            prices[other] += 1
            price = first_from(reached(target_wad, prices), max(1, price - 32), price + 32)
    prices[key] = max(1, price + int(pick(rng, (-1, 0, 0, 0, 1))))
    if maybe(rng, 0.03):  # no price: the oracle has no fallback and reverts
        prices[pick(rng, sorted(prices))] = pick(rng, (0, -1))
    elif maybe(rng, 0.03):  # products that leave 256 bits
        prices[pick(rng, sorted(prices))] = uniform(rng, 0, 2 ** int(rng.integers(60, 255)))
    elif maybe(rng, 0.03):
        prices[pick(rng, sorted(prices))] = 1
    return prices


def _most_raw(account: AaveAccount, reserve: ReserveData) -> int:
    position = account.position(reserve.id)
    return max(position.scaled_a_token_raw, position.scaled_variable_debt_raw)


def _target_health_factor(rng: np.random.Generator) -> tuple[str, int]:
    kind = pick(
        rng, ("one", "close", "floor", "below", "deep", "above"), (0.13, 0.18, 0.12, 0.33, 0.18, 0.06)
    )
    if kind == "one":
        return kind, WAD
    if kind == "close":
        return kind, CLOSE_FACTOR_WAD
    low, high = {"floor": (0.951, 0.999), "below": (0.80, 1.0), "deep": (0.01, 0.80), "above": (1.0, 1.5)}[
        kind
    ]
    return kind, int(rng.uniform(low, high) * WAD)


def _put_beside_floor(
    rng: np.random.Generator, prices: dict[str, int], account: AaveAccount, debt: ReserveData
) -> None:
    """Price a debt so that it is worth as much as a position has to be for the close factor to be half."""
    owed_raw = variable_debt_balance(debt, account.position(debt.id))
    if owed_raw:
        target_base = MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD + int(pick(rng, (-1, 0, 1)))
        prices[debt.asset.symbol] = max(1, target_base * debt.configuration.unit // owed_raw)


def _choose_attempt(rng: np.random.Generator, market: AaveMarket, account: AaveAccount) -> Attempt:
    listed = market.listed()
    word = account.user_configuration
    collaterals = [r for r in listed if is_using_as_collateral(word, r.id)]
    debts = [r for r in listed if is_borrowing(word, r.id)]
    collateral = pick(rng, collaterals if collaterals and maybe(rng, 0.95) else listed)
    debt = pick(rng, debts if debts and maybe(rng, 0.95) else listed)
    owed_raw = max(1, variable_debt_balance(debt, account.position(debt.id)))
    leftover_base = MIN_LEFTOVER_BASE + int(pick(rng, (-1, 0, 1)))
    leftover_raw = leftover_base * debt.configuration.unit // (debt.price_base or 1)
    options = (
        MAX_UINT256,
        uniform(rng, 1, owed_raw),
        int(10 ** rng.uniform(0, math.log10(owed_raw))),
        owed_raw,
        2 * owed_raw,
        owed_raw // 2,
        pick(rng, (0, 1, 2, 3)),
        max(0, owed_raw - leftover_raw + int(pick(rng, (-1, 0, 1)))),
        _leaving_collateral(rng, market, account, collateral, debt),
    )
    return Attempt(
        collateral=collateral.asset.symbol,
        debt=debt.asset.symbol,
        debt_to_cover_raw=pick(rng, options, (0.40, 0.15, 0.05, 0.08, 0.04, 0.07, 0.04, 0.08, 0.09)),
        receive_a_token=maybe(rng, 0.25),
        liquidator=BORROWER if maybe(rng, 0.02) else LIQUIDATOR,
    )


def _leaving_collateral(
    rng: np.random.Generator,
    market: AaveMarket,
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


# --- reads ------------------------------------------------------------------------------------------------


def _read_market(evm: Evm, world: World) -> AaveMarket:
    answers = execute(evm, world.adapter.market_reads())
    return world.adapter.decode_market(answers, block=evm.block_number(), timestamp=evm.timestamp())


def _read_account(evm: Evm, world: World, market: AaveMarket) -> AaveAccount:
    """Return the borrower with all its balances, flagged or not."""
    return AaveAccount(
        account=BORROWER,
        user_configuration=read(evm, abi.GET_USER_CONFIGURATION.call(world.pool, BORROWER)),
        e_mode_category=read(evm, abi.GET_USER_EMODE.call(world.pool, BORROWER)),
        positions=tuple(
            AavePosition(
                r.id,
                read(evm, abi.SCALED_BALANCE_OF.call(r.a_token, BORROWER)),
                read(evm, abi.SCALED_BALANCE_OF.call(r.variable_debt_token, BORROWER)),
            )
            for r in market.listed()
        ),
    )


def _read_prices(evm: Evm, world: World) -> dict[str, int]:
    """Return what the oracle answers; a symbol for which it reverts is left out."""
    layout = world.adapter.layout
    calls = [abi.GET_ASSET_PRICE.call(layout.oracle, r.asset.address) for r in layout.reserves]
    answers = execute(evm, calls)
    return {
        symbol: call.decode(data)
        for symbol, call, data in zip(world.symbols, calls, answers, strict=True)
        if data is not None
    }


# --- comparison -------------------------------------------------------------------------------------------


def _code_or(evm: Evm, call: Call[Any]) -> Any:
    """Return the decoded answer, or the revert code as text."""
    try:
        return call.decode(evm.call(call.to, call.data))
    except CallReverted as error:
        return errors.revert_code(error.data)


def _compare(
    evm: Evm, world: World, market: AaveMarket, account: AaveAccount, attempt: Attempt
) -> CaseResult:
    compared = Comparison()
    health_factor_wad = _compare_reads(evm, world, market, account, compared)
    collateral, debt = world.token(attempt.collateral), world.token(attempt.debt)
    outcome = liquidation_quote(
        market,
        account,
        debt,
        collateral,
        attempt.debt_to_cover_raw,
        receive_a_token=attempt.receive_a_token,
        liquidator=attempt.liquidator,
    )
    before = _Holdings.read(evm, world, market, attempt)
    data = abi.LIQUIDATION_CALL.encode(
        collateral, debt, BORROWER, attempt.debt_to_cover_raw, attempt.receive_a_token
    )
    result = evm.send(attempt.liquidator, world.pool, data)
    compared.check("block time", result.timestamp, market.timestamp)
    code = None if result.success else errors.revert_code(result.output)
    if outcome.revert_code == errors.TOKEN_REVERT and code in TRANSFER_REFUSED:
        code = errors.TOKEN_REVERT
    compared.check("revert code", code, outcome.revert_code)
    if result.success and outcome.succeeds:
        _compare_events(result, market, outcome, compared)
    if code == outcome.revert_code:
        after = _Holdings.read(evm, world, market, attempt)
        _compare_effects(outcome, attempt, before, after, compared)
        left = _read_account(evm, world, market)
        compared.check("configuration", left.user_configuration, outcome.account_after.user_configuration)
        for position in left.positions:
            expected = outcome.account_after.position(position.reserve_id)
            compared.check(f"position {position.reserve_id}", position, expected)
    return CaseResult(
        verdict=_verdict(code),
        code=code,
        tags=_tags(market, account, attempt, outcome, health_factor_wad, code),
        mismatches=tuple(compared.mismatches),
    )


def _verdict(code: str | None) -> Verdict:
    if code is None:
        return Verdict.LIQUIDATED
    return Verdict.HEALTHY if code == errors.HEALTH_FACTOR_NOT_BELOW_THRESHOLD else Verdict.REJECTED


def _compare_reads(
    evm: Evm, world: World, market: AaveMarket, account: AaveAccount, compared: Comparison
) -> int | None:
    """Compare indices, balances and account data; returns the contract's health factor."""
    for reserve in market.listed():
        address, symbol = reserve.asset.address, reserve.asset.symbol
        income = read(evm, abi.GET_RESERVE_NORMALIZED_INCOME.call(world.pool, address))
        compared.check(f"normalized income of {symbol}", income, reserve.normalized_income_ray)
        index = read(evm, abi.GET_RESERVE_NORMALIZED_VARIABLE_DEBT.call(world.pool, address))
        compared.check(f"normalized debt of {symbol}", index, reserve.normalized_variable_debt_ray)
        position = account.position(reserve.id)
        balance = read(evm, abi.BALANCE_OF.call(reserve.a_token, BORROWER))
        compared.check(f"balance of a{symbol}", balance, a_token_balance(reserve, position))
        owed = read(evm, abi.BALANCE_OF.call(reserve.variable_debt_token, BORROWER))
        compared.check(f"debt in {symbol}", owed, variable_debt_balance(reserve, position))

    contract = _code_or(evm, abi.GET_USER_ACCOUNT_DATA.call(world.pool, BORROWER))
    try:
        model: Any = calculate_user_account_data(market, account).words()
    except errors.AaveRevert as reverted:
        model = reverted.code
    compared.check("account data", contract, model)
    return contract[5] if isinstance(contract, tuple) else None


def _compare_events(
    result: TxResult, market: AaveMarket, outcome: LiquidationOutcome, compared: Comparison
) -> None:
    emitted = find_log(result, abi.LIQUIDATION_CALL_EVENT)
    compared.check("event debtToCover", emitted["debtToCover"], outcome.debt_repaid_raw)
    compared.check(
        "event liquidatedCollateralAmount", emitted["liquidatedCollateralAmount"], outcome.to_liquidator_raw
    )
    ids = {r.asset.address.lower(): r.id for r in market.listed()}
    created = [
        abi_3_6.DEFICIT_CREATED_EVENT.decode(log.topics, log.data)
        for log in result.logs
        if log.topics and log.topics[0] == abi_3_6.DEFICIT_CREATED_EVENT.topic
    ]
    deficits = tuple((ids[str(log["debtAsset"]).lower()], log["amountCreated"]) for log in created)
    compared.check("events DeficitCreated", deficits, outcome.deficits_raw)


@dataclass(frozen=True, slots=True)
class _Holdings:
    """What others than the borrower have: the liquidator, the treasury, the pool's own books."""

    collateral_raw: int
    debt_raw: int
    scaled_a_token_raw: int
    treasury_scaled_raw: int
    liquidator_configuration: int
    isolation_mode_total_debt: int
    deficits_raw: Mapping[int, int]
    virtual_balances_raw: Mapping[int, int]

    @classmethod
    def read(cls, evm: Evm, world: World, market: AaveMarket, attempt: Attempt) -> _Holdings:
        pool = world.pool
        collateral = world.adapter.layout.reserve_of(attempt.collateral)
        tokens = {r.id: r.asset.address for r in market.listed()}
        data = [read(evm, abi.GET_RESERVE_DATA.call(pool, token)) for token in tokens.values()]
        return cls(
            collateral_raw=read(evm, abi.BALANCE_OF.call(collateral.asset.address, LIQUIDATOR)),
            debt_raw=read(evm, abi.BALANCE_OF.call(world.token(attempt.debt), LIQUIDATOR)),
            scaled_a_token_raw=read(evm, abi.SCALED_BALANCE_OF.call(collateral.a_token, LIQUIDATOR)),
            treasury_scaled_raw=read(evm, abi.SCALED_BALANCE_OF.call(collateral.a_token, world.treasury)),
            liquidator_configuration=read(evm, abi.GET_USER_CONFIGURATION.call(pool, LIQUIDATOR)),
            isolation_mode_total_debt=sum(d[14] for d in data),
            deficits_raw={
                i: read(evm, abi_3_6.GET_RESERVE_DEFICIT.call(pool, token)) for i, token in tokens.items()
            },
            virtual_balances_raw={
                i: read(evm, abi_3_6.GET_VIRTUAL_UNDERLYING_BALANCE.call(pool, token))
                for i, token in tokens.items()
            },
        )


def _compare_effects(
    outcome: LiquidationOutcome,
    attempt: Attempt,
    before: _Holdings,
    after: _Holdings,
    compared: Comparison,
) -> None:
    paid_out_raw = 0 if attempt.receive_a_token else outcome.to_liquidator_raw
    same = attempt.collateral == attempt.debt
    compared.check(
        "liquidator's collateral",
        after.collateral_raw - before.collateral_raw,
        paid_out_raw - (outcome.debt_repaid_raw if same else 0),
    )
    compared.check(
        "liquidator's debt token",
        after.debt_raw - before.debt_raw,
        (paid_out_raw if same else 0) - outcome.debt_repaid_raw,
    )
    compared.check(
        "liquidator's aTokens, scaled",
        after.scaled_a_token_raw - before.scaled_a_token_raw,
        outcome.liquidator_scaled_raw,
    )
    compared.check(
        "treasury's aTokens, scaled",
        after.treasury_scaled_raw - before.treasury_scaled_raw,
        outcome.treasury_scaled_raw,
    )
    compared.check(
        "isolation mode debt",
        before.isolation_mode_total_debt - after.isolation_mode_total_debt,
        outcome.isolation_mode_debt_repaid,
    )
    # Since 3.6 aTokens that a liquidator receives never become collateral by themselves.
    compared.check(
        "liquidator's configuration", after.liquidator_configuration, before.liquidator_configuration
    )
    burnt = dict(outcome.deficits_raw)
    for i, deficit_raw in after.deficits_raw.items():
        compared.check(f"deficit {i}", deficit_raw - before.deficits_raw[i], burnt.get(i, 0))
    moved = sum(after.virtual_balances_raw.values()) - sum(before.virtual_balances_raw.values())
    compared.check("virtual balances", moved, outcome.debt_repaid_raw - paid_out_raw)


def _tags(
    market: AaveMarket,
    account: AaveAccount,
    attempt: Attempt,
    outcome: LiquidationOutcome,
    health_factor_wad: int | None,
    code: str | None,
) -> frozenset[str]:
    word = account.user_configuration
    liquidated = code is None
    e_mode = market.e_mode_categories.get(account.e_mode_category)
    by_symbol = {r.asset.symbol: r for r in market.listed()}
    in_e_mode = e_mode is not None and (e_mode.collateral_bitmap >> by_symbol[attempt.collateral].id) & 1
    listed = [r for r in market.listed() if is_using_as_collateral(word, r.id)]
    collaterals, debts = (word & COLLATERAL_MASK).bit_count(), (word & BORROWING_MASK).bit_count()
    half = liquidated and outcome.close_factor_bps == HALF_BPS
    above = health_factor_wad is not None and health_factor_wad > CLOSE_FACTOR_WAD
    named = {
        "emode": e_mode is not None,
        "emode_collateral": bool(in_e_mode),
        "isolation": any(r.configuration.debt_ceiling for r in listed),
        "multi_collateral": collaterals > 1,
        "multi_debt": debts > 1,
        "multi_asset": collaterals > 1 or debts > 1,
        "near_threshold": health_factor_wad is not None
        and any(abs(health_factor_wad - threshold) <= NEAR_WAD for threshold in THRESHOLDS_WAD),
        "at_threshold": health_factor_wad in THRESHOLDS_WAD,
        "dust": code == errors.MUST_NOT_LEAVE_DUST,
        "full_close": liquidated and outcome.full,
        "partial_close": liquidated and not outcome.full,
        "close_factor_half": half,
        "small_position": liquidated and above and not half,
        "deficit": liquidated and bool(outcome.deficits_raw),
        "deficit_of_other_debts": liquidated
        and any(i != by_symbol[attempt.debt].id for i, _ in outcome.deficits_raw),
        "protocol_fee": liquidated and outcome.protocol_fee_raw > 0,
        "receive_atoken": liquidated and attempt.receive_a_token,
        "collateral_exhausted": liquidated and outcome.collateral_exhausted,
    }
    return frozenset(name for name, holds in named.items() if holds)
