"""The calls of `Morpho.sol` as functions from states to states, in the contract's order.

Each brings the market up to `MorphoMarket.timestamp` first, as the contract does, and answers what the call
does or the reason it reverts with; none raises for a refusal. Tokens are taken to move as asked: whoever pays
can, and no callback is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols.morpho_blue.errors import (
    HEALTHY_POSITION,
    INCONSISTENT_INPUT,
    INSUFFICIENT_COLLATERAL,
    INSUFFICIENT_LIQUIDITY,
    MARKET_NOT_CREATED,
    ORACLE_REVERT,
    UNAUTHORIZED,
    ZERO_ADDRESS,
    ZERO_ASSETS,
    MorphoRevert,
    require,
    to_uint128,
    uint128,
    uint256,
)
from simulation.protocols.morpho_blue.math_lib import (
    mul_div_down,
    mul_div_up,
    w_div_down,
    w_div_up,
    w_mul_down,
    w_taylor_compounded,
)
from simulation.protocols.morpho_blue.shares_math_lib import (
    to_assets_down,
    to_assets_up,
    to_shares_down,
    to_shares_up,
)
from simulation.protocols.morpho_blue.types import (
    LiquidationOutcome,
    MarketState,
    MorphoAccount,
    MorphoMarket,
    Outcome,
)

ORACLE_PRICE_SCALE: Final = 10**36
LIQUIDATION_CURSOR_WAD: Final = 3 * WAD // 10
MAX_LIQUIDATION_INCENTIVE_FACTOR_WAD: Final = 115 * WAD // 100


# --- interest ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accrual:
    """What adding interest does (`_accrueInterest`).

    Attributes
    ----------
    market
        The market with interest up to its timestamp.
    borrow_rate_wad
        Rate a second that applied since the last update; None where the rate model was not asked.
    interest_raw, fee_shares
        Added to debt and supply, and the fee recipient's part of the latter as shares.
    """

    market: MorphoMarket
    borrow_rate_wad: int | None = None
    interest_raw: int = 0
    fee_shares: int = 0


def accrue(market: MorphoMarket) -> Accrual:
    """Return the market with interest up to its timestamp (`_accrueInterest`); may raise `MorphoRevert`."""
    state = market.state
    elapsed_s = uint256(market.timestamp - state.last_update)
    if elapsed_s == 0:
        return Accrual(market)
    if market.irm is None:
        return Accrual(replace(market, state=replace(state, last_update=market.timestamp)))
    rate_wad, irm = market.irm.borrow_rate(state, elapsed_s)
    interest_raw = w_mul_down(state.total_borrow_assets_raw, w_taylor_compounded(rate_wad, elapsed_s))
    borrowed_raw = uint128(state.total_borrow_assets_raw + to_uint128(interest_raw))
    supplied_raw = uint128(state.total_supply_assets_raw + to_uint128(interest_raw))
    supply_shares, fee_shares = state.total_supply_shares, 0
    if state.fee_wad != 0:
        fee_raw = w_mul_down(interest_raw, state.fee_wad)
        # The fee's shares are bought at the price without the fee in it.
        fee_shares = to_shares_down(fee_raw, uint256(supplied_raw - fee_raw), supply_shares)
        supply_shares = uint128(supply_shares + to_uint128(fee_shares))
    accrued = MarketState(
        total_supply_assets_raw=supplied_raw,
        total_supply_shares=supply_shares,
        total_borrow_assets_raw=borrowed_raw,
        total_borrow_shares=state.total_borrow_shares,
        last_update=market.timestamp,
        fee_wad=state.fee_wad,
    )
    return Accrual(replace(market, state=accrued, irm=irm), rate_wad, interest_raw, fee_shares)


def project(market: MorphoMarket, timestamp: int) -> MorphoMarket:
    """Return the market looked at at another time; interest follows from it when something is asked."""
    return replace(market, timestamp=timestamp)


# --- health ------------------------------------------------------------------------------------------------


def borrowed_assets(state: MarketState, account: MorphoAccount) -> int:
    """Return what the account owes in a market brought up to date, rounded up."""
    return to_assets_up(account.borrow_shares, state.total_borrow_assets_raw, state.total_borrow_shares)


def collateral_value(market: MorphoMarket, account: MorphoAccount) -> int:
    """Return the collateral in loan tokens, rounded down; raises `MorphoRevert` without a price."""
    return mul_div_down(account.collateral_raw, oracle_price(market), ORACLE_PRICE_SCALE)


def max_borrow(market: MorphoMarket, account: MorphoAccount) -> int:
    """Return the most that the account's collateral carries, in loan tokens, rounded down twice."""
    return w_mul_down(collateral_value(market, account), market.params.lltv_wad)


def oracle_price(market: MorphoMarket) -> int:
    """Return the price at 1e36; raises `MorphoRevert` when the oracle reverts."""
    if market.price_e36 is None:
        raise MorphoRevert(ORACLE_REVERT)
    return market.price_e36


def is_healthy(market: MorphoMarket, account: MorphoAccount) -> bool:
    """Return whether the account owes no more than its collateral carries (`_isHealthy`).

    `market` has to be up to date. Who owes nothing is healthy whatever the oracle says.
    """
    return account.borrow_shares == 0 or _is_healthy_at(market, account)


def _is_healthy_at(market: MorphoMarket, account: MorphoAccount) -> bool:
    """As `is_healthy`, at the oracle's price also for who owes nothing."""
    oracle_price(market)
    owed_raw = borrowed_assets(market.state, account)
    return max_borrow(market, account) >= owed_raw


def liquidation_incentive_factor(lltv_wad: int) -> int:
    """Return what a liquidator gets for a unit repaid, at 1e18: ``min(1.15, 1 / (1 - 0.3 (1 - lltv)))``."""
    discount_wad = w_mul_down(LIQUIDATION_CURSOR_WAD, WAD - lltv_wad)
    return min(MAX_LIQUIDATION_INCENTIVE_FACTOR_WAD, w_div_down(WAD, WAD - discount_wad))


# --- the frame of every call -------------------------------------------------------------------------------


def _exactly_one(assets: int, shares: int) -> None:
    require((assets == 0) != (shares == 0), INCONSISTENT_INPUT)


def _created(market: MorphoMarket) -> None:
    require(market.state.last_update != 0, MARKET_NOT_CREATED)


def _named(address: str) -> None:
    require(int(address, 16) != 0, ZERO_ADDRESS)


def _with_fee(market: MorphoMarket, account: MorphoAccount, fee_shares: int) -> MorphoAccount:
    """Return the account with the shares of a fee if they are its own."""
    if not fee_shares or account.account.lower() != market.fee_recipient.lower():
        return account
    return replace(account, supply_shares=uint256(account.supply_shares + fee_shares))


@dataclass(frozen=True, slots=True)
class _Ready:
    """A market brought up to date, with the account that a call is about."""

    accrual: Accrual
    account: MorphoAccount

    @property
    def market(self) -> MorphoMarket:
        return self.accrual.market

    @property
    def state(self) -> MarketState:
        return self.accrual.market.state

    def done(self, state: MarketState, account: MorphoAccount, assets_raw: int, shares: int) -> Outcome:
        return Outcome(
            revert_code=None,
            market_after=replace(self.market, state=state),
            account_after=account,
            assets_raw=assets_raw,
            shares=shares,
            interest_raw=self.accrual.interest_raw,
            fee_shares=self.accrual.fee_shares,
        )


def _ready(market: MorphoMarket, account: MorphoAccount) -> _Ready:
    accrual = accrue(market)
    return _Ready(accrual, _with_fee(market, account, accrual.fee_shares))


def _attempt(market: MorphoMarket, account: MorphoAccount, call: Callable[[], Outcome]) -> Outcome:
    try:
        return call()
    except MorphoRevert as reverted:
        return Outcome(reverted.code, market, account)


# --- supply side -------------------------------------------------------------------------------------------


def accrue_interest(market: MorphoMarket, account: MorphoAccount) -> Outcome:
    """Add interest and do nothing else (`accrueInterest`); `account` only gets a fee if it is its own."""

    def call() -> Outcome:
        _created(market)
        ready = _ready(market, account)
        return ready.done(ready.state, ready.account, 0, 0)

    return _attempt(market, account, call)


def supply(market: MorphoMarket, account: MorphoAccount, assets_raw: int = 0, shares: int = 0) -> Outcome:
    """Lend so much, or so many shares' worth, for `account` (`supply`).

    Parameters
    ----------
    market, account
        The market, and who becomes the owner of the shares.
    assets_raw, shares
        One of the two; shares are rounded down for assets, assets up for shares.
    """

    def call() -> Outcome:
        _created(market)
        _exactly_one(assets_raw, shares)
        _named(account.account)
        ready = _ready(market, account)
        state, holder = ready.state, ready.account
        totals = state.total_supply_assets_raw, state.total_supply_shares
        given_raw = assets_raw or to_assets_up(shares, *totals)
        minted = to_shares_down(assets_raw, *totals) if assets_raw else shares
        holder = replace(holder, supply_shares=uint256(holder.supply_shares + minted))
        total_shares = uint128(state.total_supply_shares + to_uint128(minted))
        total_raw = uint128(state.total_supply_assets_raw + to_uint128(given_raw))
        state = replace(state, total_supply_shares=total_shares, total_supply_assets_raw=total_raw)
        return ready.done(state, holder, given_raw, minted)

    return _attempt(market, account, call)


def withdraw(
    market: MorphoMarket,
    account: MorphoAccount,
    assets_raw: int = 0,
    shares: int = 0,
    *,
    receiver: str | None = None,
    authorized: bool = True,
) -> Outcome:
    """Take back so much, or so many shares' worth, of what `account` lent (`withdraw`).

    Parameters
    ----------
    market, account
        The market, and whose shares.
    assets_raw, shares
        One of the two; shares are rounded up for assets, assets down for shares.
    receiver
        Who gets the tokens; the account by default.
    authorized
        Whether the caller may act for the account.
    """

    def call() -> Outcome:
        _created(market)
        _exactly_one(assets_raw, shares)
        _named(account.account if receiver is None else receiver)
        require(authorized, UNAUTHORIZED)
        ready = _ready(market, account)
        state, holder = ready.state, ready.account
        totals = state.total_supply_assets_raw, state.total_supply_shares
        taken_raw = assets_raw or to_assets_down(shares, *totals)
        burnt = to_shares_up(assets_raw, *totals) if assets_raw else shares
        holder = replace(holder, supply_shares=uint256(holder.supply_shares - burnt))
        total_shares = uint128(state.total_supply_shares - to_uint128(burnt))
        total_raw = uint128(state.total_supply_assets_raw - to_uint128(taken_raw))
        state = replace(state, total_supply_shares=total_shares, total_supply_assets_raw=total_raw)
        require(state.total_borrow_assets_raw <= total_raw, INSUFFICIENT_LIQUIDITY)
        return ready.done(state, holder, taken_raw, burnt)

    return _attempt(market, account, call)


# --- borrow side -------------------------------------------------------------------------------------------


def borrow(
    market: MorphoMarket,
    account: MorphoAccount,
    assets_raw: int = 0,
    shares: int = 0,
    *,
    receiver: str | None = None,
    authorized: bool = True,
) -> Outcome:
    """Borrow so much, or so many shares' worth, against the account's collateral (`borrow`).

    Parameters are as for `withdraw`; shares are rounded up for assets, assets down for shares.
    """

    def call() -> Outcome:
        _created(market)
        _exactly_one(assets_raw, shares)
        _named(account.account if receiver is None else receiver)
        require(authorized, UNAUTHORIZED)
        ready = _ready(market, account)
        state, debtor = ready.state, ready.account
        totals = state.total_borrow_assets_raw, state.total_borrow_shares
        lent_raw = assets_raw or to_assets_down(shares, *totals)
        owed = to_shares_up(assets_raw, *totals) if assets_raw else shares
        debtor = replace(debtor, borrow_shares=uint128(debtor.borrow_shares + to_uint128(owed)))
        total_shares = uint128(state.total_borrow_shares + owed)
        total_raw = uint128(state.total_borrow_assets_raw + to_uint128(lent_raw))
        state = replace(state, total_borrow_shares=total_shares, total_borrow_assets_raw=total_raw)
        require(is_healthy(replace(ready.market, state=state), debtor), INSUFFICIENT_COLLATERAL)
        require(total_raw <= state.total_supply_assets_raw, INSUFFICIENT_LIQUIDITY)
        return ready.done(state, debtor, lent_raw, owed)

    return _attempt(market, account, call)


def repay(market: MorphoMarket, account: MorphoAccount, assets_raw: int = 0, shares: int = 0) -> Outcome:
    """Pay back so much, or so many shares' worth, of the account's debt (`repay`).

    Parameters
    ----------
    market, account
        The market, and whose debt.
    assets_raw, shares
        One of the two; shares are rounded down for assets, assets up for shares, by which the last debtor may
        pay one unit more than is owed in total.
    """

    def call() -> Outcome:
        _created(market)
        _exactly_one(assets_raw, shares)
        _named(account.account)
        ready = _ready(market, account)
        state, debtor = ready.state, ready.account
        totals = state.total_borrow_assets_raw, state.total_borrow_shares
        paid_raw = assets_raw or to_assets_up(shares, *totals)
        redeemed = to_shares_down(assets_raw, *totals) if assets_raw else shares
        debtor, state = _redeemed(debtor, state, redeemed, paid_raw)
        return ready.done(state, debtor, paid_raw, redeemed)

    return _attempt(market, account, call)


def _redeemed(
    debtor: MorphoAccount, state: MarketState, shares: int, paid_raw: int
) -> tuple[MorphoAccount, MarketState]:
    """Take repaid shares off the debtor and off the market."""
    debtor = replace(debtor, borrow_shares=uint128(debtor.borrow_shares - to_uint128(shares)))
    return debtor, replace(
        state,
        total_borrow_shares=uint128(state.total_borrow_shares - shares),
        total_borrow_assets_raw=to_uint128(max(0, state.total_borrow_assets_raw - paid_raw)),
    )


# --- collateral --------------------------------------------------------------------------------------------


def supply_collateral(market: MorphoMarket, account: MorphoAccount, assets_raw: int) -> Outcome:
    """Give the account collateral (`supplyCollateral`); the only call that adds no interest."""

    def call() -> Outcome:
        _created(market)
        require(assets_raw != 0, ZERO_ASSETS)
        _named(account.account)
        holder = replace(account, collateral_raw=uint128(account.collateral_raw + to_uint128(assets_raw)))
        return _Ready(Accrual(market), holder).done(market.state, holder, assets_raw, 0)

    return _attempt(market, account, call)


def withdraw_collateral(
    market: MorphoMarket,
    account: MorphoAccount,
    assets_raw: int,
    *,
    receiver: str | None = None,
    authorized: bool = True,
) -> Outcome:
    """Take collateral out, as far as the debt allows (`withdrawCollateral`); parameters as for `withdraw`."""

    def call() -> Outcome:
        _created(market)
        require(assets_raw != 0, ZERO_ASSETS)
        _named(account.account if receiver is None else receiver)
        require(authorized, UNAUTHORIZED)
        ready = _ready(market, account)
        left_raw = uint128(ready.account.collateral_raw - to_uint128(assets_raw))
        holder = replace(ready.account, collateral_raw=left_raw)
        require(is_healthy(ready.market, holder), INSUFFICIENT_COLLATERAL)
        return ready.done(ready.state, holder, assets_raw, 0)

    return _attempt(market, account, call)


# --- liquidation -------------------------------------------------------------------------------------------


def liquidate(
    market: MorphoMarket, account: MorphoAccount, seized_assets_raw: int = 0, repaid_shares: int = 0
) -> LiquidationOutcome:
    """Repay for an account that is not healthy and take its collateral (`liquidate`).

    There is no close factor. Where no collateral is left, what is still owed is bad debt: it leaves the debt
    and the supply at once, so that all suppliers bear it by their shares.

    Parameters
    ----------
    market, account
        The market, and whose position.
    seized_assets_raw, repaid_shares
        One of the two: how much collateral to take, or how many shares of the debt to repay.
    """
    try:
        return _liquidate(market, account, seized_assets_raw, repaid_shares)
    except MorphoRevert as reverted:
        return LiquidationOutcome(reverted.code, market, account)


def _liquidate(
    market: MorphoMarket, account: MorphoAccount, seized_raw: int, shares: int
) -> LiquidationOutcome:
    _created(market)
    _exactly_one(seized_raw, shares)
    ready = _ready(market, account)
    state, debtor = ready.state, ready.account
    require(not _is_healthy_at(ready.market, debtor), HEALTHY_POSITION)
    if seized_raw:
        shares = shares_for(ready.market, seized_raw)
    else:
        seized_raw = seized_for(ready.market, shares)
    repaid_raw = to_assets_up(shares, state.total_borrow_assets_raw, state.total_borrow_shares)

    debtor, state = _redeemed(debtor, state, shares, repaid_raw)
    debtor = replace(debtor, collateral_raw=uint128(debtor.collateral_raw - to_uint128(seized_raw)))
    bad_raw, bad_shares, repaid_whole = 0, 0, debtor.borrow_shares == 0
    if debtor.collateral_raw == 0:
        bad_shares = debtor.borrow_shares
        bad_raw = min(state.total_borrow_assets_raw, borrowed_assets(state, debtor))
        state = replace(
            state,
            total_borrow_assets_raw=uint128(state.total_borrow_assets_raw - to_uint128(bad_raw)),
            total_supply_assets_raw=uint128(state.total_supply_assets_raw - bad_raw),
            total_borrow_shares=uint128(state.total_borrow_shares - bad_shares),
        )
        debtor = replace(debtor, borrow_shares=0)
    return LiquidationOutcome(
        revert_code=None,
        market_after=replace(ready.market, state=state),
        account_after=debtor,
        assets_raw=repaid_raw,
        shares=shares,
        interest_raw=ready.accrual.interest_raw,
        fee_shares=ready.accrual.fee_shares,
        repaid_assets_raw=repaid_raw,
        repaid_shares=shares,
        seized_assets_raw=seized_raw,
        bad_debt_assets_raw=bad_raw,
        bad_debt_shares=bad_shares,
        full=repaid_whole,
    )


def shares_for(market: MorphoMarket, seized_raw: int) -> int:
    """Return the shares that have to be repaid for an amount of collateral, rounded up at each step.

    `market` has to be up to date, here and in `seized_for`.
    """
    state = market.state
    quoted_raw = mul_div_up(seized_raw, oracle_price(market), ORACLE_PRICE_SCALE)
    repaid_raw = w_div_up(quoted_raw, liquidation_incentive_factor(market.params.lltv_wad))
    return to_shares_up(repaid_raw, state.total_borrow_assets_raw, state.total_borrow_shares)


def seized_for(market: MorphoMarket, shares: int) -> int:
    """Return the collateral that repaying so many shares gives, rounded down at each step."""
    state = market.state
    repaid_raw = to_assets_down(shares, state.total_borrow_assets_raw, state.total_borrow_shares)
    worth_raw = w_mul_down(repaid_raw, liquidation_incentive_factor(market.params.lltv_wad))
    return mul_div_down(worth_raw, ORACLE_PRICE_SCALE, oracle_price(market))


def max_seizable(market: MorphoMarket, account: MorphoAccount) -> int:
    """Return the most collateral that one liquidation can take; may raise `MorphoRevert`.

    All of it where the debt is worth that much, else what the whole debt gives, which is less. `market` has
    to be up to date.
    """
    whole = account.collateral_raw
    if whole and shares_for(market, whole) <= account.borrow_shares:
        return whole
    return min(whole, seized_for(market, account.borrow_shares))


def liquidation_quote(
    market: MorphoMarket, account: MorphoAccount, debt_to_cover_raw: int
) -> LiquidationOutcome:
    """Return what a liquidation does that repays at most `debt_to_cover_raw`; 2**256 - 1 for all there is.

    A debt that is repaid whole is asked for by its shares, which leaves none of it. Anything else is asked
    for by collateral: what the shares of that debt give, an amount that every rounding of the contract lets
    pass. So is all of the collateral where the debt is worth that much, by which what is left becomes bad.
    """
    try:
        _created(market)
        ready = _ready(market, account)
        state, debtor = ready.state, ready.account
        most_raw = max_seizable(ready.market, debtor)
        covers_all = debt_to_cover_raw >= borrowed_assets(state, debtor)
        if covers_all and 0 < most_raw < debtor.collateral_raw:
            return liquidate(market, account, repaid_shares=debtor.borrow_shares)
        if debt_to_cover_raw < MAX_UINT256:
            shares = to_shares_down(
                debt_to_cover_raw, state.total_borrow_assets_raw, state.total_borrow_shares
            )
            most_raw = min(most_raw, seized_for(ready.market, min(shares, debtor.borrow_shares)))
    except MorphoRevert as reverted:
        return LiquidationOutcome(reverted.code, market, account)
    return liquidate(market, account, seized_assets_raw=most_raw)
