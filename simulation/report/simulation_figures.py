"""The figures of a simulation's report as plain plotly specifications, out of its record and nothing else.

Colours beside those of `simulation.report.plotting`: a venue has one colour on the whole page, its bars and
its feed's line alike; vermilion is harm and blue is relief wherever a change is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulation.report.plotting import (
    COLLATERALS,
    EXECUTABLE,
    HARM,
    INK,
    LIQUIDATION,
    MARKET,
    MUTED,
    PROTOCOL,
    REFERENCE,
    Spec,
    axis,
    layout,
    title,
)
from simulation.report.simulation_risk import tornado_rows
from simulation.report.simulation_view import (
    LOSS_NAMES,
    PAYERS,
    Record,
    between,
    count,
    half_width,
    is_significant,
    moves,
    number,
    plus_minus,
    signed,
    usd,
)

PARTED: Final = 0.01
"""Part of the market's price from which a feed is drawn as parted from it."""
BARS: Final = 160
"""Most bars of the liquidations over time."""

_MARGIN: Final = {"l": 64, "r": 16, "t": 26, "b": 40}
_TAIL_ROWS: Final = ("ES 99 %", "VaR 99 %", "ES 95 %", "VaR 95 %", "mean")


def plain(name: str) -> str:
    """Return a name as plotly shows it: plotly reads some markup."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def venue_colours(record: Record) -> dict[str, str]:
    """Return one colour a venue; from the sixth on they repeat, and bars are hatched."""
    return {name: COLLATERALS[k % len(COLLATERALS)] for k, name in enumerate(record["venues"])}


def _dollar_axis(**extra: Any) -> Spec:
    return axis(tickprefix="$", exponentformat="B", **extra)


def _line(x: Sequence[float], y: Sequence[float], name: str, colour: str, **style: Any) -> Spec:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, **style},
        "hovertemplate": "%{y}",
    }


def _name_axis(**extra: Any) -> Spec:
    """Return an axis of names; plotly would take those that look like numbers or dates for such."""
    return axis(type="category", showgrid=False, tickfont={"size": 12, "color": INK}, **extra)


def _row_heading(text: str, top: float) -> Spec:
    return {
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": "paper",
        "y": top,
        "yanchor": "bottom",
        "yshift": 2,
        "showarrow": False,
        "text": text,
        "font": {"size": 12, "color": INK},
    }


# ----------------------------------------------------------------------------------------------- worst path
def clock_of(record: Record) -> tuple[list[float], str]:
    """Return the times of the worst path, and their unit."""
    seconds = record["worst_path"]["t_s"]
    end = seconds[-1] if seconds else 0.0
    for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if end >= 2 * size:
            return [s / size for s in seconds], unit
    return list(seconds), "seconds"


def moved_tokens(record: Record) -> list[str]:
    """Return the tokens whose price moved on the worst path, that which fell the most first."""
    falls = {}
    for token, prices in record["worst_path"]["market"].items():
        if moves(prices) or _widest_gap(record, token)[0] > PARTED:
            falls[token] = min(prices) / prices[0]
    return sorted(falls, key=lambda token: falls[token])


def feeds_of(record: Record, token: str) -> dict[str, list[float]]:
    """Return what the venues that list a token believed; venues that agree throughout are one line."""
    lines: dict[tuple[float, ...], list[str]] = {}
    for venue, feeds in record["worst_path"]["oracle"].items():
        if token in record["venue_tokens"].get(venue, (token,)):
            lines.setdefault(tuple(feeds[token]), []).append(venue)
    if len(lines) == 1:
        return {"every venue": list(next(iter(lines)))}
    return {", ".join(venues): list(values) for values, venues in lines.items()}


def _gaps(record: Record, token: str) -> list[float]:
    """Return the widest distance of any feed from the market at each moment, with its sign."""
    market = record["worst_path"]["market"][token]
    feeds = list(feeds_of(record, token).values())
    return [
        max((feed[k] / price - 1.0 for feed in feeds), key=abs, default=0.0) if price > 0 else 0.0
        for k, price in enumerate(market)
    ]


def _widest_gap(record: Record, token: str) -> tuple[float, int]:
    gaps = _gaps(record, token)
    at = max(range(len(gaps)), key=lambda k: abs(gaps[k]))
    return abs(gaps[at]), at


def _parted(record: Record, token: str, times: Sequence[float], top: float) -> tuple[list[Spec], list[Spec]]:
    """Return bands where a feed and the market part, and a mark where they do most."""
    gaps = _gaps(record, token)
    bands, begun = [], None
    for k, gap in enumerate([*gaps, 0.0]):
        if abs(gap) > PARTED and begun is None:
            begun = k
        elif abs(gap) <= PARTED and begun is not None:
            bands.append((times[begun], times[min(k, len(times) - 1)]))
            begun = None
    shapes: list[Spec] = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "layer": "below",
            "x0": x0,
            "x1": x1,
            "y0": top,
            "y1": 1,
            "fillcolor": HARM,
            "opacity": 0.13,
            "line": {"width": 0},
        }
        for x0, x1 in bands
    ]
    if not bands:
        return shapes, []
    _, at = _widest_gap(record, token)
    side = "above" if gaps[at] > 0 else "below"
    right = at > 0.6 * len(times)
    mark = {
        "xref": "x",
        "yref": "y",
        "x": times[at],
        "y": record["worst_path"]["market"][token][at] * (1.0 + gaps[at]),
        "ax": -46 if right else 46,
        "ay": -22,
        "xanchor": "right" if right else "left",
        "showarrow": True,
        "arrowhead": 0,
        "arrowwidth": 1,
        "arrowcolor": HARM,
        "text": f"feed {number(100 * abs(gaps[at]), 1)} % {side} the market",
        "font": {"size": 11, "color": HARM},
    }
    return shapes, [mark]


def _prices(record: Record, token: str, times: Sequence[float]) -> list[Spec]:
    own, colours = record["worst_path"], venue_colours(record)
    data = [_line(times, own["market"][token], "market", MARKET, width=4)]
    feeds = feeds_of(record, token)
    for name, values in feeds.items():
        colour = PROTOCOL if len(feeds) == 1 else colours[name.split(", ")[0]]
        label = plain(f"feed of {name}")
        data.append(_line(times, values, label, colour, width=1.6, shape="hv"))
    return data


def price_panel(record: Record, token: str) -> Spec:
    """Return market price and feeds of one token on the worst path."""
    times, unit = clock_of(record)
    shapes, marks = _parted(record, token, times, 0.0)
    return {
        "data": _prices(record, token, times),
        "layout": layout(
            230,
            margin=_MARGIN,
            hovermode="x unified",
            xaxis=_time_axis(times, unit),
            yaxis=_dollar_axis(),
            shapes=shapes,
            annotations=marks,
        ),
    }


def _time_axis(times: Sequence[float], unit: str, **extra: Any) -> Spec:
    return axis(
        showgrid=False,
        showline=True,
        ticks="outside",
        ticklen=4,
        title=title(f"{unit} since the start"),
        range=[0, times[-1] if times else 1],
        **extra,
    )


def cascade(record: Record) -> Spec:
    """Return the worst path: price and feeds, liquidations by venue, what they came to, and the base fee."""
    own = record["worst_path"]
    times, unit = clock_of(record)
    tokens = moved_tokens(record) or list(own["market"])[:1]
    token = tokens[0]
    sold = _summed(own["liquidated_usd"])
    gone = _summed(own["written_off_usd"])
    rows: list[tuple[str, float, list[Spec], Spec]] = [
        (f"Price of {plain(token)}", 3.0, _prices(record, token, times), _dollar_axis())
    ]
    if sold[-1] > 0:
        bars, per = _liquidation_bars(record, times)
        rows.append((f"Debt repaid by liquidators, each {per}", 2.0, bars, _dollar_axis(rangemode="tozero")))
        line = _line(times, sold, "liquidated so far", LIQUIDATION, width=2, shape="hv")
        filled = line | {"fill": "tozeroy", "fillcolor": "rgba(139,63,150,0.12)"}
        rows.append(("Liquidated so far", 1.2, [filled], _dollar_axis(rangemode="tozero")))
    if gone[-1] > 0:
        line = _line(times, gone, "written off so far", HARM, width=2, shape="hv")
        filled = line | {"fill": "tozeroy", "fillcolor": "rgba(213,94,0,0.14)"}
        rows.append(("Bad debt written off so far", 1.2, [filled], _dollar_axis(rangemode="tozero")))
    if any(own["base_fee_gwei"]):
        fee = _line(times, own["base_fee_gwei"], "base fee", MUTED, width=1.6)
        filled = fee | {"hovertemplate": "%{y:.1f} gwei", "fill": "tozeroy"}
        filled |= {"fillcolor": "rgba(102,113,127,0.14)"}
        rows.append(("Base fee, gwei", 1.0, [filled], axis(rangemode="tozero")))
    return _stacked(record, token, times, unit, rows)


def _stacked(
    record: Record,
    token: str,
    times: Sequence[float],
    unit: str,
    rows: Sequence[tuple[str, float, list[Spec], Spec]],
) -> Spec:
    """Return rows above each other over one time axis; the first is the token's price."""
    gap, whole = 0.4, sum(weight for _, weight, _, _ in rows) + 0.4 * (len(rows) - 1)
    top, axes, data, headings = 1.0, {}, [], []
    bottom_of_first = 1.0 - rows[0][1] / whole
    for k, (heading, weight, traces, y) in enumerate(rows):
        name = "" if k == 0 else str(k + 1)
        low = max(top - weight / whole, 0.0)
        axes[f"yaxis{name}"] = {**y, "domain": [low, top], "nticks": 6 if weight > 2 else 4}
        data += [{**trace, "yaxis": f"y{name}"} for trace in traces]
        headings.append(_row_heading(heading, top))
        top = low - gap / whole
    shapes, marks = _parted(record, token, times, bottom_of_first)
    last = "" if len(rows) == 1 else str(len(rows))
    return {
        "data": data,
        "layout": layout(
            round(90 + 88 * whole),
            margin={"l": 64, "r": 16, "t": 30, "b": 44},
            barmode="stack",
            bargap=0.08,
            hovermode="x unified",
            xaxis=_time_axis(times, unit, anchor=f"y{last}"),
            **axes,
            shapes=shapes,
            annotations=[*headings, *marks],
        ),
    }


def _summed(by_venue: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the sum over venues at each moment; nothing where a book has no lending venue."""
    return [sum(values) for values in zip(*by_venue.values(), strict=True)] or [0.0]


def _liquidation_bars(record: Record, times: Sequence[float]) -> tuple[list[Spec], str]:
    """Return stacked bars of what each venue liquidated, and how long a bar is, in words."""
    own, colours = record["worst_path"], venue_colours(record)
    width = max(1, -(-len(times) // BARS))
    edges = [*range(width, len(times), width), len(times)]
    starts = [0, *edges[:-1]]
    step = times[1] - times[0] if len(times) > 1 else 1.0
    x = [(times[a] + times[b - 1] - step) / 2 for a, b in zip(starts, edges, strict=True)]
    bars = []
    for k, (venue, total) in enumerate(own["liquidated_usd"].items()):
        # The series are sums since the start.
        at = [0.0, *total]
        values = [at[b] - at[a] for a, b in zip(starts, edges, strict=True)]
        if not any(values):
            continue
        marker: Spec = {"color": colours[venue], "line": {"width": 0}}
        if k >= len(COLLATERALS):
            marker["pattern"] = {"shape": "/", "solidity": 0.35}
        bars.append(
            {
                "type": "bar",
                "name": plain(venue),
                "x": x,
                "y": values,
                "width": 0.92 * width * step,
                "marker": marker,
                "hovertemplate": "%{y}",
            }
        )
    kept = len(times)
    unit_s = record["steps"] * record["step_s"] / max(kept, 1) * width
    return bars, f"{unit_s / 60:g} min" if unit_s >= 60 else f"{unit_s:g} s"


# ------------------------------------------------------------------------------------------------- losses
def waterfall(record: Record) -> Spec:
    """Return who paid for the mean bad debt: what each bears is taken off until nothing is left."""
    whole = record["figures"]["bad_debt_usd"]["value"]
    colours = {
        "from_reserves_usd": PROTOCOL,
        "absorbed_usd": PROTOCOL,
        "from_backstop_usd": REFERENCE,
        "from_suppliers_usd": EXECUTABLE,
        "deficit_usd": HARM,
        "shortfall_usd": HARM,
        "revalued_usd": MUTED,
    }
    names, low, size, colour, text = ["bad debt"], [0.0], [whole], [INK], [usd(whole)]
    left = whole
    for key, label in PAYERS:
        paid = record["waterfall"][key]
        if abs(paid) < 1e-9 * max(whole, 1.0) or (key == "revalued_usd" and abs(paid) < 0.005):
            continue
        left -= paid
        names.append(label)
        low.append(min(left, left + paid))
        size.append(abs(paid))
        colour.append(colours[key])
        text.append(usd(paid))
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": names,
                "x": size,
                "base": low,
                "text": text,
                "textposition": "outside",
                "cliponaxis": False,
                "textfont": {"size": 12, "color": INK},
                "marker": {"color": colour},
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            }
        ],
        "layout": layout(
            64 + 38 * len(names),
            margin={"l": 64, "r": 70, "t": 8, "b": 40},
            bargap=0.35,
            xaxis=_dollar_axis(range=[min(low), 1.02 * max(b + x for b, x in zip(low, size, strict=True))]),
            yaxis=_name_axis(autorange="reversed"),
        ),
    }


def varied(record: Record) -> list[str]:
    """Return the figures that differ between paths: those that have a distribution to show."""
    shown = ("bad_debt_usd", "liquidated_usd", "keeper_profit_usd", "unfilled_usd")
    return [name for name in shown if len(record["histograms"][name]["counts"]) > 1]


def distribution(record: Record, name: str) -> Spec:
    """Return a histogram over paths, and above it mean, VaR and ES with their intervals."""
    edges, counts = record["histograms"][name]["edges"], record["histograms"][name]["counts"]
    low, high = record["tails"][name]["0.95"], record["tails"][name]["0.99"]
    figures = dict(
        zip(_TAIL_ROWS, (high["es"], high["var"], low["es"], low["var"], low["mean"]), strict=True)
    )
    width = edges[1] - edges[0]
    colour = {"bad_debt_usd": HARM, "liquidated_usd": LIQUIDATION}.get(name, PROTOCOL)
    values = [f["value"] for f in figures.values()]
    return {
        "data": [
            {
                "type": "bar",
                "x": [a + width / 2 for a in edges[:-1]],
                "y": counts,
                "width": width,
                "marker": {"color": colour, "opacity": 0.55, "line": {"color": "#ffffff", "width": 0.6}},
                "text": [
                    f"{usd(a)} to {usd(b)}: {count(n)} paths"
                    for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
                ],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": values,
                "y": list(figures),
                "yaxis": "y2",
                "error_x": _error_bars(list(figures.values()), edges[-1]),
                "marker": {"color": INK, "size": 7, "symbol": "diamond"},
                "text": [f"{usd(f['value'])}, {between(f)}" for f in figures.values()],
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            },
        ],
        "layout": layout(
            320,
            margin={"l": 64, "r": 24, "t": 14, "b": 44},
            xaxis=_dollar_axis(
                anchor="y",
                nticks=6,
                title=title(f"{LOSS_NAMES[name]} of a path"),
                range=[edges[0] - 0.03 * (edges[-1] - edges[0]), edges[-1] + 0.05 * (edges[-1] - edges[0])],
            ),
            yaxis=axis(domain=[0, 0.6], title=title("paths"), rangemode="tozero", nticks=5),
            yaxis2=axis(domain=[0.66, 1], showgrid=True, categoryorder="array", categoryarray=_TAIL_ROWS),
        ),
    }


def _error_bars(figures: Sequence[Mapping[str, Any]], largest: float) -> Spec:
    """Return intervals as plotly takes them; a limit that is unknown reaches the largest that was seen."""
    up = [(largest if f["high"] is None else f["high"]) - f["value"] for f in figures]
    down = [f["value"] - (f["value"] if f["low"] is None else f["low"]) for f in figures]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(x, 0.0) for x in up],
        "arrayminus": [max(x, 0.0) for x in down],
        "color": INK,
        "thickness": 1.4,
        "width": 4,
    }


# ------------------------------------------------------------------------------------------------- causes
def shown_tokens(record: Record) -> list[str]:
    """Return the tokens whose fall makes any debt liquidatable."""
    return [name for name, own in record["static"].items() if any(own["debt_usd"])]


def static(record: Record, figure: str) -> Spec:
    """Return a figure of the static sensitivity against the fall of each token's price."""
    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    data = []
    for k, name in enumerate(shown_tokens(record)):
        own = record["static"][name]
        colour = COLLATERALS[k % len(COLLATERALS)]
        line = _line(
            [-100 * m for m in own["moves"]],
            own[figure],
            plain(name),
            colour,
            width=2.2,
            dash=dashes[k % len(dashes)],
        )
        data.append(line | {"mode": "lines+markers", "marker": {"size": 5, "color": colour}})
    return {
        "data": data,
        "layout": layout(
            300,
            margin={"l": 64, "r": 16, "t": 8, "b": 44},
            hovermode="x unified",
            showlegend=True,
            legend={"x": 0.02, "y": 0.98, "yanchor": "top", "font": {"size": 11.5}},
            xaxis=axis(title=title("fall of the token's price"), ticksuffix=" %", showline=True),
            yaxis=_dollar_axis(rangemode="tozero"),
        ),
    }


def change_colour(figure: Mapping[str, Any]) -> str:
    """Return vermilion for what adds to a loss, blue for what takes off, grey for what may be nothing."""
    if not is_significant(figure):
        return MARKET
    return HARM if figure["value"] > 0 else PROTOCOL


def changes(rows: Sequence[tuple[str, Mapping[str, Any]]], axis_title: str) -> Spec:
    """Return changes of a loss as bars with their intervals, the largest first."""
    ordered = sorted(rows, key=lambda row: -abs(row[1]["value"]))
    halves = [half_width(figure) for _, figure in ordered]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [plain(name) for name, _ in ordered],
                "x": [figure["value"] for _, figure in ordered],
                "marker": {"color": [change_colour(figure) for _, figure in ordered]},
                "error_x": {
                    "type": "data",
                    "array": [half or 0.0 for half in halves],
                    "color": INK,
                    "thickness": 1.4,
                    "width": 4,
                },
                "text": [f"{signed(f['value'])} {plus_minus(f)}" for _, f in ordered],
                "textposition": "none",
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            }
        ],
        "layout": layout(
            70 + 30 * len(ordered),
            margin={"l": 64, "r": 150, "t": 8, "b": 44},
            bargap=0.35,
            # A format and no prefix: that would stand before the minus sign.
            xaxis=axis(
                title=title(axis_title),
                tickformat="$~s",
                zeroline=True,
                zerolinecolor=INK,
                zerolinewidth=1,
                nticks=7,
            ),
            yaxis=_name_axis(autorange="reversed"),
            annotations=[
                {
                    "xref": "paper",
                    "x": 1.01,
                    "xanchor": "left",
                    "yref": "y",
                    "y": plain(name),
                    "showarrow": False,
                    "text": f"{signed(figure['value'])} {plus_minus(figure)}",
                    "font": {"size": 11.5, "color": INK if is_significant(figure) else MUTED},
                }
                for name, figure in ordered
            ],
        ),
    }


def effects(record: Record) -> Spec:
    """Return what each channel adds to the mean bad debt."""
    return changes(
        [(e["channel"], e["effect"]) for e in record["effects"]], "added to the mean bad debt of a path"
    )


def policies(record: Record) -> Spec:
    """Return what each policy changes about the mean bad debt."""
    rows = [(name, own["bad_debt_usd"]["change"]) for name, own in record["policy_effects"].items()]
    return changes(rows, "change of the mean bad debt of a path")


def tornado(record: Record, figure: str) -> Spec:
    """Return what each end of each uncertain parameter changes about the mean of a figure, with intervals."""
    rows = tornado_rows(record, figure)
    names = [f"{plain(key)}<br>{between_ends}" for key, between_ends, _, _ in rows]
    data = []
    lows, highs = [row[2] for row in rows], [row[3] for row in rows]
    for end, ends, colour in (("low", lows, COLLATERALS[0]), ("high", highs, COLLATERALS[1])):
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{end} end",
                "y": names,
                "x": [change["value"] for change in ends],
                "marker": {"color": colour},
                "error_x": {
                    "type": "data",
                    "array": [half_width(change) or 0.0 for change in ends],
                    "color": INK,
                    "thickness": 1.4,
                    "width": 3,
                },
                "text": [f"{end} end {signed(change['value'])} {plus_minus(change)}" for change in ends],
                "textposition": "none",
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": layout(
            84 + 52 * len(rows),
            margin={"l": 64, "r": 24, "t": 8, "b": 44},
            barmode="group",
            bargap=0.3,
            bargroupgap=0.08,
            xaxis=axis(
                title=title(f"change of the mean of a path: {LOSS_NAMES[figure]}"),
                tickformat="$~s",
                zeroline=True,
                zerolinecolor=INK,
                zerolinewidth=1,
                nticks=9,
            ),
            yaxis=_name_axis(autorange="reversed"),
        ),
    }


def matrix(record: Record) -> Spec:
    """Return the contagion matrix: rows are shocked, columns lose; each cell with its interval."""
    own = record["matrix"]
    names = [plain(name) for name in own["venues"]]
    cells = [
        (row, column, figure)
        for row, figures in zip(names, own["matrix"], strict=True)
        for column, figure in zip(names, figures, strict=True)
    ]
    most = max(max(abs(figure["value"]) for _, _, figure in cells), 1e-9)
    return {
        "data": [
            {
                "type": "heatmap",
                "x": names,
                "y": names,
                "z": [[figure["value"] for figure in row] for row in own["matrix"]],
                "zmin": -most,
                "zmax": most,
                # Pale at both ends: ink is read on every cell.
                "colorscale": [[0, "#8fbfe0"], [0.5, "#ffffff"], [1, "#f2ab7c"]],
                "xgap": 2,
                "ygap": 2,
                "showscale": False,
                "text": [
                    [f"{signed(f['value'])}, {signed(f['low'])} to {signed(f['high'])}" for f in row]
                    for row in own["matrix"]
                ],
                "hovertemplate": "shock of %{y}: %{x} loses %{text}<extra></extra>",
            }
        ],
        "layout": layout(
            110 + 58 * len(names),
            margin={"l": 64, "r": 16, "t": 58, "b": 10},
            xaxis=_name_axis(side="top", title=title("loses more"), tickangle=0),
            yaxis=_name_axis(autorange="reversed", title=title("shocked")),
            annotations=[
                {
                    "x": column,
                    "y": row,
                    "showarrow": False,
                    "text": f"{signed(figure['value'])}<br>{plus_minus(figure)}",
                    "font": {"size": 11.5, "color": INK if is_significant(figure) else MUTED},
                }
                for row, column, figure in cells
            ],
        ),
    }
