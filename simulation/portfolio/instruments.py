"""What an account can hold. An instrument says what it is; what it is worth, says a market or a scenario.

Quantities are signed and in units of the underlying (one ether, one bitcoin), positive for long. Money is in
US dollars unless an instrument is inverse: then it is worth, and settles, in its underlying.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat

from oracle.strict import StrictModel

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]

SETTLEMENT_WINDOW_S = 1_800
"""Dated options and futures of Derive and Deribit settle at the mean index of their last half hour."""


class Spot(StrictModel):
    """A token, held (positive) or owed (negative).

    Attributes
    ----------
    asset
        Symbol; priced by the market's asset of that name, or by the underlying's spot.
    """

    type: Literal["spot"] = "spot"
    asset: str = Field(min_length=1)

    @property
    def underlying(self) -> str:
        """The symbol that prices it."""
        return self.asset


class Perpetual(StrictModel):
    """A perpetual future.

    Attributes
    ----------
    underlying
        Symbol of the underlying.
    inverse
        Whether it is margined and settled in the underlying; the quantity is then in dollars of notional.
    """

    type: Literal["perpetual"] = "perpetual"
    underlying: str = Field(min_length=1)
    inverse: bool = False


class Future(StrictModel):
    """A dated future.

    Attributes
    ----------
    underlying
        Symbol of the underlying.
    expiry
        Unix seconds.
    inverse
        As of `Perpetual`.
    """

    type: Literal["future"] = "future"
    underlying: str = Field(min_length=1)
    expiry: int
    inverse: bool = False


class Option(StrictModel):
    """A European option, settled in cash at the mean of the index over a window before expiry.

    Attributes
    ----------
    underlying
        Symbol of the underlying.
    expiry
        Unix seconds.
    strike
        Dollars.
    call
        Whether it is a call.
    inverse
        Whether premium and payoff are paid in the underlying.
    """

    type: Literal["option"] = "option"
    underlying: str = Field(min_length=1)
    expiry: int
    strike: PositiveFloat
    call: bool
    inverse: bool = False


class Barrier(StrictModel):
    """A knock-out option, watched continuously: the example of an instrument outside the set.

    Attributes
    ----------
    underlying, expiry, strike, call
        As of `Option`.
    barrier
        Dollars; the option is worth nothing once the price has been there.
    """

    type: Literal["barrier"] = "barrier"
    underlying: str = Field(min_length=1)
    expiry: int
    strike: PositiveFloat
    call: bool
    barrier: PositiveFloat


Instrument: TypeAlias = Annotated[Spot | Perpetual | Future | Option | Barrier, Field(discriminator="type")]


class Position(StrictModel):
    """Some of an instrument.

    Attributes
    ----------
    instrument
        What it is.
    quantity
        Signed; units of the underlying, of an inverse perpetual or future dollars of notional.
    unrealised
        Profit not yet paid, and funding not yet settled, in dollars; of perpetuals and futures.
    volatility
        Implied volatility of an option, where it is not taken from the market's surface.
    protocol
        Where it is held; empty when there is one place only.
    """

    instrument: Instrument
    quantity: FiniteFloat
    unrealised: FiniteFloat = 0.0
    volatility: PositiveFloat | None = None
    protocol: str = ""


class Portfolio(StrictModel):
    """What one account holds.

    Attributes
    ----------
    account
        Name or address.
    cash
        Dollars of the settlement currency, negative when borrowed.
    positions
        In any order; two of one instrument count together.
    """

    account: str = "account"
    cash: FiniteFloat = 0.0
    positions: tuple[Position, ...] = ()
