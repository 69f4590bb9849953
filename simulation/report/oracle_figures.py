"""The figures of a replay's page as plain plotly specifications. Floats only draw; the record is exact."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from simulation.replay.record import FaultInfo, ReplayRecord
from simulation.replay.text import percent_text
from simulation.report.plotting import (
    HARM,
    MARKET,
    MUTED,
    PROTOCOL,
    REFERENCE,
    Spec,
    axis,
    layout,
    plot_time,
    title,
)

_LOG_FROM: Final = 20.0
"""Ratio of highest to lowest price from which the axis is logarithmic."""

_MARGIN: Final = {"l": 64, "r": 16, "t": 26, "b": 40}

_CLOSE: Final = 0.08
"""Part of the time axis within which the labels of two marks would stand in each other."""
_APART: Final = ("top left", "bottom center", "top right")


def _times(record: ReplayRecord) -> list[str]:
    return [plot_time(row.t) for row in record.timeline]


def _time_axis(record: ReplayRecord, **extra: Any) -> Spec:
    span = [plot_time(record.start), plot_time(record.end)]
    return axis(
        type="date",
        showgrid=False,
        tickformat="%H:%M\n%-d %b %Y",
        showline=True,
        ticks="outside",
        ticklen=4,
        range=span,
        **extra,
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _fault_bands(record: ReplayRecord, feeds: tuple[str, ...]) -> tuple[list[Spec], list[Spec]]:
    """Return shaded bands and labels for the faults on `feeds` and on the parts that they are made of."""
    parts = {f.name for f in record.feeds if f.role == "part"}
    bands: list[Spec] = []
    labels: list[Spec] = []
    for fault in record.faults:
        if fault.feed in feeds or fault.feed in parts:
            bands.append(_band(fault, record.end))
            labels.append(_band_label(fault, len(labels)))
    return bands, labels


def _band(fault: FaultInfo, end: int) -> Spec:
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "layer": "below",
        "x0": plot_time(fault.at),
        "x1": plot_time(end if fault.until is None else min(fault.until, end)),
        "y0": 0,
        "y1": 1,
        "fillcolor": HARM,
        "opacity": 0.08,
        "line": {"width": 0},
    }


def _band_label(fault: FaultInfo, place: int) -> Spec:
    return {
        "x": plot_time(fault.at),
        "xref": "x",
        "y": 1 - 0.06 * place,
        "yref": "paper",
        "yanchor": "bottom" if place == 0 else "top",
        "xanchor": "left",
        "showarrow": False,
        "text": f"{fault.op.replace('_', ' ')} on {fault.feed}".replace("<", "&lt;"),
        "font": {"size": 10.5, "color": HARM},
    }


def prices(record: ReplayRecord, feed: str) -> Spec:
    """Return truth, what the feed said, what the adapter gave, and where guards were first violated."""
    times = _times(record)
    cells = [row.feeds[feed] for row in record.timeline]
    adapted = [row.adapted.get(feed) for row in record.timeline]
    pair = next(f.pair for f in record.feeds if f.name == feed)
    others = tuple(f.name for f in record.feeds if f.pair == pair and f.name != feed)

    def line(name: str, values: list[float | None], colour: str, **style: Any) -> Spec:
        return {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": times,
            "y": values,
            "connectgaps": False,
            "line": {"color": colour, **style},
            "hovertemplate": "%{y:,.6~g}",
        }

    said = [_number(c.raw) for c in cells]
    data = [line("truth", [_number(c.truth) for c in cells], MARKET, width=5)]
    data += [
        line(
            other,
            [_number(row.feeds[other].raw) for row in record.timeline],
            MUTED,
            width=1.2,
            dash="dash",
            shape="hv",
        )
        for other in others
    ]
    data += [
        line("reported", said, PROTOCOL, width=2, shape="hv"),
        line(
            "adapted",
            [None if a is None else _number(a.price) for a in adapted],
            REFERENCE,
            width=2,
            dash="dot",
            shape="hv",
        ),
    ]
    at = {row.t: i for i, row in enumerate(record.timeline)}
    marks: dict[int, list[str]] = {}
    for fired in record.fired:
        if fired.feed == feed and fired.t in at:
            marks.setdefault(fired.t, []).append(fired.guard)
    points = {t: _known(said, cells[at[t]].truth, at[t]) for t in marks}
    if points:
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": "guard violated",
                "x": [plot_time(t) for t in points],
                "y": list(points.values()),
                "text": [" ".join(marks[t]) for t in points],
                "textposition": _positions(list(points), record.end - record.start),
                "textfont": {"size": 10.5, "color": HARM},
                "hovertemplate": "%{text}",
                "marker": {"color": HARM, "size": 9, "symbol": "triangle-down"},
            }
        )
    shapes, labels = _fault_bands(record, (feed, *others))
    drawn = [y for trace in data for y in trace["y"] if y is not None and y > 0]
    spread = max(drawn) / min(drawn) if drawn else 1.0
    return {
        "data": data,
        "layout": layout(
            360,
            hovermode="x unified",
            xaxis=_time_axis(record),
            yaxis=axis(
                tickformat=",.6~g" if spread <= _LOG_FROM else "~g",
                title=title(pair),
                **({"type": "log"} if spread > _LOG_FROM else {}),
            ),
            shapes=shapes,
            annotations=labels,
            # The first fault's label stands above the plot, and the legend above that.
            margin=_MARGIN | ({"t": 44} if labels else {}),
            showlegend=True,
            legend={
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.08 if labels else 1.02,
                "yanchor": "bottom",
            },
        ),
    }


def _positions(times: list[int], span: int) -> list[str]:
    """Return where the label of each mark stands, so that those of neighbours stay apart."""
    near = [b - a < _CLOSE * span for a, b in pairwise(times)]
    out: list[str] = []
    run = 0
    for i in range(len(times)):
        run = run + 1 if i and near[i - 1] else 0
        alone = not run and not (i < len(near) and near[i])
        out.append("top center" if alone else _APART[run % len(_APART)])
    return out


def _known(said: list[float | None], truth: str, i: int) -> float:
    value = said[i]
    return float(truth) if value is None else value


def deviation(record: ReplayRecord, feed: str) -> Spec:
    """Return how far the feed stood from the truth, per cent, and where it stood all the same."""
    cells = [row.feeds[feed] for row in record.timeline]
    values = [None if c.deviation_bps is None else int(c.deviation_bps) / 100 for c in cells]
    largest = max((abs(v) for v in values if v is not None), default=0.0)
    accepted = [v if c.status == "ok" else None for v, c in zip(values, cells, strict=True)]
    texts = ["no answer" if c.deviation_bps is None else percent_text(int(c.deviation_bps)) for c in cells]
    kind: Spec = {"type": "log"} if largest > 100_000 else {}
    if kind:
        values = [None if v is None else abs(v) or None for v in values]
        accepted = [None if v is None else abs(v) or None for v in accepted]

    def line(name: str, y: list[float | None], colour: str, width: float) -> Spec:
        return {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": _times(record),
            "y": y,
            "text": texts,
            "connectgaps": False,
            "line": {"color": colour, "width": width, "shape": "hv"},
            "hovertemplate": "%{text}",
        }

    shapes, _ = _fault_bands(record, (feed,))
    return {
        "data": [
            line("reported", values, PROTOCOL, 1.6),
            line("let through by the guards", accepted, HARM, 3),
        ],
        "layout": layout(
            230,
            xaxis=_time_axis(record),
            yaxis=axis(title=title("off the truth, %"), tickformat=",.6~g", **kind),
            shapes=shapes,
            margin=dict(_MARGIN),
            showlegend=True,
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        ),
    }


def bad_debt(record: ReplayRecord) -> Spec:
    """Return bad debt at true prices over time, one line a run."""
    assert record.economics is not None
    runs = (
        ("unguarded", record.economics.unguarded, HARM, None),
        ("guarded", record.economics.guarded, REFERENCE, "dot"),
        ("had the feeds told the truth", record.economics.truthful, MARKET, "dash"),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": _times(record),
            "y": [float(v) for v in run.bad_debt_by_step],
            "line": {"color": colour, "width": 2.2, "shape": "hv", **({"dash": dash} if dash else {})},
            "hovertemplate": "%{y:$,.0f}",
        }
        for name, run, colour, dash in runs
    ]
    return {
        "data": data,
        "layout": layout(
            250,
            hovermode="x unified",
            xaxis=_time_axis(record),
            yaxis=axis(tickprefix="$", tickformat="~s", rangemode="tozero", title=title("bad debt")),
            margin=dict(_MARGIN),
            showlegend=True,
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        ),
    }
