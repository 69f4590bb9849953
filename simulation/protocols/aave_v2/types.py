"""States of an Aave V2 pool and what a liquidation does to them. Prices are in wei of ether."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulation.protocols.aave_v3.configuration import ReserveConfiguration
from simulation.types import Asset


@dataclass(frozen=True, slots=True)
class AaveV2Reserve:
    """One reserve (`DataTypes.ReserveData`) and what hangs on it.

    Attributes
    ----------
    asset
        The underlying token.
    id
        Position in the pool's list, and in the user configuration's bit pairs.
    configuration
        Unpacked configuration word. V2's word is the first 80 bits of V3's; all that V3 added is 0 here.
    liquidity_index_ray, variable_borrow_index_ray
        Indices as stored, of `last_update_timestamp`.
    current_liquidity_rate_ray, current_variable_borrow_rate_ray
        Yearly rates that have applied since then.
    last_update_timestamp
        Unix seconds of the stored indices.
    scaled_variable_debt_raw
        Scaled total supply of the variable debt token.
    stable_principal_raw, average_stable_rate_ray, stable_timestamp
        Total supply of the stable debt token as stored, its average yearly rate, and the time of both.
    available_liquidity_raw
        Underlying held by the aToken.
    price_wei
        Oracle price of one whole token in wei of ether; None when there is none.
    """

    asset: Asset
    id: int
    configuration: ReserveConfiguration
    liquidity_index_ray: int
    variable_borrow_index_ray: int
    current_liquidity_rate_ray: int
    current_variable_borrow_rate_ray: int
    last_update_timestamp: int
    scaled_variable_debt_raw: int
    available_liquidity_raw: int
    price_wei: int | None
    stable_principal_raw: int = 0
    average_stable_rate_ray: int = 0
    stable_timestamp: int = 0


@dataclass(frozen=True, slots=True)
class AaveV2Market:
    """A pool at one time.

    Attributes
    ----------
    timestamp
        Unix time that balances are of; not before any reserve's last update.
    reserves
        In the order of the pool's list: ``reserves[i].id == i``.
    paused
        Whether the whole pool is; V2 cannot pause one reserve.
    """

    timestamp: int
    reserves: tuple[AaveV2Reserve, ...]
    paused: bool = False

    def reserve_of(self, asset: str) -> AaveV2Reserve | None:
        """Return the reserve of a token address (any case), None when the pool does not list it."""
        wanted = asset.lower()
        return next((r for r in self.reserves if r.asset.address.lower() == wanted), None)

    def with_prices(self, prices_wei: Mapping[str, int]) -> AaveV2Market:
        """Return the market at other prices by symbol; a price left out is unknown."""
        return replace(
            self,
            reserves=tuple(replace(r, price_wei=prices_wei.get(r.asset.symbol)) for r in self.reserves),
        )


@dataclass(frozen=True, slots=True)
class AaveV2Position:
    """What one account has in one reserve.

    Attributes
    ----------
    reserve_id
        Which reserve.
    scaled_a_token_raw, scaled_variable_debt_raw
        Scaled balances, as the tokens store them.
    stable_principal_raw, stable_rate_ray, stable_timestamp
        Stable-rate debt as stored, the account's own yearly rate, and the time of both.
    """

    reserve_id: int
    scaled_a_token_raw: int = 0
    scaled_variable_debt_raw: int = 0
    stable_principal_raw: int = 0
    stable_rate_ray: int = 0
    stable_timestamp: int = 0


@dataclass(frozen=True, slots=True)
class AaveV2Account:
    """Exact state of one account.

    Attributes
    ----------
    account
        Whose.
    user_configuration
        Bitmap of borrows (even bits) and collaterals (odd bits), as in V3.
    positions
        By reserve; reserves without a balance may be left out.
    """

    account: str
    user_configuration: int
    positions: tuple[AaveV2Position, ...]

    def position(self, reserve_id: int) -> AaveV2Position:
        """Return the position in a reserve, empty when there is none."""
        return next((p for p in self.positions if p.reserve_id == reserve_id), AaveV2Position(reserve_id))

    def with_position(self, position: AaveV2Position) -> AaveV2Account:
        """Return the account with one position replaced or added."""
        others = [p for p in self.positions if p.reserve_id != position.reserve_id]
        return replace(self, positions=tuple(sorted([*others, position], key=lambda p: p.reserve_id)))


@dataclass(frozen=True, slots=True)
class AaveV2AccountData:
    """The answer of `LendingPool.getUserAccountData`, in its order.

    Attributes
    ----------
    total_collateral_wei, total_debt_wei, available_borrows_wei
        In wei of ether.
    current_liquidation_threshold_bps, ltv_bps
        Averages weighted by collateral value, rounded down.
    health_factor_wad
        2**256 - 1 without debt.
    """

    total_collateral_wei: int
    total_debt_wei: int
    available_borrows_wei: int
    current_liquidation_threshold_bps: int
    ltv_bps: int
    health_factor_wad: int

    def words(self) -> tuple[int, int, int, int, int, int]:
        """Return the six words in the contract's order."""
        return (
            self.total_collateral_wei,
            self.total_debt_wei,
            self.available_borrows_wei,
            self.current_liquidation_threshold_bps,
            self.ltv_bps,
            self.health_factor_wad,
        )


@dataclass(frozen=True, slots=True)
class AaveV2Liquidation:
    """What `LendingPool.liquidationCall` does, to the wei; all amounts 0 when it reverts.

    Attributes
    ----------
    revert_code
        None when the call succeeds, else the contract's reason; `errors.MEANING` explains them.
    account_after
        The account afterwards, unchanged when the call reverts. The borrowing bit stays set even where
        nothing is owed any more: V2 does not clear it here.
    debt_repaid_raw
        Debt token units that the liquidator pays.
    collateral_seized_raw
        Collateral that goes to the liquidator; V2's treasury takes no part.
    collateral_scaled_raw
        The same as scaled aTokens: burnt, or moved to a liquidator who takes aTokens.
    collateral_exhausted
        Whether all of this collateral is seized.
    health_factor_wad
        Health factor before; None when the call reverts before it is known.
    """

    revert_code: str | None
    account_after: AaveV2Account
    debt_repaid_raw: int = 0
    collateral_seized_raw: int = 0
    collateral_scaled_raw: int = 0
    collateral_exhausted: bool = False
    health_factor_wad: int | None = None

    @property
    def succeeds(self) -> bool:
        """Whether the call goes through."""
        return self.revert_code is None
