"""Interest over time (`MathUtils.sol` of V2); linear interest is V3's."""

from __future__ import annotations

from simulation.fixed_point import RAY, SECONDS_PER_YEAR, ray_mul
from simulation.protocols.aave_v3.math_utils import calculate_linear_interest

__all__ = ["calculate_compounded_interest", "calculate_linear_interest"]


def calculate_compounded_interest(rate_ray: int, elapsed_s: int) -> int:
    """Return the growth factor of compound interest, in ray (`calculateCompoundedInterest`).

    The same expansion to the third term as V3's. V2 divides the yearly rate down to a second *first* and
    takes powers of that, V3 last: the two differ from about the tenth digit of a year's interest on.
    """
    if elapsed_s == 0:
        return RAY
    exp_minus_one = elapsed_s - 1
    exp_minus_two = elapsed_s - 2 if elapsed_s > 2 else 0
    rate_per_second_ray = rate_ray // SECONDS_PER_YEAR
    base_power_two = ray_mul(rate_per_second_ray, rate_per_second_ray)
    base_power_three = ray_mul(base_power_two, rate_per_second_ray)
    second_term = elapsed_s * exp_minus_one * base_power_two // 2
    third_term = elapsed_s * exp_minus_one * exp_minus_two * base_power_three // 6
    return RAY + rate_per_second_ray * elapsed_s + second_term + third_term
