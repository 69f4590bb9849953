"""Prices that pools make, at this moment and on average; a trade moves them through the pool's formula."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, isqrt
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contracts_abi.errors import InputError
from contracts_abi.uniswap_v3 import MAX_TICK
from oracle.fields import AnyAmount, PositiveDecimal
from oracle.interfaces import AmmFacts, FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.strict import StrictModel
from oracle.ticks import quote_at_tick, sqrt_ratio_at_tick, tick_at_sqrt_ratio
from oracle.types import FeedKind, PriceObs

_PRECISION = 10**40
_UINT128 = 2**128


def root(value: Fraction) -> Fraction:
    """Return the square root, exact where it is a fraction and rounded down at 40 places elsewhere."""
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    if top * top == value.numerator and bottom * bottom == value.denominator:
        return Fraction(top, bottom)
    return Fraction(isqrt(floor(value * _PRECISION**2)), _PRECISION)


def traded(base: int, quote: int, act: Any, units: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Return the raw reserves of a constant-product pool after an act; `UniswapV2Library.getAmountOut`.

    Parameters
    ----------
    units
        Raw base and quote tokens that make a whole one.

    Raises
    ------
    InputError
        If nothing would be left of a token.
    """
    base_unit, quote_unit = units
    if act.kind == "set_liquidity":
        left = int(base * Fraction(act.times)), int(quote * Fraction(act.times))
    elif act.kind == "manip_twap":
        size = isqrt(floor(Fraction(base * quote * base_unit, quote_unit) / Fraction(act.price)))
        left = size, base * quote // max(1, size)
    elif act.base_out is not None:
        left = base - int(act.base_out * base_unit), quote
    elif act.quote_in is not None:
        given = int(act.quote_in * quote_unit)
        left = base - amount_out(given, quote, base), quote + given
    else:
        given = int(act.base_in * base_unit)
        left = base + given, quote - amount_out(given, base, quote)
    if min(left) <= 0:
        raise InputError(f"{act.kind} on {act.feed} leaves a pool without one of its tokens")
    return left


def amount_out(given: int, reserve_in: int, reserve_out: int) -> int:
    """Return what a pair pays out for raw tokens given, its fee of 0.3 % kept (`UniswapV2Library`)."""
    return given * 997 * reserve_out // (reserve_in * 1_000 + given * 997)


def floor_means(times: Sequence[int], values: Sequence[int], window_s: int, ends: Sequence[int]) -> list[int]:
    """Return the mean over the window before each of `ends`, rounded towards minus infinity.

    A value holds from its time to the next; before the first time the pool stood where it stands there. The
    sums are whole numbers of value times seconds, as a pool's own are.
    """
    sums = [0]
    for value, (since, until) in zip(values, itertools.pairwise(times), strict=False):
        sums.append(sums[-1] + value * (until - since))

    def sum_at(t: int) -> int:
        i = max(0, bisect.bisect_right(times, t) - 1)
        return sums[i] + values[i] * (t - times[i])

    return [(sum_at(end) - sum_at(end - window_s)) // window_s for end in ends]


class _Pool(FeedModel):
    acts: ClassVar[frozenset[str]] = frozenset({"swap", "manip_twap", "set_liquidity"})

    base_reserve: PositiveDecimal
    quote_reserve: PositiveDecimal
    base_decimals: int = Field(default=18, ge=0, le=36)
    quote_decimals: int = Field(default=18, ge=0, le=36)

    @property
    def units(self) -> tuple[int, int]:
        """Raw base and quote tokens that make a whole one."""
        return int(10**self.base_decimals), int(10**self.quote_decimals)

    def market(self, name: str, world: World) -> list[tuple[int, int]]:
        """Return the raw reserves at each step as the market has them, before anybody acts.

        The pool follows the market along its curve, from the reserves of the first step.
        """
        seen = world.seen[self.pair or name]
        base, quote = (Fraction(n) for n in (self.base_reserve, self.quote_reserve))
        each = (root(price / seen[0]) for price in seen)
        return [(int(base * self.units[0] / moved), int(quote * self.units[1] * moved)) for moved in each]

    def _reserves(self, name: str, world: World) -> list[tuple[int, int]]:
        """Return the raw reserves at each step: the market's, but for what a trade leaves while it stands."""
        held = []
        for t, (base, quote) in zip(world.steps, self.market(name, world), strict=True):
            for act in world.acts:
                if act.active(t):
                    base, quote = traded(base, quote, act, self.units)
            held.append((base, quote))
        return held

    def _spot(self, base: int, quote: int) -> Fraction:
        return Fraction(quote * self.units[0], base * self.units[1])

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
    base_decimals, quote_decimals
        Scales of the two tokens.
    """

    kind: ClassVar[Literal["univ2_spot"]] = "univ2_spot"

    def play(self, name: str, world: World) -> Played:
        """Return the spot price at each step."""
        spots = [self._spot(*held) for held in self._reserves(name, world)]
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
    base_decimals, quote_decimals
        Scales of the two tokens.
    period_s
        Length of the average.
    """

    kind: ClassVar[Literal["univ2_twap"]] = "univ2_twap"

    period_s: int = Field(ge=1)

    def play(self, name: str, world: World) -> Played:
        """Return the average at each step."""
        held = self._reserves(name, world)
        # A pair sums prices in UQ112x112, each rounded down.
        fixed = [(quote << 112) // base for base, quote in held]
        means = floor_means(world.steps, fixed, self.period_s, world.steps)
        scale = Fraction(self.units[0], self.units[1] << 112)
        unit = int(10**self.decimals)

        def facts(i: int) -> AmmFacts:
            return AmmFacts(self.period_s, self.period_s, spot_mantissa=floor(self._spot(*held[i]) * unit))

        return self._played(name, world, FeedKind.AMM_TWAP, [mean * scale for mean in means], facts)


class LiquidityRange(StrictModel):
    """Liquidity of a Uniswap V3 pool between two ticks.

    Attributes
    ----------
    lower, upper
        The ticks, as the pool counts them.
    base, quote
        At most so much of each token, whole tokens; the pool takes what the price at the first step asks for.
    """

    lower: int = Field(ge=-MAX_TICK, le=MAX_TICK)
    upper: int = Field(ge=-MAX_TICK, le=MAX_TICK)
    base: AnyAmount
    quote: AnyAmount

    @model_validator(mode="after")
    def _is_a_range(self) -> LiquidityRange:
        if self.lower >= self.upper:
            raise ValueError("lower must be below upper")
        return self


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a pool's price is put at a time, and how much liquidity stands around it.

    Attributes
    ----------
    t
        Unix seconds.
    root
        Square root of the price, Q64.96.
    attacked
        Whether it is an act that holds it there; the market does otherwise.
    liquidity
        Part of the pool's own liquidity that is there.
    liquidity_first
        Whether the liquidity changes before the price does, where both change at once: as the acts stand.
    """

    t: int
    root: int
    attacked: bool
    liquidity: Fraction = Fraction(1)
    liquidity_first: bool = True


@mechanisms.register("univ3_twap")
class ConcentratedAverage(FeedModel):
    """The geometric mean of a Uniswap V3 pool's price: the mean tick, rounded towards minus infinity.

    `OracleLibrary.consult` and `getQuoteAtTick` of @uniswap/v3-periphery, integer by integer; the base token
    is the pool's token0. An act moves the price at its own second, which need not be one of the grid.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    window_s
        Length of the average.
    base_decimals, quote_decimals
        Scales of the two tokens.
    fee_pips
        Fee tier of the pool, hundredths of a basis point.
    liquidity
        Where its liquidity stands at the first step. Prices do not need it; what it costs to move them does.
    """

    kind: ClassVar[Literal["univ3_twap"]] = "univ3_twap"
    acts: ClassVar[frozenset[str]] = frozenset({"manip_twap", "set_liquidity"})

    window_s: int = Field(ge=1)
    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)
    fee_pips: int = Field(default=3_000, ge=1, lt=1_000_000)
    liquidity: tuple[LiquidityRange, ...] = ()

    @model_validator(mode="after")
    def _has_an_amount(self) -> ConcentratedAverage:
        digits = self._amount_digits
        if digits < 0 or 10**digits >= _UINT128:
            raise ValueError(
                f"a price of {self.decimals} decimals is that of 1e{digits} raw base tokens, and Uniswap's "
                "library takes 1 to 2**128 - 1"
            )
        return self

    @property
    def _amount_digits(self) -> int:
        return self.base_decimals + self.decimals - self.quote_decimals

    @property
    def amount(self) -> int:
        """Raw base tokens whose worth in raw quote tokens is the price at its scale."""
        return int(10**self._amount_digits)

    def root(self, price: Fraction) -> int:
        """Return the square root of a price as the pool has it, within what a pool can have."""
        raw = price * Fraction(10) ** (self.quote_decimals - self.base_decimals)
        return _beside(isqrt(floor(raw * 2**192)))

    def course(self, name: str, world: World) -> tuple[Placed, ...]:
        """Return where the pool's price is put: at each step, and wherever an act begins or ends between."""
        steps, seen = world.steps, world.seen[self.pair or name]
        edges = {t for act in world.acts for t in (act.at, act.until) if t is not None}
        times = sorted({*steps, *(t for t in edges if steps[0] < t < steps[-1])})
        return tuple(self._placed(t, seen[bisect.bisect_right(steps, t) - 1], world.acts) for t in times)

    def _placed(self, t: int, market: Fraction, acts: Sequence[Any]) -> Placed:
        root, attacked, liquidity = self.root(market), False, Fraction(1)
        for act in acts:
            if not act.active(t):
                continue
            if act.kind == "set_liquidity":
                liquidity *= Fraction(act.times)
            else:
                attacked = True
                root = self.root(Fraction(act.price)) if act.tick is None else _at_tick(act.tick)
        changing = [act.kind for act in acts if t in (act.at, act.until)]
        return Placed(t, root, attacked, liquidity, changing[:1] != ["manip_twap"])

    def play(self, name: str, world: World) -> Played:
        """Return the average at each step."""
        course = self.course(name, world)
        times, ticks = [at.t for at in course], [tick_at_sqrt_ratio(at.root) for at in course]
        unit = Fraction(1, int(10**self.decimals))
        means = floor_means(times, ticks, self.window_s, world.steps)
        prices = [quote_at_tick(tick, self.amount, base_is_token0=True) * unit for tick in means]
        standing = dict(zip(times, ticks, strict=True))

        def facts(i: int) -> AmmFacts:
            spot = quote_at_tick(standing[world.steps[i]], self.amount, base_is_token0=True)
            return AmmFacts(self.window_s, self.window_s, spot_mantissa=spot)

        return played(self, name, world, FeedKind.AMM_TWAP, prices, facts)


def _at_tick(tick: int) -> int:
    return _beside(sqrt_ratio_at_tick(tick))


def _beside(root: int) -> int:
    """Return a root that a pool can have, and from which it names the same tick whence ever it comes.

    A pool that falls to a tick's own price may name the tick below; one unit above it names that tick.
    """
    least, greatest = sqrt_ratio_at_tick(-MAX_TICK), sqrt_ratio_at_tick(MAX_TICK) - 1
    within = max(least, min(greatest, root))
    return max(within, sqrt_ratio_at_tick(tick_at_sqrt_ratio(within)) + 1)
