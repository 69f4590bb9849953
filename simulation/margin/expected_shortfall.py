"""Expected shortfall by each statistical method: the mean loss of the tail, where value at risk is its edge.

It is coherent where value at risk is not: two portfolios together never need more than apart. Models and
parameters are those of value at risk. Source: reference of the margin engines, sections 4.1 to 4.4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from simulation.margin import margin_methods
from simulation.margin.var_historical import VarFiltered, VarHistorical
from simulation.margin.var_monte_carlo import VarMonteCarlo
from simulation.margin.var_parametric import VarDeltaGamma, VarDeltaNormal


@margin_methods.register("es.delta_normal")
class EsDeltaNormal(VarDeltaNormal):
    """Expected shortfall of a portfolio taken as linear in normal factors.

    Attributes
    ----------
    parameters
        History, confidences, margin period, and how mean and covariance are estimated.
    """

    kind: ClassVar[str] = "es.delta_normal"
    measure: ClassVar[Literal["var", "es"]] = "es"


@margin_methods.register("es.delta_gamma")
class EsDeltaGamma(VarDeltaGamma):
    """Expected shortfall of the second order: the expansion's integral over the tail, or a simulation's.

    Attributes
    ----------
    parameters
        Those of delta-normal, and the simulation's.
    """

    kind: ClassVar[str] = "es.delta_gamma"
    measure: ClassVar[Literal["var", "es"]] = "es"


@margin_methods.register("es.historical")
class EsHistorical(VarHistorical):
    """Expected shortfall by historical simulation: the mean of the worst past rows on today's portfolio.

    Attributes
    ----------
    parameters
        History, confidences and margin period.
    """

    kind: ClassVar[str] = "es.historical"
    measure: ClassVar[Literal["var", "es"]] = "es"


@margin_methods.register("es.filtered")
class EsFiltered(VarFiltered):
    """Expected shortfall by filtered historical simulation: past rows at the volatility forecast today.

    Attributes
    ----------
    parameters
        Those of historical simulation, and the filter.
    """

    kind: ClassVar[str] = "es.filtered"
    measure: ClassVar[Literal["var", "es"]] = "es"


@margin_methods.register("es.monte_carlo")
class EsMonteCarlo(VarMonteCarlo):
    """Expected shortfall by simulation of fat tails that come together and of jumps, with its error.

    Attributes
    ----------
    parameters
        History, confidences, margin period, and the distribution.
    """

    kind: ClassVar[str] = "es.monte_carlo"
    measure: ClassVar[Literal["var", "es"]] = "es"
