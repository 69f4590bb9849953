"""Interest rate models: what a market pays a second, at 1e18, and what the model remembers afterwards.

`AdaptiveCurveIrm` is the formula of ``AdaptiveCurveIrm.sol`` of morpho-org/morpho-blue-irm (a1a87fd), which
all markets of Morpho's own interface use. Its signed divisions cut towards zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from simulation.fixed_point import SECONDS_PER_YEAR, WAD
from simulation.protocols.morpho_blue.math_lib import w_div_down

if TYPE_CHECKING:
    from simulation.protocols.morpho_blue.types import MarketState

CURVE_STEEPNESS_WAD: Final = 4 * WAD
ADJUSTMENT_SPEED_WAD: Final = 50 * WAD // SECONDS_PER_YEAR
TARGET_UTILIZATION_WAD: Final = 9 * WAD // 10
INITIAL_RATE_AT_TARGET_WAD: Final = WAD // 25 // SECONDS_PER_YEAR
MIN_RATE_AT_TARGET_WAD: Final = WAD // 1_000 // SECONDS_PER_YEAR
MAX_RATE_AT_TARGET_WAD: Final = 2 * WAD // SECONDS_PER_YEAR

LN_2_WAD: Final = 693_147_180_559_945_309
LN_WEI_WAD: Final = -41_446_531_673_892_822_312
"""Below, the exponential is less than its smallest unit."""
W_EXP_UPPER_BOUND_WAD: Final = 93_859_467_695_000_404_319
W_EXP_UPPER_VALUE_WAD: Final = 57_716_089_161_558_943_949_701_069_502_944_508_345_128_422_502_756_744_429_568


class InterestRateModel(Protocol):
    """What a market asks of its interest rate model."""

    def borrow_rate(self, state: MarketState, elapsed_s: int) -> tuple[int, InterestRateModel]:
        """Return the rate a second at 1e18, and the model as it is after the market has asked.

        Parameters
        ----------
        state
            The market as stored, before interest.
        elapsed_s
            Seconds since `state` was brought up to date.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedRateIrm:
    """The same rate at all times (``FixedRateIrm.sol``).

    Parameters
    ----------
    rate_wad
        Rate a second at 1e18.
    """

    rate_wad: int

    def borrow_rate(self, state: MarketState, elapsed_s: int) -> tuple[int, InterestRateModel]:
        """See `InterestRateModel.borrow_rate`."""
        return self.rate_wad, self


@dataclass(frozen=True, slots=True)
class UtilizationIrm:
    """A yearly rate equal to the utilisation: the model that Morpho's authors test with (``IrmMock.sol``)."""

    def borrow_rate(self, state: MarketState, elapsed_s: int) -> tuple[int, InterestRateModel]:
        """See `InterestRateModel.borrow_rate`."""
        if state.total_supply_assets_raw == 0:
            return 0, self
        utilization_wad = w_div_down(state.total_borrow_assets_raw, state.total_supply_assets_raw)
        return utilization_wad // SECONDS_PER_YEAR, self


@dataclass(frozen=True, slots=True)
class AdaptiveCurveIrm:
    """A curve through a rate at 90 % utilisation, which itself moves with the time spent off that target.

    Parameters
    ----------
    rate_at_target_wad
        Rate a second at 1e18 at target utilisation, as stored; 0 before the first use.
    """

    rate_at_target_wad: int

    def borrow_rate(self, state: MarketState, elapsed_s: int) -> tuple[int, InterestRateModel]:
        """Return the mean rate over the time elapsed and the model afterwards (`_borrowRate`)."""
        error_wad = error(_utilization(state))
        start = self.rate_at_target_wad
        if start == 0:
            return curve(INITIAL_RATE_AT_TARGET_WAD, error_wad), AdaptiveCurveIrm(INITIAL_RATE_AT_TARGET_WAD)
        adaptation_wad = _to_zero(ADJUSTMENT_SPEED_WAD * error_wad, WAD) * elapsed_s
        if adaptation_wad == 0:
            return curve(start, error_wad), self
        end = new_rate_at_target(start, adaptation_wad)
        middle = new_rate_at_target(start, _to_zero(adaptation_wad, 2))
        return curve((start + end + 2 * middle) // 4, error_wad), AdaptiveCurveIrm(end)


def _to_zero(a: int, b: int) -> int:
    """Return ``a / b`` cut towards zero, for a positive `b`."""
    return a // b if a >= 0 else -(-a // b)


def _utilization(state: MarketState) -> int:
    if state.total_supply_assets_raw == 0:
        return 0
    return w_div_down(state.total_borrow_assets_raw, state.total_supply_assets_raw)


def error(utilization_wad: int) -> int:
    """Return how far the utilisation is from its target: -1e18 when empty, 1e18 when all is borrowed."""
    above = utilization_wad > TARGET_UTILIZATION_WAD
    room_wad = WAD - TARGET_UTILIZATION_WAD if above else TARGET_UTILIZATION_WAD
    return _to_zero((utilization_wad - TARGET_UTILIZATION_WAD) * WAD, room_wad)


def curve(rate_at_target_wad: int, error_wad: int) -> int:
    """Return the rate at an error: a quarter of that at target at -1, four times that at 1 (`_curve`)."""
    if error_wad < 0:
        coefficient_wad = WAD - _to_zero(WAD * WAD, CURVE_STEEPNESS_WAD)
    else:
        coefficient_wad = CURVE_STEEPNESS_WAD - WAD
    return _to_zero((_to_zero(coefficient_wad * error_wad, WAD) + WAD) * rate_at_target_wad, WAD)


def new_rate_at_target(start_wad: int, adaptation_wad: int) -> int:
    """Return the rate at target after an adaptation, within its bounds (`_newRateAtTarget`)."""
    moved = _to_zero(start_wad * w_exp(adaptation_wad), WAD)
    return max(min(moved, MAX_RATE_AT_TARGET_WAD), MIN_RATE_AT_TARGET_WAD)


def w_exp(x_wad: int) -> int:
    """Return the exponential at 1e18: two terms of a series around the nearest power of two (`wExp`)."""
    if x_wad < LN_WEI_WAD:
        return 0
    if x_wad >= W_EXP_UPPER_BOUND_WAD:
        return W_EXP_UPPER_VALUE_WAD
    half = LN_2_WAD // 2
    q = _to_zero(x_wad + (-half if x_wad < 0 else half), LN_2_WAD)
    r = x_wad - q * LN_2_WAD
    exp_r = WAD + r + r * r // WAD // 2
    return exp_r << q if q >= 0 else exp_r >> -q
