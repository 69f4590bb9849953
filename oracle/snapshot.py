"""From readings to a snapshot: ask every source once, judge every reading, keep what was accepted.

Nothing is remembered here. The history of accepted observations goes in as data and comes out as data, so
that a replay and a live keeper take the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from contracts_abi.calls import Call
from contracts_abi.errors import InputError
from oracle.guards import basic_guards
from oracle.interfaces import FeedContext, Guard, Source
from oracle.types import (
    FeedKind,
    Finding,
    GuardedPrice,
    GuardStatus,
    NoData,
    PriceObs,
    PriceSnapshot,
    PriceStatus,
    Reading,
)

REQUIRED = frozenset({"no_data", "non_positive", "stale"})
"""Guards without whose `OK` a price is not believed: a price of unknown age is an unknown price."""

HISTORY_LENGTH = 128
"""Enough for the first and the last reading of as many rounds as any guard looks back over."""

History: TypeAlias = Mapping[str, tuple[PriceObs, ...]]
"""Source id to its accepted observations, oldest first."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Where one asset's price comes from and what it is held to.

    Attributes
    ----------
    asset
        Symbol in the snapshot; need not be the feed's own base (WETH is priced by ETH/USD).
    sources
        In order of preference: the first whose reading stands is the price. Each is judged with those
        others as its peers that nothing is held against but an unconfirmed jump: a dead feed confirms
        nothing, and contradicts nothing.
    guards
        Judge each reading; the seven of `basic_guards` by default.
    required
        Names of guards that must say `OK`; not applicable is not enough.
    """

    asset: str
    sources: tuple[Source, ...]
    guards: tuple[Guard, ...] = field(default_factory=basic_guards)
    required: frozenset[str] = REQUIRED

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError(f"feed of {self.asset} has no source", fix="name at least one")
        ids = [s.source_id for s in self.sources]
        if len(set(ids)) != len(ids):
            raise InputError(
                f"feed of {self.asset} names a source twice ({', '.join(ids)})",
                fix="a source cannot confirm itself: remove one",
            )


def judge(
    reading: Reading,
    history: Sequence[PriceObs],
    peers: Sequence[Reading],
    context: FeedContext,
    guards: Iterable[Guard],
    required: frozenset[str] = REQUIRED,
) -> GuardedPrice:
    """Hold one reading against all guards.

    Parameters
    ----------
    reading
        What the source said.
    history
        Accepted observations of the same source, oldest first.
    peers
        Readings of other sources for the same pair at the same block.
    context
        What is known of the feed.
    guards
        All are asked, also after the first violation: each finding is evidence.
    required
        Names of guards that must say `OK`.

    Returns
    -------
    GuardedPrice
        `OK` when the reading is a price, no guard is violated and every required one says `OK`; `MISSING`
        for no data; else `REFUSED`.
    """
    findings = tuple(g.check(reading, history, peers, context) for g in guards)
    passed = {f.name for f in findings if f.status is GuardStatus.OK}
    if isinstance(reading, NoData):
        status = PriceStatus.MISSING
    elif any(f.status is GuardStatus.VIOLATED for f in findings) or not required <= passed:
        status = PriceStatus.REFUSED
    else:
        status = PriceStatus.OK
    return GuardedPrice(reading, status, findings, required)


def only_jumped(judged: GuardedPrice) -> bool:
    """Return whether nothing is held against a reading but that nobody confirmed its jump.

    A guard that has to say `OK` and could not is something that is held against it.
    """
    passed = {f.name for f in judged.findings if f.status is GuardStatus.OK}
    return {f.name for f in violated(judged.findings)} == {"jump"} and judged.required - {"jump"} <= passed


def _may_be_a_peer(alone: GuardedPrice) -> bool:
    """Return whether a reading that was judged without peers may be one: it stands, or has only jumped."""
    return alone.status is PriceStatus.OK or (only_jumped(alone) and isinstance(alone.reading, PriceObs))


def contradicted(judged: GuardedPrice, beside: GuardedPrice) -> GuardedPrice:
    """Return the judgement with what a reference has against it whose own jump nobody confirmed.

    Such a reference confirms nothing. But a market that is said to have crashed, and a price that did not
    move with it, are reason enough not to believe the price.
    """
    worse = {f.name: f for f in violated(beside.findings)}
    findings = tuple(worse.get(f.name, f) for f in judged.findings)
    status = PriceStatus.REFUSED if worse and judged.status is PriceStatus.OK else judged.status
    return replace(judged, findings=findings, status=status)


def longer(
    past: tuple[PriceObs, ...], reading: PriceObs, *, keep: int = HISTORY_LENGTH
) -> tuple[PriceObs, ...]:
    """Return the history with one more; of a round the first and the last reading are kept.

    A round is told by its key and its time: some feeds have one key for all, and some have none.
    """
    this = (reading.round_key, reading.published_at)
    if this != (None, None) and [(o.round_key, o.published_at) for o in past[-2:]] == [this] * 2:
        past = past[:-1]
    return (*past, reading)[-keep:]


def violated(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that hold something against the reading."""
    return [f for f in findings if f.status is GuardStatus.VIOLATED]


def snapshot_reads(feeds: Iterable[Feed]) -> list[Call[Any]]:
    """Return the reads of all sources of all feeds, in the order that `snapshot` takes the answers."""
    return [call for feed in feeds for source in feed.sources for call in source.reads()]


def snapshot(
    view: str,
    quote: str,
    feeds: Sequence[Feed],
    results: Sequence[bytes | None],
    history: History,
    *,
    block: int,
    timestamp: int,
) -> PriceSnapshot:
    """Decode and judge one block's answers.

    Parameters
    ----------
    view
        Names the snapshot, for example ``reference``.
    quote
        Symbol that every feed has to quote in.
    feeds
        One for each asset.
    results
        Answers of `snapshot_reads` at one block, None where a read failed.
    history
        Accepted observations up to the block before.
    block, timestamp
        The block read.

    Raises
    ------
    InputError
        If a feed quotes in something else, or two feeds price one asset.
    ValueError
        If there are not as many results as reads.
    """
    expected = len(snapshot_reads(feeds))
    if len(results) != expected:
        raise ValueError(f"{len(results)} results for {expected} reads")
    prices: dict[str, GuardedPrice] = {}
    at = 0
    for feed in feeds:
        if feed.asset in prices:
            raise InputError(f"two feeds price {feed.asset}", fix="give one feed several sources instead")
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        for source in feed.sources:
            answers = results[at : at + len(source.reads())]
            at += len(answers)
            reading = source.decode(answers, block=block, timestamp=timestamp)
            if reading.quote != quote:
                raise InputError(
                    f"source {reading.source_id} quotes {reading.base} in {reading.quote}, not in {quote}",
                    fix=f"give {feed.asset} a {feed.asset}/{quote} source",
                )
            readings.append(reading)
            contexts.append(source.context(answers, timestamp=timestamp))
        prices[feed.asset] = _choose(feed, readings, contexts, history)
    return PriceSnapshot(view, block, timestamp, quote, prices)


def _choose(
    feed: Feed, readings: Sequence[Reading], contexts: Sequence[FeedContext], history: History
) -> GuardedPrice:
    """Return the first source's price that stands, with the findings on all of them."""

    def judged_with(i: int, peers: Sequence[Reading]) -> GuardedPrice:
        past = history.get(readings[i].source_id, ())
        return judge(readings[i], past, peers, contexts[i], feed.guards, feed.required)

    judged = [judged_with(i, ()) for i in range(len(readings))]
    if len(readings) > 1:
        sound = [_may_be_a_peer(price) for price in judged]
        judged = [
            judged_with(i, [r for j, r in enumerate(readings) if j != i and sound[j]])
            for i in range(len(readings))
        ]
    order = (PriceStatus.OK, PriceStatus.REFUSED, PriceStatus.MISSING)
    best = min(judged, key=lambda price: order.index(price.status))
    return GuardedPrice(
        best.reading,
        best.status,
        tuple(f for price in judged for f in price.findings),
        feed.required,
        tuple(price for price in judged if price is not best),
    )


def accept(
    history: History, taken: PriceSnapshot, *, keep: int = HISTORY_LENGTH
) -> dict[str, tuple[PriceObs, ...]]:
    """Return the history with what stood in `taken` appended, the last `keep` observations of each source.

    The readings of the sources that were not chosen count as well. Of a round only the first and the last
    reading are kept, so that the history spans rounds and not blocks.
    """
    grown = dict(history)
    for price in (p for chosen in taken.prices.values() for p in (chosen, *chosen.others)):
        reading = price.reading
        if price.status is not PriceStatus.OK or isinstance(reading, NoData):
            continue
        grown[reading.source_id] = longer(grown.get(reading.source_id, ()), reading, keep=keep)
    return grown


def rewind(history: History, block: int) -> dict[str, tuple[PriceObs, ...]]:
    """Return the history as it was at `block`: what was read in later blocks is forgotten.

    For reorganisations: a round of an abandoned block must not make the same round of the new chain look
    like a rollback.
    """
    return {
        source: tuple(obs for obs in past if obs.block is None or obs.block <= block)
        for source, past in history.items()
    }


def plain_snapshot(
    view: str,
    quote: str,
    prices: Mapping[str, int | None],
    decimals: int,
    *,
    block: int,
    timestamp: int,
    kind: FeedKind = FeedKind.PUSH,
) -> PriceSnapshot:
    """Return prices as a contract states them, without judgement: the protocol view.

    Parameters
    ----------
    prices
        Asset symbol to price at `decimals`; None where the contract's oracle reverted. A price that is not
        positive is refused.
    """

    def price(asset: str, value: int | None) -> GuardedPrice:
        if value is None:
            missing = NoData(asset, quote, view, timestamp, "the protocol's oracle gave no price", block)
            return GuardedPrice(missing, PriceStatus.MISSING)
        obs = PriceObs(asset, quote, value, decimals, kind, view, None, timestamp, block)
        return GuardedPrice(obs, PriceStatus.OK if value > 0 else PriceStatus.REFUSED)

    return PriceSnapshot(
        view, block, timestamp, quote, {asset: price(asset, value) for asset, value in prices.items()}
    )
