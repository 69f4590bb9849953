"""What a price is, what a guard says of it, and what is left when both are done.

All prices are exact integers with a scale; nothing here is a float. Two times are kept apart: when the
source says the price was made (`published_at`) and at which block time we read it (`observed_at`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class FeedKind(StrEnum):
    """How a price comes to be."""

    PUSH = "push"
    PULL = "pull"
    AMM_TWAP = "amm_twap"
    AMM_EMA = "amm_ema"
    AMM_SPOT = "amm_spot"
    RATE = "rate"
    COMPOSITE = "composite"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class PriceObs:
    """One observation of one price, in the normal form that every source emits.

    The price is ``mantissa / 10**decimals`` units of `quote` for one unit of `base`.

    Attributes
    ----------
    base, quote
        Symbols, for example ``ETH`` and ``USD``.
    mantissa
        Integer price; may be zero or negative when the source says so, the guards judge that.
    decimals
        Scale of `mantissa`, `conf_abs`, `bid` and `ask`.
    kind
        How the price comes to be.
    source_id
        Names the source uniquely within a configuration, for example ``chainlink:0xabc…``.
    published_at
        Unix seconds at which the source made the price; None when the source carries no time.
    observed_at
        Unix seconds of the block (or row) in which it was read.
    block
        Block number of the read; None off chain.
    round_key
        Orders the source's own rounds, for example ``(phase, round)``; None without rounds.
    conf_abs
        Half-width of the source's confidence interval; None when it states none.
    bid, ask
        Two-sided quote where the source has one.
    answered_key
        Round in which the answer was made, where the source says so; before `round_key` when an old answer
        was carried into a new round.
    raw
        The bytes that were decoded, for evidence.
    """

    base: str
    quote: str
    mantissa: int
    decimals: int
    kind: FeedKind
    source_id: str
    published_at: int | None
    observed_at: int
    block: int | None = None
    round_key: tuple[int, ...] | None = None
    conf_abs: int | None = None
    bid: int | None = None
    ask: int | None = None
    answered_key: tuple[int, ...] | None = None
    raw: bytes = field(default=b"", repr=False)

    def scaled(self, decimals: int) -> int:
        """Return the price at another scale, rounded towards minus infinity."""
        if decimals >= self.decimals:
            return self.mantissa * int(10 ** (decimals - self.decimals))
        return self.mantissa // int(10 ** (self.decimals - decimals))


@dataclass(frozen=True, slots=True)
class NoData:
    """A source that had nothing to say: it reverted, answered zeros or did not decode.

    A value of its own, so that nobody can take it for a price.
    """

    base: str
    quote: str
    source_id: str
    observed_at: int
    reason: str
    block: int | None = None
    raw: bytes = field(default=b"", repr=False)


Reading: TypeAlias = PriceObs | NoData


class GuardStatus(StrEnum):
    """What one guard says of one reading."""

    OK = "ok"
    VIOLATED = "violated"
    NOT_APPLICABLE = "not_applicable"


class GuardAction(StrEnum):
    """What a violated guard asks for."""

    REJECT = "reject"
    FALLBACK = "fallback"
    CLAMP = "clamp"
    PAUSE = "pause"
    PAUSE_LIQUIDATIONS = "pause_liquidations"


@dataclass(frozen=True, slots=True)
class Finding:
    """One guard's judgement of one reading, complete enough to be evidence.

    Attributes
    ----------
    guard
        Guard id, for example ``G03``.
    name
        Guard name, for example ``stale``.
    source_id
        The source judged.
    status
        `OK`, `VIOLATED`, or `NOT_APPLICABLE` when an input of the guard is missing.
    observed, threshold
        The value measured and the limit it was held against, as text with unit; empty when not applicable.
    actions
        What the guard asks for; empty unless violated.
    message
        One line for people.
    inputs
        Every input that the judgement used, as text.
    """

    guard: str
    name: str
    source_id: str
    status: GuardStatus
    observed: str
    threshold: str
    actions: frozenset[GuardAction]
    message: str
    inputs: Mapping[str, str] = field(default_factory=dict)


class PriceStatus(StrEnum):
    """Whether a price may be used."""

    OK = "ok"
    REFUSED = "refused"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class GuardedPrice:
    """A price after the guards.

    Attributes
    ----------
    reading
        What the chosen source said.
    status
        `OK` only when no guard rejected the reading. `REFUSED` and `MISSING` are unknown, never zero.
    findings
        All judgements, of all sources that were asked.
    required
        Names of the guards without whose `OK` the price is refused.
    others
        What the sources that were not chosen said, each judged by itself.
    """

    reading: Reading
    status: PriceStatus
    findings: tuple[Finding, ...] = ()
    required: frozenset[str] = frozenset()
    others: tuple[GuardedPrice, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a source was refused: the violated guards, and the required ones that could not judge."""
        return tuple(
            f"{f.guard} {f.message}"
            for f in self.findings
            if f.status is GuardStatus.VIOLATED
            or (f.status is GuardStatus.NOT_APPLICABLE and f.name in self.required)
        )


@dataclass(frozen=True, slots=True)
class PriceSnapshot:
    """Prices of many assets at one block, in one quote currency.

    Attributes
    ----------
    view
        Whose view it is: ``protocol``, ``reference`` or a source's name.
    block, timestamp
        The block read, and its time in unix seconds.
    quote
        Quote symbol of all prices.
    prices
        Asset symbol to guarded price.
    """

    view: str
    block: int
    timestamp: int
    quote: str
    prices: Mapping[str, GuardedPrice]

    def price_at(self, asset: str, decimals: int) -> int | None:
        """Return the price times ``10**decimals``, rounded down.

        None when it is unknown, and when it rounds to nothing at that scale: a price that cannot be said is
        not a price of zero.
        """
        price = self.prices.get(asset)
        if price is None or price.status is not PriceStatus.OK or isinstance(price.reading, NoData):
            return None
        scaled = price.reading.scaled(decimals)
        return scaled if scaled > 0 else None

    def price_e8(self, asset: str) -> int | None:
        """Return `price_at` eight decimals."""
        return self.price_at(asset, 8)

    def unknown(self) -> tuple[str, ...]:
        """Return the assets without a usable price, sorted."""
        return tuple(sorted(a for a in self.prices if self.price_e8(a) is None))
