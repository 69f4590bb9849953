"""Aave V3 as the rest of the program sees it: reads as data, answers to states, states to margin."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Call, Event, function
from contracts_abi.errors import DataError, InputError
from contracts_abi.liquidator import Venue
from simulation.fixed_point import percent_mul
from simulation.protocols import protocols
from simulation.protocols.aave_v3.book import book_of_rows
from simulation.protocols.aave_v3.configuration import ReserveConfiguration, is_using_as_collateral
from simulation.protocols.aave_v3.errors import AaveRevert
from simulation.protocols.aave_v3.generic_logic import calculate_user_account_data
from simulation.protocols.aave_v3.layout import (
    AaveLayout,
    Answers,
    Reads,
    ReserveLayout,
    answer_all,
    optional_address,
)
from simulation.protocols.aave_v3.liquidation_logic import liquidation_quote, max_liquidatable
from simulation.protocols.aave_v3.liquidator import LIQUIDATION_GAS, liquidator_calldata
from simulation.protocols.aave_v3.reads import account_reads, account_rows, check_layout
from simulation.protocols.aave_v3.reserve_logic import accrue, project
from simulation.protocols.aave_v3.rules import V3_0
from simulation.protocols.aave_v3.types import (
    AaveAccount,
    AaveMarket,
    EModeCategory,
    LiquidationOutcome,
    ReserveData,
    Rules,
    UserAccountData,
)
from simulation.protocols.aave_v3.validation_logic import HEALTH_FACTOR_LIQUIDATION_THRESHOLD
from simulation.screen import AAVE_V3_0, Rounding
from simulation.types import Asset, Book, LiquidationPlan, MarginReport, MarginStatus

IS_LIQUIDATION_ALLOWED: Final = function("isLiquidationAllowed()(bool)")
METHOD: Final = "aave-v3.health_factor"

_MARKET_READS = 5
_RESERVE_READS = 5
_E_MODE_READS = 2


@protocols.register("aave-v3")
@dataclass(frozen=True, slots=True)
class AaveV3:
    """The adapter of one Aave V3 market (`simulation.interfaces.ProtocolAdapter`).

    Parameters
    ----------
    layout
        Where the market's parts are; see `discover_layout`.
    rules
        Version of its contracts.
    account_data
        Whether to ask for the contract's own account data with the positions. It costs most of the gas of
        a bulk read, and is what an account is acted on in the end.
    accounts_per_call
        Accounts in one call of the lens or of Multicall3.
    label
        Tells two markets of this version apart; it becomes a part of the name.
    """

    kind: ClassVar[Literal["aave-v3"]] = "aave-v3"

    layout: AaveLayout
    rules: Rules = V3_0
    account_data: bool = False
    accounts_per_call: int = 500
    label: str = ""

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

    def assets(self, market: AaveMarket) -> tuple[Asset, ...]:
        """Return the assets in reserve order."""
        return tuple(r.asset for r in market.listed())

    def market_reads(self) -> Reads:
        """Return the reads of indices, rates, configuration, liquidity and prices."""
        return list(_market_reads(self.layout))

    def decode_market(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> AaveMarket:
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
        calls = _market_reads(self.layout)
        if len(results) != len(calls):
            raise DataError(f"{len(results)} answers for {len(calls)} market reads")
        oracle, sentinel, listed, premium_bps = answer_all(calls[:4], results[:4])
        check_layout(self.layout, str(oracle), optional_address(sentinel), listed)
        allowed = bool(answer_all(calls[4:5], results[4:5])[0]) if self.layout.sentinel else None

        reserves: dict[int, ReserveData] = {}
        at = _MARKET_READS
        for reserve in self.layout.reserves:
            part = slice(at, at + _RESERVE_READS)
            reserves[reserve.id] = _decode_reserve(reserve, calls[part], results[part], timestamp)
            at += _RESERVE_READS
        e_modes: dict[int, EModeCategory] = {}
        for category, source in self.layout.e_mode_price_sources:
            part = slice(at, at + _E_MODE_READS)
            e_modes[category] = _decode_e_mode(category, source, calls[part], results[part])
            at += _E_MODE_READS
        return AaveMarket(
            rules=self.rules,
            block=block,
            timestamp=timestamp,
            reserves=tuple(reserves.get(i) for i in range(max(reserves, default=-1) + 1)),
            e_mode_categories=e_modes,
            base_decimals=self.layout.base_decimals,
            liquidation_allowed=allowed,
            flash_loan_premium_bps=premium_bps,
        )

    def account_reads(self, accounts: Sequence[str]) -> Reads:
        """Return the reads of positions: calls of the lens, else of Multicall3, else one for each word."""
        return account_reads(self.layout, accounts, self.accounts_per_call, account_data=self.account_data)

    def decode_accounts(
        self, market: AaveMarket, accounts: Sequence[str], results: Sequence[bytes | None]
    ) -> Book:
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
        return book_of_rows(self.name, market, accounts, rows, account_data=self.account_data)

    def prices_base(self, market: AaveMarket) -> Mapping[str, int]:
        """Return the protocol view: symbol to price, and ``emode-N`` for a category's own price."""
        return market.prices_base

    def user_account_data(self, market: AaveMarket, account: AaveAccount) -> UserAccountData:
        """Return what `getUserAccountData` answers; raises `AaveRevert` where that reverts."""
        return calculate_user_account_data(market, account)

    def margin(
        self, market: AaveMarket, account: AaveAccount, prices_base: Mapping[str, int]
    ) -> MarginReport:
        """Return the account's margin at `prices_base`, as the contract computes it.

        `UNKNOWN` when a price that it needs is not in `prices_base`.
        """
        priced = market if prices_base == market.prices_base else market.with_prices(prices_base)
        try:
            data = calculate_user_account_data(priced, account)
        except AaveRevert as reverted:
            missing = sorted(self._needed_prices(market, account) - set(prices_base))
            reason = f"no price for {', '.join(missing)}" if missing else reverted.message
            return MarginReport.unknown(
                account.account,
                self.name,
                METHOD,
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
            method=METHOD,
            block=market.block,
            timestamp=market.timestamp,
            status=status,
            collateral_base=collateral_base,
            debt_base=data.total_debt_base,
            maintenance_base=_not_counted(collateral_base, data.current_liquidation_threshold_bps),
            initial_base=_not_counted(collateral_base, data.ltv_bps),
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

    def _needed_prices(self, market: AaveMarket, account: AaveAccount) -> set[str]:
        needed = {r.asset.symbol for r in market.listed() if (account.user_configuration >> (2 * r.id)) & 3}
        e_mode = market.e_mode_categories.get(account.e_mode_category)
        if e_mode is not None and e_mode.price_source:
            needed.add(e_mode.price_key)
        return needed

    def screen_rounding(self, market: AaveMarket) -> Rounding:
        """Return how the contract's health factor differs from that of real numbers."""
        return replace(AAVE_V3_0, value_step=10.0**-market.base_decimals)

    def project(self, market: AaveMarket, timestamp: int) -> AaveMarket:
        """Return the market at a later time, for example the next block's; prices stay."""
        return project(market, timestamp)

    def liquidation_quote(
        self,
        market: AaveMarket,
        account: AaveAccount,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
        *,
        receive_a_token: bool = False,
    ) -> LiquidationOutcome:
        """See `liquidation_logic.liquidation_quote`."""
        return liquidation_quote(
            market,
            account,
            debt_asset,
            collateral_asset,
            debt_to_cover_raw,
            receive_a_token=receive_a_token,
        )

    def max_liquidatable(
        self, market: AaveMarket, account: AaveAccount, debt_asset: str, collateral_asset: str
    ) -> LiquidationOutcome:
        """See `liquidation_logic.max_liquidatable`."""
        return max_liquidatable(market, account, debt_asset, collateral_asset)

    def liquidation_pairs(self, market: AaveMarket, account: AaveAccount) -> tuple[tuple[str, str], ...]:
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

    def flash_loan_premium(self, market: AaveMarket, amount_raw: int) -> int:
        """Return the premium of a flash loan, in token units (`executeFlashLoanSimple`)."""
        return market.rules.flash_premium(amount_raw, market.flash_loan_premium_bps)

    def flash_loan_limit(self, market: AaveMarket, asset: str) -> int:
        """Return the most that a flash loan can be of a token (`validateFlashloanSimple`), 0 for none."""
        reserve = market.reserve_of(asset)
        if reserve is None:
            return 0
        configuration = reserve.configuration
        lends = configuration.flash_loan_enabled and configuration.active and not configuration.paused
        return reserve.available_liquidity_raw if lends else 0

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
def _market_reads(layout: AaveLayout) -> tuple[Call[Any], ...]:
    """Return the reads of a market; remembered, since they are the same at every block."""
    calls: Reads = [
        abi.GET_PRICE_ORACLE.call(layout.provider, label="provider.getPriceOracle"),
        abi.GET_PRICE_ORACLE_SENTINEL.call(layout.provider, label="provider.getPriceOracleSentinel"),
        abi.GET_RESERVES_LIST.call(layout.pool, label="pool.getReservesList"),
        abi.FLASHLOAN_PREMIUM_TOTAL.call(layout.pool, label="pool.FLASHLOAN_PREMIUM_TOTAL"),
        # Without a sentinel this asks the provider, which has no such function, and is not looked at.
        IS_LIQUIDATION_ALLOWED.call(layout.sentinel or layout.provider, label="sentinel"),
    ]
    for reserve in layout.reserves:
        symbol, address = reserve.asset.symbol, reserve.asset.address
        calls += [
            abi.GET_RESERVE_DATA.call(layout.pool, address, label=f"pool.getReserveData({symbol})"),
            abi.SCALED_TOTAL_SUPPLY.call(reserve.variable_debt_token, label=f"{symbol} variable debt"),
            abi.TOTAL_SUPPLY.call(reserve.stable_debt_token, label=f"{symbol} stable debt"),
            abi.BALANCE_OF.call(address, reserve.a_token, label=f"{symbol} liquidity"),
            abi.GET_ASSET_PRICE.call(layout.oracle, address, label=f"oracle.getAssetPrice({symbol})"),
        ]
    for category, source in layout.e_mode_price_sources:
        calls += [
            abi.GET_EMODE_CATEGORY_DATA.call(layout.pool, category, label=f"eMode {category}"),
            abi.GET_ASSET_PRICE.call(layout.oracle, source or layout.pool, label=f"eMode {category} price"),
        ]
    return tuple(calls)


def _not_counted(collateral_base: int, counted_bps: int) -> int:
    return collateral_base - percent_mul(collateral_base, counted_bps)


def _decode_reserve(
    layout: ReserveLayout, calls: Sequence[Call[Any]], results: Answers, timestamp: int
) -> ReserveData:
    data, scaled_debt, stable_debt, liquidity = answer_all(calls[:4], results[:4])
    ((configuration,), liquidity_index, liquidity_rate, borrow_index, borrow_rate, _, updated, *rest) = data
    reserve_id, a_token, _, variable_debt_token = rest[:4]
    if (reserve_id, a_token.lower(), variable_debt_token.lower()) != (
        layout.id,
        layout.a_token.lower(),
        layout.variable_debt_token.lower(),
    ):
        raise DataError(
            f"the reserve of {layout.asset.symbol} has other tokens than its layout says",
            fix="discover the market's layout again",
        )
    price = results[4]
    return accrue(
        ReserveData(
            asset=layout.asset,
            id=layout.id,
            configuration=ReserveConfiguration.unpack(configuration),
            a_token=layout.a_token,
            stable_debt_token=layout.stable_debt_token,
            variable_debt_token=layout.variable_debt_token,
            liquidity_index_ray=liquidity_index,
            variable_borrow_index_ray=borrow_index,
            current_liquidity_rate_ray=liquidity_rate,
            current_variable_borrow_rate_ray=borrow_rate,
            last_update_timestamp=updated,
            normalized_income_ray=liquidity_index,
            normalized_variable_debt_ray=borrow_index,
            scaled_variable_debt_raw=scaled_debt,
            total_stable_debt_raw=stable_debt,
            available_liquidity_raw=liquidity,
            isolation_mode_total_debt=data[14],
            price_base=None if price is None else calls[4].decode(price),
        ),
        timestamp,
    )


def _decode_e_mode(category: int, source: str, calls: Sequence[Call[Any]], results: Answers) -> EModeCategory:
    ((ltv_bps, threshold_bps, bonus_bps, price_source, label),) = answer_all(calls[:1], results[:1])
    if optional_address(price_source) != source:
        raise DataError(
            f"the price source of eMode category {category} is {price_source}, expected {source or 'none'}",
            fix="discover the market's layout again",
        )
    price = results[1] if source else None
    return EModeCategory(
        id=category,
        ltv_bps=ltv_bps,
        liquidation_threshold_bps=threshold_bps,
        liquidation_bonus_bps=bonus_bps,
        price_source=source,
        price_base=None if price is None else calls[1].decode(price),
        label=label,
    )
