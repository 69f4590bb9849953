"""What borrowing costs and lending earns (`DefaultReserveInterestRateStrategy.sol` of V2)."""

from __future__ import annotations

from dataclasses import dataclass

from contracts_abi.errors import InputError
from simulation.fixed_point import BPS, RAY, percent_mul, ray_div, ray_mul

_WAD_RAY_RATIO = 10**9


@dataclass(frozen=True, slots=True)
class InterestRateStrategy:
    """The curve of one reserve, in ray.

    Attributes
    ----------
    optimal_utilization_ray
        Where the slope changes, above 0 and below one ray.
    base_variable_borrow_rate_ray, variable_rate_slope1_ray, variable_rate_slope2_ray
        Yearly variable rate when nothing is lent out, and what is added up to the kink and beyond it.
    stable_rate_slope1_ray, stable_rate_slope2_ray
        What is added to the market's stable rate.
    """

    optimal_utilization_ray: int
    base_variable_borrow_rate_ray: int
    variable_rate_slope1_ray: int
    variable_rate_slope2_ray: int
    stable_rate_slope1_ray: int = 0
    stable_rate_slope2_ray: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.optimal_utilization_ray < RAY:
            raise InputError(
                f"optimal_utilization_ray {self.optimal_utilization_ray} is not between 0 and {RAY}",
                fix="0.8 is 8 * 10**26",
            )


@dataclass(frozen=True, slots=True)
class Rates:
    """Yearly rates in ray, as a reserve stores them."""

    liquidity_ray: int
    stable_borrow_ray: int
    variable_borrow_ray: int


def calculate_interest_rates(
    strategy: InterestRateStrategy,
    *,
    available_liquidity_raw: int,
    total_stable_debt_raw: int,
    total_variable_debt_raw: int,
    average_stable_rate_ray: int = 0,
    market_stable_rate_ray: int = 0,
    reserve_factor_bps: int = 0,
) -> Rates:
    """Return the rates of a reserve in this state (`calculateInterestRates`).

    Parameters
    ----------
    strategy
        The reserve's curve.
    available_liquidity_raw
        Underlying in the aToken, after what the transaction adds or takes.
    total_stable_debt_raw, total_variable_debt_raw
        Both with interest.
    average_stable_rate_ray
        What the stable debt pays on average.
    market_stable_rate_ray
        What the lending rate oracle answers.
    reserve_factor_bps
        The treasury's share.
    """
    total_debt_raw = total_stable_debt_raw + total_variable_debt_raw
    utilization_ray = (
        0 if total_debt_raw == 0 else ray_div(total_debt_raw, available_liquidity_raw + total_debt_raw)
    )
    optimal_ray = strategy.optimal_utilization_ray
    if utilization_ray > optimal_ray:
        excess_ray = ray_div(utilization_ray - optimal_ray, RAY - optimal_ray)
        stable_ray = (
            market_stable_rate_ray
            + strategy.stable_rate_slope1_ray
            + ray_mul(strategy.stable_rate_slope2_ray, excess_ray)
        )
        variable_ray = (
            strategy.base_variable_borrow_rate_ray
            + strategy.variable_rate_slope1_ray
            + ray_mul(strategy.variable_rate_slope2_ray, excess_ray)
        )
    else:
        # The two curves multiply and divide in another order, and so round differently.
        stable_ray = market_stable_rate_ray + ray_mul(
            strategy.stable_rate_slope1_ray, ray_div(utilization_ray, optimal_ray)
        )
        variable_ray = strategy.base_variable_borrow_rate_ray + ray_div(
            ray_mul(utilization_ray, strategy.variable_rate_slope1_ray), optimal_ray
        )
    overall_ray = _overall_borrow_rate(
        total_stable_debt_raw, total_variable_debt_raw, variable_ray, average_stable_rate_ray
    )
    liquidity_ray = percent_mul(ray_mul(overall_ray, utilization_ray), BPS - reserve_factor_bps)
    return Rates(liquidity_ray, stable_ray, variable_ray)


def _overall_borrow_rate(
    total_stable_debt_raw: int, total_variable_debt_raw: int, variable_ray: int, average_stable_ray: int
) -> int:
    """Return the mean rate of all debt (`_getOverallBorrowRate`), whatever the token's decimals."""
    total_debt_raw = total_stable_debt_raw + total_variable_debt_raw
    if total_debt_raw == 0:
        return 0
    weighted_ray = ray_mul(total_variable_debt_raw * _WAD_RAY_RATIO, variable_ray) + ray_mul(
        total_stable_debt_raw * _WAD_RAY_RATIO, average_stable_ray
    )
    return ray_div(weighted_ray, total_debt_raw * _WAD_RAY_RATIO)
