"""How Aave V3.6 reverts, as data (`Errors.sol`): errors have names since 3.4, and a selector each."""

from __future__ import annotations

from typing import Final, NoReturn

from contracts_abi.aave_v3_6 import ERRORS
from simulation.protocols.aave_v3 import errors as rev_1
from simulation.protocols.aave_v3.errors import (
    ARITHMETIC_PANIC,
    BARE,
    DIVISION_PANIC,
    TOKEN_REVERT,
    AaveRevert,
    uint256,
)

__all__ = [
    "ARITHMETIC_PANIC",
    "BARE",
    "DIVISION_PANIC",
    "TOKEN_REVERT",
    "AaveRevert",
    "require",
    "revert",
    "revert_code",
    "uint256",
]

COLLATERAL_CANNOT_BE_LIQUIDATED: Final = "CollateralCannotBeLiquidated"
HEALTH_FACTOR_NOT_BELOW_THRESHOLD: Final = "HealthFactorNotBelowThreshold"
INVALID_BURN_AMOUNT: Final = "InvalidBurnAmount"
LIQUIDATION_GRACE_SENTINEL_CHECK_FAILED: Final = "LiquidationGraceSentinelCheckFailed"
MUST_NOT_LEAVE_DUST: Final = "MustNotLeaveDust"
PRICE_ORACLE_SENTINEL_CHECK_FAILED: Final = "PriceOracleSentinelCheckFailed"
RESERVE_INACTIVE: Final = "ReserveInactive"
RESERVE_PAUSED: Final = "ReservePaused"
SELF_LIQUIDATION: Final = "SelfLiquidation"
SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER: Final = "SpecifiedCurrencyNotBorrowedByUser"

MEANING: Final = {
    COLLATERAL_CANNOT_BE_LIQUIDATED: "asset is not collateral of the account",
    HEALTH_FACTOR_NOT_BELOW_THRESHOLD: "health factor is not below 1",
    INVALID_BURN_AMOUNT: "amount is worth less than one scaled unit",
    LIQUIDATION_GRACE_SENTINEL_CHECK_FAILED: "a reserve is in its grace period after a pause",
    MUST_NOT_LEAVE_DUST: "debt or collateral of less than 1000 in base currency would be left",
    PRICE_ORACLE_SENTINEL_CHECK_FAILED: "price oracle sentinel forbids liquidation",
    RESERVE_INACTIVE: "reserve is not active",
    RESERVE_PAUSED: "reserve is paused",
    SELF_LIQUIDATION: "the liquidator is the account itself",
    SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER: "account does not owe the asset",
} | {code: rev_1.MEANING[code] for code in (ARITHMETIC_PANIC, DIVISION_PANIC, BARE, TOKEN_REVERT)}
"""One line for people, by code."""


def revert(code: str) -> NoReturn:
    """Raise `AaveRevert`."""
    raise AaveRevert(code, MEANING[code])


def require(condition: bool, code: str) -> None:
    """Raise `AaveRevert` with `code` unless `condition`."""
    if not condition:
        revert(code)


def revert_code(data: bytes) -> str:
    """Return revert data as a code: the error's name where its selector is known, else as in revision 1."""
    name = ERRORS.get(data) if len(data) == 4 else None
    return rev_1.revert_code(data) if name is None else name
