"""Oracles: venues believe what a feed last published, not what the market pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.draws import uniforms
from simulation.contagion.told import Told, require_feed, told
from simulation.contagion.world import World
from simulation.types import Bool, Float64, Int64

E8 = 1e8
_CHANNEL = 1


class FeedRule(StrictModel):
    """How the feed of a token publishes, and what a venue makes of it.

    Attributes
    ----------
    deviation_bps
        Move that makes it publish.
    heartbeat_s
        Longest time between two answers.
    latency_steps
        Steps from the decision to publish to the block that has the answer.
    miss
        Probability that a step's block does not include a waiting answer (congestion).
    min_answer, max_answer
        US dollars beyond which the aggregator does not answer.
    max_growth_yearly_bps
        Cap of the growth of a staked token's price in its backing a year, as Aave's CAPO has; None without.
    source
        ``market``: the token's own market price. ``redemption``: what it redeems for at its backing's price,
        so that a discount on the market is not seen.
    """

    deviation_bps: Annotated[float, Field(ge=0)] = 50
    heartbeat_s: Annotated[int, Field(gt=0)] = 3_600
    latency_steps: Annotated[int, Field(ge=0)] = 1
    miss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_answer: Annotated[float, Field(ge=0)] = 0.0
    max_answer: Annotated[float, Field(gt=0)] = 1e30
    max_growth_yearly_bps: Annotated[float, Field(ge=0)] | None = None
    source: Literal["market", "redemption"] = "market"


class FeedFault(StrictModel):
    """Something wrong with a feed for a while.

    Attributes
    ----------
    token
        Whose feed.
    venue
        In which venue only; None for all.
    op
        ``freeze`` publishes nothing; ``scale`` publishes `value` times the truth; ``fix`` publishes `value`.
    from_step, until_step
        First and last step of it.
    value
        See `op`.
    """

    token: str
    op: Literal["freeze", "scale", "fix"]
    from_step: Annotated[int, Field(ge=0)]
    until_step: Annotated[int, Field(ge=0)]
    value: Annotated[float, Field(gt=0)] = 1.0
    venue: str | None = None


class Incident(StrictModel):
    """A feed of an oracle scenario whose errors a token's price has here, see `simulation.contagion.told`.

    Attributes
    ----------
    token
        Whose price.
    source
        Id of a packaged incident (``marginline oracle incidents``), or a scenario file.
    feed
        Name of the feed there.
    venue
        In which venue only; None for all.
    guarded
        Whether liquidations wait while the guarded adapter of the oracle layer refuses the price.
    """

    token: str
    source: str
    feed: str
    venue: str | None = None
    guarded: bool = False


class OracleGuards(StrictModel):
    """When a venue, or its keepers, do not act on a price: the same questions as `oracle.guards` asks live.

    Attributes
    ----------
    max_age_s
        Oldest answer that is acted on; None does not ask.
    max_deviation_bps
        Largest distance from the market that is acted on; None does not ask.
    max_jump_bps
        Largest step between two answers that is acted on at once; None does not ask.
    """

    max_age_s: Annotated[int, Field(gt=0)] | None = None
    max_deviation_bps: Annotated[float, Field(gt=0)] | None = None
    max_jump_bps: Annotated[float, Field(gt=0)] | None = None


@dataclass(slots=True)
class _Memo:
    deviation: Float64
    heartbeat: Float64
    latency: Int64
    miss: Float64
    low: Float64
    high: Float64
    growth: Float64
    redeems: Bool
    backing: Int64
    rate: Float64
    updated: Float64
    previous: Float64
    waiting: Float64
    due: Int64
    capped_from: Float64
    told: tuple[tuple[Incident, Told], ...]


@channels.register("oracle")
class OracleChannel(Channel):
    """Feeds that publish by deviation and heartbeat, with latency, bounds, caps, faults and guards.

    Off, every venue believes the market's price in every step.

    Attributes
    ----------
    default
        The rule of every feed that is not listed.
    feeds
        Token to its rule.
    faults
        What goes wrong, and when.
    incidents
        Feeds of oracle scenarios that bend prices here; such a price follows no rule of publishing.
    guards
        When a price is not acted on; none by default.
    """

    kind: ClassVar[Literal["oracle"]] = "oracle"
    order: ClassVar[int] = 20
    always: ClassVar[bool] = True

    default: FeedRule = FeedRule()
    feeds: dict[str, FeedRule] = Field(default_factory=dict)
    faults: tuple[FeedFault, ...] = ()
    incidents: tuple[Incident, ...] = ()
    guards: OracleGuards = OracleGuards()

    def check(self, world: World) -> None:
        """Refuse a feed or a fault of a token that the book has not."""
        for symbol in self.feeds:
            world.token(symbol)
        for fault in self.faults:
            world.token(fault.token)
            if fault.venue is not None:
                world.venue(fault.venue)
            if fault.until_step < fault.from_step:
                raise InputError(
                    f"channels.oracle.faults: {fault.token} from step {fault.from_step} until "
                    f"{fault.until_step}",
                    fix="a fault ends after it begins",
                )
        for incident in self.incidents:
            world.token(incident.token)
            if incident.venue is not None:
                world.venue(incident.venue)
            require_feed(incident.source, incident.feed)
        for symbol, rule in self.feeds.items():
            if rule.source == "redemption" and world.book.tokens[world.token(symbol)].backing is None:
                raise InputError(
                    f"channels.oracle.feeds.{symbol}: nothing backs {symbol}, so it has no redemption price",
                    fix='source = "market"',
                )

    def prepare(self, batch: Batch) -> Any:
        """Lay out the rules by reserve, and publish the first answers."""
        world, state = batch.world, batch.state
        rules = [self.feeds.get(symbol, self.default) for symbol in world.tokens] * len(world.venues)
        index = world.book.token_index()
        backing = np.full(len(world.tokens), -1, dtype=np.int64)
        rate = np.ones(len(world.tokens))
        for a, token in enumerate(world.book.tokens):
            if token.backing is not None:
                backing[a] = index.get(token.backing.token, -2)
                rate[a] = token.backing.rate
        shape = state.oracle.shape
        latency = np.array([r.latency_steps for r in rules], dtype=np.int64)
        memo = _Memo(
            deviation=np.array([r.deviation_bps / 1e4 for r in rules]),
            heartbeat=np.array([float(r.heartbeat_s) for r in rules]),
            latency=latency,
            miss=np.array([r.miss for r in rules]),
            low=np.array([r.min_answer for r in rules]),
            high=np.array([r.max_answer for r in rules]),
            growth=np.array(
                [np.inf if r.max_growth_yearly_bps is None else r.max_growth_yearly_bps / 1e4 for r in rules]
            ),
            redeems=np.array([r.source == "redemption" for r in rules[: len(world.tokens)]]),
            backing=backing,
            rate=rate,
            updated=np.zeros(shape),
            previous=state.oracle.copy(),
            waiting=np.full(shape, np.nan),
            due=np.zeros(shape, dtype=np.int64),
            capped_from=np.ones(shape),
            told=tuple((i, told(i.source, i.feed, batch.steps, batch.dt_s)) for i in self.incidents),
        )
        source = self._source(batch, memo)
        memo.capped_from[:] = self._in_backing(batch, memo, source)
        state.oracle[:] = published(source, memo.low, memo.high)
        memo.previous[:] = state.oracle
        return memo

    def act(self, batch: Batch, memo: _Memo) -> None:
        """Publish what is due, and judge what is published."""
        state = batch.state
        now = batch.step * batch.dt_s
        source = self._source(batch, memo)
        if np.isfinite(memo.growth).any():
            most = memo.capped_from * (1.0 + memo.growth * now / (365.0 * 86_400.0))
            in_backing = self._in_backing(batch, memo, source)
            source = np.where(in_backing > most, source * most / in_backing, source)
        frozen = self._faulted(batch, source)
        answer = published(source, memo.low, memo.high)
        moved = np.abs(answer - state.oracle) > memo.deviation * state.oracle
        old = now - memo.updated >= memo.heartbeat
        starts = (moved | old) & np.isnan(memo.waiting) & ~frozen
        memo.waiting = np.where(starts, answer, memo.waiting)
        memo.due = np.where(starts, batch.step + memo.latency, memo.due)
        lands = ~np.isnan(memo.waiting) & (batch.step >= memo.due) & ~frozen
        if (memo.miss > 0.0).any():
            draw = uniforms(state.keys, _CHANNEL, batch.step, lands.shape[1])
            lands &= draw >= memo.miss
        memo.previous = np.where(lands, state.oracle, memo.previous)
        state.oracle[:] = np.where(lands, memo.waiting, state.oracle)
        memo.updated = np.where(lands, now, memo.updated)
        memo.waiting = np.where(lands, np.nan, memo.waiting)
        self._judge(batch, memo, now, lands)
        self._follow(batch, memo)

    def _source(self, batch: Batch, memo: _Memo) -> Float64:
        """Return what the feeds look at, shape (P, R)."""
        market = batch.state.market
        seen = market
        if memo.redeems.any():
            seen = market.copy()
            for a in np.flatnonzero(memo.redeems):
                behind = market[:, memo.backing[a]] if memo.backing[a] >= 0 else 1.0
                seen[:, a] = memo.rate[a] * behind
        return np.tile(seen, (1, len(batch.world.venues)))

    def _in_backing(self, batch: Batch, memo: _Memo, source: Float64) -> Float64:
        """Return each source in units of what backs it; 1 for tokens of their own."""
        market = batch.state.market
        behind = market.copy()
        for a in np.flatnonzero(memo.backing != -1):
            behind[:, a] = market[:, memo.backing[a]] if memo.backing[a] >= 0 else 1.0
        return source / np.tile(behind, (1, len(batch.world.venues)))

    def _faulted(self, batch: Batch, source: Float64) -> Bool:
        """Change `source` where a fault says so; return where nothing is published."""
        world = batch.world
        frozen = np.zeros(source.shape[1], dtype=np.bool_)
        for fault in self.faults:
            if not fault.from_step <= batch.step <= fault.until_step:
                continue
            venues = range(len(world.venues)) if fault.venue is None else [world.venue(fault.venue)]
            at = [v * len(world.tokens) + world.token(fault.token) for v in venues]
            if fault.op == "freeze":
                frozen[at] = True
            elif fault.op == "scale":
                source[:, at] *= fault.value
            else:
                source[:, at] = fault.value
        return np.broadcast_to(frozen, source.shape)

    def _follow(self, batch: Batch, memo: _Memo) -> None:
        """Set the prices that an incident bends; where its feed said nothing, the last answer stands."""
        state, world = batch.state, batch.world
        for incident, said in memo.told:
            a = world.token(incident.token)
            venues = range(len(world.venues)) if incident.venue is None else [world.venue(incident.venue)]
            ratio = said.ratio[batch.step]
            for at in [v * len(world.tokens) + a for v in venues]:
                if not np.isnan(ratio):
                    bent = state.market[:, a] * ratio
                    state.oracle[:, at] = published(bent, memo.low[at], memo.high[at])
                if incident.guarded:
                    state.trusted[:, at] &= said.allowed[batch.step]

    def _judge(self, batch: Batch, memo: _Memo, now: float, lands: Bool) -> None:
        state, guards = batch.state, self.guards
        trusted = np.ones_like(state.trusted)
        if guards.max_age_s is not None:
            trusted &= now - memo.updated <= guards.max_age_s
        if guards.max_deviation_bps is not None:
            market = np.tile(state.market, (1, len(batch.world.venues)))
            trusted &= np.abs(state.oracle - market) <= guards.max_deviation_bps / 1e4 * market
        if guards.max_jump_bps is not None:
            jump = np.abs(state.oracle - memo.previous)
            trusted &= ~lands | (jump <= guards.max_jump_bps / 1e4 * memo.previous)
        state.trusted[:] = trusted


def published(price: Float64, low: Float64 | float, high: Float64 | float) -> Float64:
    """Return prices as a feed with eight decimals and bounds has them."""
    return np.asarray(np.clip(np.floor(price * E8) / E8, low, high))
