"""The mean price of a Uniswap V3 pool over a window, and what stands behind it.

Contracts: ``OracleLibrary.sol`` of @uniswap/v3-periphery 1.4.4 (``consult``, ``getQuoteAtTick``,
``getOldestObservationSecondsAgo``) over ``UniswapV3Pool.observe`` of @uniswap/v3-core 1.0.1. The mean is that
of the logarithm, so that one over it is the mean the other way round.

Traps: a pool keeps one observation until somebody pays for more, and one is written in each block that moves
the price: `observe` reverts when the window is longer than what is left. A mean says nothing of how much
liquidity stood where: whoever holds the only position moves a price for nothing. The price of the block
counts from the next block on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from contracts_abi.calls import Call, function
from contracts_abi.uniswap_v3 import OBSERVE, SLOT0, TOKEN0, TOKEN1
from oracle.fields import Address
from oracle.interfaces import AmmFacts, FeedContext
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output, outputs
from oracle.ticks import TickOutOfRange, quote_at_tick
from oracle.types import FeedKind, PriceObs, Reading

# time, tickCumulative, secondsPerLiquidityCumulativeX128, initialized
OBSERVATIONS = function("observations(uint256)(uint32,int56,uint160,bool)")

_UINT160_MAX: Final = 2**160 - 1
_UINT32: Final = 2**32
_UINT128: Final = 2**128


def _signed(value: int, bits: int) -> int:
    """Return a value as a signed word of so many bits; the library's subtractions and casts wrap."""
    wrapped = value % (1 << bits)
    return wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped


def mean_tick(start: int, end: int, window_s: int) -> int:
    """Return the mean tick between two sums of ticks and seconds, rounded towards minus infinity."""
    return _signed(_signed(end - start, 56) // window_s, 24)


def harmonic_liquidity(start: int, end: int, window_s: int) -> int | None:
    """Return the harmonic mean of the liquidity in range between two sums of seconds over liquidity.

    Returns
    -------
    int or None
        None where the library reverts: the sums do not differ.
    """
    grown = (end - start) % (_UINT160_MAX + 1)
    if grown == 0:
        return None
    return window_s * _UINT160_MAX // (grown << 32) % _UINT128


@dataclass(frozen=True, slots=True)
class Slot:
    """What a pool says of itself now: its tick, the ring of its observations, and whether it is in a call."""

    tick: int
    index: int
    cardinality: int
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """When an observation of the ring was written, and whether it was at all."""

    at: int
    initialized: bool


def oldest_position(slot: Slot) -> int:
    """Return where in the ring the oldest observation stands, or will once the ring has grown."""
    return (slot.index + 1) % slot.cardinality


def age(at: int, now: int) -> int:
    """Return how long ago a time of 32 bits was."""
    return (now - at) % _UINT32


@sources.register("uniswap_v3_twap")
class UniswapV3Source(ContractSource):
    """The time-weighted mean price of a Uniswap V3 pool, as the periphery's oracle library states it.

    Attributes
    ----------
    base, quote
        Symbols of the tokens.
    address
        The pool to read.
    name
        Source id; ``uniswap_v3_twap:<address>`` by default.
    base_token, quote_token
        The tokens' addresses. There is no price while the pool is of others.
    base_decimals, quote_decimals
        Scales of the tokens.
    decimals
        Scale of the price.
    window_s
        Length of the mean, which ends with the block.
    observation
        Where in the pool's ring the oldest observation is taken to stand, beside the ring's first place;
        `following` tells it. It is a place away for each block in which the price moved.
    """

    kind: ClassVar[Literal["uniswap_v3_twap"]] = "uniswap_v3_twap"

    base_token: Address
    quote_token: Address
    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)
    decimals: int = Field(default=18, ge=0, le=36)
    window_s: int = Field(default=1_800, ge=1, lt=_UINT32)
    observation: int = Field(default=0, ge=0, lt=2**16)

    @model_validator(mode="after")
    def _has_an_amount(self) -> UniswapV3Source:
        digits = self._amount_digits
        if digits < 0 or 10**digits >= _UINT128:
            raise ValueError(
                f"a price of {self.decimals} decimals is that of 1e{digits} raw base tokens, and the library "
                "takes 1 to 2**128 - 1"
            )
        if self.base_token == self.quote_token:
            raise ValueError(f"{self.base_token} is both base and quote token")
        return self

    @property
    def _amount_digits(self) -> int:
        """The amount whose worth in raw quote tokens is the price at its scale, as a power of ten."""
        return self.base_decimals + self.decimals - self.quote_decimals

    def reads(self) -> list[Call[Any]]:
        """Return the sums over the window, the pool's present, two places of the ring, and the tokens."""
        return [
            OBSERVE.call(self.address, [self.window_s, 0]),
            SLOT0.call(self.address),
            OBSERVATIONS.call(self.address, 0),
            OBSERVATIONS.call(self.address, self.observation),
            TOKEN0.call(self.address),
            TOKEN1.call(self.address),
        ]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the mean price up to the block."""
        tick, _liquidity = self._consulted(results)
        if tick is None:
            reason = f"observe() does not reach back {self.window_s} s, or gave no sums"
            return self._no_data(reason, results[0], block, timestamp)
        stated = output(TOKEN0, results[4]), output(TOKEN1, results[5])
        if set(stated) != {self.base_token, self.quote_token}:
            reason = f"the pool is of {stated[0]} and {stated[1]}"
            return self._no_data(reason, results[0], block, timestamp)
        price = self._price(tick)
        if price is None:
            return self._no_data(f"no price at tick {tick}", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            price,
            self.decimals,
            FeedKind.AMM_TWAP,
            self.source_id,
            published_at=timestamp,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the window, how far back the pool remembers, its liquidity, spot price and lock.

        Where the oldest observation was not read, but the pool answered for the window, the age is the
        window: it is at least that.
        """
        slot = _slot(results[1])
        tick, liquidity = self._consulted(results)
        oldest_s = None if slot is None else self._oldest_s(slot, results, timestamp)
        if oldest_s is None and tick is not None:
            oldest_s = self.window_s
        facts = AmmFacts(
            self.window_s,
            oldest_s=oldest_s,
            cardinality=None if slot is None else slot.cardinality,
            harmonic_liquidity=liquidity,
            spot_mantissa=None if slot is None else self._price(slot.tick),
        )
        return FeedContext(now=timestamp, amm=facts, locked=None if slot is None else slot.locked)

    def following(self, results: Sequence[bytes | None]) -> UniswapV3Source:
        """Return this source with the place of the oldest observation as the answers tell it."""
        slot = _slot(results[1])
        return self if slot is None else self.model_copy(update={"observation": oldest_position(slot)})

    def _consulted(self, results: Sequence[bytes | None]) -> tuple[int | None, int | None]:
        """Return mean tick and liquidity; both None where the library reverts, which takes both at once."""
        sums = outputs(OBSERVE, results[0])
        if sums is None or any(len(values) != 2 for values in sums):
            return None, None
        (ticks_then, ticks_now), (seconds_then, seconds_now) = sums
        liquidity = harmonic_liquidity(seconds_then, seconds_now, self.window_s)
        if liquidity is None:
            return None, None
        return mean_tick(ticks_then, ticks_now, self.window_s), liquidity

    def _price(self, tick: int) -> int | None:
        amount = int(10**self._amount_digits)
        lower = int(self.base_token, 16) < int(self.quote_token, 16)
        try:
            return quote_at_tick(tick, amount, base_is_token0=lower)
        except TickOutOfRange:
            return None

    def _oldest_s(self, slot: Slot, results: Sequence[bytes | None], now: int) -> int | None:
        """Return the age of the oldest observation; None where the one that was read is not it."""
        first, other = (_observation(data) for data in results[2:4])
        position = oldest_position(slot)
        found = first if position == 0 else other if position == self.observation else None
        # A place that was paid for and not yet reached is empty; then the ring begins at its first place.
        if found is not None and not found.initialized:
            found = first
        return None if found is None else age(found.at, now)


def _slot(data: bytes | None) -> Slot | None:
    """Return a pool's present; None when it has none, as before it was initialized."""
    values = outputs(SLOT0, data)
    if values is None or values[3] == 0:
        return None
    return Slot(tick=values[1], index=values[2], cardinality=values[3], locked=not values[6])


def _observation(data: bytes | None) -> Observation | None:
    values = outputs(OBSERVATIONS, data)
    return None if values is None else Observation(values[0], values[3])
