"""A book of constant depth: ``p = p0 exp(-Q / D)``.

The inverse demand of Cifuentes, Ferrucci and Shin (2005; recalled, not checked). The depth is the tokens that
divide the price by e. A sale of ``Q`` brings ``p0 D (1 - exp(-Q / D))``, so all the tokens of the world bring
``p0 D``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simulation.contagion.impact import impact_models
from simulation.contagion.impact.book import ExponentialBook


@impact_models.register("depth")
@dataclass(frozen=True, slots=True)
class Depth(ExponentialBook):
    """Exponential inverse demand with a depth in tokens.

    Attributes
    ----------
    depth_tokens
        Tokens whose sale divides the price by e, positive.
    half_life_s
        Seconds in which half of a displacement is gone; infinite for none.
    permanent
        Part of impact that stays, in [0, 1].
    """

    kind: ClassVar[str] = "depth"

    depth_tokens: float
    half_life_s: float = float("inf")
    permanent: float = 0.0

    def __post_init__(self) -> None:
        self._check(depth_tokens=self.depth_tokens)

    def _rate(self) -> float:
        return 1 / self.depth_tokens
