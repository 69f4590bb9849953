"""The state of the world that prices a portfolio: plain numbers, no clock, nothing remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, FiniteFloat

from oracle.strict import StrictModel

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]

YEAR_S = 31_536_000
"""Seconds of a year of 365 days."""


class Svi(StrictModel):
    """Raw SVI slice: total variance ``a + b * (rho * (k - m) + sqrt((k - m)**2 + sigma**2))``.

    ``k`` is the logarithm of strike over `forward`; a volatility is ``sqrt(w / tau)``.

    Attributes
    ----------
    a, b, rho, m, sigma
        Parameters of the slice.
    forward, tau
        The forward and the time in years that it was fitted at.
    """

    a: FiniteFloat
    b: Annotated[FiniteFloat, Field(ge=0)]
    rho: Annotated[FiniteFloat, Field(ge=-1, le=1)]
    m: FiniteFloat
    sigma: Annotated[FiniteFloat, Field(ge=0)]
    forward: PositiveFloat
    tau: PositiveFloat


class Expiry(StrictModel):
    """One expiry of one underlying.

    Attributes
    ----------
    forward
        Part of the forward that still moves with the market, dollars.
    fixed
        Part that is already fixed: in the last half hour the settlement price builds up.
    rate
        Annual rate, continuously compounded.
    surface
        The smile; None where every option states its own volatility.
    volatility
        One volatility for all strikes, where there is no surface.
    forward_confidence, rate_confidence, vol_confidence
        0 to 1, as the venue's feeds state them.
    """

    forward: FiniteFloat = Field(ge=0)
    fixed: FiniteFloat = Field(default=0.0, ge=0)
    rate: FiniteFloat = 0.0
    surface: Svi | None = None
    volatility: PositiveFloat | None = None
    forward_confidence: Share = 1.0
    rate_confidence: Share = 1.0
    vol_confidence: Share = 1.0

    @property
    def total(self) -> float:
        """The forward, both parts."""
        return self.forward + self.fixed


class Underlying(StrictModel):
    """One underlying.

    Attributes
    ----------
    spot
        Index price, dollars.
    perpetual
        Price of the perpetual; the spot's without it.
    confidence, perpetual_confidence
        0 to 1.
    expiries
        Unix seconds to the expiry.
    """

    spot: PositiveFloat
    perpetual: PositiveFloat | None = None
    confidence: Share = 1.0
    perpetual_confidence: Share = 1.0
    expiries: Mapping[int, Expiry] = Field(default_factory=dict)

    @property
    def perpetual_price(self) -> float:
        """The price of the perpetual."""
        return self.spot if self.perpetual is None else self.perpetual


class AssetPrice(StrictModel):
    """A token that is held as collateral or owed.

    Attributes
    ----------
    price
        Dollars.
    confidence
        0 to 1.
    """

    price: PositiveFloat
    confidence: Share = 1.0


class Market(StrictModel):
    """Everything that a margin method may look at beside the portfolio.

    Attributes
    ----------
    timestamp
        Unix seconds; the time to an expiry is counted from here.
    underlyings
        Symbol to underlying.
    assets
        Symbol to price of tokens that are no underlying.
    stable_price, stable_confidence
        The settlement currency in dollars.
    """

    timestamp: int = 0
    underlyings: Mapping[str, Underlying] = Field(default_factory=dict)
    assets: Mapping[str, AssetPrice] = Field(default_factory=dict)
    stable_price: PositiveFloat = 1.0
    stable_confidence: Share = 1.0

    def seconds(self, expiry: int) -> int:
        """Return the seconds to an expiry; negative once it is past."""
        return expiry - self.timestamp

    def years(self, expiry: int) -> float:
        """Return the years to an expiry, 0 once it is past."""
        return max(0, self.seconds(expiry)) / YEAR_S
