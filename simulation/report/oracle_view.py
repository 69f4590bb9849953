"""What a replay's reports show, chosen once: the Markdown, the page and the terminal say the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from simulation.replay.record import (
    ActionRow,
    EconomicsRecord,
    FeedCell,
    ReplayRecord,
    TimelineRow,
)
from simulation.replay.text import duration_text, percent_text, stamp, usd_text

MAX_ROWS = 60

RECORD_WORDS = {
    "documented": "documented: the figures rest on published sources",
    "recalled": "recalled: figures from background knowledge, to be checked before they are quoted",
    "stated": "stated: assumptions of the scenario's author",
}

DEED_WORDS = {
    "borrow": "borrows",
    "borrow_refused": "borrowing refused",
    "liquidate": "liquidated",
    "liquidation_refused": "liquidation refused",
    "keeper_idle": "left alone",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a pair's timeline, as text.

    Attributes
    ----------
    time, block, truth
        When, and the true price.
    raw
        What each feed of the pair said, in the order of `PairTimeline.feeds`.
    adapter
        What the guarded adapter gives; empty when the pair has no protocol feed.
    status
        The protocol feed's status by the guards.
    guards
        Guards violated on it.
    actions
        What the protocol did, unguarded and guarded.
    """

    time: str
    block: str
    truth: str
    raw: tuple[str, ...]
    adapter: str
    status: str
    guards: str
    actions: str


@dataclass(frozen=True, slots=True)
class PairTimeline:
    """The steps of one pair at which something changed.

    Attributes
    ----------
    pair, protocol_feed
        Which.
    feeds
        All feeds of the pair, the protocol's first.
    lines
        At most `MAX_ROWS`, the first and the last step among them.
    steps
        How many steps there are in all.
    changes
        How many of them would have been shown without the limit.
    """

    pair: str
    protocol_feed: str
    feeds: tuple[str, ...]
    lines: tuple[Line, ...]
    steps: int
    changes: int


def timelines(record: ReplayRecord) -> tuple[PairTimeline, ...]:
    """Return one timeline for each feed that the protocol reads, the worst first."""
    worst = record.worst
    names = [f.name for f in record.feeds if f.role == "protocol"]
    names.sort(key=lambda name: worst is None or name != worst.feed)
    return tuple(_timeline(record, name) for name in names)


def _timeline(record: ReplayRecord, feed: str) -> PairTimeline:
    pair = next(f.pair for f in record.feeds if f.name == feed)
    others = tuple(f.name for f in record.feeds if f.pair == pair and f.name != feed)
    feeds = (feed, *others)
    actions = actions_by_time(record)
    changed = _changes(record, feeds, actions)
    shown = _thinned(changed, _landmarks(record, feed))
    return PairTimeline(
        pair=pair,
        protocol_feed=feed,
        feeds=feeds,
        lines=tuple(_line(record.timeline[i], feeds, actions) for i in shown),
        steps=len(record.timeline),
        changes=len(changed),
    )


def _changes(record: ReplayRecord, feeds: Sequence[str], actions: dict[int, tuple[str, ...]]) -> list[int]:
    """Return the steps at which a status, a violated guard, an origin or the protocol's action changes."""
    shown = []
    before: object = None
    last = len(record.timeline) - 1
    for i, row in enumerate(record.timeline):
        adapted = row.adapted.get(feeds[0])
        state = (
            [(row.feeds[f].status, row.feeds[f].violated) for f in feeds],
            None if adapted is None else (adapted.origin, adapted.paused),
        )
        if i in (0, last) or state != before or row.t in actions:
            shown.append(i)
        before = state
    return shown


def _landmarks(record: ReplayRecord, feed: str) -> set[int]:
    """Return the steps that are always shown."""
    times: set[int | None] = {record.timeline[0].t, record.timeline[-1].t}
    for summary in record.summaries:
        if summary.feed == feed:
            times |= {summary.first_divergence, summary.max_deviation_at, summary.detected_at}
    times |= {row.t for row in record.fired if row.feed == feed}
    return {i for i, row in enumerate(record.timeline) if row.t in times}


def _thinned(changed: list[int], landmarks: set[int]) -> list[int]:
    """Return at most `MAX_ROWS` steps: the landmarks, and the others evenly."""
    every = sorted({*changed, *landmarks})
    if len(every) <= MAX_ROWS:
        return every
    kept = sorted(landmarks)[:MAX_ROWS]
    rest = [i for i in every if i not in landmarks]
    room = MAX_ROWS - len(kept)
    if room:
        kept += [rest[k * len(rest) // room] for k in range(room)]
    return sorted(set(kept))


def _line(row: TimelineRow, feeds: Sequence[str], actions: dict[int, tuple[str, ...]]) -> Line:
    cell = row.feeds[feeds[0]]
    adapted = row.adapted.get(feeds[0])
    adapter = ""
    if adapted is not None:
        adapter = "none" if adapted.price is None else adapted.price
        if adapted.origin not in ("source", "none"):
            adapter += f" ({adapted.origin.replace('_', ' ')})"
        if adapted.paused:
            adapter += f", {' and '.join(p.replace('_', ' ') for p in adapted.paused)}"
    return Line(
        time=stamp(row.t),
        block=f"{row.block:,}",
        truth=cell.truth,
        raw=tuple(_said(row.feeds[f]) for f in feeds),
        adapter=adapter,
        status=cell.status,
        guards=", ".join(cell.violated),
        actions="; ".join(actions.get(row.t, ())),
    )


def _said(cell: FeedCell) -> str:
    return f"nothing ({cell.reason})" if cell.raw is None else cell.raw


def actions_by_time(record: ReplayRecord) -> dict[int, tuple[str, ...]]:
    """Return what happened at the protocol by time, several of a kind on one account as one line."""
    if record.economics is None:
        return {}
    out: defaultdict[int, list[str]] = defaultdict(list)
    for name, run in (("unguarded", record.economics.unguarded), ("guarded", record.economics.guarded)):
        for t, texts in grouped_actions(run):
            out[t] += [f"{name}: {text}" for text in texts]
    return {t: tuple(texts) for t, texts in sorted(out.items())}


def grouped_actions(run: EconomicsRecord) -> list[tuple[int, list[str]]]:
    """Return a run's actions as ``(t, lines)``; liquidations of one account in one step are one line."""
    groups: dict[tuple[int, str, str], list[ActionRow]] = {}
    for action in run.actions:
        groups.setdefault((action.t, action.account, action.deed), []).append(action)
    out: dict[int, list[str]] = {}
    for (t, _, _), rows in groups.items():
        out.setdefault(t, []).append(action_text(rows))
    return sorted(out.items())


def action_text(rows: Sequence[ActionRow]) -> str:
    """Return actions of one kind on one account in one step as a line."""
    first = rows[0]
    words = DEED_WORDS.get(first.deed, first.deed)
    if first.deed == "borrow":
        return f"{first.account} {words} {first.debt_amount} {first.debt} ({usd_text(first.debt_usd)})"
    if first.deed == "liquidate":
        seized = sum((Decimal(r.collateral_usd) for r in rows), Decimal(0))
        times = f" {len(rows)} times" if len(rows) > 1 else ""
        wrongly = "wrongly " if any(r.wrong for r in rows) else ""
        assets = ", ".join(dict.fromkeys(r.collateral for r in rows))
        return f"{first.account} {wrongly}{words}{times}, {usd_text(str(seized))} of {assets} seized"
    return f"{first.account}: {words} ({first.detail})"


def headline(record: ReplayRecord) -> list[tuple[str, str, str]]:
    """Return the figures at the top: value, what it is, and a remark."""
    out: list[tuple[str, str, str]] = []
    worst = record.worst
    if worst is not None and worst.max_deviation_bps is not None:
        at = "" if worst.max_deviation_at is None else stamp(worst.max_deviation_at)
        out.append((percent_text(int(worst.max_deviation_bps)), "largest deviation", f"{worst.feed}, {at}"))
        first = "never" if worst.first_divergence is None else stamp(worst.first_divergence)
        out.append((duration_text(worst.mispriced_s), "mispriced", f"first at {first}"))
        if worst.detection_delay_s is None:
            out.append(("never", "detected", "no guard was violated on it"))
        else:
            by = ", ".join(worst.detected_by)
            out.append((duration_text(worst.detection_delay_s), "to detect", f"by {by}"))
    if record.economics is not None:
        bare, held = record.economics.unguarded, record.economics.guarded
        out.append((usd_text(bare.bad_debt_usd), "bad debt", f"guarded {usd_text(held.bad_debt_usd)}"))
        out.append(
            (
                usd_text(bare.wrongly_seized_usd),
                "wrongly seized",
                f"guarded {usd_text(held.wrongly_seized_usd)}",
            )
        )
        out.append(
            (
                usd_text(bare.attacker_profit_usd),
                "attacker's profit",
                f"guarded {usd_text(held.attacker_profit_usd)}",
            )
        )
    return out


ECONOMICS_LINES: tuple[tuple[str, str], ...] = (
    ("bad debt at the end", "bad_debt_usd"),
    ("bad debt at its peak", "bad_debt_peak_usd"),
    ("collateral wrongly seized", "wrongly_seized_usd"),
    ("lost by those accounts", "wrongly_lost_usd"),
    ("collateral seized in all", "seized_usd"),
    ("attacker's profit", "attacker_profit_usd"),
    ("keepers' profit", "keeper_profit_usd"),
    ("borrowable at the protocol's prices", "borrowable_reported_usd"),
    ("borrowable at true prices", "borrowable_truth_usd"),
)


ECONOMICS_COLUMNS = ("", "unguarded", "guarded", "had the feeds told the truth")


def economics_rows(record: ReplayRecord) -> list[tuple[str, ...]]:
    """Return what it cost as rows of `ECONOMICS_COLUMNS`."""
    if record.economics is None:
        return []
    runs = (record.economics.unguarded, record.economics.guarded, record.economics.truthful)

    def cell(run: EconomicsRecord, name: str) -> str:
        amount = getattr(run, name)
        return "no price" if amount is None else usd_text(amount)

    rows: list[tuple[str, ...]] = [
        (title, *(cell(run, name) for run in runs)) for title, name in ECONOMICS_LINES
    ]
    counts: list[tuple[str, ...]] = [
        ("accounts wrongly liquidated", *(f"{len(run.wrongly_liquidated):,}" for run in runs)),
        ("liquidations", *(f"{run.liquidations:,}" for run in runs)),
    ]
    return rows[:2] + counts + rows[2:]


def reported_at(record: ReplayRecord, feed: str, t: int) -> FeedCell | None:
    """Return a feed's cell at one step, or None when there is no such step."""
    return next((row.feeds[feed] for row in record.timeline if row.t == t), None)


def never_applicable(record: ReplayRecord) -> list[str]:
    """Return the guards that never had their inputs, and what they lack."""
    return sorted({f"{g.guard} {g.name}: {g.message}" for g in record.guards if not g.ok + g.violated})
