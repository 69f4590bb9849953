"""What the parity tests of all versions of Aave V3 do alike: deploy, open a position, read it, compare.

A version's module keeps what it alone has. All inputs of the model are read from the chain before the call,
by its adapter's reads: stored indices and rates, scaled balances, bitmaps, prices as the real oracle gives
them. The model's own arithmetic serves to *choose* a case (prices that put a health factor or a value beside
a threshold), never as an input of the comparison.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np

from contracts_abi import aave_v3 as abi
from contracts_abi.artifacts import Artifact
from simulation.chain.aave_v3 import MINT, AaveDeployment, deploy_tokens
from simulation.chain.evm import Evm, TxResult, read, transact
from simulation.chain.market import DEFAULT_MARKET
from simulation.chain.parity.aave_cases import (
    BORROWER,
    CLOSE_FACTOR_WAD,
    DEPLOYER,
    FUNDS_RAW,
    LIQUIDATOR,
    LIQUIDITY_USD,
    NEAR_WAD,
    PROVIDER,
    SENTINEL_GRACE_S,
    SET_ANSWER,
    SET_CONFIGURATION,
    SINK,
    THRESHOLDS_WAD,
    TRANSFER_REFUSED,
    WHALE,
    Attempt,
    Comparison,
    act_as,
    execute,
    first_from,
    holding,
    later,
    maybe,
    odd_price,
    paid,
    pass_time,
    pick,
    price_sources,
    raw_of,
    some,
    uniform,
    verdict,
)
from simulation.chain.parity.harness import CaseResult, Verdict
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols.aave_v3.configuration import (
    BORROWING_MASK,
    COLLATERAL_MASK,
    ReserveConfiguration,
    is_using_as_collateral,
)
from simulation.protocols.aave_v3.errors import TOKEN_REVERT, AaveRevert
from simulation.protocols.aave_v3.layout import AaveLayout, discover_layout, run_stages
from simulation.protocols.aave_v3.pool_adapter import IS_LIQUIDATION_ALLOWED
from simulation.protocols.aave_v3.types import AaveAccount, AavePosition

E_MODE: Final = 1

_AT_WAD: Final = {"one": WAD, "close": CLOSE_FACTOR_WAD}
_BETWEEN: Final = {
    "floor": (0.951, 0.999),
    "below": (0.80, 1.0),
    "deep": (0.01, 0.80),
    "above": (1.0, 1.5),
}


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
        Price key (symbol, or ``emode-1``) to the price source behind the oracle.
    sequencer
        What the price oracle sentinel asks.
    treasury
        Receives the protocol's fees.
    """

    adapter: Any
    configurator: str
    sources: Mapping[str, str]
    sequencer: str
    treasury: str

    @property
    def pool(self) -> str:
        """The pool's proxy."""
        return str(self.adapter.layout.pool)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in reserve order."""
        return tuple(r.asset.symbol for r in self.adapter.layout.reserves)

    def token(self, symbol: str) -> str:
        """Address of a token."""
        return str(self.adapter.layout.reserve_of(symbol).asset.address)


@dataclass(frozen=True, slots=True)
class Done:
    """A case that was run.

    Attributes
    ----------
    market, account, attempt
        What was tried.
    outcome
        What the model says of it.
    health_factor_wad
        What the contract answered before, None when it reverted.
    code
        With which code the contract reverted, None when it did not.
    """

    market: Any
    account: AaveAccount
    attempt: Attempt
    outcome: Any
    health_factor_wad: int | None
    code: str | None


@dataclass(frozen=True, slots=True)
class V3Parity(ABC):
    """`simulation.chain.parity.ParityAdapter` of a version of Aave V3.

    Attributes
    ----------
    styles, sizes, targets
        Probability of a kind of position (``plain``, ``single`` for one collateral, ``emode``,
        ``isolation``), of a range of a collateral's value as powers of ten in dollars, and of a kind of
        health factor.
    covers
        Probabilities of the amounts that an attempt tries.
    round_thresholds_bps, odd_bonuses_bps
        Liquidation thresholds that a reserve has more often than others, and bonuses that few have.
    threshold_tries
        Steps of a second price in search of a health factor that is a threshold itself.
    healthy
        The code with which the pool says that an account is healthy.
    """

    styles: ClassVar[Mapping[str, float]]
    sizes: ClassVar[Mapping[tuple[float, float], float]]
    targets: ClassVar[Mapping[str, float]]
    covers: ClassVar[tuple[float, ...]]
    round_thresholds_bps: ClassVar[tuple[int, ...]] = ()
    odd_bonuses_bps: ClassVar[tuple[int, ...]] = ()
    threshold_tries: ClassVar[int]
    healthy: ClassVar[str]

    # --- the version's own --------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def deploy(evm: Evm, tokens: Mapping[str, str], sources: Mapping[str, str]) -> AaveDeployment:
        """Deploy `DEFAULT_MARKET` by `DEPLOYER`."""

    @staticmethod
    @abstractmethod
    def contract(name: str) -> Artifact:
        """Return ``SequencerOracle`` or ``PriceOracleSentinel``."""

    @abstractmethod
    def adapter(self, layout: AaveLayout) -> Any:
        """Return the version's adapter."""

    @abstractmethod
    def vary_e_mode(self, evm: Evm, world: World, rng: np.random.Generator) -> World:
        """Give the eMode category other parameters; returns the world with the layout as it then is."""

    @abstractmethod
    def choose_prices(
        self, rng: np.random.Generator, world: World, market: Any, account: AaveAccount
    ) -> dict[str, int]:
        """Return prices that put the account where it is interesting."""

    @abstractmethod
    def choose_attempt(self, rng: np.random.Generator, market: Any, account: AaveAccount) -> Attempt:
        """Return the liquidation that the case tries."""

    @staticmethod
    @abstractmethod
    def balances(market: Any, reserve: Any, position: AavePosition) -> tuple[int, int]:
        """Return what the model says of aTokens and variable debt."""

    @staticmethod
    @abstractmethod
    def revert_code(data: bytes) -> str:
        """Return revert data as a code."""

    def quote_options(self, attempt: Attempt) -> dict[str, Any]:
        """Return what else the model's `liquidation_quote` is told."""
        return {}

    def compare_events(self, result: TxResult, market: Any, outcome: Any, compared: Comparison) -> None:
        """Compare what the liquidation emitted."""
        compared.event(result, outcome.debt_repaid_raw, outcome.to_liquidator_raw)

    def books(self, evm: Evm, world: World, market: Any) -> dict[str, int]:
        """Return further figures of the pool that a liquidation may change."""
        return {}

    def own_changes(
        self, market: Any, attempt: Attempt, outcome: Any, before: Mapping[str, int]
    ) -> dict[str, int]:
        """Return by how much they, and the liquidator's configuration, change."""
        return {}

    def own_tags(self, done: Done) -> dict[str, bool]:
        """Return what only this version's cases are counted as."""
        return {}

    # --- alike in all versions ----------------------------------------------------------------------------

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract can do with a case."""
        return tuple(Verdict)

    def prepare(self, evm: Evm) -> World:
        """Deploy the market of `DEFAULT_MARKET`, with a price oracle sentinel and settable price sources."""
        tokens = deploy_tokens(evm, DEPLOYER, DEFAULT_MARKET)
        sources = price_sources(evm, {asset.symbol: asset.price_e8 for asset in DEFAULT_MARKET.assets})
        deployed = self.deploy(evm, tokens, sources)
        sequencer = evm.create(DEPLOYER, self.contract("SequencerOracle").creation_code(DEPLOYER))
        sentinel = evm.create(
            DEPLOYER,
            self.contract("PriceOracleSentinel").creation_code(
                deployed.provider, sequencer, SENTINEL_GRACE_S
            ),
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
            adapter=self.adapter(layout),
            configurator=deployed.configurator,
            sources=sources,
            sequencer=sequencer,
            treasury=deployed.treasury,
        )

    def run(self, evm: Evm, world: World, rng: np.random.Generator) -> CaseResult:
        """Bring about one borrower, one market and one liquidation; compare."""
        world = self._open_position(evm, world, rng)
        self.disturb(evm, world, rng)

        adapter = world.adapter
        answers = execute(evm, adapter.market_reads())
        before = adapter.decode_market(answers, block=evm.block_number(), timestamp=evm.timestamp())
        account = _read_account(evm, world, before)
        timestamp = later(evm, rng)
        prices = self.choose_prices(rng, world, adapter.project(before, timestamp), account)
        for key, price in prices.items():
            evm.set_storage(world.sources[key], 0, price % 2**256)
        evm.warp(timestamp)

        market = replace(
            adapter.project(before.with_prices(_read_prices(evm, world)), timestamp),
            liquidation_allowed=read(evm, IS_LIQUIDATION_ALLOWED.call(adapter.layout.sentinel)),
        )
        return self._compare(evm, world, market, account, self.choose_attempt(rng, market, account))

    # --- a case -------------------------------------------------------------------------------------------

    def _open_position(self, evm: Evm, world: World, rng: np.random.Generator) -> World:
        """Let the borrower supply and borrow, and time pass; then change what the pool thinks of assets."""
        style = pick(rng, tuple(self.styles), tuple(self.styles.values()))
        low, high = pick(rng, tuple(self.sizes), tuple(self.sizes.values()))
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
        pass_time(
            evm,
            rng,
            lambda: transact(
                evm,
                PROVIDER,
                world.pool,
                abi.SUPPLY,
                world.token(pick(rng, world.symbols)),
                10**6,
                PROVIDER,
                0,
            ),
        )
        if maybe(rng, 0.06):
            call = abi.SET_USER_USE_RESERVE_AS_COLLATERAL.encode(world.token(pick(rng, collaterals)), False)
            evm.send(BORROWER, world.pool, call)
        for symbol in dict.fromkeys([*collaterals, *debts]):
            self._vary_reserve(evm, world, rng, symbol)
        if style == "single" and maybe(rng, 0.2):  # what is owed in it is not burnt as bad debt
            _reconfigure(evm, world, debts[-1], active=False)
        return self.vary_e_mode(evm, world, rng) if maybe(rng, 0.4) else world

    def _vary_reserve(self, evm: Evm, world: World, rng: np.random.Generator, symbol: str) -> None:
        changes: dict[str, Any] = {}
        if maybe(rng, 0.4):
            fees_bps = (0, 2_000, 10_000, int(rng.integers(1, 10_000)))
            changes["liquidation_protocol_fee_bps"] = pick(rng, fees_bps)
        if maybe(rng, 0.4):
            thresholds_bps = (*self.round_thresholds_bps, int(rng.integers(1_000, 9_900)))
            changes["liquidation_threshold_bps"] = pick(rng, thresholds_bps)
            changes["liquidation_bonus_bps"] = int(rng.integers(10_001, 12_500))
        if maybe(rng, 0.04):
            changes["ltv_bps"] = 0
        if maybe(rng, 0.03):
            changes["liquidation_threshold_bps"] = 0
        if self.odd_bonuses_bps and maybe(rng, 0.02):
            changes["liquidation_bonus_bps"] = pick(rng, self.odd_bonuses_bps)
        if maybe(rng, 0.08):
            changes[pick(rng, ("frozen", "paused", "paused", "inactive"))] = True
        if changes.pop("inactive", False):
            changes["active"] = False
        if changes:
            _reconfigure(evm, world, symbol, **changes)

    def disturb(self, evm: Evm, world: World, rng: np.random.Generator) -> None:
        """Put circumstances in the way that have nothing to do with the borrower."""
        if maybe(rng, 0.10):  # the sequencer is down, or came up a while ago
            since = evm.timestamp() - int(rng.integers(0, 2 * SENTINEL_GRACE_S))
            transact(evm, DEPLOYER, world.sequencer, SET_ANSWER, maybe(rng, 0.5), since)
        if maybe(rng, 0.05):  # the tokens to pay collateral with are gone
            reserve = world.adapter.layout.reserve_of(pick(rng, world.symbols))
            liquidity = read(evm, abi.BALANCE_OF.call(reserve.asset.address, reserve.a_token))
            act_as(evm, reserve.a_token, reserve.asset.address, abi.TRANSFER, SINK, liquidity)

    # --- prices and amounts -------------------------------------------------------------------------------

    def target(self, rng: np.random.Generator) -> tuple[str, int]:
        """Return a kind of health factor and one of that kind, in wad."""
        kind = pick(rng, tuple(self.targets), tuple(self.targets.values()))
        if kind in _AT_WAD:
            return kind, _AT_WAD[kind]
        return kind, int(rng.uniform(*_BETWEEN[kind]) * WAD)

    def aim(
        self,
        rng: np.random.Generator,
        world: World,
        market: Any,
        account: AaveAccount,
        prices: dict[str, int],
        lever: tuple[str, int],
        target: tuple[str, int],
        second: Callable[[], str],
    ) -> None:
        """Move a price, or two, to where the account's health factor is the target or next to it.

        Parameters
        ----------
        prices
            All prices; changed in place.
        lever
            Key of the price that is moved, and the reserve that it moves.
        target
            What `target` returned.
        second
            Chooses the price that is moved tick by tick for a second chance to hit a threshold itself.
        """
        key, reserve_id = lever
        kind, target_wad = target
        rising = is_using_as_collateral(account.user_configuration, reserve_id)

        def health_factor(tried: dict[str, int]) -> int:
            try:
                data = world.adapter.user_account_data(market.with_prices(tried), account)
            except AaveRevert:
                return MAX_UINT256 if rising else 0
            return int(data.health_factor_wad)

        def least(low: int, high: int) -> int:
            others = dict(prices)
            return first_from(
                lambda price: (health_factor(others | {key: price}) >= target_wad) is rising, low, high
            )

        price = least(1, 10**16)
        if kind in _AT_WAD:
            other = second()
            for _ in range(self.threshold_tries):
                if health_factor(prices | {key: price}) == target_wad or other == key:
                    break
                prices[other] += 1
                price = least(max(1, price - 32), price + 32)
        prices[key] = max(1, price + int(pick(rng, (-1, 0, 0, 0, 1))))
        odd_price(rng, prices)

    def attempt(
        self, rng: np.random.Generator, pair: tuple[Any, Any], owed_raw: int, *more: Callable[[], int]
    ) -> Attempt:
        """Return an attempt on a pair of collateral and debt, for an amount drawn by `covers`."""
        amounts = (
            MAX_UINT256,
            uniform(rng, 1, owed_raw),
            int(10 ** rng.uniform(0, math.log10(owed_raw))),
            owed_raw,
            2 * owed_raw,
            owed_raw // 2,
            pick(rng, (0, 1, 2, 3)),
            *(amount() for amount in more),
        )
        collateral, debt = pair
        return Attempt(
            collateral=collateral.asset.symbol,
            debt=debt.asset.symbol,
            debt_to_cover_raw=pick(rng, amounts, self.covers),
            receive_a_token=maybe(rng, 0.25),
        )

    # --- comparison ---------------------------------------------------------------------------------------

    def _compare(
        self, evm: Evm, world: World, market: Any, account: AaveAccount, attempt: Attempt
    ) -> CaseResult:
        compared = Comparison()
        health_factor_wad = self._compare_reads(evm, world, market, account, compared)
        collateral, debt = world.token(attempt.collateral), world.token(attempt.debt)
        outcome = world.adapter.liquidation_quote(
            market,
            account,
            debt,
            collateral,
            attempt.debt_to_cover_raw,
            receive_a_token=attempt.receive_a_token,
            **self.quote_options(attempt),
        )
        before = self._holdings(evm, world, market, attempt)
        data = abi.LIQUIDATION_CALL.encode(
            collateral, debt, BORROWER, attempt.debt_to_cover_raw, attempt.receive_a_token
        )
        result = evm.send(attempt.liquidator, world.pool, data)
        compared.check("block time", result.timestamp, market.timestamp)
        code = None if result.success else self.revert_code(result.output)
        if outcome.revert_code == TOKEN_REVERT and code in TRANSFER_REFUSED:
            code = TOKEN_REVERT
        compared.check("revert code", code, outcome.revert_code)
        if result.success and outcome.succeeds:
            self.compare_events(result, market, outcome, compared)
        if code == outcome.revert_code:
            changes = {
                **paid(
                    repaid_raw=outcome.debt_repaid_raw,
                    paid_out_raw=0 if attempt.receive_a_token else outcome.to_liquidator_raw,
                    same=attempt.collateral == attempt.debt,
                ),
                "liquidator's aTokens, scaled": outcome.liquidator_scaled_raw,
                "treasury's aTokens, scaled": outcome.treasury_scaled_raw,
                "isolation mode debt": -outcome.isolation_mode_debt_repaid,
                **self.own_changes(market, attempt, outcome, before),
            }
            compared.changes(before, self._holdings(evm, world, market, attempt), changes)
            compared.account(_read_account(evm, world, market), outcome.account_after)
        done = Done(market, account, attempt, outcome, health_factor_wad, code)
        return CaseResult(
            verdict=verdict(code, self.healthy),
            code=code,
            tags=holding(_tags(done) | self.own_tags(done)),
            mismatches=tuple(compared.mismatches),
        )

    def _compare_reads(
        self, evm: Evm, world: World, market: Any, account: AaveAccount, compared: Comparison
    ) -> int | None:
        """Compare indices, balances and account data; returns the contract's health factor."""
        for reserve in market.listed():
            address, symbol = reserve.asset.address, reserve.asset.symbol
            income = read(evm, abi.GET_RESERVE_NORMALIZED_INCOME.call(world.pool, address))
            compared.check(f"normalized income of {symbol}", income, reserve.normalized_income_ray)
            index = read(evm, abi.GET_RESERVE_NORMALIZED_VARIABLE_DEBT.call(world.pool, address))
            compared.check(f"normalized debt of {symbol}", index, reserve.normalized_variable_debt_ray)
            held_raw, owed_raw = self.balances(market, reserve, account.position(reserve.id))
            balance = read(evm, abi.BALANCE_OF.call(reserve.a_token, BORROWER))
            compared.check(f"balance of a{symbol}", balance, held_raw)
            debt = read(evm, abi.BALANCE_OF.call(reserve.variable_debt_token, BORROWER))
            compared.check(f"debt in {symbol}", debt, owed_raw)
        return compared.account_data(
            evm, world.pool, self.revert_code, lambda: world.adapter.user_account_data(market, account)
        )

    def _holdings(self, evm: Evm, world: World, market: Any, attempt: Attempt) -> dict[str, int]:
        """Return what others than the borrower have: the liquidator, the treasury, the pool's own books."""
        pool = world.pool
        collateral = world.adapter.layout.reserve_of(attempt.collateral)
        data = [read(evm, abi.GET_RESERVE_DATA.call(pool, r.asset.address)) for r in market.listed()]
        return {
            "liquidator's collateral": read(evm, abi.BALANCE_OF.call(collateral.asset.address, LIQUIDATOR)),
            "liquidator's debt token": read(evm, abi.BALANCE_OF.call(world.token(attempt.debt), LIQUIDATOR)),
            "liquidator's aTokens, scaled": read(
                evm, abi.SCALED_BALANCE_OF.call(collateral.a_token, LIQUIDATOR)
            ),
            "treasury's aTokens, scaled": read(
                evm, abi.SCALED_BALANCE_OF.call(collateral.a_token, world.treasury)
            ),
            "liquidator's configuration": read(evm, abi.GET_USER_CONFIGURATION.call(pool, LIQUIDATOR)),
            "isolation mode debt": sum(d[14] for d in data),
            **self.books(evm, world, market),
        }


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


def _reconfigure(evm: Evm, world: World, symbol: str, **changes: Any) -> None:
    """Write a reserve's configuration as the configurator would, without its own checks."""
    word = read(evm, abi.GET_CONFIGURATION.call(world.pool, world.token(symbol)))
    changed = replace(ReserveConfiguration.unpack(word), **changes).pack()
    act_as(evm, world.configurator, world.pool, SET_CONFIGURATION, world.token(symbol), (changed,))


def _read_account(evm: Evm, world: World, market: Any) -> AaveAccount:
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
    """Return what the oracle answers; a key for which it reverts is left out."""
    layout = world.adapter.layout
    keys = {r.asset.symbol: r.asset.address for r in layout.reserves}
    keys |= {f"emode-{i}": source for i, source in layout.e_mode_price_sources if source}
    calls = [abi.GET_ASSET_PRICE.call(layout.oracle, asset) for asset in keys.values()]
    return {
        key: call.decode(data)
        for key, call, data in zip(keys, calls, execute(evm, calls), strict=True)
        if data is not None
    }


def counts(user_configuration: int) -> tuple[int, int]:
    """Return how many collaterals and how many debts an account has."""
    return (user_configuration & COLLATERAL_MASK).bit_count(), (
        user_configuration & BORROWING_MASK
    ).bit_count()


def _tags(done: Done) -> dict[str, bool]:
    """Return what the cases of every version are counted as."""
    word, outcome, liquidated = done.account.user_configuration, done.outcome, done.code is None
    health_factor_wad = done.health_factor_wad
    collaterals, debts = counts(word)
    listed = [r for r in done.market.listed() if is_using_as_collateral(word, r.id)]
    return {
        "emode": done.account.e_mode_category in done.market.e_mode_categories,
        "isolation": any(r.configuration.debt_ceiling for r in listed),
        "multi_collateral": collaterals > 1,
        "multi_debt": debts > 1,
        "near_threshold": health_factor_wad is not None
        and any(abs(health_factor_wad - threshold) <= NEAR_WAD for threshold in THRESHOLDS_WAD),
        "at_threshold": health_factor_wad in THRESHOLDS_WAD,
        "full_close": liquidated and outcome.full,
        "partial_close": liquidated and not outcome.full,
        "protocol_fee": liquidated and outcome.protocol_fee_raw > 0,
        "receive_atoken": liquidated and done.attempt.receive_a_token,
        "collateral_exhausted": liquidated and outcome.collateral_exhausted,
    }
