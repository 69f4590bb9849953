"""State of an Aave V3.6 market, and what a liquidation does to an account. Data only.

Accounts are those of revision 1 (`AaveAccount`, `AavePosition`): their words have not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from simulation.protocols.aave_v3 import types as rev_1
from simulation.protocols.aave_v3.configuration import ReserveConfiguration
from simulation.types import Asset


@dataclass(frozen=True, slots=True)
class ReserveData:
    """One reserve at one block (`DataTypes.ReserveData` and what hangs on it).

    Attributes
    ----------
    asset
        The underlying token.
    id
        Position in the pool's list, in the user configuration's bit pairs and in the eMode bitmaps.
    configuration
        Unpacked configuration word; what it says of stable rates, eMode and unbacked mints is deprecated.
    a_token, variable_debt_token
        Addresses of the reserve's tokens.
    liquidity_index_ray, variable_borrow_index_ray
        Indices as stored, of `last_update_timestamp`.
    current_liquidity_rate_ray, current_variable_borrow_rate_ray
        Yearly rates that have applied since then.
    last_update_timestamp
        Unix seconds of the stored indices.
    normalized_income_ray, normalized_variable_debt_ray
        Indices at the market's timestamp: what balances are computed with.
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
    isolation_mode_total_debt
        Debt against this collateral in isolation mode, two decimals.
    price_base
        Oracle price of one whole token in base currency; None when the oracle reverted.
    """

    asset: Asset
    id: int
    configuration: ReserveConfiguration
    a_token: str
    variable_debt_token: str
    liquidity_index_ray: int
    variable_borrow_index_ray: int
    current_liquidity_rate_ray: int
    current_variable_borrow_rate_ray: int
    last_update_timestamp: int
    normalized_income_ray: int
    normalized_variable_debt_ray: int
    scaled_a_token_supply_raw: int
    virtual_underlying_balance_raw: int
    token_balance_raw: int
    deficit_raw: int
    liquidation_grace_period_until: int
    isolation_mode_total_debt: int
    price_base: int | None


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
class AaveMarket:
    """A pool at one block and one time.

    Attributes
    ----------
    block, timestamp
        The block read, and the unix time that the normalized indices are for; the two part when a state is
        projected to the next block's time.
    reserves
        In the order of the pool's list; None where a reserve was dropped.
    e_mode_categories
        By number.
    base_decimals
        Scale of prices and of all base currency amounts.
    liquidation_allowed
        What the price oracle sentinel answers; None without a sentinel.
    flash_loan_premium_bps
        Premium of a flash loan.
    """

    block: int
    timestamp: int
    reserves: tuple[ReserveData | None, ...]
    e_mode_categories: Mapping[int, EModeCategory] = field(default_factory=dict)
    base_decimals: int = 8
    liquidation_allowed: bool | None = None
    flash_loan_premium_bps: int = 0

    def listed(self) -> tuple[ReserveData, ...]:
        """Return the reserves that are there, in order."""
        return tuple(r for r in self.reserves if r is not None)

    def reserve_of(self, asset: str) -> ReserveData | None:
        """Return the reserve of a token address (any case), None when the pool does not list it."""
        wanted = asset.lower()
        return next((r for r in self.listed() if r.asset.address.lower() == wanted), None)

    @property
    def prices_base(self) -> dict[str, int]:
        """Prices the market was read with: symbol to price; one that the oracle did not give is not there."""
        return {r.asset.symbol: r.price_base for r in self.listed() if r.price_base is not None}

    def with_prices(self, prices_base: Mapping[str, int]) -> AaveMarket:
        """Return the market at other prices, keyed as in `prices_base`; a price left out is unknown."""
        return replace(
            self,
            reserves=tuple(
                r and replace(r, price_base=prices_base.get(r.asset.symbol)) for r in self.reserves
            ),
        )


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
