"""A simulation as one HTML file that opens offline. The same record gives the same bytes."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simulation.report import plotting, simulation_figures, simulation_risk, simulation_view
from simulation.report.simulation_view import Record, Table


def simulation_html(record: Record) -> str:
    """Return the report of a simulation as one HTML document.

    Everything is in the file, plotly.js included (about 5 MB); it fetches nothing. Sections without data are
    left out.

    Parameters
    ----------
    record
        What `simulation.contagion.record.build_record` returns, or the same read from its JSON.
    """
    view, figures, risk = simulation_view, simulation_figures, simulation_risk
    tokens = figures.moved_tokens(record)
    specs: dict[str, plotting.Spec] = {"cascade": figures.cascade(record)}
    specs |= {f"price-{k}": figures.price_panel(record, name) for k, name in enumerate(tokens[1:])}
    harmed = record["tails"]["bad_debt_usd"]["0.99"]["largest"] > 0
    if harmed:
        specs["waterfall"] = figures.waterfall(record)
    varied = figures.varied(record)
    specs |= {f"distribution-{name}": figures.distribution(record, name) for name in varied}
    if figures.shown_tokens(record):
        specs["static-debt"] = figures.static(record, "debt_usd")
        if any(any(own["bad_debt_usd"]) for own in record["static"].values()):
            specs["static-bad-debt"] = figures.static(record, "bad_debt_usd")
    if record["effects"]:
        specs["effects"] = figures.effects(record)
    if record["matrix"]:
        specs["matrix"] = figures.matrix(record)
    if record["policies_compared"]:
        specs["policies"] = figures.policies(record)
    ranged = risk.tornado_figures(record)
    specs |= {f"tornado-{name}": figures.tornado(record, name) for name in ranged}
    tables: dict[str, Table | None] = {
        "tails": view.tails_table(record),
        "venues": view.venues_table(record),
        "tokens": view.tokens_table(record),
        "other": view.other_table(record),
        "policies": view.policies_table(record),
        "solvency": view.solvency_table(record),
        "events": view.events_table(record),
        "system": risk.system_table(record),
        "covar": risk.covar_table(record),
        "debtrank": risk.debtrank_table(record),
        "spread": risk.spread_table(record),
        "ends": risk.ends_table(record),
        "wallets": risk.wallets_table(record),
    }
    return (
        _environment()
        .get_template("simulation.html.j2")
        .render(
            record=record,
            colours=plotting,
            plotly_js=Markup(get_plotlyjs()),
            figures=specs,
            tables=tables,
            lead=view.lead(record),
            warning=risk.warning(record),
            sampling=risk.sampling_facts(record),
            debtrank_unknown=risk.debtrank_unknown(record),
            covar_level=view.part((record.get("system") or {}).get("covar_level")),
            ranged=ranged,
            end_colours=plotting.COLLATERALS[:2],
            wallets=risk.wallets_words(record),
            headline=view.headline(record),
            worst=view.worst_words(record),
            panels=list(enumerate(tokens[1:])),
            venue_colours=figures.venue_colours(record),
            liquidated_venues=[v for v, x in record["worst_path"]["liquidated_usd"].items() if x[-1] > 0],
            several_feeds=any(len(figures.feeds_of(record, token)) > 1 for token in tokens),
            parted=view.part(figures.PARTED),
            varied=varied,
            loss_names=view.LOSS_NAMES,
            policies=view.policy_words(record["policies"]),
            policy_tables={k: view.policy_words(v) for k, v in record["policy_tables"].items()},
            shock=view.shock_words(record),
            matrix_words=view.matrix_words(record),
            notes=view.notes(record) + risk.notes(record),
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
    environment.globals["figure"] = lambda name: Markup(
        '<div class="figure" data-spec="spec-{}"></div>'
    ).format(name)
    return environment
