"""Plays a scenario's feeds and judges them step by step, as a guarded adapter would live.

`play` is what the feeds say: truth, bent by faults of stage ``input``, through each feed's mechanism, bent by
faults of stage ``output``. `replay` holds every reading against the guards and asks the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from contracts_abi.errors import InputError
from oracle.decisions import Adapted, AdapterSettings, LastGood, adapt
from oracle.faults import FaultModel, bend
from oracle.faults.gas import GasPrice
from oracle.faults.series import SwapFeeds
from oracle.guards import guards as registered
from oracle.interfaces import FeedContext, Guard
from oracle.mechanisms import FeedModel, Played, World
from oracle.scenario import Scenario, base_fee_at, feed_pair, keepers_cap_wei, truth_at
from oracle.snapshot import REQUIRED, contradicted, judge, longer, only_jumped, violated
from oracle.types import (
    FeedKind,
    Finding,
    GuardedPrice,
    NoData,
    PriceObs,
    PriceStatus,
)

_INPUT_DECIMALS = 36


@dataclass(frozen=True, slots=True)
class FeedMoment:
    """One feed at one step.

    Attributes
    ----------
    reading, context
        What a consumer reads, and what is known beside it.
    guarded
        What the guards make of it.
    truth
        The true price.
    deviation_bps
        The reading against the truth, signed, rounded away from zero; None without a reading.
    """

    reading: PriceObs | NoData
    context: FeedContext
    guarded: GuardedPrice
    truth: Fraction
    deviation_bps: int | None


@dataclass(frozen=True, slots=True)
class Moment:
    """One step.

    Attributes
    ----------
    t, block
        Unix seconds and block number.
    feeds
        Name to feed; parts of other feeds only where the truth of their own pair is known.
    adapted
        Name of each feed that is no reference to what the guarded adapter says of it.
    """

    t: int
    block: int
    feeds: Mapping[str, FeedMoment]
    adapted: Mapping[str, Adapted]


@dataclass(frozen=True, slots=True)
class Fired:
    """The first time that a guard was violated on a feed."""

    t: int
    feed: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Replay:
    """A scenario, step by step."""

    scenario: Scenario
    moments: tuple[Moment, ...]
    fired: tuple[Fired, ...]


# ------------------------------------------------------------------------------------------- what feeds say


def play(scenario: Scenario) -> dict[str, Played]:
    """Return what every feed says at every step, faults included."""
    stage = _Stage(scenario)
    return {name: stage.played(name) for name in scenario.feeds}


def world_of(scenario: Scenario, name: str, played: Mapping[str, Played]) -> World:
    """Return what one feed's mechanism sees.

    Parameters
    ----------
    played
        The feeds that it reads.
    """
    steps = tuple(scenario.steps())
    start, every = scenario.chain.block0, scenario.chain.block_time_s
    blocks = tuple(start + (t - steps[0]) // every for t in steps)
    truth = {pair: tuple(truth_at(scenario, pair, t) for t in steps) for pair in scenario.truth}
    own = [f for f in scenario.faults if f.feed == name]
    bending = [f for f in own if f.acts_in() == "input"]
    told = scenario.feeds[name].pairs(name)
    seen = truth | {pair: _seen(pair, steps, blocks, truth[pair], bending) for pair in told if bending}
    acts = tuple(f for f in own if f.acts_in() == "mechanism")
    return World(steps, blocks, truth, seen, played, acts)


def _seen(
    pair: str,
    steps: Sequence[int],
    blocks: Sequence[int],
    truth: Sequence[Fraction],
    bending: Sequence[FaultModel],
) -> tuple[Fraction, ...]:
    """Return the true prices as a feed's providers see them; exact where no fault touches them."""
    base, quote = pair.split("/")
    unit = 10**_INPUT_DECIMALS
    series = [
        PriceObs(base, quote, int(p * unit), _INPUT_DECIMALS, FeedKind.PUSH, pair, t, t, block)
        for t, block, p in zip(steps, blocks, truth, strict=True)
    ]
    out = []
    for before, after, true in zip(series, bend(steps, series, bending), truth, strict=True):
        if isinstance(after, NoData):
            raise InputError(
                f"a fault leaves the providers of {pair} without a price", fix="use stage output"
            )
        out.append(true if after.mantissa == before.mantissa else Fraction(after.mantissa, unit))
    return tuple(out)


class _Stage:
    """The feeds of one scenario, each played when it is first asked for."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._raw: dict[str, Played] = {}
        self._played: dict[str, Played] = {}

    def raw(self, name: str) -> Played:
        """Return a feed before its own faults of stage ``output``."""
        if name not in self._raw:
            feed: FeedModel = self._scenario.feeds[name]
            behind = {at: self.played(at) for at in feed.feeds()}
            self._raw[name] = feed.play(name, world_of(self._scenario, name, behind))
        return self._raw[name]

    def played(self, name: str) -> Played:
        """Return a feed as a consumer reads it."""
        if name in self._played:
            return self._played[name]
        raw, steps = self.raw(name), self._scenario.steps()
        readings, contexts = list(raw.readings), list(raw.contexts)
        for fault in self._scenario.faults:
            if fault.feed != name or fault.acts_in() != "output":
                continue
            if isinstance(fault, SwapFeeds):
                other = self.raw(fault.with_)
                readings = fault.swapped(steps, readings, other.readings)
                contexts = [
                    theirs if fault.active(t) else own
                    for t, own, theirs in zip(steps, contexts, other.contexts, strict=True)
                ]
            elif isinstance(fault, GasPrice):
                fees = [base_fee_at(self._scenario, t) for t in steps]
                contexts = fault.priced_out(contexts, fees, keepers_cap_wei(self._scenario))
            else:
                readings = fault.apply(steps, readings)
                contexts = fault.bend_contexts(contexts)
        self._played[name] = Played(name, tuple(readings), tuple(contexts))
        return self._played[name]


# ----------------------------------------------------------------------------------------------- judgement


def guards_of(scenario: Scenario) -> tuple[Guard, ...]:
    """Return the guards of a scenario's policy: those that it lists, else all, with its thresholds."""
    policy = scenario.policy
    if policy.guards is not None:
        return policy.guards
    own = {
        "stale": {"max_age_s": policy.max_age_s},
        "bound": {"epsilon_bps": policy.bound_eps_bps},
        "cross_dev": {"cap_bps": policy.cross_dev_bps},
    }
    several = [
        registered.build({"kind": kind, **{k: v for k, v in own.get(kind, {}).items() if v is not None}})
        for kind in registered
    ]
    return tuple(sorted(several, key=lambda guard: guard.id))


def replay(scenario: Scenario, *, guards: Sequence[Guard] | None = None, fallback: bool = True) -> Replay:
    """Play a scenario's feeds and judge them.

    Parameters
    ----------
    guards
        What every feed is held to; the policy's without any. Of the guards without whose `OK` no price is
        believed (`oracle.snapshot.REQUIRED`) those count that are among them.
    fallback
        Whether the adapter knows the references too. Without them all that keeps a price from being used is
        a guard.
    """
    held = tuple(guards_of(scenario) if guards is None else guards)
    required = REQUIRED & {str(getattr(g, "kind", "")) for g in held}
    ttl = scenario.policy.lkg_ttl_s
    settings = AdapterSettings() if ttl is None else AdapterSettings(lkg_ttl_s=ttl)
    played = play(scenario)
    # Of the parts that others are made of, those whose own price is known.
    shown = [
        name
        for name, feed in scenario.feeds.items()
        if feed.role != "part" or feed_pair(scenario, name) in scenario.truth
    ]
    # References first: only what stands by itself may confirm or contradict.
    order = sorted(shown, key=lambda name: scenario.feeds[name].role != "reference")
    pairs = {name: feed_pair(scenario, name) for name in shown}
    histories: dict[str, tuple[PriceObs, ...]] = {}
    last_good: dict[str, LastGood | None] = {}
    first: dict[tuple[str, str], Fired] = {}
    moments: list[Moment] = []
    for i, t in enumerate(scenario.steps()):
        cells: dict[str, FeedMoment] = {}
        adapted: dict[str, Adapted] = {}
        standing: dict[str, PriceObs] = {}
        doubtful: dict[str, PriceObs] = {}
        for name in order:
            reading, context = played[name].readings[i], played[name].contexts[i]
            role = scenario.feeds[name].role
            protocol = role != "reference"
            peers = [obs for other, obs in standing.items() if pairs[other] == pairs[name]]
            known = {pairs[other]: obs for other, obs in standing.items() if pairs[other] != pairs[name]}
            if protocol:
                context = replace(context, known={**context.known, **known})
            past = histories.get(name, ())
            judged = judge(reading, past, peers, context, held, required)
            against = [obs for other, obs in doubtful.items() if pairs[other] == pairs[name]]
            if protocol and against:
                judged = contradicted(
                    judged, judge(reading, past, [*peers, *against], context, held, required)
                )
            if judged.status is PriceStatus.OK and isinstance(reading, PriceObs):
                histories[name] = longer(histories.get(name, ()), reading)
                if role == "reference":
                    standing[name] = reading
            elif role == "reference" and isinstance(reading, PriceObs) and only_jumped(judged):
                doubtful[name] = reading
            chosen = judged
            if protocol:
                others = tuple(
                    cells[other].guarded
                    for other in order
                    if fallback and scenario.feeds[other].role == "reference" and pairs[other] == pairs[name]
                )
                chosen = replace(judged, others=others)
                adapted[name] = adapt(chosen, last_good.get(name), now=t, settings=settings)
                last_good[name] = adapted[name].last_good
            true = truth_at(scenario, pairs[name], t)
            cells[name] = FeedMoment(reading, context, chosen, true, _deviation_bps(reading, true))
            for found in violated(judged.findings):
                first.setdefault((name, found.guard), Fired(t, name, found))
        block = scenario.chain.block0 + (t - scenario.clock.start) // scenario.chain.block_time_s
        moments.append(Moment(t, block, {name: cells[name] for name in shown}, adapted))
    return Replay(scenario, tuple(moments), tuple(first.values()))


def _deviation_bps(reading: PriceObs | NoData, truth: Fraction) -> int | None:
    if isinstance(reading, NoData) or truth == 0:
        return None
    apart = (Fraction(reading.mantissa, 10**reading.decimals) - truth) / truth * 10_000
    return ceil(apart) if apart > 0 else -ceil(-apart)
