"""The moving average that a Curve pool keeps of its own price, and whether the pool is inside a call.

Contracts: ``CurveStableSwapNG.vy`` of curvefi/stableswap-ng, ``CurveTricryptoOptimizedWETH.vy`` of
curvefi/tricrypto-ng, ``CurveTwocryptoOptimized.vy`` of curvefi/twocrypto-ng, and the pools before them.

All price a coin in the pool's coin 0 with 18 decimals, whatever the coins' own. The average decays towards
the price after the last trade with ``exp(-t / T)``; getters state T, or the time in which half of it decays
(`Shape.half_life`).

Traps: the first pools answer the average as of their last trade, later ones bring it to the block. Stableswap
pools apply rates of wrapped coins before they price, so that the answer is that of what the coin wraps, and
let no more than 2.0 into the average. Those deployed before 2023-12-12 09:39:35 UTC with rates, or with coins
of other than 18 decimals, have a wrong average after an unbalanced withdrawal. ``get_p`` and ``last_price``
are spot prices. ``get_virtual_price`` of old pools with ether can be read in the middle of a withdrawal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from contracts_abi.calls import Call, Function, function
from oracle.interfaces import AmmFacts, FeedContext
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS: Final = 18
ONE: Final = 10**DECIMALS
BALANCES = function("balances(uint256)(uint256)")
LAST_PRICES_TIMESTAMP = function("last_prices_timestamp()(uint256)")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the getters of one generation of pools are called and mean.

    Attributes
    ----------
    average, spot
        The moving average and the price after the last trade; with an index where there may be many coins.
    time
        How fast the average decays.
    half_life
        What to multiply and divide that by to get T; None where it is T.
    guarded
        Whether the pool's lock also refuses reads of the average.
    stored
        Whether the average may be that of the last trade.
    """

    average: Function
    spot: Function
    time: Function
    half_life: tuple[int, int] | None = None
    guarded: bool = False
    stored: bool = False


_ONE_PRICE, _MANY_PRICES = "price_oracle()(uint256)", "price_oracle(uint256)(uint256)"
_ONE_LAST, _MANY_LAST = "last_prices()(uint256)", "last_prices(uint256)(uint256)"
_LN_2 = (1_000_000, 693_147)
# ``ma_time()`` states its parameter times 694 / 1000.
_MA_TIME = (1_000, 694)

SHAPES: Final = {
    "stable_ng": Shape(
        function(_MANY_PRICES),
        function("last_price(uint256)(uint256)"),
        function("ma_exp_time()(uint256)"),
        guarded=True,
    ),
    "stable": Shape(
        function(_ONE_PRICE), function("last_price()(uint256)"), function("ma_exp_time()(uint256)")
    ),
    "tricrypto_ng": Shape(
        function(_MANY_PRICES), function(_MANY_LAST), function("ma_time()(uint256)"), _MA_TIME, guarded=True
    ),
    "twocrypto_ng": Shape(
        function(_ONE_PRICE), function(_ONE_LAST), function("ma_time()(uint256)"), _MA_TIME
    ),
    "tricrypto": Shape(
        function(_MANY_PRICES), function(_MANY_LAST), function("ma_half_time()(uint256)"), _LN_2, stored=True
    ),
    "twocrypto": Shape(
        function(_ONE_PRICE), function(_ONE_LAST), function("ma_half_time()(uint256)"), _LN_2, stored=True
    ),
}

# Calls that change nothing and that the lock refuses. They are made, not sent: their effects are forgotten.
PROBES: Final = {
    "get_virtual_price": (function("get_virtual_price()(uint256)"), ()),
    "claim_admin_fees": (function("claim_admin_fees()"), ()),
    "remove_liquidity": (function("remove_liquidity(uint256,uint256[2])"), (0, (0, 0))),
}


def average_time(stated: int, half_life: tuple[int, int] | None) -> int:
    """Return the time in which the average decays to 1/e, seconds, rounded down."""
    if half_life is None:
        return stated
    numerator, denominator = half_life
    return stated * numerator // denominator


def inverted(price: int) -> int:
    """Return one over a price of 18 decimals, rounded down.

    Raises
    ------
    ZeroDivisionError
        If the price is zero.
    """
    return ONE * ONE // price


@sources.register("curve_ema")
class CurveEmaSource(ContractSource):
    """A Curve pool's moving average of the price of one of its coins (``price_oracle``).

    Attributes
    ----------
    base, quote
        Symbols of the coin and of the pool's coin 0; the other way round with `inverse`.
    address
        The pool to read.
    name
        Source id; ``curve_ema:<address>`` by default.
    pool
        Which generation of pools it is of: ``stable_ng``, ``stable``, ``tricrypto_ng``, ``twocrypto_ng``,
        ``tricrypto``, ``twocrypto``.
    coin
        The pool's number of the coin.
    inverse
        Whether coin 0 is what is priced, in the coin.
    probe
        What tells whether the pool is inside a call: ``get_virtual_price`` where that is guarded,
        ``claim_admin_fees``, or ``remove_liquidity`` of nothing, with two coins. Some pools revert on the
        last one always. A call that the pool does not have looks as if the pool were locked.
    """

    kind: ClassVar[Literal["curve_ema"]] = "curve_ema"

    pool: Literal["stable_ng", "stable", "tricrypto_ng", "twocrypto_ng", "tricrypto", "twocrypto"]
    coin: int = Field(default=1, ge=1, le=7)
    inverse: bool = False
    probe: Literal["get_virtual_price", "claim_admin_fees", "remove_liquidity"] | None = None

    def reads(self) -> list[Call[Any]]:
        """Return the average, the last price, how fast it decays, a balance, its time and the probe."""
        shape = SHAPES[self.pool]
        # Pools number prices from the first that is not one: coin 0 has none.
        calls = [
            f.call(self.address, *([self.coin - 1] if f.inputs else [])) for f in (shape.average, shape.spot)
        ]
        calls += [shape.time.call(self.address), BALANCES.call(self.address, 0)]
        if shape.stored:
            calls.append(LAST_PRICES_TIMESTAMP.call(self.address))
        if self.probe is not None:
            asked, arguments = PROBES[self.probe]
            calls.append(asked.call(self.address, *arguments))
        return calls

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the average, 18 decimals; it is of the block, or of the last trade in the first pools."""
        shape = SHAPES[self.pool]
        price = output(shape.average, results[0])
        if price is None:
            return self._no_data("price_oracle() gave no price", results[0], block, timestamp)
        if price == 0 and self.inverse:
            return self._no_data("price_oracle() is zero", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            inverted(price) if self.inverse else price,
            DECIMALS,
            FeedKind.AMM_EMA,
            self.source_id,
            published_at=output(LAST_PRICES_TIMESTAMP, results[4]) if shape.stored else timestamp,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return how fast the average decays, as its window, the last price, and whether it is locked."""
        shape = SHAPES[self.pool]
        stated, last = output(shape.time, results[2]), output(shape.spot, results[1])
        if last is not None and self.inverse:
            last = inverted(last) if last else None
        window_s = None if stated is None else average_time(stated, shape.half_life)
        facts = None if window_s is None else AmmFacts(window_s, spot_mantissa=last)
        return FeedContext(now=timestamp, amm=facts, locked=self._locked(shape, results))

    def _locked(self, shape: Shape, results: Sequence[bytes | None]) -> bool | None:
        """Return whether the pool is inside a call; None where nothing that the lock refuses was asked.

        An empty pool has no virtual price, and an address without code refuses nothing: both are unknown.
        """
        if self.probe is not None:
            return results[-1] is None if output(BALANCES, results[3]) else None
        return False if shape.guarded and output(shape.average, results[0]) is not None else None
