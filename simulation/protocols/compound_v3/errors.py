"""How Comet reverts, as data (the custom errors of `CometMainInterface` and `CometMath`, and panics)."""

from __future__ import annotations

from typing import Final

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from contracts_abi.errors import CallReverted

BAD_ASSET: Final = "BadAsset"
BAD_PRICE: Final = "BadPrice"
BORROW_TOO_SMALL: Final = "BorrowTooSmall"
INSUFFICIENT_RESERVES: Final = "InsufficientReserves"
NOT_COLLATERALIZED: Final = "NotCollateralized"
NOT_FOR_SALE: Final = "NotForSale"
NOT_LIQUIDATABLE: Final = "NotLiquidatable"
PAUSED: Final = "Paused"
SUPPLY_CAP_EXCEEDED: Final = "SupplyCapExceeded"
TIMESTAMP_TOO_LARGE: Final = "TimestampTooLarge"
TOO_MUCH_SLIPPAGE: Final = "TooMuchSlippage"
UNAUTHORIZED: Final = "Unauthorized"
INVALID_UINT64: Final = "InvalidUInt64"
INVALID_UINT104: Final = "InvalidUInt104"
INVALID_UINT128: Final = "InvalidUInt128"
INVALID_INT104: Final = "InvalidInt104"
INVALID_INT256: Final = "InvalidInt256"

ARITHMETIC_PANIC: Final = "Panic(0x11)"
"""Checked arithmetic of Solidity 0.8 left the range of its type."""

DIVISION_PANIC: Final = "Panic(0x12)"
"""Division by zero in Solidity 0.8."""

BARE: Final = ""
"""A revert without data."""

FEED_REVERT: Final = "price feed"
"""A price feed reverts; its revert data passes through, so how it says so is its own affair."""

TOKEN_REVERT: Final = "token"
"""A token refuses a transfer, mostly because there is not enough of it; its revert data passes through."""

MEANING: Final = {
    BAD_ASSET: "the market does not list the asset as collateral",
    BAD_PRICE: "a price feed answers zero or less",
    BORROW_TOO_SMALL: "less would be owed than the market lends at least",
    INSUFFICIENT_RESERVES: "the market owns less than that",
    NOT_COLLATERALIZED: "the collateral would not carry what is owed",
    NOT_FOR_SALE: "the market has the reserves it wants, and sells no collateral",
    NOT_LIQUIDATABLE: "the account is not liquidatable",
    PAUSED: "the action is paused",
    SUPPLY_CAP_EXCEEDED: "more of the collateral than its supply cap",
    TIMESTAMP_TOO_LARGE: "the time leaves 40 bits",
    TOO_MUCH_SLIPPAGE: "less collateral than was asked for at least",
    UNAUTHORIZED: "the caller may not act for the account",
    INVALID_UINT64: "a rate or an index leaves 64 bits",
    INVALID_UINT104: "a principal leaves 104 bits",
    INVALID_UINT128: "an amount of collateral leaves 128 bits",
    INVALID_INT104: "a principal leaves 103 bits",
    INVALID_INT256: "an amount leaves 255 bits",
    ARITHMETIC_PANIC: "arithmetic overflow or underflow, for example more than the account has",
    DIVISION_PANIC: "division by zero",
    BARE: "revert without data",
    FEED_REVERT: "a price feed reverts",
    TOKEN_REVERT: "a token refuses the transfer",
}
"""One line for people, by code."""

_NAMED: Final = {keccak(text=f"{name}()")[:4]: name for name in MEANING if name.isalnum()}
_PANIC: Final = keccak(text="Panic(uint256)")[:4]
_ERROR_STRING: Final = keccak(text="Error(string)")[:4]

INT256_MAX: Final = 2**255 - 1


class CometRevert(CallReverted):
    """The model's statement that the contract reverts here.

    Attributes
    ----------
    code
        What `revert_code` gives for the contract's own revert data.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"Comet reverts with {code!r}: {MEANING.get(code, 'no known meaning')}")
        self.code = code


def require(condition: bool, code: str) -> None:
    """Raise `CometRevert` with `code` unless `condition`."""
    if not condition:
        raise CometRevert(code)


def unsigned(value: int, bits: int = 256) -> int:
    """Return `value` if it fits an unsigned type, else revert as checked arithmetic on that type does."""
    if not 0 <= value < 1 << bits:
        raise CometRevert(ARITHMETIC_PANIC)
    return value


def uint256(value: int) -> int:
    """Return `value` if it fits uint256, else revert as checked arithmetic does."""
    return unsigned(value)


def signed(value: int, bits: int = 256) -> int:
    """Return `value` if it fits a signed type, else revert as checked arithmetic on that type does."""
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise CometRevert(ARITHMETIC_PANIC)
    return value


def safe64(value: int) -> int:
    """Return `value` if it fits uint64, else revert by name (`CometMath.safe64`)."""
    require(value < 1 << 64, INVALID_UINT64)
    return value


def safe104(value: int) -> int:
    """Return `value` if it fits uint104, else revert by name (`CometMath.safe104`)."""
    require(value < 1 << 104, INVALID_UINT104)
    return value


def safe128(value: int) -> int:
    """Return `value` if it fits uint128, else revert by name (`CometMath.safe128`)."""
    require(value < 1 << 128, INVALID_UINT128)
    return value


def signed104(value: int) -> int:
    """Return an unsigned `value` if it fits int104, else revert by name (`CometMath.signed104`)."""
    require(value < 1 << 103, INVALID_INT104)
    return value


def signed256(value: int) -> int:
    """Return an unsigned `value` if it fits int256, else revert by name (`CometMath.signed256`)."""
    require(value <= INT256_MAX, INVALID_INT256)
    return value


def revert_code(data: bytes) -> str:
    """Return revert data as a code.

    A custom error is its name, a panic ``Panic(0x11)``, no data the empty text. Comet itself never reverts
    with a text: that is a token's. Anything else stays hex.
    """
    if len(data) == 4 and data in _NAMED:
        return _NAMED[data]
    if data[:4] == _ERROR_STRING:
        return TOKEN_REVERT
    try:
        if data[:4] == _PANIC:
            return f"Panic(0x{abi_decode(['uint256'], data[4:])[0]:02x})"
    except (DecodingError, OverflowError, ValueError):
        pass
    return f"0x{data.hex()}" if data else BARE
