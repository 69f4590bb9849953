"""A replay as a proof of concept: a Python script against the local chain, and a Foundry test on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from oracle.incidents import incident_ids
from simulation.replay.record import FeedCell, ReplayRecord
from simulation.replay.text import stamp
from simulation.report.page import template_environment

MAX_STEPS: Final = 40
TRUTH_DECIMALS: Final = 18
DEFAULT_LTV_BPS: Final = 7_500
"""Loan-to-value of the naive consumer where the scenario names no market of its own."""

_BPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class PocStep:
    """One answer and the truth behind it, as integers.

    Attributes
    ----------
    t, at
        Unix seconds, and the same for people.
    answered, answer, updated_at
        What the feed says; `answered` is false when it reverts.
    truth
        True price at 1e18, rounded half to even.
    deviation_bps
        Answer against truth, signed, rounded away from zero; 0 without an answer.
    """

    t: int
    at: str
    answered: bool
    answer: int
    updated_at: int
    truth: int
    deviation_bps: int


@dataclass(frozen=True, slots=True)
class Poc:
    """What both proofs assert.

    Attributes
    ----------
    feed, pair, decimals
        The feed that is played; answers have its scale.
    steps
        At most `MAX_STEPS` of the replay.
    worst
        Index of the step with the largest deviation.
    ltv_bps
        What the naive consumer lends on the reported price.
    lent, true_value, bad_debt
        At the worst step, for one whole token as collateral, at 1e18 of the quote currency: lent at the
        reported price, worth in truth, and what is missing when the borrower walks away.
    """

    feed: str
    pair: str
    decimals: int
    steps: tuple[PocStep, ...]
    worst: int
    ltv_bps: int
    lent: int
    true_value: int
    bad_debt: int


def poc_of(record: ReplayRecord) -> Poc | None:
    """Return what a proof asserts; None when no protocol feed ever gave an answer."""
    worst = record.worst
    if worst is None:
        return None
    feed = next(f for f in record.feeds if f.name == worst.feed)
    cells = [row.feeds[feed.name] for row in record.timeline]
    decimals = max([feed.decimals, *(c.decimals for c in cells if c.decimals is not None)])
    times = {worst.first_divergence, worst.max_deviation_at, worst.detected_at}
    shown = _chosen(record, cells, times)
    steps = tuple(_step(record.timeline[i].t, cells[i], decimals) for i in shown)
    at = max(range(len(steps)), key=lambda i: (abs(steps[i].deviation_bps), -i))
    ltv_bps = _ltv_bps(record, feed.name)
    # As the contract computes it: divisions round down.
    lent = steps[at].answer * 10**TRUTH_DECIMALS // 10**decimals * ltv_bps // _BPS
    return Poc(
        feed=feed.name,
        pair=feed.pair,
        decimals=decimals,
        steps=steps,
        worst=at,
        ltv_bps=ltv_bps,
        lent=lent,
        true_value=steps[at].truth,
        bad_debt=max(0, lent - steps[at].truth),
    )


def _chosen(record: ReplayRecord, cells: list[FeedCell], times: set[int | None]) -> list[int]:
    last = len(cells) - 1
    landmarks = {0, last} | {i for i, row in enumerate(record.timeline) if row.t in times}
    changed = [i for i in range(1, last) if cells[i].mantissa != cells[i - 1].mantissa and i not in landmarks]
    room = MAX_STEPS - len(landmarks)
    if len(changed) > room:
        changed = [changed[k * len(changed) // room] for k in range(room)]
    return sorted({*landmarks, *changed})


def _step(t: int, cell: FeedCell, decimals: int) -> PocStep:
    truth = round(Fraction(cell.truth) * 10**TRUTH_DECIMALS)
    if cell.mantissa is None or cell.decimals is None:
        return PocStep(t, stamp(t), False, 0, 0, truth, 0)
    answer = int(cell.mantissa) * int(10 ** (decimals - cell.decimals))
    return PocStep(
        t=t,
        at=stamp(t),
        answered=True,
        answer=answer,
        updated_at=t if cell.published_at is None else cell.published_at,
        truth=truth,
        deviation_bps=deviation_bps(answer, decimals, truth),
    )


def deviation_bps(answer: int, decimals: int, truth: int) -> int:
    """Return how far an answer is off the truth at 1e18, signed, rounded away from zero."""
    true = truth * int(10**decimals)
    off = answer * 10**TRUTH_DECIMALS - true
    size = -(-abs(off) * _BPS // true)
    return size if off >= 0 else -size


def _ltv_bps(record: ReplayRecord, feed: str) -> int:
    markets = () if record.economics is None else record.economics.markets
    return next((m.max_ltv_bps for m in markets if m.feed == feed and m.max_ltv_bps), DEFAULT_LTV_BPS)


def render_poc(record: ReplayRecord) -> Mapping[str, str]:
    """Return the files of the proof of concept, name to text; none when there is nothing to prove."""
    poc = poc_of(record)
    if poc is None:
        return {}
    environment = template_environment(markup=False)  # Python, Solidity, Markdown: `tojson` quotes strings
    environment.filters["ascii"] = _ascii
    files = {
        "replay.py": "poc_replay.py.j2",
        "Replay.t.sol": "poc_replay.t.sol.j2",
        "foundry.toml": "poc_foundry.toml.j2",
        "README.md": "poc_readme.md.j2",
    }
    # A scenario of the reader's own has no name that the command line knows.
    packaged = record.scenario_id in incident_ids()
    return {
        name: environment.get_template(template).render(record=record, poc=poc, packaged=packaged)
        for name, template in files.items()
    }


def _ascii(text: str) -> str:
    """Return text that may stand in a comment or a plain string of any language: one line, quotes gone."""
    kept = (c for c in " ".join(text.split()) if c.isascii() and c.isprintable() and c not in "\"'\\`*")
    return "".join(kept)
