"""Prices that pools make, at this moment and on average; a trade moves them through the pool's formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor, isqrt
from typing import Any, ClassVar, Literal

from pydantic import Field

from oracle.fields import PositiveDecimal
from oracle.interfaces import AmmFacts, FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.types import FeedKind, PriceObs

_FEE = Fraction(997, 1000)
_PRECISION = 10**40
_TICK_BASE = Decimal("1.0001")
_MAX_TICK = 887_272
_DIGITS = 60


def root(value: Fraction) -> Fraction:
    """Return the square root, exact where it is a fraction and rounded down at 40 places elsewhere."""
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    if top * top == value.numerator and bottom * bottom == value.denominator:
        return Fraction(top, bottom)
    return Fraction(isqrt(floor(value * _PRECISION**2)), _PRECISION)


def traded(base: Fraction, quote: Fraction, act: Any) -> tuple[Fraction, Fraction]:
    """Return the reserves of a constant-product pool after a trade; `UniswapV2Library.getAmountOut`."""
    if act.kind == "manip_twap":
        size = root(base * quote / Fraction(act.price))
        return size, base * quote / size
    if act.base_out is not None:
        return base - Fraction(act.base_out), quote
    if act.quote_in is not None:
        given = Fraction(act.quote_in)
        return base - base * given * _FEE / (quote + given * _FEE), quote + given
    given = Fraction(act.base_in)
    return base + given, quote - quote * given * _FEE / (base + given * _FEE)


def averaged(steps: Sequence[int], values: Sequence[Fraction | int], window_s: int, i: int) -> Fraction:
    """Return the mean over the window that ends at step `i` of a value that holds from step to step."""
    end, start = steps[i], steps[i] - window_s
    total = Fraction(0)
    at = end
    for j in range(i - 1, -1, -1):
        since = max(steps[j], start)
        total += values[j] * (at - since)
        at = since
        if at == start:
            return total / window_s
    # Before the first step the pool stood where it stands there.
    return (total + values[0] * (at - start)) / window_s


class _Pool(FeedModel):
    acts: ClassVar[frozenset[str]] = frozenset({"swap", "manip_twap"})

    base_reserve: PositiveDecimal
    quote_reserve: PositiveDecimal

    def _spots(self, name: str, world: World) -> list[Fraction]:
        """Return the pool's price at each step: the market's, but for what a trade leaves while it stands.

        The pool follows the market along its curve, from the reserves of the first step.
        """
        seen = world.seen[self.pair or name]
        spots = []
        for t, price in zip(world.steps, seen, strict=True):
            moved = root(price / seen[0])
            base, quote = Fraction(self.base_reserve) / moved, Fraction(self.quote_reserve) * moved
            for act in world.acts:
                if act.active(t):
                    base, quote = traded(base, quote, act)
            spots.append(quote / base)
        return spots

    def _played(
        self,
        name: str,
        world: World,
        kind: FeedKind,
        prices: Sequence[Fraction],
        facts: Callable[[int], AmmFacts],
    ) -> Played:
        return played(self, name, world, kind, prices, facts)


def played(
    feed: FeedModel,
    name: str,
    world: World,
    kind: FeedKind,
    prices: Sequence[Fraction],
    facts: Callable[[int], AmmFacts],
) -> Played:
    """Return a pool's prices as what a consumer reads; a pool always answers, and is as old as the block."""
    base, quote, source_id = names_of(feed, name)
    unit = int(10**feed.decimals)
    readings = tuple(
        PriceObs(base, quote, floor(price * unit), feed.decimals, kind, source_id, t, t, block)
        for price, t, block in zip(prices, world.steps, world.blocks, strict=True)
    )
    contexts = tuple(FeedContext(now=t, heartbeat_s=1, amm=facts(i)) for i, t in enumerate(world.steps))
    return Played(name, readings, contexts)


@mechanisms.register("univ2_spot")
class ConstantProductSpot(_Pool):
    """The ratio of a constant-product pool's reserves, right now.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    base_reserve, quote_reserve
        Reserves at the first step, whole tokens.
    """

    kind: ClassVar[Literal["univ2_spot"]] = "univ2_spot"

    def play(self, name: str, world: World) -> Played:
        """Return the spot price at each step."""
        spots = self._spots(name, world)
        return self._played(name, world, FeedKind.AMM_SPOT, spots, lambda i: AmmFacts(0))


@mechanisms.register("univ2_twap")
class ConstantProductAverage(_Pool):
    """The arithmetic mean of a constant-product pool's price over a period, as its accumulators give it.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    base_reserve, quote_reserve
        Reserves at the first step, whole tokens.
    period_s
        Length of the average.
    """

    kind: ClassVar[Literal["univ2_twap"]] = "univ2_twap"

    period_s: int = Field(ge=1)

    def play(self, name: str, world: World) -> Played:
        """Return the average at each step."""
        spots = self._spots(name, world)
        means = [averaged(world.steps, spots, self.period_s, i) for i in range(len(spots))]
        unit = int(10**self.decimals)

        def facts(i: int) -> AmmFacts:
            return AmmFacts(self.period_s, self.period_s, spot_mantissa=floor(spots[i] * unit))

        return self._played(name, world, FeedKind.AMM_TWAP, means, facts)


@mechanisms.register("univ3_twap")
class ConcentratedAverage(FeedModel):
    """The geometric mean of a Uniswap V3 pool's price: the mean tick, rounded towards minus infinity.

    `OracleLibrary.consult` of @uniswap/v3-periphery. The price is 1.0001 to the power of the mean tick.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    window_s
        Length of the average.
    base_decimals, quote_decimals
        Scales of the two tokens.
    """

    kind: ClassVar[Literal["univ3_twap"]] = "univ3_twap"
    acts: ClassVar[frozenset[str]] = frozenset({"manip_twap"})

    window_s: int = Field(ge=1)
    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)

    def tick(self, price: Fraction) -> int:
        """Return the tick of a price: the greatest whose price is not above it."""
        with localcontext(prec=_DIGITS):
            raw = price * Fraction(10) ** (self.quote_decimals - self.base_decimals)
            exact = (Decimal(raw.numerator) / raw.denominator).ln() / _TICK_BASE.ln()
        return max(-_MAX_TICK, min(_MAX_TICK, floor(exact)))

    def price(self, tick: int) -> Fraction:
        """Return the price at a tick."""
        with localcontext(prec=_DIGITS):
            raw = Fraction(_TICK_BASE**tick)
        return raw * Fraction(10) ** (self.base_decimals - self.quote_decimals)

    def play(self, name: str, world: World) -> Played:
        """Return the average at each step."""
        ticks = []
        for t, true in zip(world.steps, world.seen[self.pair or name], strict=True):
            price = true
            for act in world.acts:
                if act.active(t):
                    price = Fraction(getattr(act, "price", true))
            ticks.append(self.tick(price))
        means = [floor(averaged(world.steps, ticks, self.window_s, i)) for i in range(len(ticks))]
        unit = int(10**self.decimals)

        def facts(i: int) -> AmmFacts:
            spot = floor(self.price(ticks[i]) * unit)
            return AmmFacts(self.window_s, self.window_s, spot_mantissa=spot)

        return played(self, name, world, FeedKind.AMM_TWAP, [self.price(tick) for tick in means], facts)
