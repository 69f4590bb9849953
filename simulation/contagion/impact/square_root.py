"""The square-root law: ``ln p`` falls by ``Y sigma sqrt(Q / V)``, ``V`` the tokens traded in a day.

Found in executed orders of many markets (Tóth and others 2011; ``Y`` is of the order of one).
``Q`` is the whole order: what was sold before and has not recovered counts, else ten small sales would move
the price more than one large one. With ``x = Y sigma sqrt(Q / V)`` a sale brings ``p0 Q 2 (1 - exp(-x)(1 +
x)) / x**2``, the integral down the curve. A sale without end brings ``2 p0 V / (Y sigma)**2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from scipy.special import gammainc, hyp1f1

from contracts_abi.errors import InputError
from simulation.contagion.impact import impact_models
from simulation.contagion.impact.book import Book
from simulation.types import Float64

MOST_VOLATILITY: Final = 2.0
"""Deviation of the log price a day, beyond which it is taken for per cent; 2 a day is 38 a year."""


@impact_models.register("square-root")
@dataclass(frozen=True, slots=True)
class SquareRoot(Book):
    """Log impact by the square root of the part of a day's volume.

    Attributes
    ----------
    volatility
        Deviation of the log price a day, positive, at most 2: 0.04 is 4 %.
    volume_tokens
        Tokens traded a day, positive.
    prefactor
        The ``Y`` of the law; 0.5 to 1 in published fits (recalled, not checked).
    half_life_s
        Seconds in which half of a displacement is gone; infinite for none.
    permanent
        Part of impact that stays, in [0, 1].
    """

    kind: ClassVar[str] = "square-root"
    power: ClassVar[float] = 0.5

    volatility: float
    volume_tokens: float
    prefactor: float = 1.0
    half_life_s: float = float("inf")
    permanent: float = 0.0

    def __post_init__(self) -> None:
        self._check(volatility=self.volatility, volume_tokens=self.volume_tokens, prefactor=self.prefactor)
        if self.volatility > MOST_VOLATILITY:
            raise InputError(f"volatility is {self.volatility:g}", fix="a part of one a day: 0.04 for 4 %")

    def _log_relative(self, sold: Float64, reference: Float64) -> Float64:
        root = np.sqrt(np.abs(sold) / self.volume_tokens)
        return np.asarray(-np.sign(sold) * self.prefactor * self.volatility * root)

    def _area(self, before: Float64, after: Float64, reference: Float64) -> Float64:
        return self._from_zero(after) - self._from_zero(before)

    def _from_zero(self, sold: Float64) -> Float64:
        """Return the integral of ``g`` from 0, negative where more was bought than sold."""
        x = self.prefactor * self.volatility * np.sqrt(np.abs(sold) / self.volume_tokens)
        # 1 - exp(-x)(1 + x) is the regularised incomplete gamma of 2, which keeps its digits at small x.
        half_square = np.maximum(x, 1e-150) ** 2 / 2
        down = np.where(x > 1e-150, gammainc(2.0, x) / half_square, 1.0)
        return np.asarray(sold * np.where(sold >= 0, down, hyp1f1(2.0, 3.0, np.minimum(x, 700.0))))

    def _sold_at(self, relative: Float64, reference: Float64) -> Float64:
        with np.errstate(divide="ignore"):
            moved = -np.log(relative) / (self.prefactor * self.volatility)
        return np.asarray(np.sign(moved) * moved**2 * self.volume_tokens)
