"""A liquidation, step by step in the contract's order (`LiquidationLogic.sol`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulation.fixed_point import MAX_UINT256, percent_div, percent_mul
from simulation.protocols.aave_v3.configuration import (
    DEBT_CEILING_DECIMALS,
    set_borrowing,
    set_using_as_collateral,
)
from simulation.protocols.aave_v3.errors import (
    ARITHMETIC_PANIC,
    BARE,
    DIVISION_PANIC,
    INVALID_BURN_AMOUNT,
    TOKEN_REVERT,
    AaveRevert,
    require,
    revert,
    uint256,
)
from simulation.protocols.aave_v3.generic_logic import (
    a_token_balance,
    asset_price,
    calculate_user_account_data,
    is_in_e_mode_category,
    user_e_mode,
    variable_debt_balance,
)
from simulation.protocols.aave_v3.types import (
    AaveAccount,
    AaveMarket,
    AavePosition,
    LiquidationOutcome,
    ReserveData,
    Rules,
)
from simulation.protocols.aave_v3.validation_logic import (
    isolation_mode_collateral,
    validate_automatic_use_as_collateral,
    validate_liquidation_call,
)


def close_factor(rules: Rules, health_factor_wad: int) -> int:
    """Return the largest share of the debt that may be repaid, in basis points."""
    if health_factor_wad > rules.close_factor_hf_threshold_wad:
        return rules.default_close_factor_bps
    return rules.max_close_factor_bps


@dataclass(frozen=True, slots=True)
class _Terms:
    """Bonus and prices of one pair for one account (`_getConfigurationData`)."""

    liquidation_bonus_bps: int
    collateral_price_base: int | None
    debt_price_base: int | None


def _get_configuration_data(
    market: AaveMarket, account: AaveAccount, collateral: ReserveData, debt: ReserveData
) -> _Terms:
    terms = _Terms(collateral.configuration.liquidation_bonus_bps, collateral.price_base, debt.price_base)
    e_mode = user_e_mode(market, account)
    if e_mode is None:
        return terms
    if is_in_e_mode_category(account.e_mode_category, collateral.configuration.e_mode_category):
        terms = replace(terms, liquidation_bonus_bps=e_mode.liquidation_bonus_bps)
        if e_mode.price_source:
            terms = replace(terms, collateral_price_base=e_mode.price_base)
    if e_mode.price_source:
        # Accounts in a category can only owe its assets, so the contract does not ask again.
        terms = replace(terms, debt_price_base=e_mode.price_base)
    return terms


def calculate_available_collateral_to_liquidate(
    rules: Rules,
    collateral: ReserveData,
    debt: ReserveData,
    *,
    collateral_price_base: int,
    debt_price_base: int,
    debt_to_cover_raw: int,
    user_collateral_balance_raw: int,
    liquidation_bonus_bps: int,
) -> tuple[int, int, int]:
    """Return collateral to the liquidator, debt needed and protocol fee, in token units.

    When the collateral does not suffice for `debt_to_cover_raw` with the bonus on top, all of it is taken
    and the debt is worked back from it (`_calculateAvailableCollateralToLiquidate`).
    """
    collateral_unit, debt_unit = collateral.configuration.unit, debt.configuration.unit
    collateral_value = uint256(uint256(debt_price_base * debt_to_cover_raw) * collateral_unit)
    per_collateral = uint256(collateral_price_base * debt_unit)
    require(per_collateral != 0, DIVISION_PANIC)
    base_collateral_raw = collateral_value // per_collateral
    uint256(base_collateral_raw * liquidation_bonus_bps + 5_000, BARE)
    max_collateral_raw = percent_mul(base_collateral_raw, liquidation_bonus_bps)

    if max_collateral_raw > user_collateral_balance_raw:
        collateral_raw = user_collateral_balance_raw
        debt_value = uint256(uint256(collateral_price_base * collateral_raw) * debt_unit)
        per_debt = uint256(debt_price_base * collateral_unit)
        require(per_debt != 0, DIVISION_PANIC)
        require(liquidation_bonus_bps != 0, BARE)
        debt_needed_raw = rules.debt_needed(debt_value // per_debt, liquidation_bonus_bps)
    else:
        collateral_raw = max_collateral_raw
        debt_needed_raw = debt_to_cover_raw

    fee_bps = collateral.configuration.liquidation_protocol_fee_bps
    if fee_bps == 0:
        return collateral_raw, debt_needed_raw, 0
    require(liquidation_bonus_bps != 0, BARE)
    bonus_raw = uint256(collateral_raw - percent_div(collateral_raw, liquidation_bonus_bps))
    fee_raw = percent_mul(bonus_raw, fee_bps)
    return uint256(collateral_raw - fee_raw), debt_needed_raw, fee_raw


def _burn_debt(rules: Rules, debt: ReserveData, position: AavePosition, amount_raw: int) -> AavePosition:
    """Take `amount_raw` off the debt, variable before stable (`_burnDebtTokens`)."""
    variable_raw = variable_debt_balance(rules, debt, position)
    burnt_raw = min(variable_raw, amount_raw)
    scaled_raw = position.scaled_variable_debt_raw
    if variable_raw >= amount_raw or variable_raw != 0:
        burnt_scaled_raw = rules.balance_to_scaled(burnt_raw, debt.normalized_variable_debt_ray)
        require(burnt_scaled_raw != 0, INVALID_BURN_AMOUNT)
        scaled_raw = uint256(scaled_raw - burnt_scaled_raw)
    return replace(
        position,
        scaled_variable_debt_raw=scaled_raw,
        stable_debt_raw=position.stable_debt_raw - (amount_raw - burnt_raw),
    )


def _isolated_debt_repaid(
    market: AaveMarket, user_configuration: int, debt: ReserveData, repaid_raw: int
) -> int:
    """Return how far the isolation-mode debt goes down (`updateIsolatedDebtIfIsolated`).

    `user_configuration` is the one after the seizure: when all of the isolated collateral goes, the account
    is no longer in isolation mode and the contract leaves the total as it was.
    """
    collateral = isolation_mode_collateral(market, user_configuration)
    if collateral is None:
        return 0
    decimals = debt.configuration.decimals
    require(decimals >= DEBT_CEILING_DECIMALS, ARITHMETIC_PANIC)
    repaid = repaid_raw // int(10 ** (decimals - DEBT_CEILING_DECIMALS))
    return min(repaid, collateral.isolation_mode_total_debt)


def _pay_out(
    rules: Rules, collateral: ReserveData, debt: ReserveData, debt_left_raw: int, amount_raw: int
) -> int:
    """Return the scaled amount burnt for underlying paid to the liquidator (`_burnCollateralATokens`)."""
    if amount_raw > collateral.available_liquidity_raw:
        # The rate strategy subtracts the payment from the liquidity, but only in a reserve with debt.
        owed = collateral.scaled_variable_debt_raw + collateral.total_stable_debt_raw
        if collateral.id == debt.id:
            owed = debt_left_raw
        revert(ARITHMETIC_PANIC if owed else TOKEN_REVERT)
    scaled_raw = rules.balance_to_scaled(amount_raw, collateral.normalized_income_ray)
    require(scaled_raw != 0, INVALID_BURN_AMOUNT)
    return scaled_raw


def execute_liquidation_call(
    market: AaveMarket,
    account: AaveAccount,
    *,
    collateral_asset: str,
    debt_asset: str,
    debt_to_cover_raw: int,
    receive_a_token: bool = False,
) -> LiquidationOutcome:
    """Return what the call does, when somebody else than the account makes it and can pay.

    Follows `executeLiquidationCall`.

    Raises
    ------
    AaveRevert
        Where the contract reverts.
    """
    rules = market.rules
    collateral = market.reserve_of(collateral_asset)
    debt = market.reserve_of(debt_asset)
    if debt is None:
        revert(BARE)

    health_factor_wad = calculate_user_account_data(market, account).health_factor_wad
    debt_position = account.position(debt.id)
    total_debt_raw = variable_debt_balance(rules, debt, debt_position) + debt_position.stable_debt_raw
    close_factor_bps = close_factor(rules, health_factor_wad)
    to_cover_raw = min(debt_to_cover_raw, percent_mul(total_debt_raw, close_factor_bps))
    validate_liquidation_call(
        market,
        account,
        collateral,
        debt,
        total_debt_raw=total_debt_raw,
        health_factor_wad=health_factor_wad,
    )
    assert collateral is not None

    terms = _get_configuration_data(market, account, collateral, debt)
    collateral_balance_raw = a_token_balance(rules, collateral, account.position(collateral.id))
    to_liquidator_raw, repaid_raw, fee_raw = calculate_available_collateral_to_liquidate(
        rules,
        collateral,
        debt,
        collateral_price_base=asset_price(terms.collateral_price_base),
        debt_price_base=asset_price(terms.debt_price_base),
        debt_to_cover_raw=to_cover_raw,
        user_collateral_balance_raw=collateral_balance_raw,
        liquidation_bonus_bps=terms.liquidation_bonus_bps,
    )

    user_configuration = account.user_configuration
    full = repaid_raw == total_debt_raw
    if full:
        user_configuration = set_borrowing(user_configuration, debt.id, False)
    exhausted = to_liquidator_raw + fee_raw == collateral_balance_raw
    if exhausted:
        user_configuration = set_using_as_collateral(user_configuration, collateral.id, False)

    after = account.with_position(_burn_debt(rules, debt, debt_position, repaid_raw))
    isolation_mode_debt_repaid = _isolated_debt_repaid(market, user_configuration, debt, repaid_raw)

    index_ray = collateral.normalized_income_ray
    position = after.position(collateral.id)
    if receive_a_token:
        seized_scaled_raw = rules.balance_to_scaled(to_liquidator_raw, index_ray)
    else:
        burnt_raw = debt_position.scaled_variable_debt_raw - after.position(debt.id).scaled_variable_debt_raw
        debt_left_raw = debt.scaled_variable_debt_raw - burnt_raw + debt.total_stable_debt_raw
        seized_scaled_raw = _pay_out(rules, collateral, debt, debt_left_raw, to_liquidator_raw)
    scaled_raw = uint256(position.scaled_a_token_raw - seized_scaled_raw)
    treasury_scaled_raw = 0
    if fee_raw != 0:
        # Rounding may leave less than the fee; the treasury then takes what is there.
        if rules.balance_to_scaled(fee_raw, index_ray) > scaled_raw:
            fee_raw = rules.scaled_to_balance(scaled_raw, index_ray)
        treasury_scaled_raw = rules.balance_to_scaled(fee_raw, index_ray)
        scaled_raw = uint256(scaled_raw - treasury_scaled_raw)
    after = replace(
        after.with_position(replace(position, scaled_a_token_raw=scaled_raw)),
        user_configuration=user_configuration,
        reported_health_factor_wad=None,
    )
    return LiquidationOutcome(
        revert_code=None,
        account_after=after,
        debt_repaid_raw=repaid_raw,
        collateral_seized_raw=to_liquidator_raw + fee_raw,
        protocol_fee_raw=fee_raw,
        to_liquidator_raw=to_liquidator_raw,
        full=full,
        collateral_exhausted=exhausted,
        close_factor_bps=close_factor_bps,
        health_factor_wad=health_factor_wad,
        isolation_mode_debt_repaid=isolation_mode_debt_repaid,
        liquidator_scaled_raw=seized_scaled_raw if receive_a_token else 0,
        treasury_scaled_raw=treasury_scaled_raw,
    )


def liquidation_quote(
    market: AaveMarket,
    account: AaveAccount,
    debt_asset: str,
    collateral_asset: str,
    debt_to_cover_raw: int,
    *,
    receive_a_token: bool = False,
) -> LiquidationOutcome:
    """Return what `Pool.liquidationCall` does, or with which code it reverts. Never raises `AaveRevert`.

    Parameters
    ----------
    market
        At the time of the block that the call is mined in; see `project`.
    account
        Who is liquidated; the liquidator is somebody else, with enough of the debt token.
    debt_asset, collateral_asset
        Token addresses.
    debt_to_cover_raw
        As passed to the contract; more than allowed is cut, 2**256 - 1 means as much as allowed.
    receive_a_token
        Whether the liquidator takes aTokens instead of the underlying.
    """
    try:
        return execute_liquidation_call(
            market,
            account,
            collateral_asset=collateral_asset,
            debt_asset=debt_asset,
            debt_to_cover_raw=debt_to_cover_raw,
            receive_a_token=receive_a_token,
        )
    except AaveRevert as reverted:
        return LiquidationOutcome(revert_code=reverted.code, account_after=account)


def max_liquidatable(
    market: AaveMarket, account: AaveAccount, debt_asset: str, collateral_asset: str
) -> LiquidationOutcome:
    """Return the largest liquidation of this pair, as if called with 2**256 - 1."""
    return liquidation_quote(market, account, debt_asset, collateral_asset, MAX_UINT256)


def liquidator_configuration_after(
    market: AaveMarket,
    liquidator_configuration: int,
    liquidator_scaled_a_token_raw: int,
    collateral_asset: str,
) -> int:
    """Return the liquidator's configuration word after it received aTokens (`_liquidateATokens`)."""
    collateral = market.reserve_of(collateral_asset)
    if collateral is None:
        revert(BARE)
    balance_raw = market.rules.scaled_to_balance(
        liquidator_scaled_a_token_raw, collateral.normalized_income_ray
    )
    if balance_raw == 0 and validate_automatic_use_as_collateral(
        market, liquidator_configuration, collateral
    ):
        return set_using_as_collateral(liquidator_configuration, collateral.id, True)
    return liquidator_configuration
