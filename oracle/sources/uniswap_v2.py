"""The mean price of a Uniswap V2 pair between two moments, from its sums of prices and seconds.

Contracts: ``UniswapV2Pair.sol`` of @uniswap/v2-core 1.0.1; ``UniswapV2OracleLibrary.sol``, ``FixedPoint.sol``
and ``ExampleOracleSimple.sol`` of Uniswap/v2-periphery. Prices are UQ112x112. Sums wrap at 2**256 and times
at 2**32, and both are meant to: differences are right as long as less than that lies between.

Traps: a pair keeps its sum as of now and no other, so that somebody has to have kept an earlier one. Two sums
of moments too close together make a spot price, which was Inverse's bug: there is a period below which there
is no price. The mean is arithmetic, so that one over it is not the mean the other way round. The sum of the
pair is that of its last touch; the time since then counts at the reserves that stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from contracts_abi.calls import Call, function
from contracts_abi.uniswap_v3 import TOKEN0, TOKEN1
from oracle.fields import Address
from oracle.interfaces import AmmFacts, FeedContext
from oracle.sources import sources
from oracle.sources.answers import UINT256_MAX, ContractSource, output, outputs
from oracle.strict import StrictModel
from oracle.types import FeedKind, PriceObs, Reading

# reserve0, reserve1, time of the last touch
GET_RESERVES = function("getReserves()(uint112,uint112,uint32)")
# Of token0 in token1, and the other way round; an oracle that keeps an earlier sum has the same getters.
PRICE0_CUMULATIVE_LAST = function("price0CumulativeLast()(uint256)")
PRICE1_CUMULATIVE_LAST = function("price1CumulativeLast()(uint256)")
BLOCK_TIMESTAMP_LAST = function("blockTimestampLast()(uint32)")

_UINT32: Final = 2**32
_UINT144: Final = 2**144
_UINT224: Final = 2**224
_UINT256: Final = UINT256_MAX + 1


@dataclass(frozen=True, slots=True)
class Sum:
    """A pair's sum of prices and seconds at one moment.

    Attributes
    ----------
    cumulative
        UQ112x112 times seconds, modulo 2**256.
    at
        Unix seconds, modulo 2**32.
    """

    cumulative: int
    at: int


def price_of_reserves(base: int, quote: int) -> int | None:
    """Return a pair's spot price as UQ112x112, rounded down; None where the library divides by zero."""
    return (quote << 112) // base if base else None


def current_sum(last: Sum, base: int, quote: int, now: int) -> Sum | None:
    """Return the sum that the pair would have if it were touched now (``currentCumulativePrices``).

    Parameters
    ----------
    last
        The pair's sum, as of its last touch.
    base, quote
        Reserves of the base and of the quote token.
    now
        Unix seconds.

    Returns
    -------
    Sum or None
        None where the library reverts: time has passed and the pair is empty.
    """
    at = now % _UINT32
    if at == last.at:
        return last
    price = price_of_reserves(base, quote)
    if price is None:
        return None
    return Sum((last.cumulative + price * elapsed(last.at, at)) % _UINT256, at)


def elapsed(start: int, end: int) -> int:
    """Return the seconds between two times of 32 bits."""
    return (end - start) % _UINT32


def average(start: Sum, end: Sum) -> int | None:
    """Return the mean price between two sums as UQ112x112, rounded down; None when no time lies between."""
    seconds = elapsed(start.at, end.at)
    if seconds == 0:
        return None
    return (end.cumulative - start.cumulative) % _UINT256 // seconds % _UINT224


def amount_out(price: int, amount: int) -> int | None:
    """Return what an amount is worth at a price in UQ112x112, rounded down (``mul`` and ``decode144``).

    Returns
    -------
    int or None
        None where the library reverts: the product has more than 256 bits.
    """
    product = price * amount
    return None if product > UINT256_MAX else (product >> 112) % _UINT144


class Earlier(StrictModel):
    """An earlier sum that somebody kept.

    Attributes
    ----------
    cumulative
        The pair's ``price0CumulativeLast`` where the base token is token0, else ``price1CumulativeLast``.
    at
        The pair's ``blockTimestampLast`` with it, unix seconds.
    """

    cumulative: int = Field(ge=0, le=UINT256_MAX)
    at: int = Field(ge=0)


@sources.register("uniswap_v2_twap")
class UniswapV2Source(ContractSource):
    """The time-weighted mean price of a Uniswap V2 pair since an earlier sum, which is kept elsewhere.

    Attributes
    ----------
    base, quote
        Symbols of the tokens.
    address
        The pair to read.
    name
        Source id; ``uniswap_v2_twap:<address>`` by default.
    base_token, quote_token
        The tokens' addresses. There is no price while the pair is of others.
    base_decimals, quote_decimals
        Scales of the tokens.
    decimals
        Scale of the price.
    period_s
        Least time since the earlier sum; below it there is no price.
    earlier
        The earlier sum itself; either this or `store`.
    store
        A contract that keeps the earlier sum, such as ``ExampleOracleSimple``.
    """

    kind: ClassVar[Literal["uniswap_v2_twap"]] = "uniswap_v2_twap"

    base_token: Address
    quote_token: Address
    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)
    decimals: int = Field(default=18, ge=0, le=36)
    period_s: int = Field(default=1_800, ge=1, lt=_UINT32)
    earlier: Earlier | None = None
    store: Address | None = None

    @model_validator(mode="after")
    def _has_one_earlier_sum(self) -> UniswapV2Source:
        if (self.earlier is None) == (self.store is None):
            raise ValueError("needs an earlier sum: either `earlier` or the `store` that keeps it")
        if self._amount_digits < 0:
            raise ValueError(
                f"a price of {self.decimals} decimals is that of 1e{self._amount_digits} raw base tokens, "
                "which is less than one"
            )
        if self.base_token == self.quote_token:
            raise ValueError(f"{self.base_token} is both base and quote token")
        return self

    @property
    def _amount_digits(self) -> int:
        """The amount whose worth in raw quote tokens is the price at its scale, as a power of ten."""
        return self.base_decimals + self.decimals - self.quote_decimals

    @property
    def _base_is_token0(self) -> bool:
        return int(self.base_token, 16) < int(self.quote_token, 16)

    def reads(self) -> list[Call[Any]]:
        """Return the pair's sum, reserves and tokens, and the earlier sum where a contract keeps it."""
        summed = PRICE0_CUMULATIVE_LAST if self._base_is_token0 else PRICE1_CUMULATIVE_LAST
        calls = [f.call(self.address) for f in (summed, GET_RESERVES, TOKEN0, TOKEN1)]
        if self.store is not None:
            calls += [summed.call(self.store), BLOCK_TIMESTAMP_LAST.call(self.store)]
        return calls

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the mean price since the earlier sum, up to the block."""
        found = self._price(results, timestamp)
        if isinstance(found, str):
            return self._no_data(found, results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            found,
            self.decimals,
            FeedKind.AMM_TWAP,
            self.source_id,
            published_at=timestamp,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return how far the mean reaches back, and the spot price."""
        start = self._earlier(results)
        if start is None or not self._within_a_turn(timestamp):
            return FeedContext(now=timestamp)
        window_s = elapsed(start.at, timestamp)
        reserves = self._reserves(results)
        spot = None if reserves is None else price_of_reserves(*reserves[:2])
        worth = None if spot is None else self._worth(spot)
        return FeedContext(now=timestamp, amm=AmmFacts(window_s, oldest_s=window_s, spot_mantissa=worth))

    def _price(self, results: Sequence[bytes | None], now: int) -> int | str:
        """Return the price, or why there is none."""
        stated = output(TOKEN0, results[2]), output(TOKEN1, results[3])
        if set(stated) != {self.base_token, self.quote_token}:
            return f"the pair is of {stated[0]} and {stated[1]}"
        start, end = self._earlier(results), self._now(results, now)
        if end is None:
            return "the pair gave no sum, or is empty"
        if start is None:
            return f"{self.store} keeps no earlier sum"
        if not self._within_a_turn(now):
            return f"the earlier sum is not of the 2**32 s before {now}"
        seconds = elapsed(start.at, end.at)
        mean = average(start, end)
        if mean is None or seconds < self.period_s:
            return f"the earlier sum is {seconds} s old, not {self.period_s} s"
        price = self._worth(mean)
        return "the price has more than 256 bits" if price is None else price

    def _within_a_turn(self, now: int) -> bool:
        """Return whether 32 bits tell the time since the earlier sum, where its whole time is known."""
        return self.earlier is None or 0 <= now - self.earlier.at < _UINT32

    def _worth(self, price: int) -> int | None:
        return amount_out(price, int(10**self._amount_digits))

    def _now(self, results: Sequence[bytes | None], now: int) -> Sum | None:
        last, reserves = output(PRICE0_CUMULATIVE_LAST, results[0]), self._reserves(results)
        if last is None or reserves is None:
            return None
        base, quote, touched_at = reserves
        return current_sum(Sum(last, touched_at), base, quote, now)

    def _reserves(self, results: Sequence[bytes | None]) -> tuple[int, int, int] | None:
        """Return the reserves of base and quote, and when they were last written."""
        values = outputs(GET_RESERVES, results[1])
        if values is None:
            return None
        reserve0, reserve1, at = values
        return (reserve0, reserve1, at) if self._base_is_token0 else (reserve1, reserve0, at)

    def _earlier(self, results: Sequence[bytes | None]) -> Sum | None:
        """Return the earlier sum; a store that was never written says zero for its time."""
        if self.earlier is not None:
            return Sum(self.earlier.cumulative, self.earlier.at % _UINT32)
        cumulative, at = output(PRICE0_CUMULATIVE_LAST, results[4]), output(BLOCK_TIMESTAMP_LAST, results[5])
        return Sum(cumulative, at) if at and cumulative is not None else None
