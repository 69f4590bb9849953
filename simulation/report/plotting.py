"""How the reports' figures look: colours, axes and layout as plain plotly specifications.

Built by hand and not through plotly's classes: nothing is imported, nothing depends on the machine, and
the same record gives the same bytes. Colours mean the same thing everywhere: grey is the market, blue the
protocol, green the reference, orange what a sale would fetch, vermilion harm.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

Spec: TypeAlias = dict[str, Any]

INK = "#1b2430"
MUTED = "#66717f"
GRID = "#e8ebef"
MARKET = "#aab4c0"
PROTOCOL = "#0072b2"
REFERENCE = "#009e73"
EXECUTABLE = "#e69f00"
HARM = "#d55e00"
LIQUIDATION = "#8b3f96"
# One colour a collateral, apart from those above and from each other for every kind of colour vision.
COLLATERALS = ("#3b5b92", "#c2722c", "#7a9c3b", "#8b3f96", "#5f6b7a")

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def plot_time(t: int) -> str:
    """Return unix seconds as plotly takes them."""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def axis(**extra: Any) -> Spec:
    """Return an axis in the reports' style."""
    return {
        "gridcolor": GRID,
        "linecolor": "#c8ced6",
        "zeroline": False,
        "automargin": True,
        "tickfont": {"size": 11, "color": MUTED},
        "title": {"font": {"size": 11, "color": MUTED}, "standoff": 8},
        **extra,
    }


def title(text: str) -> Spec:
    """Return an axis title."""
    return {"text": text, "font": {"size": 11, "color": MUTED}, "standoff": 8}


def layout(height: int, **extra: Any) -> Spec:
    """Return a figure's layout: `height` pixels, no background, no legend."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 40},
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "bgcolor": "#ffffff", "bordercolor": "#c8ced6"},
        "showlegend": False,
        **extra,
    }
