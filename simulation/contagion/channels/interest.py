"""Interest: debts grow by the rate curve, suppliers and the protocol share what borrowers owe more."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from simulation.contagion.batch import YEAR_S, Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.state import utilisation


@channels.register("interest")
class InterestChannel(Channel):
    """Kinked rate curves and indices.

    With u the utilisation, the borrow rate is ``base + slope1 * u / optimal`` up to the kink and ``base +
    slope1 + slope2 * (u - optimal) / (1 - optimal)`` beyond (Aave `DefaultReserveInterestRateStrategyV2`). A
    step of dt seconds multiplies debts by ``exp(rate * dt / year)``; the interest less the reserve factor
    raises the supply index by what it is a part of, so that the pool's books stay balanced to the last bits.
    Protocols compound by polynomials of that exponential; over a day at 10 % a year both agree to 1e-14.

    Off, nothing accrues.

    Attributes
    ----------
    on
        The switch.
    """

    kind: ClassVar[Literal["interest"]] = "interest"
    order: ClassVar[int] = 30
    always: ClassVar[bool] = True

    def act(self, batch: Batch, memo: Any) -> None:
        """Accrue one step."""
        r, state = batch.world.reserves, batch.state
        u = utilisation(state)
        below = np.minimum(u, r.optimal) / r.optimal
        above = np.maximum(u - r.optimal, 0.0) / (1.0 - r.optimal)
        rate = r.base + r.slope1 * below + r.slope2 * above
        grown = np.exp(rate * (batch.dt_s / YEAR_S))
        debt = (state.borrowed + state.outside_debt) * state.borrow_index
        interest = debt * (grown - 1.0)
        claims = (state.supplied + state.idle) * state.supply_index
        # Without suppliers, all of it is the protocol's.
        share = np.where(claims > 0.0, 1.0 - r.reserve_factor, 0.0)
        state.borrow_index *= np.where(debt > 0.0, grown, 1.0)
        state.supply_index *= 1.0 + np.divide(
            interest * share, claims, out=np.zeros_like(claims), where=claims > 0.0
        )
        state.reserves += interest * (1.0 - share)
