"""A replay as Markdown: everything that the page says, for a pull request or an appendix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulation.replay.record import AblationRow, MatrixRecord, ReplayRecord
from simulation.replay.text import duration_text, percent_text, stamp, usd_text
from simulation.report.oracle_view import (
    ECONOMICS_COLUMNS,
    RECORD_WORDS,
    economics_rows,
    grouped_actions,
    headline,
    never_applicable,
    timelines,
)

MAX_ACTIONS = 40


def render_replay_md(record: ReplayRecord) -> str:
    """Return the report of `record` as one Markdown document. The same record gives the same text."""
    parts = [
        _head(record),
        _timeline(record),
        _checks(record),
        _summaries(record),
        _economics(record),
        _matrix(record.matrix),
        _fired(record),
        _finding(record),
        _provenance(record),
    ]
    return "\n".join(part for part in parts if part)


def _cell(text: object) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [
        "| " + " | ".join(map(_cell, columns)) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _head(record: ReplayRecord) -> str:
    lines = [f"# {record.title}", ""]
    if record.summary:
        lines += [record.summary.strip(), ""]
    lines.append(f"**Standing: {RECORD_WORDS.get(record.record, record.record)}.**")
    if record.published_loss_usd is not None:
        lines.append(f"Published loss: {usd_text(record.published_loss_usd)}.")
    lines.append("")
    rows = [
        ("scenario", record.scenario_id),
        ("date, depth, mechanism", f"{record.date}, {record.depth}, {record.mechanism or 'not named'}"),
        ("tool", f"Marginline {record.tool_version}"),
        ("scenario sha256", record.scenario_sha256 or "not read from a file"),
        *((f"data sha256, {d.what}", d.sha256) for d in record.data),
        ("seed", "none, nothing is random" if record.seed is None else record.seed),
        ("setting", record.setting),
        ("chain", f"id {record.chain_id} ({record.chain_kind}), {record.block_time_s} s a block"),
        (
            "clock",
            f"{stamp(record.start)} to {stamp(record.end)}, "
            f"{len(record.timeline)} steps of {duration_text(record.step_s)}",
        ),
    ]
    lines.append(_table(("", ""), rows))
    figures = headline(record)
    if figures:
        lines.append(_table(("figure", "", ""), ((name, value, remark) for value, name, remark in figures)))
    return "\n".join(lines)


def _timeline(record: ReplayRecord) -> str:
    out = ["## Timeline", ""]
    if record.faults:
        rows = [
            (
                f.feed,
                f.op,
                stamp(f.at),
                "the end" if f.until is None else stamp(f.until),
                ", ".join(f"{k} = {v}" for k, v in f.parameters.items()),
                "ours" if f.ours else "history",
                f.note,
            )
            for f in record.faults
        ]
        out.append(_table(("fault on", "op", "from", "until", "parameters", "whose", "note"), rows))
    for table in timelines(record):
        out.append(f"### {table.pair}, read by the protocol through {table.protocol_feed}\n")
        out.append(
            f"{len(table.lines)} of {table.steps} steps: the first, the last, and those at which "
            f"something changed{'' if table.changes <= len(table.lines) else ', thinned out'}. "
            "All steps are in report.json.\n"
        )
        columns = ("time", "block", "truth", *table.feeds, "adapter", "status", "guards violated", "protocol")
        out.append(
            _table(
                columns,
                (
                    (x.time, x.block, x.truth, *x.raw, x.adapter, x.status, x.guards, x.actions)
                    for x in table.lines
                ),
            )
        )
    return "\n".join(out)


def _checks(record: ReplayRecord) -> str:
    out = ["## Expected and actual", ""]
    if not record.checks:
        return "\n".join([*out, "The scenario states no expectation.", ""])
    rows = [("✓" if c.ok else "✗", c.text, c.expected, c.actual) for c in record.checks]
    return "\n".join([*out, _table(("", "expectation", "expected", "actual"), rows)])


def _summaries(record: ReplayRecord) -> str:
    rows = []
    for s in record.summaries:
        detected = "never"
        if s.detected_at is not None and s.detection_delay_s is not None:
            detected = f"after {duration_text(s.detection_delay_s)} by {', '.join(s.detected_by)}"
        worst = "unknown"
        if s.max_deviation_bps is not None and s.max_deviation_at is not None:
            worst = f"{s.max_deviation_bps} bps ({percent_text(int(s.max_deviation_bps))})"
            worst += f" at {stamp(s.max_deviation_at)}"
        rows.append(
            (
                s.feed,
                "never" if s.first_divergence is None else stamp(s.first_divergence),
                worst,
                duration_text(s.mispriced_s),
                duration_text(s.missing_s),
                detected,
                duration_text(s.accepted_mispriced_s),
            )
        )
    columns = (
        "feed",
        "first divergence",
        "largest deviation",
        "mispriced",
        "no answer",
        "detected",
        "mispriced and accepted",
    )
    tolerances = sorted({s.tolerance_bps for s in record.summaries})
    note = ", ".join(f"{t} bps" for t in tolerances)
    return "\n".join(["## Divergence", "", f"A feed is mispriced from {note} on.\n", _table(columns, rows)])


def _economics(record: ReplayRecord) -> str:
    economics = record.economics
    if economics is None:
        return "## What it cost\n\nThe scenario names no protocol, so nothing was lent against the price.\n"
    out = ["## What it cost", "", f"Accounts played in the {economics.model}. Amounts in {record.quote}."]
    if not economics.exact:
        out.append("**The model is generic: the figures show the order of the loss, not the wei.**")
    out += [f"- {note}" for note in economics.notes]
    out += ["", _table(ECONOMICS_COLUMNS, economics_rows(record))]
    for name, run in (("unguarded", economics.unguarded), ("guarded", economics.guarded)):
        lines = [(stamp(t), text) for t, texts in grouped_actions(run) for text in texts]
        out.append(f"### Protocol actions, {name}\n")
        if not lines:
            out.append("Nothing was borrowed, liquidated or refused.\n")
            continue
        out.append(_table(("time", "action"), lines[:MAX_ACTIONS]))
        if len(lines) > MAX_ACTIONS:
            out.append(f"and {len(lines) - MAX_ACTIONS} more in report.json\n")
    return "\n".join(out)


def ablation_cells(row: AblationRow) -> tuple[str, ...]:
    """Return a row of the guard matrix as text."""
    return (
        f"{row.guard} {row.name}",
        ", ".join(f"{k} = {v}" for k, v in row.parameters.items()),
        row.verdict,
        "" if row.first_fired is None else stamp(row.first_fired),
        "" if row.delay_s is None else duration_text(row.delay_s),
        "" if row.covered_bps is None else f"{row.covered_bps / 100:.0f} %",
        "" if row.bad_debt_usd is None else usd_text(row.bad_debt_usd),
        "" if row.wrongly_seized_usd is None else usd_text(row.wrongly_seized_usd),
    )


ABLATION_COLUMNS = (
    "guard",
    "parameters",
    "alone it",
    "fires at",
    "delay",
    "mispriced steps refused",
    "bad debt",
    "wrongly seized",
)


def _matrix(matrix: MatrixRecord | None) -> str:
    if matrix is None:
        return ""
    out = [
        "## Which single guard would have stopped it",
        "",
        "Each guard alone, beside the one that asks whether there is a price at all.\n",
        _table(ABLATION_COLUMNS, map(ablation_cells, matrix.alone)),
    ]
    if matrix.sweep:
        rows = [
            (
                f"{p.guard} {p.name}",
                f"{p.parameter} = {p.value}{' (default)' if p.default else ''}",
                p.verdict,
                "" if p.first_fired is None else stamp(p.first_fired),
                "" if p.bad_debt_usd is None else usd_text(p.bad_debt_usd),
                "" if p.wrongly_seized_usd is None else usd_text(p.wrongly_seized_usd),
            )
            for p in matrix.sweep
        ]
        columns = ("guard", "threshold", "alone it", "fires at", "bad debt", "wrongly seized")
        out += ["### Thresholds\n", _table(columns, rows)]
    if matrix.false_alarms:
        rows_ = [
            (
                p.guard,
                f"{p.parameter} = {p.threshold}{' (default)' if p.default else ''}",
                p.set,
                p.part,
                f"{p.false_alarms:,} of {p.observations:,}",
                f"{p.misses:,} of {p.faults:,}",
            )
            for p in matrix.false_alarms
        ]
        columns = ("guard", "threshold", "set", "part", "false alarms", "misses")
        out += ["### False alarms on real rounds\n", _table(columns, rows_)]
    if matrix.left_out:
        rows__ = sorted(matrix.left_out.items())
        out += ["### Guards without a calibration\n", _table(("guard", "what it lacks"), rows__)]
    return "\n".join(out)


def _fired(record: ReplayRecord) -> str:
    if not record.fired:
        return "## Guards that fired\n\nNone.\n"
    rows = [
        (
            stamp(f.t),
            f.feed,
            f"{f.guard} {f.name}",
            f.observed,
            f.threshold,
            ", ".join(f.actions),
            f.message,
        )
        for f in record.fired
    ]
    columns = ("first at", "feed", "guard", "observed", "threshold", "asks for", "message")
    silent = never_applicable(record)
    out = ["## Guards that fired", "", _table(columns, rows)]
    if silent:
        out += ["Never applicable here:\n", *(f"- {line}" for line in silent), ""]
    return "\n".join(out)


def _finding(record: ReplayRecord) -> str:
    f = record.finding
    ids = ", ".join(f.checklist_ids) or "none"
    lines = [
        "## Finding (draft)",
        "",
        f"### {f.title}",
        "",
        f"**Severity:** {f.severity}. {f.severity_reason}",
        "",
        f"**Checklist:** {ids}",
        "",
        f"**Description.** {f.description}",
        "",
        f"**Impact.** {f.impact}",
        "",
        f"**Recommendation.** {f.recommendation}",
        "",
        "**Proof of concept.** `poc/replay.py` and `poc/Replay.t.sol`, see `poc/README.md`.",
        "",
    ]
    if f.references:
        lines += ["**References**", "", *(f"- {r}" for r in f.references), ""]
    return "\n".join(lines)


def _provenance(record: ReplayRecord) -> str:
    if not record.provenance:
        return "## References\n\nThe scenario names none.\n"
    rows = [(c.claim, c.source, c.url or "", c.confidence) for c in record.provenance]
    return "\n".join(["## References", "", _table(("claim", "source", "address", "standing"), rows)])
