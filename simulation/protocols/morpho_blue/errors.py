"""How Morpho Blue reverts, as data (`ErrorsLib.sol` and the compiler's own panics)."""

from __future__ import annotations

from typing import Final

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError

from contracts_abi.errors import CallReverted
from simulation.fixed_point import MAX_UINT256

MARKET_NOT_CREATED: Final = "market not created"
INCONSISTENT_INPUT: Final = "inconsistent input"
ZERO_ASSETS: Final = "zero assets"
ZERO_ADDRESS: Final = "zero address"
UNAUTHORIZED: Final = "unauthorized"
INSUFFICIENT_COLLATERAL: Final = "insufficient collateral"
INSUFFICIENT_LIQUIDITY: Final = "insufficient liquidity"
HEALTHY_POSITION: Final = "position is healthy"
MAX_UINT128_EXCEEDED: Final = "max uint128 exceeded"

ARITHMETIC_PANIC: Final = "Panic(0x11)"
"""Checked arithmetic of Solidity 0.8 left the range of its type."""

DIVISION_PANIC: Final = "Panic(0x12)"
"""Division by zero in Solidity 0.8."""

BARE: Final = ""
"""A revert without data."""

ORACLE_REVERT: Final = "oracle"
"""The market's oracle reverts; its revert data passes through, so how it says so is its own affair."""

IRM_REVERT: Final = "irm"
"""The market's interest rate model reverts; as for the oracle."""

MEANING: Final = {
    MARKET_NOT_CREATED: "there is no such market",
    INCONSISTENT_INPUT: "exactly one of assets and shares must be zero",
    ZERO_ASSETS: "the amount is zero",
    ZERO_ADDRESS: "the account is the zero address",
    UNAUTHORIZED: "the caller may not act for the account",
    INSUFFICIENT_COLLATERAL: "the position would not be healthy",
    INSUFFICIENT_LIQUIDITY: "more would be borrowed than is supplied",
    HEALTHY_POSITION: "the position is healthy",
    MAX_UINT128_EXCEEDED: "an amount leaves 128 bits",
    ARITHMETIC_PANIC: "arithmetic overflow or underflow, for example more than the position has",
    DIVISION_PANIC: "division by zero",
    BARE: "revert without data",
    ORACLE_REVERT: "the oracle reverts",
    IRM_REVERT: "the interest rate model reverts",
}
"""One line for people, by code."""

MAX_UINT128: Final = 2**128 - 1

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")


class MorphoRevert(CallReverted):
    """The model's statement that the contract reverts here.

    Attributes
    ----------
    code
        What `revert_code` gives for the contract's own revert data.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"Morpho Blue reverts with {code!r}: {MEANING.get(code, 'no known meaning')}")
        self.code = code


def require(condition: bool, code: str) -> None:
    """Raise `MorphoRevert` with `code` unless `condition`."""
    if not condition:
        raise MorphoRevert(code)


def uint256(value: int) -> int:
    """Return `value` if it fits uint256, else revert as checked arithmetic does."""
    if not 0 <= value <= MAX_UINT256:
        raise MorphoRevert(ARITHMETIC_PANIC)
    return value


def uint128(value: int) -> int:
    """Return `value` if it fits uint128, else revert as checked arithmetic on that type does."""
    if not 0 <= value <= MAX_UINT128:
        raise MorphoRevert(ARITHMETIC_PANIC)
    return value


def to_uint128(value: int) -> int:
    """Return `value` if it fits uint128, else revert by name (`UtilsLib.toUint128`)."""
    require(value <= MAX_UINT128, MAX_UINT128_EXCEEDED)
    return value


def revert_code(data: bytes) -> str:
    """Return revert data as a code: the reason, ``Panic(0x11)``, empty for no data, hex for anything else."""
    try:
        if data[:4] == _ERROR_STRING:
            return str(abi_decode(["string"], data[4:])[0])
        if data[:4] == _PANIC:
            return f"Panic(0x{abi_decode(['uint256'], data[4:])[0]:02x})"
    except (DecodingError, OverflowError, ValueError):
        pass
    return f"0x{data.hex()}" if data else BARE
