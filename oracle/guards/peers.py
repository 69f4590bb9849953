"""G08, G11, G12, G17 and G18: what other sources say of the same price, and of others."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import log10
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.guards.magnitude import apart_bps, independent
from oracle.interfaces import FeedContext
from oracle.types import FeedKind, Finding, GuardAction, NoData, PriceObs, Reading

MARKET_KINDS = frozenset(
    {FeedKind.PUSH, FeedKind.PULL, FeedKind.AMM_TWAP, FeedKind.AMM_EMA, FeedKind.AMM_SPOT}
)
"""Kinds of price that a market makes."""
STATED_KINDS = frozenset({FeedKind.RATE, FeedKind.CONSTANT})
"""Kinds of price that are computed or written down."""
_WRAPPED = {"WETH": "ETH", "WBTC": "BTC", "WBNB": "BNB", "WMATIC": "MATIC", "WAVAX": "AVAX"}


def _others(reading: PriceObs, peers: Sequence[Reading]) -> list[PriceObs]:
    return [p for p in peers if isinstance(p, PriceObs) and independent(p, reading)]


def middle_of(others: Sequence[PriceObs]) -> PriceObs:
    """Return the peer in the middle, the lower of two: one that is far off decides nothing among three."""
    return sorted(others, key=_price)[(len(others) - 1) // 2]


def _price(obs: PriceObs) -> Fraction:
    return Fraction(obs.mantissa, 10**obs.decimals)


def _power(ratio: Fraction) -> int:
    """Return the power of ten that is nearest to a positive ratio of any size."""
    return round(log10(ratio.numerator) - log10(ratio.denominator))


def _factor_text(ratio: Fraction) -> str:
    try:
        return f"{float(ratio):.6g}"
    except OverflowError:  # 256-bit answers at 255 decimals go beyond any float
        return f"10^{_power(ratio)}"


@guards.register("cross_dev")
class CrossDeviationGuard(GuardModel):
    """G08: independent sources of the same pair lie too far apart.

    Needs a positive price and one independent peer. Against one peer nobody knows which of the two is wrong,
    so that risk is paused; against several the reading is held against the median of all, and refused.

    500 bps by default: two honest feeds with a deviation threshold of 0.5 % may stand 1 % apart, and what is
    left is for a market that moves between their updates.

    Attributes
    ----------
    cap_bps
        Distance that is allowed, relative to the larger price.
    """

    kind: ClassVar[Literal["cross_dev"]] = "cross_dev"
    id: ClassVar[str] = "G08"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-14",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE})

    cap_bps: int = Field(default=500, ge=0, lt=10_000)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `peers`."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        others = _others(reading, peers)
        if not others:
            return self._not_applicable(reading, "no second source")
        several = sorted([reading, *others], key=_price)
        # Of two the other one, of more the middle one.
        middle = others[0] if len(others) == 1 else several[len(several) // 2]
        apart = 0 if middle is reading else apart_bps(reading, middle)
        inputs = {"mantissa": reading.mantissa, "against": middle.source_id, "peers": len(others)}
        asked = self.actions if len(others) == 1 else {GuardAction.REJECT, GuardAction.FALLBACK}
        message = f"{apart} bps from {middle.source_id}, limit {self.cap_bps} bps"
        return self._verdict(
            reading, apart > self.cap_bps, message, f"{apart} bps", f"<= {self.cap_bps} bps", inputs, asked
        )


@guards.register("unit")
class UnitGuard(GuardModel):
    """G11: the price has another magnitude than a second source: a wrong scale, or a missing leg.

    Needs a positive price and one independent peer. What is wrong is told from the ratio: the nearest power
    of ten, or the price of another known pair that it equals within a tenth.

    A factor of 3 by default, half a power of ten: no honest second source is that far off, and every slip of
    decimals is.

    Attributes
    ----------
    factor
        Ratio to the second source, either way, beyond which the two do not speak of the same thing.
    """

    kind: ClassVar[Literal["unit"]] = "unit"
    id: ClassVar[str] = "G11"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-8",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.FALLBACK})

    factor: int = Field(default=3, ge=2)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `peers`; `context.known` names a missing leg."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        others = _others(reading, peers)
        if not others:
            return self._not_applicable(reading, "no second source")
        other = middle_of(others)
        ratio = _price(reading) / _price(other)
        size = max(ratio, 1 / ratio)
        off = size > self.factor
        inputs = {
            "mantissa": reading.mantissa,
            "against": other.source_id,
            "ratio": _factor_text(ratio),
        }
        said = f"{_factor_text(ratio)} times {other.source_id}"
        if off:
            said += f", about 10^{_power(ratio)}" + self._leg(ratio, context)
        return self._verdict(
            reading, off, said, f"{_factor_text(size)} times", f"<= {self.factor} times", inputs
        )

    def _leg(self, ratio: Fraction, context: FeedContext) -> str:
        for pair, obs in sorted(context.known.items()):
            price = _price(obs)
            for candidate, word in ((price, "once too often"), (1 / price if price else 0, "missing")):
                if candidate and Fraction(9, 10) <= ratio / candidate <= Fraction(11, 10):
                    return f": the price of {pair} is {word}"
        return ""


@guards.register("wrong_feed")
class WrongFeedGuard(GuardModel):
    """G12: the feed is one of another pair.

    Needs the contract's description, or one independent peer and the price of another pair. A description
    that names another base or quote convicts, and so does a price that another pair has and this one has not.

    Attributes
    ----------
    near_bps
        How near to another pair's price counts as being it; 100, two deviation thresholds of 0.5 %.
    far_bps
        How far from the pair's own second source it has to be for that; 2000, four times what G08 allows.
    """

    kind: ClassVar[Literal["wrong_feed"]] = "wrong_feed"
    id: ClassVar[str] = "G12"
    checklist: ClassVar[tuple[str, ...]] = (
        "SOL-Defi-Oracle-6",
        "SOL-Defi-Oracle-12",
    )
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.PAUSE})

    near_bps: int = Field(default=100, ge=0, lt=10_000)
    far_bps: int = Field(default=2_000, ge=0, lt=10_000)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.description`, `context.known` and `peers`."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        named = named_pair(context.description)
        own = (plain_symbol(reading.base), plain_symbol(reading.quote))
        inputs = {"description": context.description, "base": reading.base, "quote": reading.quote}
        if named is not None and named != own:
            told = f"the feed calls itself {context.description!r}"
            return self._verdict(reading, True, told, context.description, "/".join(own), inputs)
        others = _others(reading, peers)
        if others and context.known and apart_bps(reading, middle_of(others)) > self.far_bps:
            for pair, obs in sorted(context.known.items()):
                if obs.mantissa > 0 and apart_bps(reading, obs) <= self.near_bps:
                    told = f"the price is that of {pair}"
                    return self._verdict(reading, True, told, pair, "/".join(own), inputs)
        if named is None and not (others and context.known):
            return self._not_applicable(reading, "no description, and nothing to compare the price with")
        return self._verdict(reading, False, "the feed is of this pair", "/".join(own), "/".join(own), inputs)


def plain_symbol(symbol: str) -> str:
    """Return the symbol of what a wrapped token wraps, in capitals."""
    upper = symbol.upper()
    return _WRAPPED.get(upper, upper)


def named_pair(description: str | None) -> tuple[str, str] | None:
    """Return base and quote of a description such as ``ETH / USD``; None when it names no pair."""
    base, slash, quote = (description or "").partition("/")
    if not slash or not base.strip() or not quote.strip():
        return None
    return plain_symbol(base.strip()), plain_symbol(quote.strip())


@guards.register("hardcoded")
class HardcodedGuard(GuardModel):
    """G17: the price never moves while the market does.

    Needs an independent peer that sees a market. A price counts as written down when its source is a
    constant, or when its last `repeats` rounds all said the same, however often each was looked at.

    Attributes
    ----------
    cap_bps
        How far the market may be from a written price; 200, twice what two honest feeds may part by.
    repeats
        Rounds of one value that make a feed a constant; 24, a day of hourly heartbeats.
    """

    kind: ClassVar[Literal["hardcoded"]] = "hardcoded"
    id: ClassVar[str] = "G17"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-12",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.PAUSE})

    cap_bps: int = Field(default=200, ge=0, lt=10_000)
    repeats: int = Field(default=24, ge=2, le=64)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by its kind, `history` and `peers`."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        others = [p for p in _others(reading, peers) if p.kind in MARKET_KINDS]
        if not others:
            return self._not_applicable(reading, "no second source that sees a market")
        still = _rounds_of_one_value(history, reading)
        fixed = (
            reading.kind is FeedKind.CONSTANT or FeedKind.CONSTANT in context.legs or still >= self.repeats
        )
        other = middle_of(others)
        apart = apart_bps(reading, other)
        inputs = {"kind": reading.kind.value, "rounds_of_one_value": still, "apart_bps": apart}
        message = f"{'written down' if fixed else 'moving'}, {apart} bps from {other.source_id}"
        return self._verdict(
            reading, fixed and apart > self.cap_bps, message, f"{apart} bps", f"<= {self.cap_bps} bps", inputs
        )


def _rounds_of_one_value(history: Sequence[PriceObs], reading: PriceObs) -> int:
    """Return how many rounds in a row, up to the last accepted one, said what the reading says."""
    rounds = 0
    after: PriceObs | None = None
    for obs in reversed(history):
        if apart_bps(obs, reading) != 0:
            break
        if after is None or (obs.round_key, obs.published_at) != (after.round_key, after.published_at):
            rounds += 1
        after = obs
    return rounds


@guards.register("depeg")
class DepegGuard(GuardModel):
    """G18: a price by rate or by agreement has left the market.

    Needs a price that a rate or a constant goes into, and an independent peer that sees a market. A rate says
    what a token is backed by, not what it can be sold for: lend against the lower of both.

    Attributes
    ----------
    cap_bps
        How far market and rate may part; 200, twice what two honest feeds may part by.
    """

    kind: ClassVar[Literal["depeg"]] = "depeg"
    id: ClassVar[str] = "G18"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-12",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.CLAMP, GuardAction.PAUSE})

    cap_bps: int = Field(default=200, ge=0, lt=10_000)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by its kind, `context.legs` and `peers`."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        if not STATED_KINDS & {reading.kind, *context.legs}:
            return self._not_applicable(reading, "no rate and no constant goes into the price")
        others = [p for p in _others(reading, peers) if p.kind in MARKET_KINDS]
        if not others:
            return self._not_applicable(reading, "no second source that sees a market")
        other = middle_of(others)
        apart = apart_bps(reading, other)
        inputs = {"kind": reading.kind.value, "against": other.source_id}
        message = f"{apart} bps from the market, limit {self.cap_bps} bps"
        return self._verdict(
            reading, apart > self.cap_bps, message, f"{apart} bps", f"<= {self.cap_bps} bps", inputs
        )
