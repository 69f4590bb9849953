"""The history of a Chainlink proxy as reads: which rounds to ask for next, and what their answers mean.

A proxy counts the aggregators behind it in phases, and each aggregator counts its rounds. Nothing on the
contracts lists them, so all are asked for, from the newest to the oldest: `survey` finds the phases and the
last round of each, and a `Walk` goes through them backwards. Neither opens a connection: both say what they
want to know as `Call`s and take the answers, so a walk can be stopped anywhere, written down and taken up.

Two aggregators report side by side around a change of phase, and a proxy answers for all rounds of both. What
a reader of the proxy saw is one of them at a time: rounds of an aggregator from before it was the proxy's and
from after it was replaced are left out, and counted. When a phase began is on no contract either; where
nobody says (`Phase.starts_at`), a new aggregator is taken to count from its first round. One that was the
proxy's before cannot be: it counts from the last round of the aggregator that it replaces.

Contracts: ``AggregatorProxy.sol``, ``FluxAggregator.sol`` of @chainlink/contracts 0.8.0 (src/v0.6). A round
without data reverts there; OCR aggregators and MockV3Aggregator answer zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, TypeVar

from contracts_abi.calls import Call, Function
from contracts_abi.errors import DataError, InputError
from contracts_abi.feeds import (
    DECIMALS,
    DESCRIPTION,
    GET_ROUND_DATA,
    LATEST_ROUND,
    LATEST_ROUND_DATA,
    PHASE_AGGREGATORS,
    PHASE_ID,
    join_round_id,
    split_round_id,
)

ZERO_ADDRESS: Final = "0x" + "00" * 20

LAST_ROUND: Final = 2**32 - 1
"""Aggregators count their rounds in a uint32; a larger round is none that can be walked down from."""

WINDOW: Final = 16
"""Rounds that a search looks at in one place: a run of missing ones that is longer hides what comes after."""

T = TypeVar("T")
Answers = Sequence[bytes | None]
Asking = Generator[tuple[Call[Any], ...], Answers, T]
"""Yields reads of one block, takes their return data in order (None where one reverted), returns a result."""


@dataclass(frozen=True, slots=True)
class Round:
    """A round as the proxy tells it.

    Attributes
    ----------
    round_id
        The proxy's id: phase and round in one.
    answer
        At the aggregator's decimals.
    started_at, updated_at
        Unix seconds.
    answered_in_round
        Id of the round that the answer is from; an older one where an answer was carried over.
    """

    round_id: int
    answer: int
    started_at: int
    updated_at: int
    answered_in_round: int

    @property
    def place(self) -> tuple[int, int]:
        """What rounds are ordered by: the time, and the id within it."""
        return self.updated_at, self.round_id


@dataclass(frozen=True, slots=True)
class Phase:
    """One aggregator's time behind a proxy.

    Attributes
    ----------
    number
        Counts from 1.
    aggregator
        Its address; the zero address where the proxy names none.
    last
        Its newest round; 0 when it has none.
    searched
        Whether `last` was searched for, because the aggregator does not tell its latest round.
    decimals
        As the aggregator says; None when it does not.
    starts_at
        Unix seconds at which the proxy took the aggregator; None while nobody knows.
    assumed
        Whether `starts_at` is only the last round of the aggregator before.
    """

    number: int
    aggregator: str
    last: int
    searched: bool = False
    decimals: int | None = None
    starts_at: int | None = None
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class ProxyFeed:
    """A proxy with its phases, as of one block.

    Attributes
    ----------
    address
        Of the proxy, checksummed.
    description, decimals
        As the proxy says.
    phases
        In order; the last one is the current.
    """

    address: str
    description: str
    decimals: int
    phases: tuple[Phase, ...]

    @property
    def rounds(self) -> int:
        """How many round ids there are to ask for."""
        return sum(phase.last for phase in self.phases)


def decoded(call: Function, data: bytes | None) -> tuple[Any, ...] | None:
    """Return a function's outputs, or None when the read failed or answered something else."""
    if not data:
        return None
    try:
        return call.decode(data)
    except DataError:
        return None


def _one(call: Function, data: bytes | None) -> Any:
    values = decoded(call, data)
    return None if values is None else values[0]


def _round(data: bytes | None) -> Round | None:
    values = decoded(GET_ROUND_DATA, data)
    return None if values is None else Round(*values)


def _is_there(data: bytes | None) -> bool:
    found = _round(data)
    return found is not None and found.updated_at > 0


def drive(asking: Asking[T], execute: Callable[[Sequence[Call[Any]]], Answers]) -> T:
    """Return what a generator of reads comes to; `execute` answers them."""
    try:
        reads = next(asking)
        while True:
            reads = asking.send(execute(reads))
    except StopIteration as done:
        result: T = done.value
        return result


# ------------------------------------------------------------------------------------------------- survey


def survey(proxy: str) -> Asking[ProxyFeed]:
    """Ask for the phases of a proxy and the last round of each.

    Parameters
    ----------
    proxy
        Checksummed address.

    Raises
    ------
    InputError
        If there is no proxy with phases at the address.
    """
    phase_id, latest, decimals, description = yield tuple(
        f.call(proxy) for f in (PHASE_ID, LATEST_ROUND_DATA, DECIMALS, DESCRIPTION)
    )
    current = _one(PHASE_ID, phase_id)
    scale = _one(DECIMALS, decimals)
    if not current:
        known = decoded(LATEST_ROUND_DATA, latest) is not None
        what = "a feed without phases" if known else "no Chainlink feed"
        raise InputError(f"{proxy} is {what}: phaseId() gives none", fix="give the address of the proxy")
    if scale is None:
        raise InputError(f"{proxy} is no Chainlink feed: decimals() gives none", fix="check the address")
    named = yield tuple(PHASE_AGGREGATORS.call(proxy, n) for n in range(1, current + 1))
    aggregators = [_one(PHASE_AGGREGATORS, data) or ZERO_ADDRESS for data in named]
    told = decoded(LATEST_ROUND_DATA, latest)
    phases = yield from _phases(proxy, aggregators, None if told is None else Round(*told))
    phases = yield from _reused(proxy, phases)
    return ProxyFeed(proxy, _one(DESCRIPTION, description) or "", scale, phases)


def _phases(proxy: str, aggregators: Sequence[str], latest: Round | None) -> Asking[tuple[Phase, ...]]:
    # An aggregator may serve several phases; each is asked once.
    distinct = tuple(a for a in dict.fromkeys(aggregators) if a != ZERO_ADDRESS)
    answers = yield tuple(f.call(a) for a in distinct for f in (LATEST_ROUND, DECIMALS))
    last = {a: _one(LATEST_ROUND, answers[2 * i]) for i, a in enumerate(distinct)}
    scale = {a: _one(DECIMALS, answers[2 * i + 1]) for i, a in enumerate(distinct)}
    found: list[Phase] = []
    for number, aggregator in enumerate(aggregators, start=1):
        if aggregator == ZERO_ADDRESS:
            found.append(Phase(number, aggregator, 0))
            continue
        newest = last[aggregator]
        if newest is None and latest is not None and number == split_round_id(latest.round_id).phase:
            newest = split_round_id(latest.round_id).round
        searched = newest is None
        if newest is None:
            newest = yield from last_round(proxy, number)
        if newest > LAST_ROUND:
            raise InputError(
                f"{proxy}: phase {number} tells of round {newest}, and aggregators count up to {LAST_ROUND}",
                fix="check that this is a Chainlink proxy",
            )
        found.append(Phase(number, aggregator, newest, searched, scale[aggregator]))
    return tuple(found)


def _reused(proxy: str, phases: tuple[Phase, ...]) -> Asking[tuple[Phase, ...]]:
    """Let a phase whose aggregator was the proxy's before begin after the last round of the one between."""
    seen: set[str] = set()
    late: list[tuple[Phase, Phase]] = []
    for i, phase in enumerate(phases):
        before = phases[i - 1]
        if phase.aggregator in seen and before.last and before.aggregator != phase.aggregator:
            late.append((phase, before))
        seen.add(phase.aggregator)
    if not late:
        return phases
    answers = yield tuple(
        GET_ROUND_DATA.call(proxy, join_round_id(before.number, before.last)) for _, before in late
    )
    starts: dict[int, int] = {}
    for (phase, _), data in zip(late, answers, strict=True):
        ended = _round(data)
        if ended is not None and ended.updated_at:
            starts[phase.number] = ended.updated_at + 1
    return tuple(
        replace(p, starts_at=starts[p.number], assumed=True) if p.number in starts else p for p in phases
    )


def last_round(proxy: str, phase: int) -> Asking[int]:
    """Search for the last round of a phase, by doubling and then by narrowing down.

    Parameters
    ----------
    proxy
        Checksummed address.
    phase
        Its phase to search in.

    Returns
    -------
    int
        The last round with data; 0 when none was found. Up to `WINDOW` missing rounds in a row are seen
        through.
    """

    def window(at: int) -> tuple[Call[Any], ...]:
        return tuple(GET_ROUND_DATA.call(proxy, join_round_id(phase, r)) for r in range(at, at + WINDOW))

    def highest(at: int, answers: Answers) -> int:
        return max((at + i for i, data in enumerate(answers) if _is_there(data)), default=0)

    powers = [1 << i for i in range(33)]
    answers = yield tuple(call for at in powers for call in window(at))
    low = max(highest(at, answers[i * WINDOW : (i + 1) * WINDOW]) for i, at in enumerate(powers))
    if not low:
        return 0
    # Round `low` is there, and none of the window at `high` is.
    high = next((at for at in powers if at > low), low + 1)
    while high - low > 1:
        middle = (low + high) // 2
        answers = yield window(middle)
        found = highest(middle, answers)
        low, high = (found, high) if found else (low, middle)
    return low


# ----------------------------------------------------------------------------------------------- switches


def switches(current: int, newest: int) -> Generator[int, int, dict[int, int] | None]:
    """Search for the block in which a proxy took each aggregator after its first.

    Yields numbers of blocks and takes the proxy's phase after each, 0 where it gives none. Only a node that
    keeps old states can tell.

    Parameters
    ----------
    current
        The phase now.
    newest
        The newest block, in which `current` is the phase.

    Returns
    -------
    dict or None
        Phase to its first block, from phase 2 on. None when the answers are none of a proxy: phases come one
        after another, so one that nothing came before tells of a node that forgets.
    """
    seen = {newest: current}
    found: dict[int, int] = {}
    for phase in range(2, current + 1):
        low = max((b for b, p in seen.items() if p < phase), default=-1)
        high = min(b for b, p in seen.items() if p >= phase)
        while high - low > 1:
            middle = (low + high) // 2
            seen[middle] = yield middle
            low, high = (low, middle) if seen[middle] >= phase else (middle, high)
        if seen.get(low, 0) == 0:
            return None
        found[phase] = high
    return found


def with_starts(feed: ProxyFeed, starts: Mapping[int, int]) -> ProxyFeed:
    """Return a feed whose phases begin at these unix seconds, by number; others keep what they have."""
    return replace(
        feed,
        phases=tuple(
            replace(p, starts_at=starts[p.number], assumed=False) if p.number in starts else p
            for p in feed.phases
        ),
    )


# --------------------------------------------------------------------------------------------------- walk


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the round ids that were asked for.

    Attributes
    ----------
    rows
        Rounds that are part of the history.
    reverted, zeros
        Rounds without data, by how the aggregator says so.
    before
        Rounds of an aggregator from before it was the proxy's.
    after
        Rounds of an aggregator from after it was replaced.
    disordered
        Rounds that claim to be newer than the round after them in the same phase.
    newer
        Rounds after the end of the time asked for.
    """

    rows: int = 0
    reverted: int = 0
    zeros: int = 0
    before: int = 0
    after: int = 0
    disordered: int = 0
    newer: int = 0


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk through a proxy's rounds, from the newest to the oldest, at one place of it.

    Attributes
    ----------
    feed
        What is walked through.
    since, until
        First and last second of the time asked for; None for no limit.
    phase, next_round
        The next round to ask for; both 0 when the walk is over.
    oldest
        Place of the oldest round of the history so far.
    carried
        The round that each aggregator had told last when the proxy took it, newest first: part of the history
        if it turns out to be newer than what the proxy told until then.
    counts
        What became of the rounds so far.
    """

    feed: ProxyFeed
    since: int | None = None
    until: int | None = None
    phase: int = 0
    next_round: int = 0
    oldest: tuple[int, int] | None = None
    carried: tuple[Round, ...] = ()
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def start(cls, feed: ProxyFeed, *, since: int | None = None, until: int | None = None) -> Walk:
        """Return a walk at its beginning, the newest round of the newest phase.

        Raises
        ------
        InputError
            If `since` is after `until`.
        """
        if since is not None and until is not None and since > until:
            raise InputError(f"since {since} is after until {until}", fix="swap them")
        return cls(feed, since, until)._from_phase(len(feed.phases))

    @property
    def done(self) -> bool:
        """Whether there is nothing more to ask for."""
        return self.phase == 0

    @property
    def asked(self) -> int:
        """How many of `ProxyFeed.rounds` are behind us."""
        if self.done:
            return self.feed.rounds
        below = sum(p.last for p in self.feed.phases[: self.phase - 1])
        return self.feed.rounds - below - self.next_round

    def reads(self, limit: int) -> tuple[Call[Any], ...]:
        """Return the next reads, at most `limit` and all of one phase; none when the walk is over."""
        first = max(self.next_round - limit, 0)
        return tuple(
            GET_ROUND_DATA.call(self.feed.address, join_round_id(self.phase, r))
            for r in range(self.next_round, first, -1)
        )

    def step(self, answers: Answers) -> tuple[Walk, tuple[Round, ...]]:
        """Return the walk behind the answers to its next reads, and the rounds of the history among them.

        Parameters
        ----------
        answers
            Return data of `reads`, in order; None where a read reverted.

        Raises
        ------
        DataError
            If a round has the id of another one.
        """
        walk, rows = self, list[Round]()
        for data in answers:
            if walk.phase != self.phase:
                break  # the rest of the phase does not matter
            walk, more = walk._after(data)
            rows += more
        return walk, tuple(rows)

    def _after(self, data: bytes | None) -> tuple[Walk, tuple[Round, ...]]:
        asked = join_round_id(self.phase, self.next_round)
        found = _round(data)
        if found is None:
            return self._count(reverted=1)._next()
        if found.updated_at == 0:
            return self._count(zeros=1)._next()
        if found.round_id != asked:
            raise DataError(f"{self.feed.address}: asked for round {asked}, got round {found.round_id}")
        starts_at = self.feed.phases[self.phase - 1].starts_at
        if starts_at is not None and found.updated_at < starts_at:
            # Times only fall from here on: the rest of the phase is from before as well.
            return self._carry(found)._count(before=self.next_round - 1)._leave_phase()
        ends_at = next((p.starts_at for p in self.feed.phases[self.phase :] if p.starts_at is not None), None)
        if ends_at is not None and found.updated_at >= ends_at:
            return self._count(after=1)._next()
        if self.until is not None and found.updated_at > self.until:
            return self._count(newer=1)._next()
        if self.since is not None and found.updated_at < self.since:
            # What older phases have from after this round is from after they were replaced.
            return self._over()
        if self.oldest is not None and found.place >= self.oldest:
            same = split_round_id(self.oldest[1]).phase == self.phase
            return (self._count(disordered=1) if same else self._count(after=1))._next()
        walk, rows = self._settle(found)
        walk, more = replace(walk._count(rows=1), oldest=found.place)._next()
        return walk, (*rows, found, *more)

    def _carry(self, found: Round) -> Walk:
        """Keep the last round from before a phase, and forget those that it is newer than."""
        kept = tuple(r for r in self.carried if r.place > found.place)
        dropped = len(self.carried) - len(kept)
        return replace(self._count(before=dropped), carried=(*kept, found))

    def _settle(self, found: Round | None) -> tuple[Walk, tuple[Round, ...]]:
        """Decide on the rounds carried into their phases, of which `found` is the next older one."""
        rows = tuple(
            r
            for r in self.carried
            if (found is None or r.place > found.place)
            and (self.oldest is None or r.place < self.oldest)
            and (self.since is None or r.updated_at >= self.since)
            and (self.until is None or r.updated_at <= self.until)
        )
        walk = self._count(rows=len(rows), before=len(self.carried) - len(rows))
        return replace(walk, carried=(), oldest=rows[-1].place if rows else self.oldest), rows

    def _next(self) -> tuple[Walk, tuple[Round, ...]]:
        if self.next_round > 1:
            return replace(self, next_round=self.next_round - 1), ()
        return self._leave_phase()

    def _leave_phase(self) -> tuple[Walk, tuple[Round, ...]]:
        walk = self._from_phase(self.phase - 1)
        return walk._over() if walk.done else (walk, ())

    def _over(self) -> tuple[Walk, tuple[Round, ...]]:
        walk, rows = self._settle(None)
        return replace(walk, phase=0, next_round=0), rows

    def _from_phase(self, number: int) -> Walk:
        """Return the walk at the end of the newest phase that has rounds, up to `number`."""
        found = next((p for p in reversed(self.feed.phases[:number]) if p.last), None)
        if found is None:
            return replace(self, phase=0, next_round=0)
        return replace(self, phase=found.number, next_round=found.last)

    def _count(self, **more: int) -> Walk:
        now = asdict(self.counts)
        return replace(self, counts=Counts(**{**now, **{name: now[name] + n for name, n in more.items()}}))
