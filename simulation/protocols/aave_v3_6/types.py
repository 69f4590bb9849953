"""State of an Aave V3.6 market, and what a liquidation does to an account. Data only.

Accounts are those of revision 1 (`AaveAccount`, `AavePosition`): their words have not changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulation.fixed_point import BPS
from simulation.protocols.aave_v3 import types as rev_1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveData(rev_1.ReserveState):
    """One reserve at one block.

    What its configuration says of stable rates, eMode and unbacked mints is deprecated.

    Attributes
    ----------
    scaled_a_token_supply_raw
        Scaled total supply of the aToken; no flash loan is larger than what it is worth.
    virtual_underlying_balance_raw
        Underlying that the pool accounts for; collateral beyond it cannot be paid out.
    token_balance_raw
        Underlying that the aToken in fact holds.
    deficit_raw
        Bad debt that was burnt and nobody has covered.
    liquidation_grace_period_until
        Unix seconds; no liquidation up to and including this one.
    """

    scaled_a_token_supply_raw: int
    virtual_underlying_balance_raw: int
    token_balance_raw: int
    deficit_raw: int
    liquidation_grace_period_until: int


@dataclass(frozen=True, slots=True)
class EModeCategory:
    """An efficiency mode (`DataTypes.EModeCategory`); since 3.2 bitmaps say which assets are in it.

    Attributes
    ----------
    id
        Category number, never 0.
    ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps
        Parameters of the category's collaterals for accounts in it.
    collateral_bitmap, borrowable_bitmap, ltvzero_bitmap
        By reserve id: what is its collateral, what may be borrowed in it, what of its collateral counts with
        a loan-to-value of 0.
    label
        The category's name.
    """

    id: int
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    collateral_bitmap: int = 0
    borrowable_bitmap: int = 0
    ltvzero_bitmap: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class AaveMarket(rev_1.PoolState[ReserveData, EModeCategory]):
    """A pool at one block and one time; see `simulation.protocols.aave_v3.types.PoolState`."""


@dataclass(frozen=True, slots=True)
class UserAccountData(rev_1.UserAccountData):
    """The answer of `Pool.getUserAccountData`, and what the contract keeps to itself.

    Attributes
    ----------
    weighted_liquidation_threshold
        Sum of each collateral's value times its threshold in basis points; the health factor is taken of it,
        and not of the average.
    """

    weighted_liquidation_threshold: int = 0

    @property
    def counted_base(self) -> int:
        """What of the collateral counts against debt before the account can be liquidated."""
        return self.weighted_liquidation_threshold // BPS


@dataclass(frozen=True, slots=True)
class LiquidationOutcome(rev_1.LiquidationOutcome):
    """What `Pool.liquidationCall` does, to the wei; all amounts 0 when it reverts.

    As in revision 1, with the error's name (``MustNotLeaveDust``) for a code. `full` means that all of the
    debt in this asset is repaid, not that some of it is burnt as bad debt; `close_factor_bps` is of the whole
    position's debt.

    Attributes
    ----------
    deficits_raw
        Pairs of reserve id and debt that was burnt unpaid, in the order in which the contract reports them.
    """

    deficits_raw: tuple[tuple[int, int], ...] = ()
