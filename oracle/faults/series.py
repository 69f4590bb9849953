"""Faults of a series: what happens to what a feed's providers see, or to what a consumer reads.

Each is a pure function from a series to a series, so that two of them are applied in the order in which they
stand, and the order counts: a frozen feed that is scaled is not a scaled feed that is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import ClassVar, Literal

from pydantic import Field

from oracle.faults import FaultModel, Stage, faults
from oracle.fields import PositiveDecimal
from oracle.interfaces import FeedContext, SequencerFacts
from oracle.types import NoData, PriceObs, Reading

_BPS = 10_000


class _OnSeries(FaultModel):
    where: Literal["input", "output"] | None = Field(default=None, alias="stage")

    def acts_in(self) -> Stage:
        return self.where or self.stage

    def _each(
        self, steps: Sequence[int], readings: Sequence[Reading], bend: Callable[[PriceObs], Reading]
    ) -> list[Reading]:
        """Return the series with every price bent while the fault acts."""
        return [
            bend(r) if self.active(t) and isinstance(r, PriceObs) else r
            for t, r in zip(steps, readings, strict=True)
        ]


def _read_at(reading: Reading, now: Reading) -> Reading:
    """Return an older reading as it is read now."""
    return replace(reading, observed_at=now.observed_at, block=now.block)


def _raw(price: Fraction, decimals: int) -> int:
    return floor(price * int(10**decimals))


@faults.register("freeze")
class Freeze(_OnSeries):
    """The feed publishes nothing and keeps its last answer.

    Attributes
    ----------
    where
        Stage, in a file ``stage``: ``output`` unless it says ``input``.
    """

    kind: ClassVar[Literal["freeze"]] = "freeze"
    stage: ClassVar[Stage] = "output"

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series standing still at what was read before the fault."""
        out: list[Reading] = []
        for t, reading in zip(steps, readings, strict=True):
            out.append(_read_at(out[-1], reading) if self.active(t) and out else reading)
        return out


@faults.register("drop")
class Drop(_OnSeries):
    """Rounds published while it acts never arrive, also when it is over.

    Attributes
    ----------
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["drop"]] = "drop"
    stage: ClassVar[Stage] = "output"

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series without the rounds whose own time falls into the fault's."""
        out: list[Reading] = []
        for reading in readings:
            lost = (
                isinstance(reading, PriceObs)
                and reading.published_at is not None
                and self.active(reading.published_at)
            )
            out.append(_read_at(out[-1], reading) if lost and out else reading)
        return out


@faults.register("revert")
class Revert(_OnSeries):
    """Every read of the feed fails.

    Attributes
    ----------
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["revert"]] = "revert"
    stage: ClassVar[Stage] = "output"

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series with no data while the fault acts."""
        return [
            NoData(r.base, r.quote, r.source_id, r.observed_at, "the read reverts", r.block)
            if self.active(t)
            else r
            for t, r in zip(steps, readings, strict=True)
        ]


@faults.register("delay")
class Delay(_OnSeries):
    """What is read is what stood there some time ago.

    Attributes
    ----------
    delay_s
        By how much, in a file ``s``.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["delay"]] = "delay"
    stage: ClassVar[Stage] = "output"

    delay_s: int = Field(ge=1, alias="s")

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series late; at its start its first reading stands in for what was before."""
        out: list[Reading] = []
        behind = 0
        for t, reading in zip(steps, readings, strict=True):
            while behind + 1 < len(steps) and steps[behind + 1] <= t - self.delay_s:
                behind += 1
            out.append(_read_at(readings[behind], reading) if self.active(t) else reading)
        return out


@faults.register("future")
class Future(_OnSeries):
    """The feed's times run ahead.

    Attributes
    ----------
    ahead_s
        By how much, in a file ``s``.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["future"]] = "future"
    stage: ClassVar[Stage] = "output"

    ahead_s: int = Field(ge=1, alias="s")

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series with later times."""

        def ahead(obs: PriceObs) -> Reading:
            at = obs.published_at
            return obs if at is None else replace(obs, published_at=at + self.ahead_s)

        return self._each(steps, readings, ahead)


@faults.register("rollback")
class Rollback(_OnSeries):
    """The feed goes back to an earlier round.

    Attributes
    ----------
    rounds
        How many rounds back.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["rollback"]] = "rollback"
    stage: ClassVar[Stage] = "output"

    rounds: int = Field(default=1, ge=1)

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series with an earlier round in place of the latest, the first where there is none."""
        past: list[PriceObs] = []
        out: list[Reading] = []
        for t, reading in zip(steps, readings, strict=True):
            if isinstance(reading, PriceObs):
                mark = (reading.round_key, reading.published_at)
                if not past or mark != (past[-1].round_key, past[-1].published_at):
                    past.append(reading)
            back = self.active(t) and past
            out.append(_read_at(past[max(0, len(past) - 1 - self.rounds)], reading) if back else reading)
        return out


@faults.register("phase_switch")
class PhaseSwitch(_OnSeries):
    """The proxy takes another aggregator, which may have another scale than the consumer believes.

    Attributes
    ----------
    decimals
        The new aggregator's scale; the old one when left out.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["phase_switch"]] = "phase_switch"
    stage: ClassVar[Stage] = "output"

    decimals: int | None = Field(default=None, ge=0, le=36)

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series in the next phase; the answers have its scale, the consumer has the old one."""

        def switched(obs: PriceObs) -> Reading:
            mantissa = obs.mantissa if self.decimals is None else obs.scaled(self.decimals)
            told = replace(obs, mantissa=mantissa, answered_key=None)
            if obs.round_key is None or len(obs.round_key) != 2:
                return told
            return replace(told, round_key=(obs.round_key[0] + 1, obs.round_key[1]))

        return self._each(steps, readings, switched)


@faults.register("shift_decimals")
class ShiftDecimals(_OnSeries):
    """The answer has another scale than everybody believes.

    Attributes
    ----------
    by
        Powers of ten; below zero the answer is too small, rounded down.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["shift_decimals"]] = "shift_decimals"
    stage: ClassVar[Stage] = "output"

    by: int = Field(ge=-36, le=36)

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series with answers of the wrong scale."""
        factor = Fraction(10) ** self.by
        return self._each(steps, readings, lambda o: replace(o, mantissa=floor(o.mantissa * factor)))


@faults.register("clamp")
class Clamp(_OnSeries):
    """The answer is held between two values.

    Attributes
    ----------
    least, greatest
        The values, in a file ``min`` and ``max``; one may be left out.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["clamp"]] = "clamp"
    stage: ClassVar[Stage] = "output"

    least: PositiveDecimal | None = Field(default=None, alias="min")
    greatest: PositiveDecimal | None = Field(default=None, alias="max")

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series between the two values."""

        def held(obs: PriceObs) -> Reading:
            mantissa = obs.mantissa
            if self.least is not None:
                mantissa = max(mantissa, _raw(Fraction(self.least), obs.decimals))
            if self.greatest is not None:
                mantissa = min(mantissa, _raw(Fraction(self.greatest), obs.decimals))
            return replace(obs, mantissa=mantissa)

        return self._each(steps, readings, held)


@faults.register("scale")
class Scale(_OnSeries):
    """The price is seen times a ratio.

    Attributes
    ----------
    num, den
        The ratio.
    provider
        The one provider of the feed that is wrong; all of them when left out.
    where
        Stage, in a file ``stage``: ``input`` unless it says ``output``.
    """

    kind: ClassVar[Literal["scale"]] = "scale"
    stage: ClassVar[Stage] = "input"

    num: int = Field(ge=1)
    den: int = Field(ge=1)
    provider: str | None = None

    def acts_in(self) -> Stage:
        """Return ``mechanism`` for one provider of several, else as every fault of a series."""
        return "mechanism" if self.provider is not None else super().acts_in()

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series times the ratio, rounded down."""
        return self._each(steps, readings, lambda o: replace(o, mantissa=o.mantissa * self.num // self.den))


@faults.register("spike")
class Spike(_OnSeries):
    """The price is another one for a while.

    Attributes
    ----------
    value
        The price.
    dur_s
        For how long, in a file ``dur``; until `until` when left out.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["spike"]] = "spike"
    stage: ClassVar[Stage] = "input"

    value: PositiveDecimal
    dur_s: int | None = Field(default=None, ge=1, alias="dur")

    def active(self, t: int) -> bool:
        """Return whether the fault acts at `t`."""
        return super().active(t) and (self.dur_s is None or t < self.at + self.dur_s)

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series at that price."""
        value = Fraction(self.value)
        return self._each(steps, readings, lambda o: replace(o, mantissa=_raw(value, o.decimals)))


@faults.register("constant")
class Constant(_OnSeries):
    """Somebody writes a price.

    Attributes
    ----------
    value
        The price.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["constant"]] = "constant"
    stage: ClassVar[Stage] = "input"

    value: PositiveDecimal

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series at that price."""
        value = Fraction(self.value)
        return self._each(steps, readings, lambda o: replace(o, mantissa=_raw(value, o.decimals)))


@faults.register("conf")
class Conf(_OnSeries):
    """The source is less sure of its price.

    Attributes
    ----------
    bps
        Half-width of its confidence interval relative to the price.
    absolute
        The half-width itself, in a file ``abs``.
    where
        Stage, in a file ``stage``.
    """

    kind: ClassVar[Literal["conf"]] = "conf"
    stage: ClassVar[Stage] = "output"

    bps: int | None = Field(default=None, ge=0)
    absolute: PositiveDecimal | None = Field(default=None, alias="abs")

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series with that confidence."""

        def unsure(obs: PriceObs) -> Reading:
            if self.absolute is not None:
                return replace(obs, conf_abs=_raw(Fraction(self.absolute), obs.decimals))
            return replace(obs, conf_abs=abs(obs.mantissa) * (self.bps or 0) // _BPS)

        return self._each(steps, readings, unsure)


@faults.register("swap_feeds")
class SwapFeeds(FaultModel):
    """The consumer reads another feed in place of this one.

    Attributes
    ----------
    with_
        That feed, in a file ``with``; it is read as it is before its own faults of stage ``output``.
    """

    kind: ClassVar[Literal["swap_feeds"]] = "swap_feeds"
    stage: ClassVar[Stage] = "output"

    with_: str = Field(alias="with")

    def swapped(
        self, steps: Sequence[int], readings: Sequence[Reading], others: Sequence[Reading]
    ) -> list[Reading]:
        """Return the series with the other feed's readings, told as this pair's, while the fault acts."""
        return [
            replace(other, base=own.base, quote=own.quote, source_id=own.source_id) if self.active(t) else own
            for t, own, other in zip(steps, readings, others, strict=True)
        ]


@faults.register("sequencer")
class SequencerDown(FaultModel):
    """The sequencer of a layer 2 stops: nothing is published, and the uptime feed tells.

    Attributes
    ----------
    down_s
        For how long.
    """

    kind: ClassVar[Literal["sequencer"]] = "sequencer"
    stage: ClassVar[Stage] = "output"

    down_s: int = Field(ge=1)

    def active(self, t: int) -> bool:
        """Return whether the sequencer is down at `t`."""
        return self.at <= t < self.at + self.down_s

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the series standing still while the sequencer is down."""
        out: list[Reading] = []
        for t, reading in zip(steps, readings, strict=True):
            out.append(_read_at(out[-1], reading) if self.active(t) and out else reading)
        return out

    def bend_contexts(self, contexts: Sequence[FeedContext]) -> list[FeedContext]:
        """Return the contexts with what the uptime feed says from the outage on."""
        up_again = self.at + self.down_s
        return [
            c
            if c.now < self.at
            else replace(c, sequencer=SequencerFacts(1, self.at))
            if c.now < up_again
            else replace(c, sequencer=SequencerFacts(0, up_again))
            for c in contexts
        ]
