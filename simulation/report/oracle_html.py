"""A replay as one HTML file that opens offline. The same record gives the same bytes."""

from __future__ import annotations

from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simulation.replay.record import ReplayRecord
from simulation.replay.text import duration_text, percent_text, stamp, usd_text
from simulation.report import oracle_figures, plotting
from simulation.report.oracle_md import ABLATION_COLUMNS, MAX_ACTIONS, ablation_cells
from simulation.report.oracle_view import (
    ECONOMICS_COLUMNS,
    RECORD_WORDS,
    economics_rows,
    grouped_actions,
    headline,
    never_applicable,
    timelines,
)
from simulation.report.page import template_environment

VERDICT_CLASSES = {
    "stops": "good",
    "detects": "good",
    "reduces": "cost",
    "worse": "harm",
    "silent": "",
    "no effect": "",
    "not applicable": "",
}


def render_replay_html(record: ReplayRecord) -> str:
    """Return the report of `record` as one HTML document.

    Everything is in the file, plotly.js included (about 5 MB); it fetches nothing.
    """
    tables = timelines(record)
    specs: dict[str, plotting.Spec] = {}
    for i, table in enumerate(tables):
        specs[f"price-{i}"] = oracle_figures.prices(record, table.protocol_feed)
        specs[f"deviation-{i}"] = oracle_figures.deviation(record, table.protocol_feed)
    actions = []
    if record.economics is not None:
        specs["bad-debt"] = oracle_figures.bad_debt(record)
        for name, run in (("unguarded", record.economics.unguarded), ("guarded", record.economics.guarded)):
            lines = [(t, text) for t, texts in grouped_actions(run) for text in texts]
            actions.append((name, lines[:MAX_ACTIONS], len(lines) - MAX_ACTIONS))
    return (
        _environment()
        .get_template("oracle.html.j2")
        .render(
            record=record,
            colours=plotting,
            plotly_js=Markup(get_plotlyjs()),
            figures=specs,
            tables=tables,
            headline=headline(record),
            economics=economics_rows(record),
            economics_columns=ECONOMICS_COLUMNS,
            actions=actions,
            ablation_columns=ABLATION_COLUMNS,
            ablation=[] if record.matrix is None else [(r, ablation_cells(r)) for r in record.matrix.alone],
            standing=RECORD_WORDS.get(record.record, record.record),
            verdicts=VERDICT_CLASSES,
            silent=never_applicable(record),
        )
    )


def _environment() -> Environment:
    environment = template_environment()
    environment.filters |= {
        "usd": usd_text,
        "stamp": stamp,
        "duration": duration_text,
        "percent": lambda bps: percent_text(int(bps)),
    }
    environment.globals["figure"] = lambda name: Markup(
        '<div class="figure" data-spec="spec-{}"></div>'
    ).format(name)
    return environment
