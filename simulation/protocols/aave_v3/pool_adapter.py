"""What the adapters of all versions of Aave V3 do alike: reads, answers to states, states to margin."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Call, Event, function
from contracts_abi.errors import DataError, InputError
from contracts_abi.lens import LensRows
from contracts_abi.liquidator import Venue
from simulation.fixed_point import percent_mul
from simulation.protocols.aave_v3.configuration import ReserveConfiguration, is_using_as_collateral
from simulation.protocols.aave_v3.errors import AaveRevert
from simulation.protocols.aave_v3.layout import (
    AaveLayout,
    Answers,
    Reads,
    ReserveLayout,
    answer_all,
    optional_address,
)
from simulation.protocols.aave_v3.liquidator import LIQUIDATION_GAS, liquidator_calldata
from simulation.protocols.aave_v3.reads import account_reads, account_rows, check_layout
from simulation.protocols.aave_v3.types import AaveAccount, PoolState, UserAccountData
from simulation.protocols.aave_v3.validation_logic import HEALTH_FACTOR_LIQUIDATION_THRESHOLD
from simulation.types import Asset, Book, LiquidationPlan, MarginReport, MarginStatus

IS_LIQUIDATION_ALLOWED: Final = function("isLiquidationAllowed()(bool)")

M = TypeVar("M", bound=PoolState[Any, Any])


@dataclass(frozen=True, slots=True)
class PoolAdapter(ABC, Generic[M]):
    """The adapter of one market of some version (`simulation.interfaces.ProtocolAdapter`).

    A version says what it reads of a reserve and of an eMode category, and names the functions of its model.
    `M` is its market state.

    Attributes
    ----------
    layout
        Where the market's parts are; see `discover_layout`.
    account_data
        Whether to ask for the contract's own account data with the positions. It costs most of the gas of
        a bulk read, and is what an account is acted on in the end.
    accounts_per_call
        Accounts in one call of the lens or of Multicall3.
    label
        Tells two markets of this version apart; it becomes a part of the name.
    """

    kind: ClassVar[str]

    layout: AaveLayout
    account_data: bool = False
    accounts_per_call: int = 500
    label: str = ""

    # --- the version's own --------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def amount_reads(layout: AaveLayout, reserve: ReserveLayout) -> dict[str, Call[Any]]:
        """Return the reads of a reserve's amounts, by the field of the version's `ReserveData`."""

    @staticmethod
    @abstractmethod
    def e_mode_reads(layout: AaveLayout, category: int, price_source: str) -> Reads:
        """Return the reads of an eMode category."""

    @abstractmethod
    def decode_reserve(self, reserve: ReserveLayout, timestamp: int, **fields: Any) -> Any:
        """Return the reserve at `timestamp` from the fields that were read."""

    @abstractmethod
    def decode_e_mode(self, category: int, source: str, calls: Sequence[Call[Any]], results: Answers) -> Any:
        """Turn the answers of `e_mode_reads` into the category."""

    @abstractmethod
    def market(self, **fields: Any) -> M:
        """Return the market from the fields of `PoolState`."""

    @abstractmethod
    def book_of_rows(self, market: M, accounts: Sequence[str], rows: LensRows) -> Book:
        """Return the book of `accounts` from what was read of them."""

    @abstractmethod
    def user_account_data(self, market: M, account: AaveAccount, /) -> UserAccountData:
        """Return what `getUserAccountData` answers; raises `AaveRevert` where that reverts."""

    def needed_prices(self, market: M, account: AaveAccount) -> set[str]:
        """Return the keys of the prices that the account's margin depends on."""
        return {r.asset.symbol for r in market.listed() if (account.user_configuration >> (2 * r.id)) & 3}

    # --- alike in all versions ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Registry kind, and behind a colon the label where there is one."""
        return f"{self.kind}:{self.label}" if self.label else self.kind

    def discovery_events(self) -> tuple[Event, ...]:
        """Return the only event by which an account comes to owe something."""
        return (abi.BORROW_EVENT,)

    def discovered(self, topics: Sequence[bytes], data: bytes) -> str | None:
        """Return the account that owes after a `Borrow` log, None for any other log."""
        if not topics or topics[0] != abi.BORROW_EVENT.topic:
            return None
        return str(abi.BORROW_EVENT.decode(topics, data)["onBehalfOf"])

    def assets(self, market: M) -> tuple[Asset, ...]:
        """Return the assets in reserve order."""
        return tuple(r.asset for r in market.listed())

    def market_reads(self) -> Reads:
        """Return the reads of indices, rates, configuration, amounts and prices."""
        return [call for part in _market_reads(type(self), self.layout) for call in part]

    def decode_market(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> M:
        """Turn the answers into the market at `timestamp`.

        A price that the oracle refuses is unknown; any other missing answer is an error.

        Parameters
        ----------
        timestamp
            Unix time that the reads ran at.

        Raises
        ------
        DataError
            If a read failed, or the market is no longer laid out as `layout` says.
        """
        layout, parts = self.layout, _market_reads(type(self), self.layout)
        reads = sum(len(calls) for calls in parts)
        if len(results) != reads:
            raise DataError(f"{len(results)} answers for {reads} market reads")
        answers = iter(results)
        head, *rest = [(calls, [next(answers) for _ in calls]) for calls in parts]
        calls, found = head
        oracle, sentinel, listed, premium_bps = answer_all(calls[:4], found[:4])
        check_layout(layout, str(oracle), optional_address(sentinel), listed)
        allowed = bool(answer_all(calls[4:], found[4:])[0]) if layout.sentinel else None

        reserves = {}
        for reserve, (calls, found) in zip(layout.reserves, rest, strict=False):
            reserves[reserve.id] = self._decode_reserve(reserve, calls, found, timestamp)
        e_modes = {}
        for (category, source), (calls, found) in zip(
            layout.e_mode_price_sources, rest[len(layout.reserves) :], strict=True
        ):
            e_modes[category] = self.decode_e_mode(category, source, calls, found)
        return self.market(
            block=block,
            timestamp=timestamp,
            reserves=tuple(reserves.get(i) for i in range(max(reserves, default=-1) + 1)),
            e_mode_categories=e_modes,
            base_decimals=layout.base_decimals,
            liquidation_allowed=allowed,
            flash_loan_premium_bps=premium_bps,
        )

    def _decode_reserve(
        self, reserve: ReserveLayout, calls: Sequence[Call[Any]], results: Answers, timestamp: int
    ) -> Any:
        data, *amounts = answer_all(calls[:-1], results[:-1])
        (configuration,), liquidity_index, liquidity_rate, borrow_index, borrow_rate, _, updated = data[:7]
        reserve_id, a_token, _, variable_debt_token = data[7:11]
        if (reserve_id, a_token.lower(), variable_debt_token.lower()) != (
            reserve.id,
            reserve.a_token.lower(),
            reserve.variable_debt_token.lower(),
        ):
            raise DataError(
                f"the reserve of {reserve.asset.symbol} has other tokens than its layout says",
                fix="discover the market's layout again",
            )
        price = results[-1]
        return self.decode_reserve(
            reserve,
            timestamp,
            asset=reserve.asset,
            id=reserve.id,
            configuration=ReserveConfiguration.unpack(configuration),
            a_token=reserve.a_token,
            variable_debt_token=reserve.variable_debt_token,
            liquidity_index_ray=liquidity_index,
            variable_borrow_index_ray=borrow_index,
            current_liquidity_rate_ray=liquidity_rate,
            current_variable_borrow_rate_ray=borrow_rate,
            last_update_timestamp=updated,
            normalized_income_ray=liquidity_index,
            normalized_variable_debt_ray=borrow_index,
            isolation_mode_total_debt=data[14],
            price_base=None if price is None else calls[-1].decode(price),
            **dict(zip(self.amount_reads(self.layout, reserve), amounts, strict=True)),
        )

    def account_reads(self, accounts: Sequence[str]) -> Reads:
        """Return the reads of positions: calls of the lens, else of Multicall3, else one for each word."""
        return account_reads(self.layout, accounts, self.accounts_per_call, account_data=self.account_data)

    def decode_accounts(self, market: M, accounts: Sequence[str], results: Sequence[bytes | None]) -> Book:
        """Turn the answers into a book; an account that was not read whole has ``exact`` None.

        A call of the lens that failed leaves all of its accounts unknown.

        Raises
        ------
        DataError
            If the answers are not those of `account_reads`.
        """
        rows = account_rows(
            self.layout, accounts, results, self.accounts_per_call, account_data=self.account_data
        )
        return self.book_of_rows(market, accounts, rows)

    def prices_base(self, market: M) -> Mapping[str, int]:
        """Return the protocol view: price by key, as the market's own `prices_base`."""
        return market.prices_base

    def margin(self, market: M, account: AaveAccount, prices_base: Mapping[str, int]) -> MarginReport:
        """Return the account's margin at `prices_base`, as the contract computes it.

        `UNKNOWN` when a price that it needs is not in `prices_base`.
        """
        method = f"{self.kind}.health_factor"
        priced = market if prices_base == market.prices_base else market.with_prices(prices_base)
        try:
            data = self.user_account_data(priced, account)
        except AaveRevert as reverted:
            missing = sorted(self.needed_prices(market, account) - set(prices_base))
            reason = f"no price for {', '.join(missing)}" if missing else reverted.message
            return MarginReport.unknown(
                account.account,
                self.name,
                method,
                block=market.block,
                timestamp=market.timestamp,
                base_decimals=market.base_decimals,
                reason=reason,
            )
        if data.health_factor_wad < HEALTH_FACTOR_LIQUIDATION_THRESHOLD:
            status, reason = MarginStatus.LIQUIDATABLE, "health factor below 1"
        elif any(p.scaled_variable_debt_raw or p.stable_debt_raw for p in account.positions):
            status, reason = MarginStatus.HEALTHY, "health factor not below 1"
        else:
            status, reason = MarginStatus.NO_DEBT, "owes nothing"
        collateral_base = data.total_collateral_base
        return MarginReport(
            account=account.account,
            protocol=self.name,
            method=method,
            block=market.block,
            timestamp=market.timestamp,
            status=status,
            collateral_base=collateral_base,
            debt_base=data.total_debt_base,
            maintenance_base=collateral_base - data.counted_base,
            initial_base=collateral_base - percent_mul(collateral_base, data.ltv_bps),
            health_factor_wad=data.health_factor_wad,
            base_decimals=market.base_decimals,
            components={
                "current_liquidation_threshold_bps": data.current_liquidation_threshold_bps,
                "ltv_bps": data.ltv_bps,
                "available_borrows_base": data.available_borrows_base,
                "e_mode_category": account.e_mode_category,
            },
            reason=reason,
        )

    def liquidation_pairs(self, market: M, account: AaveAccount) -> tuple[tuple[str, str], ...]:
        """Return pairs of debt and collateral token in which the account owes and has something to take."""
        owed, held = [], []
        for position in account.positions:
            reserve = market.reserves[position.reserve_id]
            if reserve is None:
                continue
            if position.scaled_variable_debt_raw or position.stable_debt_raw:
                owed.append(reserve.asset.address)
            if position.scaled_a_token_raw and is_using_as_collateral(account.user_configuration, reserve.id):
                held.append(reserve.asset.address)
        return tuple((debt, collateral) for debt in owed for collateral in held)

    def liquidation_call(self, plan: LiquidationPlan) -> Call[Any]:
        """Return `Pool.liquidationCall` for `plan`, paid by the caller and for the underlying."""
        if plan.debt_to_cover_raw <= 0:
            raise InputError(f"debt_to_cover_raw is {plan.debt_to_cover_raw}, must be positive")
        data = abi.LIQUIDATION_CALL.encode(
            plan.collateral_asset, plan.debt_asset, plan.account, plan.debt_to_cover_raw, False
        )
        return Call(self.layout.pool, data, abi.LIQUIDATION_CALL.decode, f"liquidate {plan.account[:10]}")

    @property
    def liquidation_gas(self) -> int:
        """Gas units of our Liquidator's transaction without a swap.

        The upper end of what it used on a local node: 540 to 660 thousand with one pool, 740 to 850 with
        three.
        """
        return LIQUIDATION_GAS

    @property
    def venue(self) -> Venue:
        """Where our Liquidator liquidates, as its event says it."""
        return Venue(self.layout.pool)

    def liquidator_calldata(self, plan: LiquidationPlan, *, intent_id: bytes, deadline_block: int) -> bytes:
        """Return our Liquidator's calldata for `plan`."""
        return liquidator_calldata(plan, intent_id=intent_id, deadline_block=deadline_block)


@functools.lru_cache(maxsize=16)
def _market_reads(version: type[PoolAdapter[Any]], layout: AaveLayout) -> tuple[Reads, ...]:
    """Return the reads of a market in parts: the market's own, each reserve's, each eMode category's.

    Remembered, since they are the same at every block.
    """
    pool, oracle = layout.pool, layout.oracle
    head: Reads = [
        abi.GET_PRICE_ORACLE.call(layout.provider, label="provider.getPriceOracle"),
        abi.GET_PRICE_ORACLE_SENTINEL.call(layout.provider, label="provider.getPriceOracleSentinel"),
        abi.GET_RESERVES_LIST.call(pool, label="pool.getReservesList"),
        abi.FLASHLOAN_PREMIUM_TOTAL.call(pool, label="pool.FLASHLOAN_PREMIUM_TOTAL"),
        # Without a sentinel this asks the provider, which has no such function, and is not looked at.
        IS_LIQUIDATION_ALLOWED.call(layout.sentinel or layout.provider, label="sentinel"),
    ]
    reserves: list[Reads] = []
    for reserve in layout.reserves:
        symbol, address = reserve.asset.symbol, reserve.asset.address
        reserves.append(
            [
                abi.GET_RESERVE_DATA.call(pool, address, label=f"pool.getReserveData({symbol})"),
                *version.amount_reads(layout, reserve).values(),
                abi.GET_ASSET_PRICE.call(oracle, address, label=f"oracle.getAssetPrice({symbol})"),
            ]
        )
    e_modes = [version.e_mode_reads(layout, *e_mode) for e_mode in layout.e_mode_price_sources]
    return (head, *reserves, *e_modes)
