"""``marginline oracle judge``: a feed's whole history against the guards."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from contracts_abi.errors import CheckFailed, InputError
from keeper.commands.console import plain_table, stderr_console, stdout_console
from oracle.series import SeriesHistory, judge_series, load_series


def judge(path: Path, *, every_s: int | None, heartbeat_s: int | None, strict: bool, as_json: bool) -> None:
    """Judge a recorded series and show what each guard said of it."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file",
            fix="give a CSV of `marginline oracle pull`, or a TOML that describes a series",
        )
    series = load_series(path)
    if every_s is not None:
        series = series.model_copy(update={"every_s": every_s})
    if heartbeat_s is not None:
        feed = series.feed.model_copy(update={"heartbeat_s": heartbeat_s})
        series = series.model_copy(update={"feed": feed})
    with stderr_console().status(f"{series.feed.path.name}") as status:
        found = judge_series(series, lambda rows: status.update(f"{rows:,} rows"))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        _show(found)
    bad = [g.guard for g in found.guards if g.violated]
    if strict and bad:
        raise CheckFailed(f"violated: {', '.join(bad)}")


def _show(found: SeriesHistory) -> None:
    console = stdout_console()
    console.print(
        f"{found.pair} of {found.source}: {found.rounds:,} rows, {found.looks:,} looks from "
        f"{_stamp(found.start)} to {_stamp(found.end)}, believed at {found.believed / found.looks:.4%}",
        soft_wrap=True,
    )
    table = plain_table(
        "guard", "ok", "violated", "n/a", "times", "first", "longest",
        right=("ok", "violated", "n/a", "times", "longest"),
    )  # fmt: skip
    for guard in found.guards:
        longest = max((e.end - e.start for e in guard.shown), default=None)
        colour = "red" if guard.violated else "green" if guard.ok else "dim"
        table.add_row(
            f"[{colour}]{guard.guard} {guard.name}[/]",
            f"{guard.ok:,}",
            f"{guard.violated:,}",
            f"{guard.not_applicable:,}",
            f"{guard.episodes:,}",
            _stamp(guard.shown[0].start)[:-3] if guard.shown else "",
            "" if longest is None else f"{longest:,} s",
        )
    console.print(table)
    if not found.believed and any(g.name == "stale" and g.not_applicable for g in found.guards):
        console.print("[yellow]the heartbeat is unknown, and so no price is believed: give --heartbeat[/]")
    if found.left_out:
        console.print(
            f"[dim]a series has not the inputs of {', '.join(found.left_out)}; see docs/guards.md[/]",
            soft_wrap=True,
        )


def _stamp(t: int) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S")
