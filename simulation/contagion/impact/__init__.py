"""What a sale does to a price: one file a model of a market, chosen by name in ``[impact]``.

A model is parameters; what has happened to the market is its state, an array with one row a path. Selling,
buying, recovering and withdrawing take a state and return another one. Quantities are whole tokens, cash is
US dollars, prices dollars a token; all arrays are float64 of shape ``(paths,)`` unless said otherwise.

Two kinds. Books (`simulation.contagion.impact.book`) displace the exogenous price and recover by themselves.
Pools have reserves, and a price of their own until arbitrage moves it to the exogenous one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar, Final, NamedTuple, Protocol, get_type_hints, runtime_checkable

import numpy as np

from contracts_abi.errors import InputError, UnknownNameError
from oracle.registry import Registry
from simulation.types import Float64

impact_models: Registry[type[Any]] = Registry("impact model", "simulation.contagion.impact")
"""Models of markets; frozen dataclasses, see `ImpactModel`."""


MOST_PRICE_GAP: Final = 0.02
"""Part of the book's price that a market's own may be off at the start.

That is a feed's usual deviation threshold and a pool's fee together; what is further off is of another time,
another token or another unit.
"""


class Fill(NamedTuple):
    """What a trade did.

    Attributes
    ----------
    tokens
        Tokens that changed hands, at most what was asked for: a pool may run out, a table may end.
    cash
        Dollars paid by the market for a sale, to the market for a purchase; not negative.
    log_move
        Change of the logarithm of the market's price.
    state
        The market afterwards, shape ``(paths, columns)``.
    """

    tokens: Float64
    cash: Float64
    log_move: Float64
    state: Float64


class Flow(NamedTuple):
    """What somebody else did at a market: an arbitrageur, or those who provide its liquidity.

    Attributes
    ----------
    tokens, cash
        What came into the market; negative where it went out.
    state
        The market afterwards, shape ``(paths, columns)``.
    """

    tokens: Float64
    cash: Float64
    state: Float64


@runtime_checkable
class ImpactModel(Protocol):
    """One market of one token against dollars."""

    kind: ClassVar[str]

    def start(self, paths: int) -> Float64:
        """Return the state of a market that nobody has traded at, shape ``(paths, columns)``."""
        ...

    def price(self, state: Float64, price: Float64) -> Float64:
        """Return the market's price, where the exogenous one is `price`."""
        ...

    def sell(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Sell `quantity` tokens, where the exogenous price is `price`."""
        ...

    def buy(self, state: Float64, quantity: Float64, price: Float64) -> Fill:
        """Buy `quantity` tokens, where the exogenous price is `price`."""
        ...

    def recover(self, state: Float64, price: Float64, dt_s: float) -> Flow:
        """Let `dt_s` seconds pass at the exogenous price `price`."""
        ...

    def withdraw(self, state: Float64, share: Float64) -> Flow:
        """Take the part `share`, in [0, 1), of the liquidity away; the price stays."""
        ...

    def holdings(self, state: Float64) -> tuple[Float64, Float64]:
        """Return the tokens and the dollars that the market itself holds; zeros where it is no pool."""
        ...

    def quantity_to(self, state: Float64, price: Float64, level: Float64) -> Float64:
        """Return how many tokens can be sold until the next one brings `level` dollars or less.

        Infinite where the market never falls that far; with a level of 0, all that the market can take.
        """
        ...

    def max_profitable_sale(
        self,
        state: Float64,
        price: Float64,
        bonus: Float64 | float,
        costs: Float64 | float = 0.0,
        seized_at: Float64 | None = None,
    ) -> Float64:
        """Return the most tokens that a liquidator can seize and sell without a loss.

        Seizing ``q`` tokens repays ``q seized_at / (1 + bonus)`` dollars, so the sale has to bring that
        times ``1 + costs``: with slippage ``s`` against `seized_at`, ``(1 + bonus)(1 - s) >= 1 + costs``.

        Parameters
        ----------
        bonus, costs
            Parts of one: liquidation bonus, and gas, fees and wanted profit over the debt repaid.
        seized_at
            Price that the protocol's oracle says; the exogenous one by default.
        """
        ...


def require_market(model: ImpactModel, price: float, where: str) -> None:
    """Refuse a market that cannot be where a run begins.

    A pool has a price of its own, and one more than `MOST_PRICE_GAP` from the book's is refused: arbitrage
    would take it to the book's price in the first step, which would tell of a fall or a rise that nobody
    traded. Of any market keepers have to see where it ends, as `ImpactChannel` tabulates its losses.

    Parameters
    ----------
    model
        A market that nobody has traded at.
    price
        US dollars a token in the book; of a backed one what its backing makes of it.
    where
        Key of the market, for messages.

    Raises
    ------
    InputError
        Naming the market, its figures and what would do.
    """
    state, at = model.start(1), np.array([price])
    own = float(model.price(state, at)[0])
    if not abs(own - price) <= MOST_PRICE_GAP * price:
        raise InputError(
            f"{where}: the pool's price is {own:.6g} US dollars a token, and the book's {price:.6g}",
            fix=f"prices within {MOST_PRICE_GAP:.0%} of each other; {_priced(model, price)} has the book's",
        )
    ends = [float(model.quantity_to(state, at, np.array([level]))[0]) for level in (price / 2.0, 0.0)]
    if not 0.0 < min(ends) < np.inf:
        raise InputError(
            f"{where}: no sale takes its price of {own:.6g} US dollars to half, or to an end of the market",
            fix="more impact, or a floor below half the price",
        )


def _priced(model: Any, price: float) -> str:
    """Return parameters of a pool that has a price."""
    if model.kind == "cpmm":
        return f"cash = {model.tokens * price:.6g}"
    return f"root = {np.sqrt(price):.6g}" if model.kind == "uniswap-v3" else "a pool of the book's time"


def sizes(quantity: Float64) -> Float64:
    """Return quantities, or refuse them.

    Raises
    ------
    InputError
        For one that is negative or not a number.
    """
    if not (quantity >= 0).all():
        bad = quantity[~(quantity >= 0)][0]
        raise InputError(f"quantity is {bad:g}", fix="use 0 or more; buy what is not sold")
    return quantity


def least_average(price: Float64, bonus: Any, costs: Any, seized_at: Float64 | None) -> Float64:
    """Return the dollars a token that a liquidator's sale has to bring on average."""
    at = price if seized_at is None else seized_at
    return np.asarray(at * (1 + np.asarray(costs)) / (1 + np.asarray(bonus)), dtype=np.float64)


def bisected_sale(model: ImpactModel, state: Float64, price: Float64, least: Float64) -> Float64:
    """Return the most tokens whose sale brings `least` dollars a token on average, by bisection.

    The average falls with the size, since proceeds are concave. A sale that stops where the last token
    brings `least` has a better average, so the answer is that or more.
    """
    low = model.quantity_to(state, price, least)
    all_of_it = model.quantity_to(state, price, np.zeros_like(price))
    high = np.where(low > 0, low, 0.0)

    def pays(quantity: Float64) -> Any:
        fill = model.sell(state, np.where(np.isfinite(quantity), quantity, 0.0), price)
        return fill.cash >= least * fill.tokens

    growing = np.isfinite(low) & (low > 0)
    for _ in range(1_000):
        growing &= pays(high) & (high < all_of_it) & (high < 1e200)
        if not growing.any():
            break
        high = np.where(growing, np.minimum(2 * high, all_of_it), high)
    # Whoever pays at the end of the market sells all of it; a floor above `least` never stops paying.
    whole = pays(high) & ((high >= all_of_it) | (high >= 1e200)) & (low > 0)
    for _ in range(200):
        middle = (low + high) / 2
        if ((middle <= low) | (middle >= high) | whole).all():
            break
        good = pays(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return np.where(whole, all_of_it, np.where(low > 0, low, 0.0))


def build(table: Mapping[str, Any], *, where: str = "impact") -> ImpactModel:
    """Return the model of a table: its name under ``model``, and its parameters.

    Raises
    ------
    InputError
        Naming the key that is missing, unknown or wrong.
    """
    if "model" not in table:
        raise InputError(f"{where}: model is missing", fix=f"known: {', '.join(impact_models)}")
    entry = impact_models.get(str(table["model"]))
    known = {field.name: field for field in fields(entry)}
    hints = get_type_hints(entry)
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key == "model":
            continue
        if key not in known:
            raise UnknownNameError(f"key of {where}", str(key), [*known, "model"])
        given[key] = _value(f"{where}: {key}", value, hints[key])
    for name, field in known.items():
        if name not in given and field.default is MISSING:
            raise InputError(f"{where}: {name} is missing", fix="add the key")
    try:
        model: ImpactModel = entry(**given)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", fix=error.fix) from None
    return model


def _value(name: str, value: Any, hint: Any) -> Any:
    if hint is str:
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}", fix="it must be a text")
        return value
    if hint is float:
        return _number(name, value)
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is {value!r}", fix="it must be a list of numbers")
    return tuple(_number(name, v) for v in value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or np.isnan(value):
        raise InputError(f"{name} is {value!r}", fix="it must be a number")
    return float(value)
