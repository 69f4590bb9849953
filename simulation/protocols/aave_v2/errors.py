"""How Aave V2's contracts revert, as data (`Errors.sol`, and OpenZeppelin's messages of Solidity 0.6)."""

from __future__ import annotations

from typing import Final, NoReturn

from contracts_abi.errors import CallReverted
from simulation.fixed_point import MAX_UINT256

NO_ACTIVE_RESERVE: Final = "2"
LIQUIDATION_CALL_FAILED: Final = "23"
HEALTH_FACTOR_NOT_BELOW_THRESHOLD: Final = "42"
COLLATERAL_CANNOT_BE_LIQUIDATED: Final = "43"
SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER: Final = "44"
NOT_ENOUGH_LIQUIDITY_TO_LIQUIDATE: Final = "45"
MULTIPLICATION_OVERFLOW: Final = "48"
DIVISION_BY_ZERO: Final = "50"
INVALID_BURN_AMOUNT: Final = "58"
IS_PAUSED: Final = "64"

SAFE_MUL: Final = "SafeMath: multiplication overflow"
SAFE_ADD: Final = "SafeMath: addition overflow"
SAFE_SUB: Final = "SafeMath: subtraction overflow"
SAFE_DIV: Final = "SafeMath: division by zero"
NO_PRICE: Final = ""
"""The oracle has no price and no fallback: it calls an address without code."""

MEANING: Final = {
    NO_ACTIVE_RESERVE: "a reserve is not active",
    LIQUIDATION_CALL_FAILED: "the collateral manager reverted",
    HEALTH_FACTOR_NOT_BELOW_THRESHOLD: "health factor is not below 1",
    COLLATERAL_CANNOT_BE_LIQUIDATED: "asset is not collateral of the account",
    SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER: "account does not owe the asset",
    NOT_ENOUGH_LIQUIDITY_TO_LIQUIDATE: "the aToken holds too little of the collateral token",
    MULTIPLICATION_OVERFLOW: "a product leaves 256 bits",
    DIVISION_BY_ZERO: "division by zero",
    INVALID_BURN_AMOUNT: "amount is worth less than one scaled unit",
    IS_PAUSED: "the pool is paused",
    NO_PRICE: "the oracle has no price",
}
"""One line for people, by code."""


class AaveV2Revert(CallReverted):
    """The model's statement that the contract reverts here.

    Attributes
    ----------
    code
        The reason string that the contract reverts with, empty for none.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"Aave V2 reverts with {code!r}: {MEANING.get(code, code)}")
        self.code = code


def revert(code: str) -> NoReturn:
    """Raise `AaveV2Revert`."""
    raise AaveV2Revert(code)


def require(condition: bool, code: str) -> None:
    """Raise `AaveV2Revert` with `code` unless `condition`."""
    if not condition:
        raise AaveV2Revert(code)


def uint256(value: int, code: str) -> int:
    """Return `value` if it fits uint256, else revert with `code`."""
    if not 0 <= value <= MAX_UINT256:
        raise AaveV2Revert(code)
    return value
