"""The demo's report: one HTML file that opens offline. The same record gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simulation.report import figures
from simulation.report.record import DemoRecord, FilledRange
from simulation.report.summary import Story, Summary, stories, summarise, usd
from simulation.types import Reason

MAX_ACCOUNT_ROWS = 2_000
_VOLATILE = 0.05

REASON_WORDS: dict[Reason, str] = {
    Reason.LIQUIDATE: "liquidated",
    Reason.HEALTHY: "healthy",
    Reason.NO_DEBT: "no debt",
    Reason.UNPROFITABLE: "unprofitable",
    Reason.PROTOCOL_PRICE_LOW: "held: price wrongly low",
    Reason.PROTOCOL_PRICE_STALE_HIGH: "armed: price stale high",
    Reason.REFERENCE_UNKNOWN: "no reference",
    Reason.PROTOCOL_UNKNOWN: "protocol price unknown",
    Reason.ACCOUNT_UNKNOWN: "account unknown",
    Reason.NO_ROUTE: "no route",
    Reason.SIMULATION_FAILED: "simulation failed",
    Reason.PAUSED: "paused",
    Reason.LIMIT: "limit reached",
    Reason.DUPLICATE: "already in flight",
    Reason.OBSERVE_ONLY: "observe only",
}
_REASON_CLASSES: dict[Reason, str] = {
    Reason.LIQUIDATE: "liquidate",
    Reason.PROTOCOL_PRICE_LOW: "harm",
    Reason.PROTOCOL_PRICE_STALE_HIGH: "wait",
    Reason.UNPROFITABLE: "cost",
    Reason.NO_ROUTE: "cost",
    Reason.SIMULATION_FAILED: "harm",
    Reason.REFERENCE_UNKNOWN: "harm",
    Reason.PROTOCOL_UNKNOWN: "harm",
    Reason.ACCOUNT_UNKNOWN: "harm",
}
# Reasons for which a liquidatable account stays, as opposed to accounts that never were.
_NOT_DUE = frozenset({Reason.LIQUIDATE, Reason.HEALTHY, Reason.NO_DEBT})


@dataclass(frozen=True, slots=True)
class _Panel:
    id: str
    symbol: str
    caption: str


def render_demo(record: DemoRecord) -> str:
    """Return the report of `record` as one HTML document.

    Everything is in the file, plotly.js included (about 5 MB); it fetches nothing. At most
    `MAX_ACCOUNT_ROWS` accounts stand in the table, the most eventful first.
    """
    summary = summarise(record)
    every_story = stories(record)
    shown = every_story[:MAX_ACCOUNT_ROWS]
    rows = _price_rows(record, summary)
    specs = {
        panel.id: figures.price_panel(record, panel.symbol, 330 if len(row) == 1 else 230)
        for row in rows
        for panel in row
    }
    specs |= {"health": figures.health(record), "bad_debt": figures.bad_debt(record)}
    if record.liquidations:
        specs |= {
            "liquidations": figures.liquidations(record),
            "profit": figures.profit(record),
            "earnings": figures.earnings(record),
        }
    left_out = _left_out(every_story)
    return (
        _environment()
        .get_template("demo.html.j2")
        .render(
            record=record,
            summary=summary,
            colours=figures,
            fault_words=figures.FAULT_WORDS,
            plotly_js=Markup(get_plotlyjs()),
            figures=specs,
            figure=_figure,
            price_rows=rows,
            falls=[m for m in summary.moves if m.drawdown < -_VOLATILE][:1],
            broken=sum(not i.ok for i in record.invariants.values()) + (not record.identity.runtime_equal),
            worst_bad_debt=max((b.bad_debt_base for b in record.blocks), default=0),
            unknown_max=max((b.unknown for b in record.blocks), default=0),
            left_out=sum(left_out.values()),
            left_out_text=", ".join(f"{n} {REASON_WORDS[r].partition(':')[0]}" for r, n in left_out.items())
            or "nobody",
            stories=shown,
            hidden=len(every_story) - len(shown),
            outcomes=_outcomes(shown),
            reason_words=REASON_WORDS,
            reason_classes=_REASON_CLASSES,
            filled=_filled(record.identity.filled),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("simulation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "usd": usd,
        "clock": lambda t: datetime.fromtimestamp(t, UTC).strftime("%-d %b %Y %H:%M"),
        "hour": lambda t: datetime.fromtimestamp(t, UTC).strftime("%H:%M"),
        "gap": lambda bps: _minus(f"{bps / 100:+.1f} %"),
        "minus": _minus,
        "short": lambda address: f"{address[:8]}…{address[-6:]}",
    }
    return environment


def _minus(text: str) -> str:
    """Set a minus sign where a number has a hyphen."""
    return text.replace("-", "−")


def _figure(figure_id: str) -> Markup:
    return Markup('<div class="figure" id="{}"></div>').format(figure_id)


def _price_rows(record: DemoRecord, summary: Summary) -> list[list[_Panel]]:
    """Return the price panels by row: the widest mover alone, the others two by two."""
    moves = sorted(summary.moves, key=lambda m: m.drawdown)
    panels = [
        _Panel(
            f"price-{i}",
            move.symbol,
            f"{usd(move.first_e8)} to {usd(move.last_e8)}, low {usd(move.low_e8)}",
        )
        for i, move in enumerate(moves)
    ]
    return [panels[:1], *(panels[i : i + 2] for i in range(1, len(panels), 2))] if panels else []


def _left_out(every_story: Sequence[Story]) -> dict[Reason, int]:
    """Count the accounts that were due at some price and never liquidated, by what kept them."""
    counts: dict[Reason, int] = {}
    for story in every_story:
        if story.outcome not in _NOT_DUE:
            counts[story.outcome] = counts.get(story.outcome, 0) + 1
    return counts


def _outcomes(shown: Sequence[Story]) -> list[tuple[Reason, int]]:
    """Count the accounts that met each reason, in the order in which a reader looks for them."""
    counts: dict[Reason, int] = {}
    for story in shown:
        for reason in {e.reason for e in story.episodes}:
            counts[reason] = counts.get(reason, 0) + 1
    return [(reason, counts[reason]) for reason in REASON_WORDS if reason in counts]


def _filled(ranges: Sequence[FilledRange]) -> list[dict[str, object]]:
    """Group filled ranges by what stands there."""
    offsets: dict[str, list[int]] = {}
    for part in ranges:
        offsets.setdefault(part.what, []).append(part.offset)
    return [{"what": what, "offsets": sorted(at)} for what, at in offsets.items()]
