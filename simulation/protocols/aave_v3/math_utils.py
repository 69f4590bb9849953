"""Interest over time (`MathUtils.sol`)."""

from __future__ import annotations

from simulation.fixed_point import RAY, SECONDS_PER_YEAR, ray_mul


def calculate_linear_interest(rate_ray: int, elapsed_s: int) -> int:
    """Return the growth factor of simple interest, in ray (`calculateLinearInterest`)."""
    return RAY + rate_ray * elapsed_s // SECONDS_PER_YEAR


def calculate_compounded_interest(rate_ray: int, elapsed_s: int) -> int:
    """Return the growth factor of compound interest, in ray (`calculateCompoundedInterest`).

    The contract's binomial expansion to the third term. The second and third powers of the rate are
    divided down to one second before they are multiplied up again, so the order of operations matters.
    """
    if elapsed_s == 0:
        return RAY
    exp_minus_one = elapsed_s - 1
    exp_minus_two = elapsed_s - 2 if elapsed_s > 2 else 0
    base_power_two = ray_mul(rate_ray, rate_ray) // (SECONDS_PER_YEAR * SECONDS_PER_YEAR)
    base_power_three = ray_mul(base_power_two, rate_ray) // SECONDS_PER_YEAR
    second_term = elapsed_s * exp_minus_one * base_power_two // 2
    third_term = elapsed_s * exp_minus_one * exp_minus_two * base_power_three // 6
    return RAY + rate_ray * elapsed_s // SECONDS_PER_YEAR + second_term + third_term
