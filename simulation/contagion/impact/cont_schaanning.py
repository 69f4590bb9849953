"""Impact with a floor: ``Psi(q) = (1 - B / S)(1 - exp(-q / delta))`` of Cont and Schaanning (2017).

``q`` is the dollars sold at the undisturbed price ``S``, ``delta = (1 - B / S) D`` makes ``q / D`` the first
order whatever the floor, and ``B`` is a price at which others buy whatever comes. A sale of ``q`` leaves ``S
(1 - Psi)`` and brings ``B n + (S - B) d (1 - exp(-n / d))`` with ``n = q / S`` and ``d = delta / S``. Under
the floor there is no impact. Norges Bank working paper 2/2017; the paper's own estimate of ``D`` from volume
and volatility is recalled, not checked, so the depth is a parameter here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from contracts_abi.errors import InputError
from simulation.contagion.impact import impact_models
from simulation.contagion.impact.book import Book
from simulation.types import Float64

_NO_ROOM = 1e-12
"""Part of the price between it and the floor at which the floor is reached."""


@impact_models.register("cont-schaanning")
@dataclass(frozen=True, slots=True)
class ContSchaanning(Book):
    """Exponential impact in dollars that ends at a floor.

    Attributes
    ----------
    depth_usd
        Dollars sold for each part of one that the price falls, at first; positive.
    floor_price
        Price at which others buy whatever comes, 0 or more.
    half_life_s
        Seconds in which half of what was sold is taken up; infinite for none.
    permanent
        Part of impact that stays, in [0, 1].
    """

    kind: ClassVar[str] = "cont-schaanning"

    depth_usd: float
    floor_price: float = 0.0
    half_life_s: float = float("inf")
    permanent: float = 0.0

    def __post_init__(self) -> None:
        self._check(depth_usd=self.depth_usd)
        if not (self.floor_price >= 0 and np.isfinite(self.floor_price)):
            raise InputError(f"floor_price is {self.floor_price:g}", fix="it must be 0 or more")

    def _unit(self, state: Float64, reference: Float64) -> Float64:
        return reference

    def _room(self, reference: Float64) -> Float64:
        """Return ``1 - B / S``, and 0 at or under the floor."""
        room = 1 - self.floor_price / reference
        return np.where(room > _NO_ROOM, room, 0.0)

    def _log_relative(self, sold: Float64, reference: Float64) -> Float64:
        room = self._room(reference)
        delta = np.where(room > 0, room, 1.0) * self.depth_usd
        x = np.abs(sold) / delta
        with np.errstate(divide="ignore"):
            # The first keeps the digits of small sales, the second does not run out of exponents.
            small = np.log1p(room * np.expm1(-np.minimum(x, 1.0)))
            move = np.where(x < 1, small, np.logaddexp(np.log(1 - room), np.log(room) - x))
        return np.asarray(np.where(sold >= 0, move, -move))

    def _area(self, before: Float64, after: Float64, reference: Float64) -> Float64:
        return self._from_zero(after, reference) - self._from_zero(before, reference)

    def _from_zero(self, sold: Float64, reference: Float64) -> Float64:
        """Return the integral of ``g`` from 0; who buys moves the logarithm up as a sale moves it down."""
        room = self._room(reference)
        delta = np.where(room > 0, room, 1.0) * self.depth_usd
        size = np.abs(sold)
        floor = 1 - room
        down = floor * size - room * delta * np.expm1(-size / delta)
        # Long before expm1 is infinite the logarithm of it is a straight line.
        x = np.where(sold < 0, np.minimum(size / delta, 300.0), 0.0)
        tiny = floor < 1e-12
        safe = np.where(tiny, 1.0, floor)
        up = np.where(tiny, delta * np.expm1(x), delta / safe * np.log1p(safe * np.expm1(x)))
        up += np.where(tiny, 0.0, (size - x * delta) / safe)
        return np.asarray(np.where(sold >= 0, down, -np.where(room > 0, up, size)))

    def _sold_at(self, relative: Float64, reference: Float64) -> Float64:
        room = self._room(reference)
        delta = np.where(room > 0, room, 1.0) * self.depth_usd
        down = np.minimum(relative, 1 / np.maximum(relative, 1e-300))
        with np.errstate(divide="ignore", invalid="ignore"):
            part = 1 + (down - 1) / np.where(room > 0, room, 1.0)
            size = np.where(part > 0, -delta * np.log(part), np.inf)
        size = np.where(room > 0, size, np.where(relative < 1, np.inf, 0.0))
        return np.asarray(np.where(relative <= 1, size, -size))
