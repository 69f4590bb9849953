"""Impact in proportion to dollars: ``d ln p = -lambda V``, the model of the theory tests.

``V`` is the sale's tokens at the book's price before the sale, so a liquidation of ``V`` dollars moves the
logarithm by ``lambda V`` exactly, and rounds of a spiral are a geometric series: a shock ``x`` on a book of
density ``rho`` ends at ``x / (1 - lambda rho)``. A sale still runs down its curve: it brings ``(1 -
exp(-lambda V)) / lambda``. Two sales in a row are measured at two prices, so they are not quite one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from simulation.contagion.impact import impact_models
from simulation.contagion.impact.book import SOLD, ExponentialBook
from simulation.types import Float64


@impact_models.register("linear")
@dataclass(frozen=True, slots=True)
class Linear(ExponentialBook):
    """Log impact in proportion to the dollars sold.

    Attributes
    ----------
    per_dollar
        Fall of the logarithm of the price for each dollar sold, positive.
    half_life_s
        Seconds in which half of a displacement is gone; infinite for none.
    permanent
        Part of impact that stays, in [0, 1].
    """

    kind: ClassVar[str] = "linear"

    per_dollar: float
    half_life_s: float = float("inf")
    permanent: float = 0.0

    def __post_init__(self) -> None:
        self._check(per_dollar=self.per_dollar)

    def _unit(self, state: Float64, reference: Float64) -> Float64:
        return np.asarray(reference * np.exp(-self.per_dollar * state[:, SOLD]))

    def _rate(self) -> float:
        return self.per_dollar
