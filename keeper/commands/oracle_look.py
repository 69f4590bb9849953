"""``marginline oracle graph`` and ``oracle check``: what stands behind a feed, and how it is now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from contracts_abi.calls import Call
from contracts_abi.errors import CheckFailed, DataError, InputError
from contracts_abi.feeds import GET_ROUND_DATA, LATEST_ROUND_DATA
from keeper.commands.console import plain_table, require_writable, stdout_console
from keeper.commands.keeper_setup import endpoint_option
from keeper.rpc import Head, Node
from oracle.graph import Execute, OracleGraph, OracleNode, explore
from oracle.graph_guards import GuardView, graph_guards, leaf_kinds, node_context, over_tree
from oracle.guards import all_guards
from oracle.interfaces import FeedContext, SequencerFacts
from oracle.snapshot import REQUIRED, judge
from oracle.sources.chainlink import ChainlinkFeed, ChainlinkSource, FeedShape, complete, resolve
from oracle.types import GuardedPrice, GuardStatus, NoData, PriceObs, PriceStatus, Reading
from simulation.report.oracle_graph import graph_svg, guard_lines, node_lines

_BPS: Final = 10_000
_EXACT: Final = (
    *("answer", "min_answer", "max_answer", "round_id", "answered_in"),
    *("cap", "live", "supply"),
)
"""What is text in JSON, always."""
_READ_GAS: Final = 10_000_000
"""Enough for every getter of a price; a contract that loops for ever comes to an end soon."""
_LARGEST_NUMBER: Final = 2**53
_STATUS: Final[Mapping[GuardStatus, str]] = {
    GuardStatus.OK: "[green]ok[/]",
    GuardStatus.VIOLATED: "[red]violated[/]",
    GuardStatus.NOT_APPLICABLE: "[dim]not applicable[/]",
}


# -------------------------------------------------------------------------------------------------- graph


def graph(
    address: str,
    *,
    rpc_url: str,
    block: int | None,
    svg: Path | None,
    as_json: bool,
    guards: bool = False,
    heartbeat_s: int | None = None,
) -> None:
    """Show the contracts that a price comes from, and what the guards can and cannot check of each."""
    if svg is not None:
        require_writable("--svg", svg)
    node, head = _connected(rpc_url, block)
    found = explore(
        address,
        lambda calls: node.read(list(calls), head, gas=_READ_GAS),
        block=head.number,
        timestamp=head.timestamp,
    )
    views = graph_guards(found, heartbeat_s=heartbeat_s)
    if svg is not None:
        svg.write_text(graph_svg(found, views), encoding="utf-8")
    if as_json:
        print(json.dumps(graph_json(found, views)))
        return
    console = stdout_console()
    console.print(_tree(found, views if guards else {}))
    if guards:
        _print_over_tree(console, found, views)
    console.print(f"{len(found.nodes)} contracts, {len(found.leaves())} leaves, block {found.block}")
    if svg is not None:
        console.print(f"picture: {svg}", soft_wrap=True)


def graph_json(found: OracleGraph, views: Mapping[str, Sequence[GuardView]] | None = None) -> dict[str, Any]:
    """Return a tree as JSON; exact integers beyond 2**53 are text.

    Parameters
    ----------
    views
        What each guard can and cannot check, as `graph_guards` returns it; asked for without it.
    """
    views = graph_guards(found) if views is None else views

    def plain(node: OracleNode) -> dict[str, Any]:
        record = asdict(node)
        for name in _EXACT:
            record[name] = None if record[name] is None else str(record[name])
        for name in ("updated_at", "heartbeat_s", "deviation_bps", "window_s"):
            # Small when they mean something; a contract may answer what it likes.
            if record[name] is not None and record[name] > _LARGEST_NUMBER:
                record[name] = str(record[name])
        return {
            **record,
            "bounds_vacuous": node.bounds_vacuous,
            "guards": [asdict(view) for view in views[node.address]],
        }

    return {
        "root": found.root,
        "block": found.block,
        "timestamp": found.timestamp,
        "nodes": [plain(node) for node in found.nodes.values()],
        "guards": [{**asdict(row), "answerable": row.answerable} for row in over_tree(found, views)],
    }


def _print_over_tree(console: Console, found: OracleGraph, views: Mapping[str, Sequence[GuardView]]) -> None:
    """Print each guard over the leaves: at how many it answers, and which one it is blind at."""
    table = plain_table("guard", "", "sees", "blind at")
    table.columns[3].no_wrap = False
    for row in over_tree(found, views):
        if not row.seeing and not row.blind:
            continue
        why: dict[str, list[str]] = {}
        for leaf in row.blind:
            said = leaf.reason + (f"; needs {leaf.needs}" if leaf.needs else "")
            why.setdefault(said, []).append(leaf.address)
        told = "\n".join(f"{_named(found, who)}: {said}" for said, who in why.items())
        table.add_row(row.guard, row.name, f"{len(row.seeing)} of {len(found.leaves())}", escape(told))
    console.print(table)


def _named(found: OracleGraph, leaves: Sequence[str]) -> str:
    """Return the names of leaves for people."""
    if len(leaves) == len(found.leaves()):
        return "every leaf" if len(leaves) > 1 else "the leaf"
    return ", ".join(f"{found.nodes[at].description} {at[:8]}…".strip() for at in leaves)


def _tree(found: OracleGraph, views: Mapping[str, Sequence[GuardView]]) -> Tree:
    """Return the tree as text; a contract that stands in several places is told whole in the first.

    `views` adds what the guards say of the contracts in it.
    """
    told: set[str] = set()

    def label(at: str, role: str) -> str:
        name, *rest = node_lines(found.nodes[at], found.timestamp)
        head = (f"[dim]{escape(role)}:[/] " if role else "") + f"[bold]{escape(name)}[/]"
        if at in told:
            return f"{head}\n[dim]{at}, see above[/]"
        rest += guard_lines(views.get(at, ()))
        return "\n".join([head, *(f"[dim]{escape(line)}[/]" for line in rest)])

    def grow(branch: Tree, at: str) -> None:
        if at in told:
            return
        told.add(at)
        for leg in found.nodes[at].legs:
            grow(branch.add(label(leg.address, leg.role)), leg.address)

    root = Tree(label(found.root, ""))
    grow(root, found.root)
    return root


# -------------------------------------------------------------------------------------------------- check


@dataclass(frozen=True, slots=True)
class Past:
    """What the last rounds of a feed show.

    Attributes
    ----------
    rounds
        How many could be read.
    longest_gap_s
        Longest time between two of them; None with fewer than two.
    largest_move_bps
        Largest move between two of them, relative to the larger.
    """

    rounds: int
    longest_gap_s: int | None
    largest_move_bps: int | None


@dataclass(frozen=True, slots=True)
class FeedHealth:
    """A feed as it is now, and what the references said of the same pair."""

    address: str
    description: str
    head: Head
    guarded: GuardedPrice
    past: Past
    references: tuple[Reading, ...] = ()


def check(
    feed: str,
    *,
    rpc_url: str,
    heartbeat_s: int | None,
    references: Sequence[str],
    pair: str | None,
    sequencer: str | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Tell whether a live feed is to be believed now.

    Raises
    ------
    CheckFailed
        When it is not.
    """
    node, head = _connected(rpc_url, None)
    health = feed_health(
        node,
        head,
        feed,
        heartbeat_s=heartbeat_s,
        references=references,
        pair=pair,
        sequencer=sequencer,
        rounds=rounds,
    )
    if as_json:
        print(json.dumps(health_json(health)))
    else:
        _print_health(stdout_console(), health, heartbeat_s)
    if health.guarded.status is not PriceStatus.OK:
        raise CheckFailed(
            f"{health.address} is {health.guarded.status.value}: "
            + "; ".join(health.guarded.reasons or ("no reason given",))
        )


def feed_health(
    node: Node,
    head: Head,
    address: str,
    *,
    heartbeat_s: int | None = None,
    references: Sequence[str] = (),
    pair: str | None = None,
    sequencer: str | None = None,
    rounds: int = 48,
) -> FeedHealth:
    """Return a feed's reading at `head`, held against the guards with its last rounds as history.

    Parameters
    ----------
    heartbeat_s
        As the feed's operator publishes it; it stands on no contract.
    references
        Other feeds of the same pair, to confirm or to contradict.
    pair
        What the feed is to be of, ``BASE/QUOTE``; without it the feed's own description is not doubted.
    sequencer
        Uptime feed of a layer 2.
    rounds
        How many rounds to look back.
    """

    expected = None if pair is None else _pair(pair)

    def read(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        return node.read(list(calls), head, gas=_READ_GAS)

    source, reading, context = _reading(address, read, head, heartbeat_s, expected)
    assert source.feed is not None
    context = _with_tree(context, source.address, read, head)
    if expected is not None:
        context = replace(context, description=source.feed.description)
    peers: list[Reading] = []
    taken = {_written_at(source.feed): "the feed itself"}
    for at in references:
        # Named by the user as the same pair; a description is free text.
        other, said, _ = _reading(at, read, head, heartbeat_s, (reading.base, reading.quote))
        assert other.feed is not None
        written = _written_at(other.feed)
        if written in taken:
            raise InputError(
                f"--reference {at}: it says what {taken[written]} says: both come from {written}",
                fix="name a feed that somebody else writes",
            )
        taken[written] = f"--reference {at}"
        peers.append(said)
    if sequencer is not None:
        context = replace(context, sequencer=_sequencer(sequencer, read))
    history = _history(source, reading, read, rounds)
    guarded = judge(reading, history, peers, context, all_guards(), REQUIRED)
    past = _past(history, reading)
    return FeedHealth(source.address, source.feed.description, head, guarded, past, tuple(peers))


def _pair(text: str) -> tuple[str, str]:
    base, slash, quote = (part.strip() for part in text.partition("/"))
    if not slash or not base or not quote:
        raise InputError(f"--pair: {text!r} is not a pair", fix="give it as BASE/QUOTE, for example ETH/USD")
    return base, quote


def _written_at(feed: ChainlinkFeed) -> str:
    """Return the contract in which a feed's answers are written, as far as it tells."""
    return feed.aggregator or (feed.address if feed.behind is None else _written_at(feed.behind))


def _with_tree(context: FeedContext, address: str, read: Execute, head: Head) -> FeedContext:
    """Return the context with what the tree behind a feed adds: its legs' kinds, cap, rate, pool and keys."""
    tree = explore(address, read, block=head.number, timestamp=head.timestamp)
    facts = node_context(tree.nodes[tree.root], head.timestamp, legs=leaf_kinds(tree, tree.root))
    return replace(
        context,
        legs=facts.legs,
        cap=facts.cap,
        rate=facts.rate,
        amm=facts.amm,
        authority=facts.authority,
        locked=facts.locked,
    )


def _reading(
    address: str,
    read: Execute,
    head: Head,
    heartbeat_s: int | None,
    pair: tuple[str, str] | None,
) -> tuple[ChainlinkSource, Reading, FeedContext]:
    resolved = complete(resolve(address), read)
    named, _, against = resolved.description.partition("/")
    base, quote = (named.strip() or "?", against.strip() or "?") if pair is None else pair
    source = ChainlinkSource(
        base=base,
        quote=quote,
        address=resolved.address,
        heartbeat_s=heartbeat_s,
        feed=resolved,
    )
    results = read(source.reads())
    reading = source.decode(results, block=head.number, timestamp=head.timestamp)
    return source, reading, source.context(results, timestamp=head.timestamp)


def _sequencer(address: str, read: Any) -> SequencerFacts:
    (data,) = read([LATEST_ROUND_DATA.call(address)])
    try:
        _, answer, started_at, _, _ = LATEST_ROUND_DATA.decode(data or b"")
    except DataError:
        raise InputError(
            f"--sequencer: {address} is no uptime feed: latestRoundData() gave no round",
            fix="check the address and the chain",
        ) from None
    return SequencerFacts(answer, started_at)


def _history(source: ChainlinkSource, reading: Reading, read: Any, rounds: int) -> list[PriceObs]:
    """Return the rounds before the latest one within its phase, oldest first, without those never written."""
    if isinstance(reading, NoData) or reading.round_key is None:
        return []
    assert source.feed is not None
    if source.feed.shape is FeedShape.ANSWER_ONLY:
        return []
    phase, latest = reading.round_key
    ids = [(phase << 64) | n for n in range(max(1, latest - rounds), latest)]
    past: list[PriceObs] = []
    for data in read([GET_ROUND_DATA.call(source.address, i) for i in ids]):
        try:
            round_id, answer, _, updated_at, _ = GET_ROUND_DATA.decode(data or b"")
        except DataError:
            continue
        if updated_at:
            past.append(
                replace(
                    reading,
                    mantissa=answer,
                    published_at=updated_at,
                    observed_at=updated_at,
                    round_key=(phase, round_id & (2**64 - 1)),
                    answered_key=None,
                    block=None,
                    raw=data or b"",
                )
            )
    return past


def _past(history: Sequence[PriceObs], reading: Reading) -> Past:
    rounds = [*history, *([reading] if isinstance(reading, PriceObs) else [])]
    pairs = list(pairwise(rounds))
    gaps = [(b.published_at or 0) - (a.published_at or 0) for a, b in pairs]
    moves = [
        -(-abs(b.mantissa - a.mantissa) * _BPS // max(a.mantissa, b.mantissa))
        for a, b in pairs
        if min(a.mantissa, b.mantissa) > 0
    ]
    return Past(len(rounds), max(gaps, default=None), max(moves, default=None))


def health_json(health: FeedHealth) -> dict[str, Any]:
    """Return a feed's health as JSON; prices are text."""
    reading = health.guarded.reading
    price = None if isinstance(reading, NoData) else reading
    return {
        "feed": health.address,
        "description": health.description,
        "block": health.head.number,
        "timestamp": health.head.timestamp,
        "status": health.guarded.status.value,
        "answer": None if price is None else str(price.mantissa),
        "decimals": None if price is None else price.decimals,
        "updated_at": None if price is None else price.published_at,
        "reasons": list(health.guarded.reasons),
        "findings": [
            {**asdict(f), "status": f.status.value, "actions": sorted(f.actions), "inputs": dict(f.inputs)}
            for f in health.guarded.findings
        ],
        "references": [_reference_json(reading) for reading in health.references],
        "history": asdict(health.past),
    }


def _reference_json(reading: Reading) -> dict[str, Any]:
    price = None if isinstance(reading, NoData) else reading
    return {
        "source": reading.source_id,
        "answer": None if price is None else str(price.mantissa),
        "decimals": None if price is None else price.decimals,
        "updated_at": None if price is None else price.published_at,
        "problem": reading.reason if isinstance(reading, NoData) else None,
    }


def _print_health(console: Console, health: FeedHealth, heartbeat_s: int | None) -> None:
    reading, status = health.guarded.reading, health.guarded.status
    colour = "green" if status is PriceStatus.OK else "red"
    console.print(
        f"[bold]{escape(health.description or health.address)}[/] at block {health.head.number}: "
        f"[{colour}]{status.value}[/]",
        soft_wrap=True,
    )
    if isinstance(reading, PriceObs):
        age = (
            ""
            if reading.published_at is None
            else f", {health.head.timestamp - reading.published_at:,} s old"
        )
        console.print(
            f"  {Decimal(reading.mantissa).scaleb(-reading.decimals):f}{age}, round {reading.round_key}",
            soft_wrap=True,
        )
    table = plain_table("guard", "", "status", "finding")
    table.columns[3].no_wrap = False
    for finding in health.guarded.findings:
        # The column before has said that already.
        said = finding.message.removeprefix("not applicable: ")
        table.add_row(finding.guard, finding.name, _STATUS[finding.status], escape(said))
    console.print(table)
    for reference in health.references:
        said = (
            f"no price: {reference.reason}"
            if isinstance(reference, NoData)
            else f"{Decimal(reference.mantissa).scaleb(-reference.decimals):f}"
        )
        console.print(escape(f"reference {reference.source_id}: {said}"), soft_wrap=True)
    past = health.past
    if past.longest_gap_s is not None:
        console.print(
            f"last {past.rounds} rounds: longest gap {past.longest_gap_s:,} s, "
            f"largest move {'unknown' if past.largest_move_bps is None else past.largest_move_bps} bps",
            soft_wrap=True,
        )
    if heartbeat_s is None:
        console.print(
            "no heartbeat was given, and so no age is believed: "
            "give the one that its operator publishes, --heartbeat SECONDS",
            soft_wrap=True,
        )


def _connected(rpc_url: str, block: int | None) -> tuple[Node, Head]:
    _, endpoint = endpoint_option(rpc_url)
    node = Node.connect(endpoint.reveal())
    if block is None:
        return node, node.head()
    head = node.block(block)
    if head is None:
        raise InputError(
            f"--block: the chain has no block {block}", fix=f"its newest is {node.head().number}"
        )
    return node, head
