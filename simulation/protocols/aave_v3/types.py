"""State of an Aave V3 market and of its accounts, and what a liquidation does to them. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Self, TypeVar

from simulation.fixed_point import percent_mul
from simulation.protocols.aave_v3.configuration import ReserveConfiguration
from simulation.types import Asset


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs between versions of the contracts. Another version is another value of this.

    Attributes
    ----------
    name
        Version of the contracts, as released.
    default_close_factor_bps, max_close_factor_bps
        Largest share of one debt that one liquidation may repay, above and below the threshold.
    close_factor_hf_threshold_wad
        Health factor at or below which the larger share applies.
    sentinel_hf_threshold_wad
        Health factor below which a liquidation needs no leave of the price oracle sentinel.
    scaled_to_balance
        ``(scaled, index_ray) -> balance`` of aTokens and debt tokens.
    balance_to_scaled
        ``(amount, index_ray) -> scaled`` when tokens are minted, burnt or moved.
    debt_needed
        ``(collateral value in debt units, bonus_bps) -> debt`` when the collateral is exhausted.
    health_factor
        ``(collateral_base, average threshold_bps, debt_base) -> health factor`` in wad; debt is not 0.
    flash_premium
        ``(amount, premium_bps) -> premium``.
    """

    name: str
    default_close_factor_bps: int
    max_close_factor_bps: int
    close_factor_hf_threshold_wad: int
    sentinel_hf_threshold_wad: int
    scaled_to_balance: Callable[[int, int], int]
    balance_to_scaled: Callable[[int, int], int]
    debt_needed: Callable[[int, int], int]
    health_factor: Callable[[int, int, int], int]
    flash_premium: Callable[[int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveState:
    """What a reserve is in every version, at one block (`DataTypes.ReserveData`, its token and price).

    Attributes
    ----------
    asset
        The underlying token.
    id
        Position in the pool's list, in the user configuration's bit pairs and in later versions' bitmaps.
    configuration
        Unpacked configuration word.
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
    isolation_mode_total_debt: int
    price_base: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveData(ReserveState):
    """One reserve at one block.

    Attributes
    ----------
    stable_debt_token
        Address of the token of debts at a stable rate.
    scaled_variable_debt_raw
        Scaled total supply of the variable debt token.
    total_stable_debt_raw
        Total supply of the stable debt token.
    available_liquidity_raw
        Underlying held by the aToken; collateral beyond it cannot be paid out.
    """

    stable_debt_token: str
    scaled_variable_debt_raw: int
    total_stable_debt_raw: int
    available_liquidity_raw: int


@dataclass(frozen=True, slots=True)
class EModeCategory:
    """An efficiency mode (`DataTypes.EModeCategory`).

    Attributes
    ----------
    id
        Category number, never 0.
    ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps
        Parameters of the category's assets for accounts in it.
    price_source
        Oracle key that prices all assets of the category for accounts in it; empty for none.
    price_base
        Oracle price of `price_source`; None without one or when the oracle reverted.
    label
        The category's name.
    """

    id: int
    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    price_source: str = ""
    price_base: int | None = None
    label: str = ""

    @property
    def price_key(self) -> str:
        """Key of the category's own price in `AaveMarket.prices_base`."""
        return f"emode-{self.id}"


R = TypeVar("R", bound=ReserveState)
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class PoolState(Generic[R, E]):
    """A pool of any version at one block and one time; `R` is its reserve, `E` its eMode category.

    Attributes
    ----------
    block, timestamp
        The block read, and the unix time that the normalized indices are for; the two part when a
        state is projected to the next block's time.
    reserves
        In the order of the pool's list; None where a reserve was dropped.
    e_mode_categories
        By number.
    base_decimals
        Scale of prices and of all base currency amounts.
    liquidation_allowed
        What the price oracle sentinel answers; None without a sentinel.
    flash_loan_premium_bps
        Total premium of a flash loan.
    """

    block: int
    timestamp: int
    reserves: tuple[R | None, ...]
    e_mode_categories: Mapping[int, E] = field(default_factory=dict)
    base_decimals: int = 8
    liquidation_allowed: bool | None = None
    flash_loan_premium_bps: int = 0

    def listed(self) -> tuple[R, ...]:
        """Return the reserves that are there, in order."""
        return tuple(r for r in self.reserves if r is not None)

    def reserve_of(self, asset: str) -> R | None:
        """Return the reserve of a token address (any case), None when the pool does not list it."""
        wanted = asset.lower()
        return next((r for r in self.listed() if r.asset.address.lower() == wanted), None)

    @property
    def prices_base(self) -> dict[str, int]:
        """Prices the market was read with: symbol to price; one that the oracle did not give is not there."""
        return {r.asset.symbol: r.price_base for r in self.listed() if r.price_base is not None}

    def with_prices(self, prices_base: Mapping[str, int]) -> Self:
        """Return the market at other prices, keyed as in `prices_base`; a price left out is unknown."""
        return replace(
            self,
            reserves=tuple(
                r and replace(r, price_base=prices_base.get(r.asset.symbol)) for r in self.reserves
            ),
        )


@dataclass(frozen=True, slots=True)
class AaveMarket(PoolState[ReserveData, EModeCategory]):
    """A pool at one block and one time.

    Attributes
    ----------
    rules
        Version of the contracts.
    """

    rules: Rules = field(kw_only=True)

    @property
    def prices_base(self) -> dict[str, int]:
        """Prices the market was read with: symbol to price, and ``emode-N`` for a category's own price.

        A price that the oracle did not give is not there.
        """
        prices = {r.asset.symbol: r.price_base for r in self.listed()}
        prices |= {c.price_key: c.price_base for c in self.e_mode_categories.values()}
        return {key: price for key, price in prices.items() if price is not None}

    def with_prices(self, prices_base: Mapping[str, int]) -> Self:
        """Return the market at other prices, keyed as in `prices_base`; a price left out is unknown."""
        return replace(
            PoolState.with_prices(self, prices_base),
            e_mode_categories={
                i: replace(c, price_base=prices_base.get(c.price_key) if c.price_source else None)
                for i, c in self.e_mode_categories.items()
            },
        )


@dataclass(frozen=True, slots=True)
class AavePosition:
    """What one account has in one reserve.

    Attributes
    ----------
    reserve_id
        Which reserve.
    scaled_a_token_raw, scaled_variable_debt_raw
        Scaled balances, as the tokens store them.
    stable_debt_raw
        Stable-rate debt with interest, at the market's timestamp.
    """

    reserve_id: int
    scaled_a_token_raw: int = 0
    scaled_variable_debt_raw: int = 0
    stable_debt_raw: int = 0


@dataclass(frozen=True, slots=True)
class AaveAccount:
    """Exact state of one account.

    Attributes
    ----------
    account
        Checksummed address.
    user_configuration
        Bitmap of borrows (even bits) and collaterals (odd bits).
    e_mode_category
        0 for none.
    positions
        By reserve, in reserve order; reserves without a balance may be left out.
    reported_health_factor_wad
        What the contract itself answered at the block read; None when it was not asked.
    """

    account: str
    user_configuration: int
    e_mode_category: int
    positions: tuple[AavePosition, ...]
    reported_health_factor_wad: int | None = None

    def position(self, reserve_id: int) -> AavePosition:
        """Return the position in a reserve, empty when there is none."""
        return next((p for p in self.positions if p.reserve_id == reserve_id), AavePosition(reserve_id))

    def with_position(self, position: AavePosition) -> AaveAccount:
        """Return the account with one position replaced or added."""
        others = [p for p in self.positions if p.reserve_id != position.reserve_id]
        return replace(self, positions=tuple(sorted([*others, position], key=lambda p: p.reserve_id)))


@dataclass(frozen=True, slots=True)
class UserAccountData:
    """The answer of `Pool.getUserAccountData`, and the flag that the contract keeps to itself.

    Attributes
    ----------
    total_collateral_base, total_debt_base, available_borrows_base
        In base currency.
    current_liquidation_threshold_bps, ltv_bps
        Averages weighted by collateral value, rounded down.
    health_factor_wad
        2**256 - 1 without debt.
    has_zero_ltv_collateral
        Whether some collateral has a loan-to-value of 0.
    """

    total_collateral_base: int
    total_debt_base: int
    available_borrows_base: int
    current_liquidation_threshold_bps: int
    ltv_bps: int
    health_factor_wad: int
    has_zero_ltv_collateral: bool = False

    @property
    def counted_base(self) -> int:
        """What of the collateral counts against debt before the account can be liquidated."""
        return percent_mul(self.total_collateral_base, self.current_liquidation_threshold_bps)

    def words(self) -> tuple[int, int, int, int, int, int]:
        """Return the six words in the contract's order."""
        return (
            self.total_collateral_base,
            self.total_debt_base,
            self.available_borrows_base,
            self.current_liquidation_threshold_bps,
            self.ltv_bps,
            self.health_factor_wad,
        )


@dataclass(frozen=True, slots=True)
class LiquidationOutcome:
    """What `Pool.liquidationCall` does, to the wei; all amounts 0 when it reverts.

    Attributes
    ----------
    revert_code
        None when the call succeeds, else the contract's code: ``45``, ``Panic(0x11)``, empty for a revert
        without data, ``token`` for the collateral token's own. `errors.MEANING` explains them.
    debt_repaid_raw
        Debt token units that the liquidator pays.
    collateral_seized_raw
        Collateral that the account loses: `to_liquidator_raw` and `protocol_fee_raw` as computed.
    protocol_fee_raw
        Part of the bonus that goes to the treasury.
    to_liquidator_raw
        Collateral that the liquidator gets, in the token or in aTokens.
    full
        Whether the account's debt in this asset is repaid whole.
    collateral_exhausted
        Whether all of this collateral is seized.
    close_factor_bps
        The share that applied.
    health_factor_wad
        Health factor before; None when the call reverts before it is known.
    isolation_mode_debt_repaid
        Reduction of the collateral's isolation-mode debt, two decimals.
    liquidator_scaled_raw, treasury_scaled_raw
        Scaled aTokens that the liquidator (0 unless it takes aTokens) and the treasury receive.
    account_after
        The account afterwards, unchanged when the call reverts.
    """

    revert_code: str | None
    account_after: AaveAccount
    debt_repaid_raw: int = 0
    collateral_seized_raw: int = 0
    protocol_fee_raw: int = 0
    to_liquidator_raw: int = 0
    full: bool = False
    collateral_exhausted: bool = False
    close_factor_bps: int = 0
    health_factor_wad: int | None = None
    isolation_mode_debt_repaid: int = 0
    liquidator_scaled_raw: int = 0
    treasury_scaled_raw: int = 0

    @property
    def succeeds(self) -> bool:
        """Whether the call goes through."""
        return self.revert_code is None
