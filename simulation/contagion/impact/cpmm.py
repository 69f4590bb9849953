"""A pool whose product of reserves is constant but for its fee (Uniswap V2).

With reserves ``x`` tokens and ``y`` dollars and ``g = 1 - fee``, a sale of ``q`` tokens brings ``y g q / (x +
g q)`` and a purchase of ``q`` costs ``y q / (g (x - q))``. The fee stays in the reserves. Selling the next
token brings ``g x y / (x + g q)**2``; the pool is worth no arbitrage while ``y / x`` is between ``m g`` and
``m / g``, ``m`` the price elsewhere (Angeris and others 2019). To first order that is ``m (1 -+ fee)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.contagion.impact import Fill, Flow, impact_models, least_average, sizes
from simulation.contagion.impact.book import check_positive, checked_share
from simulation.types import Float64

TOKENS, CASH = 0, 1
"""Columns of the state: the reserves."""

MOST_BOUGHT: Final = 0.99
"""Part of the tokens that one purchase can take out: it multiplies the price by ten thousand."""


@impact_models.register("cpmm")
@dataclass(frozen=True, slots=True)
class Cpmm:
    """Constant-product pool of the token and dollars.

    Attributes
    ----------
    tokens
        Its reserve at the start, whole tokens, positive.
    cash
        Its dollars at the start, positive.
    fee
        Part of the input, in [0, 1), in a scenario at most 0.1: 0.003 is 30 basis points.
    """

    kind: ClassVar[str] = "cpmm"

    tokens: float
    cash: float
    fee: float = 0.003

    def __post_init__(self) -> None:
        check_positive(tokens=self.tokens, cash=self.cash)
        check_fee(self.fee)

    def start(self, paths: int) -> Float64:
        """Return the reserves at the start, shape ``(paths, 2)``; see `ImpactModel.start`."""
        return np.tile([self.tokens, self.cash], (paths, 1))

    def price(self, state: Float64, price: Float64) -> Float64:
        """Return the ratio of the reserves; see `ImpactModel.price`."""
        return np.asarray(state[:, CASH] / state[:, TOKENS])

    def sell(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Swap tokens for dollars; see `ImpactModel.sell`."""
        x, y = state[:, TOKENS], state[:, CASH]
        put = (1 - self.fee) * sizes(quantity)
        out = y * put / (x + put)
        after = np.column_stack([x + quantity, y - out])
        return Fill(quantity, out, self._move(state, after), after)

    def buy(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Swap dollars for tokens, at most `MOST_BOUGHT` of the reserve; see `ImpactModel.buy`."""
        x, y = state[:, TOKENS], state[:, CASH]
        bought = np.minimum(sizes(quantity), MOST_BOUGHT * x)
        paid = y * bought / ((x - bought) * (1 - self.fee))
        after = np.column_stack([x - bought, y + paid])
        return Fill(bought, paid, self._move(state, after), after)

    def _move(self, before: Float64, after: Float64) -> Float64:
        rise = np.log(after[:, CASH] / before[:, CASH])
        return np.asarray(rise - np.log(after[:, TOKENS] / before[:, TOKENS]))

    def recover(self, state: Float64, price: Float64, dt_s: float) -> Flow:
        """Let arbitrage take the pool to the edge of the band at once; see `ImpactModel.recover`."""
        x, y, keep = state[:, TOKENS], state[:, CASH], 1 - self.fee
        sold = np.maximum(np.sqrt(keep * x * y / price) - x, 0.0) / keep
        paid = np.maximum(np.sqrt(keep * x * y * price) - y, 0.0) / keep
        out = y * keep * sold / (x + keep * sold)
        bought = x * keep * paid / (y + keep * paid)
        tokens, cash = sold - bought, paid - out
        return Flow(tokens, cash, np.column_stack([x + tokens, y + cash]))

    def withdraw(self, state: Float64, share: Float64) -> Flow:
        """Take a part of both reserves away; see `ImpactModel.withdraw`."""
        gone = state * checked_share(share)[:, None]
        return Flow(-gone[:, TOKENS], -gone[:, CASH], state - gone)

    def holdings(self, state: Float64) -> tuple[Float64, Float64]:
        """Return the reserves; see `ImpactModel.holdings`."""
        return state[:, TOKENS].copy(), state[:, CASH].copy()

    def quantity_to(self, state: Float64, price: Float64, level: Float64) -> Float64:
        """Return how far a sale goes to `level`; see `ImpactModel.quantity_to`."""
        x, y, keep = state[:, TOKENS], state[:, CASH], 1 - self.fee
        with np.errstate(divide="ignore"):
            return np.asarray(np.maximum(np.sqrt(keep * x * y / level) - x, 0.0) / keep)

    def max_profitable_sale(
        self,
        state: Float64,
        price: Float64,
        bonus: Float64 | float,
        costs: Float64 | float = 0.0,
        seized_at: Float64 | None = None,
    ) -> Float64:
        """Return the most to seize and sell without a loss; see `ImpactModel.max_profitable_sale`."""
        x, y, keep = state[:, TOKENS], state[:, CASH], 1 - self.fee
        least = least_average(price, bonus, costs, seized_at)
        return np.asarray(np.maximum(y / least - x / keep, 0.0))


def check_fee(fee: float) -> None:
    """Refuse a fee that is no part of the input.

    Raises
    ------
    InputError
        Naming it.
    """
    if not 0 <= fee < 1:
        raise InputError(f"fee is {fee:g}", fix="it must be in [0, 1); 30 basis points are 0.003")
