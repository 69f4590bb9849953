"""How the Aave V3 contracts revert, as data (`Errors.sol` and the compiler's own panics)."""

from __future__ import annotations

from typing import Final, NoReturn

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError

from contracts_abi.errors import CallReverted
from simulation.fixed_point import MAX_UINT256

INVALID_BURN_AMOUNT: Final = "25"
RESERVE_INACTIVE: Final = "27"
RESERVE_PAUSED: Final = "29"
HEALTH_FACTOR_NOT_BELOW_THRESHOLD: Final = "45"
COLLATERAL_CANNOT_BE_LIQUIDATED: Final = "46"
SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER: Final = "47"
PRICE_ORACLE_SENTINEL_CHECK_FAILED: Final = "59"

ARITHMETIC_PANIC: Final = "Panic(0x11)"
"""Checked arithmetic of Solidity 0.8 left the range of its type."""

DIVISION_PANIC: Final = "Panic(0x12)"
"""Division by zero in Solidity 0.8."""

BARE: Final = ""
"""A revert without data: an overflow inside the assembly of the math libraries, or a call to no contract."""

TOKEN_REVERT: Final = "token"
"""The collateral token refuses the transfer for want of balance; how it says so is its own affair."""

MEANING: Final = {
    INVALID_BURN_AMOUNT: "amount is worth less than one scaled unit",
    RESERVE_INACTIVE: "reserve is not active",
    RESERVE_PAUSED: "reserve is paused",
    HEALTH_FACTOR_NOT_BELOW_THRESHOLD: "health factor is not below 1",
    COLLATERAL_CANNOT_BE_LIQUIDATED: "asset is not collateral of the account",
    SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER: "account does not owe the asset",
    PRICE_ORACLE_SENTINEL_CHECK_FAILED: "price oracle sentinel forbids liquidation",
    ARITHMETIC_PANIC: "arithmetic overflow or underflow",
    DIVISION_PANIC: "division by zero",
    BARE: "revert without data",
    TOKEN_REVERT: "the aToken holds too little of the collateral token",
}
"""One line for people, by code."""

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")


class AaveRevert(CallReverted):
    """The model's statement that the contract reverts here.

    Attributes
    ----------
    code
        What `revert_code` gives for the contract's own revert data.
    """

    def __init__(self, code: str, meaning: str | None = None) -> None:
        meaning = meaning or MEANING.get(code, "no known meaning")
        super().__init__(f"Aave V3 reverts with {code!r}: {meaning}")
        self.code = code


def revert(code: str) -> NoReturn:
    """Raise `AaveRevert`."""
    raise AaveRevert(code)


def require(condition: bool, code: str) -> None:
    """Raise `AaveRevert` with `code` unless `condition`."""
    if not condition:
        raise AaveRevert(code)


def uint256(value: int, code: str = ARITHMETIC_PANIC) -> int:
    """Return `value` if it fits uint256, else revert with `code` as checked arithmetic does."""
    if not 0 <= value <= MAX_UINT256:
        raise AaveRevert(code)
    return value


def revert_code(data: bytes) -> str:
    """Return revert data as a code: ``45``, ``Panic(0x11)``, empty for no data, hex for anything else."""
    try:
        if data[:4] == _ERROR_STRING:
            return str(abi_decode(["string"], data[4:])[0])
        if data[:4] == _PANIC:
            return f"Panic(0x{abi_decode(['uint256'], data[4:])[0]:02x})"
    except (DecodingError, OverflowError, ValueError):
        pass
    return f"0x{data.hex()}" if data else BARE
