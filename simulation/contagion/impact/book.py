"""Order books: sales displace the exogenous price, and the displacement recovers by itself.

State, one row a path: ``n``, what was sold net and has not been bought back or refilled, in the model's own
unit of size; the permanent part of past impact, in the logarithm of the price; and the part of the book's
depth that is left. With ``m`` the exogenous price and ``h`` the permanent part, the book's price is ``m
exp(h) g(n)`` with ``g(0) = 1``, falling, the model's own. A sale runs down ``g``: it pays the integral. So
two sales in a row pay what one of both would, and buying back what was sold costs what it brought.

Time takes ``n`` back to 0, and of the displacement that vanishes the part `permanent` stays in ``h``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from scipy.special import lambertw

from contracts_abi.errors import InputError
from simulation.contagion.impact import Fill, Flow, ImpactModel, bisected_sale, least_average, sizes
from simulation.types import Float64

SOLD, PERMANENT, DEPTH = 0, 1, 2
"""Columns of the state."""

_NEAR_ONE: Final = 1e-4


class Book:
    """What all order books share; a model adds its curve."""

    __slots__ = ()

    kind: ClassVar[str]
    power: ClassVar[float] = 1.0
    """The displacement goes with this power of what was sold."""

    half_life_s: float
    permanent: float

    # ------------------------------------------------------------------------------------- the model's own

    def _log_relative(self, sold: Float64, reference: Float64) -> Float64:
        """Return ``ln g`` where `sold` was sold, net, and the undisturbed price is `reference`."""
        raise NotImplementedError

    def _area(self, before: Float64, after: Float64, reference: Float64) -> Float64:
        """Return the integral of ``g`` from `before` to `after`."""
        raise NotImplementedError

    def _sold_at(self, relative: Float64, reference: Float64) -> Float64:
        """Return what is sold where ``g`` is `relative`; infinite where it never is."""
        raise NotImplementedError

    def _unit(self, state: Float64, reference: Float64) -> Float64 | float:
        """Return the size of one token, in the model's unit."""
        return 1.0

    def _most(self) -> float:
        """Return the size at which the book ends."""
        return float("inf")

    # ---------------------------------------------------------------------------------------- the interface

    def start(self, paths: int) -> Float64:
        """Return the state of a book that nobody has traded at; see `ImpactModel.start`."""
        state = np.zeros((paths, 3))
        state[:, DEPTH] = 1.0
        return state

    def price(self, state: Float64, price: Float64) -> Float64:
        """Return the book's price; see `ImpactModel.price`."""
        reference = _reference(state, price)
        return np.asarray(reference * np.exp(self._log_relative(state[:, SOLD], reference)))

    def sell(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Sell into the book; see `ImpactModel.sell`."""
        return self._trade(state, sizes(quantity), price)

    def buy(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Buy from the book; see `ImpactModel.buy`."""
        fill = self._trade(state, -sizes(quantity), price)
        return Fill(-fill.tokens, -fill.cash, fill.log_move, fill.state)

    def _trade(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        reference = _reference(state, price)
        unit, depth, before = self._unit(state, reference), state[:, DEPTH], state[:, SOLD]
        most = self._most()
        after = np.clip(before + quantity * unit / depth, -most, most)
        # What does not reach the end is all of the quantity, to the bit.
        tokens = np.where(np.abs(after) < most, quantity, (after - before) * depth / unit)
        with np.errstate(over="ignore"):  # a purchase of many times the depth costs infinitely much
            cash = reference * depth / unit * self._area(before, after, reference)
        move = self._log_relative(after, reference) - self._log_relative(before, reference)
        new = state.copy()
        new[:, SOLD] = after
        return Fill(tokens, np.asarray(cash), np.asarray(move), new)

    def recover(self, state: Float64, price: Float64, dt_s: float) -> Flow:
        """Let time pass; nothing is traded. See `ImpactModel.recover`."""
        reference = _reference(state, price)
        new = state.copy()
        new[:, SOLD] *= 0.5 ** (dt_s / self.half_life_s / self.power)
        if self.permanent > 0:
            gone = self._log_relative(state[:, SOLD], reference) - self._log_relative(new[:, SOLD], reference)
            new[:, PERMANENT] += self.permanent * gone
        nothing = np.zeros(len(state))
        return Flow(nothing, nothing.copy(), new)

    def withdraw(self, state: Float64, share: Float64) -> Flow:
        """Take orders away at all prices alike; see `ImpactModel.withdraw`."""
        new = state.copy()
        new[:, DEPTH] *= 1 - checked_share(share)
        nothing = np.zeros(len(state))
        return Flow(nothing, nothing.copy(), new)

    def holdings(self, state: Float64) -> tuple[Float64, Float64]:
        """Return zeros: who stands in the book holds what is in it. See `ImpactModel.holdings`."""
        return np.zeros(len(state)), np.zeros(len(state))

    def quantity_to(self, state: Float64, price: Float64, level: Float64) -> Float64:
        """Return how far a sale goes to `level`; see `ImpactModel.quantity_to`."""
        reference = _reference(state, price)
        sold = np.minimum(self._sold_at(level / reference, reference), self._most())
        size = np.maximum(sold - state[:, SOLD], 0.0)
        return np.asarray(size * state[:, DEPTH] / self._unit(state, reference))

    def max_profitable_sale(
        self: Any,
        state: Float64,
        price: Float64,
        bonus: Float64 | float,
        costs: Float64 | float = 0.0,
        seized_at: Float64 | None = None,
    ) -> Float64:
        """Return the most to seize and sell without a loss; see `ImpactModel.max_profitable_sale`."""
        model: ImpactModel = self
        return bisected_sale(model, state, price, least_average(price, bonus, costs, seized_at))

    def _check(self, **positive: float) -> None:
        """Refuse parameters of any book, and those named, where they are not positive."""
        check_positive(**positive)
        if not self.half_life_s > 0:
            raise InputError(f"half_life_s is {self.half_life_s:g}", fix="it must be positive; inf for never")
        if not 0 <= self.permanent <= 1:
            raise InputError(f"permanent is {self.permanent:g}", fix="it must be in [0, 1]")


def check_positive(**values: float) -> None:
    """Refuse the first value that is not positive and finite.

    Raises
    ------
    InputError
        Naming it.
    """
    for name, value in values.items():
        if not (value > 0 and np.isfinite(value)):
            raise InputError(f"{name} is {value:g}", fix="it must be positive and finite")


def checked_share(share: Float64) -> Float64:
    """Return parts of liquidity to take away, or refuse them.

    Raises
    ------
    InputError
        For one that is not in [0, 1): a market without any liquidity has no price.
    """
    if not ((share >= 0) & (share < 1)).all():
        bad = share[~((share >= 0) & (share < 1))][0]
        raise InputError(f"share of liquidity is {bad:g}", fix="use a part in [0, 1)")
    return share


class ExponentialBook(Book):
    """A book whose price falls exponentially with what a sale adds; its liquidations have a closed form."""

    __slots__ = ()

    def _rate(self) -> float:
        """Return by how much a unit of size lowers the logarithm of the price."""
        raise NotImplementedError

    def _log_relative(self, sold: Float64, reference: Float64) -> Float64:
        return np.asarray(-self._rate() * sold)

    def _area(self, before: Float64, after: Float64, reference: Float64) -> Float64:
        scale = np.exp(-self._rate() * before) / self._rate()
        return np.asarray(-scale * np.expm1(-self._rate() * (after - before)))

    def _sold_at(self, relative: Float64, reference: Float64) -> Float64:
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(relative) / self._rate())

    def max_profitable_sale(
        self,
        state: Float64,
        price: Float64,
        bonus: Float64 | float,
        costs: Float64 | float = 0.0,
        seized_at: Float64 | None = None,
    ) -> Float64:
        """Return the most to seize and sell without a loss; see `ImpactModel.max_profitable_sale`.

        A sale that lowers the logarithm by ``z`` brings ``(1 - exp(-z)) / z`` of the price before it.
        """
        least = least_average(price, bonus, costs, seized_at)
        move = average_move(least / self.price(state, price))
        return np.asarray(move / self._rate() * state[:, DEPTH] / self._unit(state, _reference(state, price)))


def average_move(ratio: Float64) -> Float64:
    """Return z of ``(1 - exp(-z)) / z = ratio``, 0 where the ratio is 1 or more.

    With Lambert's W it is ``1 / r + W(-exp(-1 / r) / r)``, which near 1 has few digits: a step of Newton's
    brings them back, and next to 1 there is the series.
    """
    r = np.clip(ratio, 1e-300, 1.0)
    less = 1 - r
    series = less * (2 + less * (4 / 3 + less * 10 / 9))
    inverse = 1 / np.minimum(r, 1 - _NEAR_ONE)
    argument: Any = -inverse * np.exp(-inverse)
    z = inverse + lambertw(argument).real
    z -= (-np.expm1(-z) * inverse - z) / (np.exp(-z) * inverse - 1)
    return np.where(less > _NEAR_ONE, z, series)


def _reference(state: Float64, price: Float64) -> Float64:
    return np.asarray(price * np.exp(state[:, PERMANENT]))
