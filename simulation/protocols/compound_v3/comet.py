"""The functions of `Comet.sol` on states, in the contract's order (compound-finance/comet d5a30b0a).

A call answers what it does or the reason it reverts with; none raises for a refusal. A view raises
`CometRevert` where the contract's reverts. Views that name no time read the stored indices, as the contract's
do: `is_liquidatable` says nothing of interest since the last accrual, and `absorb`, which accrues first, may
go through for an account of which it says False. Whoever pays is taken to be able to. An account's own
rewards, liquidator points, transfers between accounts and permissions by signature are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from simulation.fixed_point import MAX_UINT256
from simulation.protocols.compound_v3.comet_math import (
    BASE_INDEX_SCALE,
    FACTOR_SCALE,
    div,
    div_price,
    mul_factor,
    mul_price,
    signed_mul_price,
)
from simulation.protocols.compound_v3.errors import (
    BAD_ASSET,
    BAD_PRICE,
    BORROW_TOO_SMALL,
    FEED_REVERT,
    INSUFFICIENT_RESERVES,
    NOT_COLLATERALIZED,
    NOT_FOR_SALE,
    NOT_LIQUIDATABLE,
    PAUSED,
    SUPPLY_CAP_EXCEEDED,
    TIMESTAMP_TOO_LARGE,
    TOKEN_REVERT,
    TOO_MUCH_SLIPPAGE,
    UNAUTHORIZED,
    CometRevert,
    require,
    safe64,
    safe104,
    safe128,
    signed,
    signed104,
    signed256,
    uint256,
    unsigned,
)
from simulation.protocols.compound_v3.types import (
    AbsorbOutcome,
    Absorption,
    AssetInfo,
    BuyOutcome,
    CometAccount,
    CometMarket,
    CometParams,
    CometTotals,
    Outcome,
    Pause,
    RateCurve,
)

MAX_TIMESTAMP: Final = 2**40

T = TypeVar("T")


# --- interest ---------------------------------------------------------------------------------------------


def get_utilization(market: CometMarket) -> int:
    """Return owed over lent at 1e18 by the stored indices, 0 where nothing is lent (`getUtilization`)."""
    totals = market.totals
    supplied_raw = present_value_supply(totals.base_supply_index, totals.total_supply_base)
    borrowed_raw = present_value_borrow(totals.base_borrow_index, totals.total_borrow_base)
    return 0 if supplied_raw == 0 else uint256(borrowed_raw * FACTOR_SCALE) // supplied_raw


def rate_at(curve: RateCurve, utilization_wad: int) -> int:
    """Return a rate a second, each product rounded down (`getSupplyRate`, `getBorrowRate`)."""
    low_wad = mul_factor(curve.slope_low_wad, min(utilization_wad, curve.kink_wad))
    rate_wad = uint256(curve.base_wad + low_wad)
    if utilization_wad > curve.kink_wad:
        rate_wad = uint256(rate_wad + mul_factor(curve.slope_high_wad, utilization_wad - curve.kink_wad))
    return safe64(rate_wad)


def get_supply_rate(params: CometParams, utilization_wad: int) -> int:
    """Return what lenders earn a second, at 1e18."""
    return rate_at(params.supply_curve, utilization_wad)


def get_borrow_rate(params: CometParams, utilization_wad: int) -> int:
    """Return what borrowers owe a second, at 1e18."""
    return rate_at(params.borrow_curve, utilization_wad)


def accrued_interest_indices(market: CometMarket) -> tuple[int, int]:
    """Return both indices at the market's timestamp (`accruedInterestIndices`).

    Interest is simple between two accruals, at the rate that utilisation had after the last one.
    """
    totals = market.totals
    require(market.timestamp < MAX_TIMESTAMP, TIMESTAMP_TOO_LARGE)
    elapsed_s = unsigned(market.timestamp - totals.last_accrual_time, 40)
    if elapsed_s == 0:
        return totals.base_supply_index, totals.base_borrow_index
    utilization_wad = get_utilization(market)
    supply_rate_wad = get_supply_rate(market.params, utilization_wad)
    borrow_rate_wad = get_borrow_rate(market.params, utilization_wad)
    return (
        _grown(totals.base_supply_index, supply_rate_wad, elapsed_s),
        _grown(totals.base_borrow_index, borrow_rate_wad, elapsed_s),
    )


def _grown(index: int, rate_wad: int, elapsed_s: int) -> int:
    return unsigned(index + safe64(mul_factor(index, rate_wad * elapsed_s)), 64)


def accrue(market: CometMarket) -> CometMarket:
    """Return the market with interest up to its timestamp (`accrueInternal`); may raise `CometRevert`."""
    supply_index, borrow_index = accrued_interest_indices(market)
    params, totals = market.params, market.totals
    elapsed_s = market.timestamp - totals.last_accrual_time

    def tracked(index: int, speed: int, principal: int) -> int:
        if elapsed_s == 0 or principal < params.base_min_for_rewards_raw:
            return index
        rewards = uint256(uint256(speed * elapsed_s) * params.base_scale)
        return unsigned(index + safe64(div(rewards, principal)), 64)

    after = replace(
        totals,
        base_supply_index=supply_index,
        base_borrow_index=borrow_index,
        tracking_supply_index=tracked(
            totals.tracking_supply_index, params.tracking_supply_speed, totals.total_supply_base
        ),
        tracking_borrow_index=tracked(
            totals.tracking_borrow_index, params.tracking_borrow_speed, totals.total_borrow_base
        ),
        last_accrual_time=market.timestamp,
    )
    return replace(market, totals=after)


def project(market: CometMarket, timestamp: int) -> CometMarket:
    """Return the market looked at at another time; interest follows from it when something is asked."""
    return replace(market, timestamp=timestamp)


# --- present values and principals ------------------------------------------------------------------------


def present_value_supply(index: int, principal: int) -> int:
    """Return what a lent principal is worth, rounded down (`presentValueSupply`)."""
    return uint256(principal * index) // BASE_INDEX_SCALE


def present_value_borrow(index: int, principal: int) -> int:
    """Return what is owed for a borrowed principal, also rounded down (`presentValueBorrow`)."""
    return uint256(principal * index) // BASE_INDEX_SCALE


def principal_value_supply(index: int, value_raw: int) -> int:
    """Return the principal that an amount lent buys, rounded down (`principalValueSupply`)."""
    return safe104(div(uint256(value_raw * BASE_INDEX_SCALE), index))


def principal_value_borrow(index: int, value_raw: int) -> int:
    """Return the principal that an amount owed is, rounded up (`principalValueBorrow`)."""
    return safe104(div(unsigned(uint256(value_raw * BASE_INDEX_SCALE) + index) - 1, index))


def present_value(totals: CometTotals, principal: int) -> int:
    """Return what a principal of either sign is worth by the stored indices (`presentValue`)."""
    if principal >= 0:
        return signed256(present_value_supply(totals.base_supply_index, principal))
    return -signed256(present_value_borrow(totals.base_borrow_index, -principal))


def principal_value(totals: CometTotals, value_raw: int) -> int:
    """Return the principal of a balance of either sign by the stored indices (`principalValue`)."""
    if value_raw >= 0:
        return signed104(principal_value_supply(totals.base_supply_index, value_raw))
    return -signed104(principal_value_borrow(totals.base_borrow_index, -value_raw))


def balance_of(market: CometMarket, account: CometAccount) -> int:
    """Return what an account has lent, with interest up to the market's timestamp; 0 for a borrower."""
    index, _ = accrued_interest_indices(market)
    return present_value_supply(index, account.principal) if account.principal > 0 else 0


def borrow_balance_of(market: CometMarket, account: CometAccount) -> int:
    """Return what an account owes, with interest up to the market's timestamp; 0 for a lender."""
    _, index = accrued_interest_indices(market)
    return present_value_borrow(index, -account.principal) if account.principal < 0 else 0


def total_supply(market: CometMarket) -> int:
    """Return what is lent, with interest up to the market's timestamp (`totalSupply`)."""
    index, _ = accrued_interest_indices(market)
    return present_value_supply(index, market.totals.total_supply_base)


def total_borrow(market: CometMarket) -> int:
    """Return what is owed, with interest up to the market's timestamp (`totalBorrow`)."""
    _, index = accrued_interest_indices(market)
    return present_value_borrow(index, market.totals.total_borrow_base)


# --- prices and reserves ----------------------------------------------------------------------------------


def get_price(answer_e8: int | None) -> int:
    """Return a feed's answer; raises `CometRevert` where there is none or it is not positive (`getPrice`)."""
    if answer_e8 is None:
        raise CometRevert(FEED_REVERT)
    require(answer_e8 > 0, BAD_PRICE)
    return answer_e8


def asset_offset(params: CometParams, asset: str) -> int:
    """Return the place of a collateral in the list; raises `CometRevert` for any other address."""
    for offset, info in enumerate(params.assets):
        if info.asset.address.lower() == asset.lower():
            return offset
    raise CometRevert(BAD_ASSET)


def get_reserves(market: CometMarket) -> int:
    """Return what the market owns of the base token, owes when negative (`getReserves`).

    It holds tokens and is owed, and owes its lenders, each with interest up to the market's timestamp.
    """
    lent_raw, owed_raw = total_supply(market), total_borrow(market)
    return signed(signed256(market.base_held_raw) - signed256(lent_raw) + signed256(owed_raw))


def get_collateral_reserves(market: CometMarket, asset: str) -> int:
    """Return what the market itself has of a collateral: seized and not sold (`getCollateralReserves`)."""
    offset = asset_offset(market.params, asset)
    return unsigned(market.collateral_held_raw[offset] - market.total_collateral_raw[offset])


# --- health -----------------------------------------------------------------------------------------------


def is_in_asset(account: CometAccount, offset: int) -> bool:
    """Return whether the contract looks at a collateral for this account (`isInAsset`)."""
    return bool(account.assets_in >> offset & 1)


def _liquidity(market: CometMarket, account: CometAccount, factor: Callable[[AssetInfo], int]) -> int:
    """Return weighted collateral less debt, counted only until it is no longer negative.

    The contract stops there before it asks for the next price, so that a feed behind it may be broken.
    """
    params = market.params
    owed_raw = present_value(market.totals, account.principal)
    liquidity_e8 = signed_mul_price(owed_raw, get_price(market.base_price_e8), params.base_scale)
    for offset, info in enumerate(params.assets):
        if not is_in_asset(account, offset):
            continue
        if liquidity_e8 >= 0:
            return liquidity_e8
        price_e8 = get_price(market.prices_e8[offset])
        value_e8 = mul_price(account.collateral_raw[offset], price_e8, info.scale)
        liquidity_e8 = signed(liquidity_e8 + signed256(mul_factor(value_e8, factor(info))))
    return liquidity_e8


def is_borrow_collateralized(market: CometMarket, account: CometAccount) -> bool:
    """Return whether the collateral carries the debt as a new one (`isBorrowCollateralized`)."""
    if account.principal >= 0:
        return True
    return _liquidity(market, account, lambda info: info.borrow_collateral_factor_wad) >= 0


def is_liquidatable(market: CometMarket, account: CometAccount) -> bool:
    """Return whether the account may be absorbed, by the stored indices (`isLiquidatable`)."""
    if account.principal >= 0:
        return False
    return _liquidity(market, account, lambda info: info.liquidate_collateral_factor_wad) < 0


# --- principals that change -------------------------------------------------------------------------------


def repay_and_supply_amount(old: int, new: int) -> tuple[int, int]:
    """Return principal repaid and principal lent by going from `old` to `new` (`repayAndSupplyAmount`)."""
    if new < old:
        return 0, 0
    if new <= 0:
        return new - old, 0
    return (0, new - old) if old >= 0 else (-old, new)


def withdraw_and_borrow_amount(old: int, new: int) -> tuple[int, int]:
    """Return principal withdrawn and borrowed by going from `old` to `new` (`withdrawAndBorrowAmount`)."""
    if new > old:
        return 0, 0
    if new >= 0:
        return old - new, 0
    return (0, old - new) if old <= 0 else (old, -new)


def _with_totals(market: CometMarket, *, supplied: int = 0, borrowed: int = 0) -> CometMarket:
    totals = replace(
        market.totals,
        total_supply_base=unsigned(market.totals.total_supply_base + supplied, 104),
        total_borrow_base=unsigned(market.totals.total_borrow_base + borrowed, 104),
    )
    return replace(market, totals=totals)


def _replaced(values: tuple[int, ...], offset: int, value: int) -> tuple[int, ...]:
    return (*values[:offset], value, *values[offset + 1 :])


def _with_collateral(account: CometAccount, offset: int, balance_raw: int) -> CometAccount:
    """Return the account with another balance, and its bit as `updateAssetsIn` leaves it."""
    bit = 1 << offset
    assets_in = account.assets_in | bit if balance_raw else account.assets_in & ~bit
    if bool(account.collateral_raw[offset]) == bool(balance_raw):
        assets_in = account.assets_in
    balances_raw = _replaced(account.collateral_raw, offset, balance_raw)
    return replace(account, assets_in=assets_in, collateral_raw=balances_raw)


# --- calls ------------------------------------------------------------------------------------------------


def _attempt(call: Callable[[], T], refused: Callable[[str], T]) -> T:
    try:
        return call()
    except CometRevert as reverted:
        return refused(reverted.code)


def _paused(market: CometMarket, action: Pause) -> None:
    require(not market.totals.pause_flags & action, PAUSED)


def accrue_account(market: CometMarket, account: CometAccount) -> Outcome:
    """Return what adding interest does (`accrueAccount`); nothing but rewards changes for the account."""
    return _attempt(
        lambda: Outcome(None, accrue(market), account), lambda code: Outcome(code, market, account)
    )


def supply(market: CometMarket, account: CometAccount, asset: str, amount_raw: int) -> Outcome:
    """Return what paying in for an account does (`supplyTo`): lending, repaying, or more collateral.

    2**256 - 1 of the base token is what the account owes.
    """
    return _attempt(
        lambda: _supply(market, account, asset, amount_raw), lambda code: Outcome(code, market, account)
    )


def _supply(market: CometMarket, account: CometAccount, asset: str, amount_raw: int) -> Outcome:
    _paused(market, Pause.SUPPLY)
    if asset.lower() == market.params.base.address.lower():
        if amount_raw == MAX_UINT256:
            amount_raw = borrow_balance_of(market, account)
        return _supply_base(market, account, amount_raw)
    amount_raw = safe128(amount_raw)
    offset = asset_offset(market.params, asset)
    total_raw = unsigned(market.total_collateral_raw[offset] + amount_raw, 128)
    require(total_raw <= market.params.assets[offset].supply_cap_raw, SUPPLY_CAP_EXCEEDED)
    balance_raw = unsigned(account.collateral_raw[offset] + amount_raw, 128)
    held_raw = market.collateral_held_raw[offset] + amount_raw
    after = replace(
        market,
        total_collateral_raw=_replaced(market.total_collateral_raw, offset, total_raw),
        collateral_held_raw=_replaced(market.collateral_held_raw, offset, held_raw),
    )
    return Outcome(None, after, _with_collateral(account, offset, balance_raw), amount_raw)


def _supply_base(market: CometMarket, account: CometAccount, amount_raw: int) -> Outcome:
    accrued = accrue(market)
    balance_raw = signed(present_value(accrued.totals, account.principal) + signed256(amount_raw))
    principal = principal_value(accrued.totals, balance_raw)
    repaid, supplied = repay_and_supply_amount(account.principal, principal)
    after = _with_totals(accrued, supplied=supplied, borrowed=-repaid)
    after = replace(after, base_held_raw=market.base_held_raw + amount_raw)
    return Outcome(None, after, replace(account, principal=principal), amount_raw)


def withdraw(
    market: CometMarket, account: CometAccount, asset: str, amount_raw: int, *, authorized: bool = True
) -> Outcome:
    """Return what taking out of an account does (`withdraw`, `withdrawFrom`), which borrows where needed.

    2**256 - 1 of the base token is what the account has lent. Collateral is released by the stored indices.
    """
    return _attempt(
        lambda: _withdraw(market, account, asset, amount_raw, authorized),
        lambda code: Outcome(code, market, account),
    )


def _withdraw(
    market: CometMarket, account: CometAccount, asset: str, amount_raw: int, authorized: bool
) -> Outcome:
    _paused(market, Pause.WITHDRAW)
    require(authorized, UNAUTHORIZED)
    if asset.lower() == market.params.base.address.lower():
        if amount_raw == MAX_UINT256:
            amount_raw = balance_of(market, account)
        return _withdraw_base(market, account, amount_raw)
    return _withdraw_collateral(market, account, asset, safe128(amount_raw))


def _withdraw_base(market: CometMarket, account: CometAccount, amount_raw: int) -> Outcome:
    accrued = accrue(market)
    balance_raw = signed(present_value(accrued.totals, account.principal) - signed256(amount_raw))
    principal = principal_value(accrued.totals, balance_raw)
    withdrawn, borrowed = withdraw_and_borrow_amount(account.principal, principal)
    after = _with_totals(accrued, supplied=-withdrawn, borrowed=borrowed)
    debtor = replace(account, principal=principal)
    if balance_raw < 0:
        require(-balance_raw >= market.params.base_borrow_min_raw, BORROW_TOO_SMALL)
        require(is_borrow_collateralized(after, debtor), NOT_COLLATERALIZED)
    require(amount_raw <= market.base_held_raw, TOKEN_REVERT)
    return Outcome(None, replace(after, base_held_raw=market.base_held_raw - amount_raw), debtor, amount_raw)


def _withdraw_collateral(market: CometMarket, account: CometAccount, asset: str, amount_raw: int) -> Outcome:
    if amount_raw and not _is_listed(market.params, asset):
        unsigned(-amount_raw, 128)  # it takes from a balance of nothing before it looks for the asset
    offset = asset_offset(market.params, asset)
    balance_raw = unsigned(account.collateral_raw[offset] - amount_raw, 128)
    total_raw = unsigned(market.total_collateral_raw[offset] - amount_raw, 128)
    after = replace(
        market,
        total_collateral_raw=_replaced(market.total_collateral_raw, offset, total_raw),
        collateral_held_raw=_replaced(
            market.collateral_held_raw, offset, market.collateral_held_raw[offset] - amount_raw
        ),
    )
    owner = _with_collateral(account, offset, balance_raw)
    require(is_borrow_collateralized(after, owner), NOT_COLLATERALIZED)
    return Outcome(None, after, owner, amount_raw)


def _is_listed(params: CometParams, asset: str) -> bool:
    return any(info.asset.address.lower() == asset.lower() for info in params.assets)


def withdraw_reserves(market: CometMarket, amount_raw: int) -> BuyOutcome:
    """Return what the governor's taking of base reserves does (`withdrawReserves`)."""

    def call() -> BuyOutcome:
        reserves_raw = get_reserves(market)
        require(reserves_raw >= 0 and amount_raw <= reserves_raw, INSUFFICIENT_RESERVES)
        require(amount_raw <= market.base_held_raw, TOKEN_REVERT)
        return BuyOutcome(None, replace(market, base_held_raw=market.base_held_raw - amount_raw))

    return _attempt(call, lambda code: BuyOutcome(code, market))


def absorb(
    market: CometMarket, accounts: Sequence[CometAccount], *, order: Sequence[str] | None = None
) -> AbsorbOutcome:
    """Return what absorbing accounts in one call does (`absorb`): all of them, or none.

    Parameters
    ----------
    market
        At the time of the call; interest up to it is added first.
    accounts
        The states of the accounts, each one once.
    order
        Addresses as the call lists them; those of `accounts` by default. An address that comes twice is not
        liquidatable the second time, and then nothing happens.
    """
    states = {account.account: account for account in accounts}

    def call() -> AbsorbOutcome:
        _paused(market, Pause.ABSORB)
        after, done = accrue(market), []
        for address in [a.account for a in accounts] if order is None else order:
            after, states[address], absorption = _absorb(after, states[address])
            done.append(absorption)
        return AbsorbOutcome(None, after, tuple(states.values()), tuple(done))

    return _attempt(call, lambda code: AbsorbOutcome(code, market, tuple(accounts)))


def _absorb(market: CometMarket, account: CometAccount) -> tuple[CometMarket, CometAccount, Absorption]:
    """Take an account's debt and all of its collateral over (`absorbInternal`)."""
    require(is_liquidatable(market, account), NOT_LIQUIDATABLE)
    params, balance_raw = market.params, present_value(market.totals, account.principal)
    base_price_e8 = get_price(market.base_price_e8)
    seized_raw, seized_e8 = [0] * len(params.assets), [0] * len(params.assets)
    credit_e8, totals_raw = 0, list(market.total_collateral_raw)
    for offset, info in enumerate(params.assets):
        if not is_in_asset(account, offset):
            continue
        seized_raw[offset] = account.collateral_raw[offset]
        totals_raw[offset] = unsigned(totals_raw[offset] - seized_raw[offset], 128)
        price_e8 = get_price(market.prices_e8[offset])
        seized_e8[offset] = mul_price(seized_raw[offset], price_e8, info.scale)
        credit_e8 = uint256(credit_e8 + mul_factor(seized_e8[offset], info.liquidation_factor_wad))

    credit_raw = div_price(credit_e8, base_price_e8, params.base_scale)
    covered_raw = signed(balance_raw + signed256(credit_raw))
    new_balance_raw = max(0, covered_raw)
    principal = principal_value(market.totals, new_balance_raw)
    repaid, supplied = repay_and_supply_amount(account.principal, principal)
    after = _with_totals(market, supplied=supplied, borrowed=-repaid)
    after = replace(after, total_collateral_raw=tuple(totals_raw))
    paid_out_raw = new_balance_raw - balance_raw
    left_raw = tuple(b - s for b, s in zip(account.collateral_raw, seized_raw, strict=True))
    absorption = Absorption(
        account=account.account,
        base_paid_out_raw=paid_out_raw,
        base_paid_out_e8=mul_price(paid_out_raw, base_price_e8, params.base_scale),
        seized_raw=tuple(seized_raw),
        seized_e8=tuple(seized_e8),
        credit_e8=credit_e8,
        shortfall_raw=max(0, -covered_raw),
    )
    return after, replace(account, principal=principal, assets_in=0, collateral_raw=left_raw), absorption


def quote_collateral(market: CometMarket, asset: str, base_amount_raw: int) -> int:
    """Return how much of a collateral the market gives for base tokens (`quoteCollateral`).

    Its price is lowered by ``store front price factor * (1 - liquidation factor)``, whatever is left of it.
    """
    params = market.params
    offset = asset_offset(params, asset)
    info, price_e8 = params.assets[offset], get_price(market.prices_e8[offset])
    penalty_wad = uint256(FACTOR_SCALE - info.liquidation_factor_wad)
    discount_wad = mul_factor(params.store_front_price_factor_wad, penalty_wad)
    discounted_e8 = mul_factor(price_e8, uint256(FACTOR_SCALE - discount_wad))
    value = uint256(uint256(get_price(market.base_price_e8) * base_amount_raw) * info.scale)
    return div(value, discounted_e8) // params.base_scale


def buy_collateral(
    market: CometMarket, asset: str, base_amount_raw: int, *, min_amount_raw: int = 0
) -> BuyOutcome:
    """Return what buying seized collateral does (`buyCollateral`).

    It is sold only while the market's base reserves, with interest up to now, are below their target.
    """

    def call() -> BuyOutcome:
        _paused(market, Pause.BUY)
        require(get_reserves(market) < market.params.target_reserves_raw, NOT_FOR_SALE)
        amount_raw = quote_collateral(market, asset, base_amount_raw)
        require(amount_raw >= min_amount_raw, TOO_MUCH_SLIPPAGE)
        require(amount_raw <= get_collateral_reserves(market, asset), INSUFFICIENT_RESERVES)
        offset = asset_offset(market.params, asset)
        left_raw = market.collateral_held_raw[offset] - safe128(amount_raw)
        after = replace(
            market,
            base_held_raw=market.base_held_raw + base_amount_raw,
            collateral_held_raw=_replaced(market.collateral_held_raw, offset, left_raw),
        )
        return BuyOutcome(None, after, base_amount_raw, amount_raw)

    return _attempt(call, lambda code: BuyOutcome(code, market))
