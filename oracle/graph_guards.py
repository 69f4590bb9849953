"""What the guards can and cannot check of each contract in an oracle's tree.

Each guard is asked, with the contract's own reading and facts, through its own `check`; what it says is what
stands here. None of the guards' rules is written down a second time. A guard that is not applicable is asked
again with one more input at a time, of those that no contract states (a heartbeat, a second source, an
earlier reading, …): the first that makes it answer is what it needs. And it is asked with all of them about
another kind of price: a guard that answers only then is not concerned with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, reduce
from typing import Final, TypeAlias

from contracts_abi.feeds import split_round_id
from oracle.graph import OracleGraph, OracleNode
from oracle.guards import all_guards
from oracle.interfaces import (
    AmmFacts,
    AuthorityFacts,
    CapFacts,
    ExecutionFacts,
    FeedContext,
    Guard,
    LivenessFacts,
    RateFacts,
    SequencerFacts,
    VenueFacts,
)
from oracle.types import FeedKind, Finding, GuardStatus, NoData, PriceObs, Reading

_NOT_APPLICABLE: Final = "not applicable: "
_DAY_S: Final = 86_400


class Answerable(StrEnum):
    """Whether a guard has an answer at a contract."""

    CAN = "can"
    NEEDS = "needs"
    CANNOT = "cannot"
    OTHER_KIND = "other kind"


@dataclass(frozen=True, slots=True)
class GuardView:
    """One guard at one contract.

    Attributes
    ----------
    guard, name
        Id and name of the guard.
    answer
        `CAN`: it has all its inputs. `NEEDS`: one that the contract does not state is enough. `CANNOT`: none
        of those helps, what is missing would have to come from the contract. `OTHER_KIND`: it judges prices
        that come to be in another way.
    status
        What the guard said.
    reason
        Its words: of what it found, or of what it lacks.
    needs
        What would make it answer; empty unless `NEEDS`.
    """

    guard: str
    name: str
    answer: Answerable
    status: GuardStatus
    reason: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Blind:
    """A leaf that makes a guard unanswerable, and why."""

    address: str
    answer: Answerable
    reason: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class GuardOverTree:
    """One guard over the leaves of a tree, the contracts in which a number is written.

    Attributes
    ----------
    guard, name
        Id and name of the guard.
    seeing
        Leaves at which it has an answer.
    blind
        Leaves that it is concerned with and has no answer at.
    """

    guard: str
    name: str
    seeing: tuple[str, ...]
    blind: tuple[Blind, ...]

    @property
    def answerable(self) -> bool:
        """Whether it has an answer at every leaf that it is concerned with, and at one at least."""
        return bool(self.seeing) and not self.blind


@dataclass(frozen=True, slots=True)
class _Asked:
    """Everything that a guard is asked with."""

    reading: Reading
    context: FeedContext
    described: str | None = None
    history: tuple[PriceObs, ...] = ()
    peers: tuple[Reading, ...] = ()

    def of(self, guard: Guard) -> Finding:
        return guard.check(self.reading, self.history, self.peers, self.context)


def _described(asked: _Asked) -> _Asked:
    return replace(asked, context=replace(asked.context, description=asked.described))


_Supply: TypeAlias = Callable[[_Asked], _Asked]


def _heartbeat(asked: _Asked) -> _Asked:
    return replace(asked, context=replace(asked.context, heartbeat_s=_DAY_S))


def _earlier(asked: _Asked) -> _Asked:
    if isinstance(asked.reading, NoData):
        return asked
    return replace(asked, history=(*asked.history, asked.reading))


def _second(asked: _Asked) -> _Asked:
    reading = asked.reading
    if isinstance(reading, NoData):
        return asked
    peer = replace(reading, kind=FeedKind.PUSH, source_id="another source")
    return replace(asked, peers=(*asked.peers, peer))


def _other_pair(asked: _Asked) -> _Asked:
    given = _second(asked)
    if isinstance(asked.reading, NoData):
        return given
    known = {"another pair": replace(asked.reading, base="another", source_id="another pair")}
    return replace(given, context=replace(given.context, known=known))


def _fact(**facts: object) -> _Supply:
    def supply(asked: _Asked) -> _Asked:
        return replace(asked, context=replace(asked.context, **facts))  # type: ignore[arg-type]

    return supply


def _attested(asked: _Asked) -> _Asked:
    known = asked.context.authority
    setters = frozenset() if known is None or known.setters is None else known.setters
    return replace(
        asked, context=replace(asked.context, authority=AuthorityFacts(setters=setters, attested=setters))
    )


def _observed(asked: _Asked) -> _Asked:
    """Add what a source reads of a pool: how long its memory is, and its price of this moment."""
    if isinstance(asked.reading, NoData):
        return asked
    known = asked.context.amm or AmmFacts(_DAY_S)
    amm = replace(known, oldest_s=2 * known.window_s, spot_mantissa=asked.reading.mantissa)
    return replace(asked, context=replace(asked.context, amm=amm))


SUPPLIES: Final[Mapping[str, _Supply]] = {
    "heartbeat, which is not on chain: --heartbeat": _heartbeat,
    "an earlier reading": _earlier,
    "a second source": _second,
    "which pair it is to be of": _described,
    "a second source and another pair": _other_pair,
    "the kinds of its legs": _fact(legs=(FeedKind.PUSH,)),
    "the pool's observations": _observed,
    "the uptime feed of a layer 2": _fact(sequencer=SequencerFacts(0, 1)),
    "who was attested": _attested,
    "the time of the order": _fact(execution=ExecutionFacts(0, 0)),
    "the liquidators' means": _fact(liveness=LivenessFacts(0, 0, 0, 0, 10**6)),
    "the protocol's markets": _fact(markets={"any": True}),
    "venues and depth": _fact(venue=VenueFacts(0, False, 0, 0)),
}
"""What no contract states and somebody outside can: name to how a guard is asked with it.

An input is sample enough to be answered with, since only whether the guard answers counts.
"""


@cache
def _guards() -> tuple[Guard, ...]:
    return all_guards()


def node_guards(
    node: OracleNode,
    *,
    now: int,
    legs: Sequence[FeedKind] = (),
    markets: Mapping[str, bool] | None = None,
    heartbeat_s: int | None = None,
    guards: Sequence[Guard] | None = None,
) -> tuple[GuardView, ...]:
    """Return what each guard can and cannot check at a contract.

    Parameters
    ----------
    node
        The contract, as it was read.
    now
        Block time, unix seconds.
    legs
        Kinds of the leaves that its price is made of.
    markets
        Of a contract that prices each asset apart: asset to whether it can be read.
    heartbeat_s
        As the operator publishes it, for contracts that state none.
    guards
        Every registered one by default.
    """
    context = node_context(node, now, legs=legs, markets=markets, heartbeat_s=heartbeat_s)
    asked = _Asked(node_reading(node, now), context, node.description or None)
    chosen = _guards() if guards is None else guards
    return tuple(_view_apart(g, asked) if node.apart else _view(g, asked) for g in chosen)


def node_reading(node: OracleNode, now: int) -> Reading:
    """Return what a contract says as a reading; `NoData` with the reason when it says nothing."""
    base, _, quote = node.description.partition("/")
    pair = (base.strip() or "?", quote.strip() or "?")
    if node.answer is None or node.kind is None:
        return NoData(*pair, node.address, now, node.problem or "it answers no price")
    key, answered = (
        None if n is None else tuple(split_round_id(n)) for n in (node.round_id, node.answered_in)
    )
    return PriceObs(
        *pair,
        node.answer,
        # A scale that the contract does not state matters to no guard that is asked here: there is no other
        # price to hold it against.
        node.decimals or 0,
        node.kind,
        node.address,
        published_at=node.updated_at,
        observed_at=now,
        round_key=key,
        answered_key=answered,
    )


def node_context(
    node: OracleNode,
    now: int,
    *,
    legs: Sequence[FeedKind] = (),
    markets: Mapping[str, bool] | None = None,
    heartbeat_s: int | None = None,
) -> FeedContext:
    """Return what a contract states of its price beside it; see `node_guards`.

    Its description is not among it: the pair of the reading is named after it, and would be held against
    itself.
    """
    setters = frozenset((*node.roles.values(), *node.writers))
    # A stablecoin's price of zero or less cannot be held against a cap: it is none.
    capped = node.cap is not None and node.live is not None and node.live > 0
    return FeedContext(
        now=now,
        heartbeat_s=heartbeat_s if node.heartbeat_s is None else node.heartbeat_s,
        deviation_bps=node.deviation_bps,
        min_answer=node.min_answer,
        max_answer=node.max_answer,
        legs=tuple(legs),
        authority=AuthorityFacts(setters=setters) if setters else None,
        cap=CapFacts(node.cap or 0, node.live or 0) if capped else None,
        rate=_rate(node),
        amm=None if node.window_s is None else AmmFacts(node.window_s),
        locked=node.locked,
        markets=markets or None,
    )


def _rate(node: OracleNode) -> RateFacts | None:
    if node.kind is not FeedKind.RATE or node.answer is None:
        return None
    return RateFacts(node.answer, node.decimals or 0, total_supply_raw=node.supply)


def _view(guard: Guard, asked: _Asked) -> GuardView:
    found = asked.of(guard)
    reason = found.message.removeprefix(_NOT_APPLICABLE)

    def view(answer: Answerable, needs: str = "") -> GuardView:
        return GuardView(found.guard, found.name, answer, found.status, reason, needs)

    if found.status is not GuardStatus.NOT_APPLICABLE:
        return view(Answerable.CAN)
    for name, supply in SUPPLIES.items():
        if supply(asked).of(guard).status is not GuardStatus.NOT_APPLICABLE:
            return view(Answerable.NEEDS, name)
    everything = reduce(lambda given, supply: supply(given), SUPPLIES.values(), asked)
    # With the legs as they are: whether there are averages or rates among them is what a guard may ask.
    everything = replace(everything, context=replace(everything.context, legs=asked.context.legs))
    if everything.of(guard).status is not GuardStatus.NOT_APPLICABLE:
        return view(Answerable.NEEDS, "several of these: " + ", ".join(SUPPLIES))
    return view(Answerable.OTHER_KIND if _of_another_kind(guard, everything) else Answerable.CANNOT)


def _view_apart(guard: Guard, asked: _Asked) -> GuardView:
    """Return the view at a contract that has no price of its own: only what needs none is asked there."""
    view = _view(guard, asked)
    bare = guard.check(asked.reading, (), (), FeedContext(asked.context.now))
    own = view.answer is Answerable.CAN and view.status is not bare.status
    if own or view.answer is Answerable.NEEDS:
        return view
    return replace(
        view,
        answer=Answerable.OTHER_KIND,
        status=GuardStatus.NOT_APPLICABLE,
        reason=asked.reading.reason if isinstance(asked.reading, NoData) else view.reason,
    )


def _of_another_kind(guard: Guard, everything: _Asked) -> bool:
    """Return whether a guard that answers nothing here would, were the price made in another way."""
    reading = everything.reading
    return not isinstance(reading, NoData) and any(
        replace(everything, reading=replace(reading, kind=kind)).of(guard).status
        is not GuardStatus.NOT_APPLICABLE
        for kind in FeedKind
    )


def leaf_kinds(graph: OracleGraph, address: str) -> tuple[FeedKind, ...]:
    """Return the kinds of the leaves below a contract, each once; empty for a leaf, and without knowledge.

    One leaf of unknown kind leaves all unknown: it could be anything.
    """
    seen: dict[str, None] = {}
    pending = [leg.address for leg in graph.nodes[address].legs]
    while pending:
        at = pending.pop()
        if at not in seen:
            seen[at] = None
            pending += [leg.address for leg in graph.nodes[at].legs]
    leaves = [graph.nodes[at] for at in seen if not graph.nodes[at].legs]
    kinds = {node.kind for node in leaves}
    return () if None in kinds else tuple(sorted(kind for kind in kinds if kind is not None))


def graph_guards(
    graph: OracleGraph, *, heartbeat_s: int | None = None, guards: Sequence[Guard] | None = None
) -> dict[str, tuple[GuardView, ...]]:
    """Return address to what each guard can and cannot check there; see `node_guards`."""
    return {
        at: node_guards(
            _passing_on(graph, node),
            now=graph.timestamp,
            legs=leaf_kinds(graph, at),
            markets={
                leg.role: graph.nodes[leg.address].answer is not None for leg in node.legs if leg.market
            },
            heartbeat_s=heartbeat_s,
            guards=guards,
        )
        for at, node in graph.nodes.items()
    }


def _passing_on(graph: OracleGraph, node: OracleNode) -> OracleNode:
    """Return a contract with what its only leg states, where it says that leg's price and nothing else.

    A proxy's bounds stand on its aggregator, and bind its answer as well.
    """
    if len(node.legs) != 1 or node.answer is None:
        return node
    below = _passing_on(graph, graph.nodes[node.legs[0].address]) if not _circular(graph, node) else node
    if (below.answer, below.decimals) != (node.answer, node.decimals):
        return node
    unbounded = node.min_answer is None and node.max_answer is None
    return replace(
        node,
        min_answer=below.min_answer if unbounded else node.min_answer,
        max_answer=below.max_answer if unbounded else node.max_answer,
        heartbeat_s=below.heartbeat_s if node.heartbeat_s is None else node.heartbeat_s,
        deviation_bps=below.deviation_bps if node.deviation_bps is None else node.deviation_bps,
        updated_at=below.updated_at if node.updated_at is None else node.updated_at,
    )


def _circular(graph: OracleGraph, node: OracleNode) -> bool:
    """Return whether the legs of a contract, followed one by one, come round."""
    seen = set()
    while len(node.legs) == 1:
        if node.address in seen:
            return True
        seen.add(node.address)
        node = graph.nodes[node.legs[0].address]
    return False


def over_tree(graph: OracleGraph, views: Mapping[str, Sequence[GuardView]]) -> tuple[GuardOverTree, ...]:
    """Return each guard over the leaves of a tree: where it sees, and which leaf makes it blind.

    Parameters
    ----------
    views
        As `graph_guards` returns them.
    """
    leaves = [node.address for node in graph.leaves()]
    rows = []
    for column in zip(*(views[at] for at in leaves), strict=True):
        at_leaf = list(zip(leaves, column, strict=True))
        blind = tuple(
            Blind(at, view.answer, view.reason, view.needs)
            for at, view in at_leaf
            if view.answer in (Answerable.NEEDS, Answerable.CANNOT)
        )
        seeing = tuple(at for at, view in at_leaf if view.answer is Answerable.CAN)
        rows.append(GuardOverTree(column[0].guard, column[0].name, seeing, blind))
    return tuple(rows)
