"""The demo's report: one HTML file that opens offline. The same record gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simulation.report import figures, plotting
from simulation.report.page import template_environment
from simulation.report.record import DemoRecord, FilledRange
from simulation.report.summary import (
    FAULT_WORDS,
    REASON_WORDS,
    Story,
    Summary,
    in_order,
    minus,
    price,
    stories,
    summarise,
    usd,
)
from simulation.types import Reason

MAX_ACCOUNT_ROWS = 2_000
_VOLATILE = 0.05

_REASON_CLASSES: dict[Reason, str] = {
    Reason.LIQUIDATE: "liquidate",
    Reason.PROTOCOL_PRICE_LOW: "harm",
    Reason.PROTOCOL_PRICE_STALE_HIGH: "wait",
    Reason.UNPROFITABLE: "cost",
    Reason.NO_COLLATERAL: "cost",
    Reason.NO_ROUTE: "cost",
    Reason.SIMULATION_FAILED: "harm",
    Reason.REFERENCE_UNKNOWN: "harm",
    Reason.PROTOCOL_UNKNOWN: "harm",
    Reason.ACCOUNT_UNKNOWN: "harm",
}


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
    return (
        _environment()
        .get_template("demo.html.j2")
        .render(
            record=record,
            summary=summary,
            colours=plotting,
            fault_words=FAULT_WORDS,
            plotly_js=Markup(get_plotlyjs()),
            figures=specs,
            figure=_figure,
            price_rows=rows,
            falls=[m for m in summary.moves if m.drawdown < -_VOLATILE][:1],
            broken=record.checks_broken,
            worst_bad_debt=max((b.bad_debt_base for b in record.blocks), default=0),
            unknown_max=max((b.unknown for b in record.blocks), default=0),
            held=summary.left.get(Reason.PROTOCOL_PRICE_LOW, 0),
            unprofitable=summary.left.get(Reason.UNPROFITABLE, 0),
            debt_at_start=record.blocks[0].debt_base if record.blocks else 0,
            stories=shown,
            hidden=len(every_story) - len(shown),
            outcomes=_outcomes(shown),
            reason_words=REASON_WORDS,
            reason_classes=_REASON_CLASSES,
            filled=_filled(record.identity.filled),
        )
    )


def _environment() -> Environment:
    environment = template_environment()
    environment.filters |= {
        "usd": usd,
        "price": price,
        "clock": lambda t: datetime.fromtimestamp(t, UTC).strftime("%-d %b %Y %H:%M"),
        "hour": lambda t: datetime.fromtimestamp(t, UTC).strftime("%H:%M"),
        "gap": lambda bps: minus(f"{bps / 100:+.1f} %"),
        "minus": minus,
        "short": lambda address: f"{address[:8]}…{address[-6:]}",
    }
    return environment


def _figure(figure_id: str) -> Markup:
    return Markup('<div class="figure" data-spec="spec-{}"></div>').format(figure_id)


def _price_rows(record: DemoRecord, summary: Summary) -> list[list[_Panel]]:
    """Return the price panels by row: the widest mover alone, the others two by two."""
    moves = sorted(summary.moves, key=lambda m: m.drawdown)
    panels = [
        _Panel(
            f"price-{i}",
            move.symbol,
            f"{price(move.first_e8)} to {price(move.last_e8)}, low {price(move.low_e8)}",
        )
        for i, move in enumerate(moves)
    ]
    return [panels[:1], *(panels[i : i + 2] for i in range(1, len(panels), 2))] if panels else []


def _outcomes(shown: Sequence[Story]) -> list[tuple[Reason, int]]:
    """Count the accounts that met each reason."""
    counts = Counter(reason for story in shown for reason in {e.reason for e in story.episodes})
    return [(reason, counts[reason]) for reason in in_order(counts)]


def _filled(ranges: Sequence[FilledRange]) -> list[dict[str, object]]:
    """Group filled ranges by what stands there."""
    offsets: dict[str, list[int]] = {}
    for part in ranges:
        offsets.setdefault(part.what, []).append(part.offset)
    return [{"what": what, "offsets": sorted(at)} for what, at in offsets.items()]
