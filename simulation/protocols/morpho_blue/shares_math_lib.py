"""Assets and shares of one side of a market (`SharesMathLib.sol`).

A million virtual shares of one virtual unit stand in both totals, so that an empty market has a price and
nobody can move it by giving the first shares a fortune.
"""

from __future__ import annotations

from typing import Final

from simulation.protocols.morpho_blue.errors import uint256
from simulation.protocols.morpho_blue.math_lib import mul_div_down, mul_div_up

VIRTUAL_SHARES: Final = 10**6
VIRTUAL_ASSETS_RAW: Final = 1


def to_shares_down(assets_raw: int, total_assets_raw: int, total_shares: int) -> int:
    """Return what `assets_raw` is in shares, rounded down (`toSharesDown`)."""
    return mul_div_down(
        assets_raw, uint256(total_shares + VIRTUAL_SHARES), uint256(total_assets_raw + VIRTUAL_ASSETS_RAW)
    )


def to_shares_up(assets_raw: int, total_assets_raw: int, total_shares: int) -> int:
    """Return what `assets_raw` is in shares, rounded up (`toSharesUp`)."""
    return mul_div_up(
        assets_raw, uint256(total_shares + VIRTUAL_SHARES), uint256(total_assets_raw + VIRTUAL_ASSETS_RAW)
    )


def to_assets_down(shares: int, total_assets_raw: int, total_shares: int) -> int:
    """Return what `shares` are worth, rounded down (`toAssetsDown`)."""
    return mul_div_down(
        shares, uint256(total_assets_raw + VIRTUAL_ASSETS_RAW), uint256(total_shares + VIRTUAL_SHARES)
    )


def to_assets_up(shares: int, total_assets_raw: int, total_shares: int) -> int:
    """Return what `shares` are worth, rounded up (`toAssetsUp`)."""
    return mul_div_up(
        shares, uint256(total_assets_raw + VIRTUAL_ASSETS_RAW), uint256(total_shares + VIRTUAL_SHARES)
    )
