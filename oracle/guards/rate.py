"""G15 and G16: rates that jump, and caps that are set wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import FeedKind, Finding, GuardAction, NoData, PriceObs, Reading

_BPS = 10_000
_YEAR_S = 31_536_000


@guards.register("rate_jump")
class RateJumpGuard(GuardModel):
    """G15: an exchange rate grew faster than anything earns, fell, or hangs on a handful of shares.

    Needs a rate, and the last accepted one. A supply of a few shares convicts without it: there a donation
    sets the rate.

    Attributes
    ----------
    max_growth_bps_year
        Growth a year, linear, where the context names none; 2000, above what staking and lending paid.
    slack_bps
        Growth that is allowed at once; 50, since some rates are told once a day or once a week.
    max_drop_bps
        Fall that is allowed at once; 100, a slashing.
    min_supply_raw
        Least number of smallest shares; 1,000,000.
    memory_s
        Age at which the last accepted rate no longer speaks; a week, since rates are told daily or weekly,
        and a guard that keeps refusing what a slashing left would blind the keeper for good.
    """

    kind: ClassVar[Literal["rate_jump"]] = "rate_jump"
    id: ClassVar[str] = "G15"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-AM-PMA-1",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.PAUSE})

    max_growth_bps_year: int = Field(default=2_000, ge=0)
    slack_bps: int = Field(default=50, ge=0)
    max_drop_bps: int = Field(default=100, ge=0, lt=10_000)
    min_supply_raw: int = Field(default=1_000_000, ge=0)
    memory_s: int = Field(default=604_800, gt=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.rate` and the last of `history`."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        facts = context.rate
        supply = None if facts is None else facts.total_supply_raw
        if supply is not None and supply < self.min_supply_raw:
            message = f"only {supply} shares stand behind the rate"
            return self._verdict(
                reading, True, message, supply, f">= {self.min_supply_raw}", {"total_supply_raw": supply}
            )
        if reading.kind is not FeedKind.RATE:
            return self._not_applicable(reading, "not a rate")
        if not history or history[-1].mantissa <= 0:
            return self._not_applicable(reading, "no rate accepted before")
        last = history[-1]
        if context.now - last.observed_at > self.memory_s:
            return self._not_applicable(reading, f"the last accepted rate is over {self.memory_s} s old")
        decimals = max(last.decimals, reading.decimals)
        before, now = last.scaled(decimals), reading.scaled(decimals)
        elapsed_s = max(0, reading.observed_at - last.observed_at)
        growth = self.max_growth_bps_year
        if facts is not None and facts.max_growth_bps_year is not None:
            growth = facts.max_growth_bps_year
        up_bps = self.slack_bps + growth * elapsed_s // _YEAR_S
        change_bps = (now - before) * _BPS // before
        bad = (now - before) * _BPS > before * up_bps or (before - now) * _BPS > before * self.max_drop_bps
        inputs = {"rate": reading.mantissa, "last_rate": last.mantissa, "elapsed_s": elapsed_s}
        limits = f"-{self.max_drop_bps} to +{up_bps} bps"
        return self._verdict(
            reading,
            bad,
            f"changed by {change_bps} bps in {elapsed_s} s, limits {limits}",
            change_bps,
            limits,
            inputs,
        )


@guards.register("cap_misconfigured")
class CapGuard(GuardModel):
    """G16: a cap stands below the live rate, so that the guard itself is what is wrong.

    Needs the cap and a positive live rate. A cap is set above the live rate and grows with it; one that binds
    undervalues every account at once, and liquidations have to wait.

    Attributes
    ----------
    tolerance_bps
        How far the cap may be below the live rate; 0, since a cap that binds at all is to be looked at.
    """

    kind: ClassVar[Literal["cap_misconfigured"]] = "cap_misconfigured"
    id: ClassVar[str] = "G16"
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE_LIQUIDATIONS})

    tolerance_bps: int = Field(default=0, ge=0, lt=10_000)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.cap`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        facts = context.cap
        if facts is None:
            return self._not_applicable(reading, "no cap known")
        if facts.live <= 0:
            return self._not_applicable(reading, "no positive live rate")
        short_bps = 0 if facts.cap >= facts.live else -(-(facts.live - facts.cap) * _BPS // facts.live)
        return self._verdict(
            reading,
            short_bps > self.tolerance_bps,
            f"the cap is {short_bps} bps below the live rate"
            if short_bps
            else "the cap is above the live rate",
            f"{short_bps} bps",
            f"<= {self.tolerance_bps} bps",
            {"cap": facts.cap, "live": facts.live},
        )
