"""When a feed left the truth, how far, for how long, and when the first guard noticed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from oracle.types import GuardStatus, NoData, PriceStatus
from simulation.replay.record import FeedSummary
from simulation.replay.seams import FeedMoment, Moment, Replay

MISPRICED_BPS: Final = 100
"""Deviation from which a feed counts as mispriced, where nothing says otherwise: twice the usual deviation
threshold of 0.5 %, so that a feed that keeps its own rule does not."""


def tolerance_bps(replay: Replay, feed: str) -> int:
    """Return the deviation from which `feed` is mispriced.

    The policy's ``harm_tolerance_bps`` if it has one, else `MISPRICED_BPS` or twice the feed's own deviation
    threshold, whichever is more.
    """
    stated: int | None = replay.scenario.policy.harm_tolerance_bps
    if stated is not None:
        return stated
    own = max((m.feeds[feed].context.deviation_bps or 0 for m in replay.moments), default=0)
    return max(MISPRICED_BPS, 2 * own)


def summarise(replay: Replay) -> tuple[FeedSummary, ...]:
    """Return one summary for each feed that the protocol reads, in the file's order."""
    names = [name for name, feed in replay.scenario.feeds.items() if feed.role == "protocol"]
    return tuple(_summary(replay, name) for name in names)


def mispriced(cell: FeedMoment, tolerance: int) -> bool:
    """Return whether a reading is a price, and further from the truth than `tolerance` basis points."""
    return cell.deviation_bps is not None and abs(cell.deviation_bps) > tolerance


def violated(cell: FeedMoment) -> tuple[str, ...]:
    """Return the guards that are violated by the feed's own reading, by id."""
    own = cell.reading.source_id
    found = (
        f.guard for f in cell.guarded.findings if f.status is GuardStatus.VIOLATED and f.source_id == own
    )
    return tuple(dict.fromkeys(found))


def durations(moments: Sequence[Moment]) -> list[int]:
    """Return the seconds that each step lasts: to the next one; the last is the end and lasts no time."""
    return [after.t - before.t for before, after in itertools.pairwise(moments)] + [0]


def _summary(replay: Replay, feed: str) -> FeedSummary:
    tolerance = tolerance_bps(replay, feed)
    cells = [(m.t, m.feeds[feed], s) for m, s in zip(replay.moments, durations(replay.moments), strict=True)]
    off = [t for t, cell, _ in cells if mispriced(cell, tolerance)]
    first = off[0] if off else None
    known = [(abs(c.deviation_bps), -t, c.deviation_bps) for t, c, _ in cells if c.deviation_bps is not None]
    worst = max(known, default=None)
    noticed = next(
        ((t, ids) for t, cell, _ in cells if first is not None and t >= first and (ids := violated(cell))),
        None,
    )
    refused = [t for t, cell, _ in cells if cell.guarded.status is not PriceStatus.OK]
    return FeedSummary(
        feed=feed,
        tolerance_bps=tolerance,
        first_divergence=first,
        max_deviation_bps=None if worst is None else str(worst[2]),
        max_deviation_at=None if worst is None else -worst[1],
        mispriced_s=sum(s for _, cell, s in cells if mispriced(cell, tolerance)),
        missing_s=sum(s for _, cell, s in cells if isinstance(cell.reading, NoData)),
        detected_at=None if noticed is None else noticed[0],
        detected_by=() if noticed is None else noticed[1],
        detection_delay_s=None if noticed is None or first is None else noticed[0] - first,
        first_refused=refused[0] if refused else None,
        accepted_mispriced_s=sum(
            s for _, cell, s in cells if mispriced(cell, tolerance) and cell.guarded.status is PriceStatus.OK
        ),
    )
