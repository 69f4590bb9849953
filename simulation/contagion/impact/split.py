"""One sale over several markets: each is sold into until the next token brings the same everywhere.

Proceeds are concave in each market, so a split whose last tokens bring alike cannot be bettered (the
condition of Karush, Kuhn and Tucker for a concave programme).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.contagion.impact import ImpactModel, sizes
from simulation.types import Float64

_ROUNDS: Final = 80
"""Halvings of the logarithm of the common price, from a range of 200: to the last bits."""


def split_sale(
    models: Sequence[ImpactModel], states: Sequence[Float64], quantity: Float64, price: Float64
) -> list[Float64]:
    """Return how many tokens of a sale go to each market, for the most proceeds.

    Parameters
    ----------
    models, states
        The markets.
    quantity
        Tokens to sell, shape ``(paths,)``.
    price
        Exogenous price, shape ``(paths,)``.

    Returns
    -------
    list
        One array a market. They add up to `quantity`, or to what all markets can take if that is less.

    Raises
    ------
    InputError
        If there is no market.
    """
    if not models or len(models) != len(states):
        raise InputError(f"{len(models)} markets with {len(states)} states", fix="give one state each")
    total = sizes(quantity)

    def amounts(level: Float64) -> list[Float64]:
        pairs = zip(models, states, strict=True)
        return [np.minimum(model.quantity_to(state, price, level), total) for model, state in pairs]

    best = np.max([model.price(state, price) for model, state in zip(models, states, strict=True)], axis=0)
    # A little above every price, so that nothing is sold there, not even where a price is level at first.
    high, low = np.log(best) + 1e-6, np.log(best) - 200.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        enough = sum(amounts(np.exp(middle)), np.zeros_like(total)) >= total
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    # Where a market's price is level, the two differ by the level: the rest is shared in proportion.
    least, most = amounts(np.exp(high)), amounts(np.exp(low))
    sum_least, sum_most = sum(least, np.zeros_like(total)), sum(most, np.zeros_like(total))
    gap = sum_most - sum_least
    part = np.clip((total - sum_least) / np.where(gap > 0, gap, 1.0), 0.0, 1.0)
    part = np.where(gap > 0, part, 0.0)
    out = [a + part * (b - a) for a, b in zip(least, most, strict=True)]
    # What rounding leaves goes where most went, and only where the markets can take it all.
    rest = np.where(sum_most >= total, total - sum(out, np.zeros_like(total)), 0.0)
    largest = np.argmax(out, axis=0)
    return [np.maximum(a + np.where(largest == k, rest, 0.0), 0.0) for k, a in enumerate(out)]
