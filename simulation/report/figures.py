"""The demo report's figures as plain plotly specifications: dictionaries of data and layout."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

from simulation.fixed_point import WAD
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
)
from simulation.report.plotting import axis as _axis
from simulation.report.plotting import layout as _layout
from simulation.report.plotting import plot_time as _time
from simulation.report.plotting import title as _title
from simulation.report.record import BlockRow, DemoRecord, LiquidationRow
from simulation.report.summary import FAULT_WORDS, protocol_price_at, usd


def _time_axis(record: DemoRecord, **extra: Any) -> Spec:
    times = [b.timestamp for b in record.blocks]
    span = {"range": [_time(times[0]), _time(times[-1])]} if times else {}
    return _axis(
        type="date",
        showgrid=False,
        tickformat="%H:%M\n%-d %b",
        showline=True,
        ticks="outside",
        ticklen=4,
        **span,
        **extra,
    )


def _fault_shapes(record: DemoRecord, symbol: str | None = None) -> tuple[list[Spec], list[Spec]]:
    """Return shaded bands and their labels for the faults that touch `symbol` (None: all)."""
    shapes: list[Spec] = []
    labels: list[Spec] = []
    for window in record.faults:
        if symbol is not None and symbol not in window.assets:
            continue
        shapes.append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "layer": "below",
                "x0": _time(window.start),
                "x1": _time(window.end),
                "y0": 0,
                "y1": 1,
                "fillcolor": HARM,
                "opacity": 0.09,
                "line": {"width": 0},
            }
        )
        labels.append(
            {
                "x": _time(window.start),
                "xref": "x",
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "xanchor": "left",
                "showarrow": False,
                "text": f"{window.feed} {FAULT_WORDS.get(window.op, window.op)}",
                "font": {"size": 10.5, "color": HARM},
            }
        )
    return shapes, labels


def _series(blocks: tuple[BlockRow, ...], name: str, symbol: str) -> list[float | None]:
    """Prices in dollars; an unknown price is a gap in the line."""
    prices = (getattr(b, name).get(symbol) for b in blocks)
    return [None if p is None else p / 1e8 for p in prices]


def price_panel(record: DemoRecord, symbol: str, height: int) -> Spec:
    """Return the four prices of one token over time, with fault windows and liquidations."""
    blocks = record.blocks
    times = [_time(b.timestamp) for b in blocks]

    def line(name: str, label: str, colour: str, **style: Any) -> Spec:
        return {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "x": times,
            "y": _series(blocks, name, symbol),
            "connectgaps": False,
            "line": {"color": colour, **style},
            "hovertemplate": "%{y:$,.4~f}",
        }

    data = [
        line("market_e8", "market", MARKET, width=5),
        line("executable_e8", "executable", EXECUTABLE, width=1.5),
        line("reference_e8", "reference", REFERENCE, width=1.8, dash="dot"),
        line("protocol_e8", "protocol", PROTOCOL, width=2, shape="hv"),
    ]
    marks = _liquidations_by_block(record, symbol)
    if marks:
        biggest = max(sum(r.debt_covered_usd_e8 for r in rows) for rows in marks.values())
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "liquidations",
                "x": [_time(rows[0].timestamp) for rows in marks.values()],
                "y": [_dollars(protocol_price_at(record, symbol, block)) for block in marks],
                "text": [_block_text(rows) for rows in marks.values()],
                "hovertemplate": "%{text}",
                "marker": {
                    "size": [_bubble(rows, biggest) for rows in marks.values()],
                    "color": LIQUIDATION,
                    "opacity": 0.62,
                    "line": {"color": "#ffffff", "width": 1},
                },
            }
        )
    shapes, labels = _fault_shapes(record, symbol)
    return {
        "data": data,
        "layout": _layout(
            height,
            hovermode="x unified",
            xaxis=_time_axis(record),
            yaxis=_price_axis(record, symbol),
            shapes=shapes,
            annotations=labels,
            margin={"l": 56, "r": 16, "t": 22, "b": 40},
        ),
    }


def _price_axis(record: DemoRecord, symbol: str) -> Spec:
    """Return an axis that shows at least 4 %, so that a stablecoin's noise does not look like a crash."""
    prices = [
        p
        for b in record.blocks
        for name in ("market_e8", "protocol_e8", "reference_e8", "executable_e8")
        if (p := getattr(b, name).get(symbol)) is not None
    ]
    low, high = min(prices, default=0) / 1e8, max(prices, default=1) / 1e8
    span: Spec = {}
    if high - low < 0.04 * high:
        middle = (low + high) / 2
        span = {"range": [middle - 0.02 * high, middle + 0.02 * high]}
    return _axis(tickprefix="$", tickformat=",.2f" if high < 10 else ",.4~f", **span)


def _dollars(price_e8: int | None) -> float | None:
    return None if price_e8 is None else price_e8 / 1e8


def _liquidations_by_block(record: DemoRecord, symbol: str) -> dict[int, list[LiquidationRow]]:
    out: defaultdict[int, list[LiquidationRow]] = defaultdict(list)
    for row in record.liquidations:
        if row.collateral == symbol:
            out[row.block].append(row)
    return dict(sorted(out.items()))


def _bubble(rows: list[LiquidationRow], biggest_e8: int) -> float:
    """Marker diameter in pixels: area grows with the debt repaid."""
    share = sum(r.debt_covered_usd_e8 for r in rows) / max(biggest_e8, 1)
    return float(round(6 + 16 * share**0.5, 2))


def _block_text(rows: list[LiquidationRow]) -> str:
    partial = sum(not r.full for r in rows)
    repaid = usd(sum(r.debt_covered_usd_e8 for r in rows))
    return f"{len(rows)} in block {rows[0].block}, {partial} partial, {repaid} repaid"


def health(record: DemoRecord) -> Spec:
    """Return the distribution of health factors over time, above the accounts due at either view."""
    blocks = record.blocks
    times = [_time(b.timestamp) for b in blocks]
    edges = [e / WAD for e in record.hf_edges_wad]
    width = edges[1] - edges[0]
    # The open bins at both ends are drawn one bin high.
    bounds = [edges[0] - width, *edges, edges[-1] + width]
    counts = [[b.hf_counts[i] for b in blocks] for i in range(len(edges) + 1)]
    names = (
        [f"below {edges[0]:.2f}"]
        + [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)]
        + [f"{edges[-1]:.2f} and above"]
    )
    closed = [c for row in counts[:-1] for c in row]
    stamps = [b.timestamp for b in blocks]
    end = stamps[-1] + (stamps[-1] - stamps[-2]) if len(stamps) > 1 else stamps[-1] + 1 if stamps else 0
    shapes, labels = _fault_shapes(record)
    for shape in shapes:
        # Over the heat map a fill would change the colours that are read there.
        shape |= {"layer": "above", "opacity": 1, "fillcolor": "rgba(0,0,0,0)"}
        shape["line"] = {"width": 1.2, "color": HARM, "dash": "dot"}
    shapes.append(
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "yref": "y",
            "y0": 1,
            "y1": 1,
            "line": {"color": HARM, "width": 1.6},
        }
    )
    labels.append(
        {
            "xref": "paper",
            "x": 1.008,
            "xanchor": "left",
            "yref": "y",
            "y": 1,
            "yanchor": "middle",
            "align": "left",
            "text": "liquidatable<br>below 1",
            "showarrow": False,
            "font": {"size": 11, "color": HARM},
        }
    )
    return {
        "data": [
            {
                "type": "heatmap",
                # Cells by their edges: a column runs from its block to the next, like the lines below.
                "x": [*times, _time(end)],
                "y": bounds,
                "z": counts,
                "text": [[f"block {b.number}, health factor {name}" for b in blocks] for name in names],
                "zmin": 0,
                "zmax": max(max(closed, default=1), 1),
                "colorscale": [
                    [0, "#ffffff"],
                    [0.08, "#e3edf5"],
                    [0.25, "#b5d0e4"],
                    [0.5, "#6ba3cb"],
                    [0.75, "#2b74a9"],
                    [1, "#0b3f66"],
                ],
                "colorbar": {
                    "thickness": 10,
                    "len": 0.4,
                    "y": 1,
                    "yanchor": "top",
                    "outlinewidth": 0,
                    "tickfont": {"size": 11, "color": MUTED},
                    "title": {"text": "accounts", "font": {"size": 11, "color": MUTED}},
                },
                "hovertemplate": "%{text}: %{z} accounts<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "at the protocol's prices",
                "x": times,
                "y": [b.liquidatable for b in blocks],
                "xaxis": "x",
                "yaxis": "y2",
                "line": {"color": PROTOCOL, "width": 2, "shape": "hv"},
                "hovertemplate": "%{x|%H:%M}: %{y} due at the protocol's prices<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "at reference prices",
                "x": times,
                "y": [b.liquidatable_at_reference for b in blocks],
                "xaxis": "x",
                "yaxis": "y2",
                "line": {"color": REFERENCE, "width": 1.8, "dash": "dot", "shape": "hv"},
                "hovertemplate": "%{x|%H:%M}: %{y} due at reference prices<extra></extra>",
            },
        ],
        "layout": _layout(
            470,
            margin={"l": 56, "r": 16, "t": 22, "b": 40},
            xaxis=_time_axis(record, anchor="y2"),
            yaxis=_axis(
                domain=[0.4, 1],
                title=_title("health factor"),
                showgrid=False,
                range=[bounds[0], bounds[-1]],
                tickformat=".2f",
            ),
            yaxis2=_axis(domain=[0, 0.32], title=_title("accounts below 1"), rangemode="tozero"),
            shapes=shapes,
            annotations=labels,
        ),
    }


def liquidations(record: DemoRecord) -> Spec:
    """Return every liquidation by time and size, above the base fee and the gas price paid."""
    blocks = record.blocks
    colours = dict(zip(record.assets, COLLATERALS * len(record.assets), strict=False))
    placed = _places(record)
    data: list[Spec] = []
    for symbol in record.assets:
        named = False
        for full in (True, False):
            rows = [(t, r) for t, r in placed if r.collateral == symbol and r.full is full]
            if rows:
                data.append(_liquidation_marks(rows, symbol, full, colours[symbol], legend=not named))
                named = True
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "base fee",
            "yaxis": "y2",
            "x": [_time(b.timestamp) for b in blocks],
            "y": [b.base_fee_wei / 1e9 for b in blocks],
            "fill": "tozeroy",
            "fillcolor": "rgba(102,113,127,0.14)",
            "line": {"color": MUTED, "width": 1.6},
            "hovertemplate": "%{x|%H:%M}: base fee %{y:.1f} gwei<extra></extra>",
            "showlegend": False,
        }
    )
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "gas price paid",
            "yaxis": "y2",
            "x": [_time(r.timestamp) for r in record.liquidations],
            "y": [r.gas_price_wei / 1e9 for r in record.liquidations],
            "marker": {"color": INK, "size": 4, "opacity": 0.55},
            "hovertemplate": "%{x|%H:%M}: paid %{y:.1f} gwei<extra></extra>",
            "showlegend": False,
        }
    )
    shapes, labels = _fault_shapes(record)
    return {
        "data": data,
        "layout": _layout(
            470,
            margin={"l": 56, "r": 16, "t": 40, "b": 40},
            showlegend=True,
            legend={
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.04,
                "yanchor": "bottom",
                "font": {"size": 11.5, "color": INK},
                "itemsizing": "constant",
            },
            xaxis=_time_axis(record, anchor="y2"),
            yaxis=_axis(
                domain=[0.4, 1],
                type="log",
                title=_title("debt repaid"),
                tickprefix="$",
                tickformat="~s",
                dtick=1,
            ),
            yaxis2=_axis(domain=[0, 0.32], title=_title("gwei"), rangemode="tozero"),
            shapes=shapes,
            annotations=labels,
        ),
    }


def _places(record: DemoRecord) -> list[tuple[float, LiquidationRow]]:
    """Place liquidations in time: those of one block stand side by side, in the block's order."""
    times = [b.timestamp for b in record.blocks]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    room = 0.6 * min(gaps, default=1)
    out: list[tuple[float, LiquidationRow]] = []
    ordered = sorted(record.liquidations, key=lambda r: r.block)
    for _, group in itertools.groupby(ordered, key=lambda r: r.block):
        rows = list(group)
        step = min(room / len(rows), room / 6)
        out += [(r.timestamp + (i - (len(rows) - 1) / 2) * step, r) for i, r in enumerate(rows)]
    return out


def _liquidation_marks(
    rows: list[tuple[float, LiquidationRow]], symbol: str, full: bool, colour: str, *, legend: bool
) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": symbol,
        "legendgroup": symbol,
        "showlegend": legend,
        "x": [_time(int(t)) for t, _ in rows],
        "y": [r.debt_covered_usd_e8 / 1e8 for _, r in rows],
        "text": [
            f"{_short(r.account)} in block {r.block}<br>{usd(r.debt_covered_usd_e8)} of {r.debt} repaid, "
            f"{r.collateral} taken<br>{usd(r.net_usd_e8)} after gas, impact {r.impact_bps} bps"
            for _, r in rows
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "circle" if full else "circle-open",
            "color": colour,
            "size": 8,
            "opacity": 0.8,
            "line": {"width": 0.8, "color": "#ffffff"} if full else {"width": 1.6, "color": colour},
        },
    }


def _short(address: str) -> str:
    return f"{address[:6]}…{address[-4:]}"


def _simulated_usd(row: LiquidationRow) -> float:
    """Simulated profit in dollars, at the price at which the repaid debt was counted."""
    return row.profit_simulated_raw * row.debt_covered_usd_e8 / max(row.debt_covered_raw, 1) / 1e8


def _realised_usd(row: LiquidationRow) -> float:
    return row.profit_realised_raw * row.debt_covered_usd_e8 / max(row.debt_covered_raw, 1) / 1e8


def profit(record: DemoRecord) -> Spec:
    """Return realised profit against simulated profit, before gas, one dot a liquidation."""
    rows = record.liquidations
    x, y = [_simulated_usd(r) for r in rows], [_realised_usd(r) for r in rows]
    low, high = min([*x, *y], default=1.0), max([*x, *y], default=1.0)
    log = low > 0
    ends = [low / 1.5, high * 1.5] if log else [low - 0.05 * (high - low), high + 0.05 * (high - low)]
    kind: Spec = {"type": "log", "dtick": 1} if log else {"type": "linear"}
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": ends,
                "hoverinfo": "skip",
                "line": {"color": "#aab2bd", "width": 1.2},
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": x,
                "y": y,
                "text": [f"{_short(r.account)} in block {r.block}" for r in rows],
                "hovertemplate": "%{text}<br>simulated %{x:$,.2f}, realised %{y:$,.2f}<extra></extra>",
                "marker": {
                    "color": LIQUIDATION,
                    "size": 7,
                    "opacity": 0.6,
                    "line": {"color": "#ffffff", "width": 0.8},
                },
            },
        ],
        "layout": _layout(
            340,
            xaxis=_axis(**kind, title=_title("simulated, before gas"), tickprefix="$", tickformat="~s"),
            yaxis=_axis(**kind, title=_title("realised, before gas"), tickprefix="$", tickformat="~s"),
        ),
    }


def earnings(record: DemoRecord) -> Spec:
    """Return profit, gas and what is left, summed up over time."""
    total, gas = 0, 0
    sums = {record.blocks[0].timestamp: (0, 0)} if record.blocks else {}
    for row in sorted(record.liquidations, key=lambda r: r.block):
        total += row.profit_usd_e8
        gas += row.gas_usd_e8
        sums[row.timestamp] = (total, gas)
    if record.blocks:
        sums[record.blocks[-1].timestamp] = (total, gas)
    times = [_time(t) for t in sums]
    profits = [p / 1e8 for p, _ in sums.values()]
    costs = [g / 1e8 for _, g in sums.values()]
    net = [(p - g) / 1e8 for p, g in sums.values()]

    def line(y: list[float], name: str, colour: str, width: float, **fill: str) -> Spec:
        return {
            "type": "scatter",
            "mode": "lines",
            "x": times,
            "y": y,
            "name": name,
            "line": {"color": colour, "width": width, "shape": "hv"},
            "hovertemplate": "%{y:$,.0f}",
            **fill,
        }

    return {
        "data": [
            line(net, "after gas", REFERENCE, 2.4, fill="tozeroy", fillcolor="rgba(0,158,115,0.10)"),
            line(profits, "before gas", LIQUIDATION, 1.6),
            line(costs, "gas", MUTED, 1.6),
        ],
        "layout": _layout(
            340,
            hovermode="x unified",
            xaxis=_time_axis(record),
            yaxis=_axis(tickprefix="$", tickformat="~s", title=_title("summed up")),
            showlegend=True,
            legend={
                "orientation": "h",
                "x": 0.02,
                "y": 0.99,
                "yanchor": "top",
                "font": {"size": 11.5},
                "bgcolor": "rgba(255,255,255,0.7)",
            },
        ),
    }


def bad_debt(record: DemoRecord) -> Spec:
    """Return bad debt over time."""
    blocks = record.blocks
    shapes, labels = _fault_shapes(record)
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": [_time(b.timestamp) for b in blocks],
                "y": [b.bad_debt_base / 1e8 for b in blocks],
                "line": {"color": HARM, "width": 2, "shape": "hv"},
                "fill": "tozeroy",
                "fillcolor": "rgba(213,94,0,0.12)",
                "hovertemplate": "%{x|%H:%M}: %{y:$,.2f}<extra></extra>",
            }
        ],
        "layout": _layout(
            190,
            margin={"l": 56, "r": 16, "t": 22, "b": 40},
            xaxis=_time_axis(record),
            yaxis=_axis(tickprefix="$", tickformat="~s", rangemode="tozero", title=_title("bad debt")),
            shapes=shapes,
            annotations=labels,
        ),
    }
