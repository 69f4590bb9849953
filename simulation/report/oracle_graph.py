"""The picture of an oracle's tree: one box a contract, the price flowing from right to left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final
from xml.sax.saxutils import escape

from oracle.graph import OracleGraph, OracleNode
from oracle.graph_guards import Answerable, GuardView
from oracle.types import FeedKind, GuardStatus

_WIDTH: Final = 300
_GAP_X: Final = 130
_GAP_Y: Final = 22
_LINE: Final = 17
_MARGIN: Final = 24
_CHARACTERS: Final = 40
_ADDRESS: Final = re.compile(r"(0x[0-9a-fA-F]{6})[0-9a-fA-F]{28}([0-9a-fA-F]{6})")

# One colour a kind of price: who writes it, a pool makes it, a formula makes it, nobody does.
_COLOURS: Final[Mapping[FeedKind | None, str]] = {
    FeedKind.PUSH: "#2b6cb0",
    FeedKind.PULL: "#2b6cb0",
    FeedKind.COMPOSITE: "#4a5568",
    FeedKind.RATE: "#2f855a",
    FeedKind.AMM_TWAP: "#b7791f",
    FeedKind.AMM_EMA: "#b7791f",
    FeedKind.AMM_SPOT: "#c53030",
    FeedKind.CONSTANT: "#c53030",
    None: "#c53030",
}


def answer_text(node: OracleNode) -> str:
    """Return what a contract says, at its scale; empty when it says nothing."""
    if node.answer is None:
        return ""
    if node.decimals is None:
        return f"{node.answer} of unknown scale"
    return f"{Decimal(node.answer).scaleb(-node.decimals):f}"


def age_text(node: OracleNode, timestamp: int) -> str:
    """Return how old a contract's answer is; empty when it carries no time."""
    return "" if node.updated_at is None else f"{timestamp - node.updated_at:,} s old"


def bounds_text(node: OracleNode) -> str:
    """Return an aggregator's bounds at its scale, and whether they bind anything."""
    low, high = node.min_answer, node.max_answer
    if low is None and high is None:
        return ""
    if node.bounds_vacuous:
        return "bounds bind nothing"
    shown = [
        "unknown" if bound is None else f"{Decimal(bound).scaleb(-(node.decimals or 0)).normalize():f}"
        for bound in (low, high)
    ]
    return f"bounds {shown[0]} to {shown[1]}"


def cap_text(node: OracleNode) -> str:
    """Return what a contract caps at, and whether the cap binds; empty without a cap."""
    if node.cap is None:
        return ""
    bound = "" if node.live is None else ", which binds" if node.live > node.cap else ", which does not bind"
    return f"cap {node.cap}{bound}"


def node_lines(node: OracleNode, timestamp: int) -> list[str]:
    """Return what there is to say of a contract, a line each; the first is its name."""
    said = " · ".join(text for text in (answer_text(node), age_text(node, timestamp)) if text)
    lines = [
        node.shape + (f": {node.description}" if node.description else ""),
        node.address,
        said,
        node.problem,
        bounds_text(node),
        ""
        if node.heartbeat_s is None
        else f"heartbeat {node.heartbeat_s} s, deviation {node.deviation_bps} bps",
        cap_text(node),
        f"written by {len(node.writers)}: {', '.join(node.writers[:3])}"
        + (", …" if len(node.writers) > 3 else "")
        if node.writers
        else "",
        *(f"{name} {account}" for name, account in node.roles.items()),
        *(f"{name} {value}" for name, value in node.facts.items()),
    ]
    return [line for line in lines if line]


def guard_lines(views: Sequence[GuardView]) -> list[str]:
    """Return what the guards can and cannot check at a contract, a line for each kind of answer."""
    violated = [v for v in views if v.status is GuardStatus.VIOLATED]
    can = [v.guard for v in views if v.answer is Answerable.CAN and v.status is not GuardStatus.VIOLATED]
    other = [v.guard for v in views if v.answer is Answerable.OTHER_KIND]
    lines = {
        "violated": "; ".join(f"{v.guard} {v.reason}" for v in violated),
        "can": " ".join(can),
        "needs more": _by_reason(views, Answerable.NEEDS),
        "cannot": _by_reason(views, Answerable.CANNOT),
        "for other kinds": " ".join(other),
    }
    return [f"{what}: {said}" for what, said in lines.items() if said]


def _by_reason(views: Sequence[GuardView], answer: Answerable) -> str:
    """Return the guards with each reason; with what is needed where something would help."""
    several: dict[str, list[str]] = {}
    for view in views:
        if view.answer is answer:
            several.setdefault(view.needs or view.reason, []).append(view.guard)
    return "; ".join(f"{' '.join(who)} ({why})" for why, who in several.items())


def graph_svg(graph: OracleGraph, views: Mapping[str, Sequence[GuardView]] | None = None) -> str:
    """Return the tree as one SVG image; the same tree gives the same bytes.

    Parameters
    ----------
    views
        What the guards can and cannot check of each contract: shown when the pointer rests on its box.
    """
    column = _columns(graph)
    height = {at: _LINE * len(node_lines(node, graph.timestamp)) + 16 for at, node in graph.nodes.items()}
    place: dict[str, tuple[int, int]] = {}
    bottom: dict[int, int] = {}
    beside: dict[str, int] = {}
    for at, node in graph.nodes.items():
        depth = column[at]
        top = max(bottom.get(depth, _MARGIN), beside.get(at, 0))
        place[at] = (_MARGIN + depth * (_WIDTH + _GAP_X), top)
        bottom[depth] = top + height[at] + _GAP_Y
        for leg in node.legs:
            beside.setdefault(leg.address, top)
    wide = _MARGIN + (max(column.values()) + 1) * (_WIDTH + _GAP_X) - _GAP_X + _MARGIN
    high = max(bottom.values()) + _MARGIN - _GAP_Y
    edges = [
        _edge(place[at], height[at], place[leg.address], height[leg.address], leg.role)
        for at, node in graph.nodes.items()
        for leg in node.legs
    ]
    boxes = [
        _titled(_box(node, place[at], height[at], graph.timestamp), guard_lines((views or {}).get(at, ())))
        for at, node in graph.nodes.items()
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
            f'height="{high}" font-family="system-ui, sans-serif" font-size="12">',
            f"<title>Oracle {graph.root} at block {graph.block}</title>",
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
            *edges,
            *boxes,
            "</svg>\n",
        ]
    )


def _columns(graph: OracleGraph) -> dict[str, int]:
    """Return each contract's distance from the root: the longest, so that every edge points right."""
    forward = _forward(graph)
    depth = dict.fromkeys(graph.nodes, 0)
    # A longest way passes each contract at most once.
    for _ in graph.nodes:
        before = dict(depth)
        for start, end in forward:
            depth[end] = max(depth[end], depth[start] + 1)
        if depth == before:
            break
    return depth


def _forward(graph: OracleGraph) -> list[tuple[str, str]]:
    """Return the edges without those that close a circle: what is left has a longest way."""
    edges: list[tuple[str, str]] = []
    open_, closed = [(graph.root, iter(graph.nodes[graph.root].legs))], set[str]()
    while open_:
        at, legs = open_[-1]
        leg = next(legs, None)
        if leg is None:
            closed.add(at)
            open_.pop()
        elif leg.address not in {start for start, _ in open_}:
            edges.append((at, leg.address))
            if leg.address not in closed:
                open_.append((leg.address, iter(graph.nodes[leg.address].legs)))
    return edges


def _edge(start: tuple[int, int], tall: int, end: tuple[int, int], end_tall: int, role: str) -> str:
    x1, y1 = start[0] + _WIDTH, start[1] + tall // 2
    x2, y2 = end[0], end[1] + end_tall // 2
    middle = (x1 + x2) // 2
    return (
        f'<path d="M{x1},{y1} C{middle},{y1} {middle},{y2} {x2},{y2}" fill="none" stroke="#a0aec0"/>'
        f'<text x="{x2 - 8}" y="{y2 - 6}" text-anchor="end" fill="#4a5568">{escape(_cut(role, 18))}</text>'
    )


def _box(node: OracleNode, place: tuple[int, int], tall: int, timestamp: int) -> str:
    x, y = place
    colour = _COLOURS[node.kind]
    texts = [
        f'<text x="{x + 12}" y="{y + 22 + i * _LINE}"'
        + (' font-weight="600"' if i == 0 else ' fill="#4a5568"')
        + f">{escape(_cut(line, _CHARACTERS))}</text>"
        for i, line in enumerate(node_lines(node, timestamp))
    ]
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{tall}" rx="6" fill="#f7fafc" stroke="{colour}"/>'
        f'<rect x="{x}" y="{y}" width="5" height="{tall}" rx="2" fill="{colour}"/>' + "".join(texts)
    )


def _titled(box: str, lines: Sequence[str]) -> str:
    """Return a box with lines that are shown when the pointer rests on it."""
    return f"<g><title>{escape(chr(10).join(lines))}</title>{box}</g>" if lines else box


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    # Addresses are known by their ends; one that stands alone has room for most of itself.
    if text.startswith("0x"):
        return f"{text[:22]}…{text[-12:]}"
    shorter = _ADDRESS.sub(r"\1…\2", text)
    return shorter if len(shorter) <= length else shorter[: length - 1] + "…"
